//! The four scopes: proofs that somebody may see some rows. Each is made from a row alone.

use tidegate_model::{AgentId, CredentialId, LoginSessionId, OrgId, OrgRole, Scopes, SystemRole, UserId};

use crate::{Origin, audit::Author};

/// Who acts, for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A person, or a program with a key of theirs.
    User(UserId),
    /// An agent with its own key.
    Agent(AgentId),
    /// Somebody with a shell on the control plane's machine.
    Console,
    /// The platform itself.
    System,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Console => f.write_str("console"),
            Self::System => f.write_str("system"),
        }
    }
}

/// A member inside one organization: everything with its `org_id`.
#[derive(Debug, Clone)]
pub struct OrgScope {
    pub(crate) org_id: OrgId,
    pub(crate) user: UserScope,
    pub(crate) role: OrgRole,
    pub(crate) told: Option<Told>,
}

/// What the row that made a scope said of the organization beside its id.
#[derive(Debug, Clone)]
pub struct Told {
    /// The organization's name.
    pub name: String,
    /// Whether the member owns it.
    pub owned: bool,
}

impl OrgScope {
    /// The organization.
    pub fn org_id(&self) -> OrgId {
        self.org_id
    }

    /// What the lookup of the credential said of the organization, as of that moment; none where it said nothing.
    pub fn told(&self) -> Option<&Told> {
        self.told.as_ref()
    }

    /// The member's role in it.
    pub fn role(&self) -> OrgRole {
        self.role
    }

    /// The member.
    pub fn user_id(&self) -> UserId {
        self.user.user_id
    }

    /// The member's username.
    pub fn username(&self) -> &str {
        &self.user.username
    }

    /// What was presented: what idempotency keys are scoped to, and tickets tied to.
    pub fn credential(&self) -> CredentialId {
        self.user.credential
    }

    /// What the credential may be used for, inside of what the roles allow.
    pub fn scopes(&self) -> Scopes {
        self.user.scopes
    }

    /// The member outside of the organization.
    pub fn as_user(&self) -> &UserScope {
        &self.user
    }

    /// The same for a request that came from there.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { user: self.user.with_origin(origin), ..self }
    }
}

/// The platform itself inside one organization, where something has to be done that nobody asked for. Only a row that
/// says so makes one; see [`crate::Db::due_sessions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SystemScope {
    pub(crate) org_id: OrgId,
}

impl SystemScope {
    /// The organization.
    pub fn org_id(&self) -> OrgId {
        self.org_id
    }
}

/// A user across organizations: their own row, memberships and logins.
#[derive(Debug, Clone)]
pub struct UserScope {
    pub(crate) user_id: UserId,
    pub(crate) username: String,
    pub(crate) role: SystemRole,
    pub(crate) credential: CredentialId,
    pub(crate) scopes: Scopes,
    pub(crate) origin: Origin,
    /// Whether nobody of the platform's users acts, but whoever sits at its machine.
    pub(crate) console: bool,
}

impl UserScope {
    /// Somebody with a shell on the machine, as [`Operator::console`]: a user of no row, with no credential and no
    /// membership. It is good for what operators do; a transaction of this user's own finds nothing.
    pub fn console() -> Self {
        Self {
            user_id: UserId::from_uuid(uuid::Uuid::nil()),
            username: Actor::Console.to_string(),
            role: SystemRole::Admin,
            credential: CredentialId::Login(LoginSessionId::from_uuid(uuid::Uuid::nil())),
            scopes: Scopes::UNLIMITED,
            origin: Origin::default(),
            console: true,
        }
    }

    /// Whether it is the console's.
    pub fn is_console(&self) -> bool {
        self.console
    }

    /// The user.
    pub fn user_id(&self) -> UserId {
        self.user_id
    }

    /// The username.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The system-wide role, as far as the credential brings it: that of `user` for a key without the scope `admin`.
    pub fn role(&self) -> SystemRole {
        self.role
    }

    /// What was presented.
    pub fn credential(&self) -> CredentialId {
        self.credential
    }

    /// What the credential may be used for, inside of what the roles allow.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// Where the request came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The same for a request that came from there.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// The operator this user is, if the role says so.
    pub fn operator(&self) -> Option<Operator> {
        self.role.is_operator().then(|| Operator { author: self.author(), role: self.role, steward: None })
    }

    /// Who writes in the audit log.
    pub(crate) fn author(&self) -> Author {
        if self.console {
            return Author { origin: self.origin.clone(), ..Author::of(Actor::Console) };
        }
        Author {
            actor: Actor::User(self.user_id),
            name: Some(self.username.clone()).filter(|name| !name.is_empty()),
            credential: Some(self.credential),
            origin: self.origin.clone(),
        }
    }
}

/// One or more agents: their rows, their commands, the sessions placed on them. A set, so that a batch is one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentScope {
    pub(crate) agents: Vec<AgentId>,
}

impl AgentScope {
    /// The agents.
    pub fn agents(&self) -> &[AgentId] {
        &self.agents
    }

    /// A scope for each of the agents: a transaction that writes one row at a time waits in no circle.
    pub fn each(&self) -> impl Iterator<Item = Self> + '_ {
        self.agents.iter().map(|agent| Self { agents: vec![*agent] })
    }

    /// The agents of all these scopes together.
    pub fn union<'a>(scopes: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut agents: Vec<AgentId> =
            scopes.into_iter().flat_map(|scope| scope.agents.iter().copied()).collect();
        agents.sort_unstable();
        agents.dedup();
        Self { agents }
    }
}

/// An operator of the platform: agents and the lists of users and organizations.
#[derive(Debug, Clone)]
pub struct Operator {
    pub(crate) author: Author,
    pub(crate) role: SystemRole,
    /// For an organization's own accounts alone, and only as long as this holds.
    pub(crate) steward: Option<Stewardship>,
}

/// An `org_admin` and the organization whose accounts they look after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stewardship {
    pub(crate) org: OrgId,
    pub(crate) user: UserId,
}

impl Operator {
    /// Somebody with a shell on the machine and the database's password, which is proof enough.
    pub fn console() -> Self {
        Self { author: Author::of(Actor::Console), role: SystemRole::Admin, steward: None }
    }

    /// The platform itself, where an agent's registration changes its own row.
    pub fn system() -> Self {
        Self { author: Author::of(Actor::System), role: SystemRole::Admin, steward: None }
    }

    /// The same for a request that came from there.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.author.origin = origin;
        self
    }

    /// Who it is.
    pub fn actor(&self) -> Actor {
        self.author.actor
    }

    /// Operator or admin.
    pub fn role(&self) -> SystemRole {
        self.role
    }
}
