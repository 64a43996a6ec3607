//! Sessions as containers of a real Docker engine. `scripts/with-docker` starts one of the tests' own; without it, or an
//! engine of the machine, there is nothing to test, which is said, and in CI is a failure.

use std::{
    env,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate_agent::{
    DockerOptions, DockerPlatform, Ended, Found, Keep, Platform, Program, Progress, SessionKey, SessionSpec,
    StreamRequest,
};
use tidegate_model::{Hibernation, StreamMode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
};

use crate::support::{Folder, PROGRAM, read_all, read_until, script, soon, type_in, until};

const LOGS: StreamRequest = StreamRequest::Logs { after: 0, follow: true };
const CONTROL: StreamRequest = StreamRequest::Terminal(StreamMode::Control);
/// What `scripts/with-docker` makes.
const IMAGE: &str = "tidegate-test:1";

/// A data folder with an engine. Its containers and homes go with it.
struct Dock {
    folder: Folder,
    socket: PathBuf,
    name: std::cell::OnceCell<String>,
}

impl Dock {
    fn new() -> Option<Self> {
        let socket = env::var_os("TIDEGATE_TEST_DOCKER").map(PathBuf::from);
        let Some(socket) = socket else {
            let why = "no Docker engine for the tests: run them under scripts/with-docker";
            assert!(env::var_os("CI").is_none(), "{why}");
            eprintln!("NOT TESTED: {why}");
            return None;
        };
        Some(Self { folder: Folder::new(), socket, name: std::cell::OnceCell::new() })
    }

    async fn platform(&self) -> Arc<DockerPlatform> {
        self.platform_at(self.socket.clone()).await
    }

    async fn platform_at(&self, socket: PathBuf) -> Arc<DockerPlatform> {
        let options = DockerOptions {
            data_dir: self.folder.path().to_owned(),
            runtime_dir: None,
            socket,
            program: PathBuf::from(PROGRAM),
            grace: Duration::from_secs(2),
            first_reader: Duration::from_secs(10),
        };
        Arc::new(DockerPlatform::open(options).await.unwrap())
    }

    fn docker(&self, words: &[&str]) -> String {
        let engine = format!("unix://{}", self.socket.display());
        let done = Command::new("docker").args(["--host", &engine]).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        assert!(done.status.success(), "docker {words:?}: {said}{}", String::from_utf8_lossy(&done.stderr));
        said
    }

    /// The container of a session.
    fn container(&self, session: &str) -> Option<String> {
        let found = self.docker(&["ps", "-aq", "--filter", &format!("label=dev.tidegate.session={session}")]);
        found.lines().next().map(str::to_owned)
    }

    /// Where the engine keeps the home of a session.
    fn home_of(&self, spec: &SessionSpec) -> PathBuf {
        let end = if spec.persistent_home {
            format!("-home-{}", spec.owner.replace('/', "-"))
        } else {
            format!("-session-{}", spec.key.session_id)
        };
        let all = self.docker(&["volume", "ls", "-q"]);
        let name = all.lines().find(|name| name.ends_with(&end)).unwrap();
        self.docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", name]).into()
    }

    fn inspect(&self, session: &str, what: &str) -> String {
        let container = self.container(session).unwrap();
        let _ = self.name.set(self.docker(&[
            "inspect",
            "-f",
            "{{index .Config.Labels \"dev.tidegate.agent\"}}",
            &container,
        ]));
        self.docker(&["inspect", "-f", what, &container])
    }
}

impl Drop for Dock {
    fn drop(&mut self) {
        let Some(name) = self.name.get() else { return };
        let label = format!("label=dev.tidegate.agent={name}");
        for container in self.docker(&["ps", "-aq", "--filter", &label]).lines() {
            self.docker(&["rm", "-fv", container]);
        }
        for volume in self.docker(&["volume", "ls", "-q", "--filter", &label]).lines() {
            self.docker(&["volume", "rm", "-f", volume]);
        }
    }
}

/// Session ids are the engine's, too: those of other tests and of other runs must not be the same.
fn id(name: &str) -> String {
    format!("{name}-{:08x}", rand::random::<u32>())
}

fn contained(name: &str, text: &str) -> SessionSpec {
    SessionSpec { image: Some(IMAGE.into()), ..script(&id(name), 1, text) }
}

#[tokio::test]
async fn a_command_in_a_container_ends_with_its_exit_code_and_its_complete_output() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let spec = contained(
        "command",
        "echo $GREETING $TIDEGATE_SESSION_ID; id -u; printf '\\000\\001\\002zero'; exit 7",
    );
    let mut spec = spec;
    spec.environment.insert("GREETING".into(), "ahoy".into());
    platform.start(&spec, Progress::silent()).await.unwrap();
    dock.inspect(&spec.key.session_id, "{{.Id}}");
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, texts) = read_all(&mut logs).await;
    let printed = String::from_utf8_lossy(&bytes).into_owned();
    assert!(printed.contains(&format!("ahoy {}", spec.key.session_id)), "{printed}");
    assert!(printed.contains("\n1000\r\n"), "not root: {printed}");
    assert!(printed.ends_with("\0\u{1}\u{2}zero"), "bytes that look like frames are bytes: {printed:?}");
    assert_eq!(texts.last().unwrap(), r#"{"type":"exit","code":7}"#);
    let ended = soon("the end", platform.watch(&spec.key)).await;
    let Ended::Exited(exit) = ended else { panic!("it was not lost: {ended:?}") };
    assert_eq!(exit.code, 7);
    platform.release(&spec.key).await.unwrap();
    assert_eq!(dock.container(&spec.key.session_id), None, "nothing of it is left");
}

