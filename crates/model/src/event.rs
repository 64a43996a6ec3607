//! Events: changes of sessions, commands and agents, in the one order in which they became final.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    AgentHandle, AgentStatus, ApprovalStatus, CommandAction, CommandStatus, SessionId, SessionState,
    text_enum::text_enum,
};

/// A place in the stream of events: what came before it was told, what comes after it is still to be told. On the wire
/// two numbers with a hyphen between them, `7421-93`; nothing is to be read out of it but which one is the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    // Declared in the order they are compared in.
    xact: i64,
    seq: i64,
}

impl EventId {
    /// Before the first event there ever was.
    pub const START: Self = Self { xact: 0, seq: 0 };

    /// The place of a line that a transaction wrote.
    pub const fn new(xact: i64, seq: i64) -> Self {
        Self { xact, seq }
    }

    /// The transaction.
    pub const fn xact(self) -> i64 {
        self.xact
    }

    /// The line's number.
    pub const fn seq(self) -> i64 {
        self.seq
    }
}

/// A text that is no place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be the id of an event, as 7421-93, or 0-0 for everything that is kept")]
pub struct InvalidEventId;

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.xact, self.seq)
    }
}

impl std::str::FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let digits = (1..=19).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits)
        };
        let (xact, seq) = text.split_once('-').ok_or(InvalidEventId)?;
        number(xact).zip(number(seq)).map(|(xact, seq)| Self { xact, seq }).ok_or(InvalidEventId)
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

text_enum! {
    /// What an event is about, where a stream is narrowed to some.
    EventKind, "kind of event" {
        /// A session was asked for, or entered another state.
        Session = "session",
        /// A command was queued, carried out, or failed.
        Command = "command",
        /// An agent was registered, decided on, drained or removed, came or went.
        Agent = "agent",
    }
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its place in the stream: what to come back with.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "7421-93"))]
    pub id: EventId,
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    #[serde(flatten)]
    pub change: Change,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Change {
    /// A session.
    Session(SessionChange),
    /// A command.
    Command(CommandChange),
    /// An agent.
    Agent(AgentChange),
    /// Nothing: the stream goes on from here, and something before may have been missed.
    Reset(Reset),
}

impl Change {
    /// What it is about; `None` for what is about the stream itself.
    pub const fn kind(&self) -> Option<EventKind> {
        match self {
            Self::Session(_) => Some(EventKind::Session),
            Self::Command(_) => Some(EventKind::Command),
            Self::Agent(_) => Some(EventKind::Agent),
            Self::Reset(_) => None,
        }
    }

    /// The word on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self.kind() {
            Some(kind) => kind.as_str(),
            None => "reset",
        }
    }

    /// The session it is about.
    pub const fn session(&self) -> Option<SessionId> {
        match self {
            Self::Session(change) => Some(change.session_id),
            Self::Command(change) => change.session_id,
            Self::Agent(_) | Self::Reset(_) => None,
        }
    }
}

/// A session that entered a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SessionChange {
    /// The session.
    pub session_id: SessionId,
    /// Its name.
    pub name: String,
    /// Its owner's username.
    pub user: String,
    /// The agent it is placed on.
    #[serde(default)]
    pub agent_id: Option<AgentHandle>,
    /// The state it left; `null` when it was made.
    #[serde(default)]
    pub from_state: Option<SessionState>,
    /// The state it entered.
    pub to_state: SessionState,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Which start or wake.
    pub generation: i64,
}

/// A command that was queued or became final. That it was sent and acknowledged is no event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CommandChange {
    /// The command, `cmd-…`.
    pub command_id: String,
    /// The session it is about.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    /// The agent that is to carry it out.
    pub agent_id: AgentHandle,
    /// What is to be done.
    pub action: CommandAction,
    /// `pending`, `completed` or `failed`.
    pub status: CommandStatus,
    /// Why it failed.
    #[serde(default)]
    pub reason: Option<String>,
}

/// An agent as it stood after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentChange {
    /// The agent.
    pub agent_id: AgentHandle,
    /// Health.
    pub status: AgentStatus,
    /// Whether it was let in.
    pub approval_status: ApprovalStatus,
    /// Whether an operator drains it.
    pub drained: bool,
    /// Whether it was removed.
    pub removed: bool,
}

/// The stream goes on from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Reset {
    /// Why, for people.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_two_numbers_and_nothing_else() {
        assert_eq!("7421-93".parse(), Ok(EventId::new(7_421, 93)));
        assert_eq!("0-0".parse(), Ok(EventId::START));
        assert_eq!(EventId::new(7_421, 93).to_string(), "7421-93");
        for wrong in [
            "",
            "7421",
            "-",
            "7421-",
            "-93",
            "+1-2",
            "1-+2",
            "1-2-3",
            " 1-2",
            "1-2 ",
            "a-b",
            "1.0-2",
            "99999999999999999999-1",
            "9223372036854775808-1",
        ] {
            assert_eq!(wrong.parse::<EventId>(), Err(InvalidEventId), "{wrong}");
        }
    }

    #[test]
    fn the_later_transaction_is_the_later_event_whatever_its_number() {
        assert!(EventId::new(10, 1) > EventId::new(9, 500));
        assert!(EventId::new(10, 2) > EventId::new(10, 1));
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let event = Event {
            id: EventId::new(7_421, 93),
            at: DateTime::UNIX_EPOCH,
            change: Change::Reset(Reset { reason: "old".into() }),
        };
        let text = json!({"id": "7421-93", "at": "1970-01-01T00:00:00Z", "kind": "reset", "reason": "old"});
        assert_eq!(serde_json::to_value(&event).unwrap(), text);
        assert_eq!(serde_json::from_value::<Event>(text).unwrap(), event);
    }
}
