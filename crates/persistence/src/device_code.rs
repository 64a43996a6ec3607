//! Device codes: each decision and each use is one statement, and final.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Bytea, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{DeviceCode, DeviceCodeId, DeviceDecision, OrgId, UserId};

use crate::{Error, PlatformTx, Result, UserTx, statement::statement};

/// Devices that may wait at one time. Past it nobody can ask until some have expired: a bound on the table.
pub const MOST: i64 = 100_000;

/// A code to insert.
#[derive(Debug, Clone)]
pub struct NewDeviceCode {
    /// The id.
    pub id: DeviceCodeId,
    /// Digest of the device's code.
    pub device_hash: Vec<u8>,
    /// Digest of the user's code.
    pub user_hash: Vec<u8>,
    /// What the device calls itself.
    pub client_name: String,
    /// Where it asks from.
    pub address: Option<String>,
    /// Seconds between its polls.
    pub poll_seconds: i32,
    /// Until when it can be let in.
    pub expires_at: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// What became of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It waits.
    Made,
    /// Another one has the same user code: try another.
    Taken,
    /// [`MOST`] wait already.
    Full,
}

/// Inserts a code that waits for its decision.
pub async fn insert(tx: &mut PlatformTx, new: NewDeviceCode) -> Result<Inserted> {
    let conn = tx.conn()?;
    let full: Vec<bool> =
        statement::<Bool>("SELECT EXISTS (SELECT 1 FROM device_codes WHERE expires_at > ? OFFSET ?)")
            .bind::<Timestamptz, _>(new.now)
            .bind::<BigInt, _>(MOST - 1)
            .load(conn)
            .await?;
    if full == [true] {
        return Ok(Inserted::Full);
    }
    let made = statement::<()>(
        "INSERT INTO device_codes (id, device_hash, user_hash, client_name, address, poll_seconds, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user_hash) DO NOTHING",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Bytea, _>(new.device_hash)
    .bind::<Bytea, _>(new.user_hash)
    .bind::<Text, _>(new.client_name)
    .bind::<Nullable<Text>, _>(new.address)
    .bind::<Integer, _>(new.poll_seconds)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.expires_at)
    .execute(conn)
    .await?;
    Ok(if made == 1 { Inserted::Made } else { Inserted::Taken })
}

fn decision(word: Option<&str>) -> Result<Option<DeviceDecision>> {
    match word {
        None => Ok(None),
        Some("approved") => Ok(Some(DeviceDecision::Approved)),
        Some("denied") => Ok(Some(DeviceDecision::Denied)),
        Some(other) => Err(Error::corrupt("decision about a device", other.to_owned())),
    }
}

type Columns = (
    Uuid,
    Text,
    Nullable<Text>,
    Nullable<Text>,
    Bool,
    Nullable<Uuid>,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
    Timestamptz,
    Timestamptz,
);
type Row = (
    DeviceCodeId,
    String,
    Option<String>,
    Option<String>,
    bool,
    Option<OrgId>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    DateTime<Utc>,
    DateTime<Utc>,
);

/// The code whose user code has this digest, whatever was decided (seed B, `LookupDeviceCode`).
pub async fn find(tx: &mut UserTx, user_hash: Vec<u8>) -> Result<DeviceCode> {
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, client_name, address, decision, mine, org_id, decided_at, consumed_at, created_at, expires_at
         FROM device_code_of(?)",
    )
    .bind::<Bytea, _>(user_hash)
    .load(tx.conn()?)
    .await?;
    let (id, client_name, address, word, mine, org_id, decided_at, consumed_at, created_at, expires_at) =
        rows.into_iter().next().ok_or(Error::NotFound)?;
    let decision = decision(word.as_deref())?;
    Ok(DeviceCode {
        id,
        client_name,
        address,
        decision,
        mine,
        org_id,
        decided_at,
        consumed_at,
        created_at,
        expires_at,
    })
}

/// Decides about a code as the transaction's user: approved for an organization, or denied without one. False where
/// somebody decided before or it has expired: exactly one racer hears true.
pub async fn decide(
    tx: &mut UserTx,
    user_hash: Vec<u8>,
    org: Option<OrgId>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let user = tx.user_id;
    // Undecided codes are seen by who says which one they mean, and no others.
    statement::<()>("SELECT set_config('app.user_code', encode(?, 'hex'), true)")
        .bind::<Bytea, _>(user_hash.clone())
        .execute(tx.conn()?)
        .await?;
    let decided = statement::<()>(
        "UPDATE device_codes SET decision = ?, user_id = ?, org_id = ?, decided_at = ?
         WHERE user_hash = ? AND decision IS NULL AND expires_at > ?",
    )
    .bind::<Text, _>(if org.is_some() { "approved" } else { "denied" })
    .bind::<Uuid, _>(user)
    .bind::<Nullable<Uuid>, _>(org)
    .bind::<Timestamptz, _>(now)
    .bind::<Bytea, _>(user_hash)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(decided == 1)
}

