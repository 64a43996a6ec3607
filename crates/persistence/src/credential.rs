//! The end of credentials, and what must not happen after it: whoever ends one and whoever makes another one out of it
//! take turns under a lock of the user's, which ends with the transaction.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tidegate_model::UserId;

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

/// Whether the transaction's login or key still stands, and keeps it standing until the transaction ends.
pub async fn hold(tx: &mut OrgTx, now: DateTime<Utc>) -> Result<bool> {
    let (context, credential) = (tx.context, tx.author.credential);
    let conn = tx.conn()?;
    statement::<()>("SELECT pg_advisory_xact_lock_shared(hashtextextended(?, 7526411283028599910))")
        .bind::<Text, _>(context.user_id.to_string())
        .execute(conn)
        .await?;
    // A statement of its own: it sees what was committed while the lock was waited for.
    let rows: Vec<bool> = statement::<Bool>("SELECT credential_stands(?, ?, ?)")
        .bind::<Uuid, _>(context.user_id)
        .bind::<Nullable<Text>, _>(credential)
        .bind::<Timestamptz, _>(now)
        .load(conn)
        .await?;
    Ok(rows == [true])
}
