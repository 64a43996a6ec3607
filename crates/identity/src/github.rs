//! GitHub: the code flow with PKCE, and what its API says of whoever the token is for.

use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse, TokenUrl, basic::BasicClient,
};
use serde::Deserialize;
use tidegate_model::Secret;
use url::Url;

use crate::{
    Departure, Error, GithubOptions, Person, Result, Return,
    oidc::refused,
    options::{address, secret},
    web::Web,
};

const ACCEPT: &str = "application/vnd.github+json";
/// Addresses of one person that are looked at.
const MOST: usize = 100;

type Asker = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

#[derive(Debug)]
pub(crate) struct Github {
    web: Web,
    issuer: String,
    client_id: String,
    secret: Secret<String>,
    authorize: Url,
    token: Url,
    user: Url,
    emails: Url,
}

#[derive(Debug, Deserialize)]
struct User {
    id: i64,
    login: String,
    name: Option<String>,
    avatar_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Email {
    #[serde(rename = "email")]
    address: String,
    primary: bool,
    verified: bool,
}

impl Github {
    pub(crate) fn new(options: &GithubOptions, web: Web) -> Result<Self, String> {
        let base = address(&options.base_url).map_err(|why| format!("`auth.github.base_url` {why}"))?;
        let issuer = base.as_str().trim_end_matches('/').to_owned();
        if options.client_id.is_empty() {
            return Err("`auth.github.client_id` is empty".to_owned());
        }
        let secret =
            secret("`auth.github`", options.client_secret.as_ref(), options.client_secret_file.as_ref())?;
        let api = match base.host_str() {
            Some("github.com") => "https://api.github.com".to_owned(),
            _ => format!("{issuer}/api/v3"),
        };
        let place = |text: String| Url::parse(&text).map_err(|error| format!("`{text}`: {error}"));
        Ok(Self {
            web,
            client_id: options.client_id.clone(),
            secret,
            authorize: place(format!("{issuer}/login/oauth/authorize"))?,
            token: place(format!("{issuer}/login/oauth/access_token"))?,
            user: place(format!("{api}/user"))?,
            emails: place(format!("{api}/user/emails"))?,
            issuer,
        })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether it answers at all: without a token it says no, which is an answer.
    pub(crate) async fn probe(&self) -> Result<()> {
        match self.web.document::<serde_json::Value>(&self.user).await {
            Err(error @ Error::Unavailable(_)) => Err(error),
            Ok(_) | Err(Error::Refused(_)) => Ok(()),
        }
    }

    pub(crate) fn depart(&self, leaving: &Departure) -> Result<Url> {
        let verifier = PkceCodeVerifier::new(leaving.verifier.expose().clone());
        let state = CsrfToken::new(leaving.state.expose().clone());
        let (url, _) = self
            .asker(&leaving.redirect_uri)?
            .authorize_url(|| state)
            .add_scope(Scope::new("read:user".to_owned()))
            .add_scope(Scope::new("user:email".to_owned()))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .url();
        Ok(url)
    }

    pub(crate) async fn arrive(&self, back: &Return<'_>) -> Result<Person> {
        if back.iss.is_some_and(|iss| !self.is_own(iss)) {
            return Err(Error::Refused("the browser comes from another provider"));
        }
        let send = |request| self.web.send(request);
        let tokens = self
            .asker(&back.redirect_uri)?
            .exchange_code(AuthorizationCode::new(back.code.expose().clone()))
            .set_pkce_verifier(PkceCodeVerifier::new(back.verifier.expose().clone()))
            .request_async(&send)
            .await
            .map_err(refused)?;
        let token = Secret::new(tokens.access_token().secret().clone());
        let user: User = self.web.shown(&self.user, ACCEPT, &token).await?;
        if user.id <= 0 {
            return Err(Error::Refused("it names nobody"));
        }
        let email = self.email(&token).await?;
        Ok(Person {
            issuer: self.issuer.clone(),
            subject: user.id.to_string(),
            username: user.login,
            full_name: user.name.filter(|name| !name.trim().is_empty()),
            email,
            avatar_url: user.avatar_url,
            github_id: Some(user.id),
        })
    }

    /// GitHub names itself by its address, or by that of its authorization server below it.
    fn is_own(&self, iss: &str) -> bool {
        iss.strip_prefix(&self.issuer).is_some_and(|path| matches!(path, "" | "/" | "/login/oauth"))
    }

    /// The person's main address, if it is verified. Whoever does not show theirs is let in without one.
    async fn email(&self, token: &Secret<String>) -> Result<Option<String>> {
        let all: Vec<Email> = match self.web.shown(&self.emails, ACCEPT, token).await {
            Err(Error::Refused(_)) => return Ok(None),
            answer => answer?,
        };
        let main = all.into_iter().take(MOST).find(|email| email.primary && email.verified);
        Ok(main.map(|email| email.address))
    }

    fn asker(&self, redirect_uri: &str) -> Result<Asker> {
        let redirect = RedirectUrl::new(redirect_uri.to_owned())
            .map_err(|_| Error::Refused("it cannot be told where to send the browser back to"))?;
        Ok(BasicClient::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.secret.expose().clone()))
            .set_auth_uri(AuthUrl::from_url(self.authorize.clone()))
            .set_token_uri(TokenUrl::from_url(self.token.clone()))
            .set_redirect_uri(redirect)
            .set_auth_type(AuthType::RequestBody))
    }
}
