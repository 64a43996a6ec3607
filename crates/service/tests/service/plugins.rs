//! Plugins, installed by hand: what they may be, what they are told, what they may do, and what becomes of hostile ones.

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use tidegate_model::{
    CatalogPluginId, Clock, DeliveryStatus, InstallPluginRequest, InstalledPlugin, OrgId, OrgRole,
    PluginDelivery, RepositoryId, SystemRole, UpdatePluginRequest, UpgradePluginRequest,
};
use tidegate_persistence::{
    Operator,
    catalog::{self, NewBlob, NewPlugin},
};
use tidegate_service::{
    Caller, Error, Idempotency, Made, Options, Paging, PluginAsked, PluginOptions, Services,
};
use tidegate_test_support::{
    TestDb, TestOrg,
    catalog::{digest as catalog_digest, plugin},
    eventually, new_session,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A tar of these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A plugin that is nothing but its manifest.
fn plain(manifest: &Value) -> Vec<u8> {
    tar(&[("plugin.json", manifest.to_string().as_bytes())])
}

/// A plugin with a module.
fn module(manifest: &Value, wat: &str) -> Vec<u8> {
    let wasm = wat::parse_str(wat).unwrap();
    tar(&[("plugin.json", manifest.to_string().as_bytes()), ("main.wasm", &wasm)])
}

/// A module whose `handle` answers this, whatever it is asked.
fn answering(answer: &str) -> String {
    let escaped = answer.replace('"', "\\\"");
    let length = answer.len();
    format!(
        r#"(module (memory (export "memory") 2) (data (i32.const 0) "{escaped}")
            (func (export "alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "handle") (param i32 i32) (result i64) (i64.const {length})))"#
    )
}

/// A module that asks the host for something and answers what it heard.
fn asking(function: &str, request: &str) -> String {
    let escaped = request.replace('"', "\\\"");
    let length = request.len();
    format!(
        r#"(module (import "tidegate" "{function}" (func $ask (param i32 i32) (result i64)))
            (memory (export "memory") 2) (data (i32.const 8) "{escaped}") (global $next (mut i32) (i32.const 4096))
            (func (export "alloc") (param $len i32) (result i32) (local $at i32)
                (local.set $at (global.get $next)) (global.set $next (i32.add (global.get $next) (local.get $len)))
                (local.get $at))
            (func $pack (param i64) (result i64) (local.get 0))
            (func (export "handle") (param i32 i32) (result i64)
                (local $heard i64)
                (local.set $heard (call $ask (i32.const 8) (i32.const {length})))
                (i32.store8 (i32.const 0) (i32.const 0))
                (local.get $heard)))"#
    )
}

fn console() -> Caller {
    Caller::console()
}

/// Services that may send to this machine.
fn to_loopback(test: &TestDb) -> Services {
    let private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let plugins =
        PluginOptions { private_networks, webhook_seconds: 1, faults: 3, ..PluginOptions::default() };
    let clock = Arc::clone(test.manual_clock());
    test.services_with_clock(Options { plugins, ..TestDb::options() }, clock as _)
}

async fn install(
    services: &Services,
    archive: Vec<u8>,
    request: InstallPluginRequest,
) -> Result<InstalledPlugin, Error> {
    match services.plugins.upload(&console(), archive, request, None, |made| json!(made)).await? {
        Made::New(made) => Ok(made),
        Made::Replay(replay) => panic!("{replay:?}"),
    }
}

fn config(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn granted(permissions: &[&str], org: Option<OrgId>) -> InstallPluginRequest {
    let permissions = permissions.iter().map(|word| (*word).to_owned()).collect();
    InstallPluginRequest { permissions, organization_id: org, ..InstallPluginRequest::default() }
}

fn fields(error: &Error) -> Vec<String> {
    match error {
        Error::Invalid(errors) => errors.iter().map(|(field, _)| field.to_owned()).collect(),
        other => panic!("{other}"),
    }
}

fn webhook(name: &str, version: &str) -> Value {
    json!({"name": name, "version": version, "type": "webhook", "displayName": name,
        "configSchema": {"url": {"type": "string"}, "events": {"type": "array", "items": {"type": "string"}},
            "ordered": {"type": "boolean"}}})
}

fn to(receiver: &Receiver, events: &[&str], ordered: bool) -> InstallPluginRequest {
    let config = config(&json!({"url": receiver.url, "events": events, "ordered": ordered}));
    InstallPluginRequest { config, ..InstallPluginRequest::default() }
}

async fn deliveries(
    services: &Services,
    plugin: &InstalledPlugin,
    status: Option<DeliveryStatus>,
) -> Vec<PluginDelivery> {
    let paging = Paging { limit: 100, cursor: None };
    services.plugins.deliveries(&console(), plugin.id, status, &paging).await.unwrap().items
}

/// What a receiver heard.
#[derive(Debug, Clone)]
struct Heard {
    id: String,
    timestamp: String,
    signature: String,
    body: String,
    event: String,
}

/// What a receiver does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Ok,
    Fail,
    Redirect,
    Hang,
}

/// Somebody who is sent events.
struct Receiver {
    url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    script: Arc<Mutex<Vec<Then>>>,
}

impl Receiver {
    /// It does what the script says, and says yes once that is at its end.
    async fn new(script: &[Then]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (heard, script) = (Arc::default(), Arc::new(Mutex::new(script.to_vec())));
        let (mine, steps) = (Arc::clone(&heard), Arc::clone(&script));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, Arc::clone(&mine), Arc::clone(&steps)));
            }
        });
        Self { url, heard, script }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    fn events(&self) -> Vec<String> {
        self.heard().into_iter().map(|heard| heard.event).collect()
    }
}

