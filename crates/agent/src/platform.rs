//! What an agent needs of the thing that runs its sessions: this machine's processes now, containers later.

use std::{collections::BTreeMap, fmt, io, pin::Pin, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{Sink, Stream, future::BoxFuture};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_model::{BuiltInTemplate, CreateSessionCommand, Hibernation, Quantity, StreamKind, StreamMode};

use crate::Error;

/// One start or wake of one session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionKey {
    /// The session's id: letters, digits, `-` and `_`, at most 64, so that it may stand in a path.
    pub session_id: String,
    /// Which start or wake.
    pub generation: i64,
}

impl SessionKey {
    /// The key, or why the id cannot be one.
    pub fn new(session_id: &str, generation: i64) -> Result<Self, Error> {
        if is_plain(session_id) && generation >= 0 {
            Ok(Self { session_id: session_id.to_owned(), generation })
        } else {
            Err(Error::Refused("a session id has 1 to 64 letters, digits, - and _".into()))
        }
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session_id, self.generation)
    }
}

/// What options of a template are passed to its program by: the control plane alone sets them.
const OPTIONS: &str = "TIDEGATE_OPTION_";

/// Whether a variable of this name may be passed on to a session's program: other names of ours say whose process it is.
pub(crate) fn is_passed_on(name: &str) -> bool {
    !name.starts_with("TIDEGATE_") || name.starts_with(OPTIONS)
}

/// Whether a text may be one component of a path.
pub(crate) fn is_plain(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What a session runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The login shell.
    Shell,
    /// A program and its arguments; never empty.
    Command(Vec<String>),
    /// A desktop, and what runs on it; empty for a window manager, or what the image runs.
    Desktop(Vec<String>),
    /// What serves a web application; empty for what the image runs.
    Web(Vec<String>),
}

impl Program {
    /// How it is watched.
    pub const fn protocol(&self) -> StreamKind {
        match self {
            Self::Shell | Self::Command(_) => StreamKind::Terminal,
            Self::Desktop(_) => StreamKind::Vnc,
            Self::Web(_) => StreamKind::Http,
        }
    }
}

/// Everything needed to start a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSpec {
    /// Which session, and which start of it.
    pub key: SessionKey,
    /// The owner's username.
    pub user: String,
    /// Whose home it is, for example `<organization>/<user>`: one or two plain path components.
    pub owner: String,
    /// What it runs.
    pub program: Program,
    /// The image of its container, on platforms that have containers.
    pub image: Option<String>,
    /// The container's port that is streamed.
    pub port: Option<u16>,
    /// What becomes of the container while the session sleeps.
    pub hibernation: Hibernation,
    /// Whether the home outlives the session.
    pub persistent_home: bool,
    /// Variables of its own.
    pub environment: BTreeMap<String, String>,
    /// CPU in thousandths of a core; absent is unlimited.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes; absent is unlimited.
    pub memory_bytes: Option<u64>,
}

impl SessionSpec {
    /// Reads a start or wake command.
    pub fn from_command(command: CreateSessionCommand) -> Result<Self, Error> {
        let key = SessionKey::new(&command.session_id, command.generation.unwrap_or(0))?;
        let amount = |name: &str, flat: &Option<String>| -> Result<Option<Quantity>, Error> {
            let text = command.resources.get(name).or(flat.as_ref());
            text.map(|text| text.parse().map_err(|error| Error::Refused(format!("{name} {error}"))))
                .transpose()
        };
        let cpu = amount("cpu", &command.cpu)?;
        let memory = amount("memory", &command.memory)?;
        Ok(Self {
            owner: owner_of(&command)?,
            program: program_of(&command)?,
            image: command.image,
            port: command.port,
            hibernation: command.hibernation.unwrap_or(Hibernation::Stop),
            user: command.user,
            persistent_home: command.persistent_home,
            environment: command.environment,
            cpu_millis: cpu.and_then(Quantity::as_millis).filter(|millis| *millis > 0),
            memory_bytes: memory.and_then(Quantity::as_units).filter(|bytes| *bytes > 0),
            key,
        })
    }
}

fn owner_of(command: &CreateSessionCommand) -> Result<String, Error> {
    owner(command.org_id.as_deref(), command.user_id.as_deref(), &command.user)
}

