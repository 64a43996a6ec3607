//! Sessions: what people ask for, and the one place where their lifecycle is stated.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    AgentHandle, ApplicationId, BuiltInTemplate, Fields, FromFields, OrgId, Platform, ResourceRequest,
    Resources, SessionEventId, SessionId, SessionWarning, SharedWith, TerminalSource, TimeLimit, UserId,
    text_enum::text_enum,
};

text_enum! {
    /// Where a session stands. [`SessionState::predecessors`] is the lifecycle.
    SessionState, "session state" {
        /// Its start command is on the way.
        Pending = "pending",
        /// It runs.
        Running = "running",
        /// Its hibernate command is on the way.
        Hibernating = "hibernating",
        /// Stopped, its home kept.
        Hibernated = "hibernated",
        /// Its wake command is on the way.
        Waking = "waking",
        /// Its stop command is on the way.
        Terminating = "terminating",
        /// Ended.
        Terminated = "terminated",
        /// Ended against its owner's wish, with a reason.
        Failed = "failed",
    }
}

impl SessionState {
    /// The states that count against quotas and an agent's capacity.
    pub const ACTIVE: &'static [Self] =
        &[Self::Pending, Self::Running, Self::Waking, Self::Hibernating, Self::Terminating];

    /// The states from which this one may be entered; all SQL, checks and documents read it from here.
    pub const fn predecessors(self) -> &'static [Self] {
        use SessionState::{Hibernated, Hibernating, Pending, Running, Terminating, Waking};
        match self {
            Pending => &[],
            Running => &[Pending, Hibernating, Waking],
            Hibernating => &[Running],
            Hibernated => &[Hibernating, Waking],
            Waking => &[Hibernated],
            Terminating => &[Pending, Running, Hibernating, Hibernated, Waking],
            Self::Terminated => &[Running, Terminating],
            Self::Failed => &[Pending, Running, Hibernating, Hibernated, Waking, Terminating],
        }
    }

    /// Whether `next` may follow this state.
    pub fn may_become(self, next: Self) -> bool {
        next.predecessors().contains(&self)
    }

    /// Whether nothing may follow.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Terminated | Self::Failed)
    }
}

text_enum! {
    /// What of a session is streamed.
    StreamKind, "stream kind" {
        /// The PTY.
        Terminal = "terminal",
        /// The desktop, RFB.
        Vnc = "vnc",
        /// The web port.
        Http = "http",
    }
}

text_enum! {
    /// What a viewer may do.
    StreamMode, "stream mode" {
        /// Watch and type.
        Control = "control",
        /// Watch; input is dropped on the server.
        View = "view",
    }
}

text_enum! {
    /// What becomes of a container while its session sleeps.
    Hibernation, "hibernation" {
        /// Its processes end, its home stays.
        Stop = "stop",
        /// Its processes are frozen where they are and keep their memory.
        Pause = "pause",
    }
}

