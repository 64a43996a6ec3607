//! The load: sessions driven through their plans in parallel, and a record of everything that was acknowledged.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use indicatif::ProgressBar;
use tidegate_client::{Accepted, IdempotencyKey};
use tidegate_model::{Hibernation, NewSession, Session, SessionId, SessionState};
use tokio::time::{Instant, sleep};

use crate::{
    client::Asker,
    engine::IMAGE,
    ledger::Ledger,
    plan::{EXIT_CODE, Kind, Plan},
};

/// How long a session may take from one step to the next before it counts as stuck.
const STUCK: Duration = Duration::from_mins(4);
const LOOK: Duration = Duration::from_millis(100);
/// How an agent's sentence begins about a container whose start its engine did not live to tell of. What may have run is
/// not run a second time: that start is given up, and who wants the session starts or wakes it anew.
const LOST_START: &str = "the container engine ended while it started the session";

/// The same of a program that ended by itself while an engine was killed that had heard of it and not written it down.
const LOST_END: &str = "the program ended while the container engine was away";

/// Whether a reason is of that kind. A program that does not end by itself has no such end.
pub(crate) fn is_lost_end(plan: Plan, reason: Option<&str>) -> bool {
    plan == Plan::Exit && reason.is_some_and(|reason| reason.contains(LOST_END))
}

/// How a wake of that kind ends.
const ASLEEP: &str = "is asleep after a wake";

/// Whether a reason or an error is of that kind.
pub(crate) fn is_lost_start(reason: Option<&str>) -> bool {
    reason.is_some_and(|reason| reason.contains(LOST_START))
}

/// What is known of one session.
#[derive(Debug, Clone)]
pub(crate) struct Tracked {
    pub(crate) plan: Plan,
    pub(crate) kind: Kind,
    pub(crate) id: SessionId,
    /// Commands named in acknowledged answers.
    pub(crate) commands: Vec<String>,
    /// Its end was acknowledged.
    pub(crate) stopped: bool,
    /// Generations that were seen running, so that their program must stand in the ledger.
    pub(crate) ran: Vec<i64>,
    /// Starts and wakes that died with a killed engine, with their reasons.
    pub(crate) lost_starts: Vec<String>,
    /// What went wrong.
    pub(crate) problems: Vec<String>,
}

/// The load of one run.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) asker: Asker,
    ledger: Ledger,
    seed: u64,
    sessions: usize,
    containers: bool,
    next: AtomicUsize,
    tracked: Mutex<Vec<Tracked>>,
    done: AtomicUsize,
    bar: ProgressBar,
}

impl Load {
    pub(crate) fn new(
        asker: Asker,
        ledger: Ledger,
        seed: u64,
        (sessions, containers): (usize, bool),
        bar: ProgressBar,
    ) -> Arc<Self> {
        bar.set_length(sessions as u64);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self {
            asker,
            ledger,
            seed,
            sessions,
            containers,
            next,
            tracked: Mutex::default(),
            done,
            bar,
        })
    }

    /// Drives every session through its plan, `parallel` at a time. Dropping the future drops them all.
    pub(crate) async fn run(self: &Arc<Self>, parallel: usize) {
        let worker = async || {
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= self.sessions {
                    break;
                }
                self.drive(index).await;
                self.done.fetch_add(1, Ordering::Relaxed);
                self.bar.inc(1);
                if self.bar.is_hidden() && (self.done().is_multiple_of(20) || self.done() == self.sessions) {
                    eprintln!("{} of {} sessions", self.done(), self.sessions);
                }
            }
        };
        join_all((0..parallel.max(1)).map(|_| worker())).await;
    }

    /// Sessions that are through.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Everything acknowledged so far.
    pub(crate) fn tracked(&self) -> Vec<Tracked> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tracked>> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive(&self, index: usize) {
        let (plan, dawdle) = Plan::of(self.seed, index);
        let kind = if self.containers { Kind::of(self.seed, index) } else { Kind::Process };
        let mut new = NewSession::of("command");
        new.name = Some(name(index));
        if let Kind::Container { keeps_home, pauses } = kind {
            new.command = Some(Ledger::script_at_home(&plan.program()));
            new.image = Some(IMAGE.to_owned());
            new.persistent_home = keeps_home;
            new.hibernation = Some(if pauses { Hibernation::Pause } else { Hibernation::Stop });
        } else {
            new.command = Some(self.ledger.script(&plan.program()));
        }
        let Ok(key) = IdempotencyKey::new(&format!("chaos-{}-{index}", self.seed)) else { return };
        let made =
            self.asker.ask("create", async |client| client.create_session_keyed(&new, &key).await).await;
        let Some(Accepted { session, command_id }) = made else { return };
        let place = {
            let mut tracked = self.lock();
            let commands = command_id.into_iter().collect();
            tracked.push(Tracked {
                plan,
                kind,
                id: session.id,
                commands,
                stopped: false,
                ran: Vec::new(),
                lost_starts: Vec::new(),
                problems: Vec::new(),
            });
            tracked.len() - 1
        };
        let life = Life { load: self, kind, id: session.id, place, dawdle: Duration::from_millis(dawdle) };
        if let Err(problem) = life.live(plan).await {
            life.change(|tracked| {
                // The session is over, and its reason says why.
                if kind.is_container() && is_lost_start(Some(&problem)) {
                    tracked.lost_starts.push(problem);
                } else if !(kind.is_container() && is_lost_end(plan, Some(&problem))) {
                    tracked.problems.push(problem);
                }
            });
        }
    }
}

