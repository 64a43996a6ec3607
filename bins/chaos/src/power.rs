//! The power goes, and comes again.

use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::{disk::Disk, machine, stand::Stand};

/// How long answers that were on their way may take to arrive.
const ON_THE_WAY: Duration = Duration::from_millis(300);

/// Stops what runs and the disk under it, and starts the control plane on what had reached the disk. Gives what `told` says
/// at the moment when no answer comes any more.
pub(crate) async fn cut<T>(
    stand: &mut Stand,
    disk: &mut Disk,
    told: impl FnOnce() -> T,
) -> anyhow::Result<T> {
    let postmaster = stand.postmaster().context("PostgreSQL does not run")?;
    let control_plane = stand.control_plane.pid().context("the control plane does not run")?;
    // All of them stand still, so nothing is acknowledged from here on.
    let mut processes = vec![control_plane];
    processes.extend(stand.nats());
    processes.push(postmaster);
    processes.extend(machine::children(postmaster));
    for pid in &processes {
        machine::send(*pid, Signal::SIGSTOP);
    }
    disk.cut()?;
    // Answers that were sent before are acknowledgements too.
    sleep(ON_THE_WAY).await;
    let told = told();
    for pid in processes.iter().filter(|pid| **pid != control_plane) {
        machine::send(*pid, Signal::SIGKILL);
    }
    stand.control_plane.kill().await;
    while processes.iter().any(|pid| machine::lives(*pid)) {
        sleep(Duration::from_millis(10)).await;
    }
    disk.replace()?;
    stand.control_plane.start()?;
    Ok(told)
}