/// A session as answers show it. `environment` is write-only and stands nowhere here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The session's id.
    pub id: SessionId,
    /// Its organization.
    pub org_id: OrgId,
    /// Its owner's username.
    pub user: String,
    /// Its owner.
    pub user_id: UserId,
    /// For people.
    pub name: String,
    /// What it runs.
    pub template: String,
    /// The image of its container, where it is one.
    #[serde(default)]
    pub image: Option<String>,
    /// How it is watched.
    #[serde(default = "of_old")]
    pub protocol: StreamKind,
    /// The installed application it came from.
    pub application_id: Option<ApplicationId>,
    /// The agent it is placed on.
    pub agent_id: Option<AgentHandle>,
    /// The agent's platform.
    pub platform: Platform,
    /// The agent's region.
    pub region: Option<String>,
    /// Where it stands.
    pub state: SessionState,
    /// Why, where there is more to say.
    pub state_reason: Option<String>,
    /// Since when.
    pub state_since: DateTime<Utc>,
    /// How often it was started or woken.
    pub generation: i64,
    /// What it was granted.
    pub resources: Resources,
    /// Whether its home outlives it.
    pub persistent_home: bool,
    /// Hibernates after so long without activity.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "30m"))]
    pub idle_timeout: TimeLimit,
    /// Ends after so long.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "8h"))]
    pub max_session_duration: TimeLimit,
    /// Labels for people.
    pub tags: Vec<String>,
    /// Whether its stream can be watched.
    pub streaming_ready: bool,
    /// The stream's port on the agent's side.
    pub streaming_port: Option<u16>,
    /// What the platform says of it, exit code included.
    pub platform_metadata: Map<String, Value>,
    /// Asked for.
    pub created_at: DateTime<Utc>,
    /// First ran.
    pub started_at: Option<DateTime<Utc>>,
    /// Last viewer or declared activity.
    pub last_activity_at: Option<DateTime<Utc>>,
    /// Last went to sleep.
    pub hibernated_at: Option<DateTime<Utc>>,
    /// Ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it hibernates unless somebody is active before; none while it does not run or has no idle timeout.
    #[serde(default)]
    pub idle_at: Option<DateTime<Utc>>,
    /// When it is terminated, awake or asleep; none without a longest duration.
    #[serde(default)]
    pub ends_at: Option<DateTime<Utc>>,
    /// What is about to happen to it by itself.
    #[serde(default)]
    pub warning: Option<SessionWarning>,
    /// What the caller may do with it who is not its owner, and whom its owner shared it with.
    #[serde(default)]
    pub shared: Option<SharedWith>,
    /// Where its terminal is recorded.
    #[serde(default)]
    pub terminal_source: Option<TerminalSource>,
}

/// Servers that do not say how a session is watched know terminals alone.
const fn of_old() -> StreamKind {
    StreamKind::Terminal
}

impl Session {
    /// The exit code its program left, where the agent told it.
    pub fn exit_code(&self) -> Option<i32> {
        self.platform_metadata
            .get("exitCode")
            .and_then(Value::as_i64)
            .and_then(|code| i32::try_from(code).ok())
    }
}

/// One change in a session's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SessionEvent {
    /// The event's id.
    pub id: SessionEventId,
    /// The session.
    pub session_id: SessionId,
    /// The state it left; `null` when it was made.
    pub from_state: Option<SessionState>,
    /// The state it entered.
    pub to_state: SessionState,
    /// Why.
    pub reason: Option<String>,
    /// Which start or wake.
    pub generation: i64,
    /// When.
    pub at: DateTime<Utc>,
}

/// Body of `POST sessions`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSession {
    /// Name of a built-in template, or of one of the catalog; none where an application is named instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The installed application that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_id: Option<ApplicationId>,
    /// For people; made up when absent. 1–100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Program and arguments: required by `command`, and by `web` without an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Image of a container, such as `debian:12`; without one it runs on the agent's machine itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Only agents of this platform; `docker` with an image, else `vm` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The container's port that is streamed; the image's only one when absent (5900 of a desktop).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What becomes of the container while the session sleeps; default `stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hibernation: Option<Hibernation>,
    /// What it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequest>,
    /// Whether the home outlives the session.
    pub persistent_home: bool,
    /// Hibernates after so long without activity; default `0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<TimeLimit>,
    /// Ends after so long; default `0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_session_duration: Option<TimeLimit>,
    /// Environment variables; never shown again.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Labels, at most 32 of 1–64 characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Only agents of this region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl NewSession {
    /// A session of this template with every default.
    pub fn of(template: &str) -> Self {
        Self { template: Some(template.to_owned()), ..Self::empty() }
    }

    /// A session of this application with every default.
    pub fn of_application(application: ApplicationId) -> Self {
        Self { application_id: Some(application), ..Self::empty() }
    }

    const fn empty() -> Self {
        Self {
            template: None,
            application_id: None,
            name: None,
            command: None,
            image: None,
            platform: None,
            port: None,
            hibernation: None,
            resources: None,
            persistent_home: false,
            idle_timeout: None,
            max_session_duration: None,
            environment: BTreeMap::new(),
            tags: Vec::new(),
            region: None,
        }
    }
}

