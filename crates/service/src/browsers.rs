//! Logging in by browser: the same password check, and a cookie's secret in the place of tokens.

use std::{net::IpAddr, sync::Arc};

use tidegate_model::{CredentialId, LoginRequest, LoginSessionId, Secret};
use tidegate_persistence::{Error as DbError, auth, login_session};

use crate::{
    Caller, Core, Error, Logins, Result,
    options::Options,
    secrets::{Purpose, random_token, same},
};

/// Logins of browsers.
#[derive(Debug, Clone)]
pub struct Browsers(pub(crate) Arc<Core>);

/// What a browser gets.
#[derive(Debug, Clone)]
pub struct BrowserLogin {
    /// The cookie's secret, fresh at each login.
    pub cookie: Secret<String>,
    /// Seconds until the login ends by itself.
    pub expires_in: u32,
}

const NOT_GOOD: Error = Error::Unauthenticated("log in first: this browser's login is missing or has ended");

impl Browsers {
    /// Logs a browser in with a password, held to what [`Logins::login`] is held to.
    pub async fn login(&self, request: LoginRequest, source: Option<IpAddr>) -> Result<BrowserLogin> {
        let (core, cookie) = (&self.0, random_token()?);
        let logins = Logins(Arc::clone(core));
        let verified = logins.verified(request, source).await?;
        let digest = core.vault.digest(Purpose::Browser, &cookie);
        let address = source.map(|source| source.to_string());
        let expires_in = core.options.browser_hours.saturating_mul(3_600);
        let id = LoginSessionId::new();
        logins
            .let_in(verified, id, source, async |tx, now| {
                let ends = now + Options::seconds(expires_in);
                login_session::insert_browser(tx, id, digest, address, now, ends).await
            })
            .await?;
        Ok(BrowserLogin { cookie: Secret::new(cookie), expires_in })
    }

    /// Who a cookie stands for, in one round trip, in the organization of the login's choice.
    pub async fn authenticate(&self, cookie: &str, source: Option<IpAddr>) -> Result<Caller> {
        self.authenticate_in(cookie, None, source).await
    }

    /// The same in an organization, by id or name; in one that is not theirs, the caller is nobody's member.
    pub async fn authenticate_in(
        &self,
        cookie: &str,
        wanted: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Caller> {
        let core = &self.0;
        let hash = core.vault.digest(Purpose::Browser, cookie);
        match auth::browser(&core.db, hash, wanted, core.clock.now()).await {
            Ok(login) => Ok(Caller { user: login.user, org: login.org, wanted: wanted.map(str::to_owned) }),
            Err(DbError::NotFound) => {
                core.throttle.failure(source, core.clock.now())?;
                Err(NOT_GOOD)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the forms of a logged-in browser's pages carry, so that no other site's page can send them.
    pub fn form_token(&self, caller: &Caller) -> String {
        let CredentialId::Login(id) = caller.credential() else { return String::new() };
        hex::encode(self.0.vault.digest(Purpose::Form, &id.to_string()))
    }

    /// Whether a form came from a page of this very login.
    pub fn form_token_fits(&self, caller: &Caller, brought: &str) -> bool {
        let expected = self.form_token(caller);
        !expected.is_empty() && same(expected.as_bytes(), brought.as_bytes())
    }

    /// A secret for a browser that is not logged in yet.
    pub fn visit(&self) -> Result<Secret<String>> {
        random_token().map(Secret::new)
    }

    /// What the login page carries for a visit, so that nobody is logged in by another site's page.
    pub fn visit_token(&self, visit: &str) -> String {
        hex::encode(self.0.vault.digest(Purpose::Visit, visit))
    }

    /// Whether a login form came from the page of this very visit.
    pub fn visit_token_fits(&self, visit: &str, brought: &str) -> bool {
        same(self.visit_token(visit).as_bytes(), brought.as_bytes())
    }
}