/// Refuses the devices that the transaction's user let in and that have not fetched their token. Returns how many.
pub async fn deny_own(tx: &mut UserTx) -> Result<usize> {
    let user = tx.user_id;
    let deny = statement::<()>(
        "UPDATE device_codes SET decision = 'denied' WHERE user_id = ? AND decision = 'approved'",
    );
    Ok(deny.bind::<Uuid, _>(user).execute(tx.conn()?).await?)
}

/// A code as its device meets it.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The code.
    pub id: DeviceCodeId,
    /// What the device calls itself.
    pub client_name: String,
    /// What was decided, by whom, for which organization.
    pub decision: Option<(DeviceDecision, UserId, Option<OrgId>)>,
    /// Whether it got its token.
    pub consumed: bool,
    /// Until when it can be let in.
    pub expires_at: DateTime<Utc>,
}

type WaitingRow = (DeviceCodeId, String, Option<String>, Option<UserId>, Option<OrgId>, bool, DateTime<Utc>);

/// The code whose device code has this digest.
pub async fn waiting(tx: &mut PlatformTx, device_hash: Vec<u8>) -> Result<Waiting> {
    let rows: Vec<WaitingRow> =
        statement::<(Uuid, Text, Nullable<Text>, Nullable<Uuid>, Nullable<Uuid>, Bool, Timestamptz)>(
            "SELECT id, client_name, decision, user_id, org_id, consumed_at IS NOT NULL, expires_at
         FROM device_codes WHERE device_hash = ?",
        )
        .bind::<Bytea, _>(device_hash)
        .load(tx.conn()?)
        .await?;
    let (id, client_name, word, user, org, consumed, expires_at) =
        rows.into_iter().next().ok_or(Error::NotFound)?;
    let decision = decision(word.as_deref())?.zip(user).map(|(decision, user)| (decision, user, org));
    Ok(Waiting { id, client_name, decision, consumed, expires_at })
}

/// Notes a poll; true where it came too soon, which makes the wait between polls five seconds longer. The network may
/// bring two polls a second closer together than they were sent.
pub async fn polled(tx: &mut PlatformTx, id: DeviceCodeId, now: DateTime<Utc>) -> Result<bool> {
    let rows: Vec<bool> = statement::<Bool>(
        "UPDATE device_codes SET slowed = COALESCE(polled_at + make_interval(secs => poll_seconds - 1) > ?, false), polled_at = ?,
           poll_seconds = CASE WHEN polled_at + make_interval(secs => poll_seconds - 1) > ? THEN LEAST(poll_seconds + 5, 600) ELSE poll_seconds END
         WHERE id = ? RETURNING slowed",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// The name of a user who may still act in an organization. Keeps organization, membership and user as they are until
/// the transaction ends, in the lock order: whoever removes the member or resets their password at the same moment finds
/// the token or leaves none. Before any lock of the code itself: whoever ends a user's credentials takes them in this
/// order.
pub async fn may_act(tx: &mut PlatformTx, user: UserId, org: OrgId) -> Result<Option<String>> {
    let conn = tx.conn()?;
    let open = statement::<()>("SELECT 1 FROM organizations WHERE id = ? AND status = 'active' FOR SHARE");
    let member = statement::<()>("SELECT 1 FROM memberships WHERE org_id = ? AND user_id = ? FOR SHARE");
    for held in [open.bind::<Uuid, _>(org), member.bind::<Uuid, _>(org).bind::<Uuid, _>(user)] {
        if held.execute(conn).await? == 0 {
            return Ok(None);
        }
    }
    let names: Vec<String> =
        statement::<Text>("SELECT username FROM users WHERE id = ? AND active FOR SHARE")
            .bind::<Uuid, _>(user)
            .load(conn)
            .await?;
    Ok(names.into_iter().next())
}

/// Uses an approved code up; false where it was used before or is approved no more: exactly one racer hears true.
pub async fn consume(tx: &mut PlatformTx, id: DeviceCodeId, now: DateTime<Utc>) -> Result<bool> {
    let consumed = statement::<()>(
        "UPDATE device_codes SET consumed_at = ?
         WHERE id = ? AND decision = 'approved' AND consumed_at IS NULL AND expires_at > ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(consumed == 1)
}