impl FromFields for NewSession {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let template: Option<String> = fields.optional("template");
        let application_id: Option<ApplicationId> = fields.optional("applicationId");
        let of_application = application_id.is_some();
        match (&template, of_application) {
            (None, false) => fields.errors().add("template", "is required, or an `applicationId`"),
            (Some(_), true) => {
                fields.errors().add("template", "only one of `template` and `applicationId` may be there");
            }
            (Some(_), false) | (None, true) => {}
        }
        let name: Option<String> = fields.optional("name");
        if let Some(name) = &name {
            fields.check_length("name", name, 1..=100);
            if name.chars().any(char::is_control) {
                fields.errors().add("name", "must not contain control characters");
            }
        }
        let region: Option<String> = fields.optional("region");
        if let Some(region) = &region {
            fields.check_length("region", region, 2..=50);
        }
        let image = read_image(fields);
        // The image of an application is its template's.
        let container = Container::read(fields, image.is_some() || of_application, template.as_deref());
        let command = read_command(fields, template.as_deref(), image.is_some());
        if of_application {
            let asked = [
                ("command", command.is_some()),
                ("image", image.is_some()),
                ("platform", container.platform.is_some()),
                ("port", container.port.is_some()),
            ];
            for (field, _) in asked.into_iter().filter(|(_, there)| *there) {
                fields.errors().add(field, "is the application's to say, and no part of this request");
            }
        }
        let new = Self {
            command,
            template,
            application_id,
            image,
            platform: container.platform,
            port: container.port,
            hibernation: container.hibernation,
            name,
            resources: read_resources(fields),
            persistent_home: fields.optional("persistentHome").unwrap_or(false),
            idle_timeout: fields.optional("idleTimeout"),
            max_session_duration: fields.optional("maxSessionDuration"),
            environment: read_environment(fields),
            tags: read_tags(fields),
            region,
        };
        Some(new)
    }
}

fn read_image(fields: &mut Fields) -> Option<String> {
    let image: Option<String> = fields.optional("image");
    if let Some(image) = &image {
        check_image(fields, "image", image);
    }
    image
}

/// Complains about what names no image.
pub(crate) fn check_image(fields: &mut Fields, field: &str, image: &str) {
    if !is_image(image) {
        fields
            .errors()
            .add(field, "must name an image, such as debian:12 or registry.example/team/app@sha256:…");
    }
}

/// Whether a text may be an image's name: what no tool takes for a flag or a path. The agent's engine has the last word.
fn is_image(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte);
    (1..=255).contains(&text.len())
        && text.bytes().all(plain)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
        && !text.contains("//")
        && !text.contains("..")
}

/// What only containers have, and which agents run them.
struct Container {
    platform: Option<Platform>,
    port: Option<u16>,
    hibernation: Option<Hibernation>,
}

impl Container {
    fn read(fields: &mut Fields, has_image: bool, template: Option<&str>) -> Self {
        let template = template.and_then(|template| template.parse::<BuiltInTemplate>().ok());
        let platform: Option<Platform> = fields.optional("platform");
        match platform {
            Some(Platform::Vm) if has_image => {
                fields.errors().add("platform", "must not be `vm` with an image: `vm` runs no containers");
            }
            Some(Platform::Docker) if !has_image && template.is_some() => {
                fields.errors().add("platform", "needs an image where it is `docker`");
            }
            _ => {}
        }
        let port: Option<u16> = fields.optional("port");
        if port == Some(0) {
            fields.errors().add("port", "must be a number from 1 to 65535");
        }
        if port.is_some() && !has_image {
            fields
                .errors()
                .add("port", "belongs to containers: without an image the agent chooses it (PORT)");
        }
        if port.is_some() && template.is_some_and(|template| template.protocol() == StreamKind::Terminal) {
            fields.errors().add("port", "belongs to the templates `desktop` and `web`");
        }
        let hibernation: Option<Hibernation> = fields.optional("hibernation");
        // What a template of the catalog runs in, the catalog knows.
        if hibernation == Some(Hibernation::Pause) && !has_image && template.is_some() {
            fields
                .errors()
                .add("hibernation", "must be `stop` without an image: only containers can be paused");
        }
        Self { platform, port, hibernation }
    }
}