async fn answer(mut socket: TcpStream, log: Arc<Mutex<Vec<Heard>>>, script: Arc<Mutex<Vec<Then>>>) {
    loop {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        let (named, begin) = loop {
            let Ok(read @ 1..) = socket.read(&mut chunk).await else { return };
            bytes.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((top, _)) = text.split_once("\r\n\r\n") else { continue };
            let of = |name: &str| {
                top.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let length: usize = of("content-length").map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= top.len() + 4 + length {
                let part = |name: &str| of(name).unwrap_or_default();
                break (
                    [part("webhook-id"), part("webhook-timestamp"), part("webhook-signature")],
                    top.len() + 4,
                );
            }
        };
        let body = String::from_utf8(bytes[begin..].to_vec()).unwrap();
        let event =
            serde_json::from_str::<Value>(&body).unwrap()["type"].as_str().unwrap_or_default().to_owned();
        let [id, timestamp, signature] = named;
        let then = {
            let mut script = script.lock().unwrap();
            if script.is_empty() { Then::Ok } else { script.remove(0) }
        };
        log.lock().unwrap().push(Heard { id, timestamp, signature, body, event });
        let said = match then {
            Then::Ok => "HTTP/1.1 204 No Content\r\n\r\n",
            Then::Fail => "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
            Then::Redirect => {
                "HTTP/1.1 307 There\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
            }
            Then::Hang => {
                // Until the other side has had enough.
                while matches!(socket.read(&mut chunk).await, Ok(1..)) {}
                return;
            }
        };
        if socket.write_all(said.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A session of somebody's, which makes an event.
async fn start(services: &Services, org: &TestOrg) -> Result<(), Error> {
    let scope = org.admin.org().unwrap();
    services.sessions.create(scope, new_session("shell"), None, |_, _| Value::Null).await.map(drop)
}

/// Waits until so many events were handed out: other tests' transactions on the same server hold them up.
async fn handed_out(test: &TestDb, services: &Services, least: i64) {
    eventually("the events were handed out", async || {
        services.plugins.hand_out().await.unwrap();
        test.look::<i64>("SELECT count(*) FROM plugin_deliveries").await >= least
    })
    .await;
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_plugin_is_named_at_once_and_nothing_is_installed() {
    let test = TestDb::new().await;
    let manifest = json!({"name": "reports", "version": "1.0.0", "type": "api", "permissions": ["kv"],
        "entrypoints": {"api": "gone.wasm"}, "requirements": {"streamspaceVersion": ">=3.0.0"},
        "configSchema": {"days": {"type": "number", "default": 90}}});
    let request = InstallPluginRequest { config: config(&json!({"days": "many"})), ..granted(&[], None) };
    let refused = install(test.services(), plain(&manifest), request).await.unwrap_err();
    assert_eq!(
        fields(&refused),
        ["config.days", "entrypoints.api", "permissions", "requirements.streamspaceVersion"]
    );
    let no_module =
        json!({"name": "reports", "version": "1.0.0", "type": "api", "entrypoints": {"api": "main.wasm"}});
    let broken = tar(&[("plugin.json", no_module.to_string().as_bytes()), ("main.wasm", b"\0asm?")]);
    assert_eq!(
        fields(&install(test.services(), broken, granted(&[], None)).await.unwrap_err()),
        ["main.wasm"]
    );
    assert_eq!(test.services().plugins.list(&console(), None).await.unwrap(), []);
    assert_eq!(test.look::<i64>("SELECT count(*) FROM plugin_packages").await, 0);
}

#[tokio::test]
async fn members_and_admins_of_organizations_decide_nothing_about_plugins() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let upload =
        test.services().plugins.upload(&org.admin, vec![], granted(&[], None), None, |_| Value::Null);
    assert!(matches!(upload.await, Err(Error::Forbidden(_))));
    assert!(matches!(test.services().plugins.list(&org.admin, None).await, Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn a_plugin_is_installed_configured_upgraded_rolled_back_and_uninstalled() {
    let caller = console();
    let test = TestDb::new().await;
    let services = test.services();
    let manifest = |version: &str, schema: Value| {
        json!({"name": "bus", "version": version, "type": "webhook", "configSchema": schema,
            "entrypoints": {"webhook": "https://hooks.example.org"}})
    };
    let first =
        manifest("1.0.0", json!({"level": {"type": "integer", "default": 1}, "old": {"type": "string"}}));
    let request = InstallPluginRequest { config: config(&json!({"old": "x"})), ..granted(&[], None) };
    let made = install(services, plain(&first), request.clone()).await.unwrap();
    assert_eq!((Value::Object(made.config.clone()), made.enabled), (json!({"level": 1, "old": "x"}), true));
    let again = install(services, plain(&first), request).await.unwrap_err();
    assert!(matches!(again, Error::Conflict { code: "E_PLUGIN_INSTALLED", .. }), "{again}");

    let change = UpdatePluginRequest { config: Some(config(&json!({"level": "high"}))), enabled: None };
    let refused = services.plugins.update(&console(), made.id, change).await.unwrap_err();
    assert_eq!(fields(&refused), ["config.level"]);
    let change = UpdatePluginRequest { config: Some(config(&json!({"level": 5}))), enabled: Some(false) };
    let changed = services.plugins.update(&console(), made.id, change).await.unwrap();
    assert_eq!((Value::Object(changed.config), changed.enabled), (json!({"level": 5}), false));

    let picky = manifest("2.0.0", json!({"level": {"type": "integer", "maximum": 3}}));
    let upgrade =
        services.plugins.upgrade_by_hand(&caller, made.id, plain(&picky), UpgradePluginRequest::default());
    assert_eq!(
        fields(&upgrade.await.unwrap_err()),
        ["config.level"],
        "refused with its reason, and all stays"
    );
    let next =
        manifest("2.0.0", json!({"level": {"type": "integer"}, "fresh": {"type": "string", "default": "y"}}));
    let upgrade =
        services.plugins.upgrade_by_hand(&caller, made.id, plain(&next), UpgradePluginRequest::default());
    let upgraded = upgrade.await.unwrap();
    assert_eq!(upgraded.version.to_string(), "2.0.0");
    assert_eq!(Value::Object(upgraded.config), json!({"level": 5, "fresh": "y"}));
    assert_eq!(upgraded.previous_version.unwrap().to_string(), "1.0.0");

    let back = services.plugins.roll_back(&console(), made.id).await.unwrap();
    assert_eq!(
        (back.version.to_string(), Value::Object(back.config)),
        ("1.0.0".to_owned(), json!({"level": 5}))
    );
    assert_eq!(back.previous_version, None);
    services.plugins.roll_back(&console(), made.id).await.unwrap_err();
    services.plugins.uninstall(&console(), made.id).await.unwrap();
    assert!(matches!(services.plugins.get(&console(), made.id).await, Err(Error::NotFound(_))));
    assert_eq!(test.look::<i64>("SELECT count(*) FROM plugin_packages").await, 0);
    let lines: String = test
        .look("SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE resource = 'plugin:bus' AND org_id IS NULL")
        .await;
    let wanted =
        "plugin.install plugin.configure plugin.disable plugin.upgrade plugin.roll_back plugin.uninstall";
    assert_eq!(lines, wanted);
}

#[tokio::test]
async fn racers_with_one_key_install_one_plugin_and_hear_the_same() {
    let test = TestDb::new().await;
    let services = test.services();
    let archive = plain(&json!({"name": "hook", "version": "1.0.0", "type": "webhook",
        "entrypoints": {"webhook": "https://hooks.example.org"}}));
    test.org_with_admin("acme").await;
    let operator = test.user_with("acme", OrgRole::User, SystemRole::Operator).await;
    let operator = test.caller(&operator).await;
    let install = async || {
        let key = Idempotency::new(operator.credential(), "POST plugins", "once", b"same").unwrap();
        let (archive, request) = (archive.clone(), granted(&[], None));
        services.plugins.upload(&operator, archive, request, Some(&key), |made| json!(made)).await
    };
    let (mut made, mut repeated) = (Vec::new(), Vec::new());
    for racer in join_all((0..4).map(|_| install())).await {
        match racer.unwrap() {
            Made::New(one) => made.push(json!(one)),
            Made::Replay(replay) => repeated.push(replay.body),
        }
    }
    assert_eq!((made.len(), repeated.len()), (1, 3));
    assert!(repeated.iter().all(|body| *body == made[0]), "{repeated:?}");
}

#[tokio::test]
async fn a_change_that_is_refused_in_part_changes_nothing() {
    let test = TestDb::new().await;
    let services = test.services();
    let base = json!({"name": "base", "version": "1.2.0", "type": "webhook",
        "entrypoints": {"webhook": "https://hooks.example.org"}, "configSchema": {"days": {"type": "number", "default": 1}}});
    let up = json!({"name": "up", "version": "1.0.0", "type": "webhook",
        "entrypoints": {"webhook": "https://hooks.example.org"}, "dependencies": {"base": "*"}});
    let base = install(services, plain(&base), granted(&[], None)).await.unwrap();
    let up = install(services, plain(&up), granted(&[], None)).await.unwrap();
    let off = || UpdatePluginRequest { config: Some(config(&json!({"days": 2}))), enabled: Some(false) };
    let refused = services.plugins.update(&console(), base.id, off()).await.unwrap_err();
    assert_eq!(refused.to_string(), "base is needed: up 1.0.0 wants *");
    let stands = services.plugins.get(&console(), base.id).await.unwrap();
    assert_eq!((stands.enabled, &stands.config["days"]), (true, &json!(1)));
    services.plugins.uninstall(&console(), up.id).await.unwrap();
    let changed = services.plugins.update(&console(), base.id, off()).await.unwrap();
    assert_eq!((changed.enabled, &changed.config["days"]), (false, &json!(2)));
}

#[tokio::test]
async fn an_upgrade_by_hand_is_the_version_that_was_asked_for() {
    let test = TestDb::new().await;
    let services = test.services();
    let at = |version: &str| {
        plain(&json!({"name": "hook", "version": version, "type": "webhook",
            "entrypoints": {"webhook": "https://hooks.example.org"}}))
    };
    let made = install(services, at("1.0.0"), granted(&[], None)).await.unwrap();
    let to = |version: &str| UpgradePluginRequest {
        version: version.parse().ok(),
        ..UpgradePluginRequest::default()
    };
    let refused =
        services.plugins.upgrade_by_hand(&console(), made.id, at("3.0.0"), to("2.0.0")).await.unwrap_err();
    assert_eq!(fields(&refused), ["version"]);
    let made = services.plugins.upgrade_by_hand(&console(), made.id, at("2.0.0"), to("2.0.0")).await.unwrap();
    assert_eq!(made.version.to_string(), "2.0.0");
}

/// Writes a version of a plugin into the catalog as a sync does.
async fn catalogue(test: &TestDb, repository: RepositoryId, manifest: &Value, answer: &str, digest: u8) {
    let package = module(manifest, &answering(answer));
    let blob =
        NewBlob { digest: catalog_digest(digest), media_type: "application/x-tar".into(), content: package };
    let new =
        NewPlugin { package: catalog_digest(digest), ..plugin(manifest["name"].as_str().unwrap(), manifest) };
    let (now, db, system) = (test.manual_clock().now(), test.db(), Operator::system());
    let written = db.in_platform(&system, async |tx| {
        catalog::put_blobs(tx, vec![blob], now).await?;
        catalog::upsert_plugins(tx, repository, &[new], now).await
    });
    written.await.unwrap();
}

#[tokio::test]
async fn a_plugin_of_the_catalog_is_installed_upgraded_and_stays_when_it_is_withdrawn() {
    let test = TestDb::new().await;
    let services = test.services();
    let acme = test.org_with_admin("acme").await;
    let repository = test.repository("ours").await;
    let manifest = |version: &str| json!({"name": "says", "version": version, "type": "api", "permissions": ["kv"], "entrypoints": {"api": "main.wasm"}});
    catalogue(&test, repository, &manifest("1.0.0"), r#"{"body":"one"}"#, 1).await;
    let id = test.plugin_id(repository, "says").await;
    let ask = async || {
        let answer = services.plugins.ask(acme.admin.org().unwrap(), "says", get("/")).await.unwrap();
        String::from_utf8(answer.body).unwrap()
    };
    let from = async |request: InstallPluginRequest| {
        let made = services.plugins.install(&console(), id, request, None, |made| json!(made)).await?;
        let Made::New(made) = made else { panic!("{made:?}") };
        Ok::<_, Error>(made)
    };
    let version =
        |version: &str| InstallPluginRequest { version: version.parse().ok(), ..granted(&["kv"], None) };

    let member =
        services.plugins.install(&acme.admin, id, granted(&["kv"], None), None, |_| Value::Null).await;
    assert!(matches!(member, Err(Error::Forbidden(_))));
    assert_eq!(fields(&from(granted(&[], None)).await.unwrap_err()), ["permissions"]);
    assert!(matches!(from(version("9.0.0")).await, Err(Error::NotFound(_))));
    let other =
        InstallPluginRequest { plugin_id: Some(CatalogPluginId::from_number(9_999)), ..version("1.0.0") };
    assert_eq!(fields(&from(other).await.unwrap_err()), ["pluginId"]);
    assert_eq!(test.look::<i64>("SELECT count(*) FROM installed_plugins").await, 0);

    let made = from(granted(&["kv"], None)).await.unwrap();
    assert_eq!((made.catalog_plugin_id, made.version.to_string().as_str()), (Some(id), "1.0.0"));
    assert_eq!(ask().await, "one");
    let counted = format!("SELECT install_count FROM plugin_stats WHERE plugin_id = {id}");
    assert_eq!(test.look::<i64>(&counted).await, 1);
    assert!(matches!(
        from(granted(&["kv"], None)).await,
        Err(Error::Conflict { code: "E_PLUGIN_INSTALLED", .. })
    ));
    assert_eq!(test.look::<i64>(&counted).await, 1);

    catalogue(&test, repository, &manifest("2.0.0"), r#"{"body":"two"}"#, 2).await;
    assert_eq!(ask().await, "one");
    let newest = UpgradePluginRequest::default;
    let made = services.plugins.upgrade(&console(), made.id, newest()).await.unwrap();
    assert_eq!((made.version.to_string().as_str(), ask().await.as_str()), ("2.0.0", "two"));
    let again = services.plugins.upgrade(&console(), made.id, newest()).await;
    assert!(matches!(again, Err(Error::Conflict { code: "E_PLUGIN_VERSION", .. })));
    services.plugins.roll_back(&console(), made.id).await.unwrap();
    assert_eq!(ask().await, "one");

    let (db, system) = (test.db(), Operator::system());
    let withdrawn = db.in_platform(&system, async |tx| {
        catalog::withdraw(tx, repository, vec![], vec!["says".into()], test.manual_clock().now()).await
    });
    withdrawn.await.unwrap();
    assert_eq!(ask().await, "one");
    let refused = services.plugins.upgrade(&console(), made.id, newest()).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "E_PLUGIN_WITHDRAWN", .. })));
    services.plugins.uninstall(&console(), made.id).await.unwrap();
    assert!(matches!(
        from(granted(&["kv"], None)).await,
        Err(Error::Conflict { code: "E_PLUGIN_WITHDRAWN", .. })
    ));
    from(version("2.0.0")).await.unwrap();
    assert_eq!(ask().await, "two");
}

#[tokio::test]
async fn nothing_is_installed_or_upgraded_by_itself_out_of_a_repository_that_is_disabled() {
    let test = TestDb::new().await;
    let services = test.services();
    let repository = test.repository("ours").await;
    let manifest = |version: &str| json!({"name": "says", "version": version, "type": "api", "entrypoints": {"api": "main.wasm"}});
    catalogue(&test, repository, &manifest("1.0.0"), r#"{"body":"one"}"#, 1).await;
    let id = test.plugin_id(repository, "says").await;
    let from = async |request: InstallPluginRequest| {
        let made = services.plugins.install(&console(), id, request, None, |made| json!(made)).await?;
        let Made::New(made) = made else { panic!("{made:?}") };
        Ok::<_, Error>(made)
    };
    test.execute("UPDATE repositories SET enabled = false").await;
    let refused = from(granted(&[], None)).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { code: "E_REPOSITORY_DISABLED", .. }), "{refused:?}");
    let named = InstallPluginRequest { version: "1.0.0".parse().ok(), ..granted(&[], None) };
    let made = from(named).await.unwrap();
    catalogue(&test, repository, &manifest("2.0.0"), r#"{"body":"two"}"#, 2).await;
    let refused = services.plugins.upgrade(&console(), made.id, UpgradePluginRequest::default()).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "E_REPOSITORY_DISABLED", .. })), "{refused:?}");
    test.execute("UPDATE repositories SET enabled = true").await;
    services.plugins.upgrade(&console(), made.id, UpgradePluginRequest::default()).await.unwrap();
}

#[tokio::test]
async fn more_plugins_than_are_looked_at_together_are_not_installed() {
    let test = TestDb::new().await;
    let services = test.services();
    let bring = async |name: &str| {
        let config = config(&json!({"url": "https://receiver.example"}));
        let request = InstallPluginRequest { config, ..InstallPluginRequest::default() };
        install(services, plain(&webhook(name, "1.0.0")), request).await
    };
    bring("first").await.unwrap();
    test.execute(
        "INSERT INTO installed_plugins (name, version, plugin_type, enabled, config, manifest, package, permissions, events, ordered,
                vetoes, installed_by, installed_at, updated_at)
         SELECT 'copy-' || n, p.version, p.plugin_type, p.enabled, p.config, p.manifest, p.package, p.permissions, p.events, p.ordered,
                p.vetoes, p.installed_by, p.installed_at, p.updated_at FROM installed_plugins p, generate_series(1, 998) n",
    )
    .await;
    bring("last").await.unwrap();
    let refused = bring("more").await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { code: "E_PLUGIN_LIMIT", .. }), "{refused:?}");
}

