//! The look at the end: what was acknowledged beside what is there, in the API's answers, the database's rows, the
//! ledger and the machine's processes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tidegate_client::Client;
use tidegate_engines::postgres::Options;
use tidegate_model::{CommandAction, CommandId, CommandStatus, SessionFilter, SessionState};
use tokio::time::{Instant, sleep};

use crate::{
    containers,
    ledger::Start,
    load::{Load, Tracked, is_lost_end, is_lost_start},
    machine,
    plan::Plan,
    report::Report,
    sql::{self, Rows},
    stand::Stand,
};

/// Waits until no command is open and no session between two states; says what still waits after `limit`.
pub(crate) async fn settle(options: &Options, limit: Duration) -> Vec<String> {
    let deadline = Instant::now() + limit;
    loop {
        let unrest = sql::unrest(options).await;
        match &unrest {
            Ok(unrest) if unrest.commands == 0 && unrest.sessions == 0 => return Vec::new(),
            _ if Instant::now() < deadline => sleep(Duration::from_millis(250)).await,
            Ok(unrest) => {
                let (commands, sessions) = (unrest.commands, unrest.sessions);
                return vec![format!(
                    "{commands} commands open and {sessions} sessions waiting after {} s",
                    limit.as_secs()
                )];
            }
            Err(error) => return vec![format!("the database did not answer: {error:#}")],
        }
    }
}

/// Everything acknowledged is in the database: sessions, commands, ends.
pub(crate) fn acknowledged(tracked: &[Tracked], rows: &Rows) -> Vec<String> {
    let sessions: HashMap<&str, SessionState> =
        rows.sessions.iter().map(|session| (session.id.as_str(), session.state)).collect();
    let commands: BTreeSet<CommandId> =
        rows.commands.iter().filter_map(|command| command.id.parse().ok()).collect();
    let mut lost = Vec::new();
    for session in tracked {
        let state = sessions.get(session.id.to_string().as_str());
        match state {
            None => lost.push(format!("session {} was acknowledged and is not there", session.id)),
            Some(state) if session.stopped && !ends(*state) => {
                lost.push(format!("the end of session {} was acknowledged and it is {state}", session.id));
            }
            Some(_) => {}
        }
        for command in &session.commands {
            if !CommandId::from_wire(command).is_some_and(|id| commands.contains(&id)) {
                lost.push(format!("command {command} was acknowledged and is not there"));
            }
        }
    }
    lost
}

fn ends(state: SessionState) -> bool {
    state == SessionState::Terminating || state.is_final()
}

/// The whole look, once everything is quiet. `engine`: how often the containers' engine was killed, and how many sessions
/// are under way at a time.
pub(crate) async fn everything(
    report: &mut Report,
    load: &Load,
    client: &Client,
    stand: &Stand,
    engine: (usize, usize),
) -> anyhow::Result<()> {
    let tracked = load.tracked();
    let rows = sql::rows(&stand.places.database()).await?;
    let starts = stand.ledger.read()?;
    let (answers, repeats) = load.asker.counts();
    report.count("requests answered", answers);
    report.count("requests repeated", repeats);
    report.count("sessions acknowledged", tracked.len());
    report.count("sessions in the database", rows.sessions.len());
    report
        .count("commands acknowledged", tracked.iter().map(|session| session.commands.len()).sum::<usize>());
    report.count("commands in the database", rows.commands.len());
    report.count("programs started", starts.values().sum::<usize>());
    report.must_be_none("acknowledged and lost", acknowledged(&tracked, &rows));
    report.must_be_none("not visible through the API", invisible(&tracked, client).await?);
    report.must_be_none("made twice or for nobody", surplus(&tracked, &rows));
    report.must_be_none("refused without a reason", load.asker.refusals());
    report.must_be_none("went wrong on its way", problems(&tracked));
    report.must_be_none("commands open or failed", commands(&tracked, &rows));
    report.must_be_none("commands missing", missing(&rows));
    report.must_be_none("programs executed twice", twice(&starts));
    report.must_be_none("programs never executed", never(&tracked, &starts));
    report.must_be_none("sessions stuck or failed", states(&tracked, &rows));
    report.must_be_none("changes that the lifecycle forbids", history(&rows));
    report.must_be_none("sessions nobody knows", rows.quarantined.clone());
    report.must_be_none("processes astray", processes(&tracked, &rows, stand));
    if let Some(dock) = &stand.dock {
        containers::check(report, &tracked, &rows, stand, dock, engine).await?;
    }
    Ok(())
}