fn read_command(fields: &mut Fields, template: Option<&str>, has_image: bool) -> Option<Vec<String>> {
    let command: Option<Vec<String>> = fields.optional("command");
    let template = template.and_then(|template| template.parse::<BuiltInTemplate>().ok());
    match &command {
        Some(_) if !template.is_none_or(BuiltInTemplate::takes_command) => {
            fields.errors().add("command", "does not belong to template `shell`, which runs the login shell");
        }
        None if template.is_some_and(|template| template.needs_command(has_image)) => {
            let needed = "is required by this template: program and arguments";
            fields.errors().add("command", needed);
        }
        Some(argv) => check_command(fields, argv),
        None => {}
    }
    command
}

/// Complains about what is no program with arguments.
pub(crate) fn check_command(fields: &mut Fields, argv: &[String]) {
    let bytes: usize = argv.iter().map(String::len).sum();
    if argv.first().is_none_or(String::is_empty) || argv.len() > 1_024 || bytes > 64 * 1_024 {
        fields.errors().add("command", "must be a program and at most 1023 arguments, 64 KiB together");
    } else if argv.iter().any(|argument| argument.contains('\0')) {
        fields.errors().add("command", "must not contain NUL");
    }
}

pub(crate) fn read_resources(fields: &mut Fields) -> Option<ResourceRequest> {
    let value: Value = fields.optional("resources")?;
    match ResourceRequest::from_json(value) {
        Ok(request) => Some(request),
        Err(errors) => {
            for (field, message) in errors.iter() {
                fields.errors().add(format!("resources.{field}"), message);
            }
            None
        }
    }
}

fn read_environment(fields: &mut Fields) -> BTreeMap<String, String> {
    let environment: BTreeMap<String, String> = fields.optional("environment").unwrap_or_default();
    check_environment(fields, "environment", &environment);
    environment
}

/// Complains about variables that no session can have, under the name of the field they stand in.
pub(crate) fn check_environment(fields: &mut Fields, field: &str, environment: &BTreeMap<String, String>) {
    let bytes: usize = environment.iter().map(|(name, value)| name.len() + value.len()).sum();
    if environment.len() > 256 || bytes > 64 * 1_024 {
        fields.errors().add(field, "must not have more than 256 variables or 64 KiB");
    }
    for (name, value) in environment {
        let shown: String = name.chars().take(64).collect();
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || !plain || name.as_bytes()[0].is_ascii_digit() {
            fields.errors().add(format!("{field}.{shown}"), "must be named with A-Z, a-z, 0-9 and _");
        } else if name.starts_with("TIDEGATE_") {
            fields
                .errors()
                .add(format!("{field}.{shown}"), "must not begin with TIDEGATE_, which is reserved");
        } else if value.contains('\0') {
            fields.errors().add(format!("{field}.{shown}"), "must not contain NUL");
        }
    }
}

pub(crate) fn read_tags(fields: &mut Fields) -> Vec<String> {
    let tags: Vec<String> = fields.optional("tags").unwrap_or_default();
    let fits = |tag: &String| (1..=64).contains(&tag.chars().count()) && !tag.chars().any(char::is_control);
    if tags.len() > 32 || !tags.iter().all(fits) {
        fields.errors().add("tags", "must be at most 32 texts of 1 to 64 characters");
    }
    tags
}

