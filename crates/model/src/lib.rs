//! The nouns of Tidegate: typed ids, entities, states, quantities, validation and [`Clock`].
//!
//! Pure: no socket, no SQL text, no HTTP and no async runtime is ever named here.
//!
//! ```
//! use tidegate_model::{Quantity, SessionState};
//!
//! let half: Quantity = "0.5".parse()?;
//! assert_eq!(half, "500m".parse()?);
//! assert!(SessionState::Pending.may_become(SessionState::Running));
//! assert!(!SessionState::Terminated.may_become(SessionState::Running));
//! # Ok::<(), tidegate_model::QuantityError>(())
//! ```

mod agent;
mod agent_request;
mod api_key;
mod application;
mod audit;
mod bearer_token;
mod catalog;
mod catalog_template;
mod clock;
mod command;
mod command_request;
mod credential;
mod device;
mod envelope;
mod event;
mod fields;
mod group;
mod home;
mod id;
mod identity;
mod installed_plugin;
mod invite;
mod mail;
mod manifest;
mod organization;
mod permission;
mod pipe;
mod pipe_retention;
mod plugin;
mod quantity;
mod quota;
mod rating;
mod repository;
mod repository_request;
mod resources;
mod scopes;
mod secret;
mod session;
mod session_limit;
mod share;
mod source;
mod source_grant;
mod subscription;
mod template;
mod terminal_control;
mod terminal_source;
mod text_enum;
mod time_limit;
mod user;
mod user_request;

