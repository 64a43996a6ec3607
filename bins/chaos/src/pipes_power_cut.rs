//! `pipes-power-cut`: the disk under the store of nats-server stops, and what was acknowledged is looked for on what had
//! reached it.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use crate::{
    Run,
    disk::{self, Disk},
    faults::{bar, finish},
    judge::{Wrongs, judge},
    pipes::{Messages, sent},
    power,
    readers::{Cursor, Keeper},
    report::Report,
    senders::{Senders, prepare},
    stand::{Cast, Places, Stand},
};

/// What `pipes-power-cut` can be told.
#[derive(Debug, Args)]
pub(crate) struct Wishes {
    #[command(flatten)]
    load: Messages,
    #[command(flatten)]
    run: Run,
    /// How often the power is cut
    #[arg(long, default_value_t = 4)]
    cuts: usize,
    /// The test of the test: nats-server syncs every two minutes, and acknowledged messages must be lost
    #[arg(long)]
    without_sync: bool,
    /// Size of the disk in MiB
    #[arg(long, default_value_t = 2_048)]
    disk: u64,
}

/// What one cut showed.
#[derive(Debug, Default)]
struct Cut {
    acknowledged: usize,
    read: usize,
    wrongs: Wrongs,
    problems: Vec<String>,
    millis: u128,
}

/// The run.
pub(crate) async fn run(wishes: Wishes) -> anyhow::Result<ExitCode> {
    let Wishes { load, run, cuts, without_sync, disk } = wishes;
    if let Some(missing) = disk::missing() {
        eprintln!("tidegate-chaos: the power cut cannot be tested here: {missing}");
        return Ok(ExitCode::from(2));
    }
    let seed = run.seed();
    eprintln!("seed {seed}");
    let mut places = Places::new(&run, "disk/data")?;
    // The disk is small, and what must stay free on a real one is half of it.
    places.settings.push_str("[nats]\nmin_free_bytes = 1048576\n");
    if without_sync {
        places.settings.push_str("durability = \"relaxed\"\n");
    }
    // Made before the stand and so dropped after it: what runs on it has ended by then.
    let mut disk = Disk::make(&places.folder, disk)?;
    let (mut stand, admin) = Stand::start(places, Cast::Alone).await?;
    // After each cut somebody reads everything who has read nothing before.
    let (target, mut people) = prepare(&stand, &admin, load.messages, load.senders + cuts + 1).await?;
    let readers = people.split_off(load.senders);
    let senders = Senders::new(target.clone(), people, (seed, load.messages), bar("messages"));
    let mut readers =
        readers.into_iter().map(|reader| Cursor::new(reader, target.clone(), Keeper::Reader, senders.ids()));
    let mut random = StdRng::seed_from_u64(seed);
    let parts = load.messages / (cuts + 1);
    let marks: Vec<usize> = (1..=cuts).map(|cut| parts * cut + random.random_range(0..=parts / 2)).collect();
    let over = AtomicBool::new(false);
    let cutting = async {
        let mut found = Vec::new();
        for mark in marks {
            while senders.done() < mark {
                anyhow::ensure!(!over.load(Ordering::Acquire), "the senders ended before the power was cut");
                sleep(Duration::from_millis(5)).await;
            }
            let reader = readers.next().context("a reader")?;
            found.push(cut(&senders, reader, &mut stand, &mut disk).await?);
        }
        anyhow::Ok(found)
    };
    let sending = async {
        senders.run().await;
        over.store(true, Ordering::Release);
    };
    let driven = tokio::join!(cutting, sending).0;
    let mut report = Report::default();
    report.count("seed", seed);
    let looked = match driven {
        Ok(cuts) => {
            count(&mut report, cuts);
            if !without_sync {
                sent(&mut report, &senders, load.messages);
                let last = read_all(&senders, readers.next().context("a reader")?).await;
                told(&mut report, "at the end", last);
                report.must_be_none("programs that ended badly", stand.stop().await);
            }
            Ok(())
        }
        Err(error) => Err(error),
    };
    let ended = finish(&report, looked, &run, &mut stand);
    drop(stand);
    drop(disk);
    ended
}

fn count(report: &mut Report, cuts: Vec<Cut>) {
    for (number, cut) in (1..).zip(cuts) {
        let name = format!("cut {number}");
        report
            .count(&format!("{name}: milliseconds until everything was read again"), cut.millis.to_string());
        told(report, &name, cut);
    }
}

fn told(report: &mut Report, name: &str, cut: Cut) {
    let Wrongs { lost, doubled, disordered, misplaced } = cut.wrongs;
    report.count(&format!("{name}: messages acknowledged before"), cut.acknowledged);
    report.count(&format!("{name}: messages read afterwards"), cut.read);
    report.must_be_none(&format!("{name}: acknowledged and lost"), lost);
    report.must_be_none(&format!("{name}: doubled"), doubled);
    report.must_be_none(&format!("{name}: out of order"), disordered);
    report.must_be_none(&format!("{name}: elsewhere than acknowledged"), misplaced);
    report.must_be_none(&format!("{name}: went wrong"), cut.problems);
}

/// Reads everything and compares it with what had been acknowledged when the reading began.
async fn read_all(senders: &Senders, mut reader: Cursor) -> Cut {
    let acknowledged = senders.acknowledged();
    reader.run_to(acknowledged.iter().map(|placed| placed.sequence).max().unwrap_or_default()).await;
    Cut {
        acknowledged: acknowledged.len(),
        read: reader.read.len(),
        wrongs: judge(&acknowledged, &reader.read),
        problems: std::mem::take(&mut reader.problems),
        millis: 0,
    }
}

async fn cut(senders: &Senders, reader: Cursor, stand: &mut Stand, disk: &mut Disk) -> anyhow::Result<Cut> {
    let began = Instant::now();
    anyhow::ensure!(stand.nats().is_some(), "nats-server does not run");
    power::cut(stand, disk, || ()).await?;
    // The senders go on meanwhile; what they are told from now on is looked for the next time.
    let cut = read_all(senders, reader).await;
    stand.control_plane.look();
    if let Some(ended) = stand.control_plane.ended_by_itself.first() {
        anyhow::bail!("after the cut, {ended}");
    }
    Ok(Cut { millis: began.elapsed().as_millis(), ..cut })
}
