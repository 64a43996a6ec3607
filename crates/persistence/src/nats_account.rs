//! Accounts of organizations on NATS, and the operator that signs them. Seeds come in and go out sealed.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{CredentialId, OrgId, OrgStatus};

use crate::{Db, Error, OrgTx, PlatformTx, Result, SystemScope, statement::statement};

/// What an account may promise: bytes of its streams, reserved when each is made, and how many of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimits {
    /// Bytes that its streams may grow to, all together.
    pub disk_bytes: i64,
    /// Streams.
    pub streams: i64,
    /// Consumers.
    pub consumers: i64,
    /// Connections.
    pub connections: i64,
}

/// An account to keep.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// The account's name in NATS.
    pub public_key: String,
    /// The key that signs its users.
    pub signing_key: String,
    /// What the operator says of it.
    pub account_jwt: String,
    /// The identity's seed, sealed.
    pub identity_seed: Vec<u8>,
    /// The signing key's seed, sealed.
    pub signing_seed: Vec<u8>,
    /// The operator's key that signed the token.
    pub signed_by: String,
    /// The present.
    pub now: DateTime<Utc>,
}

/// An account that is kept.
#[derive(Debug, Clone)]
pub struct NatsAccount {
    /// The organization.
    pub org_id: OrgId,
    /// The account's name in NATS.
    pub public_key: String,
    /// The key that signs its users.
    pub signing_key: String,
    /// What the operator says of it.
    pub account_jwt: String,
    /// The signing key's seed, sealed.
    pub signing_seed: Vec<u8>,
    /// The operator's key that signed the token.
    pub signed_by: String,
    /// What it may promise.
    pub limits: AccountLimits,
    /// When NATS last took the token.
    pub pushed_at: Option<DateTime<Utc>>,
}

type Columns = (Uuid, Text, Text, Text, Binary, Text, BigInt, BigInt, BigInt, BigInt, Nullable<Timestamptz>);
type Row = (OrgId, String, String, String, Vec<u8>, String, i64, i64, i64, i64, Option<DateTime<Utc>>);

fn account(row: Row) -> NatsAccount {
    let (
        org_id,
        public_key,
        signing_key,
        account_jwt,
        signing_seed,
        signed_by,
        disk_bytes,
        streams,
        consumers,
        connections,
        pushed_at,
    ) = row;
    let limits = AccountLimits { disk_bytes, streams, consumers, connections };
    NatsAccount { org_id, public_key, signing_key, account_jwt, signing_seed, signed_by, limits, pushed_at }
}

/// Keeps an organization's account; whoever comes first wins, and everybody gets the account that is kept. Says whether it
/// is this one. Seed B's `SetNATSAccount`.
pub async fn set(tx: &mut OrgTx, new: NewAccount) -> Result<(NatsAccount, bool)> {
    let org = tx.org_id();
    let made = statement::<()>(
        "INSERT INTO nats_accounts (org_id, public_key, signing_key, account_jwt, identity_seed, signing_seed, signed_by, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (org_id) DO NOTHING",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(new.public_key)
    .bind::<Text, _>(new.signing_key)
    .bind::<Text, _>(new.account_jwt)
    .bind::<Binary, _>(new.identity_seed)
    .bind::<Binary, _>(new.signing_seed)
    .bind::<Text, _>(new.signed_by)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.now)
    .execute(tx.conn()?)
    .await?;
    Ok((find(tx).await?, made == 1))
}

/// The organization's account.
pub async fn find(tx: &mut OrgTx) -> Result<NatsAccount> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT org_id, public_key, signing_key, account_jwt, signing_seed, signed_by, max_disk_bytes, max_streams, max_consumers,
                max_connections, pushed_at
         FROM nats_accounts WHERE org_id = ?",
    )
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(account).ok_or(Error::NotFound)
}

