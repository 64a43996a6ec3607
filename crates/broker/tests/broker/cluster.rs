//! Three servers as one cluster, every stream three times: one of them is killed while messages are sent.

use std::sync::Arc;

use tidegate_broker::{
    AccountAuthority, Authority, Limits, Options, OrgAccount, OrgBroker, Outgoing, PipeSubject, Position,
    StreamName, StreamSpec, System,
};
use tidegate_model::SystemClock;
use tidegate_test_support::{NatsCluster, eventually, eventually_some, nats::trust};
use uuid::Uuid;

use crate::support::{RETENTION, now};

#[tokio::test]
async fn every_acknowledged_message_is_there_once_after_one_of_three_servers_was_killed() {
    let authority = Arc::new(Authority::generate());
    let mut cluster = NatsCluster::start(&trust(&authority));
    let clock = Arc::new(SystemClock::new());
    let options = Options { replicas: 3, ..Options::new(cluster.urls()) };
    let system = eventually_some("the cluster is there", async || {
        System::connect(&options, Arc::clone(&authority), clock.clone()).await.ok()
    })
    .await;
    let servers = eventually_some("all three are there", async || {
        system.servers().await.ok().filter(|servers| servers.answered.len() == cluster.len())
    })
    .await;
    for (number, server) in servers.answered.iter().enumerate() {
        assert_eq!((&*server.name, server.cluster.as_deref()), (&*format!("s{number}"), Some("c")));
        assert!(server.trusts(authority.signing().public()) && server.store.is_some(), "{server:?}");
    }
    let account = OrgAccount { organization: Uuid::new_v4(), authority: AccountAuthority::generate() };
    let claims = account.authority.claims(account.organization, Limits::default());
    system.push(&authority.sign_account(&claims, now()).unwrap()).await.unwrap();
    let broker = eventually_some("the account is known", async || {
        OrgBroker::connect(&options, account.clone(), clock.clone()).await.ok()
    })
    .await;
    let me = Uuid::new_v4();
    let spec = StreamSpec {
        name: StreamName::of_pipe(Uuid::new_v4(), "inbox").unwrap(),
        subject: PipeSubject::new(account.organization, me, "mine", "inbox").unwrap(),
        retention: RETENTION,
    };
    // the cluster needs a moment to choose who leads it
    eventually("the stream is made", async || broker.ensure_stream(&spec).await.is_ok()).await;
    broker.ensure_reader(&spec.name, "reader", Position::Oldest).await.unwrap();

    // through each of the servers, the stream being led by one of them
    for (number, url) in cluster.urls().iter().enumerate() {
        let one = Options { replicas: 3, ..Options::new([url.clone()]) };
        let broker = OrgBroker::connect(&one, account.clone(), clock.clone()).await.unwrap();
        send(&broker, &spec, me, number).await;
    }
    for number in 3..200 {
        if number == 60 {
            cluster.kill(0);
        }
        send(&broker, &spec, me, number).await;
    }
    let mut read = Vec::new();
    while read.len() < 200 {
        // whoever led the reader may be the one that was killed
        let fetched = eventually_some("messages come", async || {
            broker.fetch(&spec.name, "reader", 100, None).await.ok().filter(|found| !found.is_empty())
        })
        .await;
        for one in fetched {
            broker.acknowledge(&one.ack).await.unwrap();
            if one.deliveries == 1 || !read.contains(&one.message.payload) {
                read.push(one.message.payload);
            }
        }
    }
    let wanted: Vec<_> = (0..200).map(|number: usize| number.to_string()).collect();
    assert_eq!(read, wanted, "each once and in order");
    println!("200 acknowledged messages, one of three servers killed: {} read", read.len());
}

async fn send(broker: &OrgBroker, spec: &StreamSpec, me: Uuid, number: usize) {
    let text = number.to_string();
    let message = Outgoing {
        pipe: spec.subject.clone(),
        sender: me,
        id: text.clone(),
        headers: Vec::new(),
        payload: text.into(),
    };
    let sent = async || broker.publish(message.clone()).await.is_ok();
    eventually("the message is acknowledged", sent).await;
}
