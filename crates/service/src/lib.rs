//! What is allowed: use cases, authorization, placement, hashing; one transaction a use case.
//!
//! What is never kept here: status codes, frames on sockets, names of tables.
//! [`Services::new`] wires everything once, for both binaries, for tests and for whoever embeds Tidegate.

mod activity;
mod agent_commands;
mod agent_orders;
mod agents;
mod all_organizations;
mod all_sessions;
mod all_users;
mod applications;
mod audit;
mod bearer_tokens;
mod broker;
mod browsers;
mod caller;
mod catalog;
mod devices;
mod egress;
mod error;
mod events;
mod force;
mod group_members;
mod groups;
mod homes;
mod idempotency;
mod identities;
mod invites;
mod keys;
mod launch;
mod limits;
mod links;
mod logins;
mod mail;
mod members;
mod nudge;
mod operators;
mod options;
mod options_schema;
mod organizations;
mod own_logins;
mod page;
mod password_resets;
mod passwords;
mod permissions;
mod pipes;
mod placement;
mod platform_quotas;
mod plugins;
mod quotas;
mod refresh_token;
mod reports;
mod repositories;
mod retention;
mod room;
mod secrets;
mod sessions;
mod shares;
mod sources;
mod streams;
mod terminal_sources;
mod throttle;
mod user_sessions;
mod users;

use std::sync::Arc;

use tidegate_model::{ApiKeyId, BearerTokenId, Clock, Secret};

pub use activity::Activity;
pub use agent_commands::QuarantineDecision;
pub use agent_orders::LONGEST_OVERLAP;
pub use agents::{AgentIdentity, Agents, Decision, Registered, Registration};
pub use all_organizations::AllOrganizations;
pub use all_sessions::AllSessions;
pub use all_users::AllUsers;
pub use applications::{Applications, ApplicationsPage, ChangedAccess, Removal};
pub use audit::{Audit, Export, ExportFormat, ExportWriter, Whole};
pub use bearer_tokens::{BearerTokens, IssuedToken};
pub use broker::{
    Begun as RotationBegun, Broker, BrokerOptions, BrokerTls, Connected, Drift, Exchange, Exchanged,
    Messages, MessagesPage, MessagesRead, MessagesWanted, NatsStanding, OLDEST_NATS,
    Operator as NatsOperator, OperatorStanding, PipeEnd, PipeLimits, PipeLimitsChange, PipeRoute, Published,
    ReadMessage, ReadPlace, Recorded, Recorder, Recording, Rotation, ServerState as NatsServer,
    StoreState as NatsStore, Trust as NatsTrust, check_version as check_nats_version,
};
pub use browsers::{BrowserLogin, Browsers};
pub use caller::Caller;
pub use catalog::{Catalog, CatalogSearch};
pub use devices::{DeviceCodes, DeviceError, Devices};
pub use error::{Error, NoRoom};
pub use events::{EventFilter, EventStream, EventTicket, Events};
pub use groups::{ChildrenOf, GroupAdded, Groups, MadeGroup};
pub use homes::Homes;
pub use idempotency::{Idempotency, Made, Replay};
pub use identities::{Asked, CameBack, GithubUpsert, Identities, SentAway, SignInProvider, SignedIn};
pub use invites::{InviteStanding, Invited, Invites, SeenInvite};
pub use keys::{KeyPage, Keys, Minted, generate_plaintext_key, hash_api_key, key_prefix, verify_api_key};
pub use limits::{Limits, Swept};
pub use links::{Ingested, Link, Links, Outbound, Report, ReportKind};
pub use logins::{LoggedIn, Logins};
pub use mail::{
    FileOutbox, Letter, MailError, MailOptions, Mailer, Mails, Post, Sending, SmtpOptions, SmtpTls,
};
pub use members::{Added, Members, Person};
pub use nudge::{Nudge, Nudges};
pub use operators::{Bootstrapped, NewLocalUser, Operators};
pub use options::Options;
pub use options_schema::OptionsSchema;
pub use organizations::{Organizations, Permissions};
pub use page::{Listed, Paging};
pub use password_resets::PasswordResets;
pub use pipes::{OpenPipe, PipeUse, Pipes};
pub use platform_quotas::PlatformQuotas;
pub use plugins::{PluginAnswer, PluginAsked, PluginFile, PluginIcon, PluginOptions, Plugins};
pub use quotas::Quotas;
pub use repositories::{Progress, Repositories, RepositoryOptions, SyncEnd, SyncReport};
pub use retention::Retention;
pub use secrets::Vault;
pub use sessions::{Changed, Sessions};
pub use shares::{Shared, Shares};
pub use sources::{Granted, Sources};
pub use streams::{OpenedStream, StreamGrant, StreamTicket, Streams, ViewerStanding, Viewing};
pub use terminal_sources::{RecordedAt, TerminalSources};
pub use tidegate_identity::{GithubOptions, OidcOptions, Options as SignInOptions, Providers};
pub use tidegate_persistence::viewing::ViewingEnd;
pub use tidegate_persistence::{
    Actor, AgentScope, Db, FreeRecording, Operator, Options as DbOptions, OrgScope, Origin, SystemScope,
    UserScope,
    agent::Filter as AgentFilter,
    application::Icon as ApplicationIcon,
    catalog::Blob as CatalogFile,
    migrate,
    quarantine::Quarantined,
    roles,
    system::{Health, health},
    with_ca_file,
};
pub use tidegate_repositories::{Options as FetchOptions, Step as SyncStep};
pub use users::{MadeUser, Users};

