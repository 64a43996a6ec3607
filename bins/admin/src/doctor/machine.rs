//! What `doctor` sees of the machine: its clock beside the database's, and the room on its disks.

use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use nix::sys::statvfs::statvfs;
use tidegate_model::{Clock, SystemClock};
use tidegate_service::Db;

use super::{Check, check};

/// Past this the control plane calls itself not ready.
const SKEW: TimeDelta = TimeDelta::seconds(5);
/// Past this somebody should look at the machine's clock.
const NOTABLE: TimeDelta = TimeDelta::seconds(1);
/// Less free room than this fails: PostgreSQL stops when there is none.
const ROOM: u64 = 1 << 30;
/// Less of the whole than this fails, too: it fills fast.
const PERCENT: u64 = 5;
/// As much as this is enough whatever the whole is: a twentieth of a large disk is days of room.
const PLENTY: u64 = 8 << 30;
/// Files that say that the machine's clock is kept by the network's time, where a service of this name keeps it.
const SYNCHRONIZED: [&str; 2] = ["/run/systemd/timesync/synchronized", "/run/chrony/chronyd.pid"];

/// The machine's clock beside the database's, which decisions follow.
pub(super) async fn clock(db: &Db) -> Check {
    let local = SystemClock::new();
    let before = local.now();
    match db.now().await {
        Ok(database) => {
            let after = local.now();
            // The database was asked somewhere between the two.
            judge(database - (before + (after - before) / 2), after - before, synchronized())
        }
        Err(error) => check("clock", false, format!("the database's cannot be read: {error}")),
    }
}

fn judge(offset: TimeDelta, took: TimeDelta, synchronized: bool) -> Check {
    let kept = if synchronized { "kept by the network's time" } else { "no time service is seen here" };
    let found = format!(
        "the database is {} ms {} this machine (measured to {} ms); {kept}",
        offset.num_milliseconds().abs(),
        if offset < TimeDelta::zero() { "behind" } else { "ahead of" },
        took.num_milliseconds() / 2 + 1,
    );
    let (sure, advice) = (offset.abs() - took, "set up NTP on both machines");
    match sure {
        sure if sure > SKEW => {
            check("clock", false, format!("{found}: past 5 s nothing is served, {advice}"))
        }
        sure if sure > NOTABLE => check("clock", true, format!("{found}: {advice}")),
        _ => check("clock", true, found),
    }
}

fn synchronized() -> bool {
    SYNCHRONIZED.iter().any(|file| Path::new(file).exists())
}

/// The room where the data folder is, which is where an embedded PostgreSQL writes, too.
pub(super) fn disk(data_dir: &Path) -> Check {
    let Some(folder) = existing(data_dir) else {
        return check("disk", false, format!("{} leads nowhere", data_dir.display()));
    };
    match statvfs(&folder) {
        Ok(room) => {
            let block = room.fragment_size();
            enough(&folder, room.blocks_available() * block, room.blocks() * block)
        }
        Err(error) => check("disk", false, format!("{} cannot be looked at: {error}", folder.display())),
    }
}

fn enough(folder: &Path, free: u64, all: u64) -> Check {
    let percent = free.saturating_mul(100) / all.max(1);
    let found = format!("{} MiB free ({percent} %) at {}", free >> 20, folder.display());
    if free >= PLENTY || free >= ROOM && percent >= PERCENT {
        return check("disk", true, found);
    }
    check("disk", false, format!("{found}: make room, or shorten `retention.*`"))
}

/// The folder, or the nearest one above it that is there already.
fn existing(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.is_dir()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_fails_past_five_seconds_and_is_remarked_past_one() {
        let judged = |milliseconds| {
            let check = judge(TimeDelta::milliseconds(milliseconds), TimeDelta::milliseconds(2), false);
            (check.ok, check.found.contains("NTP"))
        };
        assert_eq!(
            [judged(3), judged(-900), judged(-1_500), judged(6_000)],
            [(true, false), (true, false), (true, true), (false, true)]
        );
        // What the round trip alone may explain is no complaint.
        assert!(judge(TimeDelta::seconds(6), TimeDelta::seconds(2), true).ok);
    }

    #[test]
    fn a_disk_fails_without_a_gibibyte_or_a_twentieth_of_it_unless_there_is_plenty() {
        let here = Path::new("/data");
        assert!(enough(here, 2 << 30, 20 << 30).ok);
        assert!(!enough(here, 512 << 20, 2 << 30).ok);
        assert!(!enough(here, 2 << 30, 100 << 30).ok);
        assert!(enough(here, 10 << 30, 1_000 << 30).ok);
        assert!(enough(here, 0, 0).found.contains("retention"), "a disk of nothing divides by nothing");
        assert!(disk(Path::new("/proc/self/nothing/there")).found.contains("/proc/self"));
    }
}