pub use agent::{
    Agent, AgentCapacity, AgentDrain, AgentHandle, AgentHeartbeatRequest, AgentMetadata,
    AgentRegistrationRequest, AgentReportedStatus, AgentStatus, AgentStatusUpdate, ApprovalStatus, Platform,
};
pub use agent_request::{DrainDeadline, DrainRequest, UpdateAgentRequest};
pub use api_key::{ApiKey, NewApiKey};
pub use application::{
    APPLICATION_GROUPS, AccessLevel, AddGroupAccessRequest, ApplicationGroupAccess,
    InstallApplicationRequest, InstallStatus, InstalledApplication, UpdateApplicationRequest,
    UpdateGroupAccessRequest,
};
pub use audit::{AuditEntry, AuditFilter, REDACTED, redacted};
pub use bearer_token::BearerToken;
pub use catalog::{BlobDigest, CatalogSort, NoDigest};
pub use catalog_template::{
    AppType, CatalogTemplate, PortProtocol, TemplateManifest, TemplatePlatform, TemplatePort,
    declared_options, option_variable,
};
pub use clock::{Clock, SystemClock};
pub use command::{AgentCommand, CommandAction, CommandPayload, CommandStatus, CreateSessionCommand};
pub use command_request::AgentCommandRequest;
pub use credential::{CredentialId, UnknownCredential};
pub use device::{DeviceCode, DeviceDecision, NoUserCode, UserCode, client_name};
pub use envelope::{ENVELOPE_BYTES, Envelope, EnvelopeError, NewMessage, Payload};
pub use event::{
    AgentChange, Change, CommandChange, Event, EventId, EventKind, InvalidEventId, Reset, SessionChange,
};
pub use fields::{FieldErrors, Fields, FromFields, PatchField};
pub use group::{
    AddGroupMemberRequest, CreateGroupRequest, GROUP_DEPTH, Group, GroupMembership, GroupRole, GroupType,
    UpdateGroupRequest,
};
pub use home::Home;
pub use id::{
    AgentId, ApiKeyId, ApplicationGroupId, ApplicationId, AuditId, BearerTokenId, CatalogPluginId,
    CatalogTemplateId, ClaimId, CommandId, DeviceCodeId, GrantId, GroupId, GroupMembershipId, HomeId,
    InstalledPluginId, InviteId, LoginSessionId, MailId, MessageId, OrgId, PasswordResetId, PipeId,
    PipeOperationId, PluginDeliveryId, PluginRatingId, PluginVersionId, RepositoryId, RequestId,
    SessionEventId, SessionId, ShareId, SourceGrantId, SourceId, TemplateRatingId, TicketId, UserId,
};
pub use identity::{organization_candidates, username_candidates};
pub use installed_plugin::{
    DeliveryStatus, InstallPluginRequest, InstalledPlugin, PluginDelivery, UpdatePluginRequest,
    UpgradePluginRequest,
};
pub use invite::{CreateInviteRequest, Invite, InviteStatus};
pub use mail::{MailStatus, validate_mailable};
pub use manifest::{parse_loose_version, parse_version_range, validate_catalog_name, validate_manifest_path};
pub use organization::{
    CreateOrganizationRequest, Member, OrgRole, OrgStatus, Organization, UpdateOrganizationRequest,
    default_namespace, validate_namespace, validate_org_name,
};
pub use permission::{Operation, Standing};
pub use pipe::{
    Confirmation, CreatePipeRequest, InvalidSubject, ListedPipe, OpenPipeRequest, Pipe, PipeSubject, PipeUse,
    UpdatePipeRequest, pipe_of_stream, stream_name,
};
pub use pipe_retention::{Retention, RetentionChange, RetentionChoice};
pub use plugin::{
    CatalogPlugin, PluginEntrypoints, PluginManifest, PluginRequirements, PluginStats, PluginType,
    PluginVersion,
};
pub use quantity::{Quantity, QuantityError, QuantityFormat};
pub use quota::{
    Bounded, DefaultQuota, FourAmounts, GroupQuota, ListedQuota, OrganizationQuota, OrganizationUsage,
    QuotaBound, QuotaCeiling, QuotaCheck, QuotaLimits, QuotaNumbers, QuotaOwner, QuotaResource, QuotaVerdict,
    SetQuotaRequest, Usage, UserQuota, binding,
};
pub use rating::{PluginRating, RateRequest, Rating, TemplateRating};
pub use repository::{
    CatalogRepository, Repository, RepositoryAuth, RepositoryProblem, RepositorySyncStatus, RepositoryType,
};
pub use repository_request::{
    AddRepositoryRequest, RepositorySecret, SyncRequested, UpdateRepositoryRequest,
};
pub use resources::{ResourceRequest, Resources};
pub use scopes::{Scope, Scopes};
pub use secret::Secret;
pub use session::{
    Hibernation, NewSession, Session, SessionEvent, SessionFilter, SessionState, StreamKind, StreamMode,
};
pub use session_limit::{
    ActivityKind, Due, EffectiveLimit, EffectivePolicy, ExtendRequest, ExtensionBounds, Granted, LimitAction,
    LimitBound, LimitMarks, LimitOwners, LimitPolicy, LimitRule, LimitRules, LimitSource, OrganizationLimit,
    OrganizationSessionPolicy, SessionActivity, SessionWarning, SetSessionPolicyRequest,
};
pub use share::{CreateShareRequest, DisconnectRequest, SessionShare, ShareTarget, SharedWith};
pub use source::{
    CreateSourceRequest, Handle, INBOX, InvalidName, PipeName, STDCTRL, STDIN, STDOUT, Source, SourceKind,
};
pub use source_grant::{GrantSourceRequest, GrantTarget, SourceGrant, SourceRight, Writers};
pub use subscription::{LastSent, ReadReceipt, ReadReceipts, SeenMember, Subscription};
pub use template::BuiltInTemplate;
pub use terminal_control::{TerminalBegin, TerminalControl, TerminalSize};
pub use terminal_source::{RecordTerminalRequest, TerminalSource};
pub use text_enum::UnknownValue;
pub use time_limit::{TimeLimit, TimeLimitError};
pub use user::{
    InvalidUserMode, LoginRequest, LoginSession, PlatformUser, Provider, SystemRole, User, UserMode,
    validate_email, validate_full_name, validate_password, validate_username,
};
pub use user_request::{
    ChangePasswordRequest, CreateUserRequest, ImportedUser, NewPasswordRequest, ResetPasswordRequest,
    UpdateUserRequest,
};
