//! An OpenID Connect provider: discovery, the code flow, and its signed word.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError,
    Scope, StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
    basic::{
        BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
    },
};
use serde::{Deserialize, Serialize};
use tidegate_model::Secret;
use tokio::sync::Mutex;
use url::Url;

use crate::{
    Departure, Error, OidcOptions, Person, Result, Return,
    claims::{self, Expected, Profile},
    discovery::{Discovery, discover},
    keys::{Keys, SIGNATURES},
    options::secret,
    web::Web,
};

/// How long a provider's documents are believed.
const FRESH: TimeDelta = TimeDelta::hours(1);
/// How soon keys are read again for a token that is signed with one that is not known.
const AGAIN: TimeDelta = TimeDelta::seconds(10);
/// How long a provider that does not answer is not asked again.
const REST: TimeDelta = TimeDelta::seconds(2);

/// An ID token beside the access token.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct IdToken {
    id_token: Option<String>,
}
impl ExtraTokenFields for IdToken {}

type Tokens = StandardTokenResponse<IdToken, BasicTokenType>;
type Asker = Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

#[derive(Debug)]
pub(crate) struct Oidc {
    web: Web,
    issuer: String,
    client_id: String,
    secret: Secret<String>,
    scopes: Vec<String>,
    held: Mutex<Held>,
}

/// What was read of a provider, and when.
#[derive(Debug, Default)]
struct Held {
    known: Option<Arc<Known>>,
    failed_at: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Known {
    discovery: Discovery,
    keys: Keys,
    read_at: DateTime<Utc>,
    keys_read_at: DateTime<Utc>,
}

/// Who answers, for what is asked of it at `now`.
#[derive(Debug, Deserialize)]
struct Userinfo {
    sub: String,
    #[serde(flatten)]
    profile: Profile,
}

impl Oidc {
    pub(crate) fn new(options: &OidcOptions, web: Web) -> Result<Self, String> {
        options.check()?;
        let of = format!("the provider `{}`", options.name);
        let secret = secret(&of, options.client_secret.as_ref(), options.client_secret_file.as_ref())?;
        let mut scopes = options.scopes.clone();
        if !scopes.iter().any(|scope| scope == "openid") {
            scopes.insert(0, "openid".to_owned());
        }
        let (issuer, client_id) = (options.issuer.clone(), options.client_id.clone());
        Ok(Self { web, issuer, client_id, secret, scopes, held: Mutex::default() })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) async fn probe(&self, now: DateTime<Utc>) -> Result<()> {
        self.known(now).await.map(drop)
    }

    pub(crate) async fn depart(&self, leaving: &Departure, now: DateTime<Utc>) -> Result<Url> {
        let known = self.known(now).await?;
        let asker = self.asker(&known.discovery, &leaving.redirect_uri)?;
        let verifier = PkceCodeVerifier::new(leaving.verifier.expose().clone());
        let state = CsrfToken::new(leaving.state.expose().clone());
        let (url, _) = asker
            .authorize_url(|| state)
            .add_scopes(self.scopes.iter().cloned().map(Scope::new))
            .add_extra_param("nonce", leaving.nonce.expose().as_str())
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .url();
        Ok(url)
    }

    /// Whom a code stands for. `is_nonce` says whether a nonce is that of the attempt.
    pub(crate) async fn arrive(
        &self,
        back: &Return<'_>,
        is_nonce: &(dyn Fn(&str) -> bool + Sync),
        now: DateTime<Utc>,
    ) -> Result<Person> {
        let known = self.known(now).await?;
        match back.iss {
            Some(iss) if iss != self.issuer => {
                return Err(Error::Refused("the browser comes from another provider"));
            }
            None if known.discovery.names_itself => {
                return Err(Error::Refused("the browser comes from a provider that does not name itself"));
            }
            _ => {}
        }
        let tokens = self.exchange(&known.discovery, back).await?;
        let token = tokens.extra_fields().id_token.as_deref();
        let token = token.ok_or(Error::Refused("it gave no ID token"))?;
        let expected = Expected { issuer: &self.issuer, client_id: &self.client_id, is_nonce, now };
        let claims = self.believed(known.clone(), token, &expected).await?;
        let profile = match &known.discovery.userinfo {
            Some(url) if !claims.profile.tells_email() => {
                let access = Secret::new(tokens.access_token().secret().clone());
                let told: Userinfo = self.web.shown(url, "application/json", &access).await?;
                if told.sub != claims.sub {
                    return Err(Error::Refused("it tells of somebody else than its token"));
                }
                claims.profile.or(told.profile)
            }
            _ => claims.profile,
        };
        Ok(self.person(claims.sub, &profile))
    }