#[tokio::test]
async fn a_container_has_what_a_session_may_have_and_no_more() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let spec = SessionSpec {
        cpu_millis: Some(250),
        memory_bytes: Some(64 << 20),
        ..contained("limits", "sleep 600")
    };
    platform.start(&spec, Progress::silent()).await.unwrap();
    let session = &spec.key.session_id;
    let of = |what: &str| dock.inspect(session, what);
    assert_eq!(
        of("{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"),
        "250000000 67108864 67108864"
    );
    assert_eq!(of("{{.HostConfig.CapDrop}} {{.HostConfig.Privileged}}"), "[ALL] false");
    assert_eq!(of("{{.HostConfig.SecurityOpt}} {{.HostConfig.PidsLimit}}"), "[no-new-privileges:true] 1024");
    assert_eq!(of("{{.Config.User}}"), "1000:1000");
    assert_eq!(of("{{index .Config.Labels \"dev.tidegate.organization\"}}"), "org-1");
    assert_eq!(of("{{index .Config.Labels \"dev.tidegate.generation\"}}"), "1");
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn somebody_types_into_a_containers_shell_and_the_agent_may_come_and_go() {
    let Some(dock) = Dock::new() else { return };
    let spec = SessionSpec { program: Program::Shell, ..contained("shell", "") };
    {
        let platform = dock.platform().await;
        platform.start(&spec, Progress::silent()).await.unwrap();
        dock.inspect(&spec.key.session_id, "{{.Id}}");
        let mut terminal = platform.open(&spec.key, CONTROL).await.unwrap();
        type_in(&mut terminal, "stty size; echo here-is-$((6*7))\n").await;
        let seen = read_until(&mut terminal, "here-is-42").await;
        assert!(seen.contains("24 80"), "the terminal has the size of its screen: {seen}");
    }
    // Another agent, as after a restart: the session is as it was, screen and all.
    let platform = dock.platform().await;
    assert_eq!(platform.find(&spec.key).await.unwrap(), Found::Running);
    let mut terminal = platform.open(&spec.key, CONTROL).await.unwrap();
    read_until(&mut terminal, "here-is-42").await;
    type_in(&mut terminal, "exit 3\n").await;
    let ended = soon("the end", platform.watch(&spec.key)).await;
    let Ended::Exited(exit) = ended else { panic!("it was not lost: {ended:?}") };
    assert_eq!(exit.code, 3);
    platform.release(&spec.key).await.unwrap();
}