/// The account of an organization and how the organization stands, locked: of those who sign it anew one does at a time.
pub async fn lock(tx: &mut PlatformTx, org: OrgId) -> Result<(NatsAccount, OrgStatus)> {
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT org_id, public_key, signing_key, account_jwt, signing_seed, signed_by, max_disk_bytes, max_streams, max_consumers,
                max_connections, pushed_at
         FROM nats_accounts WHERE org_id = ? FOR NO KEY UPDATE",
    )
    .bind::<Uuid, _>(org)
    .load(conn)
    .await?;
    let account = rows.into_iter().next().map(account).ok_or(Error::NotFound)?;
    // Read after the lock was granted.
    let rows: Vec<OrgStatus> = statement::<Text>("SELECT status FROM organizations WHERE id = ?")
        .bind::<Uuid, _>(org)
        .load(conn)
        .await?;
    Ok((account, rows.into_iter().next().ok_or(Error::NotFound)?))
}

/// Keeps what the operator says of an account now.
pub async fn set_token(
    tx: &mut PlatformTx,
    org: OrgId,
    account_jwt: String,
    signed_by: String,
    now: DateTime<Utc>,
) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE nats_accounts SET account_jwt = ?, signed_by = ?, updated_at = ?, pushed_at = NULL WHERE org_id = ?",
    )
    .bind::<Text, _>(account_jwt)
    .bind::<Text, _>(signed_by)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Notes that NATS took this token; false where it has another one by now.
pub async fn pushed(
    tx: &mut PlatformTx,
    org: OrgId,
    account_jwt: String,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed =
        statement::<()>("UPDATE nats_accounts SET pushed_at = ? WHERE org_id = ? AND account_jwt = ?")
            .bind::<Timestamptz, _>(now)
            .bind::<Uuid, _>(org)
            .bind::<Text, _>(account_jwt)
            .execute(tx.conn()?)
            .await?;
    Ok(changed == 1)
}

/// Ends an account that NATS has forgotten; false where this token is not the one that was pushed last.
pub async fn delete(tx: &mut PlatformTx, org: OrgId, account_jwt: String) -> Result<bool> {
    let gone = statement::<()>(
        "DELETE FROM nats_accounts WHERE org_id = ? AND account_jwt = ? AND pushed_at IS NOT NULL",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(account_jwt)
    .execute(tx.conn()?)
    .await?;
    Ok(gone == 1)
}

/// Sets what an account may promise.
pub async fn set_limits(
    tx: &mut PlatformTx,
    org: OrgId,
    limits: AccountLimits,
    now: DateTime<Utc>,
) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE nats_accounts SET max_disk_bytes = ?, max_streams = ?, max_consumers = ?, max_connections = ?, updated_at = ? WHERE org_id = ?",
    )
    .bind::<BigInt, _>(limits.disk_bytes)
    .bind::<BigInt, _>(limits.streams)
    .bind::<BigInt, _>(limits.consumers)
    .bind::<BigInt, _>(limits.connections)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// The operator of our NATS. All three seeds are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsOperator {
    /// The operator's name in NATS.
    pub identity_key: String,
    /// The key that signs accounts.
    pub signing_key: String,
    /// The system account's name in NATS.
    pub system_key: String,
    /// Its seed.
    pub identity_seed: Vec<u8>,
    /// The signing key's seed.
    pub signing_seed: Vec<u8>,
    /// The system account's seed.
    pub system_seed: Vec<u8>,
    /// Keys that signed accounts before and are still trusted.
    pub retired_keys: Vec<String>,
    /// The key that is to sign next, and its seed: servers are told of it before anything is signed with it.
    pub next: Option<(String, Vec<u8>)>,
    /// Since when nobody stores anything, because the disk has too little room.
    pub closed_at: Option<DateTime<Utc>>,
    /// When any of these keys last changed.
    pub changed_at: DateTime<Utc>,
}

