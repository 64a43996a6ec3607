//! A Docker engine of the run's own: on a socket, with images, state and pid file in the run's folder, and no bridge but that
//! of the sessions' network. It knows one image, made of busybox: nothing is fetched. What it leaves is looked for by hand
//! at the end, because an engine that is killed tidies nothing up.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command as Blocking,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{machine, program::Program};

/// The sessions' network, as the agent calls it.
const NETWORK: &str = "tidegate-sessions";
/// The only image.
pub(crate) const IMAGE: &str = "tidegate-chaos:1";
/// Addresses of its networks: others of this machine have those that engines take by default.
const NETWORKS: &str = "10.199.0.0/16";
const BUSYBOX: &str = "/bin/busybox";
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
/// How long it may take to answer when nothing disturbs it.
const CALM: Duration = Duration::from_mins(1);

/// A container, as the engine lists it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Container {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(rename = "State")]
    pub(crate) state: String,
    #[serde(rename = "Labels")]
    labels: String,
}

impl Container {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .split(',')
            .find_map(|label| label.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    /// The session it is of, where it is one's.
    pub(crate) fn session(&self) -> Option<&str> {
        self.label("dev.tidegate.session")
    }

    /// The start that made it.
    pub(crate) fn generation(&self) -> Option<i64> {
        self.label("dev.tidegate.generation")?.parse().ok()
    }
}

/// A home that is one session's alone.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Volume {
    #[serde(rename = "Name")]
    pub(crate) name: String,
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) program: Program,
    /// Processes of its own that it left when it ended: of containers that it did not live to start. No program of a
    /// session is among them, or it is found as such.
    pub(crate) litter: usize,
    /// Places in the sessions' network that it did not give back for the same reason.
    pub(crate) litter_in_network: usize,
    folder: PathBuf,
}

/// Why this machine cannot have one; `None` when it can.
pub(crate) fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("a Docker engine needs root: run it with sudo".to_owned());
    }
    for (name, package) in [("dockerd", "docker.io"), ("docker", "docker.io"), ("tar", "tar")] {
        if installed(name).is_none() {
            return Some(format!("{name} is not installed: apt-get install {package}"));
        }
    }
    (!Path::new(BUSYBOX).exists())
        .then(|| format!("{BUSYBOX} is not installed: apt-get install busybox-static"))
}

fn installed(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|program| program.is_file())
}

impl Engine {
    /// Prepares one below `root`; nothing is started yet.
    pub(crate) fn new(root: &Path, logs: &Path) -> anyhow::Result<Self> {
        let folder = root.join("engine");
        fs::create_dir(&folder)?;
        let program = installed("dockerd").context("dockerd is not installed")?;
        let path = |name: &str| folder.join(name).display().to_string();
        let arguments = [
            ("--host", format!("unix://{}", path("docker.sock"))),
            ("--data-root", path("data")),
            ("--exec-root", path("exec")),
            ("--pidfile", path("pid")),
            ("--bridge", "none".to_owned()),
            ("--default-address-pool", format!("base={NETWORKS},size=24")),
        ];
        let arguments = arguments.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        // Containers go on without it, as on every machine where an engine may be upgraded.
        let arguments = arguments.chain(["--live-restore".to_owned()]).collect();
        let bin_dir = program.parent().context("dockerd has no folder")?;
        let program = Program::new("dockerd", "dockerd", bin_dir, arguments, logs);
        Ok(Self { program, litter: 0, litter_in_network: 0, folder })
    }

