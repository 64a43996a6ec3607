//! The browser session at the end of a sign-in: the same one that a password opens.

use std::net::IpAddr;

use serde_json::json;
use tidegate_model::{LoginSessionId, Provider as Kind, Secret};
use tidegate_persistence::{
    Error as DbError, Origin, audit,
    identity::{self, Known},
    login_session,
};

use super::{Identities, welcome::deactivated};
use crate::{
    BrowserLogin, Result,
    options::Options,
    secrets::{Purpose, random_token},
};

impl Identities {
    /// Logs a browser in as whom a provider vouched for.
    pub(super) async fn open(
        &self,
        known: Known,
        provider: Kind,
        source: Option<IpAddr>,
    ) -> Result<BrowserLogin> {
        let core = &self.0;
        let (login_id, now, user) = (LoginSessionId::new(), core.clock.now(), known.user_id);
        let scope = known.into_scope(login_id).with_origin(Origin::new(source, None));
        let (cookie, address) = (random_token()?, source.map(|source| source.to_string()));
        let hash = core.vault.digest(Purpose::Browser, &cookie);
        let expires_in = core.options.browser_hours.saturating_mul(3_600);
        let ends = now + Options::seconds(expires_in);
        let line = audit::Entry {
            action: "login.create",
            resource: format!("user:{user}"),
            address: None,
            detail: json!({"provider": provider}),
            at: now,
        };
        let stands = core
            .db
            .in_user(&scope, async |tx| {
                // First, and under the row's lock: who was deactivated a moment ago is not let in.
                if !identity::touch_login(tx, now).await? {
                    return Ok(false);
                }
                login_session::insert_browser(tx, login_id, hash, address, now, ends).await?;
                audit::insert_user(tx, None, line).await?;
                Ok::<_, DbError>(true)
            })
            .await?;
        if stands { Ok(BrowserLogin { cookie: Secret::new(cookie), expires_in }) } else { Err(deactivated()) }
    }
}
