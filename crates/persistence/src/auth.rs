//! The lookups that run before a scope exists, each one probe, each a function owned by `tidegate_lister`.

mod bearer;
mod granted;
mod keys;
mod viewer;
mod writable;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Bool, Bytea, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use tidegate_model::{
    AgentHandle, AgentId, ApprovalStatus, CredentialId, LoginSessionId, OrgId, OrgRole, Provider, Scopes,
    SessionId, SystemRole, TicketId, UserId, validate_username,
};

use crate::{
    AgentScope, Db, Error, OrgScope, Origin, Result, UserScope,
    statement::{Statement, statement},
    together::Together,
};

pub use bearer::{TokenLookup, TokenName, bearer_token, browser};
pub use granted::{Granted, StreamLookup, granted, stream};
pub use keys::{KeyLookup, KeyName, Undigested, api_key, undigested};
pub(crate) use keys::{KeyLookups, key_lookups, read_scopes};
pub use viewer::{Stands, Viewer, viewer};
pub(crate) use writable::{PipeLookups, pipe_lookups};
pub use writable::{WritablePipe, writable_pipe};

/// A live login, as far as it reaches.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: UserScope,
    /// The organization, when the user has one that is active and was asked for.
    pub org: Option<OrgScope>,
}

pub(crate) type LoginRow =
    (UserId, String, SystemRole, Option<OrgId>, Option<OrgRole>, Option<DateTime<Utc>>, DateTime<Utc>);
type LoginColumns = (Uuid, Text, Text, Nullable<Uuid>, Nullable<Text>, Nullable<Timestamptz>, Timestamptz);

/// Where logins meet that are looked up at one time, each with the organization that was asked for.
pub(crate) type LoginLookups = Together<(LoginSessionId, Option<String>), Option<LoginRow>>;

pub(crate) fn login_lookups() -> LoginLookups {
    Together::new(|db, asked| logins(db, asked).boxed())
}

/// The login behind a token, unless it was revoked, has expired or its user is not active. `wanted` is an id or a name
/// of an organization; without it the login's own choice counts, else owned oldest, then joined oldest.
///
/// Those that are looked up at one time share the round trip.
pub async fn login(db: &Db, id: LoginSessionId, wanted: Option<&str>, now: DateTime<Utc>) -> Result<Login> {
    let row = db.logins.ask(db, (id, bearer::sayable(wanted))).await?;
    of_login_row(id, row.ok_or(Error::NotFound)?, now)
}

