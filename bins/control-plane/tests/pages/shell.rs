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
use tidegate_test_support::{BOOTSTRAP_KEY, eventually, eventually_some};

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

/// A web application with a WebSocket, which says how often it was spoken to.
const TALKING: &str = r#"
import base64, hashlib, os, socket, threading, time
PAGE = b"""<p id=said>nothing yet</p><script>
const socket = new WebSocket('ws://' + location.host + '/talk');
socket.onmessage = ({data}) => { said.textContent = data; socket.send('tide'); };
</script>"""
def talk(c, d):
    heard = [0]
    def tell():
        for n in range(10_000):
            text = b'%d told, %d heard' % (n, heard[0])
            c.sendall(bytes([0x81, len(text)]) + text)
            time.sleep(0.05)
    threading.Thread(target=tell, daemon=True).start()
    while True:
        while len(d) < 2 or len(d) < 6 + (d[1] & 127):
            more = c.recv(65536)
            if not more: return
            d += more
        if d[0] & 15 == 1 and bytes(b ^ d[2 + i % 4] for i, b in enumerate(d[6:6 + (d[1] & 127)])) == b'tide': heard[0] += 1
        d = d[6 + (d[1] & 127):]
def serve(c):
    d = b''
    while True:
        while b'\r\n\r\n' not in d:
            more = c.recv(65536)
            if not more: return
            d += more
        head, _, d = d.partition(b'\r\n\r\n')
        lines = [line.partition(':') for line in head.decode().split('\r\n')[1:]]
        given = {name.lower(): value.strip() for name, _, value in lines}
        if given.get('upgrade', '').lower() == 'websocket':
            key = (given['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()
            accept = base64.b64encode(hashlib.sha1(key).digest())
            c.sendall(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ' + accept + b'\r\n\r\n')
            return talk(c, d)
        c.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n' % len(PAGE) + PAGE)
listener = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

#[tokio::test]
async fn somebody_talks_with_a_web_application_and_who_only_watches_is_told_and_not_heard() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let _agent = Agent::start(&stage).await;
        let id = stage.running(json!({"template": "web", "command": ["python3", "-c", TALKING]})).await;
        stage.log_in(browser, "/home").await;
        let told = async |least: u64| {
            eventually_some("the application talks", async || {
                let text = browser.text_in_frame("#said").await?;
                let (told, heard) = text.split_once(" told, ")?;
                let heard: u64 = heard.strip_suffix(" heard")?.parse().ok()?;
                (told.parse::<u64>().ok()? >= least).then_some(heard)
            })
            .await
        };
        // What it is told it answers, each time.
        browser.open(&stage.url(&format!("/sessions/{id}?mode=view"))).await;
        browser.there("#stage iframe").await;
        assert_eq!(told(20).await, 0, "who only watches is not heard");
        browser.open(&stage.url(&format!("/sessions/{id}"))).await;
        browser.there("#stage iframe").await;
        assert!(told(20).await > 0);
        browser.shot("talking").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
    })
    .await;
}

/// What a terminal in a desktop does: red to begin with, green once it was clicked, blue once a key was pressed.
const COLOURS: &str = r"
import os, tty
tty.setraw(0)
os.write(1, b'\033[?1000h\033[?25l\033]11;#c81e1e\007\033[2J')
while True:
    said = os.read(0, 1)
    if not said: break
    if said == b'\033': os.write(1, b'\033]11;#1ea01e\007\033[2J')
    if said == b'k': os.write(1, b'\033]11;#1e1ec8\007\033[2J')
";

#[tokio::test]
async fn somebody_clicks_into_a_real_desktop_and_who_only_watches_changes_no_pixel() {
    let missing =
        ["/usr/bin/Xvnc", "/usr/bin/xterm"].into_iter().find(|program| !Path::new(program).exists());
    if let Some(missing) = missing {
        assert!(std::env::var_os("CI").is_none(), "{missing} is missing: see scripts/install");
        eprintln!("NOT TESTED: {missing} is missing, scripts/install brings it");
        return;
    }
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let _agent = Agent::start(&stage).await;
        let window = ["xterm", "-b", "0", "-bw", "0", "-geometry", "200x60+0+0", "-e", "python3", "-c", COLOURS];
        let id = stage.running(json!({"template": "desktop", "command": window})).await;
        stage.log_in(browser, "/home").await;
        let script = "const c = document.querySelector('#stage canvas');\
                      return c && c.width > 300 ? [...c.getContext('2d').getImageData(200, 200, 1, 1).data].slice(0, 3) : []";
        let is = async |colour: [u8; 3]| browser.run(script).await == json!(colour);
        let becomes = async |what: &str, colour: [u8; 3]| {
            eventually(&format!("the desktop is {what}"), async || is(colour).await).await;
        };
        let (red, green, blue) = ([200, 30, 30], [30, 160, 30], [30, 30, 200]);
        browser.open(&stage.url(&format!("/sessions/{id}?mode=view"))).await;
        becomes("red for who watches", red).await;
        assert!(browser.sees("#mode").await);
        browser.click("#stage canvas").await;
        browser.press("kkk").await;
        // Whoever may do something sees what was done before them: nothing.
        browser.open(&stage.url(&format!("/sessions/{id}"))).await;
        becomes("red still", red).await;
        browser.click("#stage canvas").await;
        becomes("green with a click", green).await;
        browser.press("k").await;
        becomes("blue with a key", blue).await;
        browser.shot("real-desktop").await;
        // A picture under the cursor comes from the page itself; nothing else is complained of.
        let mut complaints = browser.complaints().await;
        complaints.retain(|said| !said.contains("Loading the image 'data:image/png"));
        assert_eq!(complaints, Vec::<String>::new());
    })
    .await;
}
