//! What users do about their own logins: see where they are logged in, end a login, change their password.

use std::{net::IpAddr, sync::Arc};

use serde_json::json;
use tidegate_model::{
    ChangePasswordRequest, FieldErrors, LoginSession, LoginSessionId, Provider, Secret, validate_password,
};
use tidegate_persistence::{Error as DbError, audit, auth, device_code, login_session, user};

use crate::{Caller, Core, Error, Listed, Logins, Nudge, Paging, Result, page, users::entry};

impl Logins {
    /// The caller's logins that stand, the newest first.
    pub async fn list(&self, caller: &Caller, paging: &Paging) -> Result<Listed<LoginSession>> {
        let (before, rows, now) = (paging.after_moment()?, paging.rows(), self.0.clock.now());
        let listed =
            self.0.db.in_user(&caller.user, async |tx| login_session::list(tx, before, rows, now).await);
        let (items, total) = listed.await?;
        Ok(paging.page(items, total, |login| page::moment(login.created_at, login.id)))
    }

    /// Ends a login of the caller's at once, be it the one they ask with. One that has ended is not there.
    pub async fn revoke(&self, caller: &Caller, id: LoginSessionId, source: Option<IpAddr>) -> Result<()> {
        let now = self.0.clock.now();
        let line = audit::Entry {
            resource: format!("login:{id}"),
            ..entry("auth.revoke_login", caller.user.user_id(), source, json!({}), now)
        };
        self.0
            .db
            .in_user(&caller.user, async |tx| {
                if !login_session::revoke(tx, id, now).await? {
                    return Err(Error::not_found(format_args!("login {id}")));
                }
                Ok(audit::insert_user(tx, None, line).await?)
            })
            .await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(())
    }

    /// Gives the caller another password, who brings the one in force. Their other logins end; this one goes on. Wrong
    /// ones count against the name like those of a login.
    pub async fn change_password(
        &self,
        caller: &Caller,
        request: ChangePasswordRequest,
        source: Option<IpAddr>,
    ) -> Result<()> {
        let core = &self.0;
        let name = caller.user.username();
        validate_password(request.new_password.expose(), name)
            .map_err(|complaint| Error::Invalid(FieldErrors::one("newPassword", complaint)))?;
        let old = verified(core, name, request.current_password, source).await?;
        let new = core.passwords.hash(request.new_password).await?;
        let now = core.clock.now();
        let line = entry("user.change_password", caller.user.user_id(), source, json!({}), now);
        core.db
            .in_user(&caller.user, async |tx| {
                // Of two changes at once, and of a change and a deactivation, one finds another hash than it verified.
                if !user::replace_password(tx, old, new, now).await? {
                    return Err(Error::InvalidCredentials);
                }
                login_session::revoke_others(tx, now).await?;
                // Devices that somebody let in with the old password and that have no token yet.
                device_code::deny_own(tx).await?;
                Ok(audit::insert_user(tx, None, line).await?)
            })
            .await?;
        core.nudges.send(Nudge::Revalidate);
        Ok(())
    }
}

/// The hash of a local user's password, if there is one and they are active.
pub(crate) async fn stored(core: &Core, name: &str) -> Result<Option<String>> {
    let found = match auth::user_by_name(&core.db, name).await {
        Ok(found) => Some(found),
        Err(DbError::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let found = found.filter(|found| found.active && found.provider == Provider::Local);
    Ok(found.and_then(|found| found.password_hash))
}

/// The hash that the password in force fits. Wrong ones count against the name like those of a login.
pub(crate) async fn verified(
    core: &Core,
    name: &str,
    password: Secret<String>,
    source: Option<IpAddr>,
) -> Result<String> {
    let attempt = core.throttle.attempt(name, source, Arc::clone(&core.clock));
    attempt.allowed()?;
    let stored = stored(core, name).await?;
    let fits = core.passwords.verify(password, stored.clone(), attempt).await?;
    stored.filter(|_| fits).ok_or(Error::InvalidCredentials)
}