#[tokio::test]
async fn what_waits_for_a_dead_endpoint_is_not_looked_at_until_it_is_due() {
    const WAIT: i64 = 5_000;
    let test = TestDb::new().await;
    let services = test.services();
    for (name, ordered) in [("free", false), ("ordered", true)] {
        let options = config(&json!({"url": "https://hooks.example.org", "ordered": ordered}));
        let request = InstallPluginRequest { config: options, ..InstallPluginRequest::default() };
        let made = install(services, plain(&webhook(name, "1.0.0")), request).await.unwrap();
        // Each was tried and is put off; where order is kept the first alone, and the others wait for it.
        test.execute(&format!(
            "INSERT INTO plugin_deliveries (id, plugin_id, event, payload, due_at, since, created_at)
             SELECT gen_random_uuid(), {}, 'session.running', '{{}}', CASE WHEN {ordered} AND n > 1 THEN now() ELSE now() + interval '1 hour' END,
                    now(), now() FROM generate_series(1, {WAIT}) n",
            made.id
        ))
        .await;
    }
    test.execute("ANALYZE plugin_deliveries").await;
    let read = async || {
        let sql = "SELECT (SELECT COALESCE(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE relname = 'plugin_deliveries')
                        + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'plugin_deliveries')";
        test.look::<i64>(sql).await
    };
    let looked = async || {
        test.look::<i64>("SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'plugin_deliveries'").await
    };
    // The server counts late: what it has not counted yet is waited for.
    eventually("the rows were counted", async || {
        services.plugins.claim_and_forget().await.unwrap();
        looked().await > 0
    })
    .await;
    let (before, scans, mut rounds) = (read().await, looked().await, 0);
    eventually("more looks were counted", async || {
        rounds += 1;
        assert_eq!(services.plugins.claim_and_forget().await.unwrap(), 0);
        looked().await > scans
    })
    .await;
    let rows = read().await - before;
    assert!(rows < WAIT / 2, "{rows} rows in {rounds} rounds");
}

