//! `session-exec`: the last step before a session's program. It gives up every right the session must not have, then
//! becomes the program. Nothing is kept here and nothing returns, except why it failed.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        stat,
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use serde::{Deserialize, Serialize};

/// What `session-exec` is to do, as JSON in its only argument: nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    /// User and group to become; absent when the agent has no right to choose.
    pub(crate) uid: Option<u32>,
    /// Where it starts.
    pub(crate) home: PathBuf,
    /// `cgroup.procs` files to enter.
    pub(crate) cgroups: Vec<PathBuf>,
    /// Limits by name: `data`, `nproc`; `nofile`, which the program may raise again.
    pub(crate) rlimits: BTreeMap<String, u64>,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Whether argv[0] gets the dash of a login shell.
    pub(crate) login: bool,
}

/// What the names of the session's variables begin with until `session-exec` has given up its rights. Until then they
/// must mean nothing to anybody: the dynamic loader of a process that is still root obeys its environment.
const CARRIED: &str = "TIDEGATE_CARRIED_";

/// The name that a session's variable has on its way to `session-exec`.
pub(crate) fn carried(name: &str) -> String {
    format!("{CARRIED}{name}")
}

/// Runs `session-exec`. Returns only when the program could not be started; the reason stands on its terminal.
pub fn session_exec(spec: &str) -> ExitCode {
    let spec: ExecSpec = match serde_json::from_str(spec) {
        Ok(spec) => spec,
        Err(_) => return fail(126, "session-exec is started by the agent, not by hand"),
    };
    if let Err((what, error)) = give_up_rights(&spec) {
        return fail(126, &format!("cannot {what}: {error}"));
    }
    let Some((program, arguments)) = spec.argv.split_first() else {
        return fail(126, "no program was named");
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.strip_prefix(CARRIED)?.to_owned();
        Some((name, value))
    }));
    if spec.login {
        let name = program.rsplit('/').next().unwrap_or(program);
        command.arg0(format!("-{name}"));
    }
    let error = command.exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    fail(code, &format!("cannot run {program}: {error}"))
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("tidegate: {message}\r");
    ExitCode::from(code)
}

fn give_up_rights(spec: &ExecSpec) -> Result<(), (&'static str, io::Error)> {
    let os = |what: &'static str| move |errno: nix::Error| (what, io::Error::from(errno));
    for file in &spec.cgroups {
        fs::write(file, "0").map_err(|error| ("enter the session's cgroup", error))?;
    }
    // Where no cgroup weighs it, its terminal's scheduling group does.
    let _ = fs::write("/proc/self/autogroup", "10");
    // Under memory pressure a session goes before the agent and its shims do.
    let _ = fs::write("/proc/self/oom_score_adj", "300");
    for (name, limit) in &spec.rlimits {
        if name == "nofile" {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(os("read a resource limit"))?;
            setrlimit(Resource::RLIMIT_NOFILE, (*limit).min(hard), hard)
                .map_err(os("set a resource limit"))?;
            continue;
        }
        let resource = match name.as_str() {
            "data" => Resource::RLIMIT_DATA,
            "nproc" => Resource::RLIMIT_NPROC,
            _ => continue,
        };
        setrlimit(resource, *limit, *limit).map_err(os("set a resource limit"))?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(os("set a resource limit"))?;
    stat::umask(stat::Mode::from_bits_truncate(0o022));
    if let Some(id) = spec.uid {
        setgroups(&[]).map_err(os("leave the agent's groups"))?;
        let gid = Gid::from_raw(id);
        setresgid(gid, gid, gid).map_err(os("become the session's group"))?;
        let uid = Uid::from_raw(id);
        setresuid(uid, uid, uid).map_err(os("become the session's user"))?;
    }
    prctl::set_no_new_privs().map_err(os("give up new privileges"))?;
    std::env::set_current_dir(&spec.home).map_err(|error| ("enter the session's home", error))
}
