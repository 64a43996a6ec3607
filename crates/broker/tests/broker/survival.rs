//! What survives the end of a server: accounts, revocations, streams, messages and readers; and a new signing key.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tidegate_broker::{
    AccountAuthority, AccountClaims, Authority, Limits, OperatorKey, Options, OrgAccount, OrgBroker,
    Position, Principal, Revocations, Revoked, System, UserKey,
};
use tidegate_engines::nats::{Durability, Nats, Options as ServerOptions, Status};
use tidegate_model::SystemClock;
use tidegate_test_support::nats::{connect, trust};
use tidegate_test_support::{DEADLINE, eventually};
use uuid::Uuid;

use crate::support::{RETENTION, now};

/// An organization on a server of the test's own.
struct World {
    folder: TempDir,
    authority: Arc<Authority>,
    account: OrgAccount,
}

impl World {
    fn new() -> Self {
        let mode = Permissions::from_mode(0o711);
        let folder = tempfile::Builder::new().prefix("tg-nats-").permissions(mode).tempdir().unwrap();
        let account = OrgAccount { organization: Uuid::new_v4(), authority: AccountAuthority::generate() };
        Self { folder, authority: Arc::new(Authority::generate()), account }
    }

    async fn start(&self) -> Nats {
        let options = ServerOptions::for_tests(self.folder.path(), trust(&self.authority));
        Nats::start(ServerOptions { durability: Durability::Full, ..options }).await.unwrap()
    }

    fn claims(&self) -> AccountClaims {
        self.account.authority.claims(self.account.organization, Limits::default())
    }

    async fn system(&self, nats: &Nats) -> System {
        let clock = Arc::new(SystemClock::new());
        System::connect(&Options::new([nats.url()]), Arc::clone(&self.authority), clock).await.unwrap()
    }

    async fn push(&self, nats: &Nats, claims: &AccountClaims) {
        let token = self.authority.sign_account(claims, now()).unwrap();
        self.system(nats).await.push(&token).await.unwrap();
    }

    async fn broker(&self, nats: &Nats) -> OrgBroker {
        let clock = Arc::new(SystemClock::new());
        OrgBroker::connect(&Options::new([nats.url()]), self.account.clone(), clock).await.unwrap()
    }

    /// Whether a user of the organization gets in.
    async fn lets_in(&self, nats: &Nats, key: &UserKey) -> bool {
        let rights = Principal::new(Uuid::new_v4()).permissions(&[]).unwrap();
        let lifetime = chrono::TimeDelta::minutes(5);
        let token = self.account.authority.mint(key.public(), "x", &rights, now(), lifetime).unwrap();
        connect(&nats.url(), token.as_str(), key, "_INBOX_x").await.is_ok()
    }

    fn pipe(&self, me: Uuid) -> tidegate_broker::StreamSpec {
        tidegate_broker::StreamSpec {
            name: tidegate_broker::StreamName::of_pipe(Uuid::from_u128(7), "inbox").unwrap(),
            subject: tidegate_broker::PipeSubject::new(self.account.organization, me, "mine", "inbox")
                .unwrap(),
            retention: RETENTION,
        }
    }
}

fn outgoing(spec: &tidegate_broker::StreamSpec, me: Uuid, number: u64) -> tidegate_broker::Outgoing {
    tidegate_broker::Outgoing {
        pipe: spec.subject.clone(),
        sender: me,
        id: number.to_string(),
        headers: Vec::new(),
        payload: number.to_string().into(),
    }
}

/// Sends until acknowledged; whatever fails on the way is a killed server.
async fn send(broker: &OrgBroker, spec: &tidegate_broker::StreamSpec, me: Uuid, number: u64) {
    let sent = async || match broker.publish(outgoing(spec, me, number)).await {
        Ok(_) => true,
        Err(error) => {
            // While it recovers, a server has neither the stream nor its account.
            let passes = error.is_transient() || matches!(error, tidegate_broker::Error::NotFound(_));
            assert!(passes, "{error}");
            false
        }
    };
    eventually("the message is acknowledged", sent).await;
}

