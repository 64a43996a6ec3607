//! NATS of one's own, as an operator sets it up: configured by what is printed, looked at, its key changed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

mod console;

use std::{
    fs::{self, Permissions},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use tidegate_engines::nats::find;
use tidegate_test_support::{TestDb, eventually};

use crate::console::Console;

/// A nats-server of an operator's own.
struct Own {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Own {
    fn new() -> Self {
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o711)).tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self { folder, port: listener.local_addr().unwrap().port(), server: None }
    }

    /// Does what the documentation says: the printed lines are included, the file is tried, the server started.
    fn start_with(&mut self, printed: &str) {
        self.stop();
        let path = |name: &str| self.folder.path().join(name);
        fs::write(path("tidegate.conf"), printed).unwrap();
        let listen =
            format!("server_name: own\nlisten: \"127.0.0.1:{}\"\ninclude ./tidegate.conf\n", self.port);
        fs::write(path("server.conf"), listen).unwrap();
        let program = find(None).unwrap().path;
        let tried = Command::new(&program).arg("-t").arg("-c").arg(path("server.conf")).output().unwrap();
        assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
        let mut server = Command::new(program);
        server.arg("-c").arg(path("server.conf")).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(server.spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What doctor says of one thing: whether it is well, and what was found.
fn doctor(console: &Console, what: &str) -> (bool, String) {
    let (_, said) = console.run(&["doctor", "--json"]);
    let checks: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    let check = checks.as_array().unwrap().iter().find(|check| check["what"] == what);
    let check = check.unwrap_or_else(|| panic!("nothing of {what}: {said}"));
    (check["ok"].as_bool().unwrap(), check["found"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_server_of_ones_own_is_configured_looked_at_and_told_of_another_key() {
    let (test, mut own) = (TestDb::new().await, Own::new());
    let console = Console::of(&test);
    console.configure(&format!("[nats]\nurl = \"nats://127.0.0.1:{}\"\n", own.port));
    let (well, found) = doctor(&console, "nats");
    assert!(well && found.contains("not used yet"), "{found}");

    let folder = own.folder.path().join("store");
    let config = ["nats", "config", "--folder", folder.to_str().unwrap()];
    let printed = console.says(&config);
    assert!(printed.contains("sync_interval: always") && printed.contains("type: full"), "{printed}");
    // Its tokens say when the operator last changed, not when they were printed: here another second.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = second();
    eventually("another second", async || second() > before).await;
    assert_eq!(console.says(&config), printed, "the same each time");
    assert_eq!(console.json(&config)["config"], printed);
    let (well, found) = doctor(&console, "nats");
    assert!(!well && found.contains("tidegate-admin nats config"), "{found}");
    own.start_with(&printed);
    eventually("the server is there", async || doctor(&console, "nats").0).await;
    for what in ["nats version", "nats store", "nats trust", "nats changes", "nats accounts"] {
        let (well, found) = doctor(&console, what);
        assert!(well, "{what}: {found}");
    }
    let shown = console.json(&["nats", "show"]);
    assert_eq!(
        (&shown["servers"][0]["name"], &shown["servers"][0]["store"]["syncAlways"]),
        (&"own".into(), &true.into())
    );
    let old = shown["operator"]["signingKey"].clone();
    assert_eq!(console.says(&config), printed, "whatever used it meanwhile");

    let refused = console.refused(&["nats", "rotate", "--wait", "0"]);
    assert!(refused.contains("do not trust the new key yet: own") && refused.contains("repeat"), "{refused}");
    let (well, found) = doctor(&console, "nats trust");
    assert!(!well && found.contains("not every key of the operator is trusted by own"), "{found}");
    own.start_with(&console.says(&config));
    let done = console.json(&["nats", "rotate"]);
    assert_eq!((&done["done"], &done["goneOn"]), (&true.into(), &true.into()));
    assert_ne!(done["signingKey"], old);
    let (well, found) = doctor(&console, "nats trust");
    assert!(well && found.contains("keys besides"), "{found}");
    let rotated = console.says(&config);
    assert_ne!(rotated, printed);
    own.start_with(&rotated);
    eventually("the old key is forgotten", async || {
        doctor(&console, "nats trust").1.starts_with("every server")
    })
    .await;

    let compared = console.json(&["nats", "reconcile"]);
    assert_eq!((&compared["organizations"], &compared["readers"]), (&0.into(), &0.into()), "{compared}");
    assert!(console.says(&["nats", "reconcile"]).contains("readers of somebody who may not read"));
    test.org_with_admin("acme").await;
    let none = console.refused(&["nats", "limits", "--organization", "acme", "--promise", "1"]);
    assert!(none.contains("made when its pipes are first used"), "{none}");
}
