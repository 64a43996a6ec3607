//! What a session's container is made of, and what is read of one that is there.

use std::collections::{BTreeMap, HashMap};

use bollard::plugin::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HostConfig, HostConfigLogConfig,
    ImageConfig, Mount, MountType, MountVolumeOptions, PortBinding,
};
use chrono::{DateTime, Utc};
use tidegate_model::{Clock, Hibernation, SystemClock};

use super::{
    engine::NETWORK,
    home::{Home, PATH as HOME_PATH},
};
use crate::{
    Error, Program, SessionKey, SessionSpec,
    platform::{is_passed_on, is_plain},
    shims::tree::{MARK, MARK_AGENT, MARK_GENERATION},
};

/// The agent that a container or a home is of.
pub(super) const AGENT: &str = "dev.tidegate.agent";
/// The session.
pub(super) const SESSION: &str = "dev.tidegate.session";
/// Which start of it.
const GENERATION: &str = "dev.tidegate.generation";
/// Its organization.
const ORGANIZATION: &str = "dev.tidegate.organization";
/// Its owner's name.
const USER: &str = "dev.tidegate.user";
/// The port that is streamed.
const PORT: &str = "dev.tidegate.port";
/// What becomes of it asleep.
const HIBERNATION: &str = "dev.tidegate.hibernation";

/// Processes of one session.
const PROCESSES: i64 = 1_024;
/// Where RFB is served when nobody says otherwise.
const RFB: u16 = 5_900;
/// Whom a shell or a command runs as where the image names nobody, or root.
const NOBODY_SPECIAL: &str = "1000:1000";
/// The best shell that the image has.
const SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash -l || exec sh -l";

/// The exit code that an engine tells where it does not know one: containers that ended while it was away.
pub(super) const UNKNOWN_CODE: i32 = 255;

/// What is written on a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) session_id: String,
    pub(super) generation: i64,
    pub(super) port: Option<u16>,
    pub(super) pauses: bool,
}

impl Labels {
    /// Of a container; nothing where it is no session's.
    pub(super) fn of(found: &ContainerInspectResponse) -> Option<Self> {
        let labels = found.config.as_ref()?.labels.as_ref()?;
        let session_id = labels.get(SESSION).filter(|id| is_plain(id))?.clone();
        Some(Self {
            session_id,
            generation: labels.get(GENERATION)?.parse().ok()?,
            port: labels.get(PORT).and_then(|port| port.parse().ok()),
            pauses: labels.get(HIBERNATION).is_some_and(|word| word == Hibernation::Pause.as_str()),
        })
    }
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Created,
    Running,
    Paused,
    /// Being removed: it says nothing of its program any more.
    Leaving,
    Exited {
        /// Its program's exit code.
        code: i32,
        /// When.
        at: DateTime<Utc>,
    },
}

/// Where this one stands.
pub(super) fn standing(found: &ContainerInspectResponse) -> Standing {
    use ContainerStateStatusEnum as Status;
    let state = found.state.clone().unwrap_or_default();
    match state.status {
        Some(Status::RUNNING | Status::RESTARTING) => Standing::Running,
        Some(Status::PAUSED) => Standing::Paused,
        Some(Status::CREATED | Status::EMPTY) | None => Standing::Created,
        Some(Status::DEAD | Status::REMOVING) => Standing::Leaving,
        Some(Status::EXITED | Status::STOPPING) => {
            let at = ended_at(found);
            let code =
                at.and(state.exit_code).and_then(|code| i32::try_from(code).ok()).unwrap_or(UNKNOWN_CODE);
            Standing::Exited { code, at: at.unwrap_or_else(|| SystemClock::new().now()) }
        }
    }
}

/// When its program ended. An engine that was killed and finds nothing left of a program says that it ended with 0 in the
/// year 1: nobody saw its end, and nobody knows its code.
pub(super) fn ended_at(found: &ContainerInspectResponse) -> Option<DateTime<Utc>> {
    let text = found.state.as_ref()?.finished_at.as_deref()?;
    let at = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    (at > DateTime::UNIX_EPOCH).then_some(at)
}