async fn logins(db: Db, asked: Vec<(LoginSessionId, Option<String>)>) -> Result<Vec<Option<LoginRow>>> {
    let mut found: Vec<Option<LoginRow>> = asked.iter().map(|_| None).collect();
    let (ids, wanted): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    let mut connection = db.connection().await?;
    let rows: Vec<(i32, LoginRow)> = statement::<(Integer, LoginColumns)>(
        "SELECT place, user_id, username, role, org_id, org_role, revoked_at, expires_at FROM auth_login_sessions(?, ?)",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<Nullable<Text>>, _>(wanted)
    .load(&mut connection)
    .await?;
    for (place, row) in rows {
        put(&mut found, place, row);
    }
    Ok(found)
}

/// Puts an answer in the place of its question, which is counted from 1.
fn put<T>(found: &mut [Option<T>], place: i32, answer: T) {
    let place = usize::try_from(place).ok().and_then(|place| found.get_mut(place.checked_sub(1)?));
    if let Some(place) = place {
        *place = Some(answer);
    }
}

async fn login_on(
    mut connection: &AsyncPgConnection,
    id: LoginSessionId,
    wanted: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Login> {
    let rows: Vec<LoginRow> = statement::<LoginColumns>(
        "SELECT user_id, username, role, org_id, org_role, revoked_at, expires_at FROM auth_login_session(?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Nullable<Text>, _>(wanted.map(str::to_owned))
    .load(&mut connection)
    .await?;
    of_login_row(id, rows.into_iter().next().ok_or(Error::NotFound)?, now)
}

fn of_login_row(id: LoginSessionId, row: LoginRow, now: DateTime<Utc>) -> Result<Login> {
    let (user_id, username, role, org_id, org_role, revoked, expires) = row;
    if revoked.is_some() || expires <= now {
        return Err(Error::NotFound);
    }
    let user = of_login(user_id, username, role, id);
    let org =
        org_id.zip(org_role).map(|(org_id, role)| OrgScope { org_id, user: user.clone(), role, told: None });
    Ok(Login { user, org })
}

pub(crate) fn of_login(
    user_id: UserId,
    username: String,
    role: SystemRole,
    login: LoginSessionId,
) -> UserScope {
    of_credential(user_id, username, role, CredentialId::Login(login))
}

/// The user of a credential that is held to its user's roles alone.
fn of_credential(user_id: UserId, username: String, role: SystemRole, credential: CredentialId) -> UserScope {
    UserScope {
        user_id,
        username,
        role,
        credential,
        scopes: Scopes::UNLIMITED,
        origin: Origin::default(),
        console: false,
    }
}

/// What a password login is checked against.
#[derive(Debug, Clone)]
pub struct PasswordLookup {
    /// The user, for whom a scope is made once the password fits.
    pub user_id: UserId,
    /// The username as it was chosen.
    pub username: String,
    /// PHC string, absent for users without a password.
    pub password_hash: Option<String>,
    /// Whether the user may log in.
    pub active: bool,
    /// How the user logs in.
    pub provider: Provider,
}

impl PasswordLookup {
    /// The scope of the login session about to be made for this user. Call it only after the password was verified.
    pub fn into_scope(self, login_id: LoginSessionId) -> UserScope {
        of_login(self.user_id, self.username, SystemRole::User, login_id)
    }
}

/// The user of this name, in any case.
pub async fn user_by_name(db: &Db, name: &str) -> Result<PasswordLookup> {
    // Nobody has such a name; and some of these letters are the same to PostgreSQL as others that are not counted together.
    if validate_username(name).is_err() {
        return Err(Error::NotFound);
    }
    let mut connection = db.connection().await?;
    let rows: Vec<(UserId, String, Option<String>, bool, Provider)> =
        statement::<(Uuid, Text, Nullable<Text>, Bool, Text)>(
            "SELECT user_id, username, password_hash, active, provider FROM auth_user_by_name(?)",
        )
        .bind::<Text, _>(name.to_owned())
        .load(&mut connection)
        .await?;
    let (user_id, username, password_hash, active, provider) =
        rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok(PasswordLookup { user_id, username, password_hash, active, provider })
}

/// The login session a refresh token belongs to.
#[derive(Debug, Clone, Copy)]
pub struct RefreshLookup {
    /// The login session.
    pub login_id: LoginSessionId,
    /// Whether it is the current token; the one before it is a replay.
    pub current: bool,
}

/// The login session whose current or previous refresh token has this digest.
pub async fn refresh(db: &Db, hash: Vec<u8>) -> Result<RefreshLookup> {
    let mut connection = db.connection().await?;
    let rows: Vec<(LoginSessionId, bool)> =
        statement::<(Uuid, Bool)>("SELECT login_id, is_current FROM auth_refresh(?)")
            .bind::<Bytea, _>(hash)
            .load(&mut connection)
            .await?;
    let (login_id, current) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok(RefreshLookup { login_id, current })
}

/// What an agent's key or claim token is checked against.
#[derive(Debug, Clone)]
pub struct AgentLookup {
    /// The row.
    pub id: AgentId,
    /// The name.
    pub handle: AgentHandle,
    /// Whether it was let in.
    pub approval: ApprovalStatus,
    /// Digest of its own key.
    pub key_hash: Option<Vec<u8>>,
    /// When the key was first used to connect; none while it may still be handed out anew.
    pub key_used_at: Option<DateTime<Utc>>,
    /// Digest of its claim token.
    pub claim_hash: Option<Vec<u8>>,
    /// Digest of the key before the last rotation, and until when it is good.
    pub old_key: Option<(Vec<u8>, DateTime<Utc>)>,
}

impl AgentLookup {
    /// The agent's scope. Call it only after its own key was verified.
    pub fn scope(&self) -> AgentScope {
        AgentScope { agents: vec![self.id] }
    }
}

type AgentRow = (
    AgentId,
    String,
    ApprovalStatus,
    Option<Vec<u8>>,
    Option<DateTime<Utc>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<DateTime<Utc>>,
);
type AgentColumns = (
    Uuid,
    Text,
    Text,
    Nullable<Bytea>,
    Nullable<Timestamptz>,
    Nullable<Bytea>,
    Nullable<Bytea>,
    Nullable<Timestamptz>,
);

/// The agent of this name.
pub async fn agent(db: &Db, handle: &AgentHandle) -> Result<AgentLookup> {
    let lookup = statement::<AgentColumns>(
        "SELECT id, agent_id, approval_status, api_key_hash, api_key_last_used_at, claim_hash, previous_key_hash, previous_key_expires_at
         FROM auth_agent_keys(?)",
    );
    one_agent(db, lookup.bind::<Text, _>(handle.as_str().to_owned())).await
}

/// The agent one of whose keys has this digest.
pub async fn agent_by_key(db: &Db, hash: Vec<u8>) -> Result<AgentLookup> {
    let lookup = statement::<AgentColumns>(
        "SELECT id, agent_id, approval_status, api_key_hash, api_key_last_used_at, claim_hash, previous_key_hash, previous_key_expires_at
         FROM auth_agent_keys_by_key(?)",
    );
    one_agent(db, lookup.bind::<Bytea, _>(hash)).await
}

async fn one_agent(db: &Db, lookup: Statement<AgentColumns>) -> Result<AgentLookup> {
    let mut connection = db.connection().await?;
    let rows: Vec<AgentRow> = lookup.load(&mut connection).await?;
    let (id, name, approval, key_hash, key_used_at, claim_hash, old_hash, old_until) =
        rows.into_iter().next().ok_or(Error::NotFound)?;
    let handle = name.parse().map_err(|error: &str| Error::corrupt("agent id", error))?;
    let old_key = old_hash.zip(old_until);
    Ok(AgentLookup { id, handle, approval, key_hash, key_used_at, claim_hash, old_key })
}

/// Whose a ticket is; it is consumed in a transaction of that organization.
#[derive(Debug, Clone, Copy)]
pub struct TicketLookup {
    /// The ticket.
    pub id: TicketId,
    /// The organization it is good in.
    pub org_id: OrgId,
    /// The session it is good for.
    pub session_id: SessionId,
    /// The credential that asked for it.
    pub credential: CredentialId,
}

/// The ticket with this digest, used or not.
pub async fn ticket(db: &Db, hash: Vec<u8>) -> Result<TicketLookup> {
    let mut connection = db.connection().await?;
    let rows: Vec<(TicketId, OrgId, SessionId, CredentialId)> = statement::<(Uuid, Uuid, Uuid, Text)>(
        "SELECT id, org_id, session_id, credential FROM auth_stream_ticket(?)",
    )
    .bind::<Bytea, _>(hash)
    .load(&mut connection)
    .await?;
    let (id, org_id, session_id, credential) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok(TicketLookup { id, org_id, session_id, credential })
}

/// Whether somebody is admin yet: until then the platform waits to be set up.
pub async fn admin_exists(db: &Db) -> Result<bool> {
    let mut connection = db.connection().await?;
    let rows: Vec<(bool,)> = statement::<(Bool,)>("SELECT admin_exists()").load(&mut connection).await?;
    Ok(rows.into_iter().next().is_some_and(|row| row.0))
}