#[tokio::test]
async fn a_container_outlives_its_shim_and_gets_another() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let spec = SessionSpec { program: Program::Shell, ..contained("held", "") };
    platform.start(&spec, Progress::silent()).await.unwrap();
    dock.inspect(&spec.key.session_id, "{{.Id}}");
    let mut terminal = platform.open(&spec.key, CONTROL).await.unwrap();
    type_in(&mut terminal, "echo before-$((1+1))\n").await;
    read_until(&mut terminal, "before-2").await;
    let watch = platform.watch(&spec.key);
    for pid in crate::support::shims(dock.folder.path()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let watch = tokio::spawn(watch);
    // Whoever watches sees to it that there is another one, which knows what was printed before.
    let mut terminal = soon("another shim", async {
        loop {
            if let Ok(terminal) = platform.open(&spec.key, CONTROL).await {
                return terminal;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    read_until(&mut terminal, "before-2").await;
    type_in(&mut terminal, "exit 0\n").await;
    assert!(matches!(soon("the end", watch).await.unwrap(), Ended::Exited(exit) if exit.code == 0));
    platform.release(&spec.key).await.unwrap();
}

#[tokio::test]
async fn a_home_outlives_hibernation_and_a_persistent_one_the_session() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let run = async |spec: &SessionSpec| {
        platform.start(spec, Progress::silent()).await.unwrap();
        dock.inspect(&spec.key.session_id, "{{.Id}}");
        let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
        read_until(&mut logs, "there").await
    };
    let text = "cat notes 2>/dev/null; echo note >> notes && echo there; sleep 600";
    let first = SessionSpec { owner: id("org-1/carol"), persistent_home: true, ..contained("home", text) };
    assert!(!run(&first).await.contains("note\r\n"));
    platform.stop(&first.key, Keep::Home).await.unwrap();
    assert_eq!(dock.container(&first.key.session_id), None);
    let woken = SessionSpec { key: SessionKey { generation: 2, ..first.key.clone() }, ..first.clone() };
    assert!(run(&woken).await.contains("note\r\n"), "awake it is as it was");
    platform.stop(&woken.key, Keep::Nothing).await.unwrap();
    let another = SessionSpec { key: contained("home", "").key, ..first.clone() };
    assert!(
        run(&another).await.contains("note\r\nnote\r\n"),
        "another session of the same user has the same home"
    );
    platform.stop(&another.key, Keep::Nothing).await.unwrap();
    let stranger = SessionSpec { owner: id("org-1/dave"), key: contained("home", "").key, ..first };
    assert!(!run(&stranger).await.contains("note\r\n"));
    platform.stop(&stranger.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_persistent_home_is_deleted_when_no_container_has_it() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let text = "cat notes 2>/dev/null; echo note >> notes && echo there; sleep 600";
    let run = async |spec: &SessionSpec| {
        platform.start(spec, Progress::silent()).await.unwrap();
        let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
        read_until(&mut logs, "there").await
    };
    let [erin, frank] = ["org-1/erin", "org-1/frank"].map(id);
    let first = SessionSpec { owner: erin, persistent_home: true, ..contained("leave", text) };
    let other = SessionSpec { owner: frank, key: contained("leave", "").key, ..first.clone() };
    run(&first).await;
    run(&other).await;
    assert!(platform.delete_home(&first.owner).await.is_err(), "it is in use");
    platform.stop(&first.key, Keep::Nothing).await.unwrap();
    platform.stop(&other.key, Keep::Nothing).await.unwrap();
    assert!(platform.delete_home(&first.owner).await.unwrap());
    assert!(platform.delete_home(&first.owner).await.unwrap(), "gone is what was asked for");
    let again = SessionSpec { key: contained("leave", "").key, ..first };
    assert!(!run(&again).await.contains("note\r\n"), "a new home");
    platform.stop(&again.key, Keep::Nothing).await.unwrap();
    let others = SessionSpec { key: contained("leave", "").key, ..other };
    assert!(run(&others).await.contains("note\r\n"), "another's home stays");
    platform.stop(&others.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_paused_container_goes_on_where_it_was() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let text = "n=0; while :; do n=$((n+1)); echo tick-$n; sleep 0.1; done";
    let spec = SessionSpec { hibernation: Hibernation::Pause, ..contained("paused", text) };
    platform.start(&spec, Progress::silent()).await.unwrap();
    let started = dock.inspect(&spec.key.session_id, "{{.State.Pid}}");
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    read_until(&mut logs, "tick-3").await;
    platform.stop(&spec.key, Keep::Home).await.unwrap();
    // Asked again, as by an agent that was killed before it could write down that it is done.
    platform.stop(&spec.key, Keep::Home).await.unwrap();
    assert_eq!(dock.inspect(&spec.key.session_id, "{{.State.Status}}"), "paused");
    let woken = SessionSpec { key: SessionKey { generation: 2, ..spec.key.clone() }, ..spec };
    platform.start(&woken, Progress::silent()).await.unwrap();
    platform.start(&woken, Progress::silent()).await.unwrap();
    assert_eq!(dock.inspect(&woken.key.session_id, "{{.State.Pid}}"), started, "the same process");
    let mut logs = platform.open(&woken.key, LOGS).await.unwrap();
    read_until(&mut logs, "tick-5").await;
    platform.stop(&woken.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_web_application_is_ready_when_it_serves_and_only_loopback_and_the_agent_reach_it() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let serve =
        "mkdir -p /tmp/www && echo hello-web > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www";
    let argv = ["sh", "-c", serve].map(str::to_owned).to_vec();
    let spec = SessionSpec { program: Program::Web(argv), port: Some(8080), ..contained("web", "") };
    platform.start(&spec, Progress::silent()).await.unwrap();
    assert_eq!(soon("the port", platform.ready(&spec.key)).await, Some(8080));
    let bindings = dock
        .inspect(&spec.key.session_id, "{{(index (index .NetworkSettings.Ports \"8080/tcp\") 0).HostIp}}");
    assert_eq!(bindings, "127.0.0.1");
    for request in [StreamRequest::Stream, StreamRequest::Port(8080)] {
        let mut stream = platform.open(&spec.key, request).await.unwrap();
        type_in(&mut stream, "GET / HTTP/1.0\r\n\r\n").await;
        read_until(&mut stream, "hello-web").await;
    }
    let refused = platform.open(&spec.key, StreamRequest::Port(9)).await.err().unwrap().chain();
    assert!(refused.contains("listens on port 9"), "{refused}");
    // Beside what it serves there is a shell.
    let mut terminal = platform.open(&spec.key, CONTROL).await.unwrap();
    type_in(&mut terminal, "echo shell-$((2*3))\n").await;
    read_until(&mut terminal, "shell-6").await;
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
    until("the shims to go", || crate::support::shims(dock.folder.path()).is_empty()).await;
}

#[tokio::test]
async fn a_shell_beside_a_program_ends_with_its_exit_code_and_one_that_nobody_saw_end_has_none() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let argv = ["sleep", "600"].map(str::to_owned).to_vec();
    let spec = SessionSpec { program: Program::Web(argv), port: Some(8080), ..contained("beside", "") };
    platform.start(&spec, Progress::silent()).await.unwrap();
    dock.inspect(&spec.key.session_id, "{{.Id}}");
    // Of two that come at once, neither is turned away: it is one shell.
    let (one, other) = tokio::join!(platform.open(&spec.key, CONTROL), platform.open(&spec.key, CONTROL));
    let (mut one, mut other) = (one.unwrap(), other.unwrap());
    type_in(&mut one, "echo both-$((4*4))\n").await;
    read_until(&mut other, "both-16").await;
    drop((one, other));
    for code in [0, 5] {
        let mut terminal = platform.open(&spec.key, CONTROL).await.unwrap();
        type_in(&mut terminal, &format!("exit {code}\n")).await;
        let (_, texts) = soon("its end", read_all(&mut terminal)).await;
        let wanted = format!(r#"{{"type":"exit","code":{code}}}"#);
        assert_eq!(texts.last(), Some(&wanted));
    }
    // As an engine that was killed and knows nothing of it.
    relay.refuse("/exec/", "/json", "404 Not Found", "No such exec instance");
    let mut terminal = platform.open(&spec.key, CONTROL).await.unwrap();
    type_in(&mut terminal, "exit 0\n").await;
    let (bytes, texts) = soon("its end", read_all(&mut terminal)).await;
    let said = String::from_utf8_lossy(&bytes).into_owned();
    assert!(said.contains("nobody knows how the shell ended"), "{said:?} {texts:?}");
    assert_eq!(texts.last().unwrap(), r#"{"type":"exit","code":255}"#);
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn what_no_session_owns_is_removed_and_what_was_forgotten_is_found() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let (kept, orphan) = (contained("kept", "sleep 600"), contained("orphan", "sleep 600"));
    for spec in [&kept, &orphan] {
        platform.start(spec, Progress::silent()).await.unwrap();
        dock.inspect(&spec.key.session_id, "{{.Id}}");
    }
    let mut found: Vec<SessionKey> = platform.discover().await.into_iter().map(|found| found.key).collect();
    found.sort_by(|a, b| a.session_id.cmp(&b.session_id));
    assert_eq!(found, [kept.key.clone(), orphan.key.clone()]);
    platform.sweep(std::slice::from_ref(&kept.key)).await;
    assert_eq!(dock.container(&orphan.key.session_id), None);
    assert_eq!(platform.find(&kept.key).await.unwrap(), Found::Running);
    platform.stop(&kept.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_said_and_leaves_nothing() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let spec = SessionSpec { image: Some("127.0.0.1:9/no/such:1".into()), ..contained("noimage", "true") };
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    let progress = Progress::new(move |sentence| list.lock().unwrap().push(sentence));
    let refused = platform.start(&spec, progress).await.unwrap_err().chain();
    assert!(refused.contains("the image 127.0.0.1:9/no/such:1 cannot be fetched"), "{refused}");
    assert!(told.lock().unwrap().iter().any(|sentence| sentence.contains("fetching the image")));
    assert_eq!(dock.container(&spec.key.session_id), None);
}

#[tokio::test]
async fn a_program_that_is_not_in_the_image_says_so_with_127() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let program = Program::Command(vec!["no-such-program".into()]);
    let spec = SessionSpec { program, ..contained("missing", "") };
    platform.start(&spec, Progress::silent()).await.unwrap();
    let ended = soon("the end", platform.watch(&spec.key)).await;
    let Ended::Exited(exit) = ended else { panic!("it was not lost: {ended:?}") };
    assert_eq!(exit.code, 127);
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, _) = read_all(&mut logs).await;
    assert!(String::from_utf8_lossy(&bytes).contains("no-such-program"));
    platform.release(&spec.key).await.unwrap();
}

#[tokio::test]
async fn what_is_asked_while_the_engine_is_away_is_done_when_it_is_back() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let spec = contained("away", "echo here; exec sleep 600");

    relay.go_away();
    let starting = tokio::spawn({
        let (platform, spec) = (Arc::clone(&platform), spec.clone());
        async move { platform.start(&spec, Progress::silent()).await }
    });
    until("the engine was asked", || relay.turned_away() > 0).await;
    relay.come_back();
    soon("the start", starting).await.unwrap().unwrap();
    assert_eq!(dock.inspect(&spec.key.session_id, "{{.State.Status}}"), "running");

    let asked = relay.turned_away();
    relay.go_away();
    let stopping = tokio::spawn({
        let (platform, key) = (Arc::clone(&platform), spec.key.clone());
        async move { platform.stop(&key, Keep::Nothing).await }
    });
    until("the engine was asked again", || relay.turned_away() > asked).await;
    relay.come_back();
    soon("the stop", stopping).await.unwrap().unwrap();
    assert_eq!(dock.container(&spec.key.session_id), None, "nothing is left of it");
}

#[tokio::test]
async fn a_container_that_its_engine_does_not_stop_is_removed_by_force() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let spec = contained("unstopped", "exec sleep 600");
    platform.start(&spec, Progress::silent()).await.unwrap();
    dock.inspect(&spec.key.session_id, "{{.Id}}");
    let why = "cannot stop container: tried to kill container, but did not receive an exit event";
    relay.refuse("POST", "/stop", "500 Internal Server Error", why);
    soon("the stop", platform.stop(&spec.key, Keep::Nothing)).await.unwrap();
    assert_eq!(dock.container(&spec.key.session_id), None, "nothing is left of it");
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_happened_once() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let spec = contained("lost-answer", "echo once >> $HOME/ran; cat $HOME/ran; sleep 2; exit 7");
    relay.lose_the_answer_to("/start");
    soon("the start", platform.start(&spec, Progress::silent())).await.unwrap();
    dock.inspect(&spec.key.session_id, "{{.Id}}");
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, texts) = read_all(&mut logs).await;
    assert_eq!(String::from_utf8_lossy(&bytes), "once\r\n", "it ran once, and what it printed was seen");
    assert_eq!(texts.last().unwrap(), r#"{"type":"exit","code":7}"#);
    let ended = soon("the end", platform.watch(&spec.key)).await;
    let Ended::Exited(exit) = ended else { panic!("it was not lost: {ended:?}") };
    assert_eq!(exit.code, 7, "the engine's silence is no exit code");
    platform.release(&spec.key).await.unwrap();
}

#[tokio::test]
async fn a_home_that_an_agent_left_behind_half_made_is_its_users() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let spec = contained("half", "echo mine > $HOME/file && exit 5");
    // Between the volume and its new owner, this agent ends.
    relay.lose_the_answer_to("/volumes/create");
    relay.stay_away_then();
    let ended = tokio::spawn({
        let (platform, spec) = (Arc::clone(&platform), spec.clone());
        async move { platform.start(&spec, Progress::silent()).await }
    });
    until("the home is made", || relay.turned_away() > 0).await;
    ended.abort();
    drop(ended.await);
    relay.come_back();
    platform.start(&spec, Progress::silent()).await.unwrap();
    dock.inspect(&spec.key.session_id, "{{.Id}}");
    let ended = soon("the end", platform.watch(&spec.key)).await;
    let Ended::Exited(exit) = ended else { panic!("it was not lost: {ended:?}") };
    assert_eq!(exit.code, 5, "its home was not root's");
    platform.release(&spec.key).await.unwrap();
}

#[tokio::test]
async fn a_home_that_its_engine_did_not_finish_is_made_again() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let command = contained("unfinished", "echo mine > $HOME/file && exit 5");
    let web = ["sh", "-c", "echo mine > $TIDEGATE_HOME/file && exit 5"].map(str::to_owned).to_vec();
    let web = SessionSpec { program: Program::Web(web), port: Some(8080), ..contained("unfinished", "") };
    let shared =
        SessionSpec { owner: id("org-1/grace"), persistent_home: true, ..contained("unfinished", "exit 5") };
    for spec in [command, web, shared] {
        let asked = relay.turned_away();
        relay.lose_the_answer_to("/volumes/create");
        relay.stay_away_then();
        let starting = tokio::spawn({
            let (platform, spec) = (Arc::clone(&platform), spec.clone());
            async move { platform.start(&spec, Progress::silent()).await }
        });
        until("the home is asked for", || relay.turned_away() > asked).await;
        // As an engine leaves one that is killed between the volume and the volume's folder.
        let home = dock.home_of(&spec);
        std::fs::remove_dir(&home).unwrap();
        relay.come_back();
        soon("the start", starting).await.unwrap().unwrap();
        dock.inspect(&spec.key.session_id, "{{.Id}}");
        let ended = soon("the end", platform.watch(&spec.key)).await;
        let Ended::Exited(exit) = ended else { panic!("it was not lost: {ended:?}") };
        assert_eq!(exit.code, 5, "its home is its user's");
        platform.release(&spec.key).await.unwrap();
    }
}

#[tokio::test]
async fn a_home_that_somebody_had_is_never_made_again() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let text = "echo mine > $HOME/file && echo there; sleep 600";
    let first = SessionSpec { owner: id("org-1/heidi"), persistent_home: true, ..contained("away", text) };
    platform.start(&first, Progress::silent()).await.unwrap();
    dock.inspect(&first.key.session_id, "{{.Id}}");
    let mut logs = platform.open(&first.key, LOGS).await.unwrap();
    read_until(&mut logs, "there").await;
    let home = dock.home_of(&first);
    platform.stop(&first.key, Keep::Nothing).await.unwrap();
    // As on a disk that is not mounted at the moment.
    let elsewhere = home.with_file_name("elsewhere");
    std::fs::rename(&home, &elsewhere).unwrap();
    let second = SessionSpec { key: contained("away", "").key, ..first };
    platform.start(&second, Progress::silent()).await.unwrap_or_default();
    let ended = soon("the end", platform.watch(&second.key)).await;
    let Ended::Lost(reason) = ended else { panic!("nothing ran: {ended:?}") };
    assert!(reason.contains("the home is not where the engine kept it"), "{reason}");
    assert!(!home.exists(), "nothing was put in its place");
    std::fs::rename(&elsewhere, &home).unwrap();
    assert_eq!(std::fs::read_to_string(home.join("file")).unwrap(), "mine\n");
    platform.release(&second.key).await.unwrap();
}

#[tokio::test]
async fn a_home_whose_labels_died_with_its_engine_is_removed_with_its_session() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let spec = contained("labels", "sleep 600");
    platform.start(&spec, Progress::silent()).await.unwrap();
    let kept = dock.inspect(&spec.key.session_id, "{{range .Mounts}}{{.Name}}{{end}}");
    let (of_the_agent, _) = kept.split_once(&spec.key.session_id).unwrap();
    let strays = [format!("{of_the_agent}{}", id("gone")), format!("other-{of_the_agent}{}", id("gone"))];
    for stray in &strays {
        dock.docker(&["volume", "create", stray]);
    }
    platform.sweep(std::slice::from_ref(&spec.key)).await;
    let all = dock.docker(&["volume", "ls", "-q"]);
    let left = |name: &str| all.lines().any(|line| line == name);
    assert!(!left(&strays[0]), "no session owns it");
    assert!(left(&strays[1]) && left(&kept), "it is another's, or in use");
    dock.docker(&["volume", "rm", &strays[1]]);
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn an_empty_home_stays_its_users_whatever_is_made_again() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let mut spec = contained("empty-home", "stat -c %u:%a $HOME; exec sleep 600");
    for generation in 1..=2 {
        spec.key.generation = generation;
        platform.start(&spec, Progress::silent()).await.unwrap();
        dock.inspect(&spec.key.session_id, "{{.Id}}");
        let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
        read_until(&mut logs, "1000:700").await;
        // Nothing was written: the volume is as empty as a new one.
        platform.stop(&spec.key, Keep::Home).await.unwrap();
    }
    platform.release(&spec.key).await.unwrap();
}

