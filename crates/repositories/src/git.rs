//! Git repositories by the `git` program: a bare mirror of one commit, out of which files are read. Nothing is ever checked
//! out, so that no hook, filter, submodule or link of a repository's does anything (`docs/decisions/0021`).

mod blobs;
mod failure;
mod tree;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::memfd;
use tempfile::NamedTempFile;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};
use url::Url;

pub(crate) use blobs::Blobs;

use crate::{
    Branch, Credential, Error, Options, Remote, SshRemote, Step,
    cache::{Cache, private_folder, remove_folder, weigh},
    egress::Guard,
    fetch::Tell,
    program::{self, Ended, Running},
    snapshot::Listing,
};

const INSTALL_GIT: &str = "install it, for example with `apt-get install git`";
const INSTALL_SSH: &str = "install it, for example with `apt-get install openssh-client`";
/// Where the commit that was fetched stands.
const TIP: &str = "refs/tidegate/tip";
/// Packs of a mirror at most: one more comes with each change, and beyond this it is fetched anew.
const PACKS: usize = 40;
/// How often a fetch's weight is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Fetches one repository.
pub(crate) struct Git<'a> {
    pub(crate) options: &'a Options,
    pub(crate) guard: &'a Guard,
    pub(crate) cache: &'a Cache,
    pub(crate) credential: &'a Credential,
    pub(crate) until: Instant,
    program: PathBuf,
}

/// What a fetch brought: the commit, its files, and what reads them.
pub(crate) struct Fetched {
    pub(crate) commit: String,
    pub(crate) listing: Listing,
    pub(crate) blobs: Blobs,
}

impl<'a> Git<'a> {
    pub(crate) fn new(
        options: &'a Options,
        guard: &'a Guard,
        cache: &'a Cache,
        credential: &'a Credential,
        until: Instant,
    ) -> Result<Self, Error> {
        let program = program::find("git", INSTALL_GIT, options.git.as_deref())?;
        Ok(Self { options, guard, cache, credential, until, program })
    }

    /// Fetches the newest commit and lists its files.
    pub(crate) async fn fetch(
        &self,
        remote: &Remote,
        branch: Option<&Branch>,
        tell: &Tell,
    ) -> Result<Fetched, Error> {
        self.prepare().await?;
        self.fetch_into_mirror(remote, branch, tell).await?;
        let fetched = self.read_mirror(tell).await;
        if let Err(Error::Refused(_) | Error::Cache(_)) = &fetched {
            // Whatever is wrong with what lies there, the next sync begins with nothing.
            remove_folder(&self.mirror())?;
        }
        fetched
    }

    fn mirror(&self) -> PathBuf {
        self.cache.path("mirror.git")
    }

