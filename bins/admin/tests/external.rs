//! The README's way to run on a PostgreSQL of somebody else's, command by command: roles, database, configuration,
//! migrations, bootstrap, doctor, control plane, login, backup and restore.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

use std::{
    fs::{self, File, Permissions},
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;
use tidegate_client::{Client, MemoryStore};
use tidegate_control_plane::{Config, run};
use tidegate_model::Secret;
use tidegate_test_support::{ExternalPostgres, TestCa, eventually_some};
use tokio_util::sync::CancellationToken;

/// A DBA's server that lets nobody in who is not encrypted, and the machine of the control plane.
struct Stand {
    server: ExternalPostgres,
    machine: TempDir,
}

impl Stand {
    async fn new() -> Self {
        let ca = TestCa::new("the DBA's");
        let server = ExternalPostgres::start(Some(&ca.issue(&["127.0.0.1"]))).await;
        server.refuse_plain();
        let stand = Self { server, machine: tempfile::tempdir().unwrap() };
        fs::write(stand.path("ca.pem"), ca.pem()).unwrap();
        fs::write(stand.path("master.key"), [9; 32]).unwrap();
        fs::set_permissions(stand.path("master.key"), Permissions::from_mode(0o600)).unwrap();
        stand
    }

    fn path(&self, name: &str) -> PathBuf {
        self.machine.path().join(name)
    }

    /// `tidegate-admin roles --sql | psql -U postgres`, the passwords, `createdb`.
    fn set_up(&self) {
        let sql = succeed(admin().args(["roles", "--sql"]));
        let mut psql = self.server.program("psql");
        psql.args(["-U", "postgres", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut psql = psql.spawn().unwrap();
        psql.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        assert!(psql.wait().unwrap().success());
        self.psql("ALTER ROLE tidegate_migrator PASSWORD 'of-migrator'");
        self.psql("ALTER ROLE tidegate_app PASSWORD 'of-app'");
        self.make_database();
    }

    fn make_database(&self) {
        succeed(self.server.program("createdb").args([
            "-U",
            "postgres",
            "-O",
            "tidegate_migrator",
            "tidegate",
        ]));
    }

    fn psql(&self, sql: &str) {
        succeed(self.server.program("psql").args(["-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", sql]));
    }

    fn configure(&self, listen: u16) -> PathBuf {
        let (app, migrator) = (
            self.server.url("tidegate_app", "of-app", "tidegate"),
            self.server.url("tidegate_migrator", "of-migrator", "tidegate"),
        );
        let (ca, key) = (self.path("ca.pem"), self.path("master.key"));
        let toml = format!(
            "listen = \"127.0.0.1:{listen}\"\n\n[database]\nurl = \"{app}\"\nmigrate_url = \"{migrator}\"\n\
             ca_file = \"{}\"\n\n[secrets]\nmaster_key_file = \"{}\"\n",
            ca.display(),
            key.display()
        );
        fs::write(self.path("control-plane.toml"), toml).unwrap();
        self.path("control-plane.toml")
    }
}

fn admin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-admin"));
    command.env_remove("TIDEGATE_CONFIG");
    command
}

/// Runs a program that must succeed, and returns what it printed.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What `doctor` says where nothing fails but, at most, the room on whatever disk the tests happen to run on.
fn healthy(config: &std::path::Path) -> String {
    let output = admin().arg("--config").arg(config).arg("doctor").output().unwrap();
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    let fails = |line: &&str| line.contains("FAILS");
    let failed: Vec<&str> = found.lines().filter(fails).filter(|line| !line.contains(" disk ")).collect();
    assert!(failed.is_empty() && !found.is_empty(), "{found}");
    assert_eq!(output.status.success(), !found.lines().any(|line| fails(&line)), "{found}");
    found
}

#[test]
fn whoever_stops_reading_is_told_of_no_failure() {
    let (nobody, pipe) = std::io::pipe().unwrap();
    drop(nobody);
    let output = admin().args(["roles", "--sql"]).stdout(pipe).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_leads_to_a_login_on_an_external_postgresql_and_back_from_a_backup() {
    let stand = Stand::new().await;
    stand.set_up();
    let port = free_port();
    let config = stand.configure(port);
    let verb = |words: &[&str]| succeed(admin().arg("--config").arg(&config).args(words));
    assert!(verb(&["migrate"]).starts_with("applied "));
    let password_file = stand.path("admin-password");
    let file = password_file.to_str().unwrap();
    verb(&["bootstrap", "--organization", "acme", "--password-file", file]);
    assert_eq!(fs::metadata(&password_file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(healthy(&config).contains("forced on every table"));
    log_in(&config, port, fs::read_to_string(&password_file).unwrap().trim()).await;

    // A role of its own dumps, and the owner of the tables cannot.
    stand.psql("CREATE ROLE tidegate_backup LOGIN BYPASSRLS PASSWORD 'of-backup' IN ROLE pg_read_all_data");
    let dump = |role: &str, password: &str| {
        let mut dump = stand.server.program("pg_dump");
        dump.env("PGPASSWORD", password).args(["-U", role, "-Fc", "tidegate"]);
        dump.stdout(File::create(stand.path("tidegate.dump")).unwrap()).stderr(Stdio::null());
        dump.status().unwrap().success()
    };
    assert!(!dump("tidegate_migrator", "of-migrator"), "then the README may name it");
    assert!(dump("tidegate_backup", "of-backup"));
    succeed(stand.server.program("dropdb").args(["-U", "postgres", "--if-exists", "tidegate"]));
    stand.make_database();
    let mut restore = stand.server.program("pg_restore");
    restore.args(["-U", "postgres", "-d", "tidegate", "--single-transaction"]);
    succeed(restore.arg(stand.path("tidegate.dump")));
    healthy(&config);
    log_in(&config, port, fs::read_to_string(&password_file).unwrap().trim()).await;
}

/// Starts the control plane, logs the admin in, and stops it.
async fn log_in(config: &std::path::Path, port: u16, password: &str) {
    let config = Config::load(Some(config)).unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(run(config, shutdown.clone()));
    let password = Secret::new(password.to_owned());
    let login = eventually_some("the admin logs in", async || {
        assert!(!serving.is_finished(), "the control plane ended");
        let base = format!("http://127.0.0.1:{port}").parse().unwrap();
        let client = Client::builder(base).store(Arc::new(MemoryStore::new(None))).build().unwrap();
        client.login("admin", &password).await.ok()
    })
    .await;
    assert_eq!(login.user.username, "admin");
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[test]
fn a_doctor_who_cannot_log_in_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("control-plane.toml");
    let toml = format!("[database]\nurl = \"postgres://tidegate_app@127.0.0.1:{}/tidegate\"\n", free_port());
    fs::write(&config, toml).unwrap();
    let output = admin().arg("--config").arg(&config).args(["--json", "doctor"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(text.contains("tidegate_app cannot log in: ") && text.contains("Connection refused"), "{text}");
}