#[tokio::test]
async fn what_is_needed_is_there_first_and_stays_as_long() {
    let test = TestDb::new().await;
    let services = test.services();
    let at = json!({"webhook": "https://hooks.example.org"});
    let base = json!({"name": "base", "version": "1.2.0", "type": "webhook", "entrypoints": at});
    let up = json!({"name": "up", "version": "1.0.0", "type": "webhook", "entrypoints": at, "dependencies": {"base": "^1.0.0"}});
    let refused = install(services, plain(&up), granted(&[], None)).await.unwrap_err();
    assert_eq!(fields(&refused), ["dependencies.base"]);
    let base = install(services, plain(&base), granted(&[], None)).await.unwrap();
    let up = install(services, plain(&up), granted(&[], None)).await.unwrap();
    for refused in [
        services.plugins.uninstall(&console(), base.id).await.err(),
        services.plugins.disable(&console(), base.id).await.err(),
    ] {
        let refused = refused.unwrap();
        assert_eq!(refused.to_string(), "base is needed: up 1.0.0 wants ^1.0.0");
    }
    services.plugins.disable(&console(), up.id).await.unwrap();
    services.plugins.disable(&console(), base.id).await.unwrap();
    let refused = services.plugins.enable(&console(), up.id).await.unwrap_err();
    assert!(refused.to_string().contains("base is disabled: enable it first"), "{refused}");
    services.plugins.uninstall(&console(), up.id).await.unwrap();
    services.plugins.uninstall(&console(), base.id).await.unwrap();
}

#[tokio::test]
async fn events_are_signed_and_sent_in_order_and_only_those_of_the_plugins_organization() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let _agent = test.online_agent("vm-1", 10).await;
    let (all, own) = (Receiver::new(&[]).await, Receiver::new(&[]).await);
    let everywhere =
        install(&services, plain(&webhook("all", "1.0.0")), to(&all, &["session.*"], true)).await.unwrap();
    let request =
        InstallPluginRequest { organization_id: Some(acme.id), ..to(&own, &["session.pending"], false) };
    install(&services, plain(&webhook("own", "1.0.0")), request).await.unwrap();
    start(&services, &acme).await.unwrap();
    start(&services, &bolt).await.unwrap();
    handed_out(&test, &services, 3).await;
    while services.plugins.deliver_due().await.unwrap() > 0 {}
    assert_eq!(all.events(), ["session.pending", "session.pending"]);
    let heard = own.heard();
    assert_eq!(heard.len(), 1, "bolt's are none of its business");
    let body: Value = serde_json::from_str(&heard[0].body).unwrap();
    assert_eq!(body["organizationId"], json!(acme.id));
    assert_eq!(body["data"]["toState"], "pending");

    let secret = services.plugins.secret(&console(), everywhere.id).await.unwrap();
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let one = &all.heard()[0];
    let signed = format!("{}.{}.{}", one.id, one.timestamp, one.body);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let signature = STANDARD.decode(one.signature.strip_prefix("v1,").unwrap()).unwrap();
    aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &signature).unwrap();

    // Disabled means not.
    services.plugins.disable(&console(), everywhere.id).await.unwrap();
    start(&services, &bolt).await.unwrap();
    services.plugins.deliver_due().await.unwrap();
    assert_eq!(all.heard().len(), 2);
    // What happened meanwhile is not told afterwards.
    services.plugins.enable(&console(), everywhere.id).await.unwrap();
    services.plugins.deliver_due().await.unwrap();
    assert_eq!(all.heard().len(), 2);
}

