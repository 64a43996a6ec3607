//! Identities: whom a provider's subject stands for. The link is that triple and nothing else, never an e-mail address.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{LoginSessionId, Provider, SystemRole, UserId};

use crate::{PlatformTx, Result, UserScope, UserTx, auth::of_login, statement::statement};

/// Who a provider says that somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The kind of provider.
    pub provider: Provider,
    /// Which one of that kind.
    pub issuer: String,
    /// Its own name for the person, which never becomes another person's.
    pub subject: String,
}

/// The user behind an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The user.
    pub user_id: UserId,
    /// What the user is called here.
    pub username: String,
    /// Whether the user may log in.
    pub active: bool,
}

impl Known {
    /// The scope of the login session about to be made for this user. Call it only after the provider's word was
    /// verified.
    pub fn into_scope(self, login_id: LoginSessionId) -> UserScope {
        of_login(self.user_id, self.username, SystemRole::User, login_id)
    }
}

/// The user of an identity, locked: what follows is not done twice for one user at the same time.
pub async fn find(tx: &mut PlatformTx, who: &Subject) -> Result<Option<Known>> {
    let rows: Vec<(UserId, String, bool)> = statement::<(Uuid, Text, Bool)>(
        "SELECT u.id, u.username, u.active FROM identities i JOIN users u ON u.id = i.user_id
         WHERE i.provider = ? AND i.issuer = ? AND i.subject = ? FOR NO KEY UPDATE OF u",
    )
    .bind::<Text, _>(who.provider)
    .bind::<Text, _>(who.issuer.clone())
    .bind::<Text, _>(who.subject.clone())
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().map(|(user_id, username, active)| Known { user_id, username, active }))
}

/// Takes the right to make the user of an identity. Racers take turns under an advisory lock that ends with the
/// transaction: whoever waited finds what the first one made.
pub async fn claim(tx: &mut PlatformTx, who: &Subject) -> Result<()> {
    let name = format!("tidegate identity {} {} {}", who.provider, who.issuer, who.subject);
    // `execute` counts the row; the lock's own answer has no type.
    statement::<()>("SELECT 1 FROM pg_advisory_xact_lock(hashtextextended(?, 0))")
        .bind::<Text, _>(name)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// A user to make for somebody who came from a provider.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The id.
    pub id: UserId,
    /// How the user logs in.
    pub provider: Provider,
    /// Checked.
    pub username: String,
    /// Verified by the provider.
    pub email: Option<String>,
    /// Display name.
    pub full_name: String,
    /// GitHub's number of the user.
    pub github_id: Option<i64>,
    /// A picture.
    pub avatar_url: Option<String>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Inserts a user with no role on the platform; false where something of theirs is somebody else's.
pub async fn insert_user(tx: &mut PlatformTx, new: NewUser) -> Result<bool> {
    let inserted = statement::<()>(
        "INSERT INTO users (id, username, email, full_name, role, provider, active, github_id, avatar_url, created_at, updated_at)
         VALUES (?, ?, ?, ?, 'user', ?, true, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Text, _>(new.username)
    .bind::<Nullable<Text>, _>(new.email)
    .bind::<Text, _>(new.full_name)
    .bind::<Text, _>(new.provider)
    .bind::<Nullable<BigInt>, _>(new.github_id)
    .bind::<Nullable<Text>, _>(new.avatar_url)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.now)
    .execute(tx.conn()?)
    .await?;
    Ok(inserted == 1)
}

/// What is somebody else's already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The username, in whatever case.
    pub username: bool,
    /// The e-mail address, in whatever case.
    pub email: bool,
    /// GitHub's number, which another GitHub gave somebody else.
    pub github_id: bool,
}

/// What of these is somebody else's already.
pub async fn taken(
    tx: &mut PlatformTx,
    username: &str,
    email: Option<String>,
    github_id: Option<i64>,
) -> Result<Taken> {
    let rows: Vec<(bool, bool, bool)> = statement::<(Bool, Bool, Bool)>(
        "SELECT EXISTS (SELECT 1 FROM users WHERE lower(username) = lower(?)),
                EXISTS (SELECT 1 FROM users WHERE lower(email) = lower(?)),
                EXISTS (SELECT 1 FROM users WHERE github_id = ?)",
    )
    .bind::<Text, _>(username.to_owned())
    .bind::<Nullable<Text>, _>(email)
    .bind::<Nullable<BigInt>, _>(github_id)
    .load(tx.conn()?)
    .await?;
    let (username, email, github_id) = rows.into_iter().next().unwrap_or_default();
    Ok(Taken { username, email, github_id })
}

/// Ties an identity to a user, for good.
pub async fn link(tx: &mut PlatformTx, who: Subject, user: UserId, now: DateTime<Utc>) -> Result<()> {
    statement::<()>(
        "INSERT INTO identities (provider, issuer, subject, user_id, created_at, last_used_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind::<Text, _>(who.provider)
    .bind::<Text, _>(who.issuer)
    .bind::<Text, _>(who.subject)
    .bind::<Uuid, _>(user)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Stamps the use of an identity.
pub async fn touch(tx: &mut PlatformTx, who: &Subject, now: DateTime<Utc>) -> Result<()> {
    statement::<()>(
        "UPDATE identities SET last_used_at = ? WHERE provider = ? AND issuer = ? AND subject = ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(who.provider)
    .bind::<Text, _>(who.issuer.clone())
    .bind::<Text, _>(who.subject.clone())
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Brings e-mail address and picture up to date, and nothing else: what the user is called here stays. An address that
/// is somebody else's leaves the old one where it is; `updated_at` moves with a change alone.
pub async fn refresh(
    tx: &mut PlatformTx,
    user: UserId,
    email: Option<String>,
    avatar_url: Option<String>,
    now: DateTime<Utc>,
) -> Result<()> {
    statement::<()>(
        "UPDATE users u SET email = n.email, avatar_url = n.avatar_url, updated_at = ?
         FROM (SELECT o.id, COALESCE((SELECT w.email FROM (SELECT ?::text AS email) w
                        WHERE NOT EXISTS (SELECT 1 FROM users t WHERE lower(t.email) = lower(w.email) AND t.id <> o.id)), o.email) AS email,
                      COALESCE(?, o.avatar_url) AS avatar_url
               FROM users o WHERE o.id = ?) n
         WHERE u.id = n.id AND (u.email, u.avatar_url) IS DISTINCT FROM (n.email, n.avatar_url)",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Nullable<Text>, _>(email)
    .bind::<Nullable<Text>, _>(avatar_url)
    .bind::<Uuid, _>(user)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Whether a user belongs to an organization that has not ended.
pub async fn has_organization(tx: &mut PlatformTx, user: UserId) -> Result<bool> {
    let rows: Vec<bool> = statement::<Bool>(
        "SELECT EXISTS (SELECT 1 FROM memberships m JOIN organizations o ON o.id = m.org_id
                        WHERE m.user_id = ? AND o.status <> 'deleted')",
    )
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// Stamps a login of the user of the transaction; false where they were deactivated meanwhile.
pub async fn touch_login(tx: &mut UserTx, now: DateTime<Utc>) -> Result<bool> {
    let touched = statement::<()>("UPDATE users SET last_login = ? WHERE id = ? AND active")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(tx.user_id)
        .execute(tx.conn()?)
        .await?;
    Ok(touched == 1)
}
