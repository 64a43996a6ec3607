//! TLS served without a proxy: requests, WebSockets, and files that are not good.

use std::{fs, path::Path, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tidegate_client::{Client, MemoryStore};
use tidegate_control_plane::{Config, Server, chain};
use tidegate_model::{OrgRole, Secret, SystemClock};
use tidegate_service::Operator;
use tidegate_test_support::{BOOTSTRAP_KEY, TestCa, TestCertificate, TestDb, new_key_of, registration};
use tokio_tungstenite::{
    Connector, connect_async_tls_with_config,
    tungstenite::{Error as SocketError, Message, client::IntoClientRequest},
};

use crate::support::World;

fn settings(cert: &Path, key: &Path) -> String {
    format!("[tls]\ncert = \"{}\"\nkey = \"{}\"", cert.display(), key.display())
}

/// A folder with `ca.pem`, `cert.pem` and `key.pem` for 127.0.0.1.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ca = TestCa::new("somebody's own");
    let issued = ca.issue(&["127.0.0.1"]);
    for (name, text) in [("ca.pem", ca.pem()), ("cert.pem", issued.cert), ("key.pem", issued.key)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[tokio::test]
async fn requests_and_websockets_are_served_over_tls() {
    let files = files();
    let world = World::with(&settings(&files.path().join("cert.pem"), &files.path().join("key.pem"))).await;
    assert!(world.handle.url().starts_with("https://127.0.0.1:"));
    let ca = fs::read(files.path().join("ca.pem")).unwrap();

    world.services.operators.create_organization(&Operator::console(), "acme").await.unwrap();
    let user = world.db.user_in("acme", OrgRole::User).await;
    let client = |ca: Vec<u8>| {
        let base = world.handle.url().parse().unwrap();
        Client::builder(base).ca_pem(ca).store(Arc::new(MemoryStore::new(None))).build().unwrap()
    };
    let login = client(ca.clone()).login(&user.username, &user.password).await.unwrap();
    assert_eq!(login.user.username, user.username);
    client(Vec::new()).login(&user.username, &user.password).await.unwrap_err();

    let key = new_key_of(&world.services, "vm-1", 1).await;
    let url = format!("{}/api/v1/agents/connect?agent_id=vm-1", world.handle.url().replace("https", "wss"));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("X-Agent-API-Key", key.expose().parse().unwrap());
    let tls = Connector::Rustls(tidegate_client::tls_config(&ca).unwrap());
    let (mut socket, _) = connect_async_tls_with_config(request, None, false, Some(tls)).await.unwrap();
    let hello = r#"{"type":"hello","payload":{"protocolVersions":[1],"bootId":"b","sessions":[]}}"#;
    socket.send(Message::text(hello)).await.unwrap();
    let welcome = socket.next().await.unwrap().unwrap();
    assert!(welcome.to_text().unwrap().contains("welcome"), "{welcome:?}");
}

#[tokio::test]
async fn a_certificate_or_key_that_is_not_good_is_named() {
    let (files, others) = (files(), files());
    let db = TestDb::new().await;
    let path = |name: &str| files.path().join(name);
    fs::write(path("empty.pem"), "").unwrap();
    let cases = [
        (path("missing.pem"), path("key.pem"), "missing.pem"),
        (path("cert.pem"), path("missing.pem"), "missing.pem"),
        (path("empty.pem"), path("key.pem"), "empty.pem"),
        (path("cert.pem"), path("empty.pem"), "empty.pem"),
        (path("key.pem"), path("key.pem"), "key.pem"),
        (path("cert.pem"), others.path().join("key.pem"), "cert.pem"),
    ];
    let text = settings(&path("cert.pem"), &path("key.pem"));
    let text = format!("{text}\nclient_ca = \"{}\"", path("empty.pem").display());
    let mut config = Config::from_parts(&text, &[]).unwrap();
    config.listen.set_port(0);
    let error = Server::start(&config, db.services().clone(), Arc::new(SystemClock::new())).unwrap_err();
    assert!(chain(&error).contains("empty.pem cannot be used as TLS certificate or key: "), "{error}");
    for (cert, key, named) in cases {
        let mut config = Config::from_parts(&settings(&cert, &key), &[]).unwrap();
        config.listen.set_port(0);
        let error = Server::start(&config, db.services().clone(), Arc::new(SystemClock::new())).unwrap_err();
        let said = chain(&error);
        assert!(said.contains(&format!("{named} cannot be used as TLS certificate or key: ")), "{said}");
    }
}

/// A control plane that asks agents for certificates of `agents`, and the certificate of whoever signed its own.
async fn asking(agents: &TestCa) -> (TempDir, World, Vec<u8>) {
    let files = files();
    let path = |name: &str| files.path().join(name);
    fs::write(path("agents.pem"), agents.pem()).unwrap();
    let ask = format!("\nclient_ca = \"{}\"", path("agents.pem").display());
    let world = World::with(&(settings(&path("cert.pem"), &path("key.pem")) + &ask)).await;
    let ca = fs::read(path("ca.pem")).unwrap();
    (files, world, ca)
}

/// What the answer to an agent's dial is; 0 where there is none.
async fn dial(world: &World, ca: &[u8], path: &str, key: &str, own: Option<&TestCertificate>) -> u16 {
    let url = world.handle.url().replace("https", "wss");
    let mut request = format!("{url}/api/v1/agents/{path}").into_client_request().unwrap();
    request.headers_mut().insert("X-Agent-API-Key", key.parse().unwrap());
    let own = own.map(|own| (own.cert.as_bytes(), own.key.as_bytes()));
    let tls = Connector::Rustls(tidegate_client::tls_config_as(ca, own).unwrap());
    match connect_async_tls_with_config(request, None, false, Some(tls)).await {
        Ok((_, answer)) => answer.status().as_u16(),
        Err(SocketError::Http(answer)) => answer.status().as_u16(),
        Err(_) => 0,
    }
}

#[tokio::test]
async fn where_agents_bring_certificates_nobody_elses_will_do_and_none_neither() {
    let (agents, strangers) = (TestCa::new("the agents'"), TestCa::new("somebody else's"));
    let (_files, world, ca) = asking(&agents).await;
    let key = new_key_of(&world.services, "vm-1", 1).await;
    let connect = "connect?agent_id=vm-1";
    let tunnel = format!("tunnels/{}", "0".repeat(32));
    let named_tunnel = format!("{tunnel}?agent_id=vm-1");
    let own = [agents.issue_to("vm-1"), agents.issue(&["vm-1"])];
    for own in own.iter().map(Some) {
        assert_eq!(dial(&world, &ca, connect, key.expose(), own).await, 101);
        // Let in, and only then told that there is no such tunnel.
        assert_eq!(dial(&world, &ca, &tunnel, key.expose(), own).await, 404);
        assert_eq!(dial(&world, &ca, &named_tunnel, key.expose(), own).await, 404);
        // A certificate is no key.
        assert_eq!(dial(&world, &ca, connect, &"0".repeat(64), own).await, 401);
    }
    let others = [agents.issue_to("vm-2"), agents.issue(&["vm-2", "*", "vm-10"]), agents.issue_to("VM-1")];
    for other in others.iter().map(Some).chain([None]) {
        for path in [connect, tunnel.as_str(), named_tunnel.as_str()] {
            assert_eq!(dial(&world, &ca, path, key.expose(), other).await, 403, "{path}");
        }
    }
    // Of an authority that is not asked for, it does not come so far.
    assert_eq!(dial(&world, &ca, connect, key.expose(), Some(&strangers.issue_to("vm-1"))).await, 0);
}

#[tokio::test]
async fn where_agents_bring_certificates_the_bootstrap_key_and_people_need_none() {
    let agents = TestCa::new("the agents'");
    let (_files, world, ca) = asking(&agents).await;
    let base = world.handle.url().parse().unwrap();
    let client = Client::builder(base).ca_pem(ca).store(Arc::new(MemoryStore::new(None))).build().unwrap();
    let bootstrap = Secret::new(BOOTSTRAP_KEY.to_owned());
    let waits = client.register_agent(&bootstrap, None, &registration("vm-9", 1)).await.unwrap();
    assert!(waits.claim_token.is_some());
    let key = new_key_of(&world.services, "vm-1", 1).await;
    let refused = client.register_agent(&key, None, &registration("vm-1", 7)).await.unwrap_err();
    assert_eq!(refused.api().unwrap().code, "E_AGENT_CERTIFICATE");
    assert_eq!(
        world.db.look::<i64>("SELECT max(max_sessions)::bigint FROM agents").await,
        1,
        "it changed nothing"
    );
    world.services.operators.create_organization(&Operator::console(), "acme").await.unwrap();
    let user = world.db.user_in("acme", OrgRole::User).await;
    client.login(&user.username, &user.password).await.unwrap();
}
