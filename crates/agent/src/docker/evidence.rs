//! Whether a container's program ever ran, where an engine was asked to start it and did not live to answer. A program is
//! executed once: it is started again only where nothing of it can have run.

use std::path::Path;

use bollard::plugin::ContainerInspectResponse;
use nix::sys::signal::Signal;

use super::engine::Engine;
use crate::{Error, shims::tree};

/// What the runtime makes in a container's file system before it starts anything in it: where the engine's init goes.
const INIT: &str = "/sbin/docker-init";

/// What is known of a start that nobody answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Nothing of the container's program has run, and nothing that is left of the start can run it.
    NeverRan,
    /// It was found running, beside an engine that does not know of it.
    Ran,
    /// It may have run to its end.
    Unknown,
}

impl Evidence {
    /// Why the session fails; nothing where its program may be started.
    pub(super) fn reason(self) -> Option<String> {
        let found = match self {
            Self::NeverRan => return None,
            Self::Ran => "its program was found running, out of the new engine's reach, and was ended",
            Self::Unknown => "nobody can say whether its program ran",
        };
        Some(format!("{LOST}: {found}, so it is not executed a second time; start the session anew"))
    }
}

/// How these reasons begin; who counts them looks for it.
const LOST: &str = "the container engine ended while it started the session";

/// Looks at a container that its engine calls created, and ends what is left of its start. The engine that began the start
/// must be gone: nobody may be at work on it.
pub(super) async fn of(engine: &Engine, found: &ContainerInspectResponse) -> Result<Evidence, Error> {
    let Some(id) = &found.id else { return Ok(Evidence::Unknown) };
    let (keepers, left) = (tree::keepers_of(id), tree::in_cgroup_of(id));
    let unmade = !keepers.is_empty() && keepers.iter().all(|pid| was_never_made(*pid));
    let unborn = !left.is_empty() && tree::are_unborn(&left).await;
    // The keepers first: what they are in the middle of must not go on.
    let below = keepers.iter().flat_map(|pid| tree::descendants(*pid)).collect::<Vec<_>>();
    for pids in [&keepers, &below, &left] {
        tree::signal_all(pids, Signal::SIGKILL);
    }
    if unmade || unborn {
        return Ok(Evidence::NeverRan);
    }
    if !left.is_empty() {
        return Ok(Evidence::Ran);
    }
    // Without the engine's init nothing is there to be looked for.
    let has_init = found.host_config.as_ref().and_then(|config| config.init) == Some(true);
    if has_init && !engine.has_path(id, INIT).await? { Ok(Evidence::NeverRan) } else { Ok(Evidence::Unknown) }
}

/// Whether the keeper of a container that lives in the folder of its description never got so far as to have its first
/// process made. Its number is written there before anything is started; most starts that die with their engine do so
/// before that, because the engine itself takes part in making the container.
fn was_never_made(keeper: i32) -> bool {
    let bundle = Path::new("/proc").join(keeper.to_string()).join("cwd");
    bundle.join("config.json").is_file() && !bundle.join("init.pid").exists()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_container_without_a_first_process_was_never_made() {
        let bundle = tempfile::tempdir().unwrap();
        let mut keeper = Command::new("sleep").arg("600").current_dir(bundle.path()).spawn().unwrap();
        let pid = keeper.id().cast_signed();
        let looked = || was_never_made(pid);
        let elsewhere = looked();
        std::fs::write(bundle.path().join("config.json"), "{}").unwrap();
        let described = looked();
        std::fs::write(bundle.path().join("init.pid"), "1").unwrap();
        let made = looked();
        drop(bundle);
        let cleared = looked();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        assert_eq!((elsewhere, described, made, cleared), (false, true, false, false));
    }

    #[test]
    fn only_what_never_ran_is_started_again() {
        assert_eq!(Evidence::NeverRan.reason(), None);
        for evidence in [Evidence::Ran, Evidence::Unknown] {
            assert!(evidence.reason().is_some_and(|reason| reason.starts_with(LOST)), "{evidence:?}");
        }
    }
}
