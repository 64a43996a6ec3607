//! What somebody who opens a stream needs to know, before or beside a scope: one round trip, asked at every request.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bytea, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{
    AgentId, CredentialId, GrantId, OrgId, OrgRole, SessionId, SessionState, StreamMode, SystemRole, UserId,
};

use super::{Login, keys::of_key, of_credential};
use crate::{Db, Error, OrgScope, Result, statement::statement, viewing::ViewingEnd};

/// A session, in the light of somebody who opens a stream of it.
#[derive(Debug, Clone)]
pub struct StreamLookup {
    /// Whose it is.
    pub owner: UserId,
    /// The owner's username.
    pub owner_name: String,
    /// Where its life stands.
    pub state: SessionState,
    /// Which of its starts this is.
    pub generation: i64,
    /// The row id of the agent it is placed on.
    pub agent: Option<AgentId>,
    /// What they may do with its stream at this moment; none where it is neither theirs nor shared with them.
    pub mode: Option<StreamMode>,
    /// The last end of their viewings of it.
    pub ended: ViewingEnd,
}

type StreamRow = (UserId, String, SessionState, i64, Option<AgentId>, Option<StreamMode>, i64);
type StreamColumns = (Uuid, Text, Text, BigInt, Nullable<Uuid>, Nullable<Text>, BigInt);

/// A session of the scope's organization that was not cleaned up, in the light of the scope's user.
pub async fn stream(db: &Db, scope: &OrgScope, id: SessionId, now: DateTime<Utc>) -> Result<StreamLookup> {
    let mut connection = db.connection().await?;
    let rows: Vec<StreamRow> = statement::<StreamColumns>(
        "SELECT owner_id, owner_name, state, generation, agent_id, shown, ended FROM auth_stream(?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(scope.org_id())
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(scope.user_id())
    .bind::<Timestamptz, _>(now)
    .load(&mut connection)
    .await?;
    let (owner, owner_name, state, generation, agent, mode, ended) =
        rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok(StreamLookup { owner, owner_name, state, generation, agent, mode, ended: ViewingEnd(ended) })
}

/// What a browser's grant opens.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The grant.
    pub id: GrantId,
    /// The session it is good for.
    pub session: SessionId,
    /// What its bearer may do at most.
    pub mode: StreamMode,
    /// The credential behind it, as it stands, in the session's organization.
    pub login: Login,
    /// The session; none where it is not there any more.
    pub stream: Option<StreamLookup>,
}

type Row = (
    (GrantId, SessionId, CredentialId, StreamMode, DateTime<Utc>),
    (UserId, String, SystemRole, Option<OrgId>, Option<OrgRole>, Option<Vec<String>>),
    (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    Option<StreamRow>,
);
type Columns = (
    (Uuid, Uuid, Text, Text, Timestamptz),
    (Uuid, Text, Text, Nullable<Uuid>, Nullable<Text>, Nullable<Array<Text>>),
    (Nullable<Timestamptz>, Nullable<Timestamptz>),
    Nullable<StreamColumns>,
);

/// What the grant with this digest opens, unless it or the credential behind it has ended.
pub async fn granted(db: &Db, hash: Vec<u8>, now: DateTime<Utc>) -> Result<Granted> {
    let mut connection = db.connection().await?;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, session_id, credential, mode, grant_expires_at, user_id, username, role, org_id, org_role, scopes, expires_at,
                revoked_at, owner_id, owner_name, state, generation, agent_id, shown, ended
         FROM auth_granted_stream(?, ?)",
    )
    .bind::<Bytea, _>(hash)
    .bind::<Timestamptz, _>(now)
    .load(&mut connection)
    .await?;
    let (grant, whose, (expires, revoked), session) = rows.into_iter().next().ok_or(Error::NotFound)?;
    let (id, session_id, credential, mode, until) = grant;
    if until <= now || revoked.is_some() || expires.is_some_and(|expires| expires <= now) {
        return Err(Error::NotFound);
    }
    let (user_id, username, role, org_id, org_role, scopes) = whose;
    let user = match (credential, org_role) {
        (CredentialId::ApiKey(key), Some(org_role)) => {
            of_key(key, user_id, username, (role, org_role), &scopes.unwrap_or_default())?
        }
        // A key is of one organization, or nobody's.
        (CredentialId::ApiKey(_), None) => return Err(Error::NotFound),
        (CredentialId::Login(_) | CredentialId::Token(_), _) => {
            of_credential(user_id, username, role, credential)
        }
    };
    let org =
        org_id.zip(org_role).map(|(org_id, role)| OrgScope { org_id, user: user.clone(), role, told: None });
    let stream = session.map(|(owner, owner_name, state, generation, agent, mode, ended)| StreamLookup {
        owner,
        owner_name,
        state,
        generation,
        agent,
        mode,
        ended: ViewingEnd(ended),
    });
    Ok(Granted { id, session: session_id, mode, login: Login { user, org }, stream })
}
