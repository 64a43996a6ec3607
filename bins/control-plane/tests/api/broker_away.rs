//! Terminals are recorded while their nats-server stands still, or is gone: all of it is there in the end, or a gap says how
//! much is missing.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_engines::nats::{Nats, Options};
use tidegate_model::{Payload, SessionId};
use tidegate_test_support::{
    eventually,
    nats::{Authority, trust},
};

use crate::{
    recorded::{Endless, Stand, lines_of, messages},
    support::World,
};

/// A nats-server of the test's own, which can be halted and killed.
struct Server {
    nats: Nats,
    _folder: TempDir,
}

impl Server {
    async fn start() -> (Self, Stand) {
        let authority = Authority::generate();
        let mode = Permissions::from_mode(0o711);
        let folder = tempfile::Builder::new().prefix("tg-nats-").permissions(mode).tempdir().unwrap();
        let nats = Nats::start(Options::for_tests(folder.path(), trust(&authority))).await.unwrap();
        let world = World::with_nats_at(nats.url(), authority).await;
        (Self { nats, _folder: folder }, Box::pin(Stand::on(world)).await)
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.nats.pid().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Halted, it could not end.
        if let Some(pid) = self.nats.pid() {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGCONT);
        }
    }
}

impl Stand {
    /// Waits until the recorder has given its tunnel back, which it does once something cannot be stored.
    async fn gives_back(&self, session: &str) {
        let id: SessionId = session.parse().unwrap();
        eventually("the recorder gives up for the moment", async || {
            self.world.handle.hub().tunnels(id).is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn a_broker_that_is_halted_or_killed_for_a_while_makes_no_gap_and_doubles_nothing() {
    let (server, stand) = Box::pin(Server::start()).await;
    let endless = Endless::new();
    let session = stand.session(&endless.script()).await;
    assert_eq!(stand.record(&stand.owner, &session, "build").await.status, 200);
    let lines = async || lines_of(&Box::pin(stand.recorded("build")).await);
    let goes_on = async || {
        let printed = endless.lines();
        Box::pin(eventually("it is recorded up to here", async || lines().await > printed)).await;
    };
    goes_on().await;
    // So short that whoever waits for its word still gets it.
    server.send(Signal::SIGSTOP);
    let printed = endless.lines();
    eventually("it prints on", async || endless.lines() > printed + 20).await;
    server.send(Signal::SIGCONT);
    goes_on().await;
    // So long that nobody waits any more: what was on its way is stored then, behind the recorder's back.
    server.send(Signal::SIGSTOP);
    stand.gives_back(&session).await;
    let printed = endless.lines();
    eventually("nobody holds it up", async || endless.lines() > printed + 20).await;
    server.send(Signal::SIGCONT);
    goes_on().await;
    // Gone, and back.
    server.send(Signal::SIGKILL);
    goes_on().await;
    let path = format!("/api/v1/sessions/{session}/terminate");
    assert_eq!(stand.call("POST", &path, &stand.owner, None).await.status, 202);
    eventually("the end is marked", async || !stand.ends("build").await.is_empty()).await;
    // All that it noted, but for a line that it was ended before.
    assert!(lines().await + 1 >= endless.lines());
    let said = stand.said("build").await;
    assert!(said.iter().all(|said| said.get("gap").is_none()), "{said:?}");
    assert_eq!(said.iter().filter(|said| said.get("begin").is_some()).count(), 1, "{said:?}");
}

/// A program that prints in three parts, each when it is told to.
struct Parts(TempDir);

impl Parts {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        // Sessions are users of their own.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        Self(folder)
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn tell(&self, name: &str) {
        fs::write(self.mark(name), "").unwrap();
    }

    fn script(&self) -> String {
        let wait = |name: &str| format!("until [ -e {} ]; do sleep 0.02; done", self.mark(name).display());
        format!(
            "stty raw; seq 1 1000; {}; seq 100001 500000; touch {}; {}; printf last",
            wait("go"),
            self.mark("printed").display(),
            wait("end")
        )
    }

    fn prints() -> Vec<u8> {
        let mut all = Vec::new();
        for number in (1..=1_000).chain(100_001..=500_000) {
            all.extend_from_slice(format!("{number}\n").as_bytes());
        }
        all.extend_from_slice(b"last");
        all
    }
}

#[tokio::test]
async fn what_nobody_kept_while_the_broker_was_away_is_a_gap_of_as_many_bytes() {
    let (server, stand) = Box::pin(Server::start()).await;
    let parts = Parts::new();
    let session = stand.session(&parts.script()).await;
    assert_eq!(stand.record(&stand.owner, &session, "build").await.status, 200);
    eventually("the first part is recorded", async || {
        Box::pin(stand.recorded("build")).await.ends_with(b"1000\n")
    })
    .await;
    server.send(Signal::SIGSTOP);
    parts.tell("go");
    eventually("it prints far more than is kept", async || parts.mark("printed").exists()).await;
    stand.gives_back(&session).await;
    server.send(Signal::SIGCONT);
    eventually("what was kept is recorded", async || {
        Box::pin(stand.recorded("build")).await.ends_with(b"500000\n")
    })
    .await;
    parts.tell("end");
    eventually("the end is marked", async || !stand.ends("build").await.is_empty()).await;

    let (printed, mut at, mut gaps) = (Parts::prints(), 0, Vec::new());
    for message in messages(&stand.world, &stand.owner, "build", "stdout").await {
        match message.envelope.payload {
            Payload::Bytes(bytes) => {
                assert!(
                    printed[at..].starts_with(&bytes),
                    "other bytes than were printed, or none of a gap, at {at}"
                );
                at += bytes.len();
            }
            Payload::Text(text) => {
                let said: Value = serde_json::from_str(&text).unwrap();
                if let Some(gap) = said.get("gap") {
                    let bytes = usize::try_from(gap["bytes"].as_u64().unwrap()).unwrap();
                    gaps.push(bytes);
                    at += bytes;
                }
            }
        }
    }
    assert_eq!(at, printed.len());
    assert!(gaps.len() == 1 && gaps[0] > 1_000_000, "{gaps:?}");
    let told: Vec<Value> =
        stand.said("build").await.into_iter().filter(|said| said.get("gap").is_some()).collect();
    assert_eq!(told, [serde_json::json!({"gap": {"bytes": gaps[0]}})], "and beside it");
}