/// What a list of sessions is narrowed to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Of this owner only, by username.
    pub user: Option<String>,
    /// In this state only.
    pub state: Option<SessionState>,
    /// With this tag only.
    pub tag: Option<String>,
    /// On this agent only.
    pub agent: Option<AgentHandle>,
    /// Of this installed application only.
    pub application: Option<ApplicationId>,
    /// Of others, shared with whoever asks, only. Of all organizations at once nothing is shared with an operator: there it
    /// says nothing.
    pub shared: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lifecycle_is_the_matrix_in_the_contract() {
        let mut matrix = Vec::new();
        for from in SessionState::ALL {
            let next: Vec<&str> =
                SessionState::ALL.iter().filter(|to| from.may_become(**to)).map(|to| to.as_str()).collect();
            matrix.push(format!("{from} -> {}", next.join(", ")));
        }
        insta::assert_snapshot!(matrix.join("\n"), @r"
        pending -> running, terminating, failed
        running -> hibernating, terminating, terminated, failed
        hibernating -> running, hibernated, terminating, failed
        hibernated -> waking, terminating, failed
        waking -> running, hibernated, terminating, failed
        terminating -> terminated, failed
        terminated -> 
        failed -> 
        ");
    }

    #[test]
    fn a_bad_request_names_every_bad_field() {
        let body = json!({
            "template": "command", "name": "", "resources": {"cpu": "1m", "memory": "-1", "gpu": 1}, "idleTimeout": "5s",
            "environment": {"1A": "x", "TIDEGATE_X": "y"}, "tags": [""], "color": "red", "region": "x",
        });
        let errors = NewSession::from_json(body).unwrap_err();
        let names: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(
            names,
            [
                "color",
                "command",
                "environment.1A",
                "environment.TIDEGATE_X",
                "idleTimeout",
                "name",
                "region",
                "resources.cpu",
                "resources.gpu",
                "resources.memory",
                "tags"
            ]
        );
    }

    #[test]
    fn what_belongs_to_containers_needs_an_image() {
        let complaints = |body: Value| {
            let errors = NewSession::from_json(body).err().unwrap_or_default();
            errors.iter().map(|(field, _)| field.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(complaints(json!({"template": "web", "image": "nginx:1", "port": 80})), [""; 0]);
        assert_eq!(complaints(json!({"template": "web"})), ["command"]);
        assert_eq!(complaints(json!({"template": "web", "command": ["serve"], "port": 80})), ["port"]);
        assert_eq!(complaints(json!({"template": "desktop", "hibernation": "pause"})), ["hibernation"]);
        assert_eq!(
            complaints(json!({"template": "shell", "image": "debian:12", "platform": "vm"})),
            ["platform"]
        );
        assert_eq!(complaints(json!({"template": "shell", "image": "debian:12", "port": 80})), ["port"]);
        assert_eq!(complaints(json!({"template": "shell", "platform": "docker"})), ["platform"]);
        for image in ["", "-v", "/etc", "a b", "a//b", "a:", "../a", "a;b", "é"] {
            assert_eq!(complaints(json!({"template": "shell", "image": image})), ["image"], "{image:?}");
        }
        for image in ["debian", "debian:12", "127.0.0.1:5000/team/app:1.2", "app@sha256:00ff"] {
            assert_eq!(complaints(json!({"template": "shell", "image": image})), [""; 0], "{image:?}");
        }
    }

    #[test]
    fn a_session_is_of_a_template_or_of_an_application() {
        let complaints = |body: Value| {
            let errors = NewSession::from_json(body).err().unwrap_or_default();
            errors.iter().map(|(field, _)| field.to_owned()).collect::<Vec<_>>()
        };
        let id = ApplicationId::new();
        assert_eq!(NewSession::from_json(json!({"applicationId": id})), Ok(NewSession::of_application(id)));
        assert_eq!(serde_json::to_value(NewSession::of_application(id)).unwrap()["applicationId"], json!(id));
        assert_eq!(complaints(json!({})), ["template"]);
        assert_eq!(complaints(json!({"template": "shell", "applicationId": id})), ["template"]);
        assert_eq!(complaints(json!({"applicationId": "firefox"})), ["applicationId", "template"]);
        let theirs = json!({"applicationId": id, "command": ["sh"], "image": "debian:12", "platform": "docker", "port": 80});
        assert_eq!(complaints(theirs), ["command", "image", "platform", "port"]);
        let own =
            json!({"applicationId": id, "hibernation": "pause", "environment": {"A": "1"}, "tags": ["x"]});
        assert_eq!(complaints(own), [""; 0]);
    }

    #[test]
    fn a_session_needs_no_more_than_its_template() {
        let new = NewSession::from_json(json!({"template": "shell"})).unwrap();
        assert_eq!(new, NewSession::of("shell"));
    }
}
