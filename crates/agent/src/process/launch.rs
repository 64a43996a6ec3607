//! Starting a session: user, home, limits, environment, and the shim that holds it all.

use std::{collections::BTreeMap, fs::File, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{
    Inner, START, hold,
    tree::{MARK, MARK_AGENT, MARK_GENERATION},
};
use crate::{
    Error, Program, SessionSpec,
    exec::ExecSpec,
    files::make_dir,
    platform::SessionKey,
    shim::{READY, ShimSpec},
};

/// How often a hold is tried for, every 10 ms.
const GIVEN_BACK: u32 = 100;
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

impl Inner {
    /// Starts a session that does not run.
    pub(super) async fn launch(&self, spec: &SessionSpec) -> Result<(), Error> {
        let folder = self.folder(&spec.key);
        make_dir(&folder, 0o700)?;
        let uid = self.users.uid_for(spec)?;
        let home = self.users.home_for(spec, uid)?;
        let limits = self.limits.prepare(&spec.key, spec.cpu_millis, spec.memory_bytes)?;
        let shell = shell();
        let (argv, login, hold) = match &spec.program {
            Program::Shell => (vec![shell.clone()], true, Duration::ZERO),
            Program::Command(argv) => (argv.clone(), false, self.options.first_reader),
        };
        let shim = ShimSpec {
            key: spec.key.clone(),
            socket: self.socket(&spec.key)?,
            folder,
            program: self.options.program.clone(),
            environment: environment(spec, &self.name, &home, &shell),
            exec: ExecSpec { uid, home, cgroups: limits.cgroups, rlimits: limits.rlimits, argv, login },
            hold_ms: u64::try_from(hold.as_millis()).unwrap_or(u64::MAX),
        };
        self.spawn(&shim).await
    }

    /// Takes the hold on a start. A shim that has just been killed gives it back a moment after it is gone.
    async fn take_hold(&self, key: &SessionKey) -> Result<File, Error> {
        for _ in 0..GIVEN_BACK {
            if let Some(log) = hold::take(&self.hold(key))? {
                return Ok(log);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Err(Error::Refused("another shim holds the session".into()))
    }

    async fn spawn(&self, spec: &ShimSpec) -> Result<(), Error> {
        let log = self.take_hold(&spec.key).await?;
        log.set_len(0).map_err(Error::file("empty", spec.folder.clone()))?;
        let mut child = Command::new(&self.options.program)
            .arg("session-shim")
            // The agent's own environment may hold its keys: nothing of it goes on.
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its log, and its hold on the session: from here on it is the shim's alone.
            .stderr(log)
            .spawn()
            .map_err(Error::system("start the session's shim"))?;
        let said = timeout(START, hand_over(&mut child, spec)).await;
        let answer = match said {
            Ok(Ok(line)) if line.trim() == READY => Ok(()),
            Ok(Ok(line)) if line.trim().is_empty() => {
                Err(Error::Refused("the session's shim ended at once".into()))
            }
            Ok(Ok(line)) => Err(Error::Refused(line.trim().to_owned())),
            Ok(Err(error)) => Err(Error::system("speak to the session's shim")(error)),
            Err(_) => Err(Error::Refused("the session's shim did not start in time".into())),
        };
        if answer.is_err() {
            let _ = child.start_kill();
        }
        // tokio reaps a dropped child when it ends; it is never killed with the agent.
        drop(child);
        if answer.is_err() {
            self.kill_strays(&spec.key).await;
        }
        answer
    }
}

async fn hand_over(child: &mut Child, spec: &ShimSpec) -> std::io::Result<String> {
    let text = serde_json::to_vec(spec)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).await?;
    }
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).await?;
    }
    Ok(line)
}

/// The login shell: sessions' users have no line in the machine's list, so it is the one that is there.
fn shell() -> String {
    let shells = ["/bin/bash", "/usr/bin/bash", "/bin/sh"];
    shells.iter().find(|path| Path::new(path).exists()).map_or("/bin/sh", |path| path).to_owned()
}

/// What the program sees. What the owner asked for may change everything but the marks.
fn environment(spec: &SessionSpec, agent: &str, home: &Path, shell: &str) -> BTreeMap<String, String> {
    let base = [
        ("TERM", "xterm-256color"),
        ("LANG", "C.UTF-8"),
        ("PATH", PATH),
        ("SHELL", shell),
        ("USER", &spec.user),
        ("LOGNAME", &spec.user),
        ("HOME", &home.to_string_lossy()),
    ];
    let mut environment: BTreeMap<String, String> =
        base.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let wanted = spec.environment.iter().filter(|(name, value)| {
        !name.is_empty()
            && !name.contains(['=', '\0'])
            && !value.contains('\0')
            && !name.starts_with("TIDEGATE_")
    });
    environment.extend(wanted.map(|(name, value)| (name.clone(), value.clone())));
    environment.insert(MARK_AGENT.into(), agent.to_owned());
    environment.insert(MARK.into(), spec.key.session_id.clone());
    environment.insert(MARK_GENERATION.into(), spec.key.generation.to_string());
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionKey;

    #[test]
    fn a_session_cannot_unmark_itself_through_its_environment() {
        let spec = SessionSpec {
            key: SessionKey::new("s-1", 3).unwrap(),
            user: "alice".into(),
            owner: "local/alice".into(),
            program: Program::Shell,
            persistent_home: false,
            environment: BTreeMap::from([
                ("TIDEGATE_SESSION_ID".to_owned(), "other".to_owned()),
                ("EDITOR".to_owned(), "vi".to_owned()),
            ]),
            cpu_millis: None,
            memory_bytes: None,
        };
        let environment = environment(&spec, "agent-x", Path::new("/home/x"), "/bin/sh");
        let of = |name: &str| environment.get(name).map(String::as_str);
        assert_eq!(
            (of("EDITOR"), of("HOME"), of("TERM")),
            (Some("vi"), Some("/home/x"), Some("xterm-256color"))
        );
        assert_eq!((of(MARK), of(MARK_GENERATION)), (Some("s-1"), Some("3")));
    }
}
