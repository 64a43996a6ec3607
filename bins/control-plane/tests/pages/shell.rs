//! A real agent with a real shell, in a real browser.

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
use serde_json::json;
use tempfile::TempDir;
use tidegate_service::{Decision, Operator};
use tidegate_test_support::{BOOTSTRAP_KEY, eventually};

use crate::{
    browser::{Browser, WITH_SCRIPTS, with_browser},
    stage::Stage,
};

/// The agent, which takes its sessions with it when the test ends.
struct Agent {
    process: Child,
    _folder: TempDir,
}

impl Agent {
    async fn start(stage: &Stage) -> Self {
        // Short, because sockets lie in it; passable, because sessions are users of their own.
        let folder = tempfile::Builder::new().prefix("tgp").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(program())
            .args(["--server", &stage.world.handle.url(), "--agent-id", "real", "--stop-sessions-on-exit"])
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
        let services = &stage.world.services;
        let handle = "real".parse().unwrap();
        let operator = Operator::console();
        eventually("the agent asks to be let in", async || {
            services.agents.decide(&operator, &handle, Decision::Approve, false).await.is_ok()
        })
        .await;
        eventually("the agent is connected", async || stage.world.handle.hub().connected() > 0).await;
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
        assert!(build.status().unwrap().success(), "tidegate-agent was not built");
    }
    path
}

#[tokio::test]
async fn somebody_types_into_a_shell_and_reads_the_answer() {
    with_browser(WITH_SCRIPTS, walk).await;
}

async fn walk(browser: &Browser) {
    let stage = Stage::new().await;
    let _agent = Agent::start(&stage).await;
    let id = stage.running(json!({"template": "shell", "name": "tide pool"})).await;
    stage.log_in(browser, "/home").await;
    browser.shows("table", "tide pool").await;
    browser.shot("home").await;
    browser.click("a[href^='/sessions/']").await;
    browser.shows("#state", "running").await;
    // The shell's prompt, whatever it looks like, and then the focus is in the terminal by itself.
    eventually("the terminal shows a prompt", async || !browser.text(".xterm-rows").await.trim().is_empty())
        .await;
    assert_eq!(browser.focus().await, "xterm-helper-textarea");
    browser.press("echo tide$((6 * 7))\n").await;
    browser.shows(".xterm-rows", "tide42").await;
    browser.press("printf '\\033[38;2;10;120;200mtrue \\033[1;31mcolour\\033[0m\\n'; stty size\n").await;
    let size = browser.run("return document.querySelectorAll('.xterm-rows > div').length").await;
    browser.shows(".xterm-rows", &format!("\n{size} ")).await;
    browser.shot("terminal-light").await;
    browser.prefer("dark").await;
    browser.shot("terminal-dark").await;

    browser.press("exit 3\n").await;
    browser.shows("#banner", "Its program left with code 3.").await;
    browser.shows("#state", "ended").await;
    browser.shows(".xterm-rows", "tide42").await;
    browser.shot("exited").await;
    stage.is(&id, "terminated").await;
    browser.open(&stage.url(&format!("/sessions/{id}"))).await;
    browser.shows("#panel", "The session has ended").await;
    browser.shows("#panel", "tidegate run shell").await;
    browser.shot("ended").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn somebody_uses_a_web_application_at_its_own_origin() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let _agent = Agent::start(&stage).await;
        let serve = "mkdir -p www && echo '<p id=pond>the pond</p>' > www/index.html && \
                     exec python3 -m http.server --bind 127.0.0.1 --directory www $PORT";
        let id = stage.running(json!({"template": "web", "command": ["sh", "-c", serve]})).await;
        stage.log_in(browser, &format!("/sessions/{id}")).await;
        browser.there("#stage iframe").await;
        eventually("the application is shown", async || {
            browser.text_in_frame("#pond").await.is_some_and(|text| text == "the pond")
        })
        .await;
        browser.shot("web").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
    })
    .await;
}