/// Whose home it is that a stop asks to delete; none where it asks for nothing of the kind.
pub(crate) fn home_to_delete(payload: &Map<String, Value>) -> Result<Option<String>, Error> {
    if payload.get("deleteHome").and_then(Value::as_bool) != Some(true) {
        return Ok(None);
    }
    let text = |name: &str| payload.get(name).and_then(Value::as_str);
    owner(text("orgId"), text("userId"), text("user").unwrap_or_default()).map(Some)
}

fn owner(org: Option<&str>, user_id: Option<&str>, user: &str) -> Result<String, Error> {
    let owner = match (org, user_id) {
        (Some(org), Some(user)) => [org, user],
        // Control planes of the first protocol name the user alone.
        _ => ["local", user],
    };
    if owner.iter().all(|part| is_plain(part)) {
        Ok(owner.join("/"))
    } else {
        Err(Error::Refused("organization and user are named with letters, digits, - and _".into()))
    }
}

fn program_of(command: &CreateSessionCommand) -> Result<Program, Error> {
    let argv = command.command.clone().unwrap_or_default();
    let named = argv.first().is_some_and(|program| !program.is_empty());
    if !argv.is_empty() && !named {
        return Err(Error::Refused("the program to run has no name".into()));
    }
    if command.template_manifest.is_some() {
        return program_of_catalog(command, argv);
    }
    match command.template.parse() {
        Ok(BuiltInTemplate::Shell) => Ok(Program::Shell),
        Ok(BuiltInTemplate::Command) if named => Ok(Program::Command(argv)),
        Ok(BuiltInTemplate::Desktop) => Ok(Program::Desktop(argv)),
        Ok(BuiltInTemplate::Web) if named || command.image.is_some() => Ok(Program::Web(argv)),
        Ok(template @ (BuiltInTemplate::Command | BuiltInTemplate::Web)) => {
            Err(Error::Refused(format!("template {template} needs a program to run")))
        }
        Err(_) => {
            let name: String = command.template.chars().filter(|c| !c.is_control()).take(64).collect();
            Err(Error::Refused(format!(
                "this agent has no template {name}, only shell, command, desktop and web"
            )))
        }
    }
}

/// What a template of a catalog runs: it is told by how it is watched, whatever its name is.
fn program_of_catalog(command: &CreateSessionCommand, argv: Vec<String>) -> Result<Program, Error> {
    match command.protocol {
        Some(StreamKind::Terminal) if argv.is_empty() => Ok(Program::Shell),
        Some(StreamKind::Terminal) => Ok(Program::Command(argv)),
        Some(StreamKind::Vnc) => Ok(Program::Desktop(argv)),
        Some(StreamKind::Http) if argv.is_empty() && command.image.is_none() => {
            Err(Error::Refused("a web application needs a program to run, or an image".into()))
        }
        Some(StreamKind::Http) => Ok(Program::Web(argv)),
        None => Err(Error::Refused("the command does not say how the session is watched".into())),
    }
}

/// How a session's program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Its exit code; 128 + signal where one killed it.
    pub code: i32,
    /// The signal's name, where one killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Offset of the first byte of output that was kept.
    #[serde(default)]
    pub output_start: u64,
    /// When.
    pub at: DateTime<Utc>,
}

/// What became of a session that no longer runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Its program ended.
    Exited(Exit),
    /// It was lost; the sentence says how.
    Lost(String),
}

/// What is there of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It runs.
    Running,
    /// What holds it is at work: its program is about to begin, or its end about to be told.
    Starting,
    /// It ran and no longer does.
    Ended(Ended),
}

/// What of a session outlives a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Its home: it hibernates.
    Home,
    /// Nothing but a persistent home and the last of its output: it terminates.
    Nothing,
}

/// A frame of a session's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamFrame {
    /// Bytes of the stream.
    Bytes(Bytes),
    /// A control frame.
    Text(String),
}

/// What is to be streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRequest {
    /// The terminal, for a viewer that may do so much.
    Terminal(StreamMode),
    /// What was printed, from an offset on, until now or until the end.
    Logs {
        /// Bytes to leave out, counted from the session's first.
        after: u64,
        /// Whether to stay until the program ends.
        follow: bool,
    },
    /// The bytes of the desktop or the web application.
    Stream,
    /// The bytes of another port of the session.
    Port(u16),
}

/// Tells how far a start is, in a sentence for people. Cheap to clone; what it is told too often is left out.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(String) + Send + Sync>);

