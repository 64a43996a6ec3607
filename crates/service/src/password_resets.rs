//! Passwords that users have forgotten. Whoever asks is told the same, whether there is such a user or not, and costs the
//! same: what was typed is kept sealed, and looked up by whoever sends the mail. Its link sets one password, once.

use std::{net::IpAddr, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tidegate_model::{
    FieldErrors, NewPasswordRequest, PasswordResetId, Provider, ResetPasswordRequest, UserId,
    validate_password,
};
use tidegate_persistence::{
    Operator, Origin, PlatformTx, audit,
    password_reset::{self, DueReset, Owner},
    user, user_change,
};

use crate::{
    Core, Error, Nudge, Result,
    error::Named,
    secrets::{Purpose, random_token},
};

/// Passwords that users have forgotten.
#[derive(Debug, Clone)]
pub struct PasswordResets(pub(crate) Arc<Core>);

/// Longest time that a link may be good for.
const LONGEST: u32 = 60;

const NOT_GOOD: &str =
    "a link that is good: it was used, is too old, or its user has changed since; ask for a new one";

/// A mail to be written: to whom, and what its link brings.
pub(crate) struct Armed {
    pub(crate) owner: Owner,
    pub(crate) token: String,
    pub(crate) expires_at: DateTime<Utc>,
}

impl PasswordResets {
    /// Asks for the mail that lets a user set another password. The answer is the same for everybody, in words and time.
    pub async fn ask(&self, request: &ResetPasswordRequest, source: Option<IpAddr>) -> Result<()> {
        let (core, now, id) = (&self.0, self.0.clock.now(), PasswordResetId::new());
        let subject = request.username.expose();
        core.throttle.password_reset(subject, source, now)?;
        let sealed = core.vault.seal(id.as_uuid().as_bytes(), subject.as_bytes())?;
        let system = Operator::system();
        let insert = async |tx: &mut PlatformTx| password_reset::insert(tx, id, sealed, now).await;
        core.db.in_platform(&system, insert).await?;
        core.nudges.send(Nudge::Mail);
        Ok(())
    }

    /// Looks for whom a claimed reset is, and makes the token that its mail brings: the one before counts for nothing any
    /// more. None where nobody's password may be set by mail, or another try has begun.
    pub(crate) async fn arm(&self, due: &DueReset) -> Result<Option<Armed>> {
        let (core, now) = (&self.0, self.0.clock.now());
        let subject = core.vault.open(due.id.as_uuid().as_bytes(), &due.subject)?;
        let Ok(subject) = String::from_utf8(subject) else { return Ok(None) };
        let token = random_token()?;
        let hash = core.vault.digest(Purpose::PasswordReset, &token);
        let minutes = core.options.password_reset_minutes.clamp(1, LONGEST);
        let expires_at = now + TimeDelta::minutes(i64::from(minutes));
        let this = (due.id, due.attempt);
        let first = due.attempt == 1;
        core.db
            .in_platform(&Operator::system(), async |tx| {
                let Some(owner) = password_reset::owner(tx, &subject).await? else { return Ok(None) };
                if !password_reset::arm(tx, this, &owner, hash, expires_at).await? {
                    return Ok(None);
                }
                if first {
                    audit_in(tx, "user.password_reset.ask", owner.id, None, now).await?;
                }
                Ok::<_, Error>(Some(Armed { owner, token, expires_at }))
            })
            .await
    }

    /// Whether a link is good at this moment, for the page that asks for the password. It is used by [`Self::set`] alone.
    pub async fn look(&self, token: &str, source: Option<IpAddr>) -> Result<()> {
        self.owner(token, source).await.map(drop)
    }

    /// Sets another password for the token of a mail, which is used up with it: of several at the same time exactly one
    /// does. Every login of the user ends, on devices too; API keys act for programs, and go on.
    pub async fn set(&self, request: NewPasswordRequest, source: Option<IpAddr>) -> Result<()> {
        let core = &self.0;
        let NewPasswordRequest { token, new_password } = request;
        let (id, username) = self.owner(token.expose(), source).await?;
        validate_password(new_password.expose(), &username)
            .map_err(|complaint| Error::Invalid(FieldErrors::one("newPassword", complaint)))?;
        let new = core.passwords.hash_for_another(new_password).await?;
        let (now, hash) = (core.clock.now(), core.vault.digest(Purpose::PasswordReset, token.expose()));
        core.db
            .in_platform(&Operator::system().with_origin(Origin::new(source, None)), async |tx| {
                // Racers take turns here: all but the first find the token used.
                let before = user_change::lock(tx, id).await.named(NOT_GOOD)?;
                if before.provider != Provider::Local || !password_reset::consume(tx, hash, id, now).await? {
                    return Err(Error::not_found(NOT_GOOD));
                }
                user::set_password(tx, id, new, now).await?;
                user_change::end_logins(tx, id, now).await?;
                audit_in(tx, "user.password_reset", id, source, now).await
            })
            .await?;
        core.nudges.send(Nudge::Revalidate);
        Ok(())
    }

    /// Whose password a token sets, and what they are called. Wrong ones are counted; the right one is let in whatever came
    /// before it, as with keys.
    async fn owner(&self, token: &str, source: Option<IpAddr>) -> Result<(UserId, String)> {
        let (core, now) = (&self.0, self.0.clock.now());
        let hash = core.vault.digest(Purpose::PasswordReset, token);
        let found = core
            .db
            .in_platform(&Operator::system(), async |tx| {
                let (_, id) = password_reset::find(tx, hash, now).await.named(NOT_GOOD)?;
                Ok::<_, Error>((id, user::find(tx, id).await.named(NOT_GOOD)?.username))
            })
            .await;
        if matches!(&found, Err(Error::NotFound(_))) {
            core.throttle.failure(source, now)?;
        }
        found
    }
}

/// A line of the platform's log and of those of the user's organizations. Who asks is nobody yet: the system writes it.
async fn audit_in(
    tx: &mut PlatformTx,
    action: &'static str,
    user: UserId,
    source: Option<IpAddr>,
    at: DateTime<Utc>,
) -> Result<()> {
    let address = source.map(|source| source.to_string());
    let line = audit::Entry { action, resource: format!("user:{user}"), address, detail: json!({}), at };
    for org in user_change::organizations(tx, user).await? {
        audit::insert_platform_about(tx, org, line.clone()).await?;
    }
    Ok(audit::insert_platform(tx, line).await?)
}
