//! The embedded nats-server against the installed one: first start, restarts, and every way of being killed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;
use tidegate_engines::Error;
use tidegate_engines::nats::{Nats, Options, Status, Trust, find, running_url};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Far more than anything here takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);
/// Tells this test program to be the owner of the data in the folder, until it is killed.
const OWNER_OF: &str = "TIDEGATE_ENGINES_TEST_NATS_OWNER_OF";

/// Tokens of the broker's golden vectors: public halves of keys that nobody uses.
fn trust() -> Trust {
    let golden = include_str!("../../broker/tests/golden/jwt.json");
    let value = |key: &str| {
        let line = golden.lines().find(|line| line.trim().starts_with(&format!("\"{key}\""))).unwrap();
        line.split('"').nth(3).unwrap().to_owned()
    };
    Trust {
        operator: value("operator"),
        system_account: "ADWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435D6HD".to_owned(),
        system_token: value("system"),
    }
}

fn folder() -> TempDir {
    // the server's user has to pass through it when the tests run as root
    tempfile::Builder::new().prefix("tg").permissions(fs::Permissions::from_mode(0o711)).tempdir().unwrap()
}

fn options(folder: &Path) -> Options {
    Options::for_tests(folder, trust())
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut poll = interval(Duration::from_millis(10));
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let wait = async {
        while !condition() {
            poll.tick().await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what} did not happen"));
}

fn pid_of(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap())
}

fn runs(pid: u32) -> bool {
    // a zombie that its parent has not waited for runs no more
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// What the server says first; after `connect`, what it says to it.
fn say(url: &str, connect: Option<&str>) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port_of(url))).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    if let Some(text) = connect {
        stream.write_all(format!("CONNECT {text}\r\nPING\r\n").as_bytes()).unwrap();
    }
    let lines = BufReader::new(stream).lines().take(2).map_while(Result::ok);
    lines.take(if connect.is_some() { 2 } else { 1 }).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_first_start_makes_a_private_server_that_stores_on_disk_and_lets_no_stranger_in() {
    let folder = folder();
    let nats = Nats::start(options(folder.path())).await.unwrap();
    assert!(nats.url().starts_with("nats://127.0.0.1:"), "{}", nats.url());
    assert_eq!(nats.version(), find(None).unwrap().version);
    let info = say(&nats.url(), None);
    assert!(info.contains("\"jetstream\":true") && info.contains("\"auth_required\":true"), "{info}");
    assert!(info.contains("\"max_payload\":1048576"), "{info}");
    let refused = say(&nats.url(), Some("{}"));
    assert!(refused.contains("Authorization Violation"), "{refused}");
    let data = folder.path().join("data");
    for name in ["nats", "nats/accounts", "nats/streams"] {
        assert_eq!(fs::metadata(data.join(name)).unwrap().mode() & 0o777, 0o700, "{name}");
    }
    assert_eq!(fs::metadata(data.join("nats/nats.conf")).unwrap().mode() & 0o777, 0o600);
    let pid = nats.pid().unwrap();
    nats.stop().await.unwrap();
    assert!(!runs(pid));
    assert!(running_url(&data).unwrap_err().to_string().contains("start it first"));
}

#[tokio::test]
async fn for_real_use_every_message_is_synced_before_it_is_acknowledged() {
    let folder = folder();
    let nats = Nats::start(Options::new(folder.path().join("data"), trust())).await.unwrap();
    let config = fs::read_to_string(folder.path().join("data/nats/nats.conf")).unwrap();
    assert!(config.contains("sync_interval: always"), "{config}");
    nats.stop().await.unwrap();
    let log = fs::read_to_string(folder.path().join("data/nats.log")).unwrap();
    assert!(log.contains("Starting JetStream") && !log.contains("[WRN]"), "{log}");
}

