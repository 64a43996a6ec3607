//! `faults`: `kill -9` at random points of session starts and stops.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::{
    Common, Run, check, engine,
    hand::{Hand, kill_found},
    load::Load,
    report::Report,
    stand::{Cast, Dock, Places, Stand, asker},
};

/// Answers after which the platform counts as recovered, and how long they are waited for.
const ANSWERS: u64 = 10;
const ALIVE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// What `faults` can be told.
#[derive(Debug, Args)]
pub(crate) struct Wishes {
    #[command(flatten)]
    common: Common,
    /// Longest pause between two faults, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    pause: u64,
    /// Containers, too, on a Docker engine of the run's own, which is killed like the rest. Needs root and dockerd: exit
    /// code 2 without them
    #[arg(long)]
    containers: bool,
}

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Fault {
    ControlPlane,
    Postmaster,
    Backend,
    Agent,
    DockerAgent,
    Engine,
    Everything,
}

const KINDS: [(Fault, &str); 7] = [
    (Fault::ControlPlane, "killed: control plane"),
    (Fault::Postmaster, "killed: PostgreSQL's first process"),
    (Fault::Backend, "killed: one other process of PostgreSQL"),
    (Fault::Agent, "killed: agent"),
    (Fault::DockerAgent, "killed: agent of containers"),
    (Fault::Engine, "killed: dockerd"),
    (Fault::Everything, "killed: all at once"),
];

/// The faults of a run with or without containers.
fn kinds(containers: bool) -> impl Iterator<Item = (Fault, &'static str)> {
    KINDS
        .into_iter()
        .filter(move |(fault, _)| containers || !matches!(fault, Fault::DockerAgent | Fault::Engine))
}

/// The run.
pub(crate) async fn run(wishes: Wishes) -> anyhow::Result<ExitCode> {
    let Wishes { common, pause, containers } = wishes;
    if let Some(missing) = engine::missing().filter(|_| containers) {
        eprintln!("tidegate-chaos: containers cannot be tested here: {missing}");
        return Ok(ExitCode::from(2));
    }
    let seed = common.run.seed();
    eprintln!("seed {seed}");
    let cast = if containers { Cast::Containers } else { Cast::Agent };
    let (mut stand, client) = Stand::start(Places::new(&common.run, "data")?, cast).await?;
    let wanted = (common.sessions, containers);
    let load = Load::new(asker(&client), stand.ledger.clone(), seed, wanted, bar("sessions"));
    let mut hand = Hand::new(seed, kinds(containers), pause);
    let began = Instant::now();
    let faulted = tokio::select! {
        () = load.run(common.parallel) => Ok(()),
        error = work(&mut hand, &load, &mut stand) => Err(error),
    };
    let mut report = Report::default();
    let looked = match faulted {
        Ok(()) => look(&mut report, &load, &client, &mut stand, (&common, seed, began, &hand)).await,
        Err(error) => Err(error),
    };
    finish(&report, looked, &common.run, &mut stand)
}

/// Prints the report, or why there is none, and keeps the folder where that helps.
pub(crate) fn finish(
    report: &Report,
    looked: anyhow::Result<()>,
    run: &Run,
    stand: &mut Stand,
) -> anyhow::Result<ExitCode> {
    let printed = looked.and_then(|()| report.print(run.json));
    let held = printed.as_ref().is_ok_and(|held| *held);
    if run.keep || !held {
        stand.places.keep();
    }
    printed.map(|held| if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(
    report: &mut Report,
    load: &Arc<Load>,
    client: &tidegate_client::Client,
    stand: &mut Stand,
    (common, seed, began, hand): (&Common, u64, Instant, &Hand<Fault>),
) -> anyhow::Result<()> {
    restart(stand)?;
    report.count("seed", seed);
    report.count("seconds under faults", began.elapsed().as_secs());
    hand.count(report);
    // A start that is shot down gives up and says so; whoever started it tries again, as an init system does.
    report.count("starts given up under fire", stand.forget_ends());
    let limit = Duration::from_secs(common.run.settle);
    report.must_be_none("stuck after the last fault", check::settle(&stand.places.database(), limit).await);
    let engine_kills = hand.struck(|fault| matches!(fault, Fault::Engine | Fault::Everything));
    check::everything(report, load, client, stand, (engine_kills, common.parallel)).await?;
    check::clear_up(report, load, stand, limit).await;
    Ok(())
}

/// A bar for people who watch; nothing where nobody does.
pub(crate) fn bar(of: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = format!("{{elapsed}} {{wide_bar}} {{pos}}/{{len}} {of} {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// Starts what does not run, as an init system would.
fn restart(stand: &mut Stand) -> anyhow::Result<()> {
    for program in stand.programs() {
        program.look();
        if !program.is_running() {
            program.start()?;
        }
    }
    Ok(())
}

/// Waits until some requests were answered, so that a run ends however slow its machine is.
async fn until_alive(load: &Load) {
    let enough = load.asker.counts().0 + ANSWERS;
    let deadline = Instant::now() + ALIVE;
    while load.asker.counts().0 < enough && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

/// Starts what ends by itself while something is waited for.
async fn keep_alive(stand: &mut Stand, waited: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut waited = std::pin::pin!(waited);
    loop {
        tokio::select! {
            () = &mut waited => return Ok(()),
            () = sleep(LOOK) => restart(stand)?,
        }
    }
}

/// Kills until it is dropped; returns only when something cannot be started again.
async fn work(hand: &mut Hand<Fault>, load: &Load, stand: &mut Stand) -> anyhow::Error {
    loop {
        let (pause, patient) = hand.pause();
        let waited = async {
            if patient {
                until_alive(load).await;
            }
            sleep(pause).await;
        };
        if let Err(error) = keep_alive(stand, waited).await {
            return error;
        }
        if let Err(error) = strike(hand, stand).await {
            return error;
        }
    }
}

async fn strike(hand: &mut Hand<Fault>, stand: &mut Stand) -> anyhow::Result<()> {
    let (fault, down) = hand.draw();
    match fault {
        Fault::ControlPlane => stand.control_plane.kill().await,
        Fault::Agent => stand.agent.kill().await,
        Fault::Postmaster => kill_found(stand.postmaster()),
        Fault::Backend => kill_found(hand.backend(stand)),
        Fault::DockerAgent => {
            if let Some(dock) = &mut stand.dock {
                dock.agent.kill().await;
            }
        }
        Fault::Engine => {
            if let Some(dock) = &mut stand.dock {
                dock.engine.kill().await;
            }
        }
        Fault::Everything => {
            kill_found(stand.postmaster());
            let Stand { control_plane, agent, dock, .. } = stand;
            let containers = async {
                if let Some(Dock { agent, engine }) = dock {
                    tokio::join!(agent.kill(), engine.kill());
                }
            };
            tokio::join!(control_plane.kill(), agent.kill(), containers);
        }
    }
    if !matches!(fault, Fault::Postmaster | Fault::Backend) {
        sleep(down).await;
    }
    restart(stand).context("it cannot be started again")
}
