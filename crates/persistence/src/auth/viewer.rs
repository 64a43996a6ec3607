//! What is looked at again and again while somebody watches a session: their credential, and their right to the session.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::join;
use tidegate_model::{CredentialId, OrgId, SessionId, StreamMode, UserId};

use super::{KeyName, Login, TokenName, bearer::bearer_token_on, keys::api_key_on, login_on};
use crate::{Db, Result, statement::statement};

/// Somebody who watches a session.
#[derive(Debug, Clone, Copy)]
pub struct Viewer {
    /// With this credential.
    pub credential: CredentialId,
    /// In this organization.
    pub org: OrgId,
    /// This user.
    pub user: UserId,
    /// This session.
    pub session: SessionId,
}

/// The viewer's credential as it stands, and what they may do with the session's stream: none where it is neither theirs
/// nor shared with them. Both are asked in one round trip.
pub async fn viewer(db: &Db, viewer: Viewer, now: DateTime<Utc>) -> Result<(Login, Option<StreamMode>)> {
    let connection = db.connection().await?;
    let conn: &AsyncPgConnection = &connection;
    let org = viewer.org.to_string();
    let wanted = Some(org.as_str());
    let credential = async {
        match viewer.credential {
            CredentialId::Login(id) => login_on(conn, id, wanted, now).await,
            CredentialId::ApiKey(id) => {
                let found = api_key_on(conn, KeyName::Id(id), wanted, now).await?;
                Ok(Login { user: found.user, org: found.org })
            }
            CredentialId::Token(id) => {
                let found = bearer_token_on(conn, TokenName::Id(id), wanted, now).await?;
                Ok(Login { user: found.user, org: found.org })
            }
        }
    };
    // Joined, and not given up at the first error: an answer nobody waits for would be the next statement's.
    let (login, mode) = join(credential, mode_on(conn, viewer, now)).await;
    Ok((login?, mode?))
}

async fn mode_on(
    mut connection: &AsyncPgConnection,
    viewer: Viewer,
    now: DateTime<Utc>,
) -> Result<Option<StreamMode>> {
    let rows: Vec<Option<StreamMode>> = statement::<Nullable<Text>>("SELECT auth_stream_mode(?, ?, ?, ?)")
        .bind::<Uuid, _>(viewer.org)
        .bind::<Uuid, _>(viewer.session)
        .bind::<Uuid, _>(viewer.user)
        .bind::<Timestamptz, _>(now)
        .load(&mut connection)
        .await?;
    Ok(rows.into_iter().next().flatten())
}