    /// Makes the mirror, or sets right what a killed sync left in it: nobody else works in it while we hold the folder.
    async fn prepare(&self) -> Result<(), Error> {
        let mirror = self.mirror();
        private_folder(&self.cache.path("home"))?;
        self.cache.write("gitconfig", b"[safe]\n\tdirectory = *\n")?;
        let packs = mirror.join("objects/pack");
        let kept = std::fs::read_dir(&packs).into_iter().flatten().flatten().count();
        if kept > 3 * PACKS || weigh(&mirror) > self.options.bytes() || !is_whole(&mirror) {
            remove_folder(&mirror)?;
        }
        if mirror.is_dir() {
            for lock in
                ["shallow.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "refs/tidegate/tip.lock"]
            {
                // Mostly none is there.
                let _ = std::fs::remove_file(mirror.join(lock));
            }
            return Ok(());
        }
        let mut command = self.command();
        command
            .args(["init", "--quiet", "--bare", "--template=", "--initial-branch=none", "--"])
            .arg(&mirror);
        let ended = self.run(&mut command, 0).await?;
        if !ended.success {
            return Err(Error::refused(format!("git made no mirror: {}", failure::said(&ended.stderr, &[]))));
        }
        std::fs::write(mirror.join("whole"), b"")?;
        Ok(())
    }

    async fn fetch_into_mirror(
        &self,
        remote: &Remote,
        branch: Option<&Branch>,
        tell: &Tell,
    ) -> Result<(), Error> {
        let mut command = self.command();
        let settings = self.reach(remote, &mut command).await?;
        with_settings(&mut command, &settings.0);
        // A branch or a tag: git looks for the one and then the other.
        let source = branch.map_or("HEAD", Branch::as_str);
        command
            .env("GIT_ALLOW_PROTOCOL", remote.protocol())
            .arg("--git-dir")
            .arg(self.mirror())
            .args(["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--force"])
            .args(["--no-auto-maintenance", "--no-write-fetch-head", "--no-show-forced-updates", "--"])
            .arg(remote.argument(self.options)?)
            .arg(format!("+{source}:{TIP}"));
        let before = weigh(&self.mirror());
        let running = Running::start(&mut command)?;
        let ended = tokio::select! {
            ended = running.finish(0, self.until, self.options.time()) => ended?,
            error = self.watch(before, tell) => return Err(error),
        };
        if ended.success {
            return Ok(());
        }
        let whole = weigh(&self.mirror()).saturating_sub(before) >= self.options.bytes();
        if whole || ended.stderr.contains("File too large") {
            return Err(self.too_large());
        }
        let failure = failure::explain(&ended.stderr, branch, &self.credential.secrets());
        if !failure.is_known {
            // It may be the mirror that is not as it should be.
            remove_folder(&self.mirror())?;
        }
        Err(failure.error)
    }

    /// Ends when more was fetched than may be.
    async fn watch(&self, before: u64, tell: &Tell) -> Error {
        loop {
            sleep(LOOK).await;
            let bytes = weigh(&self.mirror()).saturating_sub(before);
            if bytes > self.options.bytes() {
                return self.too_large();
            }
            tell(Step::Fetching { bytes });
        }
    }

    fn too_large(&self) -> Error {
        let most = self.options.max_mebibytes;
        Error::refused(format!("it has more than the {most} MiB that are fetched of one repository"))
    }

    async fn read_mirror(&self, tell: &Tell) -> Result<Fetched, Error> {
        let mut command = self.inside();
        command.args(["rev-parse", "--verify", "--end-of-options", &format!("{TIP}^{{commit}}")]);
        let ended = self.run(&mut command, 256).await?;
        let commit = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        if !ended.success || commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::refused("what was fetched is no commit"));
        }
        let mut command = self.inside();
        command.args(["ls-tree", "-r", "-z", "-l", "--full-tree", &commit]);
        let listing = tree::list(&mut command, self.options, self.until, tell).await?;
        let mut command = self.inside();
        command.args(["cat-file", "--batch"]).stdin(std::process::Stdio::piped());
        let blobs = Blobs::start(&mut command, self.until, self.options.time())?;
        Ok(Fetched { commit, listing, blobs })
    }

    /// A command that reads the mirror and dials nobody.
    fn inside(&self) -> Command {
        let mut command = self.command();
        with_settings(&mut command, &base_settings());
        command.env("GIT_ALLOW_PROTOCOL", "none").arg("--git-dir").arg(self.mirror());
        command
    }

    /// Git with none of anybody's configuration, terminal, agents or helpers.
    fn command(&self) -> Command {
        let mut command = program::limited(&self.program, self.options.bytes());
        command
            .current_dir(self.cache.folder())
            .env("HOME", self.cache.path("home"))
            .env("XDG_CONFIG_HOME", self.cache.path("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.cache.path("gitconfig"))
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS", "/bin/false")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_FLUSH", "1");
        command
    }

    async fn run(&self, command: &mut Command, most: u64) -> Result<Ended, Error> {
        Running::start(command)?.finish(most, self.until, self.options.time()).await
    }

    /// The settings that reach a remote: where its name leads, checked, and what it is asked with. What is returned
    /// beside them has to live as long as the program runs.
    async fn reach(&self, remote: &Remote, command: &mut Command) -> Result<(Settings, Option<Held>), Error> {
        let mut settings = base_settings();
        let mut held = None;
        match remote {
            Remote::Http(url) => settings.extend(self.reach_http(url).await?),
            Remote::Ssh(ssh) => {
                let (line, kept) = self.reach_ssh(ssh).await?;
                command.env("GIT_SSH_COMMAND", line).env("GIT_SSH_VARIANT", "ssh");
                held = Some(kept);
            }
            Remote::Local(_) => {}
        }
        Ok((settings, held))
    }

    async fn reach_http(&self, url: &Url) -> Result<Settings, Error> {
        let (host, port, addresses) = crate::http::dialled(self.guard, url).await?;
        let mut settings = Vec::new();
        if let url::Host::Domain(name) = &host {
            // It dials what was checked, whatever the name stands for a moment later.
            let listed: Vec<String> = addresses.iter().map(bracketed).collect();
            settings.push(("http.curloptResolve".into(), format!("{name}:{port}:{}", listed.join(","))));
        }
        if let Some(authorization) = self.credential.for_git() {
            let header = format!("Authorization: {}", authorization.expose());
            settings.push((format!("http.{url}.extraHeader"), header));
        }
        Ok(settings)
    }

    async fn reach_ssh(&self, ssh: &SshRemote) -> Result<(String, Held), Error> {
        let Credential::Ssh { private_key, known_hosts } = self.credential else {
            return Err(Error::refused("it is reached by ssh, which needs a private key"));
        };
        let program = program::find("ssh", INSTALL_SSH, self.options.ssh.as_deref())?;
        let addresses =
            self.guard.resolve(&ssh.host, ssh.port).await.map_err(|it| Error::refused(it.to_string()))?;
        let address = addresses.first().ok_or_else(|| Error::refused("the name stands for no address"))?;
        let key = memory_file(private_key.expose().trim_end())?;
        let (hosts, strict, listed) = match (known_hosts, &self.options.known_hosts) {
            (Some(text), _) => {
                let mut file = NamedTempFile::new_in(self.cache.folder())?;
                std::io::Write::write_all(&mut file, format!("{}\n", text.trim_end()).as_bytes())?;
                (file.path().to_owned(), "yes", Some(file))
            }
            (None, Some(path)) => (path.clone(), "yes", None),
            (None, None) => (self.cache.path("known_hosts"), "accept-new", None),
        };
        let line = ssh_line(&SshLine {
            program: &program,
            remote: ssh,
            address: *address,
            key: &key.path,
            hosts: &hosts,
            strict,
        });
        Ok((line, Held { _key: key, _hosts: listed }))
    }
}

