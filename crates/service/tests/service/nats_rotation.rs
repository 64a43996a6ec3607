//! Another signing key for the operator on a nats-server of its own: nothing is lost, whoever is connected stays, other
//! processes sign with the new one, and whatever ends it half-way, a repeat ends it.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, sync::Arc};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tidegate_broker::UserKey;
use tidegate_engines::nats::{Nats, Options, Trust};
use tidegate_model::{Clock, CreateSourceRequest, FromFields, NewMessage, OrgRole, Payload, SystemClock};
use tidegate_service::{
    BrokerOptions, Caller, Error, MessagesRead, MessagesWanted, Operator, Rotation, RotationBegun, Services,
};
use tidegate_test_support::{TestDb, eventually, eventually_some, nats::connect};

struct Stage {
    test: TestDb,
    nats: Nats,
    services: Services,
    owners: Vec<Caller>,
    _folder: TempDir,
}

async fn trust(services: &Services) -> Trust {
    let trust = services.broker.trust().await.unwrap();
    Trust { operator: trust.operator, system_account: trust.system_account, system_token: trust.system_token }
}

impl Stage {
    /// Three organizations, each with a message in a pipe.
    async fn new() -> Self {
        let test = TestDb::new().await;
        let clock = test.manual_clock();
        clock.advance(SystemClock::new().now() - clock.now());
        let folder = tempfile::Builder::new()
            .prefix("tg-nats-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .unwrap();
        let services = test.services_at(Arc::new(SystemClock::new()));
        let nats = Nats::start(Options::for_tests(folder.path(), trust(&services).await)).await.unwrap();
        services.broker.open(BrokerOptions::new([nats.url()])).await.unwrap();
        let mut stage = Self { test, nats, services, owners: Vec::new(), _folder: folder };
        for name in ["acme", "rival", "third"] {
            stage.found(name).await;
        }
        stage
    }

    async fn found(&mut self, name: &str) {
        self.test.org_with_admin(name).await;
        let owner = self.test.caller(&self.test.user_in(name, OrgRole::User).await).await;
        let request = CreateSourceRequest::from_json(json!({"handle": "build", "kind": "message"})).unwrap();
        self.services.sources.create(owner.org().unwrap(), request, None, |_| json!(null)).await.unwrap();
        self.owners.push(owner);
        self.send(self.owners.len() - 1, "before").await;
    }

    async fn send(&self, owner: usize, say: &str) {
        let scope = self.owners[owner].org().unwrap();
        let new =
            NewMessage { payload: Payload::Text(say.to_owned()), in_reply_to: None, ack_requested: false };
        eventually("it is acknowledged", async || {
            self.services.messages.publish(scope, "build", "inbox", new.clone(), None).await.is_ok()
        })
        .await;
    }

    async fn said(&self, owner: usize) -> Vec<String> {
        let scope = self.owners[owner].org().unwrap();
        let wanted = MessagesWanted { read: MessagesRead::After(0), ..MessagesWanted::default() };
        let page = self.services.messages.read(scope, "build", "inbox", wanted).await.unwrap();
        let text = |payload| match payload {
            Payload::Text(text) => text,
            Payload::Bytes(_) => panic!("no bytes were sent"),
        };
        page.messages.into_iter().map(|message| text(message.envelope.payload)).collect()
    }

    /// Another process on the same database and NATS.
    async fn replica(&self) -> Services {
        let services = self.test.services_at(Arc::new(SystemClock::new()));
        services.broker.open(BrokerOptions::new([self.nats.url()])).await.unwrap();
        services
    }

    /// What a control plane does for its private server.
    async fn start_anew(&self) {
        let before = self.nats.pid();
        self.nats.trust(trust(&self.services).await).await.unwrap();
        eventually("it is started anew", async || self.nats.pid().is_some_and(|pid| Some(pid) != before))
            .await;
    }

    async fn go_on(&self, services: &Services) -> Rotation {
        eventually_some("NATS is there again", async || {
            services.broker.continue_rotation(&Operator::console()).await.ok()
        })
        .await
    }
}

/// A client of NATS with what was exchanged.
macro_rules! client {
    ($exchanged:expr) => {{
        let key = UserKey::from_seed(&$exchanged.nats_user_seed).unwrap();
        connect(&$exchanged.nats_url, &$exchanged.nats_user_jwt, &key, &$exchanged.inbox_prefix).await
    }};
}

#[tokio::test]
async fn a_new_signing_key_loses_no_message_and_disturbs_nobody() {
    let mut stage = Stage::new().await;
    let (other, console) = (stage.replica().await, Operator::console());
    other.broker.check().await.unwrap();
    let before = stage.services.broker.operator().await.unwrap();
    let exchanged = stage.services.exchange.exchange_for(&stage.owners[0]).await.unwrap();
    let open = client!(exchanged).unwrap();
    assert_eq!(stage.services.broker.begin_rotation(&console).await.unwrap(), RotationBegun::Anew);
    assert_eq!(stage.services.broker.begin_rotation(&console).await.unwrap(), RotationBegun::UnderWay);
    assert!(matches!(stage.go_on(&stage.services).await, Rotation::Waits(servers) if servers.len() == 1));
    let standing = stage.services.broker.standing().await.unwrap();
    assert_eq!((standing.behind.len(), standing.operator.signing_key), (1, before.signing_key.clone()));
    stage.send(0, "while it waits").await;
    stage.start_anew().await;
    assert!(matches!(stage.go_on(&stage.services).await, Rotation::Done { .. }));

    let after = stage.services.broker.operator().await.unwrap();
    assert_eq!((after.operator, after.next_key, after.retired_keys.len()), (before.operator, None, 0));
    assert!(after.signing_key != before.signing_key && after.accounts_waiting == 0);
    assert!(!stage.services.broker.reconcile().await.unwrap().is_some());
    // A process that was there before signs with the new key, though it was told nothing.
    stage.services = other;
    stage.found("fourth").await;
    // The old key ends with the server's next start.
    stage.start_anew().await;
    eventually("all of it is as it should be", async || {
        stage
            .services
            .broker
            .standing()
            .await
            .is_ok_and(|now| now.behind.is_empty() && now.lenient.is_empty())
    })
    .await;
    eventually("whoever was connected is so again", async || {
        open.connection_state().to_string() == "connected"
    })
    .await;
    client!(exchanged).expect("a token from before the rotation is good");
    for owner in 0..4 {
        stage.send(owner, "after").await;
    }
    assert_eq!(stage.said(0).await, ["before", "while it waits", "after"]);
    for owner in 1..4 {
        assert_eq!(stage.said(owner).await, ["before", "after"]);
    }
    let steps: i64 =
        stage.test.look("SELECT count(*) FROM audit_log WHERE action LIKE 'nats.rotate.%'").await;
    assert_eq!(steps, 3, "begun, switched, ended: each once");
    stage.nats.stop().await.unwrap();
}

#[tokio::test]
async fn whatever_ends_a_rotation_half_way_a_repeat_ends_it() {
    let stage = Stage::new().await;
    let console = Operator::console();
    // Killed after the key was kept.
    stage.replica().await.broker.begin_rotation(&console).await.unwrap();
    assert_eq!(stage.replica().await.broker.begin_rotation(&console).await.unwrap(), RotationBegun::UnderWay);
    stage.start_anew().await;
    // Killed after the switch, before any account but one was signed anew: nobody lets go of the old key.
    stage
        .test
        .execute(
            "UPDATE nats_operator SET retired_keys = array_append(retired_keys, signing_key), signing_key = next_key,
                    signing_seed = next_seed, next_key = NULL, next_seed = NULL",
        )
        .await;
    eventually("NATS is there", async || stage.services.broker.check().await.is_ok()).await;
    stage.send(0, "between").await;
    let half = stage.services.broker.operator().await.unwrap();
    assert_eq!((half.accounts, half.accounts_waiting, half.retired_keys.len()), (3, 3, 1));
    assert_eq!(stage.replica().await.broker.begin_rotation(&console).await.unwrap(), RotationBegun::UnderWay);
    // Two go on at once.
    let (one, two) = (stage.replica().await, stage.replica().await);
    let ended = join_all([stage.go_on(&one), stage.go_on(&two)]).await;
    assert!(ended.iter().all(|ended| matches!(ended, Rotation::Done { .. })), "{ended:?}");
    let whole = stage.services.broker.operator().await.unwrap();
    assert_eq!((whole.accounts_waiting, whole.retired_keys.len()), (0, 0));
    stage.start_anew().await;
    for owner in 0..3 {
        stage.send(owner, "after").await;
    }
    assert_eq!(stage.said(0).await, ["before", "between", "after"]);
    assert_eq!(stage.said(2).await, ["before", "after"]);
    // And with nothing under way, another one begins.
    assert_eq!(stage.services.broker.begin_rotation(&console).await.unwrap(), RotationBegun::Anew);
    stage.nats.stop().await.unwrap();
}

#[tokio::test]
async fn with_nats_away_no_organization_waits_in_vain_for_the_comparison() {
    let stage = Stage::new().await;
    assert_eq!(stage.services.broker.reconcile().await.unwrap().organizations, 3);
    stage.nats.stop().await.unwrap();
    let away = stage.services.broker.reconcile().await.unwrap_err();
    assert!(matches!(away, Error::BrokerUnavailable(_)), "{away:?}");
}
