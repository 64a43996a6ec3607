//! `power-cut`: `kill -9` proves nothing about fsync. Here the database's disk itself stops, and the server starts on
//! what had reached it.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tidegate_client::Client;
use tokio::time::{Instant, sleep};

use crate::{
    Common, check,
    disk::{self, Disk},
    faults::{bar, finish},
    load::Load,
    power,
    report::Report,
    sql,
    stand::{Cast, Places, Stand, asker},
};

/// How long the database may take to come up on what was left of its disk.
const RECOVERY: Duration = Duration::from_mins(2);

/// What `power-cut` can be told.
#[derive(Debug, Args)]
pub(crate) struct Wishes {
    #[command(flatten)]
    common: Common,
    /// How often the power is cut
    #[arg(long, default_value_t = 4)]
    cuts: usize,
    /// The test of the test: from the first cut on, commits are not waited for, and acknowledged requests must be lost
    #[arg(long)]
    without_sync: bool,
    /// Size of the disk in MiB
    #[arg(long, default_value_t = 2_048)]
    disk: u64,
}

/// What one cut showed.
#[derive(Debug, Default)]
struct Cut {
    sessions: usize,
    commands: usize,
    lost: Vec<String>,
    millis: u128,
}

/// The run.
pub(crate) async fn run(wishes: Wishes) -> anyhow::Result<ExitCode> {
    let Wishes { common, cuts, without_sync, disk } = wishes;
    if let Some(missing) = disk::missing() {
        eprintln!("tidegate-chaos: the power cut cannot be tested here: {missing}");
        return Ok(ExitCode::from(2));
    }
    let seed = common.run.seed();
    eprintln!("seed {seed}");
    let places = Places::new(&common.run, "disk/data")?;
    // Made before the stand and so dropped after it: what runs on it has ended by then.
    let mut disk = Disk::make(&places.folder, disk)?;
    let (mut stand, client) = Stand::start(places, Cast::Agent).await?;
    if without_sync {
        sql::commit_without_sync(&stand.places.database()).await?;
    }
    let load =
        Load::new(asker(&client), stand.ledger.clone(), seed, (common.sessions, false), bar("sessions"));
    let mut random = StdRng::seed_from_u64(seed);
    let parts = common.sessions / (cuts + 1);
    let marks = (1..=cuts).map(|cut| parts * cut + random.random_range(0..=parts / 2)).collect();
    let cutting = cut_at(marks, &load, &mut stand, &mut disk);
    let driven = if without_sync {
        // Sessions that were lost never end: the cuts alone are looked at.
        tokio::select! { cut = cutting => cut, () = load.run(common.parallel) => Ok(Vec::new()) }
    } else {
        tokio::join!(cutting, load.run(common.parallel)).0
    };
    let mut report = Report::default();
    report.count("seed", seed);
    let looked = match driven {
        Ok(cuts) if without_sync => {
            count(&mut report, &cuts);
            Ok(())
        }
        Ok(cuts) => {
            look(&mut report, &cuts, &load, &client, &mut stand, Duration::from_secs(common.run.settle)).await
        }
        Err(error) => Err(error),
    };
    let ended = finish(&report, looked, &common.run, &mut stand);
    drop(stand);
    drop(disk);
    ended
}

async fn look(
    report: &mut Report,
    cuts: &[Cut],
    load: &Load,
    client: &Client,
    stand: &mut Stand,
    limit: Duration,
) -> anyhow::Result<()> {
    count(report, cuts);
    report.must_be_none("stuck after the last cut", check::settle(&stand.places.database(), limit).await);
    check::everything(report, load, client, stand, (0, 0)).await?;
    check::clear_up(report, load, stand, limit).await;
    Ok(())
}

fn count(report: &mut Report, cuts: &[Cut]) {
    for (number, cut) in (1..).zip(cuts) {
        report.count(&format!("cut {number}: sessions acknowledged before"), cut.sessions);
        report.count(&format!("cut {number}: commands acknowledged before"), cut.commands);
        report.count(&format!("cut {number}: milliseconds until it served again"), cut.millis.to_string());
        report.must_be_none(&format!("cut {number}: acknowledged and lost"), cut.lost.clone());
    }
}

/// Cuts the power whenever so many sessions are through, while the others go on.
async fn cut_at(
    marks: Vec<usize>,
    load: &Arc<Load>,
    stand: &mut Stand,
    disk: &mut Disk,
) -> anyhow::Result<Vec<Cut>> {
    let mut cuts = Vec::new();
    for mark in marks {
        while load.done() < mark {
            sleep(Duration::from_millis(5)).await;
        }
        cuts.push(cut(load, stand, disk).await?);
    }
    Ok(cuts)
}

async fn cut(load: &Arc<Load>, stand: &mut Stand, disk: &mut Disk) -> anyhow::Result<Cut> {
    let began = Instant::now();
    let tracked = power::cut(stand, disk, || load.tracked()).await?;
    let rows = recovered(stand).await?;
    let commands = tracked.iter().map(|session| session.commands.len()).sum();
    let lost = check::acknowledged(&tracked, &rows);
    Ok(Cut { sessions: tracked.len(), commands, lost, millis: began.elapsed().as_millis() })
}

/// The rows that are there once the server has recovered.
async fn recovered(stand: &mut Stand) -> anyhow::Result<sql::Rows> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        stand.control_plane.look();
        if let Some(ended) = stand.control_plane.ended_by_itself.first() {
            anyhow::bail!("after the cut, {ended}");
        }
        // The pid file of the server that was cut off lies on the disk until the new one has replaced it.
        let rows = match stand.postmaster() {
            Some(_) => sql::rows(&stand.places.database()).await,
            None => Err(anyhow::anyhow!("PostgreSQL does not run yet")),
        };
        match rows {
            Ok(rows) => return Ok(rows),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context("the server did not recover"));
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
