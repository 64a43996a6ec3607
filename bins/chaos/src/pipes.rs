//! `pipes`: `kill -9` of whatever carries messages, while they are sent and read.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::{
    Run,
    faults::{bar, finish},
    hand::{Hand, kill_found},
    judge::{Wrongs, judge, shared},
    readers::{Cursor, Keeper},
    report::Report,
    senders::{Senders, prepare},
    stand::{Cast, Places, Stand},
};

/// Acknowledgements after which the platform counts as recovered, and how long they are waited for.
const ANSWERS: usize = 10;
const ALIVE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// Readers beside the senders.
const READERS: usize = 4;

/// What `pipes` can be told.
#[derive(Debug, Args)]
pub(crate) struct Wishes {
    #[command(flatten)]
    pub(crate) load: Messages,
    #[command(flatten)]
    run: Run,
    /// Longest pause between two faults, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    pause: u64,
}

/// How much is sent.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Messages {
    /// Messages to send
    #[arg(long, default_value_t = 10_000)]
    pub(crate) messages: usize,
    /// Senders, each with one message on its way
    #[arg(long, default_value_t = 8, value_parser = senders)]
    pub(crate) senders: usize,
}

fn senders(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| (1..=100).contains(number)).ok_or_else(|| "1 to 100".to_owned())
}

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Fault {
    ControlPlane,
    Nats,
    Postmaster,
    Backend,
    Everything,
}

const KINDS: [(Fault, &str); 5] = [
    (Fault::ControlPlane, "killed: control plane"),
    (Fault::Nats, "killed: nats-server"),
    (Fault::Postmaster, "killed: PostgreSQL's first process"),
    (Fault::Backend, "killed: one other process of PostgreSQL"),
    (Fault::Everything, "killed: all at once"),
];

/// The run.
pub(crate) async fn run(wishes: Wishes) -> anyhow::Result<ExitCode> {
    let Wishes { load, run, pause } = wishes;
    let seed = run.seed();
    eprintln!("seed {seed}");
    let (mut stand, admin) = Stand::start(Places::new(&run, "data")?, Cast::Alone).await?;
    let (target, mut people) = prepare(&stand, &admin, load.messages, load.senders + READERS).await?;
    let readers = people.split_off(load.senders);
    // Every other one goes past the control plane.
    let senders =
        Senders::new(target.clone(), people, (seed, load.messages), bar("messages")).some_over_nats();
    let mut readers = readers.into_iter();
    let mut cursor = |keeper| {
        let reader = readers.next().context("a reader")?;
        anyhow::Ok(Cursor::new(reader, target.clone(), keeper, senders.ids()))
    };
    let mut cursors = Cursors {
        kept_by_reader: cursor(Keeper::Reader)?,
        kept_by_platform: cursor(Keeper::Platform)?,
        shared: cursor(Keeper::Shared)?,
        afterwards: cursor(Keeper::Shared)?,
    };
    let mut hand = Hand::new(seed, KINDS, pause);
    let began = Instant::now();
    let over = AtomicBool::new(false);
    let driven = {
        let reading = async {
            let Cursors { kept_by_reader, kept_by_platform, shared, .. } = &mut cursors;
            tokio::join!(kept_by_reader.run(&over), kept_by_platform.run(&over), shared.run(&over));
        };
        let sending = async {
            let faulted = tokio::select! {
                () = senders.run() => Ok(()),
                error = work(&mut hand, &senders, &mut stand) => Err(error),
            };
            let restarted = restart(&mut stand);
            over.store(true, Ordering::Release);
            faulted.and(restarted)
        };
        tokio::join!(reading, sending).1
    };
    let mut report = Report::default();
    let looked = match driven {
        Ok(()) => {
            report.count("seed", seed);
            report.count("seconds under faults", began.elapsed().as_secs());
            hand.count(&mut report);
            // A start that is shot down gives up and says so; whoever started it tries again, as an init system does.
            report.count("starts given up under fire", stand.forget_ends());
            cursors.afterwards.run(&over).await;
            look(&mut report, &senders, load.messages, &mut cursors).await;
            let ends = stand.stop().await;
            report.must_be_none("programs that ended badly", ends);
            Ok(())
        }
        Err(error) => Err(error),
    };
    finish(&report, looked, &run, &mut stand)
}

/// Everybody who reads everything.
struct Cursors {
    kept_by_reader: Cursor,
    kept_by_platform: Cursor,
    shared: Cursor,
    /// The same, when all is quiet again: it has nothing to put right.
    afterwards: Cursor,
}

