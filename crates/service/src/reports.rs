//! What reports mean: pure rules from what an agent said to what changes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde_json::Value;
use tidegate_model::{
    AgentId, AgentStatusUpdate, CommandAction, CommandId, CommandStatus, SessionId, SessionState,
};
use tidegate_persistence::{
    agent::Heartbeat,
    command::{Finished, Outcome},
    session::{Move, Placed},
};
use tidegate_protocol::HelloMessage;

use crate::{Link, Report, ReportKind};

use SessionState::{Failed, Hibernated, Hibernating, Pending, Running, Terminated, Terminating, Waking};

/// Longest text of an agent's that is kept.
const TEXT: usize = 500;
/// Largest metadata or result of an agent's that is kept, in bytes of JSON.
const JSON: usize = 16 * 1_024;

/// An agent's text, cut to its bound and without control characters.
pub(crate) fn clamp(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT).collect()
}

fn clamp_json(value: Option<serde_json::Map<String, Value>>) -> Option<Value> {
    value.map(Value::Object).map(without_nul).filter(|value| value.to_string().len() <= JSON)
}

/// Leaves out what PostgreSQL stores in no text: one such character would refuse the whole batch it came in.
fn without_nul(value: Value) -> Value {
    let clean = |text: String| if text.contains('\0') { text.replace('\0', "") } else { text };
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (clean(name), without_nul(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// From where a status may move a session. Narrower than the lifecycle: a `running` that was on its way when somebody
/// hibernated the session must not undo that.
fn reported_from(state: SessionState) -> Vec<SessionState> {
    match state {
        Running => vec![Pending, Waking],
        Hibernated => vec![Hibernating],
        Terminated => vec![Running, Terminating],
        Failed => vec![Pending, Running, Hibernating, Hibernated, Waking, Terminating],
        Pending | Waking | Hibernating | Terminating => Vec::new(),
    }
}

/// The moves that one status means. A program that ended before its `running` was heard still ran.
pub(crate) fn moves_of(agent: AgentId, epoch: i64, status: AgentStatusUpdate) -> Vec<Move> {
    let reason = status.reason.as_deref().map(clamp);
    let last = Move {
        id: status.session_id,
        agent,
        epoch: Some(epoch),
        generation: status.generation,
        to: status.state,
        from: reported_from(status.state),
        reason,
        streaming_ready: status.streaming_ready,
        streaming_port: status.streaming_port,
        metadata: clamp_json(status.platform_metadata),
    };
    if last.to != Terminated {
        return vec![last];
    }
    let bare = |to, from, reason| Move {
        to,
        from,
        reason,
        streaming_ready: None,
        streaming_port: None,
        metadata: None,
        ..last.clone()
    };
    let ran = bare(Running, vec![Pending, Waking], None);
    let asleep = bare(Failed, vec![Hibernating], Some("it ended while it was being hibernated".to_owned()));
    vec![ran, last, asleep]
}

/// What a final command means for its session.
pub(crate) fn move_of(finished: &Finished) -> Option<Move> {
    let done = finished.status == CommandStatus::Completed;
    let (to, from) = match (finished.action, done) {
        (CommandAction::StartSession, true) => (Running, Pending),
        (CommandAction::StartSession, false) => (Failed, Pending),
        (CommandAction::StopSession, true) => (Terminated, Terminating),
        (CommandAction::StopSession, false) => (Failed, Terminating),
        (CommandAction::HibernateSession, true) => (Hibernated, Hibernating),
        (CommandAction::HibernateSession, false) => (Running, Hibernating),
        (CommandAction::WakeSession, true) => (Running, Waking),
        (CommandAction::WakeSession, false) => (Hibernated, Waking),
    };
    let result = finished.result.as_ref();
    let port = ["streamingPort", "vncPort"].iter().find_map(|name| result?.get(name)?.as_u64());
    Some(Move {
        id: finished.session_id?,
        agent: finished.agent_id,
        // The command's own row was fenced when it became final.
        epoch: None,
        generation: finished.generation,
        to,
        from: vec![from],
        reason: finished.error.clone(),
        streaming_ready: None,
        streaming_port: port.and_then(|port| u16::try_from(port).ok()),
        metadata: None,
    })
}

/// The same move, decided by the platform and no agent.
pub(crate) fn by_platform(change: Move) -> Move {
    Move { epoch: None, ..change }
}

/// Where a session goes that waits for a command which is not open any more.
pub(crate) fn heal((id, agent, state, generation): (SessionId, AgentId, SessionState, i64)) -> Move {
    let to = if state == Waking { Hibernated } else { Failed };
    Move {
        id,
        agent,
        epoch: None,
        generation: Some(generation),
        to,
        from: vec![state],
        reason: Some(format!("it was {state} and no command for it was open any more")),
        streaming_ready: None,
        streaming_port: None,
        metadata: None,
    }
}

/// Splits moves so that each round has one for each session at most, in their order.
pub(crate) fn rounds(moves: Vec<Move>) -> Vec<Vec<Move>> {
    let mut next: HashMap<SessionId, usize> = HashMap::new();
    let mut rounds: Vec<Vec<Move>> = Vec::new();
    for change in moves {
        let round = next.entry(change.id).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(change);
        *round += 1;
    }
    rounds
}

/// What one status said, for those that did not fit.
pub(crate) struct Said {
    pub(crate) link: Arc<Link>,
    pub(crate) id: SessionId,
    pub(crate) state: SessionState,
    pub(crate) generation: Option<i64>,
}

/// What to do about a session that an agent reports otherwise than it stands here, with no command on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// It runs and should not: this is asked of the agent.
    Ask(CommandAction),
    /// It sleeps already: a hibernate that was given up here was carried out there.
    Asleep,
    /// Nothing to do.
    None,
}

impl Mismatch {
    /// Compares what stands here with what an agent says. A wake that was given up at its deadline may have been carried
    /// out after it.
    fn of(placed: &Placed, state: SessionState, generation: Option<i64>) -> Self {
        let current = generation.is_none_or(|generation| generation == placed.generation);
        if placed.has_open_command {
            return Self::None;
        }
        match (placed.state, state) {
            (Terminated | Failed, state) if !state.is_final() => Self::Ask(CommandAction::StopSession),
            (Hibernated, Running) if current => Self::Ask(CommandAction::HibernateSession),
            (Running, Hibernated) if current => Self::Asleep,
            _ => Self::None,
        }
    }
}

impl Said {
    /// Compares with what stands here.
    pub(crate) fn mismatch(&self, placed: &Placed) -> Mismatch {
        Mismatch::of(placed, self.state, self.generation)
    }
}

/// The moves of a session that sleeps already.
pub(crate) fn asleep(agent: AgentId, epoch: i64, placed: &Placed) -> [Move; 2] {
    let step = |to, from| Move {
        id: placed.id,
        agent,
        epoch: Some(epoch),
        generation: Some(placed.generation),
        to,
        from: vec![from],
        reason: Some("the agent hibernated it after the deadline".to_owned()),
        streaming_ready: None,
        streaming_port: None,
        metadata: None,
    };
    [step(Hibernating, Running), step(Hibernated, Hibernating)]
}

/// Sessions that agents run and nobody here knows, in the order in which their rows are locked.
pub(crate) type Strangers = BTreeMap<AgentId, BTreeMap<String, SessionState>>;

/// A batch, sorted by what is written together.
#[derive(Default)]
pub(crate) struct Sorted {
    pub(crate) heartbeats: Vec<Heartbeat>,
    pub(crate) acks: Vec<(CommandId, AgentId, i64)>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) moves: Vec<Move>,
    pub(crate) statuses: Vec<Said>,
    pub(crate) unknown: Strangers,
    /// Reports that stand in another one of this batch: older heartbeats, acks beside their outcome.
    pub(crate) merged: usize,
}

impl Sorted {
    /// Whether it holds heartbeats and acks alone: what a power cut takes of them is said again, or does not matter.
    pub(crate) fn is_stamps(&self) -> bool {
        self.outcomes.is_empty()
            && self.moves.is_empty()
            && self.statuses.is_empty()
            && self.unknown.is_empty()
    }

    pub(crate) fn new(batch: Vec<Report>) -> Self {
        let mut sorted = Self::default();
        let mut beats: HashMap<(AgentId, i64), Heartbeat> = HashMap::new();
        // Whose and over which connection belongs to the key: what another agent or an old connection says of a command
        // counts for nothing there, and must not stand in the way of the word that counts.
        let mut outcomes: HashMap<(CommandId, AgentId, i64), Outcome> = HashMap::new();
        for Report { link, kind } in batch {
            let (agent, epoch) = (link.agent_id(), link.epoch());
            match kind {
                ReportKind::Heartbeat(beat) => {
                    let said = Some((beat.status, beat.active_sessions));
                    let new = Heartbeat { agent, epoch: Some(epoch), said, capacity: beat.capacity };
                    sorted.merged += usize::from(merge(&mut beats, new));
                }
                ReportKind::Alive => {
                    let new = Heartbeat { agent, epoch: Some(epoch), said: None, capacity: None };
                    sorted.merged += usize::from(merge(&mut beats, new));
                }
                ReportKind::Ack(command) => sorted.acks.push((command, agent, epoch)),
                ReportKind::Complete { command, result } => {
                    let result = Ok(clamp_json(result));
                    outcomes.entry((command, agent, epoch)).or_insert(Outcome {
                        id: command,
                        agent,
                        epoch,
                        result,
                    });
                }
                ReportKind::Failed { command, error } => {
                    let error =
                        if error.is_empty() { "the agent gave no reason".into() } else { clamp(&error) };
                    outcomes.entry((command, agent, epoch)).or_insert(Outcome {
                        id: command,
                        agent,
                        epoch,
                        result: Err(error),
                    });
                }
                ReportKind::Status(status) => {
                    sorted.statuses.push(Said {
                        link,
                        id: status.session_id,
                        state: status.state,
                        generation: status.generation,
                    });
                    sorted.moves.extend(moves_of(agent, epoch, status));
                }
                ReportKind::UnknownSession { session_id, state } => {
                    let id = session_id.chars().filter(|c| !c.is_control()).take(128).collect();
                    sorted.unknown.entry(agent).or_default().insert(id, state);
                }
            }
        }
        let before = sorted.acks.len();
        // An outcome stamps the acknowledgement too; another agent's or connection's does not.
        sorted.acks.retain(|ack| !outcomes.contains_key(ack));
        sorted.acks.sort_unstable();
        sorted.acks.dedup();
        sorted.merged += before - sorted.acks.len();
        sorted.heartbeats = beats.into_values().collect();
        sorted.outcomes = outcomes.into_values().collect();
        sorted
    }
}

/// Puts a heartbeat over an older one of the same connection; true if there was one.
fn merge(beats: &mut HashMap<(AgentId, i64), Heartbeat>, new: Heartbeat) -> bool {
    let key = (new.agent, new.epoch.unwrap_or_default());
    if let Some(old) = beats.get_mut(&key) {
        old.said = new.said.or(old.said);
        old.capacity = new.capacity.or_else(|| old.capacity.take());
        return true;
    }
    beats.insert(key, new);
    false
}

/// An agent's inventory beside what is placed on it.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Sessions it does not have and should, with what becomes of them.
    lost: Vec<(SessionId, SessionState, SessionState, i64)>,
    /// Sessions it has, with what it says of them.
    present: Vec<AgentStatusUpdate>,
    /// Sessions it runs that ended here or sleep here, with what is asked of it.
    pub(crate) unwanted: Vec<(Placed, CommandAction)>,
    /// Sessions that run here and sleep there.
    asleep: Vec<Placed>,
    /// Sessions nobody here knows.
    pub(crate) unknown: Vec<(String, SessionState)>,
}

