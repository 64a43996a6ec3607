//! What is looked at again and again while somebody watches a session: their credential, and their right to the session.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::join;
use tidegate_model::{CredentialId, OrgId, SessionId, StreamMode, UserId};

use super::{KeyName, Login, TokenName, bearer::bearer_token_on, keys::api_key_on, login_on};
use crate::{Db, Error, Result, statement::statement, viewing::ViewingEnd};

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

/// How a viewer stands at this moment.
#[derive(Debug, Clone)]
pub struct Stands {
    /// Their credential.
    pub login: Login,
    /// What they may do with the session's stream; none where it is neither theirs nor shared with them.
    pub mode: Option<StreamMode>,
    /// The last end of their viewings of it.
    pub ended: ViewingEnd,
}

/// The viewer's credential as it stands, and what they may do with the session's stream. Both are asked in one round trip.
pub async fn viewer(db: &Db, viewer: Viewer, now: DateTime<Utc>) -> Result<Stands> {
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
    let (login, right) = join(credential, right_on(conn, viewer, now)).await;
    let (login, (mode, ended)) = (login?, right?);
    Ok(Stands { login, mode, ended })
}

async fn right_on(
    mut connection: &AsyncPgConnection,
    viewer: Viewer,
    now: DateTime<Utc>,
) -> Result<(Option<StreamMode>, ViewingEnd)> {
    let rows: Vec<(Option<StreamMode>, i64)> =
        statement::<(Nullable<Text>, BigInt)>("SELECT mode, ended FROM auth_viewing(?, ?, ?, ?)")
            .bind::<Uuid, _>(viewer.org)
            .bind::<Uuid, _>(viewer.session)
            .bind::<Uuid, _>(viewer.user)
            .bind::<Timestamptz, _>(now)
            .load(&mut connection)
            .await?;
    let (mode, ended) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok((mode, ViewingEnd(ended)))
}