/// Whether a mirror was made to its end, and what git needs of it is still there.
fn is_whole(mirror: &Path) -> bool {
    ["objects", "refs"].iter().all(|name| mirror.join(name).is_dir())
        && ["whole", "HEAD", "config"].iter().all(|name| mirror.join(name).is_file())
}

type Settings = Vec<(String, String)>;

/// What ssh reads while it runs.
struct Held {
    _key: MemoryFile,
    _hosts: Option<NamedTempFile>,
}

/// A file that no folder holds and that is gone with us, however we end.
struct MemoryFile {
    _open: std::fs::File,
    path: PathBuf,
}

fn memory_file(content: &str) -> Result<MemoryFile, Error> {
    let fd = memfd::memfd_create(c"key", memfd::MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from)?;
    let mut open = std::fs::File::from(fd);
    std::io::Write::write_all(&mut open, format!("{content}\n").as_bytes())?;
    std::fs::File::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&open);
    let path = PathBuf::from(format!("/proc/{}/fd/{number}", std::process::id()));
    Ok(MemoryFile { _open: open, path })
}

struct SshLine<'a> {
    program: &'a Path,
    remote: &'a SshRemote,
    address: SocketAddr,
    key: &'a Path,
    hosts: &'a Path,
    strict: &'a str,
}