#[tokio::test]
async fn what_fails_is_tried_again_with_the_same_id_and_what_is_ordered_waits_for_it() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let receiver = Receiver::new(&[Then::Fail, Then::Redirect, Then::Hang]).await;
    let plugin = install(&services, plain(&webhook("hook", "1.0.0")), to(&receiver, &["session.*"], true))
        .await
        .unwrap();
    start(&services, &acme).await.unwrap();
    start(&services, &acme).await.unwrap();
    handed_out(&test, &services, 2).await;
    for (tries, reason) in [
        (1, "it answered 500"),
        (2, "it answered 307: nobody follows it elsewhere"),
        (3, "it did not answer in time"),
    ] {
        assert_eq!(services.plugins.deliver_due().await.unwrap(), 1, "the second waits for the first");
        assert_eq!(services.plugins.deliver_due().await.unwrap(), 0, "not before its time");
        let all = deliveries(&services, &plugin, None).await;
        let first = all.into_iter().max_by_key(|one| one.attempts).unwrap();
        assert_eq!((first.attempts, first.reason.as_deref()), (tries, Some(reason)));
        test.manual_clock().advance(TimeDelta::minutes(5));
    }
    assert_eq!(services.plugins.deliver_due().await.unwrap(), 1);
    assert_eq!(services.plugins.deliver_due().await.unwrap(), 1);
    let ids: Vec<String> = receiver.heard().into_iter().map(|heard| heard.id).collect();
    assert_eq!((ids[0] == ids[3], ids[0] == ids[1], ids[3] == ids[4], ids.len()), (true, true, false, 5));
    let mut stand = deliveries(&services, &plugin, Some(DeliveryStatus::Delivered)).await;
    stand.sort_by_key(|one| one.attempts);
    assert_eq!(
        stand.iter().map(|one| (one.attempts, one.last_status)).collect::<Vec<_>>(),
        [(1, Some(204)), (4, Some(204))]
    );
}

#[tokio::test]
async fn what_was_claimed_by_somebody_who_died_is_sent_by_another_with_the_same_id() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let receiver = Receiver::new(&[]).await;
    let plugin =
        install(&services, plain(&webhook("hook", "1.0.0")), to(&receiver, &["*"], false)).await.unwrap();
    start(&services, &acme).await.unwrap();
    handed_out(&test, &services, 1).await;
    let claimed = services.plugins.claim_and_forget().await.unwrap();
    assert!(claimed > 0);
    assert_eq!(services.plugins.deliver_due().await.unwrap(), 0, "somebody has them");
    test.manual_clock().advance(TimeDelta::minutes(2));
    // The other replica.
    let other = to_loopback(&test);
    assert_eq!(other.plugins.deliver_due().await.unwrap(), claimed);
    let stand = deliveries(&services, &plugin, None).await;
    assert!(
        stand.iter().all(|one| one.status == DeliveryStatus::Delivered && one.attempts == 2),
        "{stand:?}"
    );
    let mut told: Vec<String> = receiver.heard().into_iter().map(|heard| heard.id).collect();
    let mut kept: Vec<String> = stand.iter().map(|one| format!("msg_{}", one.id)).collect();
    told.sort();
    kept.sort();
    assert_eq!(told, kept);
}

#[tokio::test]
async fn what_is_not_taken_for_a_day_is_given_up_and_can_be_sent_again() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let receiver = Receiver::new(&[Then::Fail; 40]).await;
    let plugin =
        install(&services, plain(&webhook("hook", "1.0.0")), to(&receiver, &["session.pending"], false))
            .await
            .unwrap();
    start(&services, &acme).await.unwrap();
    let mut tries = 0;
    while deliveries(&services, &plugin, Some(DeliveryStatus::Failed)).await.is_empty() {
        tries += services.plugins.deliver_due().await.unwrap();
        test.manual_clock().advance(TimeDelta::minutes(10));
        assert!(tries < 40);
    }
    assert!((8..30).contains(&tries), "{tries}");
    let given_up = deliveries(&services, &plugin, Some(DeliveryStatus::Failed)).await.remove(0);
    receiver.script.lock().unwrap().clear();
    services.plugins.redeliver(&console(), plugin.id, given_up.id).await.unwrap();
    assert_eq!(services.plugins.deliver_due().await.unwrap(), 1);
    assert_eq!(receiver.heard().last().unwrap().id, format!("msg_{}", given_up.id));
    assert_eq!(deliveries(&services, &plugin, Some(DeliveryStatus::Delivered)).await.len(), 1);
}

#[tokio::test]
async fn a_plugin_that_is_disabled_or_gone_is_sent_nothing() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let receiver = Receiver::new(&[]).await;
    let mut made = Vec::new();
    for (name, ordered) in [("free", false), ("ordered", true)] {
        let to = to(&receiver, &["session.pending"], ordered);
        made.push(install(&services, plain(&webhook(name, "1.0.0")), to).await.unwrap());
    }
    start(&services, &acme).await.unwrap();
    handed_out(&test, &services, 2).await;
    for plugin in &made {
        services.plugins.disable(&console(), plugin.id).await.unwrap();
    }
    assert_eq!(services.plugins.deliver_due().await.unwrap(), 0);
    let waits = deliveries(&services, &made[0], Some(DeliveryStatus::Pending)).await.remove(0);
    services.plugins.redeliver(&console(), made[0].id, waits.id).await.unwrap();
    services.plugins.uninstall(&console(), made[1].id).await.unwrap();
    assert_eq!(services.plugins.deliver_due().await.unwrap(), 0);
    assert_eq!(receiver.heard().len(), 0);
    services.plugins.enable(&console(), made[0].id).await.unwrap();
    assert_eq!(services.plugins.deliver_due().await.unwrap(), 1);
    assert_eq!(receiver.heard().len(), 1);
}

#[tokio::test]
async fn private_addresses_are_not_sent_to_unless_they_are_allowed() {
    let test = TestDb::new().await;
    let services = test.services();
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let receiver = Receiver::new(&[]).await;
    for (index, url) in
        [receiver.url.clone(), receiver.url.replace("127.0.0.1", "localhost")].into_iter().enumerate()
    {
        let name = format!("hook-{index}");
        let config = config(&json!({"url": url, "events": ["session.*"]}));
        let request = InstallPluginRequest { config, ..InstallPluginRequest::default() };
        install(services, plain(&webhook(&name, "1.0.0")), request).await.unwrap();
    }
    start(services, &acme).await.unwrap();
    handed_out(&test, services, 2).await;
    assert_eq!(services.plugins.deliver_due().await.unwrap(), 2);
    for plugin in services.plugins.list(&console(), None).await.unwrap() {
        let one = deliveries(services, &plugin, None).await.remove(0);
        let reason = one.reason.unwrap();
        assert!(reason.contains("is an address of this machine or of its network"), "{reason}");
    }
    assert_eq!(receiver.heard().len(), 0);
}