/// The name of session `index`, by which its row is told from others.
pub(crate) fn name(index: usize) -> String {
    format!("chaos-{index}")
}

/// One session on its way.
struct Life<'a> {
    load: &'a Load,
    kind: Kind,
    id: SessionId,
    place: usize,
    dawdle: Duration,
}

impl Life<'_> {
    async fn live(&self, plan: Plan) -> Result<(), String> {
        match plan {
            Plan::Hurry => {
                sleep(self.dawdle).await;
                self.stop().await
            }
            Plan::Exit => self.end_by_itself(plan).await,
            Plan::Stay => self.running(plan).await,
            Plan::Stop => {
                self.running(plan).await?;
                sleep(self.dawdle).await;
                self.stop().await
            }
            Plan::Nap => {
                self.running(plan).await?;
                sleep(self.dawdle).await;
                self.nap().await?;
                self.awake(plan).await?;
                self.stop().await
            }
        }
    }

    /// Waits until it runs and its program has signed.
    async fn running(&self, plan: Plan) -> Result<(), String> {
        let session = self.reach(SessionState::Running).await?;
        self.signed(plan, session.generation).await
    }

    /// The same after it was woken. A wake that died with the engine leaves it asleep, and it is woken again.
    async fn awake(&self, plan: Plan) -> Result<(), String> {
        loop {
            match self.running(plan).await {
                Err(lost) if self.kind.is_container() && lost.starts_with(ASLEEP) => {
                    self.change(|tracked| tracked.lost_starts.push(lost));
                    self.wake().await?;
                }
                done => return done,
            }
        }
    }

    async fn signed(&self, plan: Plan, generation: i64) -> Result<(), String> {
        let (ledger, session) = (&self.load.ledger, self.id.to_string());
        let signed = match self.kind {
            Kind::Process => ledger.has(&(session, generation)).await,
            // A home of its own goes with the session that ended.
            Kind::Container { keeps_home: false, .. } if plan == Plan::Exit => return Ok(()),
            // A container that was paused is the same one afterwards.
            Kind::Container { pauses: true, .. } => ledger.has_containers(&session, 1).await,
            Kind::Container { pauses: false, .. } => {
                let starts = usize::try_from(generation).unwrap_or(1);
                // Those of starts that were given up may have signed or not.
                let lost = self.load.lock().get(self.place).map_or(0, |tracked| tracked.lost_starts.len());
                ledger.has_containers(&session, starts.saturating_sub(lost).max(1)).await
            }
        };
        if !signed {
            return Err(format!("runs as generation {generation}, and its program never signed the ledger"));
        }
        self.change(|tracked| tracked.ran.push(generation));
        Ok(())
    }

    async fn nap(&self) -> Result<(), String> {
        let id = self.id;
        self.accept(
            "hibernate",
            self.load.asker.ask("hibernate", async |client| client.hibernate_session(id).await).await,
        )?;
        self.reach(SessionState::Hibernated).await?;
        sleep(self.dawdle).await;
        self.wake().await
    }

    async fn wake(&self) -> Result<(), String> {
        let id = self.id;
        self.accept("wake", self.load.asker.ask("wake", async |client| client.wake_session(id).await).await)
    }

    async fn stop(&self) -> Result<(), String> {
        let id = self.id;
        let answer =
            self.load.asker.ask("terminate", async |client| client.terminate_session(id).await).await;
        self.accept("terminate", answer)?;
        self.change(|tracked| tracked.stopped = true);
        self.reach(SessionState::Terminated).await.map(drop)
    }

    async fn end_by_itself(&self, plan: Plan) -> Result<(), String> {
        let session = self.reach(SessionState::Terminated).await?;
        self.signed(plan, session.generation).await?;
        if session.exit_code() == Some(EXIT_CODE) {
            Ok(())
        } else {
            Err(format!("ended with {:?} in place of exit code {EXIT_CODE}", session.exit_code()))
        }
    }

    fn accept(&self, what: &str, answer: Option<Accepted>) -> Result<(), String> {
        let accepted = answer.ok_or_else(|| format!("{what} was refused or not answered"))?;
        self.change(|tracked| tracked.commands.extend(accepted.command_id));
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Tracked)) {
        if let Some(tracked) = self.load.lock().get_mut(self.place) {
            change(tracked);
        }
    }

    /// Looks at it until it is in `state`.
    async fn reach(&self, state: SessionState) -> Result<Session, String> {
        let deadline = Instant::now() + STUCK;
        loop {
            let id = self.id;
            let session = self.load.asker.ask("look", async |client| client.session(id).await).await;
            let session = session.ok_or("an acknowledged session is not visible")?;
            if session.state == state {
                return Ok(session);
            }
            if session.state == SessionState::Hibernated && is_lost_start(session.state_reason.as_deref()) {
                return Err(format!("{ASLEEP}: {}", session.state_reason.unwrap_or_default()));
            }
            if session.state.is_final() {
                let reason = session.state_reason.unwrap_or_default();
                return Err(format!("is {} in place of {state}: {reason}", session.state));
            }
            if Instant::now() > deadline {
                return Err(format!("stuck: is {} in place of {state}", session.state));
            }
            sleep(LOOK).await;
        }
    }
}
