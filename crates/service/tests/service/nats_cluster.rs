//! Pipes on three nats-servers of somebody else's, every stream three times: servers are killed under load, one after the
//! other, and the operator gets another signing key meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{join, join_all};
use serde_json::json;
use tidegate_engines::nats::Trust;
use tidegate_model::{
    Clock, Confirmation, CreatePipeRequest, CreateSourceRequest, FromFields, NewMessage, OrgRole, Payload,
    SystemClock,
};
use tidegate_service::{
    BrokerOptions, Caller, Error, Idempotency, MessagesRead, MessagesWanted, Operator, Rotation,
    RotationBegun, Services,
};
use tidegate_test_support::{NatsCluster, TestDb, eventually, eventually_some};

const SENDERS: usize = 4;

async fn trust(services: &Services) -> Trust {
    let trust = services.broker.trust().await.unwrap();
    Trust { operator: trust.operator, system_account: trust.system_account, system_token: trust.system_token }
}

fn text(text: &str) -> NewMessage {
    NewMessage { payload: Payload::Text(text.to_owned()), in_reply_to: None, ack_requested: false }
}

/// Sends numbers until it is told to stop, each until it is acknowledged. Gives how many there were.
async fn send(
    services: Services,
    from: Caller,
    sender: usize,
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> usize {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let said = format!("{sender}:{number}");
        let key = Idempotency::new(from.credential(), "messages", &said, b"").unwrap();
        eventually("the message is acknowledged", async || {
            let scope = from.org().unwrap();
            services.messages.publish(scope, "build", "room", text(&said), Some(&key)).await.is_ok()
        })
        .await;
        sent.fetch_add(1, Ordering::Relaxed);
        number += 1;
    }
    number
}