#[tokio::test]
async fn users_and_plugins_are_told_of_by_their_lines_in_the_log_once() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let receiver = Receiver::new(&[]).await;
    install(&services, plain(&webhook("hook", "1.0.0")), to(&receiver, &["user.*", "plugin.*"], true))
        .await
        .unwrap();
    let own = InstallPluginRequest { organization_id: Some(acme.id), ..granted(&[], None) };
    let quiet = json!({"name": "quiet", "version": "1.0.0", "type": "webhook", "entrypoints": {"webhook": "https://hooks.example.org"}});
    install(&services, plain(&quiet), own).await.unwrap();
    let new = tidegate_service::NewLocalUser {
        username: "newcomer".into(),
        email: None,
        full_name: "New Comer".into(),
        password: tidegate_model::Secret::new("a long tide and a bell".into()),
        role: tidegate_model::SystemRole::User,
    };
    services
        .operators
        .create_user(&tidegate_service::Operator::console(), new, "acme", OrgRole::User)
        .await
        .unwrap();
    eventually("the last of them was told", async || {
        services.plugins.deliver_due().await.unwrap();
        receiver.events().iter().any(|event| event == "user.create")
    })
    .await;
    let events = receiver.events();
    // Its own installation was committed with it, and the others once each, though they stand in two logs.
    let of = |name: &str| events.iter().filter(|event| *event == name).count();
    assert_eq!(
        (
            of("user.create"),
            events.iter().all(|event| event.starts_with("user.") || event.starts_with("plugin."))
        ),
        (1, true),
        "{events:?}"
    );
    let about_quiet =
        receiver.heard().into_iter().filter(|heard| heard.body.contains("plugin:quiet")).count();
    assert_eq!(about_quiet, 1);
    assert!(!receiver.heard().iter().any(|heard| heard.body.contains("a long tide")));
}

fn extension(name: &str, permissions: &[&str]) -> Value {
    json!({"name": name, "version": "1.0.0", "type": "extension", "permissions": permissions,
        "entrypoints": {"main": "main.wasm"},
        "configSchema": {"events": {"type": "array", "default": []}}})
}

fn api(name: &str, permissions: &[&str]) -> Value {
    json!({"name": name, "version": "1.0.0", "type": "api", "permissions": permissions, "entrypoints": {"api": "main.wasm"}})
}

fn get(path: &str) -> PluginAsked {
    PluginAsked { method: "GET".into(), path: path.into(), query: Map::new(), body: Value::Null }
}

/// What a platform-wide `api` plugin answers to a body, and whether it runs afterwards.
async fn told(services: &Services, org: &TestOrg, name: &str, body: Value) -> Result<u16, Error> {
    let asked = PluginAsked { method: "POST".into(), body, ..get("/") };
    services.plugins.ask(org.admin.org().unwrap(), name, asked).await.map(|answer| answer.status)
}

#[tokio::test]
async fn whoever_says_too_much_to_a_plugin_is_refused_and_disables_it_for_nobody() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let made =
        install(&services, module(&api("says", &[]), &answering("{}")), granted(&[], None)).await.unwrap();
    // As JSON each of them is six bytes.
    let much = "\u{1}".repeat(200 * 1024);
    for _ in 0..5 {
        let refused = told(&services, &acme, "says", json!(much)).await.unwrap_err();
        assert_eq!(fields(&refused), ["body"]);
    }
    let stands = services.plugins.get(&console(), made.id).await.unwrap();
    assert_eq!((stands.enabled, stands.faults), (true, 0));
    assert_eq!(told(&services, &acme, "says", json!("little")).await.unwrap(), 200);
}

#[tokio::test]
async fn answers_that_have_no_body_get_none_from_a_plugin() {
    let test = TestDb::new().await;
    let services = test.services();
    let acme = test.org_with_admin("acme").await;
    for status in [204, 205, 304] {
        let name = format!("says-{status}");
        let answer = json!({"status": status, "body": "HTTP/1.1 200 OK"}).to_string();
        install(services, module(&api(&name, &[]), &answering(&answer)), granted(&[], None)).await.unwrap();
        let answer = services.plugins.ask(acme.admin.org().unwrap(), &name, get("/")).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (status, b"".as_slice()));
    }
}

/// What plugins keep is written so slowly from now on.
async fn slow_store(test: &TestDb, seconds: f32) {
    test.execute(&format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE UPDATE ON plugin_store FOR EACH ROW EXECUTE FUNCTION slow()"
    ))
    .await;
}

#[tokio::test]
async fn a_slow_database_disables_no_plugin() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let writes = module(&api("store", &["kv"]), &asking("kv", r#"{"op":"set","key":"a","value":1}"#));
    let made = install(&services, writes, granted(&["kv"], None)).await.unwrap();
    assert_eq!(told(&services, &acme, "store", Value::Null).await.unwrap(), 200);
    slow_store(&test, 2.1).await;
    for _ in 0..3 {
        let refused = told(&services, &acme, "store", Value::Null).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    }
    let stands = services.plugins.get(&console(), made.id).await.unwrap();
    assert_eq!((stands.enabled, stands.faults), (true, 0));
}

#[tokio::test]
async fn nobody_gets_around_a_veto_by_keeping_all_plugins_busy() {
    let test = TestDb::new().await;
    let plugins = PluginOptions { workers: 1, faults: 1_000, ..PluginOptions::default() };
    let services = test.services_with(Options { plugins, ..TestDb::options() });
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let no = module(&extension("curfew", &["sessions:veto"]), &answering(r#"{"veto": "it is late"}"#));
    install(&services, no, granted(&["sessions:veto"], None)).await.unwrap();
    let writes = module(&api("store", &["kv"]), &asking("kv", r#"{"op":"set","key":"a","value":1}"#));
    install(&services, writes, granted(&["kv"], None)).await.unwrap();
    told(&services, &acme, "store", Value::Null).await.unwrap();
    slow_store(&test, 3.0).await;
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let (services, scope) = (services.clone(), acme.admin.org().unwrap().clone());
            tokio::spawn(async move { services.plugins.ask(&scope, "store", get("/")).await })
        })
        .collect();
    eventually("one of them runs", async || {
        test.look::<i64>("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()").await > 0
    })
    .await;
    let refused = start(&services, &acme).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_) | Error::Unavailable(_)), "{refused}");
    for one in busy {
        one.await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn an_extension_keeps_sessions_from_starting_while_it_runs() {
    let test = TestDb::new().await;
    let services = test.services();
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let _agent = test.online_agent("vm-1", 10).await;
    let no = module(&extension("curfew", &["sessions:veto"]), &answering(r#"{"veto": "it is late"}"#));
    let made = install(services, no, granted(&["sessions:veto"], Some(acme.id))).await.unwrap();
    let refused = start(services, &acme).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)));
    assert_eq!(refused.to_string(), "the plugin curfew does not let it start: it is late");
    start(services, &bolt).await.unwrap();
    services.plugins.disable(&console(), made.id).await.unwrap();
    start(services, &acme).await.unwrap();
}

#[tokio::test]
async fn a_hostile_extension_keeps_nobody_from_anything_and_is_disabled_with_its_reason() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 100).await;
    let loops = r#"(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i64) (loop $on (br $on)) (unreachable)))"#;
    let grows = r#"(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i64) (loop $on (drop (memory.grow (i32.const 16))) (br $on)) (unreachable)))"#;
    let nonsense = answering("no JSON");
    let takes = asking("kv", r#"{"op":"get","key":"a"}"#);
    for (name, wat, reason) in [
        ("loops", loops, "it "),
        ("grows", grows, "it wanted more than 32 MiB of memory"),
        ("nonsense", nonsense.as_str(), "what it answered cannot be read: expected"),
        ("takes", takes.as_str(), "it called `kv` without the permission `kv`"),
    ] {
        let archive = module(&extension(name, &["sessions:veto"]), wat);
        let made = install(&services, archive, granted(&["sessions:veto"], None)).await.unwrap();
        for _ in 0..3 {
            let before: i64 = test.look("SELECT count(*) FROM sessions").await;
            let started = services
                .sessions
                .create(acme.admin.org().unwrap(), new_session("shell"), None, |_, _| Value::Null)
                .await;
            if let Err(error) = &started {
                assert!(matches!(error, Error::QuotaExceeded(_)), "{name}: {error}");
            } else {
                assert_eq!(test.look::<i64>("SELECT count(*) FROM sessions").await, before + 1);
            }
        }
        let stands = services.plugins.get(&console(), made.id).await.unwrap();
        assert!(!stands.enabled, "{name}");
        let said = stands.disabled_reason.unwrap();
        assert!(
            said.starts_with("3 faults one after the other; the last: ") && said.contains(reason),
            "{name}: {said}"
        );
    }
    let lines: i64 = test.look("SELECT count(*) FROM audit_log WHERE action = 'plugin.disable' AND actor = 'system' AND org_id IS NULL").await;
    assert_eq!(lines, 4);
}

