//! Signing in elsewhere: a browser is sent to a provider and comes back, once, as somebody.
//!
//! The provider is asked before a transaction or after one, never inside of it.

mod open;
mod welcome;

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use tidegate_identity::{Departure, Error as Elsewhere, Person, Provider, Return};
use tidegate_model::{Provider as Kind, Secret};
use tidegate_persistence::{
    Error as DbError, Operator, Origin,
    identity_attempt::{self, NewAttempt},
};

use crate::{
    BrowserLogin, Core, Error, Result,
    secrets::{Purpose, random_token, same},
};

pub use welcome::GithubUpsert;

/// People who sign in elsewhere.
#[derive(Debug, Clone)]
pub struct Identities(pub(crate) Arc<Core>);

/// A provider as the login page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInProvider {
    /// GitHub or OpenID Connect.
    pub kind: Kind,
    /// Its name in addresses.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
}

/// A browser that asks to be sent to a provider.
#[derive(Debug, Clone)]
pub struct Asked {
    /// GitHub or OpenID Connect.
    pub kind: Kind,
    /// The provider's name.
    pub name: String,
    /// Where to go afterwards: a path of this server, checked by whoever asks.
    pub next: String,
    /// The secret that the browser has from an attempt before: several may be under way side by side.
    pub browser: Option<String>,
    /// Where the provider sends it back to.
    pub redirect_uri: String,
    /// Where the request came from.
    pub source: Option<IpAddr>,
}

/// A browser about to be sent away.
#[derive(Debug, Clone)]
pub struct SentAway {
    /// Where to.
    pub url: String,
    /// The secret that it has to bring back.
    pub browser: Secret<String>,
    /// Seconds it has for that.
    pub expires_in: u32,
}

/// A browser that comes back. Nothing of it is believed yet.
#[derive(Debug, Clone, Default)]
pub struct CameBack {
    /// What the provider hands back.
    pub state: Option<String>,
    /// What it gives a token for.
    pub code: Option<String>,
    /// Who it says that it is (RFC 9207).
    pub iss: Option<String>,
    /// Why it gives no code.
    pub error: Option<String>,
    /// The secret that the browser brings.
    pub browser: Option<String>,
    /// The same as when it was sent away.
    pub redirect_uri: String,
    /// Where the request came from.
    pub source: Option<IpAddr>,
}

/// A browser that is logged in.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Its cookie.
    pub login: BrowserLogin,
    /// Where it wanted to go.
    pub next: String,
}

/// How long a browser may be away.
const AWAY: u32 = 600;
/// Longest code that is passed on.
const LONGEST_CODE: usize = 4_096;

impl Identities {
    /// The providers of the settings, in their order.
    pub fn providers(&self) -> Vec<SignInProvider> {
        let shown = |one: &Provider| SignInProvider {
            kind: one.kind(),
            name: one.name().to_owned(),
            display_name: one.display_name().to_owned(),
        };
        self.0.providers.all().iter().map(shown).collect()
    }

    /// Sends a browser to a provider, and remembers it by digests alone.
    pub async fn begin(&self, asked: Asked) -> Result<SentAway> {
        let (core, now) = (&self.0, self.0.clock.now());
        let provider = self.provider(asked.kind, &asked.name)?;
        core.throttle.sign_in(asked.source, now)?;
        let browser = asked.browser.map_or_else(random_token, Ok)?;
        let (state, nonce) = (random_token()?, random_token()?);
        let attempt = NewAttempt {
            state_hash: core.vault.digest(Purpose::SignInState, &state),
            browser_hash: core.vault.digest(Purpose::SignInBrowser, &browser),
            nonce_hash: core.vault.digest(Purpose::SignInNonce, &nonce),
            provider: key(provider),
            next: asked.next,
            now,
            expires_at: now + TimeDelta::seconds(i64::from(AWAY)),
        };
        let leaving = Departure {
            redirect_uri: asked.redirect_uri,
            verifier: self.verifier(&state, &browser),
            state: Secret::new(state),
            nonce: Secret::new(nonce),
        };
        // What is wrong with the provider is the operator's to read in the log; whoever stands here can but wait.
        let url = provider.depart(&leaving, now).await.map_err(|error| silent(provider, error))?;
        core.db
            .in_platform(&Operator::system(), async |tx| identity_attempt::insert(tx, attempt).await)
            .await?;
        Ok(SentAway { url: url.into(), browser: Secret::new(browser), expires_in: AWAY })
    }