#[tokio::test]
async fn every_acknowledged_message_is_read_once_though_each_server_was_killed_and_the_signing_key_changed() {
    let test = TestDb::new().await;
    let clock = test.manual_clock();
    clock.advance(SystemClock::new().now() - clock.now());
    test.org_with_admin("acme").await;
    let owner = test.caller(&test.user_in("acme", OrgRole::User).await).await;
    let services = test.services_at(Arc::new(SystemClock::new()));
    let mut cluster = NatsCluster::start(&trust(&services).await);
    let options = BrokerOptions { replicas: 3, ..BrokerOptions::new(cluster.urls()) };
    services.broker.open(options).await.unwrap();
    // The setting is raised when the first pipe is in use already.
    let before = test.services_at(Arc::new(SystemClock::new()));
    before.broker.open(BrokerOptions::new(cluster.urls())).await.unwrap();
    let three = async || services.broker.standing().await.is_ok_and(|found| found.servers.len() == 3);
    eventually("the cluster is there", three).await;
    let request = CreateSourceRequest::from_json(json!({"handle": "build", "kind": "message"})).unwrap();
    services.sources.create(owner.org().unwrap(), request, None, |_| json!(null)).await.unwrap();
    // However fast the disk is, nothing that was acknowledged is dropped for want of room.
    let room = json!({"name": "room", "maxMsgs": 1_000_000});
    let room = CreatePipeRequest::from_json(room).unwrap();
    services.pipes.create(owner.org().unwrap(), "build", room, None, |_| json!(null)).await.unwrap();

    let unread =
        async |services: &Services| services.messages.unread(owner.org().unwrap(), "build", "room").await;
    eventually("the stream is made, once", async || unread(&before).await.is_ok()).await;
    let drift = eventually_some("they are compared", async || services.broker.reconcile().await.ok()).await;
    assert_eq!((drift.different, drift.missing, drift.extra), (1, 0, 0), "three times, not once");
    let behind = async |streams: usize| {
        eventually("the streams that too few servers have", async || {
            while services.broker.apply_pending().await.is_ok_and(|done| done > 0) {}
            let drift = services.broker.reconcile().await;
            drift.is_ok_and(|drift| !drift.is_some() && drift.failed == 0 && drift.behind == streams)
        })
        .await;
    };
    behind(0).await;

    let (sent, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut senders = Vec::new();
    for sender in 0..SENDERS {
        senders.push(send(services.clone(), owner.clone(), sender, Arc::clone(&sent), Arc::clone(&stop)));
    }
    let more = async |what: &str| {
        let before = sent.load(Ordering::Relaxed);
        eventually(what, async || sent.load(Ordering::Relaxed) >= before + 20).await;
    };
    let operate = async {
        more("messages are sent").await;
        let console = Operator::console();
        let old = services.broker.operator().await.unwrap().signing_key;
        assert_eq!(services.broker.begin_rotation(&console).await.unwrap(), RotationBegun::Anew);
        let waits = eventually_some("the servers are asked", async || {
            services.broker.continue_rotation(&console).await.ok()
        })
        .await;
        assert_eq!(waits, Rotation::Waits(["s0", "s1", "s2"].map(ToOwned::to_owned).to_vec()));
        let next = trust(&services).await;
        for number in 0..cluster.len() {
            cluster.kill(number);
            // Whichever of them led the stream: the other two have it.
            more("messages are sent while one is away").await;
            behind(1).await;
            cluster.run(number, &next);
            eventually("it is back", three).await;
            behind(0).await;
        }
        let done = eventually_some("the rotation is over", async || {
            services.broker.continue_rotation(&console).await.ok()
        })
        .await;
        assert!(matches!(done, Rotation::Done { .. }), "{done:?}");
        let operator = services.broker.operator().await.unwrap();
        assert!(
            operator.signing_key != old && operator.next_key.is_none() && operator.retired_keys.is_empty()
        );
        more("messages are sent afterwards").await;
        stop.store(true, Ordering::Relaxed);
    };
    let (wanted, ()) = join(join_all(senders), operate).await;

    let mut read: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let all: usize = wanted.iter().sum();
    let (mut found, mut place) = (0, Confirmation { sequence: 0, incarnation: None });
    while found < all {
        // Whoever led the reader may have been the last one that was killed: a page that was lost comes again.
        let wanted = MessagesWanted {
            read: MessagesRead::Confirmed(place),
            limit: Some(100),
            wait: Some(Duration::from_secs(30)),
        };
        let page = eventually_some("a page is read", async || {
            services.messages.read(owner.org().unwrap(), "build", "room", wanted).await.ok()
        })
        .await;
        assert!(!page.messages.is_empty(), "{found} of {all} acknowledged messages were read");
        found += page.messages.len();
        place = Confirmation { sequence: page.last.unwrap(), incarnation: page.incarnation };
        for message in page.messages {
            let Payload::Text(said) = message.envelope.payload else { panic!("no text was sent") };
            let (sender, number) = said.split_once(':').unwrap();
            read.entry(sender.to_owned()).or_default().push(number.to_owned());
        }
    }
    for (sender, count) in wanted.iter().enumerate() {
        let in_order: Vec<_> = (0..*count).map(|number| number.to_string()).collect();
        assert_eq!(read[&sender.to_string()], in_order, "each once, in order");
    }
    eprintln!(
        "{all} acknowledged messages by {SENDERS} senders over 3 kills and a new signing key: {found} read"
    );
}

#[tokio::test]
async fn a_pipe_that_no_server_leads_is_unavailable_until_one_does() {
    let test = TestDb::new().await;
    test.org_with_admin("acme").await;
    let owner = test.caller(&test.user_in("acme", OrgRole::User).await).await;
    let services = test.services_at(Arc::new(SystemClock::new()));
    let trusted = trust(&services).await;
    let mut cluster = NatsCluster::start(&trusted);
    services.broker.open(BrokerOptions::new(cluster.urls())).await.unwrap();
    let request = CreateSourceRequest::from_json(json!({"handle": "build", "kind": "message"})).unwrap();
    services.sources.create(owner.org().unwrap(), request, None, |_| json!(null)).await.unwrap();
    let send =
        async || services.messages.publish(owner.org().unwrap(), "build", "inbox", text("hi"), None).await;
    eventually("a message is stored, once", async || send().await.is_ok()).await;
    let three = async || services.broker.standing().await.is_ok_and(|found| found.servers.len() == 3);
    // One of them has the stream.
    let mut away = 0;
    for number in 0..cluster.len() {
        eventually("all of them are there", three).await;
        cluster.kill(number);
        let refused = send().await.err();
        away += usize::from(refused.is_some());
        assert!(matches!(refused, None | Some(Error::BrokerUnavailable(_))), "{refused:?}");
        cluster.run(number, &trusted);
        eventually("it is stored again", async || send().await.is_ok()).await;
    }
    assert!(away > 0, "the server that has the stream was away");
}

#[tokio::test]
async fn a_server_that_is_away_holds_a_rotation_up_though_every_stream_is_kept_once() {
    let test = TestDb::new().await;
    let services = test.services_at(Arc::new(SystemClock::new()));
    let mut cluster = NatsCluster::start(&trust(&services).await);
    services.broker.open(BrokerOptions::new(cluster.urls())).await.unwrap();
    let are = async |servers: usize| {
        eventually("they are there", async || {
            services.broker.standing().await.is_ok_and(|found| found.servers.len() == servers)
        })
        .await;
    };
    are(3).await;
    let console = Operator::console();
    services.broker.begin_rotation(&console).await.unwrap();
    let waits = eventually_some("they have found each other", async || {
        services.broker.continue_rotation(&console).await.ok()
    })
    .await;
    assert_eq!(waits, Rotation::Waits(["s0", "s1", "s2"].map(ToOwned::to_owned).to_vec()));
    let next = trust(&services).await;
    cluster.kill(2);
    // Those that are started anew never heard of the third.
    for number in 0..2 {
        cluster.kill(number);
        cluster.run(number, &next);
        are(2).await;
    }
    let held_up =
        eventually_some("both are asked", async || match services.broker.continue_rotation(&console).await {
            Err(Error::BrokerUnavailable(cause)) => {
                Some(cause.to_string()).filter(|cause| cause.contains("of 3 servers answered"))
            }
            other => Some(format!("{other:?}")),
        })
        .await;
    assert_eq!(held_up, "2 of 3 servers answered: start the others");
    cluster.run(2, &next);
    are(3).await;
    let done = eventually_some("the rotation is over", async || {
        services.broker.continue_rotation(&console).await.ok()
    })
    .await;
    assert!(matches!(done, Rotation::Done { .. }), "{done:?}");
}
