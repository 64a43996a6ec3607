//! TLS served without a proxy: requests, WebSockets, and files that are not good.

use std::{fs, path::Path, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tidegate_client::{Client, MemoryStore};
use tidegate_control_plane::{Config, Server, chain};
use tidegate_model::{OrgRole, SystemClock};
use tidegate_service::Operator;
use tidegate_test_support::{TestCa, TestDb, new_key_of};
use tokio_tungstenite::{
    Connector, connect_async_tls_with_config,
    tungstenite::{Message, client::IntoClientRequest},
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
    for (cert, key, named) in cases {
        let mut config = Config::from_parts(&settings(&cert, &key), &[]).unwrap();
        config.listen.set_port(0);
        let error = Server::start(&config, db.services().clone(), Arc::new(SystemClock::new())).unwrap_err();
        let said = chain(&error);
        assert!(said.contains(&format!("{named} cannot be used as TLS certificate or key: ")), "{said}");
    }
}
