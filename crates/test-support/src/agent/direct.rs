//! A simulated agent that speaks to the service itself: no socket, no task, every step taken by the test.

use std::sync::Arc;

use tidegate_model::{
    AgentCapacity, AgentHandle, AgentRegistrationRequest, AgentReportedStatus, AgentStatusUpdate, CommandId,
    Platform, Secret,
};
use tidegate_persistence::Operator;
use tidegate_protocol::{FromAgent, HeartbeatMessage};
use tidegate_service::{
    AgentIdentity, Decision, Ingested, Link, Outbound, Registered, Registration, Report, ReportKind, Services,
};

use crate::{BOOTSTRAP_KEY, Behaviour, TestDb};

/// Commands claimed at one time.
const CLAIM: usize = 1_000;

/// An agent over `Links`.
#[derive(Debug)]
pub struct SimAgent {
    /// How it behaves.
    pub behaviour: Behaviour,
    services: Services,
    identity: AgentIdentity,
    key: Secret<String>,
    link: Arc<Link>,
}

/// What an agent of platform `vm` says to register.
pub fn registration(handle: &str, max_sessions: u32) -> AgentRegistrationRequest {
    AgentRegistrationRequest {
        agent_id: handle.parse().unwrap(),
        platform: Platform::Vm,
        region: None,
        capacity: Some(AgentCapacity { max_sessions, ..AgentCapacity::default() }),
        metadata: None,
    }
}

/// Registers an agent, has it approved, and fetches its own key with its claim token.
pub async fn new_key_of(services: &Services, handle: &str, max_sessions: u32) -> Secret<String> {
    let presented =
        |claim| Registration { key: Some(Secret::new(BOOTSTRAP_KEY.to_owned())), claim, source: None };
    let request = registration(handle, max_sessions);
    let first = services.agents.register(presented(None), request.clone()).await.unwrap();
    let Registered::Pending(agent, Some(claim)) = first else { panic!("{first:?} holds no claim token") };
    services.agents.decide(&Operator::console(), &agent.agent_id, Decision::Approve, false).await.unwrap();
    let second = services.agents.register(presented(Some(claim)), request).await.unwrap();
    let Registered::Approved(_, Some(key)) = second else { panic!("{second:?} holds no key") };
    key
}

impl TestDb {
    /// An agent that was registered, approved and is connected.
    pub async fn online_agent(&self, handle: &str, max_sessions: u32) -> SimAgent {
        SimAgent::online(self.services(), handle, max_sessions).await
    }
}

impl SimAgent {
    /// Registers, gets approved and connects.
    pub async fn online(services: &Services, handle: &str, max_sessions: u32) -> Self {
        let key = new_key_of(services, handle, max_sessions).await;
        let handle: AgentHandle = handle.parse().unwrap();
        let identity = services.agents.authenticate(&handle, Some(&key), None).await.unwrap();
        let link = Arc::new(services.links.open(&identity, "test").await.unwrap());
        Self { behaviour: Behaviour::default(), services: services.clone(), identity, key, link }
    }

    /// Its name.
    pub fn handle(&self) -> &AgentHandle {
        self.identity.handle()
    }

    /// Its own key.
    pub fn key(&self) -> &Secret<String> {
        &self.key
    }

    /// Proof that it is itself.
    pub fn identity(&self) -> &AgentIdentity {
        &self.identity
    }

    /// Its newest connection.
    pub fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    /// Opens a new connection, which fences the one before; that one is returned.
    pub async fn reconnect(&mut self) -> Arc<Link> {
        let new = Arc::new(self.services.links.open(&self.identity, "test again").await.unwrap());
        std::mem::replace(&mut self.link, new)
    }

    /// Tells what it runs.
    pub async fn hello(&self) {
        self.services.links.hello(&self.link, &self.behaviour.hello("boot-1")).await.unwrap();
    }

    /// A heartbeat.
    pub async fn heartbeat(&self, status: AgentReportedStatus) -> Ingested {
        let active_sessions = u32::try_from(self.behaviour.sessions.len()).unwrap();
        self.report(ReportKind::Heartbeat(HeartbeatMessage { status, active_sessions, capacity: None })).await
    }

    /// Fetches what is to be done, without doing it.
    pub async fn claim(&self) -> Vec<Outbound> {
        self.services.links.claim(&[self.link()], CLAIM).await.unwrap()
    }

    /// Says one thing over its newest connection.
    pub async fn report(&self, kind: ReportKind) -> Ingested {
        self.report_over(self.link(), kind).await
    }

    /// Says one thing over a connection of the test's choice.
    pub async fn report_over(&self, link: Arc<Link>, kind: ReportKind) -> Ingested {
        self.services.links.ingest(vec![Report { link, kind }]).await.unwrap()
    }

    /// Says all this, in one batch.
    pub async fn say(&self, messages: Vec<FromAgent>) -> Ingested {
        let link = self.link();
        let reports =
            messages.into_iter().map(|message| Report { link: Arc::clone(&link), kind: report(message) });
        self.services.links.ingest(reports.collect()).await.unwrap()
    }

    /// Carries out what there is to do until there is nothing more; says how many commands that were.
    pub async fn work(&mut self) -> usize {
        let mut done = 0;
        loop {
            let claimed = self.claim().await;
            if claimed.is_empty() {
                return done;
            }
            done += claimed.len();
            let mut said = Vec::new();
            for outbound in &claimed {
                said.extend(self.behaviour.answer(&outbound.command));
            }
            self.say(said).await;
        }
    }

    /// Says what it held back since [`Behaviour::hold`].
    pub async fn release(&mut self) -> Ingested {
        let held = self.behaviour.release();
        self.say(held).await
    }
}

/// What the hub makes of a message.
fn report(message: FromAgent) -> ReportKind {
    let id = |text: &str| CommandId::from_wire(text).expect("a command id of ours");
    match message {
        FromAgent::Heartbeat(beat) => ReportKind::Heartbeat(beat),
        FromAgent::Pong(_) => ReportKind::Alive,
        FromAgent::Ack(ack) => ReportKind::Ack(id(&ack.command_id)),
        FromAgent::Complete(done) => {
            ReportKind::Complete { command: id(&done.command_id), result: done.result }
        }
        FromAgent::Failed(failed) => {
            ReportKind::Failed { command: id(&failed.command_id), error: failed.error }
        }
        FromAgent::Status(status) => match status.session_id.parse() {
            Err(_) => ReportKind::UnknownSession { session_id: status.session_id, state: status.state },
            Ok(session_id) => ReportKind::Status(AgentStatusUpdate {
                session_id,
                state: status.state,
                generation: status.generation,
                streaming_ready: status.streaming_ready,
                streaming_port: status.streaming_port,
                platform_metadata: status.platform_metadata,
                reason: status.reason,
            }),
        },
        other @ (FromAgent::Hello(_) | FromAgent::TunnelFailed(_)) => panic!("{other:?} is no report"),
    }
}