    fn person(&self, subject: String, profile: &Profile) -> Person {
        let name = profile.name().map(str::to_owned);
        Person {
            issuer: self.issuer.clone(),
            subject,
            username: profile.username().map(str::to_owned).or_else(|| name.clone()).unwrap_or_default(),
            full_name: name,
            email: profile.verified_email().map(str::to_owned),
            avatar_url: profile.picture().map(str::to_owned),
            github_id: None,
        }
    }

    async fn exchange(&self, discovery: &Discovery, back: &Return<'_>) -> Result<Tokens> {
        let asker = self.asker(discovery, &back.redirect_uri)?;
        let send = |request| self.web.send(request);
        asker
            .exchange_code(AuthorizationCode::new(back.code.expose().clone()))
            .set_pkce_verifier(PkceCodeVerifier::new(back.verifier.expose().clone()))
            .request_async(&send)
            .await
            .map_err(refused)
    }

    /// Checks a token against the keys that are known, and once against fresh ones where its key is not among them.
    async fn believed(
        &self,
        known: Arc<Known>,
        token: &str,
        expected: &Expected<'_>,
    ) -> Result<claims::Claims> {
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| Error::Refused("its token is signed in no way that is known here"))?;
        if !SIGNATURES.contains(&header.alg) {
            return Err(Error::Refused("its token is signed in a way that is not accepted"));
        }
        let key = if let Some(key) = known.keys.fitting(&header) {
            key
        } else {
            let renewed = self.renewed(&known, expected.now).await?;
            renewed.keys.fitting(&header).ok_or(Error::Refused("its token names a key it has not"))?
        };
        claims::verified(token, &header, &key, expected)
    }

    /// The provider's documents: read once, by one of those who need them, and again when they are old.
    async fn known(&self, now: DateTime<Utc>) -> Result<Arc<Known>> {
        let mut held = self.held.lock().await;
        if let Some(known) = held.known.as_ref().filter(|known| now - known.read_at < FRESH) {
            return Ok(Arc::clone(known));
        }
        if held.failed_at.is_some_and(|at| now - at < REST) {
            return Err(Error::unavailable("it did not answer a moment ago"));
        }
        match self.read(now).await {
            Ok(known) => {
                *held = Held { known: Some(Arc::clone(&known)), failed_at: None };
                Ok(known)
            }
            Err(error) => {
                held.failed_at = Some(now);
                Err(error)
            }
        }
    }

    async fn read(&self, now: DateTime<Utc>) -> Result<Arc<Known>> {
        let discovery = discover(&self.web, &self.issuer).await?;
        let keys = Keys::read(&self.web, &discovery.keys).await?;
        Ok(Arc::new(Known { discovery, keys, read_at: now, keys_read_at: now }))
    }

    /// The documents with keys read anew, unless they are new already: tokens that name keys nobody has are free.
    async fn renewed(&self, old: &Arc<Known>, now: DateTime<Utc>) -> Result<Arc<Known>> {
        let mut held = self.held.lock().await;
        if let Some(known) = held.known.as_ref().filter(|known| !Arc::ptr_eq(known, old)) {
            return Ok(Arc::clone(known));
        }
        if now - old.keys_read_at < AGAIN {
            return Ok(Arc::clone(old));
        }
        let keys = Keys::read(&self.web, &old.discovery.keys).await?;
        let (discovery, read_at) = (old.discovery.clone(), old.read_at);
        let known = Arc::new(Known { discovery, keys, read_at, keys_read_at: now });
        held.known = Some(Arc::clone(&known));
        Ok(known)
    }

    fn asker(&self, discovery: &Discovery, redirect_uri: &str) -> Result<Asker> {
        let redirect = RedirectUrl::new(redirect_uri.to_owned())
            .map_err(|_| Error::Refused("it cannot be told where to send the browser back to"))?;
        let auth = if discovery.secret_in_body { AuthType::RequestBody } else { AuthType::BasicAuth };
        Ok(Client::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.secret.expose().clone()))
            .set_auth_uri(AuthUrl::from_url(discovery.authorize.clone()))
            .set_token_uri(TokenUrl::from_url(discovery.token.clone()))
            .set_redirect_uri(redirect)
            .set_auth_type(auth))
    }
}

/// What a token endpoint's refusal means; its own words stay with it.
pub(crate) fn refused<T: oauth2::ErrorResponse>(error: RequestTokenError<Error, T>) -> Error {
    match error {
        RequestTokenError::Request(error) => error,
        RequestTokenError::ServerResponse(_) => Error::Refused("it does not take the code"),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            Error::Refused("its answer for the code cannot be read")
        }
    }
}
