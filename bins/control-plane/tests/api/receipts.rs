//! Who has read what, who reads what, and who was seen, with a real nats-server.

use futures_util::StreamExt;
use serde_json::{Value, json};
use tidegate_model::OrgRole;
use tidegate_test_support::{
    eventually,
    nats::{Seed, UserKey, connect},
};

use crate::support::{Answer, Somebody, World};

const ROOM: &str = "/api/v1/sources/build/pipes/room/messages";
const SUBS: &str = "/api/v1/pipes/subscriptions";

struct Stand {
    world: World,
    owner: Somebody,
    friend: Somebody,
    source: String,
}

impl Stand {
    /// A source with a pipe that a friend reads.
    async fn new() -> Self {
        let world = World::with_nats().await;
        let owner = world.somebody("acme", OrgRole::User).await;
        let friend = world.somebody("acme", OrgRole::User).await;
        let made =
            world.call("POST", "/api/v1/sources", &owner.token, Some(json!({"handle": "build"}))).await;
        let source = made.body["id"].as_str().unwrap().to_owned();
        let stand = Self { world, owner, friend, source };
        let path = "/api/v1/sources/build";
        let made = stand.post(&stand.owner, &format!("{path}/pipes"), json!({"name": "room"})).await;
        assert_eq!(made.status, 201, "{made:?}");
        let right = json!({"username": stand.friend.name, "right": "read"});
        let given = stand.post(&stand.owner, &format!("{path}/grants"), right).await;
        assert_eq!(given.status, 201, "{given:?}");
        let read = stand.get(&stand.friend, ROOM).await;
        assert_eq!((read.status, &read.body["unread"]), (200, &json!(0)), "{read:?}");
        stand
    }

    async fn post(&self, who: &Somebody, path: &str, body: Value) -> Answer {
        self.world.call("POST", path, &who.token, Some(body)).await
    }

    async fn get(&self, who: &Somebody, path: &str) -> Answer {
        self.world.call("GET", path, &who.token, None).await
    }

    /// Sends a message, and gives where its receipts are.
    async fn say(&self, text: &str, ack: bool) -> String {
        let sent = self.post(&self.owner, ROOM, json!({"payload": text, "ack_requested": ack})).await;
        assert_eq!(sent.status, 201, "{sent:?}");
        format!("{ROOM}/{}/receipts", sent.body["sequence"])
    }

    /// Who has read it, as its sender hears.
    async fn readers(&self, receipts: &str) -> Value {
        let answer = self.get(&self.owner, receipts).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["receipts"].clone()
    }
}

#[tokio::test]
async fn whoever_asked_hears_who_has_read_and_nobody_else_does() {
    let stand = Stand::new().await;
    let (first, plain, second) =
        (stand.say("one", true).await, stand.say("two", false).await, stand.say("three", true).await);
    assert_eq!(stand.readers(&first).await, json!([]));
    assert_eq!(stand.get(&stand.friend, &format!("{ROOM}?limit=2")).await.status, 200);
    let readers = stand.readers(&first).await;
    let wanted = (json!(stand.friend.id), json!(stand.friend.name));
    assert_eq!((&readers[0]["userId"], &readers[0]["username"]), (&wanted.0, &wanted.1), "{readers}");
    assert!(readers[0]["readBy"].is_string() && readers.as_array().unwrap().len() == 1, "{readers}");
    assert_eq!(stand.readers(&second).await, json!([]), "only two of three were read");
    stand.get(&stand.owner, &plain).await.refused(409, "E_NO_RECEIPTS");
    // To others it is not there, as what never was.
    stand.get(&stand.friend, &first).await.refused(404, "E_NOT_FOUND");
    let admin = stand.world.somebody("acme", OrgRole::Admin).await;
    assert_eq!(stand.get(&admin, &first).await.status, 200, "who manages sources");
    let rival = stand.world.somebody("rival", OrgRole::Admin).await;
    stand.get(&rival, &first).await.refused(404, "E_NOT_FOUND");
    for nothing in ["99", "0", "x", "-1"] {
        let path = format!("{ROOM}/{nothing}/receipts");
        stand.get(&stand.owner, &path).await.refused(404, "E_NOT_FOUND");
    }
    for pipe in ["hall", "inbox", "%00", "a.b"] {
        let path = format!("/api/v1/sources/build/pipes/{pipe}/messages/1/receipts");
        stand.get(&stand.owner, &path).await.refused(404, "E_NOT_FOUND");
    }
}