impl Inventory {
    pub(crate) fn compare(placed: &[Placed], hello: &HelloMessage) -> Self {
        let mut inventory = Self::default();
        let mut reported = HashSet::new();
        let mut named = HashSet::new();
        // An id that is named twice counts once, the first time.
        for session in hello.sessions.iter().filter(|session| named.insert(clamp(&session.session_id))) {
            let id = session.session_id.parse::<SessionId>().ok();
            match id.and_then(|id| placed.iter().find(|placed| placed.id == id)) {
                None if session.state.is_final() => {}
                None => inventory.unknown.push((clamp(&session.session_id), session.state)),
                Some(known) => {
                    reported.insert(known.id);
                    match Mismatch::of(known, session.state, session.generation) {
                        Mismatch::Ask(action) => inventory.unwanted.push((known.clone(), action)),
                        Mismatch::Asleep => inventory.asleep.push(known.clone()),
                        Mismatch::None if known.state.is_final() => {}
                        Mismatch::None => inventory.present.push(AgentStatusUpdate {
                            session_id: known.id,
                            state: session.state,
                            generation: session.generation,
                            streaming_ready: None,
                            streaming_port: None,
                            platform_metadata: None,
                            reason: None,
                        }),
                    }
                }
            }
        }
        let missing =
            placed.iter().filter(|placed| !placed.state.is_final() && !reported.contains(&placed.id));
        // An open command will be written again, and its outcome says what there is.
        for placed in missing.filter(|placed| !placed.has_open_command) {
            let to = if placed.state == Terminating { Terminated } else { Failed };
            inventory.lost.push((placed.id, placed.state, to, placed.generation));
        }
        inventory
    }

