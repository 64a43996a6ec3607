//! The end of a session: its program ended or is told to, everything it started goes with it, and the exit is kept.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
};
use tidegate_model::{Clock, SystemClock};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{files, output::Output};
use crate::{
    platform::Exit,
    shims::tree::{descendants, forbid_forks, kill_cgroups, remaining, signal_all},
};

/// How long what the program left behind may take to end by itself.
const LEFTOVERS: Duration = Duration::from_millis(500);
/// How long what is killed may take to be gone.
const KILLED: Duration = Duration::from_secs(10);
/// How long the terminal may stay open once every process is gone (somebody else may hold it).
const DRAIN: Duration = Duration::from_secs(5);

/// The session's processes, reaped by a thread of its own.
pub(super) struct Children {
    ended: oneshot::Receiver<(i32, Option<String>)>,
}

impl Children {
    /// Reaps everything that ends below this process; `main` is the one whose exit counts.
    pub(super) fn reap(main: u32) -> Self {
        let (told, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let mut told = Some(told);
            loop {
                let (pid, exit) = match waitpid(None, None) {
                    Ok(WaitStatus::Exited(pid, code)) => (pid, (code, None)),
                    Ok(WaitStatus::Signaled(pid, signal, _)) => {
                        (pid, (128 + signal as i32, Some(signal.as_str().to_owned())))
                    }
                    Ok(_) | Err(Errno::EINTR) => continue,
                    // Nothing is left below, so nothing can come any more.
                    Err(_) => break,
                };
                if u32::try_from(pid.as_raw()) == Ok(main)
                    && let Some(told) = told.take()
                {
                    let _ = told.send(exit);
                }
            }
        });
        Self { ended }
    }
}

/// Waits until the program ended, by itself or by a stop with its grace, and until nothing of it is left.
pub(super) async fn wait(
    mut children: Children,
    mut stop: mpsc::Receiver<Duration>,
    output: &Output,
    cgroups: &[PathBuf],
) -> (i32, Option<String>) {
    let lost = (255, None);
    let exit = tokio::select! {
        exit = &mut children.ended => exit.unwrap_or(lost),
        Some(grace) = stop.recv() => {
            output.hurry();
            ask_all();
            if let Ok(exit) = timeout(grace, &mut children.ended).await {
                exit.unwrap_or(lost)
            } else {
                kill_all(cgroups).await;
                // One that the kernel does not let go of is not waited for: the session has ended for everybody else.
                let ended = timeout(KILLED, &mut children.ended).await;
                ended.map_or((137, Some("SIGKILL".into())), |exit| exit.unwrap_or(lost))
            }
        }
    };
    if !descendants(own_pid()).is_empty() {
        ask_all();
        let _ = timeout(LEFTOVERS, gone()).await;
        kill_all(cgroups).await;
    }
    exit
}

/// Keeps how it ended and the last of its output, then tells the viewers.
pub(super) async fn settle(
    (folder, generation): (&Path, i64),
    (code, signal): (i32, Option<String>),
    drained: oneshot::Receiver<()>,
    output: &Output,
) -> Exit {
    let mut drained = drained;
    if timeout(DRAIN, &mut drained).await.is_err() {
        // A viewer that stopped reading holds the last bytes back: it loses its place, not the session its end.
        output.hurry();
        let _ = timeout(DRAIN, &mut drained).await;
    }
    let exit = Exit { code, signal, output_start: 0, at: SystemClock::new().now() };
    let (kept, exit) = output.finish(exit);
    if let Err(error) = files::write(folder, generation, &exit, &kept) {
        eprintln!("{}", error.chain());
    }
    exit
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn ask_all() {
    let all = descendants(own_pid());
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
        signal_all(&all, signal);
    }
}

/// Kills until nothing is left: what forked before it was forbidden to is found by the next look.
async fn kill_all(cgroups: &[PathBuf]) {
    forbid_forks(cgroups.iter().filter_map(|procs| procs.parent()));
    let until = Instant::now() + KILLED;
    loop {
        let all = descendants(own_pid());
        if all.is_empty() {
            return;
        }
        if Instant::now() > until {
            eprintln!("{}", remaining(&all));
            return;
        }
        kill_cgroups(cgroups.iter().filter_map(|procs| procs.parent()));
        signal_all(&all, Signal::SIGKILL);
        sleep(Duration::from_millis(5)).await;
    }
}

async fn gone() {
    while !descendants(own_pid()).is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
}