#[tokio::test]
async fn an_api_plugin_answers_who_may_use_it_and_keeps_each_organizations_data_apart() {
    let test = TestDb::new().await;
    let services = test.services();
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let writes = module(&api("store", &["kv"]), &asking("kv", r#"{"op":"set","key":"a","value":{"n":1}}"#));
    let made = install(services, writes, granted(&["kv"], None)).await.unwrap();
    let (inside, other) = (acme.admin.org().unwrap(), bolt.admin.org().unwrap());
    let answer = services.plugins.ask(inside, "store", get("/")).await.unwrap();
    assert_eq!(answer.status, 200);
    let kept: String = test.look("SELECT string_agg(org_id::text, ' ') FROM plugin_store").await;
    assert_eq!(kept, acme.id.to_string());
    services.plugins.ask(other, "store", get("/")).await.unwrap();
    assert_eq!(test.look::<i64>("SELECT count(DISTINCT org_id) FROM plugin_store").await, 2);
    services.plugins.disable(&console(), made.id).await.unwrap();
    // Another replica, which has had it in its memory, asks the row, too.
    assert!(matches!(services.plugins.ask(inside, "store", get("/")).await, Err(Error::NotFound(_))));

    let own = module(&api("mine", &[]), &answering(r#"{"status": 418, "body": {"hello": true}}"#));
    install(services, own, granted(&[], Some(acme.id))).await.unwrap();
    let answer = services.plugins.ask(inside, "mine", get("/")).await.unwrap();
    assert_eq!(
        (answer.status, answer.content_type, answer.body.as_slice()),
        (418, "application/json", br#"{"hello":true}"#.as_slice())
    );
    assert!(matches!(services.plugins.ask(other, "mine", get("/")).await, Err(Error::NotFound(_))));
}

/// A module that answers with what it was told.
const REPEATING: &str = r#"(module (memory (export "memory") 2) (data (i32.const 1024) "{\22body\22:")
    (func (export "alloc") (param i32) (result i32) (i32.const 1032))
    (func (export "handle") (param $at i32) (param $length i32) (result i64)
        (i32.store8 (i32.add (local.get $at) (local.get $length)) (i32.const 125))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
            (i64.extend_i32_u (i32.add (local.get $length) (i32.const 9))))))"#;

#[tokio::test]
async fn an_api_plugin_is_told_what_a_key_may_do_beside_its_owners_role() {
    let test = TestDb::new().await;
    let services = test.services();
    let acme = test.org_with_admin("acme").await;
    install(services, module(&api("told", &[]), REPEATING), granted(&[], None)).await.unwrap();
    let told = async |caller: &Caller| -> Value {
        let answer = services.plugins.ask(caller.org().unwrap(), "told", get("/")).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    };
    let person = told(&acme.admin).await;
    assert_eq!(person["organization"]["role"], "org_admin");
    assert_eq!(person["user"]["scopes"], Value::Null);
    let new = crate::keys::wanted(&[tidegate_model::Scope::OrgRead]);
    let (_, plaintext) = crate::keys::mint(&services.keys, &acme.admin, &new).await.unwrap();
    let program = told(&services.logins.authenticate(&plaintext, None).await.unwrap()).await;
    assert_eq!(program["organization"]["role"], "org_admin");
    assert_eq!(program["user"]["scopes"], json!(["org:read"]));
    assert!(!program.to_string().contains(&plaintext), "and never the key");
}

#[tokio::test]
async fn sessions_are_seen_and_tagged_inside_of_the_organization_alone() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let _agent = test.online_agent("vm-1", 10).await;
    let session = test.pending_session(&acme.admin).await;
    let request = json!({"id": session.id, "tags": ["watched"]}).to_string();
    let tags = module(&api("tags", &["sessions:tag"]), &asking("sessions_tag", &request));
    install(&services, tags, granted(&["sessions:tag"], None)).await.unwrap();
    // Asked in bolt, acme's session is not found, and the module is told so.
    services.plugins.ask(bolt.admin.org().unwrap(), "tags", get("/")).await.unwrap();
    let of = async || -> String {
        test.look(&format!("SELECT array_to_string(tags, ' ') FROM sessions WHERE id = '{}'", session.id))
            .await
    };
    assert_eq!(of().await, "");
    services.plugins.ask(acme.admin.org().unwrap(), "tags", get("/")).await.unwrap();
    assert_eq!(of().await, "watched");
    let by: String =
        test.look("SELECT detail ->> 'plugin' FROM audit_log WHERE action = 'session.tags'").await;
    assert_eq!(by, "tags");
}

#[tokio::test]
async fn files_are_shown_by_name_and_nothing_else_is() {
    let test = TestDb::new().await;
    let services = test.services();
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let manifest =
        json!({"name": "board", "version": "1.0.0", "type": "ui", "entrypoints": {"ui": "ui/index.html"}});
    let archive = tar(&[
        ("plugin.json", manifest.to_string().as_bytes()),
        ("ui/index.html", b"<p>hello</p>"),
        ("ui/app.js", b"1"),
        ("ui/run.sh", b"#!"),
    ]);
    install(services, archive, granted(&[], Some(acme.id))).await.unwrap();
    let inside = Some(acme.admin.org().unwrap());
    let first = services.plugins.file(inside, "board", "").await.unwrap();
    assert_eq!(
        (first.content_type, first.content.as_slice()),
        ("text/html; charset=utf-8", b"<p>hello</p>".as_slice())
    );
    assert_eq!(
        services.plugins.file(inside, "board", "ui/app.js").await.unwrap().content_type,
        "text/javascript; charset=utf-8"
    );
    for path in
        ["ui/run.sh", "plugin.json", "../plugin.json", "ui/../ui/app.js", "/etc/passwd", "gone.html", "ui"]
    {
        assert!(
            matches!(services.plugins.file(inside, "board", path).await, Err(Error::NotFound(_))),
            "{path}"
        );
    }
    for other in [None, Some(bolt.admin.org().unwrap())] {
        assert!(matches!(services.plugins.file(other, "board", "").await, Err(Error::NotFound(_))));
    }
}

#[tokio::test]
async fn the_running_courier_brings_events_by_itself() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let (slow, quick) = (Receiver::new(&[Then::Hang; 30]).await, Receiver::new(&[]).await);
    install(&services, plain(&webhook("slow", "1.0.0")), to(&slow, &["session.*"], false)).await.unwrap();
    install(&services, plain(&webhook("quick", "1.0.0")), to(&quick, &["session.*"], false)).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let (plugins, until) = (services.plugins.clone(), stop.clone());
    let running = tokio::spawn(async move { plugins.run(until).await });
    for _ in 0..5 {
        start(&services, &acme).await.unwrap();
    }
    eventually("the quick one heard of all", async || quick.heard().len() >= 5).await;
    stop.cancel();
    running.await.unwrap();
}

/// A folder of `examples/plugins`, packed as `tar` would.
fn example(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins").join(name);
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    tar(&files)
}

#[tokio::test]
async fn the_example_of_a_webhook_sends_events() {
    let test = TestDb::new().await;
    let services = to_loopback(&test);
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let receiver = Receiver::new(&[]).await;
    let request =
        InstallPluginRequest { config: config(&json!({"url": receiver.url})), ..granted(&[], None) };
    install(&services, example("webhook"), request).await.unwrap();
    start(&services, &acme).await.unwrap();
    handed_out(&test, &services, 1).await;
    services.plugins.deliver_due().await.unwrap();
    assert_eq!(receiver.events(), ["session.pending"]);
}

#[tokio::test]
async fn the_example_of_an_extension_refuses_a_template_and_counts() {
    let test = TestDb::new().await;
    let services = test.services();
    let acme = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let all = ["sessions:veto", "kv", "log"];
    let made = install(services, example("extension"), granted(&all, None)).await.unwrap();
    for _ in 0..2 {
        start(services, &acme).await.unwrap();
    }
    handed_out(&test, services, 2).await;
    while services.plugins.deliver_due().await.unwrap() > 0 {}
    let kept: String = test.look("SELECT value::text FROM plugin_store WHERE key = 'started'").await;
    assert_eq!(kept, "2");
    let change = UpdatePluginRequest { config: Some(config(&json!({"refused": "shell"}))), enabled: None };
    services.plugins.update(&console(), made.id, change).await.unwrap();
    let refused = start(services, &acme).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "the plugin start-counter does not let it start: the template shell is not for everybody"
    );
    assert_eq!(services.plugins.get(&console(), made.id).await.unwrap().faults, 0);
}

