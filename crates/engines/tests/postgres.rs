//! The embedded PostgreSQL against the installed one: first start, restarts, and every way of being killed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tidegate_engines::Error;
use tidegate_engines::postgres::{APP, Access, Durability, MIGRATOR, Options, Postgres, Status, find};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Far more than anything here takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);
/// Tells this test program to be the owner of the data in the folder, until it is killed.
const OWNER_OF: &str = "TIDEGATE_ENGINES_TEST_OWNER_OF";

fn folder() -> TempDir {
    // the database user has to pass through it when the tests run as root
    tempfile::Builder::new().prefix("tg").permissions(fs::Permissions::from_mode(0o711)).tempdir().unwrap()
}

async fn start(folder: &TempDir) -> Postgres {
    Postgres::start(Options::for_tests(folder.path())).await.unwrap()
}

async fn remember(postgres: &Postgres) {
    let sql = "CREATE TABLE IF NOT EXISTS memory (note text); INSERT INTO memory VALUES ('kept')";
    postgres.run_superuser_sql("postgres", sql).await.unwrap();
}

async fn remembered(postgres: &Postgres) -> String {
    postgres.superuser_query("postgres", "SELECT note FROM memory").await.unwrap()
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

#[tokio::test]
async fn a_first_start_makes_a_private_cluster_with_passwords() {
    let folder = folder();
    let postgres = start(&folder).await;
    let query = "SELECT current_setting('listen_addresses'), current_setting('data_checksums'), \
                 current_setting('server_encoding'), current_setting('TimeZone'), \
                 current_setting('password_encryption'), current_setting('unix_socket_permissions')";
    let settings = postgres.superuser_query("postgres", query).await.unwrap();
    assert_eq!(settings.trim(), "|on|UTF8|UTC|scram-sha-256|0700");
    assert_eq!(fs::metadata(postgres.socket_dir()).unwrap().mode() & 0o777, 0o700);
    for name in
        ["postgres.password", "postgres.pgpass", "tidegate_app.password", "tidegate_migrator.password"]
    {
        let path = folder.path().join("data/secrets").join(name);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_ne!(postgres.password(APP).unwrap(), postgres.password(MIGRATOR).unwrap());
    assert!(postgres.url("stranger", "postgres").is_err());
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_for_real_use_is_durable() {
    let folder = folder();
    let options = Options { durability: Durability::Full, ..Options::for_tests(folder.path()) };
    let postgres = Postgres::start(options).await.unwrap();
    let query = "SELECT current_setting('fsync'), current_setting('synchronous_commit'), \
                 current_setting('full_page_writes')";
    assert_eq!(postgres.superuser_query("postgres", query).await.unwrap().trim(), "on|on|on");
    postgres.stop().await.unwrap();
    let error = Access::to_running(&Options::for_tests(folder.path())).unwrap_err();
    assert!(error.to_string().contains("start it first"), "{error}");
}

#[tokio::test]
async fn a_login_role_connects_by_its_url_and_only_with_its_password() {
    let folder = folder();
    let postgres = start(&folder).await;
    let password = postgres.password(APP).unwrap().expose();
    let role = format!("CREATE ROLE {APP} LOGIN PASSWORD '{password}'");
    postgres.run_superuser_sql("postgres", &role).await.unwrap();
    postgres.create_database("it's mine", APP).await.unwrap();
    postgres.create_database("it's mine", APP).await.unwrap();

    let url = postgres.url(APP, "it's mine").unwrap();
    let psql = find(None, None).unwrap().folder.join("psql");
    let connect = |url: &str| {
        Command::new(&psql).args(["-Xwtc", "SELECT current_user, current_database()", url]).output().unwrap()
    };
    let answer = connect(&url);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "tidegate_app | it's mine");
    assert!(!connect(&url.replace(password, "wrong")).status.success());
    assert!(connect(&postgres.superuser_url("postgres")).status.success());
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_script_stops_at_its_first_error_and_its_secrets_stay_out_of_the_log() {
    let folder = folder();
    let postgres = start(&folder).await;
    let script = "CREATE ROLE a PASSWORD 'hidden' NONSENSE; CREATE TABLE later (id int);";
    let error = postgres.run_superuser_sql("postgres", script).await.unwrap_err();
    assert!(
        error.to_string().contains("syntax error") || error.to_string().contains("unrecognized"),
        "{error}"
    );
    let tables =
        postgres.superuser_query("postgres", "SELECT count(*) FROM pg_class WHERE relname = 'later'").await;
    assert_eq!(tables.unwrap().trim(), "0");
    assert!(!fs::read_to_string(folder.path().join("data/postgres.log")).unwrap().contains("hidden"));
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn data_survives_a_clean_restart_and_nothing_runs_in_between() {
    let folder = folder();
    let postgres = start(&folder).await;
    remember(&postgres).await;
    let pid = postgres.pid().unwrap();
    let status = postgres.status();
    postgres.stop().await.unwrap();
    assert!(!runs(pid));
    assert_eq!(*status.borrow(), Status::Stopped);

    let again = start(&folder).await;
    assert_eq!(remembered(&again).await.trim(), "kept");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_data_although_a_backend_was_busy() {
    let folder = folder();
    let postgres = start(&folder).await;
    remember(&postgres).await;
    let mut status = postgres.status();
    for _ in 0..2 {
        let pid = postgres.pid().unwrap();
        // so busy that it does not notice the end of its server
        let busy = postgres.superuser_query("postgres", "DO $$ BEGIN LOOP END LOOP; END $$");
        let murder = async {
            let query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %'";
            while postgres.superuser_query("postgres", query).await.unwrap().trim() != "1" {}
            kill(pid_of(pid), Signal::SIGKILL).unwrap();
        };
        let (cut, ()) = tokio::join!(busy, murder);
        cut.unwrap_err();
        let back = status.wait_for(|status| matches!(status, Status::Ready { pid: new } if *new != pid));
        timeout(DEADLINE, back).await.unwrap().unwrap();
        assert_eq!(remembered(&postgres).await.trim(), "kept");
    }
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_come_back_is_tried_until_it_can() {
    let folder = folder();
    let postgres = start(&folder).await;
    let configuration = folder.path().join("data/postgres/postgresql.conf");
    let good = fs::read(&configuration).unwrap();
    fs::write(&configuration, "shared_buffers = plenty\n").unwrap();
    kill(pid_of(postgres.pid().unwrap()), Signal::SIGKILL).unwrap();
    let log = folder.path().join("data/postgres.log");
    let tries = || fs::read_to_string(&log).unwrap().matches("invalid value for parameter").count();
    eventually("the third try", || tries() >= 3).await;
    assert_eq!(postgres.pid(), None);

    fs::write(&configuration, good).unwrap();
    let mut status = postgres.status();
    let back = status.wait_for(|status| matches!(status, Status::Ready { .. }));
    timeout(DEADLINE, back).await.unwrap().unwrap();
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_is_stopped_while_it_cannot_come_back() {
    let folder = folder();
    let postgres = start(&folder).await;
    fs::write(folder.path().join("data/postgres/postgresql.conf"), "shared_buffers = plenty\n").unwrap();
    kill(pid_of(postgres.pid().unwrap()), Signal::SIGKILL).unwrap();
    let mut status = postgres.status();
    timeout(DEADLINE, status.wait_for(|status| *status == Status::Restarting)).await.unwrap().unwrap();
    postgres.stop().await.unwrap();
    let error = Postgres::start(Options::for_tests(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::NotStarted { .. }), "the folder is free: {error}");
}

/// Not a test of its own: what the tests below start as another process. Without its variable it does nothing.
#[tokio::test]
async fn owner_process() {
    let Some(folder) = std::env::var_os(OWNER_OF) else { return };
    let postgres = Postgres::start(Options::for_tests(Path::new(&folder))).await.unwrap();
    remember(&postgres).await;
    println!("\nserver {}", postgres.pid().unwrap());
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}

/// Another process that starts the folder's server.
fn spawn_owner(folder: &TempDir) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["owner_process", "--exact", "--nocapture"])
        .env(OWNER_OF, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Another process that owns the folder's server; the server's pid.
fn another_owner(folder: &TempDir) -> (Child, u32) {
    let mut owner = spawn_owner(folder);
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let pid =
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("server ")?.parse().ok()).unwrap();
    (owner, pid)
}

#[tokio::test]
async fn a_second_owner_is_told_who_is_the_first_and_takes_over_when_that_is_killed() {
    let folder = folder();
    let (mut owner, server) = another_owner(&folder);
    let error = Postgres::start(Options::for_tests(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::Owned { pid: Some(pid), .. } if pid == owner.id()), "{error}");
    assert!(error.to_string().contains(&format!("in use by process {}", owner.id())), "{error}");

    let access = Access::to_running(&Options::for_tests(folder.path())).unwrap();
    let note = access.superuser_query("postgres", "SELECT note FROM memory").await.unwrap();
    assert_eq!(note.trim(), "kept", "another program of the user can use what it may not own");

    owner.kill().unwrap();
    owner.wait().unwrap();
    let heir = start(&folder).await;
    assert!(!runs(server), "the first owner's server is gone");
    assert_eq!(remembered(&heir).await.trim(), "kept");
    heir.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_ends_by_itself_when_its_owner_is_killed() {
    let folder = folder();
    let (mut owner, server) = another_owner(&folder);
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the end of the server", || !runs(server)).await;
}

#[tokio::test]
async fn a_dropped_server_is_stopped() {
    let folder = folder();
    let postgres = start(&folder).await;
    let pid = postgres.pid().unwrap();
    drop(postgres);
    eventually("the end of the server", || !runs(pid)).await;
}

#[tokio::test]
async fn a_server_that_nobody_watches_is_replaced() {
    let folder = folder();
    let postgres = start(&folder).await;
    remember(&postgres).await;
    let sockets = postgres.socket_dir().to_owned();
    postgres.stop().await.unwrap();

    let cluster = folder.path().join("data/postgres");
    let owner = fs::metadata(&cluster).unwrap();
    let mut orphan = Command::new(find(None, None).unwrap().folder.join("postgres"))
        .arg("-D")
        .arg(&cluster)
        .args(["-c", "listen_addresses=", "-c", &format!("unix_socket_directories={}", sockets.display())])
        .uid(owner.uid())
        .gid(owner.gid())
        .current_dir("/")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready =
        || fs::read_to_string(cluster.join("postmaster.pid")).is_ok_and(|text| text.contains("ready"));
    eventually("the start of the orphan", ready).await;

    let heir = start(&folder).await;
    orphan.wait().unwrap();
    assert_ne!(heir.pid(), Some(orphan.id()));
    assert_eq!(remembered(&heir).await.trim(), "kept");
    heir.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_whose_pid_belongs_to_a_stranger_by_now_does_not_hinder_a_start() {
    let folder = folder();
    let postgres = start(&folder).await;
    let sockets = postgres.socket_dir().to_owned();
    postgres.stop().await.unwrap();

    let cluster = folder.path().join("data/postgres");
    let owner = fs::metadata(&cluster).unwrap();
    let mut stranger = Command::new("cat")
        .uid(owner.uid())
        .gid(owner.gid())
        .current_dir("/")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stale = format!("{}\n{}\n1\n5432\n", stranger.id(), cluster.display());
    fs::write(cluster.join("postmaster.pid"), &stale).unwrap();
    fs::write(sockets.join(".s.PGSQL.5432.lock"), &stale).unwrap();

    let again = start(&folder).await;
    assert!(runs(stranger.id()), "the stranger was left alone");
    again.stop().await.unwrap();
    drop(stranger.stdin.take());
    stranger.wait().unwrap();
}

#[tokio::test]
async fn an_owner_killed_while_it_makes_the_cluster_leaves_nothing_half_made() {
    let folder = folder();
    let mut owner = spawn_owner(&folder);
    let data = folder.path().join("data");
    let begun = || {
        let drafts = fs::read_dir(&data).into_iter().flatten().flatten();
        drafts.map(|draft| draft.path().join("cluster/PG_VERSION")).any(|version| version.exists())
    };
    eventually("the making of the cluster", begun).await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(!data.join("postgres").exists());

    let heir = start(&folder).await;
    remember(&heir).await;
    heir.stop().await.unwrap();
}

#[tokio::test]
async fn a_half_made_cluster_is_thrown_away() {
    let folder = folder();
    let draft = folder.path().join("data/postgres.draft-1");
    fs::create_dir_all(&draft).unwrap();
    fs::set_permissions(folder.path().join("data"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(draft.join("PG_VERSION"), "15").unwrap();
    let postgres = start(&folder).await;
    assert!(!draft.exists());
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_quotes_the_log_and_leaves_the_folder_free() {
    let folder = folder();
    start(&folder).await.stop().await.unwrap();
    let configuration = folder.path().join("data/postgres/postgresql.conf");
    let good = fs::read(&configuration).unwrap();
    fs::write(&configuration, "shared_buffers = plenty\n").unwrap();
    let error = Postgres::start(Options::for_tests(folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("invalid value for parameter \"shared_buffers\""), "{error}");
    fs::write(&configuration, good).unwrap();
    start(&folder).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_without_its_password_is_refused_by_name() {
    let folder = folder();
    start(&folder).await.stop().await.unwrap();
    fs::remove_file(folder.path().join("data/secrets/postgres.password")).unwrap();
    let error = Postgres::start(Options::for_tests(folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
}

#[tokio::test]
async fn without_programs_the_error_says_how_to_install_them() {
    let folder = folder();
    let empty = folder.path().join("empty");
    let options = Options { bin_dirs: Some(vec![empty.clone()]), ..Options::for_tests(folder.path()) };
    let error = Postgres::start(options).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Missing { .. }), "{text}");
    assert!(text.contains("PostgreSQL 15 or newer") && text.contains(empty.to_str().unwrap()), "{text}");
    assert!(text.contains("install"), "{text}");
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[tokio::test]
async fn an_existing_cluster_asks_for_the_version_that_made_it() {
    let folder = folder();
    fs::create_dir_all(folder.path().join("data/postgres")).unwrap();
    fs::write(folder.path().join("data/postgres/PG_VERSION"), "9\n").unwrap();
    let error = Postgres::start(Options::for_tests(folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("PostgreSQL 9, which made the existing cluster"), "{error}");
}

#[tokio::test]
async fn a_socket_path_too_long_for_the_system_is_refused() {
    let folder = folder();
    let run_dir = folder.path().join("r".repeat(100));
    let options = Options { run_dir, ..Options::for_tests(folder.path()) };
    let error = Postgres::start(options).await.unwrap_err();
    assert!(matches!(error, Error::SocketPathTooLong { length, limit: 107, .. } if length > 107), "{error}");
    assert!(error.to_string().contains("choose a shorter run directory"), "{error}");
}

#[tokio::test]
async fn a_folder_closed_to_the_database_user_is_named() {
    if !nix::unistd::Uid::effective().is_root() {
        // an ordinary user is the database user, to whom nothing of his own is closed
        return;
    }
    let closed = folder();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = Postgres::start(Options::for_tests(closed.path())).await.unwrap_err();
    assert!(matches!(&error, Error::Closed { folder, .. } if folder == closed.path()), "{error}");
}