async fn invisible(tracked: &[Tracked], client: &Client) -> anyhow::Result<Vec<String>> {
    let visible = client.all_sessions(&SessionFilter::default(), 100_000).await?;
    let visible: BTreeSet<_> = visible.into_iter().map(|session| session.id).collect();
    let missing = tracked.iter().filter(|session| !visible.contains(&session.id));
    Ok(missing.map(|session| format!("session {}", session.id)).collect())
}

/// Every create was repeated until it was answered, so there is one session for each and no other.
fn surplus(tracked: &[Tracked], rows: &Rows) -> Vec<String> {
    let known: BTreeSet<String> = tracked.iter().map(|session| session.id.to_string()).collect();
    let surplus = rows.sessions.iter().filter(|session| !known.contains(&session.id));
    let mut found: Vec<String> =
        surplus.map(|session| format!("session {} {}", session.id, session.name)).collect();
    if known.len() != tracked.len() {
        found.push(format!("{} creates share a session", tracked.len() - known.len()));
    }
    found
}

fn problems(tracked: &[Tracked]) -> Vec<String> {
    let each = |session: &Tracked| {
        let (id, plan) = (session.id, session.plan);
        session
            .problems
            .iter()
            .map(move |problem| format!("session {id} ({plan:?}) {problem}"))
            .collect::<Vec<_>>()
    };
    tracked.iter().flat_map(each).collect()
}

/// Starts of containers that died with their engine are counted where containers are.
fn commands(tracked: &[Tracked], rows: &Rows) -> Vec<String> {
    let contained = contained(tracked);
    let bad = rows.commands.iter().filter(|command| {
        let starts = matches!(command.action, CommandAction::StartSession | CommandAction::WakeSession);
        let lost = command.status == CommandStatus::Failed
            && starts
            && contained.contains(&command.session)
            && is_lost_start(command.error.as_deref());
        command.status != CommandStatus::Completed && !lost
    });
    bad.map(|command| {
        let error = command.error.as_deref().unwrap_or_default();
        format!("{} of session {} is {}: {error}", command.action, command.session, command.status)
    })
    .collect()
}

/// Each start and each wake has exactly one command.
fn missing(rows: &Rows) -> Vec<String> {
    let mut starts: BTreeMap<(&str, i64), usize> = BTreeMap::new();
    for command in &rows.commands {
        if matches!(command.action, CommandAction::StartSession | CommandAction::WakeSession) {
            *starts.entry((&command.session, command.generation)).or_default() += 1;
        }
    }
    let mut wrong = Vec::new();
    for session in &rows.sessions {
        for generation in 1..=session.generation {
            let found = starts.get(&(session.id.as_str(), generation)).copied().unwrap_or_default();
            if found != 1 {
                wrong.push(format!("session {} has {found} starts of generation {generation}", session.id));
            }
        }
    }
    wrong
}

fn twice(starts: &BTreeMap<Start, usize>) -> Vec<String> {
    let twice = starts.iter().filter(|(_, times)| **times > 1);
    twice
        .map(|((session, generation), times)| {
            format!("session {session} generation {generation}: {times} times")
        })
        .collect()
}

fn never(tracked: &[Tracked], starts: &BTreeMap<Start, usize>) -> Vec<String> {
    // Those of containers were looked at when they ran.
    let each = |session: &Tracked| {
        let id = session.id.to_string();
        let ran = session.ran.iter().map(move |generation| (id.clone(), *generation));
        ran.filter(|start| !starts.contains_key(start)).collect::<Vec<_>>()
    };
    tracked
        .iter()
        .filter(|session| !session.kind.is_container())
        .flat_map(each)
        .map(|(session, generation)| format!("session {session} generation {generation}"))
        .collect()
}

/// Sessions that are containers.
fn contained(tracked: &[Tracked]) -> BTreeSet<String> {
    let contained = tracked.iter().filter(|session| session.kind.is_container());
    contained.map(|session| session.id.to_string()).collect()
}