#[tokio::test]
async fn who_read_through_nats_has_read_too() {
    let stand = Stand::new().await;
    let receipts = stand.say("over the wire", true).await;
    let credential = json!({"api_key": stand.friend.token});
    let opened = stand.world.call("POST", "/api/v1/auth/exchange", "", Some(credential)).await;
    let text = |name: &str| opened.body[name].as_str().unwrap().to_owned();
    let key = UserKey::from_seed(&Seed::new(text("nats_user_seed"))).unwrap();
    let (url, token, prefix) = (text("nats_url"), text("nats_user_jwt"), text("inbox_prefix"));
    let client = connect(&url, &token, &key, &prefix).await.unwrap();
    let simple = |id: &str| id.replace('-', "");
    let stream = format!("{}_room", simple(&stand.source));
    let pull = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", simple(&stand.friend.id));
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply(pull, inbox, "1".into()).await.unwrap();
    let message = answers.next().await.unwrap();
    assert!(String::from_utf8_lossy(&message.payload).contains("over the wire"), "{message:?}");
    assert_eq!(
        stand.readers(&receipts).await,
        json!([]),
        "it was given, and is not read before it is acknowledged"
    );
    client.publish(message.reply.unwrap(), "+ACK".into()).await.unwrap();
    eventually("the sender hears of it", async || {
        let readers = stand.readers(&receipts).await;
        readers[0]["userId"] == json!(stand.friend.id) && readers[0]["readBy"].is_null()
    })
    .await;
    let seen = stand.get(&stand.owner, "/api/v1/pipes/members").await;
    let member = &seen.body["members"][0];
    assert_eq!(
        (seen.status, &member["userId"], &member["pipes"]),
        (200, &json!(stand.friend.id), &json!(1)),
        "{seen:?}"
    );
    assert!(member["connectedUntil"].is_string() && seen.body["total"] == 1, "{seen:?}");
    let rival = stand.world.somebody("rival", OrgRole::Admin).await;
    assert_eq!(stand.get(&rival, "/api/v1/pipes/members").await.body["members"], json!([]));
}

#[tokio::test]
async fn what_one_reads_is_listed_with_what_waits_there() {
    let stand = Stand::new().await;
    stand.say("one", false).await;
    stand.say("two\u{1b}", false).await;
    stand.get(&stand.friend, &format!("{ROOM}?limit=1")).await;
    let listed = stand.get(&stand.friend, SUBS).await;
    assert_eq!((listed.status, &listed.body["total"]), (200, &json!(1)), "{listed:?}");
    let room = &listed.body["subscriptions"][0];
    let place = (&room["handle"], &room["pipe"], &room["sequence"], &room["unread"]);
    assert_eq!(place, (&json!("build"), &json!("room"), &json!(1), &json!(1)), "{listed:?}");
    assert_eq!(room["owner"], json!(stand.owner.name));
    let last = (&room["last"]["sequence"], &room["last"]["text"], &room["last"]["sender"]);
    assert_eq!(last, (&json!(2), &json!("two"), &json!(stand.owner.id)), "{listed:?}");
    // Whoever reads one pipe more pages through them.
    let made = stand.post(&stand.friend, "/api/v1/sources", json!({"handle": "own"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    stand.get(&stand.friend, "/api/v1/sources/own/pipes/inbox/messages").await;
    let page = stand.get(&stand.friend, &format!("{SUBS}?limit=1")).await;
    assert_eq!((&page.body["subscriptions"][0]["handle"], &page.body["total"]), (&json!("build"), &json!(2)));
    let next = format!("{SUBS}?limit=1&cursor={}", page.body["nextCursor"].as_str().unwrap());
    let next = stand.get(&stand.friend, &next).await;
    let own = &next.body["subscriptions"][0];
    assert_eq!(
        (&own["handle"], &own["last"], &next.body["nextCursor"]),
        (&json!("own"), &Value::Null, &Value::Null)
    );
    stand.get(&stand.friend, &format!("{SUBS}?cursor=bm90aGluZw")).await.refused(400, "E_INVALID");
    assert_eq!(
        stand.get(&stand.owner, SUBS).await.body["subscriptions"],
        json!([]),
        "nobody else's are listed"
    );
    // What may not be read any more is not listed, whatever is still there of it.
    let grants = stand.get(&stand.owner, "/api/v1/sources/build/grants").await;
    let grant = grants.body["grants"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/sources/build/grants/{grant}");
    assert_eq!(stand.world.call("DELETE", &path, &stand.owner.token, None).await.status, 204);
    let listed = stand.get(&stand.friend, SUBS).await;
    assert_eq!(listed.body["total"], 1, "{listed:?}");
}
