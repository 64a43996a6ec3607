//! The program killed in the middle of what it does with repositories, plugins and recordings: the next start completes it
//! or it never was, no event is lost, and what is told twice has one id.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod recordings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_model::{OrgRole, SystemRole};
use tidegate_test_support::{MASTER_KEY, TestDb, eventually, free_port};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
};

/// A database, what several lives of one program share beside it, and an operator.
struct World {
    db: TestDb,
    folder: TempDir,
    address: String,
    token: String,
}

/// The answer to a request, if somebody lives at the address to give one.
async fn ask(
    address: &str,
    token: &str,
    (method, path): (&str, &str),
    more: &str,
    body: &[u8],
) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

/// An address that nobody listens at.
fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Writes a secret into a file that its owner alone reads.
fn write_secret(path: &Path, secret: &[u8]) {
    fs::write(path, secret).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

impl World {
    async fn new() -> Self {
        let (db, folder) = (TestDb::new().await, tempfile::tempdir().unwrap());
        let key = folder.path().join("master.key");
        write_secret(&key, &MASTER_KEY);
        let address = free_address();
        let toml = format!(
            "listen = \"{address}\"\nworkers = 1\ndata_dir = \"{}\"\n[database]\nurl = \"{}\"\nacquire_timeout_seconds = 30\n\
             lock_timeout_seconds = 60\nstatement_timeout_seconds = 60\n[secrets]\nmaster_key_file = \"{}\"\n\
             [repositories]\nlease_seconds = 3\n[repositories.fetch]\nprivate_networks = [\"127.0.0.0/8\"]\n\
             [service.plugins]\nprivate_networks = [\"127.0.0.0/8\"]\nwebhook_seconds = 60\n",
            folder.path().display(),
            db.app_url().expose(),
            key.display()
        );
        fs::write(folder.path().join("control-plane.toml"), toml).unwrap();
        db.org_with_admin("acme").await;
        let operator = db.user_with("acme", OrgRole::User, SystemRole::Admin).await;
        let mut world = Self { db, folder, address, token: String::new() };
        let program = world.start().await;
        let login = json!({"username": operator.username, "password": operator.password.expose()});
        let (status, body) = world.call("POST", "/api/v1/auth/login", &login).await;
        assert_eq!(status, 200, "{body}");
        world.token = body["token"].as_str().unwrap().to_owned();
        program.kill().await;
        world
    }

    async fn start(&self) -> Program {
        Program::start(&self.folder.path().join("control-plane.toml"), &self.address).await
    }

    /// The answer to a request, if the program lives to give one.
    async fn try_call(&self, method: &str, path: &str, more: &str, body: &[u8]) -> Option<(u16, Value)> {
        ask(&self.address, &self.token, (method, path), more, body).await
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = "Content-Type: application/json\r\n";
        self.try_call(method, path, kind, body.as_bytes()).await.unwrap()
    }

    /// An archive brought by hand, with the key of a request that may be repeated.
    async fn bring(&self, path: &str, archive: &[u8], request: &Value) -> Option<(u16, Value)> {
        let mut body = b"--cut\r\nContent-Disposition: form-data; name=\"archive\"\r\n\r\n".to_vec();
        body.extend_from_slice(archive);
        body.extend_from_slice(b"\r\n--cut\r\nContent-Disposition: form-data; name=\"request\"\r\n\r\n");
        body.extend_from_slice(request.to_string().as_bytes());
        body.extend_from_slice(b"\r\n--cut--\r\n");
        let more = "Content-Type: multipart/form-data; boundary=cut\r\nIdempotency-Key: once\r\n";
        self.try_call("POST", path, more, &body).await
    }

    /// Waits until the program waits to write into this table, which somebody else holds.
    async fn stuck_at(&self, table: &str) {
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
             AND query ~ 'INSERT INTO \"?{table}\"?'"
        );
        eventually("it is in the middle of a transaction", async || self.db.look::<i64>(&waits).await > 0)
            .await;
    }

    async fn text(&self, sql: &str) -> String {
        self.db.look(sql).await
    }
}

struct Program(Child);