    /// Starts it and makes the image.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        self.program.start()?;
        self.answers().await?;
        let image = self.folder.join("image");
        make_image(&image).context("the image's files")?;
        let import = r#"tar -C "$0" -c . | docker --host "$1" import - "$2""#;
        let made = Command::new("sh")
            .args(["-c", import])
            .arg(&image)
            .args([self.host(), IMAGE.to_owned()])
            .kill_on_drop(true)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "the image was not made: {}", said.trim());
        Ok(())
    }

    /// `kill -9`. Its containerd dies with it, and must be gone before another engine looks for it: one that finds the
    /// number of a process that is only just dying waits for it in vain.
    pub(crate) async fn kill(&mut self) {
        self.program.kill().await;
        let file = self.folder.join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        let deadline = Instant::now() + Duration::from_secs(5);
        while pid.is_some_and(machine::lives) && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        let _ = fs::remove_file(file);
    }

    /// Waits until it answers.
    async fn answers(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + CALM;
        while self.ask(&["version"]).await.is_err() {
            self.program.look();
            if let Some(ended) = self.program.ended_by_itself.first() {
                anyhow::bail!("{ended}: what it said is in its log");
            }
            ensure!(Instant::now() < deadline, "the engine did not answer within {} s", CALM.as_secs());
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    async fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let done = Command::new("docker")
            .args(["--host", &self.host()])
            .args(words)
            .kill_on_drop(true)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "docker {}: {}", words.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Every container.
    pub(crate) async fn containers(&self) -> anyhow::Result<Vec<Container>> {
        let listed = self.ask(&["ps", "--all", "--no-trunc", "--format", "{{json .}}"]).await?;
        listed.lines().map(|line| serde_json::from_str(line).context("docker's list of containers")).collect()
    }

    /// Every home that is one session's alone, by its name: labels may have died with an engine.
    pub(crate) async fn own_homes(&self) -> anyhow::Result<Vec<Volume>> {
        let words = ["volume", "ls", "--filter", "name=-session-", "--format", "{{json .}}"];
        let listed = self.ask(&words).await?;
        listed.lines().map(|line| serde_json::from_str(line).context("docker's list of volumes")).collect()
    }

    /// Where the homes are.
    pub(crate) fn homes(&self) -> PathBuf {
        self.folder.join("data/volumes")
    }

    /// Asks it to end, and says what went wrong.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        // Its bridge would stay on the machine.
        problems.extend(self.remove_network().await.err().map(|error| format!("{error:#}")));
        problems.extend(self.program.stop(CALM).await.err().map(|error| format!("{error:#}")));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !machine::naming(&self.folder).is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(100)).await;
        }
        self.litter = machine::naming(&self.folder).len();
        problems
    }
}

impl Engine {
    /// Removes the sessions' network. No container is left by now; what an engine that was killed in the middle of a start
    /// or an end believes to be in it is its own, and taken out first. One that counted wrong counts anew when it starts.
    async fn remove_network(&mut self) -> anyhow::Result<()> {
        let names = "{{range .Containers}}{{.Name}}\n{{end}}";
        let listed = self.ask(&["network", "inspect", "--format", names, NETWORK]).await?;
        for name in listed.lines().filter(|name| !name.is_empty()) {
            self.ask(&["network", "disconnect", "--force", NETWORK, name]).await?;
            self.litter_in_network += 1;
        }
        let removed = self.ask(&["network", "rm", NETWORK]).await;
        if !removed.as_ref().is_err_and(|error| error.to_string().contains("active endpoints")) {
            return removed.map(drop);
        }
        self.litter_in_network += 1;
        self.program.stop(CALM).await?;
        self.program.start()?;
        self.answers().await?;
        self.ask(&["network", "rm", NETWORK]).await.map(drop)
    }
}

impl Drop for Engine {
    /// Whatever happened: no container, no process and no mount of it stays behind.
    fn drop(&mut self) {
        if self.program.is_running() {
            let rid = r#"docker --host "$0" ps -aq | xargs -r docker --host "$0" rm -fv; docker --host "$0" network rm tidegate-sessions"#;
            let _ = Blocking::new("timeout").args(["30", "sh", "-c", rid, &self.host()]).output();
        }
        if let Some(pid) = self.program.pid() {
            machine::send(pid, Signal::SIGKILL);
        }
        // The shims of containers stand on their own, and their containers go with them.
        for pid in machine::naming(&self.folder) {
            for child in machine::children(pid) {
                machine::send(child, Signal::SIGKILL);
            }
            machine::send(pid, Signal::SIGKILL);
        }
        // Nobody else of this machine has these addresses.
        let bridges = Blocking::new("ip").args(["-oneline", "address", "show", "to", NETWORKS]).output();
        let bridges = bridges.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned());
        let bridges = bridges.unwrap_or_default();
        let names = bridges.lines().filter_map(|line| line.split_whitespace().nth(1));
        for name in names.filter(|name| name.starts_with("tdg-")) {
            let _ = Blocking::new("ip").args(["link", "del", name]).output();
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in below.filter(|mount| Path::new(mount).starts_with(&self.folder)) {
            let _ = Blocking::new("umount").args(["--lazy", mount]).output();
        }
    }
}

/// Busybox and its names.
fn make_image(folder: &Path) -> anyhow::Result<()> {
    for part in ["bin", "tmp", "etc"] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(BUSYBOX, folder.join("bin/busybox"))?;
    let listed = Blocking::new(BUSYBOX).arg("--list").output()?;
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", folder.join("bin").join(name))?;
    }
    Ok(())
}