/// What was sent, and what each cursor made of it.
async fn look(report: &mut Report, senders: &Senders, messages: usize, cursors: &mut Cursors) {
    sent(report, senders, messages);
    let acknowledged = senders.acknowledged();
    for (name, cursor) in [
        ("its reader's place", &mut cursors.kept_by_reader),
        ("the platform's place, confirmed", &mut cursors.kept_by_platform),
        ("the platform's place, shared", &mut cursors.shared),
        ("the platform's place, shared, afterwards", &mut cursors.afterwards),
    ] {
        let left = cursor.left().await;
        report.count(&format!("{name}: read"), cursor.read.len());
        report.count(&format!("{name}: answers that did not come"), cursor.failures);
        report.count(&format!("{name}: of them read again by sequence"), cursor.recovered);
        report.count(&format!("{name}: came again, known by sequence"), cursor.again);
        if cursor.starts > 0 {
            report.count(&format!("{name}: answers thrown away"), cursor.thrown);
            report.count(&format!("{name}: started anew"), cursor.starts - 1);
        }
        let Wrongs { lost, doubled, disordered, misplaced } = judge(&acknowledged, &cursor.read);
        report.must_be_none(&format!("{name}: lost"), lost);
        report.must_be_none(&format!("{name}: doubled"), doubled);
        report.must_be_none(&format!("{name}: out of order"), disordered);
        report.must_be_none(&format!("{name}: elsewhere than acknowledged"), misplaced);
        let left = (left > 0).then(|| format!("{left} messages")).into_iter().collect();
        report.must_be_none(&format!("{name}: unread at the end"), left);
        report.must_be_none(&format!("{name}: went wrong"), std::mem::take(&mut cursor.problems));
    }
    let Cursor { recovered, again, .. } = cursors.afterwards;
    let repaired = (recovered + again > 0).then(|| format!("{recovered} read again, {again} came again"));
    report.must_be_none("put right although nothing was killed", repaired.into_iter().collect());
}

/// What senders were told.
pub(crate) fn sent(report: &mut Report, senders: &Senders, messages: usize) {
    let acknowledged = senders.acknowledged();
    let (repeats, refusals) = senders.troubles();
    report.count("messages acknowledged", acknowledged.len());
    report.count("of them sent over NATS", senders.over_nats());
    report.count("requests repeated", repeats);
    report.count("milliseconds that the slowest acknowledgement took", senders.longest());
    let missing = messages - acknowledged.len().min(messages);
    let unsent = (missing > 0).then(|| format!("{missing} messages")).into_iter().collect();
    report.must_be_none("never acknowledged", unsent);
    report.must_be_none("refused without a reason", refusals);
    report.must_be_none("acknowledged at the place of another one", shared(&acknowledged));
}

/// Starts the control plane where it does not run, as an init system would; it starts the engines.
fn restart(stand: &mut Stand) -> anyhow::Result<()> {
    stand.control_plane.look();
    if stand.control_plane.is_running() { Ok(()) } else { stand.control_plane.start() }
}

/// Kills until it is dropped; returns only when something cannot be started again.
async fn work(hand: &mut Hand<Fault>, senders: &Senders, stand: &mut Stand) -> anyhow::Error {
    loop {
        let (pause, patient) = hand.pause();
        let (enough, deadline) = (senders.done() + ANSWERS, Instant::now() + ALIVE);
        while patient && senders.done() < enough && Instant::now() < deadline {
            sleep(LOOK).await;
            if let Err(error) = restart(stand) {
                return error;
            }
        }
        sleep(pause).await;
        if let Err(error) = strike(hand, stand).await {
            return error;
        }
    }
}

async fn strike(hand: &mut Hand<Fault>, stand: &mut Stand) -> anyhow::Result<()> {
    let (fault, down) = hand.draw();
    match fault {
        Fault::ControlPlane => stand.control_plane.kill().await,
        Fault::Nats => kill_found(stand.nats()),
        Fault::Postmaster => kill_found(stand.postmaster()),
        Fault::Backend => kill_found(hand.backend(stand)),
        Fault::Everything => {
            kill_found(stand.nats());
            kill_found(stand.postmaster());
            stand.control_plane.kill().await;
        }
    }
    if matches!(fault, Fault::ControlPlane | Fault::Everything) {
        sleep(down).await;
    }
    restart(stand).context("it cannot be started again")
}
