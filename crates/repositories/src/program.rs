//! Running a program of others' for a bounded time: in a process group of its own that ends with this, with limits on
//! what it may write and map, and none of our environment.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::{Instant, timeout_at},
};

use crate::Error;

/// Folders that programs are looked for in.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/opt/homebrew/bin"];
/// What a program says of its failure, at most.
const SAID: u64 = 64 * 1024;
/// Address space of one program, in KiB: a bomb of deltas ends there.
const MEMORY_KIB: u64 = 3 * 1024 * 1024;

/// The path of a program, or one clear error.
pub(crate) fn find(
    program: &'static str,
    install: &'static str,
    set: Option<&Path>,
) -> Result<PathBuf, Error> {
    let missing = || Error::Missing { program, install };
    match set {
        Some(path) => path.is_file().then(|| path.to_owned()).ok_or_else(missing),
        None => {
            FOLDERS.iter().map(|f| Path::new(f).join(program)).find(|it| it.is_file()).ok_or_else(missing)
        }
    }
}

/// A program that runs in a process group of its own. Dropped, the whole group is killed.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    group: Option<Pid>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// A command under limits: at most `bytes` in one file.
pub(crate) fn limited(program: &Path, bytes: u64) -> Command {
    let mut command = Command::new("/bin/sh");
    let limits = format!("ulimit -c 0; ulimit -f {}; ulimit -v {MEMORY_KIB}; exec \"$@\"", bytes / 512 + 1);
    command
        .args([OsStr::new("-c"), OsStr::new(&limits), OsStr::new("limited"), program.as_os_str()])
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
        let child = command.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self { child, group })
    }

    /// Waits for the end, with whatever it says on standard output up to `most` bytes.
    pub(crate) async fn finish(mut self, most: u64, until: Instant, time: Duration) -> Result<Ended, Error> {
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        let whole = async {
            let (stdout, stderr, status) = tokio::join!(read(out, most), read(err, SAID), self.child.wait());
            Ok::<_, Error>((stdout?, stderr?, status?))
        };
        let (stdout, stderr, status) =
            timeout_at(until, whole).await.map_err(|_| Error::TooSlow(time.as_secs()))??;
        // Ended by itself: its number may be another's already.
        self.group = None;
        Ok(Ended { success: status.success(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group
            && !matches!(self.child.try_wait(), Ok(Some(_)))
        {
            // It may have gone meanwhile: nothing is left to kill then.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Reads to the end and keeps `most` bytes: a pipe that nobody reads would stop the program.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(most).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}
