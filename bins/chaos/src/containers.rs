//! The look at containers: each running session has exactly one, of its own start; nobody else has any, nor a home or a
//! process that nothing owns.

use std::{collections::BTreeMap, path::Path};

use tidegate_model::SessionState;

use crate::{
    engine::{Container, Engine},
    load::{Tracked, is_lost_end, is_lost_start},
    machine,
    plan::{Kind, Plan},
    report::Report,
    sql::{Rows, SessionRow},
    stand::{Dock, Stand},
};

/// Containers, homes and what carries their terminals, beside the sessions' rows.
pub(crate) async fn check(
    report: &mut Report,
    tracked: &[Tracked],
    rows: &Rows,
    stand: &Stand,
    dock: &Dock,
    (engine_kills, at_once): (usize, usize),
) -> anyhow::Result<()> {
    let found = dock.engine.containers().await?;
    let signed = stand.ledger.containers();
    let kinds: BTreeMap<String, Kind> =
        tracked.iter().map(|session| (session.id.to_string(), session.kind)).collect();
    report.count("sessions in containers", kinds.values().filter(|kind| kind.is_container()).count());
    report.count("containers that signed", signed.len());
    let (lost_starts, unexplained) = lost_starts(tracked, rows, engine_kills, at_once);
    report.count("starts that died with dockerd, and were not repeated", lost_starts);
    report.count("exit codes that died with dockerd", lost_ends(tracked, rows));
    report.must_be_none("more of these than killed engines explain", unexplained);
    report.must_be_none("containers doubled", doubled(&kinds, rows, &found, &signed));
    report.must_be_none("containers lost or stuck", lost(&kinds, rows, &found));
    report.must_be_none("containers orphaned", orphaned(rows, &found));
    report.must_be_none("programs in containers astray", astray(&kinds, rows));
    report.must_be_none("homes orphaned", homes(rows, &dock.engine).await?);
    let data = stand.places.docker_agent_data();
    report.must_be_none("terminals of containers astray", terminals(&kinds, rows, dock, &data));
    Ok(())
}

/// Starts and wakes that were given up because their engine was killed, by the commands' rows; and why they cannot all be
/// that: a killed engine takes at most the starts with it that are under way at once.
fn lost_starts(
    tracked: &[Tracked],
    rows: &Rows,
    engine_kills: usize,
    at_once: usize,
) -> (usize, Vec<String>) {
    let failed = rows.commands.iter().filter(|command| is_lost_start(command.error.as_deref())).count();
    // Sessions that failed so after their start was acknowledged as done have no failed command.
    let ended = |session: &&SessionRow| {
        session.state == SessionState::Failed
            && is_lost_start(session.reason.as_deref())
            && !rows
                .commands
                .iter()
                .any(|command| command.session == session.id && is_lost_start(command.error.as_deref()))
    };
    let lost = failed + rows.sessions.iter().filter(ended).count();
    let ends = lost_ends(tracked, rows);
    let seen: usize = tracked.iter().map(|session| session.lost_starts.len()).sum();
    let most = engine_kills.saturating_mul(at_once);
    let mut wrong = Vec::new();
    if lost + ends > most {
        wrong.push(format!(
            "{lost} starts and {ends} exit codes died with {engine_kills} engines, {at_once} sessions at a time"
        ));
    }
    if seen > lost {
        wrong.push(format!("{seen} were seen through the API and {lost} are in the database"));
    }
    (lost, wrong)
}

/// Sessions whose program ended by itself while its engine was killed, with an exit code that no engine knows.
fn lost_ends(tracked: &[Tracked], rows: &Rows) -> usize {
    let plans: BTreeMap<String, Plan> =
        tracked.iter().map(|session| (session.id.to_string(), session.plan)).collect();
    let lost = rows.sessions.iter().filter(|session| {
        session.state == SessionState::Failed
            && plans.get(&session.id).is_some_and(|plan| is_lost_end(*plan, session.reason.as_deref()))
    });
    lost.count()
}

/// More containers than starts, or one that was started again.
fn doubled(
    kinds: &BTreeMap<String, Kind>,
    rows: &Rows,
    found: &[Container],
    signed: &BTreeMap<(String, String), usize>,
) -> Vec<String> {
    let mut wrong: Vec<String> = signed
        .iter()
        .filter(|(_, times)| **times > 1)
        .map(|((session, id), times)| format!("container {id} of session {session} ran {times} times"))
        .collect();
    for session in &rows.sessions {
        let Some(Kind::Container { pauses, .. }) = kinds.get(&session.id) else { continue };
        let starts = if *pauses { 1 } else { usize::try_from(session.generation).unwrap_or(0) };
        let ran = signed.keys().filter(|(of, _)| *of == session.id).count();
        let there = found.iter().filter(|container| container.session() == Some(&session.id)).count();
        if ran > starts || there > 1 {
            wrong.push(format!(
                "session {}: {ran} containers ran for {starts} starts, {there} are there",
                session.id
            ));
        }
    }
    wrong
}