/// What a container that is there was made of. Its home has an owner by now.
pub(super) fn body_of(mut found: ContainerInspectResponse) -> Result<ContainerCreateBody, Error> {
    let mounts = found.host_config.as_mut().and_then(|config| config.mounts.as_mut());
    for mount in mounts.into_iter().flatten() {
        mount.volume_options = Some(as_it_is());
    }
    let made_of = || {
        let mut body = serde_json::to_value(found.config)?;
        body["HostConfig"] = serde_json::to_value(found.host_config)?;
        serde_json::from_value(body)
    };
    made_of().map_err(|error: serde_json::Error| {
        Error::Refused(format!("the container's description cannot be read: {error}"))
    })
}

/// The environment of the bridge below a shim: the marks by which strays are found, and nothing of the agent's own.
pub(super) fn marks(agent: &str, key: &SessionKey, path: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MARK_AGENT.to_owned(), agent.to_owned()),
        (MARK.to_owned(), key.session_id.clone()),
        (MARK_GENERATION.to_owned(), key.generation.to_string()),
        ("PATH".to_owned(), path.to_owned()),
    ])
}

/// The port that is streamed: the one asked for, the image's only one, or where RFB is served.
fn port_of(spec: &SessionSpec, image: &ImageConfig) -> Result<Option<u16>, Error> {
    let exposed: Vec<u16> = image
        .exposed_ports
        .iter()
        .flatten()
        .filter_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok())
        .collect();
    match (&spec.program, spec.port, exposed.as_slice()) {
        (Program::Shell | Program::Command(_), ..) => Ok(None),
        (_, Some(port), _) => Ok(Some(port)),
        (_, None, [port]) => Ok(Some(*port)),
        (Program::Desktop(_), None, _) => Ok(Some(RFB)),
        (Program::Web(_), None, []) => {
            Err(Error::Refused("the image exposes no port: name the one it serves with --port".into()))
        }
        (Program::Web(_), None, several) => Err(Error::Refused(format!(
            "the image exposes the ports {}: name the one to use with --port",
            several.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// Whom the container runs as: whom the image names, where that is not root. Shells and commands need nothing of root;
/// what else an image runs is its own affair, without any capability.
fn user_of(program: &Program, image: &ImageConfig) -> Option<String> {
    let named = image.user.clone().filter(|user| !user.is_empty());
    let is_root = named.as_deref().is_none_or(|user| matches!(user.split(':').next(), Some("root" | "0")));
    match program {
        Program::Shell | Program::Command(_) if is_root => Some(NOBODY_SPECIAL.to_owned()),
        _ => named,
    }
}

fn entrypoint_of(program: &Program) -> Option<Vec<String>> {
    match program {
        Program::Shell => Some(["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec()),
        Program::Command(argv) => Some(argv.clone()),
        Program::Desktop(argv) | Program::Web(argv) => (!argv.is_empty()).then(|| argv.clone()),
    }
}

/// What the container is made of.
pub(super) fn body(
    agent: &str,
    spec: &SessionSpec,
    image: &str,
    config: &ImageConfig,
    home: &Home,
) -> Result<ContainerCreateBody, Error> {
    let port = port_of(spec, config)?;
    let at_home = matches!(spec.program, Program::Shell | Program::Command(_));
    let organization = spec.owner.split('/').next().unwrap_or_default();
    let mut labels = HashMap::from([
        (AGENT.to_owned(), agent.to_owned()),
        (SESSION.to_owned(), spec.key.session_id.clone()),
        (GENERATION.to_owned(), spec.key.generation.to_string()),
        (ORGANIZATION.to_owned(), organization.to_owned()),
        (USER.to_owned(), spec.user.clone()),
        (HIBERNATION.to_owned(), spec.hibernation.to_string()),
    ]);
    labels.extend(port.map(|port| (PORT.to_owned(), port.to_string())));
    Ok(ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: Some("session".to_owned()),
        user: user_of(&spec.program, config),
        entrypoint: entrypoint_of(&spec.program),
        env: Some(environment(spec, at_home)),
        working_dir: at_home.then(|| HOME_PATH.to_owned()),
        labels: Some(labels),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(false),
        tty: Some(true),
        exposed_ports: port.map(|port| vec![format!("{port}/tcp")]),
        host_config: Some(host_config(spec, port, home)),
        ..ContainerCreateBody::default()
    })
}

/// Into an empty volume the engine copies what the image has at its place, and with it the folder's owner: a home that
/// has an owner would be root's again.
fn as_it_is() -> MountVolumeOptions {
    MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }
}

fn environment(spec: &SessionSpec, at_home: bool) -> Vec<String> {
    let mut environment = BTreeMap::from([
        ("TERM".to_owned(), "xterm-256color".to_owned()),
        ("TIDEGATE_HOME".to_owned(), HOME_PATH.to_owned()),
        (MARK.to_owned(), spec.key.session_id.clone()),
    ]);
    if at_home {
        environment.insert("HOME".to_owned(), HOME_PATH.to_owned());
        environment.insert("USER".to_owned(), spec.user.clone());
        environment.insert("LOGNAME".to_owned(), spec.user.clone());
    }
    let wanted = spec.environment.iter().filter(|(name, _)| is_passed_on(name));
    environment.extend(wanted.map(|(name, value)| (name.clone(), value.clone())));
    environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn host_config(spec: &SessionSpec, port: Option<u16>, home: &Home) -> HostConfig {
    let signed = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
    let memory = signed(spec.memory_bytes);
    let bindings = port.map(|port| {
        // On loopback alone, on a port that the engine chooses.
        let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: None };
        HashMap::from([(format!("{port}/tcp"), Some(vec![binding]))])
    });
    HostConfig {
        nano_cpus: signed(spec.cpu_millis.map(|millis| millis.saturating_mul(1_000_000))),
        memory,
        // As much as the memory itself: nothing is swapped out beyond the limit.
        memory_swap: memory,
        pids_limit: Some(PROCESSES),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        init: Some(true),
        network_mode: Some(NETWORK.to_owned()),
        port_bindings: bindings,
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            // What a shim that comes later shows of what was printed before.
            config: Some(HashMap::from([
                ("max-size".to_owned(), "2m".to_owned()),
                ("max-file".to_owned(), "1".to_owned()),
            ])),
        }),
        mounts: Some(vec![Mount {
            target: Some(HOME_PATH.to_owned()),
            source: Some(home.volume.clone()),
            typ: Some(MountType::VOLUME),
            volume_options: home.unclaimed.is_none().then(as_it_is),
            ..Mount::default()
        }]),
        oom_score_adj: Some(300),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use bollard::plugin::{ContainerState, ContainerStateStatusEnum};

    use super::*;

    fn exited(code: i64, finished_at: &str) -> ContainerInspectResponse {
        let state = ContainerState {
            status: Some(ContainerStateStatusEnum::EXITED),
            exit_code: Some(code),
            finished_at: Some(finished_at.to_owned()),
            ..ContainerState::default()
        };
        ContainerInspectResponse { state: Some(state), ..ContainerInspectResponse::default() }
    }

    fn code(found: &ContainerInspectResponse) -> i32 {
        match standing(found) {
            Standing::Exited { code, .. } => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_end_in_the_year_one_has_no_code() {
        assert_eq!(code(&exited(0, "2026-11-28T01:42:00.5Z")), 0);
        assert_eq!(code(&exited(7, "2026-11-28T01:42:00.5Z")), 7);
        assert_eq!(code(&exited(0, "0001-01-01T00:00:00Z")), UNKNOWN_CODE);
        assert_eq!(ended_at(&exited(0, "0001-01-01T00:00:00Z")), None);
    }
}