#[tokio::test]
async fn a_start_that_no_engine_heard_of_happens_once() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let spec = contained("unheard", "echo once >> $HOME/ran; cat $HOME/ran; exit 7");
    let starting = relay.lose_start(&platform, &spec).await;
    let first = dock.inspect(&spec.key.session_id, "{{.Id}}");

    // An agent that comes now finds a container that never ran, and a bridge that is at work on it.
    let next = dock.platform().await;
    assert_eq!(next.find(&spec.key).await.unwrap(), Found::Starting);

    relay.come_back();
    soon("the start", starting).await.unwrap().unwrap();
    let ended = soon("the end", platform.watch(&spec.key)).await;
    let Ended::Exited(exit) = ended else { panic!("it was not lost: {ended:?}") };
    assert_eq!(exit.code, 7, "it ended by itself, and its home was not root's");
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, _) = read_all(&mut logs).await;
    assert_eq!(String::from_utf8_lossy(&bytes), "once\r\n", "it ran once");
    assert_ne!(
        dock.inspect(&spec.key.session_id, "{{.Id}}"),
        first,
        "the dead engine's container was not used"
    );
    platform.release(&spec.key).await.unwrap();
}

#[tokio::test]
async fn a_start_that_failed_for_a_passing_reason_of_the_engines_happens_once() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let reasons = [
        // Its containerd is only just starting again.
        "connection error: desc = \"transport: Error while dialing dial unix /run/containerd.sock: connect: \
         connection refused\": unavailable",
        // Somebody pruned networks that nobody was in.
        "network tidegate-sessions not found",
        // It was killed before, and believes that a container of this name is still in the network.
        "endpoint with name NAME already exists in network tidegate-sessions",
    ];
    for reason in reasons {
        let spec = contained("passing", "echo once >> $HOME/ran; cat $HOME/ran; exit 7");
        let reason = reason.replace("NAME", &spec.key.session_id);
        relay.refuse("POST", "/start", "500 Internal Server Error", &reason);
        soon("the start", platform.start(&spec, Progress::silent())).await.unwrap();
        dock.inspect(&spec.key.session_id, "{{.Id}}");
        let ended = soon("the end", platform.watch(&spec.key)).await;
        let Ended::Exited(exit) = ended else { panic!("it was not lost: {ended:?}") };
        assert_eq!(exit.code, 7, "{reason}");
        let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
        let (bytes, _) = read_all(&mut logs).await;
        assert_eq!(String::from_utf8_lossy(&bytes), "once\r\n", "it ran once: {reason}");
        platform.release(&spec.key).await.unwrap();
    }
}

