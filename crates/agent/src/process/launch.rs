//! Starting a session: user, home, limits, environment, and the shim that holds it all.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::chown;

use super::{
    Inner,
    stream::{At, Endpoint, free_port},
};
use crate::{
    Error, Program, SessionSpec, descriptors,
    exec::ExecSpec,
    files::make_dir,
    platform::{SessionKey, is_passed_on},
    shim::ShimSpec,
    shims::{
        PATH,
        tree::{MARK, MARK_AGENT, MARK_GENERATION},
    },
};

impl Inner {
    /// Starts a session that does not run.
    pub(super) async fn launch(&self, spec: &SessionSpec) -> Result<(), Error> {
        if spec.image.is_some() {
            return Err(Error::Refused("this agent runs no containers: it is one of platform vm".into()));
        }
        let folder = self.shims.folder(&spec.key);
        make_dir(&folder, 0o700)?;
        let uid = self.users.uid_for(spec)?;
        let home = self.users.home_for(spec, uid)?;
        let mut limits = self.limits.prepare(&spec.key, spec.cpu_millis, spec.memory_bytes)?;
        limits.rlimits.insert("nofile".into(), descriptors::of_sessions());
        let shell = shell();
        let mut environment = environment(spec, &self.shims.name, &home, &shell);
        let (argv, login, hold, at) = match &spec.program {
            Program::Shell => (vec![shell.clone()], true, Duration::ZERO, None),
            Program::Command(argv) => (argv.clone(), false, self.options.first_reader, None),
            Program::Web(argv) => {
                let port = free_port().await?;
                environment.insert("PORT".into(), port.to_string());
                (argv.clone(), false, Duration::ZERO, Some(At::Port(port)))
            }
            Program::Desktop(argv) => {
                let socket = self.desktop_socket(&spec.key, uid)?;
                (self.desktop(&socket, argv), false, Duration::ZERO, Some(At::Unix(socket)))
            }
        };
        Endpoint { uid, at }.write(&folder)?;
        let shim = ShimSpec {
            key: spec.key.clone(),
            socket: self.shims.socket(&spec.key)?,
            folder,
            program: self.options.program.clone(),
            environment,
            exec: ExecSpec { uid, home, cgroups: limits.cgroups, rlimits: limits.rlimits, argv, login },
            hold_ms: u64::try_from(hold.as_millis()).unwrap_or(u64::MAX),
        };
        let cgroups = self.limits.cgroups(&spec.key);
        self.shims.spawn(&shim, &cgroups).await.inspect_err(|_| self.limits.remove(&spec.key))
    }

    /// Where a desktop's X server listens: in a folder that is its user's alone.
    fn desktop_socket(&self, key: &SessionKey, uid: Option<u32>) -> Result<PathBuf, Error> {
        // That of an earlier start goes.
        self.discard_desktop(key);
        let folder = self.desktops.join(&key.session_id);
        make_dir(&folder, 0o700)?;
        if let Some(uid) = uid {
            chown(&folder, Some(uid.into()), Some(uid.into()))
                .map_err(|errno| Error::file("give away", &folder)(errno.into()))?;
        }
        Ok(folder.join("rfb"))
    }

    fn desktop(&self, socket: &Path, argv: &[String]) -> Vec<String> {
        let program = self.options.program.to_string_lossy().into_owned();
        let mut desktop = vec![program, "session-desktop".into(), socket.to_string_lossy().into_owned()];
        if !argv.is_empty() {
            desktop.push("--".into());
            desktop.extend_from_slice(argv);
        }
        desktop
    }
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
        !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') && is_passed_on(name)
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
            image: None,
            port: None,
            hibernation: tidegate_model::Hibernation::Stop,
            persistent_home: false,
            environment: BTreeMap::from([
                ("TIDEGATE_SESSION_ID".to_owned(), "other".to_owned()),
                ("EDITOR".to_owned(), "vi".to_owned()),
                ("TIDEGATE_OPTION_HOMEPAGE".to_owned(), "about:blank".to_owned()),
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
        assert_eq!(
            of("TIDEGATE_OPTION_HOMEPAGE"),
            Some("about:blank"),
            "what a template's options say goes on"
        );
    }
}
