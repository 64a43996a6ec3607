//! Too little room on the disk closes pipes for clients of NATS, too, and room opens them again.

use super::*;

/// Services of a process that sees to it that so many bytes stay free, at work.
async fn guarded(stage: &Stage, least: u64) -> (Services, CancellationToken) {
    let services = stage.test.services_at(Arc::new(SystemClock::new()));
    let disk = Some((std::env::temp_dir(), least));
    let options = BrokerOptions { disk, ..BrokerOptions::new([TestNats::shared().url.clone()]) };
    services.broker.open(options).await.unwrap();
    let (broker, stop) = (services.broker.clone(), stage.stop.child_token());
    let until = stop.clone();
    tokio::spawn(async move { broker.run(until).await });
    (services, stop)
}

fn figures(outcome: Result<Published>) -> Vec<String> {
    match outcome.unwrap_err() {
        Error::StorageFull { figures, .. } => figures.iter().map(|(name, _)| name.to_owned()).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn too_little_room_stops_clients_of_nats_too_and_room_lets_them_go_on() {
    let stage = Stage::new().await;
    stage.make("shell", "message").await;
    stage.send(&stage.friend, "shell", "inbox", "before").await.unwrap();
    let route = stage.services.messages.write_route(scope(&stage.friend), "shell", "inbox").await.unwrap();
    let client = client!(stage.services.exchange.exchange_for(&stage.friend).await.unwrap()).unwrap();
    let mut acknowledged = vec!["before".to_owned()];
    let mut say = async |number: usize| {
        let hello = json!({"id": tidegate_model::MessageId::new(), "payload": number.to_string(),
                           "created_at": "2026-11-28T08:00:00Z"});
        let answer = client.request(route.subject.clone(), hello.to_string().into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        if answer["error"].is_null() {
            acknowledged.push(number.to_string());
        }
        answer["error"]["err_code"].clone()
    };
    assert_eq!(say(0).await, Value::Null);

    let (tight, stop) = guarded(&stage, u64::MAX).await;
    let mut number = 0;
    eventually("clients of NATS are refused", async || {
        number += 1;
        say(number).await == json!(10_002)
    })
    .await;
    let sent = tight.messages.publish(scope(&stage.friend), "shell", "inbox", text("no"), None).await;
    assert_eq!(figures(sent), ["freeBytes", "leastFreeBytes"]);
    // What is first used meanwhile is closed, too, and says how much of what is used.
    stage.make("later", "message").await;
    let sent = figures(stage.send(&stage.friend, "later", "inbox", "no").await);
    assert!(sent.iter().any(|name| name == "promisedBytes"), "{sent:?}");
    assert!(sent.iter().any(|name| name == "limitBytes"), "{sent:?}");
    stop.cancel();

    let (roomy, _) = guarded(&stage, 1).await;
    eventually("messages are stored again", async || {
        number += 1;
        say(number).await.is_null()
    })
    .await;
    stage.send(&stage.friend, "later", "inbox", "yes").await.unwrap();
    let page = roomy.messages.read(
        scope(&stage.owner),
        "shell",
        "inbox",
        MessagesWanted { limit: Some(100), ..MessagesWanted::default() },
    );
    assert_eq!(said(&page.await.unwrap()), acknowledged, "exactly what was acknowledged is there");
    assert!(!roomy.broker.restarts().unwrap().has_changed().unwrap(), "nothing had run out");
    let log = async |action: &str| {
        let count = format!("SELECT count(*) FROM audit_log WHERE action = '{action}'");
        stage.test.look::<i64>(&count).await
    };
    assert_eq!((log("nats.close").await, log("nats.open").await), (1, 1));
}