#[tokio::test]
async fn a_start_that_may_have_happened_is_not_repeated() {
    let Some(dock) = Dock::new() else { return };
    let relay = Relay::new(dock.folder.path().join("engine.sock"), dock.socket.clone());
    let platform = dock.platform_at(relay.socket.clone()).await;
    let spec = contained("in-doubt", "echo a second time; exit 7");
    let starting = relay.lose_start(&platform, &spec).await;
    // As a runtime leaves a container that it started before its engine died with it.
    let left = dock.folder.path().join("left");
    std::fs::create_dir_all(left.join("sbin")).unwrap();
    std::fs::write(left.join("sbin/docker-init"), "").unwrap();
    let place = format!("{}:/", dock.inspect(&spec.key.session_id, "{{.Id}}"));
    dock.docker(&["cp", &format!("{}/.", left.display()), &place]);

    relay.come_back();
    let refused = soon("the start", starting).await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("nobody can say whether its program ran"), "{refused}");
    // The same for an agent that did not live to hear it.
    let next = dock.platform().await;
    let again = next.start(&spec, Progress::silent()).await.unwrap_err().to_string();
    assert_eq!(again, refused);
    // Its bridge says so before it ends.
    let ended = soon("the end", next.watch(&spec.key)).await;
    assert_eq!(ended, Ended::Lost(refused), "no exit code was made up");
    assert_eq!(next.find(&spec.key).await.unwrap(), Found::Ended(ended));
    next.release(&spec.key).await.unwrap();
}

