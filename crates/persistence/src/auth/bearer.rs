//! Whose a bearer token or a browser's cookie is: by its digest or its id one probe.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tidegate_model::{BearerTokenId, CredentialId, LoginSessionId, OrgId, OrgRole, SystemRole, UserId};

use super::{Login, of_credential, of_login};
use crate::{Db, Error, OrgScope, Result, UserScope, statement::statement};

/// What a token is looked up by.
#[derive(Debug, Clone)]
pub enum TokenName {
    /// The digest of a token that was brought.
    Digest(Vec<u8>),
    /// The id of a token that was let in before.
    Id(BearerTokenId),
}

/// A token that stands, as far as it reaches.
#[derive(Debug, Clone)]
pub struct TokenLookup {
    /// The token.
    pub id: BearerTokenId,
    /// As whom it acts.
    pub user: UserScope,
    /// The organization, when the user has one that is active and was asked for.
    pub org: Option<OrgScope>,
    /// When it was last used, as far as that was written down.
    pub last_used_at: Option<DateTime<Utc>>,
}

type Row = (
    BearerTokenId,
    UserId,
    String,
    SystemRole,
    Option<OrgId>,
    Option<OrgRole>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
);
type Columns = (
    Uuid,
    Uuid,
    Text,
    Text,
    Nullable<Uuid>,
    Nullable<Text>,
    Timestamptz,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
);

/// PostgreSQL has no text with this character in it, so no organization has such a name.
pub(super) fn sayable(wanted: Option<&str>) -> Option<String> {
    wanted.map(|wanted| wanted.replace('\0', "\u{fffd}"))
}

/// The token of this name, in one round trip, unless it was revoked, has expired, or its user is not active. `wanted` is
/// an id or a name of an organization; without it the one chosen for the token counts.
pub async fn bearer_token(
    db: &Db,
    name: TokenName,
    wanted: Option<&str>,
    now: DateTime<Utc>,
) -> Result<TokenLookup> {
    let connection = db.connection().await?;
    bearer_token_on(&connection, name, wanted, now).await
}

pub(super) async fn bearer_token_on(
    mut connection: &AsyncPgConnection,
    name: TokenName,
    wanted: Option<&str>,
    now: DateTime<Utc>,
) -> Result<TokenLookup> {
    let (digest, id) = match name {
        TokenName::Digest(digest) => (Some(digest), None),
        TokenName::Id(id) => (None, Some(id)),
    };
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, user_id, username, role, org_id, org_role, expires_at, revoked_at, last_used_at
         FROM auth_bearer_token(?, ?, ?)",
    )
    .bind::<Nullable<Bytea>, _>(digest)
    .bind::<Nullable<Uuid>, _>(id)
    .bind::<Nullable<Text>, _>(sayable(wanted))
    .load(&mut connection)
    .await?;
    let (id, user_id, username, role, org_id, org_role, expires, revoked, last_used_at) =
        rows.into_iter().next().ok_or(Error::NotFound)?;
    if revoked.is_some() || expires <= now {
        return Err(Error::NotFound);
    }
    let user = of_credential(user_id, username, role, CredentialId::Token(id));
    let org =
        org_id.zip(org_role).map(|(org_id, role)| OrgScope { org_id, user: user.clone(), role, told: None });
    Ok(TokenLookup { id, user, org, last_used_at })
}

type LoginRow = (
    LoginSessionId,
    UserId,
    String,
    SystemRole,
    Option<OrgId>,
    Option<OrgRole>,
    Option<DateTime<Utc>>,
    DateTime<Utc>,
);
type LoginColumns =
    (Uuid, Uuid, Text, Text, Nullable<Uuid>, Nullable<Text>, Nullable<Timestamptz>, Timestamptz);

/// The live login whose cookie has this digest, in one round trip.
pub async fn browser(db: &Db, hash: Vec<u8>, wanted: Option<&str>, now: DateTime<Utc>) -> Result<Login> {
    let mut connection = db.connection().await?;
    let rows: Vec<LoginRow> = statement::<LoginColumns>(
        "SELECT id, user_id, username, role, org_id, org_role, revoked_at, expires_at FROM auth_browser_session(?, ?)",
    )
    .bind::<Bytea, _>(hash)
    .bind::<Nullable<Text>, _>(sayable(wanted))
    .load(&mut connection)
    .await?;
    let (id, user_id, username, role, org_id, org_role, revoked, expires) =
        rows.into_iter().next().ok_or(Error::NotFound)?;
    if revoked.is_some() || expires <= now {
        return Err(Error::NotFound);
    }
    let user = of_login(user_id, username, role, id);
    let org =
        org_id.zip(org_role).map(|(org_id, role)| OrgScope { org_id, user: user.clone(), role, told: None });
    Ok(Login { user, org })
}