/// Running sessions without a running container of their own start.
fn lost(kinds: &BTreeMap<String, Kind>, rows: &Rows, found: &[Container]) -> Vec<String> {
    let mut wrong = Vec::new();
    for session in rows.sessions.iter().filter(|session| session.state == SessionState::Running) {
        let Some(Kind::Container { pauses, .. }) = kinds.get(&session.id) else { continue };
        let container = found.iter().find(|container| container.session() == Some(&session.id));
        let stands = container.is_some_and(|container| {
            // One that was paused has the number of the start that made it.
            container.state == "running" && (*pauses || container.generation() == Some(session.generation))
        });
        if !stands {
            let state = container.map_or("not there", |container| &container.state);
            wrong.push(format!("session {} runs and its container is {state}", session.id));
        }
    }
    wrong
}

/// Containers of sessions that do not run, or of none.
fn orphaned(rows: &Rows, found: &[Container]) -> Vec<String> {
    let runs = |id: &str| {
        rows.sessions.iter().any(|session| session.id == id && session.state == SessionState::Running)
    };
    let orphans = found.iter().filter(|container| !container.session().is_some_and(runs));
    orphans
        .map(|container| {
            let session = container.session().unwrap_or("none");
            format!("container {} of session {session} is {}", container.id, container.state)
        })
        .collect()
}

/// What runs in containers, whatever the engine knows of it: something of each running session, nothing of any other.
fn astray(kinds: &BTreeMap<String, Kind>, rows: &Rows) -> Vec<String> {
    let found = machine::in_containers();
    let mut wrong = Vec::new();
    for session in &rows.sessions {
        if !kinds.get(&session.id).is_some_and(|kind| kind.is_container()) {
            continue;
        }
        let pids: Vec<i32> = found.iter().filter(|(_, of)| *of == session.id).map(|(pid, _)| *pid).collect();
        if pids.is_empty() == (session.state == SessionState::Running) {
            wrong.push(format!("session {} is {} with processes {pids:?}", session.id, session.state));
        }
    }
    wrong
}

/// Homes of single sessions that ended.
async fn homes(rows: &Rows, engine: &Engine) -> anyhow::Result<Vec<String>> {
    let owned = |name: &str| {
        rows.sessions
            .iter()
            .any(|session| session.state == SessionState::Running && name.ends_with(&session.id))
    };
    let homes = engine.own_homes().await?;
    Ok(homes.into_iter().map(|home| home.name).filter(|name| !owned(name)).collect())
}

/// One shim and one bridge for each session that runs, and no more.
fn terminals(kinds: &BTreeMap<String, Kind>, rows: &Rows, dock: &Dock, data: &Path) -> Vec<String> {
    let shims = machine::shims(data);
    let running = rows.sessions.iter().filter(|session| {
        session.state == SessionState::Running
            && kinds.get(&session.id).is_some_and(|kind| kind.is_container())
    });
    let (mut wrong, mut count) = (Vec::new(), 0);
    for session in running {
        count += 1;
        let held = shims.iter().filter(|(_, of)| *of == session.id).count();
        if held != 1 {
            wrong.push(format!("session {} is held by {held} shims", session.id));
        }
    }
    let bridges = machine::bridges(&dock.engine.socket()).len();
    if shims.len() != count || bridges != count {
        wrong.push(format!("{count} sessions run, with {} shims and {bridges} bridges", shims.len()));
    }
    wrong
}

/// Whether nothing of any container is left.
pub(crate) async fn are_gone(dock: &Dock, data: &Path) -> bool {
    left(dock, data).await.is_empty()
}

/// What is left of containers when no session runs.
pub(crate) async fn left(dock: &Dock, data: &Path) -> Vec<String> {
    let mut left = Vec::new();
    match dock.engine.containers().await {
        Ok(found) => {
            left.extend(found.iter().map(|found| format!("container {} is {}", found.id, found.state)));
        }
        Err(error) => left.push(format!("{error:#}")),
    }
    match dock.engine.own_homes().await {
        Ok(homes) => left.extend(homes.into_iter().map(|home| format!("home {}", home.name))),
        Err(error) => left.push(format!("{error:#}")),
    }
    let shims = machine::shims(data);
    left.extend(shims.into_iter().map(|(pid, session)| format!("shim {pid} of session {session}")));
    let bridges = machine::bridges(&dock.engine.socket());
    left.extend(bridges.into_iter().map(|pid| format!("bridge {pid}")));
    left
}