#[tokio::test]
async fn an_end_that_nobody_saw_has_no_exit_code() {
    let Some(dock) = Dock::new() else { return };
    let platform = dock.platform().await;
    let spec = contained("unseen", "sleep 1; exit 255");
    platform.start(&spec, Progress::silent()).await.unwrap();
    let container = dock.inspect(&spec.key.session_id, "{{.Id}}");
    // Whoever holds its terminal is killed, and nobody watches when it ends.
    for pid in crate::support::shims(dock.folder.path()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    dock.docker(&["wait", &container]);
    let found = platform.find(&spec.key).await.unwrap();
    let Found::Ended(Ended::Lost(reason)) = found else { panic!("nobody knows its exit code: {found:?}") };
    assert!(reason.contains("does not know its exit code"), "{reason}");
    platform.release(&spec.key).await.unwrap();
}

/// What stands between an agent and its engine, and can be away.
struct Relay {
    socket: PathBuf,
    away: Arc<watch::Sender<bool>>,
    turned_away: Arc<AtomicUsize>,
    lost: Arc<Mutex<Lost>>,
    task: tokio::task::JoinHandle<()>,
}

/// The answer that is lost, once.
#[derive(Default)]
struct Lost {
    to: Option<&'static str>,
    /// The engine hears nothing of it either.
    unheard: bool,
    then_away: bool,
    /// The next request that is refused before the engine hears of it: what is in its line, and what it is told.
    refused: Option<([&'static str; 2], Vec<u8>)>,
}

impl Relay {
    fn new(socket: PathBuf, engine: PathBuf) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let (away, turned_away) = (Arc::new(watch::Sender::new(false)), Arc::new(AtomicUsize::new(0)));
        let lost = Arc::new(Mutex::new(Lost::default()));
        let (is_away, count, losing) = (Arc::clone(&away), Arc::clone(&turned_away), Arc::clone(&lost));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if *is_away.borrow() {
                    count.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let engine = UnixStream::connect(&engine).await.unwrap();
                open.spawn(carry(client, engine, Arc::clone(&is_away), Arc::clone(&losing)));
            }
        });
        Self { socket, away, turned_away, lost, task }
    }

    fn go_away(&self) {
        self.away.send_replace(true);
    }

    fn come_back(&self) {
        self.away.send_replace(false);
    }

    fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// The engine does what the next such request asks for, and nobody hears of it.
    fn lose_the_answer_to(&self, path: &'static str) {
        self.lost.lock().unwrap().to = Some(path);
    }

    fn stay_away_then(&self) {
        self.lost.lock().unwrap().then_away = true;
    }

    /// The next request with these words in its line is refused.
    fn refuse(&self, one: &'static str, other: &'static str, status: &str, message: &str) {
        self.lost.lock().unwrap().refused = Some(([one, other], answer(status, message)));
    }

    /// Starts a session whose container the engine is asked to start at the moment in which it goes away.
    async fn lose_start(
        &self,
        platform: &Arc<DockerPlatform>,
        spec: &SessionSpec,
    ) -> tokio::task::JoinHandle<Result<(), tidegate_agent::Error>> {
        self.lose_the_answer_to("/start");
        self.lost.lock().unwrap().unheard = true;
        self.stay_away_then();
        let (platform, spec) = (Arc::clone(platform), spec.clone());
        let starting = tokio::spawn(async move { platform.start(&spec, Progress::silent()).await });
        until("the start was asked for", || self.turned_away() > 0).await;
        starting
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How an engine says that something went wrong.
fn answer(status: &str, message: &str) -> Vec<u8> {
    let body = serde_json::json!({ "message": message }).to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: ");
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn carry(
    client: UnixStream,
    engine: UnixStream,
    away: Arc<watch::Sender<bool>>,
    lost: Arc<Mutex<Lost>>,
) {
    let mut gone = away.subscribe();
    let ((mut from_client, mut to_client), (mut from_engine, mut to_engine)) =
        (client.into_split(), engine.into_split());
    let (mut asked, mut answered, mut asks) = (vec![0; 16 * 1024], vec![0; 16 * 1024], true);
    loop {
        tokio::select! {
            () = async { drop(gone.wait_for(|gone| *gone).await) } => return,
            read = from_client.read(&mut asked), if asks => {
                let length = read.unwrap_or(0);
                if length == 0 {
                    asks = false;
                    drop(to_engine.shutdown().await);
                    continue;
                }
                let (loses, refused) = {
                    let mut lost = lost.lock().unwrap();
                    let line = String::from_utf8_lossy(&asked[..length]);
                    let line = line.lines().next().unwrap_or_default();
                    let loses = lost.to.take_if(|path| line.starts_with("POST") && line.contains(*path)).is_some();
                    let refused = lost.refused.take_if(|(parts, _)| parts.iter().all(|part| line.contains(*part)));
                    (loses, refused)
                };
                if let Some((_, answer)) = refused {
                    to_client.write_all(&answer).await.unwrap();
                    continue;
                }
                let unheard = loses && lost.lock().unwrap().unheard;
                if !unheard {
                    to_engine.write_all(&asked[..length]).await.unwrap();
                }
                if loses {
                    if !unheard {
                        drop(from_engine.read(&mut answered).await);
                    }
                    if lost.lock().unwrap().then_away {
                        away.send_replace(true);
                    }
                    return;
                }
            }
            read = from_engine.read(&mut answered) => {
                let length = read.unwrap_or(0);
                if length == 0 || to_client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