#[tokio::test]
async fn the_example_of_an_api_plugin_lists_the_sessions_of_the_organization() {
    let test = TestDb::new().await;
    let services = test.services();
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let _agent = test.online_agent("vm-1", 10).await;
    let session = test.pending_session(&acme.admin).await;
    install(services, example("api"), granted(&["sessions:read"], None)).await.unwrap();
    let asked = async |org: &TestOrg| -> Value {
        let answer = services.plugins.ask(org.admin.org().unwrap(), "session-list", get("/")).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    };
    assert_eq!(asked(&acme).await["ok"][0]["id"], json!(session.id));
    assert_eq!(asked(&bolt).await, json!({"ok": []}));
}

#[tokio::test]
async fn the_examples_of_pages_and_themes_are_shown() {
    let test = TestDb::new().await;
    let services = test.services();
    install(services, example("ui"), granted(&[], None)).await.unwrap();
    let theme = install(services, example("theme"), granted(&[], None)).await.unwrap();
    let page = services.plugins.file(None, "welcome-board", "").await.unwrap();
    let html = String::from_utf8(page.content).unwrap();
    for name in ["board.css", "board.js"] {
        assert!(html.contains(&format!("/plugins/welcome-board/{name}")));
        services.plugins.file(None, "welcome-board", name).await.unwrap();
    }
    assert!(
        String::from_utf8(services.plugins.theme().await.unwrap()).unwrap().contains("color-scheme: dark")
    );
    services.plugins.disable(&console(), theme.id).await.unwrap();
    assert_eq!(services.plugins.theme().await.unwrap(), b"");
}

#[tokio::test]
async fn what_plugins_have_of_an_organization_goes_with_it_and_nothing_of_others() {
    let test = TestDb::new().await;
    let services = test.services();
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let theme = |name: &str| {
        let manifest =
            json!({"name": name, "version": "1.0.0", "type": "theme", "entrypoints": {"ui": "a.css"}});
        tar(&[("plugin.json", manifest.to_string().as_bytes()), ("a.css", name.as_bytes())])
    };
    let everybodys = install(services, theme("everybodys"), granted(&[], None)).await.unwrap();
    install(services, theme("of-acme"), granted(&[], Some(acme.id))).await.unwrap();
    install(services, theme("of-bolt"), granted(&[], Some(bolt.id))).await.unwrap();
    let keep = async |org: Option<OrgId>| {
        let org = org.map_or("NULL".to_owned(), |org| format!("'{org}'"));
        let id = everybodys.id;
        test.execute(&format!("INSERT INTO plugin_store VALUES ({id}, {org}, 'key', '1', now())")).await;
    };
    for org in [Some(acme.id), Some(bolt.id), None] {
        keep(org).await;
    }
    services.all_organizations.delete(&console(), acme.id).await.unwrap();
    let stored =
        "SELECT concat_ws(' ', count(*) FILTER (WHERE org_id IS NULL), count(org_id)) FROM plugin_store";
    assert_eq!(test.look::<String>(stored).await, "1 1", "its store is gone with it");
    let of_acme = format!("SELECT count(*) FROM plugin_store WHERE org_id = '{}'", acme.id);
    assert_eq!(test.look::<i64>(&of_acme).await, 0);
    // One that ran at that moment wrote a little later.
    keep(Some(acme.id)).await;
    test.manual_clock().advance(TimeDelta::minutes(5));
    services.operators.tidy().await.unwrap();
    assert_eq!(test.look::<i64>(&of_acme).await, 0);
    let names = "SELECT string_agg(name, ' ' ORDER BY name) FROM installed_plugins";
    assert_eq!(
        test.look::<String>(names).await,
        "everybodys of-acme of-bolt",
        "it may still hear of the end"
    );
    test.manual_clock().advance(TimeDelta::days(2));
    services.operators.tidy().await.unwrap();
    assert_eq!(test.look::<String>(names).await, "everybodys of-bolt");
    assert_eq!(test.look::<String>(stored).await, "1 1");
    assert_eq!(test.look::<i64>("SELECT count(*) FROM plugin_packages").await, 2, "its package is nobody's");
}