fn states(tracked: &[Tracked], rows: &Rows) -> Vec<String> {
    let plans: HashMap<String, Plan> =
        tracked.iter().map(|session| (session.id.to_string(), session.plan)).collect();
    let contained = contained(tracked);
    let wrong = rows.sessions.iter().filter(|session| match plans.get(&session.id) {
        // Counted where containers are.
        Some(plan)
            if session.state == SessionState::Failed
                && contained.contains(&session.id)
                && (is_lost_start(session.reason.as_deref())
                    || is_lost_end(*plan, session.reason.as_deref())) =>
        {
            false
        }
        Some(Plan::Stay) => session.state != SessionState::Running,
        _ => session.state != SessionState::Terminated,
    });
    wrong
        .map(|session| {
            let reason = session.reason.as_deref().unwrap_or_default();
            format!("session {} is {}: {reason}", session.id, session.state)
        })
        .collect()
}

/// Each change begins where the one before ended, and is one that the lifecycle knows.
fn history(rows: &Rows) -> Vec<String> {
    let mut last: HashMap<&str, (SessionState, i64)> = HashMap::new();
    let mut wrong = Vec::new();
    for event in &rows.events {
        let before = last.insert(&event.session, (event.to, event.generation));
        let legal = match (before, event.from) {
            (None, None) => true,
            (Some((state, generation)), Some(from)) => {
                state == from && from.may_become(event.to) && generation <= event.generation
            }
            _ => false,
        };
        if !legal {
            wrong.push(format!(
                "session {} went from {before:?} by {:?} to {}",
                event.session, event.from, event.to
            ));
        }
    }
    for session in &rows.sessions {
        if last.get(session.id.as_str()).is_none_or(|(state, _)| *state != session.state) {
            wrong.push(format!(
                "session {} is {}, and its history does not say so",
                session.id, session.state
            ));
        }
    }
    wrong
}

/// Sessions that run have processes of their own generation; ended ones have none, and no shim.
fn processes(tracked: &[Tracked], rows: &Rows, stand: &Stand) -> Vec<String> {
    let contained = contained(tracked);
    let folder = stand.places.agent_data();
    let (marked, shims) = (machine::marked(&folder), machine::shims(&folder));
    let found = machine::by_session(&marked);
    let mut wrong = Vec::new();
    for session in rows.sessions.iter().filter(|session| !contained.contains(&session.id)) {
        let processes = found.get(session.id.as_str()).map_or(&[][..], Vec::as_slice);
        let held = shims.iter().filter(|(_, of)| *of == session.id).count();
        let running = session.state == SessionState::Running;
        let current = processes.iter().filter(|process| process.generation == session.generation).count();
        if running && (current == 0 || held != 1) {
            wrong
                .push(format!("session {} is running with {current} processes and {held} shims", session.id));
        }
        let surplus = processes.len() - if running { current } else { 0 };
        if surplus > 0 || (!running && held > 0) {
            let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
            wrong.push(format!(
                "session {} is {} and left processes {pids:?}, {held} shims",
                session.id, session.state
            ));
        }
    }
    wrong
}

/// Ends what still runs and looks that nothing is left.
pub(crate) async fn clear_up(report: &mut Report, load: &Load, stand: &mut Stand, limit: Duration) {
    for session in load.tracked().iter().filter(|session| session.plan == Plan::Stay) {
        let id = session.id;
        load.asker.ask("terminate", async |client| client.terminate_session(id).await).await;
    }
    report.must_be_none("stuck at the end", settle(&stand.places.database(), limit).await);
    let folder = stand.places.agent_data();
    let deadline = Instant::now() + Duration::from_secs(10);
    if let Some(dock) = &stand.dock {
        let data = stand.places.docker_agent_data();
        while !containers::are_gone(dock, &data).await && Instant::now() < deadline {
            sleep(Duration::from_millis(100)).await;
        }
        report.must_be_none("containers left", containers::left(dock, &data).await);
    }
    // A shim stays a moment longer than its session, until whoever watches it has heard.
    while !(machine::shims(&folder).is_empty() && machine::marked(&folder).is_empty())
        && Instant::now() < deadline
    {
        sleep(Duration::from_millis(100)).await;
    }
    let left = machine::marked(&folder)
        .into_iter()
        .map(|process| format!("process {} of session {}", process.pid, process.session));
    let shims =
        machine::shims(&folder).into_iter().map(|(pid, session)| format!("shim {pid} of session {session}"));
    report.must_be_none("left on the machine", left.chain(shims).collect());
    let mut ends = stand.stop().await;
    ends.extend(stand.programs().into_iter().flat_map(|program| program.ended_by_itself.clone()));
    if let Some(dock) = &stand.dock {
        report.count("processes of its own that dockerd left", dock.engine.litter);
        report.count("places in its network that dockerd left", dock.engine.litter_in_network);
    }
    report.must_be_none("programs that ended badly", ends);
}