impl Program {
    /// Starts it with this configuration; it listens at the address when this returns.
    async fn start(config: &Path, address: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate-control-plane"))
            .arg("--config")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        eventually("it serves", async || TcpStream::connect(address).await.is_ok()).await;
        Self(child)
    }

    /// As a power cut would: nothing of it runs on.
    async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }
}

/// Keeps everybody else from writing into a table, until the transaction ends.
fn hold(table: &str) -> String {
    format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")
}

fn package(version: &str, manifest: &Value) -> Vec<u8> {
    let mut manifest = manifest.clone();
    manifest["version"] = json!(version);
    let (manifest, sheet) = (manifest.to_string(), format!("a::after {{ content: '{version}' }}"));
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in [("plugin.json", manifest.as_bytes()), ("a.css", sheet.as_bytes())] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn theme() -> Value {
    json!({"name": "deep", "type": "theme", "entrypoints": {"ui": "a.css"}})
}

/// A request of git's, or of a sender's of events.
struct Asked {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut headers) = (String::new(), BTreeMap::new());
    reader.read_line(&mut line).await.ok()?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).await.ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(Some(0), |text| text.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.ok()?;
    Some(Asked { line, headers, body })
}

/// A git server on loopback. While it is closed, it takes what is asked of its packs and answers nothing.
struct Remote {
    url: String,
    held: Arc<AtomicUsize>,
    open: watch::Sender<bool>,
}

impl Remote {
    async fn serve(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/work/.git", listener.local_addr().unwrap());
        let (held, (open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
        let (root, counted) = (root.to_owned(), Arc::clone(&held));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (root, counted, mut gate) = (root.clone(), Arc::clone(&counted), gate.clone());
                tokio::spawn(async move {
                    let Some(asked) = read(&mut stream).await else { return };
                    if asked.line.starts_with("POST") && !*gate.borrow() {
                        counted.fetch_add(1, Ordering::SeqCst);
                        gate.wait_for(|open| *open).await.unwrap();
                    }
                    let answer = backend(&root, &asked).await;
                    // Whoever asked may be dead by now.
                    drop(stream.write_all(&answer).await);
                });
            }
        });
        Self { url, held, open }
    }

    async fn is_asked(&self) {
        eventually("it is asked for a pack", async || self.held.load(Ordering::SeqCst) > 0).await;
    }
}

/// What `git http-backend` answers, as HTTP.
async fn backend(root: &Path, asked: &Asked) -> Vec<u8> {
    let mut words = asked.line.split_whitespace();
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| asked.headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&asked.body).await.unwrap();
    let said = child.wait_with_output().await.unwrap().stdout;
    let end = said.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n", said.len() - end - 4);
    [head.as_bytes(), &said].concat()
}

fn repository(root: &Path) {
    let work = root.join("work");
    fs::create_dir(&work).unwrap();
    for name in ["one", "two"] {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Template\nmetadata: {{name: {name}}}\nspec:\n  description: x\n  appType: terminal\n  \
             command: [sh]\n"
        );
        fs::write(work.join(format!("{name}.yaml")), text).unwrap();
    }
    for arguments in [
        vec!["init", "--quiet", "--initial-branch=main"],
        vec!["add", "-A"],
        vec!["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "x"],
    ] {
        let ended = std::process::Command::new("git").args(arguments).current_dir(&work).status();
        assert!(ended.unwrap().success());
    }
}