/// The command that git runs, through a shell, with the host and the far end's command after it.
fn ssh_line(line: &SshLine<'_>) -> String {
    let alias = match line.remote.port {
        22 => line.remote.host.to_string(),
        port => format!("[{}]:{port}", line.remote.host.to_string().trim_matches(['[', ']'])),
    };
    let options = [
        format!("HostName={}", line.address.ip()),
        format!("HostKeyAlias={alias}"),
        format!("IdentityFile=\"{}\"", line.key.display()),
        format!("UserKnownHostsFile=\"{}\"", line.hosts.display()),
        format!("StrictHostKeyChecking={}", line.strict),
    ];
    let fixed = [
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "BatchMode=yes",
        "PreferredAuthentications=publickey",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
        "UpdateHostKeys=no",
        "CanonicalizeHostname=no",
        "ProxyCommand=none",
        "ControlMaster=no",
        "ControlPath=none",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        "PermitLocalCommand=no",
        "RequestTTY=no",
    ];
    let mut text = format!("{} -F none", quoted(&line.program.display().to_string()));
    for option in options.iter().map(String::as_str).chain(fixed) {
        text.push_str(" -o ");
        text.push_str(&quoted(option));
    }
    text
}

/// One word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn bracketed(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// What holds for every command: nothing is run, followed or kept that was not asked for.
fn base_settings() -> Settings {
    [
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("core.bigFileThreshold", "1m"),
        ("core.packedGitWindowSize", "16m"),
        ("core.packedGitLimit", "256m"),
        ("core.deltaBaseCacheLimit", "32m"),
        ("credential.helper", ""),
        ("fetch.unpackLimit", "1"),
        ("fetch.recurseSubmodules", "false"),
        ("fetch.writeCommitGraph", "false"),
        ("gc.auto", "0"),
        ("http.followRedirects", "false"),
        ("http.proxy", ""),
        ("http.lowSpeedLimit", "100"),
        ("http.lowSpeedTime", "30"),
        ("maintenance.auto", "false"),
        ("pack.threads", "1"),
        ("protocol.version", "2"),
        ("submodule.recurse", "false"),
        ("transfer.bundleURI", "false"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Settings by the environment: arguments are everybody's to read, this is the user's own.
fn with_settings(command: &mut Command, settings: &Settings) {
    command.env("GIT_CONFIG_COUNT", settings.len().to_string());
    for (index, (name, value)) in settings.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{index}"), name).env(format!("GIT_CONFIG_VALUE_{index}"), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_dials_the_checked_address_with_the_one_key_and_nothing_of_the_machines() {
        let options = Options::default();
        let Ok(Remote::Ssh(remote)) = Remote::git("ssh://me@git.example.org:2222/a/b.git", &options) else {
            panic!("no ssh");
        };
        let line = ssh_line(&SshLine {
            program: Path::new("/usr/bin/ssh"),
            remote: &remote,
            address: "192.0.2.7:2222".parse().unwrap(),
            key: Path::new("/proc/1/fd/9"),
            hosts: Path::new("/var/it's/known_hosts"),
            strict: "yes",
        });
        assert!(line.starts_with("'/usr/bin/ssh' -F none -o 'HostName=192.0.2.7' "), "{line}");
        for part in [
            "-o 'HostKeyAlias=[git.example.org]:2222'",
            "-o 'IdentityFile=\"/proc/1/fd/9\"'",
            r#"-o 'UserKnownHostsFile="/var/it'\''s/known_hosts"'"#,
            "-o 'StrictHostKeyChecking=yes'",
            "-o 'IdentityAgent=none'",
            "-o 'ProxyCommand=none'",
            "-o 'BatchMode=yes'",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn a_key_in_memory_is_read_by_its_owner_alone() {
        let file = memory_file("KEY").unwrap();
        assert_eq!(std::fs::read_to_string(&file.path).unwrap(), "KEY\n");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file.path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