impl Progress {
    /// Told to this function.
    pub fn new(tell: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Told to nobody.
    pub fn silent() -> Self {
        Self::new(drop)
    }

    /// Tells.
    pub fn tell(&self, sentence: impl Into<String>) {
        (self.0)(sentence.into());
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// A session that a platform has and the agent's own records do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// Which start of which session.
    pub key: SessionKey,
    /// Whether it runs; else it sleeps.
    pub running: bool,
}

/// An open stream of a session: what it says, and what it is told.
pub struct SessionStream {
    /// From the session.
    pub output: Pin<Box<dyn Stream<Item = io::Result<StreamFrame>> + Send>>,
    /// To the session.
    pub input: Pin<Box<dyn Sink<StreamFrame, Error = io::Error> + Send>>,
}

/// Runs sessions. Everything may be repeated: a start of what runs and a stop of what is gone succeed.
pub trait Platform: Send + Sync + 'static {
    /// Which kind of agent this makes.
    fn kind(&self) -> tidegate_model::Platform;
    /// What the control plane is told about how its sessions run.
    fn metadata(&self) -> Map<String, Value>;
    /// Starts a session; running when this returns.
    fn start<'a>(&'a self, spec: &'a SessionSpec, progress: Progress) -> BoxFuture<'a, Result<(), Error>>;
    /// Ends a session and everything it started; `None` when it was gone already and left no trace.
    fn stop<'a>(&'a self, key: &'a SessionKey, keep: Keep) -> BoxFuture<'a, Result<Option<Exit>, Error>>;
    /// Looks what is there. Remains of a lost session are cleaned up.
    fn find<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Found, Error>>;
    /// Waits for the end of a running session. Remains of a lost session are cleaned up.
    fn watch(&self, key: &SessionKey) -> BoxFuture<'static, Ended>;
    /// Waits until a running session's stream can be watched; answers its port where it has one.
    fn ready(&self, key: &SessionKey) -> BoxFuture<'static, Option<u16>>;
    /// Sessions that are there although nobody may know of them: those of an agent that lost its records.
    fn discover(&self) -> BoxFuture<'_, Vec<Discovered>> {
        Box::pin(async { Vec::new() })
    }
    /// Frees what no session owns: `known` are those that run or sleep.
    fn sweep<'a>(&'a self, known: &'a [SessionKey]) -> BoxFuture<'a, ()> {
        let _ = known;
        Box::pin(async {})
    }
    /// Frees what a session that ended by itself still holds.
    fn release<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), Error>>;
    /// Deletes the persistent home of an owner, as [`SessionSpec::owner`] names them, when nothing runs in it; true where it
    /// is gone. A platform that cannot tell leaves it.
    fn delete_home<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        let _ = owner;
        Box::pin(std::future::ready(Ok(false)))
    }
    /// Opens a stream of a session, of one that ended too, as long as its output is kept.
    fn open<'a>(
        &'a self,
        key: &'a SessionKey,
        request: StreamRequest,
    ) -> BoxFuture<'a, Result<SessionStream, Error>>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn program(command: &Value) -> Result<Program, String> {
        let mut whole =
            json!({"sessionId": "s-1", "user": "alice", "templateManifest": {"kind": "Template"}});
        for (name, value) in command.as_object().unwrap() {
            whole[name] = value.clone();
        }
        let command = serde_json::from_value(whole).unwrap();
        SessionSpec::from_command(command).map(|spec| spec.program).map_err(|error| error.to_string())
    }

    #[test]
    fn a_template_of_a_catalog_is_run_as_it_is_watched_whatever_its_name_is() {
        let of = |protocol: &str, more: Value| {
            let mut command = json!({"template": "shell", "protocol": protocol});
            for (name, value) in more.as_object().unwrap() {
                command[name] = value.clone();
            }
            program(&command)
        };
        let argv = vec!["greet".to_owned(), "world".to_owned()];
        assert_eq!(of("terminal", json!({"command": argv})), Ok(Program::Command(argv.clone())));
        assert_eq!(of("terminal", json!({})), Ok(Program::Shell));
        assert_eq!(of("vnc", json!({"image": "desk:1"})), Ok(Program::Desktop(Vec::new())));
        assert_eq!(of("http", json!({"command": argv})), Ok(Program::Web(argv)));
        assert_eq!(of("http", json!({"image": "web:1"})), Ok(Program::Web(Vec::new())));
        assert!(of("http", json!({})).unwrap_err().contains("needs a program"));
        assert!(program(&json!({"template": "firefox"})).unwrap_err().contains("how the session is watched"));
        let without = json!({"template": "firefox", "templateManifest": null, "protocol": "terminal"});
        assert!(program(&without).unwrap_err().contains("no template firefox"));
    }
}