#[tokio::test]
async fn a_sync_that_was_killed_while_it_fetched_or_wrote_is_done_by_the_next_start() {
    let world = World::new().await;
    let upstream = tempfile::tempdir().unwrap();
    repository(upstream.path());
    let remote = Remote::serve(upstream.path()).await;
    let program = world.start().await;
    let asked = json!({"name": "ours", "url": remote.url, "type": "git"});
    let (status, made) = world.call("POST", "/api/v1/catalog/repositories", &asked).await;
    assert_eq!(status, 201, "{made}");
    let path = format!("/api/v1/catalog/repositories/{}", made["id"]);

    remote.is_asked().await;
    program.kill().await;
    assert_eq!(world.text("SELECT sync_status FROM repositories").await, "syncing");
    let entries = "SELECT count(*)::text FROM catalog_templates";
    assert_eq!(world.text(entries).await, "0");

    // The next one gets what it asks for, and is killed while it writes that down.
    remote.open.send(true).unwrap();
    let holder = world.db.superuser().await;
    holder.batch_execute(&hold("catalog_templates")).await.unwrap();
    let program = world.start().await;
    world.stuck_at("catalog_templates").await;
    program.kill().await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(world.text(entries).await, "0", "all of it or nothing");
    assert_eq!(world.text("SELECT sync_status FROM repositories").await, "syncing");

    let program = world.start().await;
    eventually("it is synced", async || {
        world.call("GET", &path, &Value::Null).await.1["syncStatus"] == "synced"
    })
    .await;
    let whole =
        "SELECT string_agg(name, ' ' ORDER BY name) FROM catalog_templates WHERE withdrawn_at IS NULL";
    assert_eq!(world.text(whole).await, "one two");
    let (_, now) = world.call("GET", &path, &Value::Null).await;
    assert_eq!(
        (&now["templates"], &now["problems"], &now["syncError"]),
        (&json!(2), &json!(0), &Value::Null)
    );
    program.kill().await;
}

#[tokio::test]
async fn an_installation_or_upgrade_that_was_killed_never_was_and_a_repeat_does_it_once() {
    let world = World::new().await;
    let standing = "SELECT concat_ws(' ', (SELECT string_agg(name || ' ' || version || ' ' || COALESCE(previous -> 'manifest' ->> 'version', '-'), ',')
        FROM installed_plugins), (SELECT count(*) FROM plugin_packages),
        (SELECT count(*) FROM audit_log WHERE action LIKE 'plugin.%'))";
    let install = async || world.bring("/api/v1/plugins", &package("1.0.0", &theme()), &json!({})).await;

    // The line in the log is the last of what is written: everything else is there already, and not committed.
    let program = world.start().await;
    let holder = world.db.superuser().await;
    holder.batch_execute(&hold("audit_log")).await.unwrap();
    let ((), ()) = tokio::join!(async { assert_eq!(install().await, None, "nobody was answered") }, async {
        world.stuck_at("audit_log").await;
        program.kill().await;
    });
    holder.batch_execute("ROLLBACK").await.unwrap();
    let program = world.start().await;
    assert_eq!(world.text(standing).await, "0 0", "it never was");
    let (status, made) = install().await.unwrap();
    assert_eq!(status, 201, "{made}");
    assert_eq!(world.text(standing).await, "deep 1.0.0 - 1 1");
    let (status, again) = install().await.unwrap();
    assert_eq!((status, &again["id"]), (201, &made["id"]), "the same key, the same answer");
    assert_eq!(world.text(standing).await, "deep 1.0.0 - 1 1");

    let path = format!("/api/v1/plugins/{}/upgrade", made["id"]);
    let upgrade = async || world.bring(&path, &package("2.0.0", &theme()), &json!({})).await;
    let holder = world.db.superuser().await;
    holder.batch_execute(&hold("audit_log")).await.unwrap();
    let ((), ()) = tokio::join!(async { assert_eq!(upgrade().await, None, "nobody was answered") }, async {
        world.stuck_at("audit_log").await;
        program.kill().await;
    });
    holder.batch_execute("ROLLBACK").await.unwrap();
    let program = world.start().await;
    assert_eq!(world.text(standing).await, "deep 1.0.0 - 1 1", "the old one stands whole");
    let shown = async || world.try_call("GET", "/plugins/deep/", "", b"").await.unwrap().0;
    assert_eq!(shown().await, 200);
    let (status, after) = upgrade().await.unwrap();
    assert_eq!((status, &after["version"]), (200, &json!("2.0.0")), "{after}");
    assert_eq!(world.text(standing).await, "deep 2.0.0 1.0.0 2 2");
    assert_eq!(shown().await, 200);
    program.kill().await;
}

/// What a receiver was sent: ids with the events in their order, and how many wait for an answer.
#[derive(Default)]
struct Heard {
    events: Mutex<Vec<(String, Value)>>,
    held: AtomicUsize,
}