    /// Logs the browser in that comes back, as whom the provider says it is.
    pub async fn finish(&self, kind: Kind, name: &str, back: CameBack) -> Result<SignedIn> {
        let now = self.0.clock.now();
        let provider = self.provider(kind, name)?;
        let (Some(state), Some(browser)) = (&back.state, &back.browser) else {
            return Err(self.stray(back.source, now));
        };
        let (nonce, next) = self.take(provider, state, browser, &back, now).await?;
        if let Some(error) = &back.error {
            return Err(no(provider, error));
        }
        let verifier = self.verifier(state, browser);
        let person = self.person(provider, &back, verifier, &nonce, now).await?;
        let known = self.welcome_person(provider, person, back.source, now).await?;
        let login = self.open(known, kind, back.source).await?;
        Ok(SignedIn { login, next })
    }

    /// Whom the provider knows by the code that a browser brings.
    async fn person(
        &self,
        provider: &Provider,
        back: &CameBack,
        verifier: Secret<String>,
        nonce: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Person> {
        let brought = back.code.clone().filter(|code| (1..=LONGEST_CODE).contains(&code.len()));
        let code = Secret::new(brought.ok_or_else(|| refused(provider, "it sent no code"))?);
        let redirect_uri = back.redirect_uri.clone();
        let brought = Return { redirect_uri, code, iss: back.iss.as_deref(), verifier };
        let vault = &self.0.vault;
        let is_nonce = |brought: &str| same(&vault.digest(Purpose::SignInNonce, brought), nonce);
        let person = provider.arrive(&brought, &is_nonce, now).await.map_err(|error| match error {
            Elsewhere::Refused(why) => refused(provider, why),
            silence @ Elsewhere::Unavailable(_) => silent(provider, silence),
        })?;
        if provider.allows(person.email.as_deref()) {
            return Ok(person);
        }
        Err(Error::Forbidden(format!(
            "{} knows you by no verified e-mail address of a domain that may sign in here",
            provider.display_name()
        )))
    }

    fn provider(&self, kind: Kind, name: &str) -> Result<&Provider> {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(32).collect();
        let found = self.0.providers.find(kind, name);
        found.ok_or_else(|| Error::not_found(format_args!("the sign-in provider {shown}")))
    }

    /// Takes the attempt away, so that nobody comes back twice.
    async fn take(
        &self,
        provider: &Provider,
        state: &str,
        browser: &str,
        back: &CameBack,
        now: DateTime<Utc>,
    ) -> Result<(Vec<u8>, String)> {
        let core = &self.0;
        let state = core.vault.digest(Purpose::SignInState, state);
        let browser = core.vault.digest(Purpose::SignInBrowser, browser);
        let key = key(provider);
        let taken = core
            .db
            .in_platform(&Operator::system().with_origin(Origin::new(back.source, None)), async |tx| {
                identity_attempt::take(tx, state, browser, &key, now).await
            })
            .await;
        taken.map_err(|error| match error {
            DbError::NotFound => self.stray(back.source, now),
            other => other.into(),
        })
    }

    /// Somebody comes back who was never sent away, not from here, or long ago. Too many of them are not looked at.
    fn stray(&self, source: Option<IpAddr>, now: DateTime<Utc>) -> Error {
        match self.0.throttle.failure(source, now) {
            Err(limited) => limited,
            Ok(()) => Error::Forbidden(
                "this sign-in was begun in another browser, is too old or was finished already: begin again"
                    .into(),
            ),
        }
    }

    /// PKCE's verifier, made anew from what the browser brings back: no row and no cookie holds it.
    fn verifier(&self, state: &str, browser: &str) -> Secret<String> {
        let both = format!("{state}.{browser}");
        Secret::new(URL_SAFE_NO_PAD.encode(self.0.vault.digest(Purpose::SignInVerifier, &both)))
    }
}

/// What an attempt remembers a provider by: those of two kinds may have one name.
fn key(provider: &Provider) -> String {
    format!("{}:{}", provider.kind(), provider.name())
}

/// What is said to whoever comes back with an error. The provider's own words are for nobody: anybody can write them
/// into an address.
fn no(provider: &Provider, error: &str) -> Error {
    let name = provider.display_name();
    Error::Forbidden(match error {
        "access_denied" => {
            format!("you were not let in by {name}, or did not want to be: try again if you do")
        }
        _ => format!("{name} could not sign you in: try again, or log in another way"),
    })
}

fn refused(provider: &Provider, why: &str) -> Error {
    Error::Forbidden(format!("{} could not sign you in, because {why}: begin again", provider.display_name()))
}

fn silent(provider: &Provider, source: Elsewhere) -> Error {
    Error::ProviderUnavailable { provider: provider.display_name().to_owned(), source: source.into() }
}