/// What every function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What every use case shares.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vault: Vault,
    pub(crate) options: Options,
    pub(crate) providers: Providers,
    pub(crate) plugins: plugins::Runtime,
    pub(crate) nudges: Nudges,
    pub(crate) feed: events::Feed,
    pub(crate) passwords: passwords::Passwords,
    pub(crate) throttle: Arc<throttle::Throttle>,
    pub(crate) uses: keys::Uses<ApiKeyId>,
    pub(crate) token_uses: keys::Uses<BearerTokenId>,
    pub(crate) views: catalog::Views,
    pub(crate) broker: broker::Slot,
}

/// Every use case, wired once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Services {
    /// Logging in and out, and who a token stands for.
    pub logins: Logins,
    /// Organizations of the caller.
    pub organizations: Organizations,
    /// Every organization of the platform, for operators.
    pub all_organizations: AllOrganizations,
    /// Searching and exporting the audit log.
    pub audit: Audit,
    /// Users in the light of an organization.
    pub users: Users,
    /// Every user of the platform, for operators.
    pub all_users: AllUsers,
    /// Members of an organization.
    pub members: Members,
    /// Groups of an organization's members.
    pub groups: Groups,
    /// What members, groups and the organization may use.
    pub quotas: Quotas,
    /// Quotas of every organization, for operators.
    pub platform_quotas: PlatformQuotas,
    /// Invites into organizations.
    pub invites: Invites,
    /// Passwords that users have forgotten.
    pub password_resets: PasswordResets,
    /// Mails that wait to be sent.
    pub mails: Mails,
    /// API keys of an organization.
    pub keys: Keys,
    /// Logins of browsers.
    pub browsers: Browsers,
    /// People who sign in elsewhere.
    pub identities: Identities,
    /// Devices that ask to be let in.
    pub devices: Devices,
    /// Bearer tokens of the caller.
    pub bearer_tokens: BearerTokens,
    /// Templates and plugins that can be installed.
    pub catalog: Catalog,
    /// Sessions of an organization.
    pub sessions: Sessions,
    /// Sessions of every organization, for operators.
    pub all_sessions: AllSessions,
    /// Installed applications of an organization.
    pub applications: Applications,
    /// Persistent homes of an organization.
    pub homes: Homes,
    /// What keeps sessions alive.
    pub activity: Activity,
    /// Idle timeouts and longest durations of sessions.
    pub limits: Limits,
    /// Shares of sessions.
    pub shares: Shares,
    /// Sources: handles that messages are sent to.
    pub sources: Sources,
    /// Sources that sessions' terminals are recorded at.
    pub terminal_sources: TerminalSources,
    /// What records them.
    pub recorder: Recorder,
    /// Pipes of sources.
    pub pipes: Pipes,
    /// NATS, which carries pipes.
    pub broker: Broker,
    /// Sending and reading messages.
    pub messages: Messages,
    /// Credentials for NATS.
    pub exchange: Exchange,
    /// Tickets and rights of streams.
    pub streams: Streams,
    /// Changes of sessions, commands and agents, as a stream.
    pub events: Events,
    /// Registration, approval and identity of agents.
    pub agents: Agents,
    /// What the hub tells of live agents.
    pub links: Links,
    /// Where templates and plugins come from.
    pub repositories: Repositories,
    /// Plugins of the platform and of its organizations.
    pub plugins: Plugins,
    /// What operators do to users and organizations.
    pub operators: Operators,
    core: Arc<Core>,
}

