//! An application from the catalog to the words that its program prints: a real agent, started as a process.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_model::OrgRole;
use tidegate_service::{Decision, Operator};
use tidegate_test_support::{BOOTSTRAP_KEY, eventually, eventually_some};

use crate::{applications::template, support::World};

/// The agent, which takes its sessions with it when the test ends.
pub(crate) struct Agent {
    process: Child,
    _folder: TempDir,
}

impl Agent {
    pub(crate) async fn start(world: &World) -> Self {
        // Short, because sockets lie in it; passable, because sessions are users of their own.
        let folder = tempfile::Builder::new().prefix("tga").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(program())
            .args(["--server", &world.handle.url(), "--agent-id", "real", "--stop-sessions-on-exit"])
            .arg("--data-dir")
            .arg(folder.path().join("agent"))
            .arg("--runtime-dir")
            .arg(folder.path().join("s"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TIDEGATE_AGENT_BOOTSTRAP_KEY", BOOTSTRAP_KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let agent = Self { process, _folder: folder };
        let (operator, handle) = (Operator::console(), "real".parse().unwrap());
        eventually("the agent asks to be let in", async || {
            world.services.agents.decide(&operator, &handle, Decision::Approve, false).await.is_ok()
        })
        .await;
        eventually("the agent is connected", async || world.handle.hub().connected() > 0).await;
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let id = i32::try_from(self.process.id()).unwrap();
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        drop(self.process.wait());
    }
}

/// The agent lies beside the program under test. `cargo test --workspace` has built it; otherwise this does.
fn program() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_tidegate-control-plane")).parent().unwrap();
    let path = folder.join("tidegate-agent");
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "tidegate-agent-bin", "--target-dir"]);
        build.arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the agent was not built");
    }
    path
}

#[tokio::test]
async fn an_application_prints_what_its_configuration_and_the_request_say() {
    let world = World::new().await;
    let _agent = Agent::start(&world).await;
    let id = template(&world.db, "greeter").await;
    let script = "echo \"$GREETING, $TIDEGATE_OPTION_WHOM and ${whom} in $MOOD\"";
    let command = json!(["sh", "-c", script]).to_string().replace('\'', "''");
    let change = format!(
        "UPDATE catalog_templates SET manifest = jsonb_set(manifest, '{{command}}', '{command}') WHERE id = {id}"
    );
    world.db.execute(&change).await;
    let manager = world.somebody("acme", OrgRole::Maintainer).await;
    let body = json!({"catalogTemplateId": id, "configuration": {"whom": "tide"}});
    let made = world.call("POST", "/api/v1/applications", &manager.token, Some(body)).await;
    let application = made.body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/applications/{application}");
    let status = async || {
        let seen = world.call("GET", &path, &manager.token, None).await.body;
        assert_ne!(seen["installStatus"], "failed", "{seen}");
        seen["installStatus"] == "installed"
    };
    eventually("it is installed", status).await;
    let body = json!({"applicationId": application, "environment": {"MOOD": "good mood"}});
    let started = world.call("POST", "/api/v1/sessions", &manager.token, Some(body)).await;
    assert_eq!(started.status, 202, "{started:?}");
    let path = format!("/api/v1/sessions/{}", started.body["session"]["id"].as_str().unwrap());
    let ended = async || {
        let seen = world.call("GET", &path, &manager.token, None).await.body;
        assert_ne!(seen["state"], "failed", "{seen}");
        (seen["state"] == "terminated").then_some(seen)
    };
    let seen: Value = eventually_some("its program has ended", ended).await;
    assert_eq!(seen["platformMetadata"]["exitCode"], 0, "{seen}");
    let printed = world.call("GET", &format!("{path}/logs"), &manager.token, None).await;
    let text = "hello tide, tide and tide in good mood";
    assert!(printed.status == 200 && printed.whole && printed.text.contains(text), "{printed:?}");
}