    /// What changes here, in the order of each session's steps.
    pub(crate) fn moves(&self, agent: AgentId, epoch: i64) -> Vec<Move> {
        let lost = self.lost.iter().map(|(id, from, to, generation)| Move {
            id: *id,
            agent,
            epoch: Some(epoch),
            generation: Some(*generation),
            to: *to,
            from: vec![*from],
            reason: Some("the agent came back without this session".to_owned()),
            streaming_ready: None,
            streaming_port: None,
            metadata: None,
        });
        // Ended ones come again as a `status` with their exit code; only what lives is taken from the list.
        let alive = self.present.iter().filter(|status| !status.state.is_final());
        let mut moves: Vec<Move> = lost.collect();
        for status in alive.cloned() {
            if !moves.iter().any(|change| change.id == status.session_id) {
                moves.extend(moves_of(agent, epoch, status));
            }
        }
        moves.extend(self.asleep.iter().flat_map(|placed| asleep(agent, epoch, placed)));
        moves
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::OrgId;
    use tidegate_protocol::HelloSession;

    use super::*;

    #[test]
    fn no_report_may_do_more_than_the_lifecycle_allows() {
        for state in SessionState::ALL {
            for from in reported_from(*state) {
                assert!(from.may_become(*state), "{from} -> {state}");
            }
        }
    }

    #[test]
    fn a_late_running_does_not_undo_a_hibernate() {
        assert!(!reported_from(Running).contains(&Hibernating));
    }

    fn placed(state: SessionState, has_open_command: bool) -> Placed {
        let since = chrono::DateTime::UNIX_EPOCH;
        Placed { id: SessionId::new(), org_id: OrgId::new(), state, generation: 1, has_open_command, since }
    }

    fn hello(sessions: &[(String, SessionState)]) -> HelloMessage {
        let sessions = sessions
            .iter()
            .map(|(id, state)| HelloSession { session_id: id.clone(), generation: Some(1), state: *state })
            .collect();
        HelloMessage { protocol_versions: vec![1], boot_id: "b".into(), sessions }
    }

    #[test]
    fn an_inventory_says_what_is_lost_unwanted_and_unknown() {
        let lost = placed(Running, false);
        let starting = placed(Pending, true);
        let gone = placed(Terminating, false);
        let ended = placed(Terminated, false);
        let known = placed(Running, false);
        let all = [lost.clone(), starting, gone.clone(), ended.clone(), known.clone()];
        let names =
            [(ended.id.to_string(), Running), (known.id.to_string(), Running), ("sess-x".into(), Running)];
        let inventory = Inventory::compare(&all, &hello(&names));
        assert_eq!(inventory.unwanted, [(ended, CommandAction::StopSession)]);
        assert_eq!(inventory.unknown, [("sess-x".to_owned(), Running)]);
        let moves = inventory.moves(AgentId::new(), 1);
        let ends: Vec<(SessionId, SessionState)> =
            moves.iter().map(|change| (change.id, change.to)).collect();
        assert_eq!(ends, [(lost.id, Failed), (gone.id, Terminated), (known.id, Running)]);
    }

    #[test]
    fn an_inventory_says_what_sleeps_here_and_runs_there_and_the_other_way_round() {
        let awake = placed(Hibernated, false);
        let waking = placed(Hibernated, true);
        let asleep = placed(Running, false);
        let older = Placed { generation: 2, ..placed(Hibernated, false) };
        let all = [awake.clone(), waking.clone(), asleep.clone(), older.clone()];
        let running = [&awake, &waking, &older].map(|placed| (placed.id.to_string(), Running));
        let names: Vec<_> = running.into_iter().chain([(asleep.id.to_string(), Hibernated)]).collect();
        let inventory = Inventory::compare(&all, &hello(&names));
        assert_eq!(inventory.unwanted, [(awake, CommandAction::HibernateSession)]);
        let moves = inventory.moves(AgentId::new(), 1);
        let steps: Vec<SessionState> =
            moves.iter().filter(|change| change.id == asleep.id).map(|change| change.to).collect();
        assert_eq!(steps, [Hibernating, Hibernated]);
    }

    #[test]
    fn no_nul_of_an_agents_is_kept_however_deep() {
        let said = serde_json::json!({"a\0": ["b\0", {"c": "\0"}], "d": 1});
        let kept = clamp_json(said.as_object().cloned()).unwrap();
        assert_eq!(kept, serde_json::json!({"a": ["b", {"c": ""}], "d": 1}));
    }

    #[test]
    fn rounds_keep_the_order_of_each_session() {
        let (agent, id, other) = (AgentId::new(), SessionId::new(), SessionId::new());
        let status = |id, state| AgentStatusUpdate {
            session_id: id,
            state,
            generation: None,
            streaming_ready: None,
            streaming_port: None,
            platform_metadata: None,
            reason: None,
        };
        let moves = [(id, Running), (other, Running), (id, Failed)];
        let moves = moves.into_iter().flat_map(|(id, state)| moves_of(agent, 1, status(id, state))).collect();
        let shape: Vec<Vec<(SessionId, SessionState)>> = rounds(moves)
            .iter()
            .map(|round| round.iter().map(|change| (change.id, change.to)).collect())
            .collect();
        assert_eq!(shape, [vec![(id, Running), (other, Running)], vec![(id, Failed)]]);
    }
}