impl Services {
    /// Wires the use cases. `master_key` is what all other keys are derived from.
    pub fn new(
        db: Db,
        master_key: &Secret<[u8; 32]>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let core = Arc::new(Core {
            vault: Vault::new(master_key)?,
            passwords: passwords::Passwords::new(options.password_workers),
            throttle: Arc::new(throttle::Throttle::new(&options)),
            providers: Providers::new(&options.sign_in).map_err(Error::internal)?,
            plugins: plugins::Runtime::new(
                options.plugins.workers,
                egress::Egress::new(&options.plugins.private_networks).map_err(Error::internal)?,
            ),
            nudges: Nudges::new(),
            feed: events::Feed::new(),
            uses: keys::Uses::default(),
            token_uses: keys::Uses::default(),
            views: catalog::Views::default(),
            broker: broker::Slot::default(),
            db,
            clock,
            options,
        });
        Ok(Self {
            logins: Logins(Arc::clone(&core)),
            organizations: Organizations(Arc::clone(&core)),
            all_organizations: AllOrganizations(Arc::clone(&core)),
            audit: Audit(Arc::clone(&core)),
            users: Users(Arc::clone(&core)),
            all_users: AllUsers(Arc::clone(&core)),
            members: Members(Arc::clone(&core)),
            groups: Groups(Arc::clone(&core)),
            quotas: Quotas(Arc::clone(&core)),
            platform_quotas: PlatformQuotas(Arc::clone(&core)),
            invites: Invites(Arc::clone(&core)),
            password_resets: PasswordResets(Arc::clone(&core)),
            mails: Mails(Arc::clone(&core)),
            keys: Keys(Arc::clone(&core)),
            browsers: Browsers(Arc::clone(&core)),
            identities: Identities(Arc::clone(&core)),
            devices: Devices(Arc::clone(&core)),
            bearer_tokens: BearerTokens(Arc::clone(&core)),
            catalog: Catalog(Arc::clone(&core)),
            sessions: Sessions(Arc::clone(&core)),
            all_sessions: AllSessions(Arc::clone(&core)),
            applications: Applications(Arc::clone(&core)),
            homes: Homes(Arc::clone(&core)),
            activity: Activity(Arc::clone(&core)),
            limits: Limits(Arc::clone(&core)),
            shares: Shares(Arc::clone(&core)),
            sources: Sources(Arc::clone(&core)),
            terminal_sources: TerminalSources(Arc::clone(&core)),
            recorder: Recorder(Arc::clone(&core)),
            pipes: Pipes(Arc::clone(&core)),
            broker: Broker(Arc::clone(&core)),
            messages: Messages(Arc::clone(&core)),
            exchange: Exchange(Arc::clone(&core)),
            streams: Streams(Arc::clone(&core)),
            events: Events(Arc::clone(&core)),
            agents: Agents(Arc::clone(&core)),
            links: Links(Arc::clone(&core)),
            repositories: Repositories::new(Arc::clone(&core)),
            plugins: Plugins(Arc::clone(&core)),
            operators: Operators(Arc::clone(&core)),
            core,
        })
    }

    /// The pool, for health checks.
    pub fn db(&self) -> &Db {
        &self.core.db
    }

    /// What a request's body is known by where repeats are told apart. Keyed: a body may hold a password.
    pub fn fingerprint(&self, body: &[u8]) -> Vec<u8> {
        self.core.vault.digest_bytes(secrets::Purpose::Body, body)
    }

    /// The clock that decisions follow.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.core.clock
    }

    /// After-commit hints.
    pub fn nudges(&self) -> &Nudges {
        &self.core.nudges
    }
}
