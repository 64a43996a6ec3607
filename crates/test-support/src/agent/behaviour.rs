//! What a simulated agent answers to what it is told: honestly, unless a test's hook rewrites it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tidegate_model::{CommandAction, SessionState};
use tidegate_protocol::{
    AckMessage, CommandMessage, CompleteMessage, FromAgent, HelloMessage, HelloSession, StatusMessage,
};

/// Rewrites the answer to a command: leave messages out, repeat them, change their order or what they say.
pub type Hook = Box<dyn FnMut(&CommandMessage, Vec<FromAgent>) -> Vec<FromAgent> + Send>;

/// Sessions, journal and manners of one agent.
#[derive(Default)]
pub struct Behaviour {
    /// What it runs or keeps: generation and state by session.
    pub sessions: BTreeMap<String, (i64, SessionState)>,
    /// The commands it carried out, each once, in order.
    pub executed: Vec<(String, CommandAction)>,
    journal: HashMap<String, Vec<FromAgent>>,
    hook: Option<Hook>,
    held: Option<Vec<FromAgent>>,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour")
            .field("sessions", &self.sessions)
            .field("executed", &self.executed)
            .finish_non_exhaustive()
    }
}

impl Behaviour {
    /// From now on every answer goes through `hook`.
    pub fn misbehave(
        &mut self,
        hook: impl FnMut(&CommandMessage, Vec<FromAgent>) -> Vec<FromAgent> + Send + 'static,
    ) {
        self.hook = Some(Box::new(hook));
    }

    /// Answers as it should again.
    pub fn behave(&mut self) {
        self.hook = None;
    }

    /// Keeps its answers to itself until [`Behaviour::release`]: a delay without a clock.
    pub fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// What was held back.
    pub fn release(&mut self) -> Vec<FromAgent> {
        self.held.take().unwrap_or_default()
    }

    /// Forgets everything but its journal, as an agent whose machine was switched off.
    pub fn lose_sessions(&mut self) {
        self.sessions.clear();
    }

    /// The first frame of an agent that knows protocol versions.
    pub fn hello(&self, boot_id: &str) -> HelloMessage {
        let sessions = self.sessions.iter().map(|(id, (generation, state))| HelloSession {
            session_id: id.clone(),
            generation: Some(*generation),
            state: *state,
        });
        HelloMessage { protocol_versions: vec![1], boot_id: boot_id.to_owned(), sessions: sessions.collect() }
    }

    /// What it answers to a command, in order. A repeat is answered from the journal and not carried out again.
    pub fn answer(&mut self, command: &CommandMessage) -> Vec<FromAgent> {
        let ack = FromAgent::Ack(AckMessage { command_id: command.command_id.clone() });
        let outcome = match self.journal.get(&command.command_id) {
            Some(recorded) => recorded.clone(),
            None => self.carry_out(command),
        };
        let mut answer = vec![ack];
        answer.extend(outcome);
        if let Some(hook) = &mut self.hook {
            answer = hook(command, answer);
        }
        match &mut self.held {
            Some(held) => {
                held.append(&mut answer);
                Vec::new()
            }
            None => answer,
        }
    }

    fn carry_out(&mut self, command: &CommandMessage) -> Vec<FromAgent> {
        let session_id =
            command.payload.get("sessionId").and_then(Value::as_str).unwrap_or_default().to_owned();
        let generation = command.payload.get("generation").and_then(Value::as_i64);
        let state = match command.action {
            CommandAction::StartSession | CommandAction::WakeSession => SessionState::Running,
            CommandAction::HibernateSession => SessionState::Hibernated,
            CommandAction::StopSession => SessionState::Terminated,
        };
        if state == SessionState::Terminated {
            self.sessions.remove(&session_id);
        } else {
            self.sessions.insert(session_id.clone(), (generation.unwrap_or(1), state));
        }
        let status = StatusMessage {
            session_id,
            state,
            generation,
            streaming_ready: (state == SessionState::Running).then_some(true),
            streaming_port: None,
            platform_metadata: None,
            reason: None,
        };
        let asked = command.payload.get("deleteHome").and_then(Value::as_bool) == Some(true);
        let result = asked.then(|| serde_json::Map::from_iter([("homeDeleted".to_owned(), true.into())]));
        let done = CompleteMessage { command_id: command.command_id.clone(), result };
        let outcome = vec![FromAgent::Status(status), FromAgent::Complete(done)];
        self.executed.push((command.command_id.clone(), command.action));
        self.journal.insert(command.command_id.clone(), outcome.clone());
        outcome
    }
}