#[tokio::test]
async fn accounts_messages_readers_and_revocations_survive_a_killed_server() {
    let (world, me) = (World::new(), Uuid::new_v4());
    let nats = world.start().await;
    let revoked = UserKey::generate();
    let mut claims = world.claims();
    claims.revocations = Revocations::from_iter([(
        Revoked::User(revoked.public().clone()),
        now() + chrono::TimeDelta::minutes(1),
    )]);
    world.push(&nats, &claims).await;
    let broker = world.broker(&nats).await;
    let spec = world.pipe(me);
    let made = broker.ensure_stream(&spec).await.unwrap();
    broker.ensure_reader(&spec.name, "reader", Position::Oldest).await.unwrap();

    let mut status = nats.status();
    for number in 0..300 {
        send(&broker, &spec, me, number).await;
        if number % 100 == 50 {
            let pid = nats.pid().unwrap();
            assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
            let fetched = broker.fetch(&spec.name, "reader", 1, None).await;
            drop(fetched);
        }
    }
    let ready = status.wait_for(|status| matches!(status, Status::Ready { .. }));
    tokio::time::timeout(DEADLINE, ready).await.unwrap().unwrap();

    let after = broker.stream(&spec.name).await.unwrap().unwrap();
    assert_eq!((after.created, after.messages), (made.created, 300), "each message once");
    let mut next = 0;
    while next < 300 {
        for stored in broker.read(&spec.name, Position::Sequence(next + 1), 100).await.unwrap() {
            assert_eq!(stored.payload, next.to_string(), "in order");
            next += 1;
        }
    }
    println!("300 acknowledged messages over 3 kills: {next} read, in order");
    assert!(broker.reader(&spec.name, "reader").await.unwrap().is_some());
    assert!(!world.lets_in(&nats, &revoked).await);
    assert!(world.lets_in(&nats, &UserKey::generate()).await);

    // and a start of both sides, with nobody there to push anything
    nats.stop().await.unwrap();
    let nats = world.start().await;
    assert!(!world.lets_in(&nats, &revoked).await);
    assert!(world.lets_in(&nats, &UserKey::generate()).await);
    assert_eq!(world.broker(&nats).await.stream(&spec.name).await.unwrap().unwrap().messages, 300);
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_signing_key_of_the_operator_loses_no_message_and_the_old_one_opens_nothing_more() {
    let (mut world, me) = (World::new(), Uuid::new_v4());
    let nats = world.start().await;
    world.push(&nats, &world.claims()).await;
    let spec = world.pipe(me);
    let broker = world.broker(&nats).await;
    broker.ensure_stream(&spec).await.unwrap();
    broker.publish(outgoing(&spec, me, 1)).await.unwrap();
    nats.stop().await.unwrap();

    // the server trusts both keys; accounts are signed anew, one after the other
    let (old, new) = ((*world.authority).clone(), OperatorKey::generate());
    let rotated = Authority::new(old.identity().clone(), new.clone(), old.system().clone());
    world.authority = Arc::new(rotated.also_trusting([old.signing().public().clone()]));
    let nats = world.start().await;
    assert!(world.lets_in(&nats, &UserKey::generate()).await, "signed by the old key still");
    world.push(&nats, &world.claims()).await;
    nats.stop().await.unwrap();

    // the server trusts the new key alone
    world.authority = Arc::new(Authority::new(old.identity().clone(), new, old.system().clone()));
    let nats = world.start().await;
    let broker = world.broker(&nats).await;
    assert_eq!(broker.stream(&spec.name).await.unwrap().unwrap().messages, 1);
    let forged = old.sign_account(&world.claims(), now()).unwrap();
    let stranger = OrgAccount { organization: Uuid::new_v4(), authority: AccountAuthority::generate() };
    let unseen = old
        .sign_account(&stranger.authority.claims(stranger.organization, Limits::default()), now())
        .unwrap();
    assert_ne!(forged.as_str(), unseen.as_str());
    world.system(&nats).await.push(&unseen).await.ok();
    let clock = Arc::new(SystemClock::new());
    assert!(OrgBroker::connect(&Options::new([nats.url()]), stranger, clock).await.is_err());
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_asked_of_a_server_that_was_away_is_not_done_once_it_is_back() {
    let (world, me) = (World::new(), Uuid::new_v4());
    let nats = world.start().await;
    world.push(&nats, &world.claims()).await;
    let (broker, spec) = (world.broker(&nats).await, world.pipe(me));
    broker.ensure_stream(&spec).await.unwrap();
    nats.stop().await.unwrap();
    eventually("the loss is noticed", async || broker.stream(&spec.name).await.is_err()).await;
    assert!(broker.delete_stream(&spec.name).await.unwrap_err().is_transient());
    let nats = world.start().await;
    eventually("it is back", async || broker.stream(&spec.name).await.is_ok()).await;
    assert!(broker.stream(&spec.name).await.unwrap().is_some(), "deleted late, when it may be another one");
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn a_clean_folder_is_left_behind() {
    let world = World::new();
    world.start().await.stop().await.unwrap();
    let data: &Path = &world.folder.path().join("data");
    let mut names: Vec<_> = std::fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["nats", "nats.lock", "nats.log", "nats.port"]);
}

#[tokio::test]
async fn a_watch_goes_on_after_a_killed_server() {
    let (world, me) = (World::new(), Uuid::new_v4());
    let nats = world.start().await;
    world.push(&nats, &world.claims()).await;
    let (broker, spec) = (world.broker(&nats).await, world.pipe(me));
    broker.ensure_stream(&spec).await.unwrap();
    let mut watch = broker.watch(&spec.name);
    watch.ready(DEADLINE).await;
    let pid = nats.pid().unwrap();
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    for number in 1..=10 {
        send(&broker, &spec, me, number).await;
        tokio::time::timeout(DEADLINE, watch.news()).await.expect("a message is told of");
    }
    // Whether the server remembered the consumer or not.
    let hears = async || watch.is_listening();
    eventually("the stream is watched", hears).await;
}