/// Somebody who hears events. While it is closed, it takes them and answers nothing.
async fn receiver() -> (String, Arc<Heard>, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (heard, (open, gate)) = (Arc::new(Heard::default()), watch::channel(false));
    let noted = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (noted, mut gate) = (Arc::clone(&noted), gate.clone());
            tokio::spawn(async move {
                let Some(asked) = read(&mut stream).await else { return };
                let event = serde_json::from_slice(&asked.body).unwrap();
                noted.events.lock().unwrap().push((asked.headers["webhook-id"].clone(), event));
                if !*gate.borrow() {
                    noted.held.fetch_add(1, Ordering::SeqCst);
                    gate.wait_for(|open| *open).await.unwrap();
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                drop(stream.write_all(answer).await);
            });
        }
    });
    (url, heard, open)
}

#[tokio::test]
async fn events_on_their_way_when_it_was_killed_arrive_all_of_them_with_the_ids_that_they_had() {
    const SWITCHES: usize = 6;
    // What one plugin is sent at one time.
    const AT_ONCE: usize = 4;
    let world = World::new().await;
    let (url, heard, open) = receiver().await;
    let program = world.start().await;
    let hook = json!({"name": "hook", "type": "webhook",
        "configSchema": {"url": {"type": "string"}, "events": {"type": "array", "items": {"type": "string"}}}});
    let wanted = json!({"config": {"url": url, "events": ["plugin.enable", "plugin.disable"]}});
    let (status, made) = world.bring("/api/v1/plugins", &package("1.0.0", &hook), &wanted).await.unwrap();
    assert_eq!(status, 201, "{made}");
    // The other one's request has another body, and so another key.
    let (more, body) = ("Content-Type: multipart/form-data; boundary=cut\r\n", package("1.0.0", &theme()));
    let parts = [
        b"--cut\r\nContent-Disposition: form-data; name=\"archive\"\r\n\r\n".as_slice(),
        &body,
        b"\r\n--cut--\r\n",
    ];
    let (status, other) = world.try_call("POST", "/api/v1/plugins", more, &parts.concat()).await.unwrap();
    assert_eq!(status, 201, "{other}");
    for number in 0..SWITCHES {
        let verb = if number % 2 == 0 { "disable" } else { "enable" };
        let (status, _) =
            world.call("POST", &format!("/api/v1/plugins/{}/{verb}", other["id"]), &Value::Null).await;
        assert_eq!(status, 200);
    }
    let waiting = "SELECT count(*)::text FROM plugin_deliveries WHERE status = 'pending'";
    eventually("all are to be told", async || world.text(waiting).await == SWITCHES.to_string()).await;
    // The receiver answers none of them, so the others wait.
    eventually("some are on their way", async || heard.held.load(Ordering::SeqCst) >= AT_ONCE).await;
    program.kill().await;
    assert_eq!(heard.held.load(Ordering::SeqCst), AT_ONCE, "others had not been sent");
    assert_eq!(world.text(waiting).await, SWITCHES.to_string(), "none counts as told");
    let mut ids: BTreeSet<String> = heard.events.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();

    open.send(true).unwrap();
    // Whoever was killed has a lease on what it sent, which ends in a while: now.
    world.db.execute("UPDATE plugin_deliveries SET due_at = now() - interval '1 second'").await;
    let program = world.start().await;
    eventually("all are told", async || world.text(waiting).await == "0").await;
    let told = heard.events.lock().unwrap().clone();
    let mut events: BTreeMap<String, Value> = BTreeMap::new();
    for (id, event) in &told {
        let first = events.entry(id.clone()).or_insert_with(|| event.clone());
        assert_eq!(first, event, "one id, one event");
    }
    assert_eq!(events.len(), SWITCHES, "each once by its id: {told:?}");
    assert!(told.len() > SWITCHES, "what was on its way came twice");
    ids.retain(|id| !events.contains_key(id));
    assert!(ids.is_empty(), "what was sent before has the same ids: {ids:?}");
    let known: String =
        world.text("SELECT string_agg('msg_' || id, ' ' ORDER BY id) FROM plugin_deliveries").await;
    assert_eq!(known, events.into_keys().collect::<Vec<_>>().join(" "));
    program.kill().await;
}