/// Keeps the operator; whoever comes first wins, and everybody gets the one that is kept.
pub async fn set_operator(tx: &mut PlatformTx, new: NatsOperator) -> Result<NatsOperator> {
    statement::<()>(
        "INSERT INTO nats_operator (identity_key, signing_key, system_key, identity_seed, signing_seed, system_seed, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind::<Text, _>(new.identity_key)
    .bind::<Text, _>(new.signing_key)
    .bind::<Text, _>(new.system_key)
    .bind::<Binary, _>(new.identity_seed)
    .bind::<Binary, _>(new.signing_seed)
    .bind::<Binary, _>(new.system_seed)
    .bind::<Timestamptz, _>(new.changed_at)
    .bind::<Timestamptz, _>(new.changed_at)
    .execute(tx.conn()?)
    .await?;
    operator(tx).await?.ok_or(Error::NotFound)
}

/// The operator, once there is one.
pub async fn operator(tx: &mut PlatformTx) -> Result<Option<NatsOperator>> {
    load_operator(tx, OPERATOR).await
}

/// The operator, which keeps its signing key until the transaction ends: what is signed in it is signed by the key of then.
pub async fn operator_for_signing(tx: &mut PlatformTx) -> Result<NatsOperator> {
    load_operator(tx, OPERATOR_FOR_SIGNING).await?.ok_or(Error::NotFound)
}

const OPERATOR: &str = "SELECT identity_key, signing_key, system_key, identity_seed, signing_seed, system_seed, retired_keys, next_key, next_seed,
            closed_at, updated_at
     FROM nats_operator";
const OPERATOR_FOR_SIGNING: &str = "SELECT identity_key, signing_key, system_key, identity_seed, signing_seed, system_seed, retired_keys, next_key, next_seed,
            closed_at, updated_at
     FROM nats_operator FOR SHARE";

async fn load_operator(tx: &mut PlatformTx, sql: &'static str) -> Result<Option<NatsOperator>> {
    type Columns = (
        Text,
        Text,
        Text,
        Binary,
        Binary,
        Binary,
        Array<Text>,
        Nullable<Text>,
        Nullable<Binary>,
        Nullable<Timestamptz>,
        Timestamptz,
    );
    type Row = (
        String,
        String,
        String,
        Vec<u8>,
        Vec<u8>,
        Vec<u8>,
        Vec<String>,
        Option<String>,
        Option<Vec<u8>>,
        Option<DateTime<Utc>>,
        DateTime<Utc>,
    );
    let rows: Vec<Row> = statement::<Columns>(sql).load(tx.conn()?).await?;
    Ok(rows.into_iter().next().map(|row| {
        let (
            identity_key,
            signing_key,
            system_key,
            identity_seed,
            signing_seed,
            system_seed,
            retired_keys,
            key,
            seed,
            closed_at,
            changed_at,
        ) = row;
        let next = key.zip(seed);
        NatsOperator {
            identity_key,
            signing_key,
            system_key,
            identity_seed,
            signing_seed,
            system_seed,
            retired_keys,
            next,
            closed_at,
            changed_at,
        }
    }))
}

/// Notes that nobody is to store anything from now on, or that everybody may again; false where it was so. Every account is
/// to be pushed then: whoever signs one later sees it, and whoever signs one at this moment is waited for.
pub async fn set_closed(tx: &mut PlatformTx, closed_at: Option<DateTime<Utc>>) -> Result<bool> {
    let conn = tx.conn()?;
    let changed = statement::<()>(
        "UPDATE nats_operator SET closed_at = ? WHERE (closed_at IS NULL) <> (?::timestamptz IS NULL)",
    )
    .bind::<Nullable<Timestamptz>, _>(closed_at)
    .bind::<Nullable<Timestamptz>, _>(closed_at)
    .execute(conn)
    .await?;
    if changed == 1 {
        statement::<()>("UPDATE nats_accounts SET pushed_at = NULL").execute(conn).await?;
    }
    Ok(changed == 1)
}

/// Keeps the key that is to sign next; false where one is kept already, or an earlier one is still trusted.
pub async fn announce_key(
    tx: &mut PlatformTx,
    key: String,
    sealed: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed = statement::<()>(
        "UPDATE nats_operator SET next_key = ?, next_seed = ?, updated_at = ? WHERE next_key IS NULL AND retired_keys = '{}'",
    )
    .bind::<Text, _>(key)
    .bind::<Binary, _>(sealed)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Makes the announced key the one that signs; the one before stays trusted. False where this key is not announced any
/// more. Waits for those who sign at this moment.
pub async fn switch_key(tx: &mut PlatformTx, key: String, now: DateTime<Utc>) -> Result<bool> {
    let changed = statement::<()>(
        "UPDATE nats_operator SET retired_keys = array_append(retired_keys, signing_key), signing_key = next_key,
                signing_seed = next_seed, next_key = NULL, next_seed = NULL, updated_at = ? WHERE next_key = ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(key)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Ends the trust in keys that signed before; false where an account is signed by one of them still, or is not pushed yet.
pub async fn drop_retired_keys(tx: &mut PlatformTx, now: DateTime<Utc>) -> Result<bool> {
    let changed = statement::<()>(
        "UPDATE nats_operator o SET retired_keys = '{}', updated_at = CASE WHEN retired_keys = '{}' THEN updated_at ELSE ? END
         WHERE NOT EXISTS (SELECT 1 FROM nats_accounts a WHERE a.signed_by <> o.signing_key OR a.pushed_at IS NULL)",
    )
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Organizations whose account is signed by another key than this one, or is not pushed yet, in the order of their ids from
/// the one after `after` on.
pub async fn unsettled(
    tx: &mut PlatformTx,
    signing_key: &str,
    after: Option<OrgId>,
    limit: i64,
) -> Result<Vec<OrgId>> {
    let rows: Vec<(OrgId,)> = statement::<(Uuid,)>(
        "SELECT org_id FROM nats_accounts WHERE (signed_by <> ? OR pushed_at IS NULL) AND org_id > ? ORDER BY org_id LIMIT ?",
    )
    .bind::<Text, _>(signing_key.to_owned())
    .bind::<Uuid, _>(after.unwrap_or_else(|| OrgId::from_uuid(uuid::Uuid::nil())))
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(|(org,)| org).collect())
}

/// How many accounts there are, and how many of them [`unsettled`] lists.
pub async fn count_accounts(tx: &mut PlatformTx, signing_key: &str) -> Result<(i64, i64)> {
    let rows: Vec<(i64, i64)> = statement::<(BigInt, BigInt)>(
        "SELECT count(*), count(*) FILTER (WHERE signed_by <> ? OR pushed_at IS NULL) FROM nats_accounts",
    )
    .bind::<Text, _>(signing_key.to_owned())
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

/// Notes that a credential of whoever opened the transaction gets a token for NATS, and gives the second it is to be issued
/// at: after every revocation. What it allows is to be read after this, so that none of it is taken away unseen.
pub async fn note_principal(
    tx: &mut OrgTx,
    credential: CredentialId,
    now: DateTime<Utc>,
    lifetime: TimeDelta,
) -> Result<DateTime<Utc>> {
    let (org, user) = (tx.org_id(), tx.user_id()?);
    let rows: Vec<DateTime<Utc>> = statement::<Timestamptz>(
        "INSERT INTO nats_principals AS p (org_id, credential, user_id, renewed_at, valid_until) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (org_id, credential) DO UPDATE
         SET renewed_at = GREATEST(p.renewed_at, EXCLUDED.renewed_at, date_trunc('second', p.revoked_at) + interval '1 second'),
             valid_until = GREATEST(p.valid_until, EXCLUDED.valid_until, date_trunc('second', p.revoked_at) + interval '1 second'
                + (EXCLUDED.valid_until - EXCLUDED.renewed_at)),
             narrowed = p.narrowed AND (p.revoked_at IS NULL OR p.revoked_at < p.renewed_at)
         RETURNING renewed_at",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(credential)
    .bind::<Uuid, _>(user)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now + lifetime)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Notes how many grants of others the token carries that [`note_principal`] announced.
pub async fn note_grants(tx: &mut OrgTx, credential: CredentialId, grants: i32) -> Result<()> {
    let org = tx.org_id();
    statement::<()>(
        "UPDATE nats_principals SET grants = GREATEST(grants, ?) WHERE org_id = ? AND credential = ?",
    )
    .bind::<Integer, _>(grants)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(credential)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Revokes what a credential holds, tokens that were issued ahead of the time included; false where that was done since it was last renewed.
pub async fn revoke_principal(
    tx: &mut PlatformTx,
    org: OrgId,
    credential: CredentialId,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed = statement::<()>(
        "UPDATE nats_principals SET revoked_at = GREATEST(?, renewed_at) WHERE org_id = ? AND credential = ? AND (revoked_at IS NULL OR revoked_at < renewed_at)",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(credential)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Credentials of an organization that were revoked after `since`, with when: what an account's token has to name.
pub async fn revoked(
    tx: &mut PlatformTx,
    org: OrgId,
    since: DateTime<Utc>,
) -> Result<Vec<(CredentialId, DateTime<Utc>)>> {
    Ok(statement::<(Text, Timestamptz)>(
        "SELECT credential, revoked_at FROM nats_principals WHERE org_id = ? AND revoked_at > ? ORDER BY revoked_at",
    )
    .bind::<Uuid, _>(org)
    .bind::<Timestamptz, _>(since)
    .load(tx.conn()?)
    .await?)
}

/// How far [`Db::lapsed_principals`] has looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalPlace(OrgId, String);

impl Db {
    /// Credentials that hold a token for NATS and are not good any more: of those that whatever ended them has marked at most
    /// `limit`, and what is found among the `each` behind `after`, in their order, that nothing marked. Gives the place to go
    /// on from, too; none at the end. What it costs does not grow with how many are good.
    pub async fn lapsed_principals(
        &self,
        now: DateTime<Utc>,
        after: Option<PrincipalPlace>,
        (limit, each): (i32, i32),
    ) -> Result<(Vec<(OrgId, CredentialId)>, Option<PrincipalPlace>)> {
        let PrincipalPlace(org, credential) =
            after.unwrap_or_else(|| PrincipalPlace(OrgId::from_uuid(uuid::Uuid::nil()), String::new()));
        let mut connection = self.connection().await?;
        let rows: Vec<(OrgId, CredentialId, bool)> = statement::<(Uuid, Text, Bool)>(
            "SELECT org_id, credential, lapsed FROM list_lapsed_principals(?, ?, ?, ?, ?)",
        )
        .bind::<Timestamptz, _>(now)
        .bind::<Integer, _>(limit)
        .bind::<Uuid, _>(org)
        .bind::<Text, _>(credential)
        .bind::<Integer, _>(each.max(1))
        .load(&mut connection)
        .await?;
        let (mut lapsed, mut place) = (Vec::new(), None);
        for (org, credential, is_lapsed) in rows {
            if is_lapsed {
                lapsed.push((org, credential));
            } else {
                place = Some(PrincipalPlace(org, credential.to_string()));
            }
        }
        Ok((lapsed, place))
    }

    /// Organizations with an account on NATS, in the order of their ids, from the one after `after` on.
    pub async fn nats_organizations(&self, after: Option<OrgId>, limit: i32) -> Result<Vec<SystemScope>> {
        let mut connection = self.connection().await?;
        let rows: Vec<(OrgId,)> = statement::<(Uuid,)>("SELECT org_id FROM list_nats_organizations(?, ?)")
            .bind::<Uuid, _>(after.unwrap_or_else(|| OrgId::from_uuid(uuid::Uuid::nil())))
            .bind::<Integer, _>(limit)
            .load(&mut connection)
            .await?;
        Ok(rows.into_iter().map(|(org_id,)| SystemScope { org_id }).collect())
    }
}
