//! The end of credentials, and what must not happen after it: whoever ends one and whoever makes another one out of it
//! take turns under a lock of the user's, which ends with the transaction.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tidegate_model::{CredentialId, UserId};

use crate::{OrgTx, PlatformTx, Result, UserTx, statement::statement};

/// Before credentials of the transaction's user end.
pub async fn end_own(tx: &mut UserTx) -> Result<()> {
    let user = tx.user_id;
    lock(tx.conn()?, user).await
}

/// Before credentials of a member end.
pub async fn end_of_member(tx: &mut OrgTx, user: UserId) -> Result<()> {
    lock(tx.conn()?, user).await
}

/// Before credentials of any user end.
pub async fn end_of_user(tx: &mut PlatformTx, user: UserId) -> Result<()> {
    lock(tx.conn()?, user).await
}

async fn lock(conn: &mut AsyncPgConnection, user: UserId) -> Result<()> {
    statement::<()>("SELECT pg_advisory_xact_lock(hashtextextended(?, 7526411283028599910))")
        .bind::<Text, _>(user.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Keeps what a member or somebody who becomes one could come in with from being ended until the transaction ends:
/// whoever deletes a user waits here.
pub async fn keep(tx: &mut OrgTx, user: UserId) -> Result<()> {
    share(tx.conn()?, user).await
}

/// Whether the transaction's credential still stands, and keeps it standing until the transaction ends.
pub async fn hold(tx: &mut OrgTx, now: DateTime<Utc>) -> Result<bool> {
    let (user, credential) = (tx.user_id()?, tx.author.credential);
    stands(tx.conn()?, user, credential, now).await
}

/// The same in a transaction of a user.
pub async fn hold_own(tx: &mut UserTx, now: DateTime<Utc>) -> Result<bool> {
    let (user, credential) = (tx.user_id, tx.author.credential);
    stands(tx.conn()?, user, credential, now).await
}

async fn share(conn: &mut AsyncPgConnection, user: UserId) -> Result<()> {
    statement::<()>("SELECT pg_advisory_xact_lock_shared(hashtextextended(?, 7526411283028599910))")
        .bind::<Text, _>(user.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

async fn stands(
    conn: &mut AsyncPgConnection,
    user: UserId,
    credential: Option<CredentialId>,
    now: DateTime<Utc>,
) -> Result<bool> {
    share(conn, user).await?;
    // A statement of its own: it sees what was committed while the lock was waited for.
    let rows: Vec<bool> = statement::<Bool>("SELECT credential_stands(?, ?, ?)")
        .bind::<Uuid, _>(user)
        .bind::<Nullable<Text>, _>(credential)
        .bind::<Timestamptz, _>(now)
        .load(conn)
        .await?;
    Ok(rows == [true])
}