#[tokio::test]
async fn started_as_root_the_server_runs_as_somebody_else() {
    let folder = folder();
    let nats = Nats::start(options(folder.path())).await.unwrap();
    let owner = fs::metadata(format!("/proc/{}", nats.pid().unwrap())).unwrap().uid();
    assert_ne!(owner, 0, "it runs as root");
    assert_eq!(fs::metadata(folder.path().join("data/nats")).unwrap().uid(), owner);
    if Uid::effective().is_root() {
        let root = Options { run_as: Some("root".to_owned()), ..options(&folder.path().join("other")) };
        let error = Nats::start(root).await.unwrap_err();
        assert!(error.to_string().contains("refuses to run as root"), "{error}");
    }
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn a_program_that_the_servers_user_cannot_reach_is_copied() {
    let (folder, hidden) = (folder(), tempfile::tempdir().unwrap());
    fs::set_permissions(hidden.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(find(None).unwrap().path, hidden.path().join("nats-server")).unwrap();
    let bin_dirs = Some(vec![hidden.path().to_owned()]);
    let nats = Nats::start(Options { bin_dirs, ..options(folder.path()) }).await.unwrap();
    let program = fs::read_link(format!("/proc/{}/exe", nats.pid().unwrap())).unwrap();
    assert_eq!(program.starts_with(folder.path()), Uid::effective().is_root(), "{}", program.display());
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn it_listens_where_it_did_before_unless_somebody_else_does() {
    let folder = folder();
    let nats = Nats::start(options(folder.path())).await.unwrap();
    let first = nats.url();
    nats.stop().await.unwrap();
    let nats = Nats::start(options(folder.path())).await.unwrap();
    assert_eq!(nats.url(), first);
    nats.stop().await.unwrap();
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, port_of(&first))).unwrap();
    let nats = Nats::start(options(folder.path())).await.unwrap();
    assert_ne!(nats.url(), first);
    nats.stop().await.unwrap();
    let asked = Options { port: Some(port_of(&first)), ..options(folder.path()) };
    let error = Nats::start(asked).await.unwrap_err();
    assert!(matches!(error, Error::NotStarted { .. }), "{error}");
    assert!(error.to_string().contains("address already in use"), "{error}");
    drop(stranger);
}

#[tokio::test]
async fn one_process_owns_a_data_directory_and_says_where_the_server_is() {
    let folder = folder();
    let nats = Nats::start(options(folder.path())).await.unwrap();
    let error = Nats::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::Owned { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert_eq!(running_url(&folder.path().join("data")).unwrap(), nats.url());
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_comes_back_at_the_same_place() {
    let folder = folder();
    let nats = Nats::start(options(folder.path())).await.unwrap();
    let (url, mut status) = (nats.url(), nats.status());
    for _ in 0..3 {
        let killed = nats.pid().unwrap();
        kill(pid_of(killed), Signal::SIGKILL).unwrap();
        let back = status.wait_for(|status| matches!(status, Status::Ready { pid } if *pid != killed));
        timeout(DEADLINE, back).await.unwrap().unwrap();
        assert!(say(&url, None).contains("tidegate-"));
    }
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_is_killed_when_it_is_to_stop() {
    let folder = folder();
    let shutdown_timeout = Duration::from_millis(200);
    let nats = Nats::start(Options { shutdown_timeout, ..options(folder.path()) }).await.unwrap();
    let pid = nats.pid().unwrap();
    kill(pid_of(pid), Signal::SIGSTOP).unwrap();
    timeout(DEADLINE, nats.stop()).await.unwrap().unwrap();
    assert!(!runs(pid));
}

/// Not a test of its own: with [`OWNER_OF`] set, this program starts the server there and waits to be killed.
#[tokio::test]
async fn owner() {
    let Some(folder) = std::env::var_os(OWNER_OF) else { return };
    let nats = Nats::start(options(Path::new(&folder))).await.unwrap();
    println!("\nready {}", nats.pid().unwrap());
    std::future::pending::<()>().await;
}

fn owner_of(folder: &TempDir) -> (Child, u32) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner", "--nocapture"])
        .env(OWNER_OF, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
    (owner, ready.unwrap().parse().unwrap())
}

#[tokio::test]
async fn the_server_of_a_killed_owner_ends_by_itself() {
    let folder = folder();
    let (mut owner, server) = owner_of(&folder);
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the server ends", || !runs(server)).await;
    Nats::start(options(folder.path())).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_outlived_its_owner_is_ended_before_another_works_on_its_store() {
    let folder = folder();
    let (mut owner, server) = owner_of(&folder);
    // frozen, so that the watcher's signal does not end it
    kill(pid_of(server), Signal::SIGSTOP).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let shutdown_timeout = Duration::from_millis(200);
    let nats = Nats::start(Options { shutdown_timeout, ..options(folder.path()) }).await.unwrap();
    assert!(!runs(server));
    nats.stop().await.unwrap();
}
