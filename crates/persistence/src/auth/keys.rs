//! Whose an API key is: by its digest or its id one probe, by its hash a few rows to compute.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Bool, Bytea, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use tidegate_model::{ApiKeyId, CredentialId, OrgId, OrgRole, Scope, Scopes, SystemRole, UserId};

use super::{bearer::sayable, put};
use crate::{Db, Error, OrgScope, Result, UserScope, scope::Told, statement::statement, together::Together};

/// What a key is looked up by.
#[derive(Debug, Clone)]
pub enum KeyName {
    /// The digest of a key that was brought.
    Digest(Vec<u8>),
    /// The id of a key that was let in before, or whose hash fits.
    Id(ApiKeyId),
}

/// A key that stands, as far as it reaches.
#[derive(Debug, Clone)]
pub struct KeyLookup {
    /// The key.
    pub id: ApiKeyId,
    /// As whom it acts.
    pub user: UserScope,
    /// Its organization, unless another one was asked for or it is not active.
    pub org: Option<OrgScope>,
    /// When it was last used, as far as that was written down.
    pub last_used_at: Option<DateTime<Utc>>,
}

pub(crate) type Row = (
    ApiKeyId,
    UserId,
    String,
    SystemRole,
    OrgId,
    OrgRole,
    bool,
    Vec<String>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
);
type Columns = (
    Uuid,
    Uuid,
    Text,
    Text,
    Uuid,
    Text,
    Bool,
    Array<Text>,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
);

/// A key that was brought, and the organization that was asked for.
#[derive(Clone)]
pub(crate) struct Brought {
    digest: Vec<u8>,
    wanted: Option<String>,
}

/// What is read of a key, and of its organization where it was brought.
pub(crate) type Read = (Row, Option<Told>);
/// Where keys meet that are brought at one time.
pub(crate) type KeyLookups = Together<Brought, Option<Read>>;

pub(crate) fn key_lookups() -> KeyLookups {
    Together::new(|db, brought| read(db, brought).boxed())
}

/// The key of this name, in one round trip, unless it was revoked, has expired, or its owner is not active or no member
/// any more. What it may do is what its scopes leave of its owner's roles at this moment.
///
/// Those that are brought at one time share the round trip.
pub async fn api_key(db: &Db, name: KeyName, wanted: Option<&str>, now: DateTime<Utc>) -> Result<KeyLookup> {
    match name {
        KeyName::Digest(digest) => {
            let brought = Brought { digest, wanted: sayable(wanted) };
            let (row, told) = db.keys.ask(db, brought).await?.ok_or(Error::NotFound)?;
            lookup(row, told, now)
        }
        KeyName::Id(_) => {
            let connection = db.connection().await?;
            api_key_on(&connection, name, wanted, now).await
        }
    }
}

type ManyRow = (i32, Row, (String, bool));
type ManyColumns = (Integer, Columns, (Text, Bool));

async fn read(db: Db, brought: Vec<Brought>) -> Result<Vec<Option<Read>>> {
    let mut found: Vec<Option<Read>> = brought.iter().map(|_| None).collect();
    let (digests, wanted): (Vec<_>, Vec<_>) = brought.into_iter().map(|one| (one.digest, one.wanted)).unzip();
    let mut connection = db.connection().await?;
    let rows: Vec<ManyRow> = statement::<ManyColumns>(
        "SELECT place, id, user_id, username, role, org_id, org_role, org_open, scopes, expires_at, revoked_at, last_used_at, org_name,
                owned
         FROM auth_api_keys(?, ?)",
    )
    .bind::<Array<Bytea>, _>(digests)
    .bind::<Array<Nullable<Text>>, _>(wanted)
    .load(&mut connection)
    .await?;
    for (place, row, (name, owned)) in rows {
        put(&mut found, place, (row, Some(Told { name, owned })));
    }
    Ok(found)
}

pub(super) async fn api_key_on(
    mut connection: &AsyncPgConnection,
    name: KeyName,
    wanted: Option<&str>,
    now: DateTime<Utc>,
) -> Result<KeyLookup> {
    let wanted = sayable(wanted);
    let (digest, id) = match name {
        KeyName::Digest(digest) => (Some(digest), None),
        KeyName::Id(id) => (None, Some(id)),
    };
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, user_id, username, role, org_id, org_role, org_open, scopes, expires_at, revoked_at, last_used_at
         FROM auth_api_key(?, ?, ?)",
    )
    .bind::<Nullable<Bytea>, _>(digest)
    .bind::<Nullable<Uuid>, _>(id)
    .bind::<Nullable<Text>, _>(wanted)
    .load(&mut connection)
    .await?;
    let row = rows.into_iter().next().ok_or(Error::NotFound)?;
    lookup(row, None, now)
}

fn lookup(row: Row, told: Option<Told>, now: DateTime<Utc>) -> Result<KeyLookup> {
    let (id, user_id, username, role, org_id, org_role, open, words, expires, revoked, last_used_at) = row;
    if revoked.is_some() || expires.is_some_and(|expires| expires <= now) {
        return Err(Error::NotFound);
    }
    let user = of_key(id, user_id, username, (role, org_role), &words)?;
    let org = open.then(|| OrgScope { org_id, user: user.clone(), role: org_role, told });
    Ok(KeyLookup { id, user, org, last_used_at })
}

/// The user of a key: what its scopes leave of its owner's roles, of the platform and of the organization.
pub(super) fn of_key(
    id: ApiKeyId,
    user_id: UserId,
    username: String,
    (role, org_role): (SystemRole, OrgRole),
    words: &[String],
) -> Result<UserScope> {
    let scopes = read_scopes(words)?.within(Scopes::of_role(org_role, role));
    // A key is no operator because its owner is one.
    let role = if scopes.allow(Scope::Admin) { role } else { SystemRole::User };
    Ok(UserScope {
        user_id,
        username,
        role,
        credential: CredentialId::ApiKey(id),
        scopes,
        origin: crate::Origin::default(),
        console: false,
    })
}

/// Words of a later version are an error, never a default.
pub(crate) fn read_scopes(words: &[String]) -> Result<Scopes> {
    words
        .iter()
        .map(|word| word.parse::<Scope>().map_err(|error| Error::corrupt("scope of an API key", error)))
        .collect()
}

/// A key whose digest is missing or was made with another pepper (seed B, `APIKey.KeyHash`).
#[derive(Debug, Clone)]
pub struct Undigested {
    /// The key.
    pub id: ApiKeyId,
    /// PHC string.
    pub key_hash: String,
}

/// Keys of this prefix that can only be told by their hash, at most so many.
pub async fn undigested(db: &Db, prefix: &str, version: i16, at_most: i32) -> Result<Vec<Undigested>> {
    let mut connection = db.connection().await?;
    let rows: Vec<(ApiKeyId, String)> =
        statement::<(Uuid, Text)>("SELECT id, key_hash FROM auth_api_key_hashes(?, ?, ?)")
            .bind::<Text, _>(prefix.to_owned())
            .bind::<SmallInt, _>(version)
            .bind::<Integer, _>(at_most)
            .load(&mut connection)
            .await?;
    Ok(rows.into_iter().map(|(id, key_hash)| Undigested { id, key_hash }).collect())
}
