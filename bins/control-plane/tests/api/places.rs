//! Reading by a place that moves once its reader confirms, over HTTP and with the client that keeps track of it.

use serde_json::{Value, json};
use tidegate_client::{Client, PlaceReader};
use tidegate_model::{Handle, OrgRole, Secret};

use crate::support::{Answer, Somebody, World};

const INBOX: &str = "/api/v1/sources/build/pipes/inbox/messages";
const PLACE: &str = "/api/v1/sources/build/pipes/inbox/place";

struct Stand {
    world: World,
    owner: Somebody,
    friend: Somebody,
}

impl Stand {
    /// A source whose inbox holds so many messages of a friend.
    async fn filled(messages: usize) -> Self {
        let world = World::with_nats().await;
        let owner = world.somebody("acme", OrgRole::User).await;
        let friend = world.somebody("acme", OrgRole::User).await;
        let made =
            world.call("POST", "/api/v1/sources", &owner.token, Some(json!({"handle": "build"}))).await;
        assert_eq!(made.status, 201, "{made:?}");
        let stand = Self { world, owner, friend };
        for number in 1..=messages {
            stand.say(&number.to_string()).await;
        }
        stand
    }

    async fn say(&self, text: &str) {
        let body = Some(json!({"payload": text}));
        let sent = self.world.call("POST", INBOX, &self.friend.token, body).await;
        assert_eq!(sent.status, 201, "{sent:?}");
        assert!(sent.body.get("sender_name").is_none(), "who sends knows who they are: {sent:?}");
    }

    async fn read(&self, who: &Somebody, query: &str) -> Answer {
        self.world.call("GET", &format!("{INBOX}?{query}"), &who.token, None).await
    }

    async fn confirm(&self, who: &Somebody, body: Value) -> Answer {
        self.world.call("PUT", PLACE, &who.token, Some(body)).await
    }
}

fn sequences(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let messages = answer.body["messages"].as_array().unwrap();
    messages.iter().map(|message| message["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_page_is_answered_until_it_is_confirmed() {
    let stand = Stand::filled(5).await;
    let first = stand.read(&stand.owner, "confirmed=0&limit=3").await;
    assert_eq!((sequences(&first), &first.body["unread"]), (vec![1, 2, 3], &json!(5)), "{first:?}");
    assert_eq!(first.body["messages"][0]["sender_name"], json!(stand.friend.name));
    assert_eq!(sequences(&stand.read(&stand.owner, "confirmed=0&limit=3").await), [1, 2, 3]);
    let incarnation = first.body["incarnation"].as_str().unwrap();
    let second = stand.read(&stand.owner, &format!("confirmed=3&incarnation={incarnation}")).await;
    assert_eq!((sequences(&second), &second.body["unread"]), (vec![4, 5], &json!(2)), "{second:?}");
    let body = json!({"confirmed": 4, "incarnation": incarnation});
    for _ in 0..2 {
        let place = stand.confirm(&stand.owner, body.clone()).await;
        let wanted = json!({"sequence": 4, "incarnation": incarnation, "unread": 1});
        assert_eq!((place.status, &place.body), (200, &wanted), "{place:?}");
    }
    // The other way of reading goes on behind it.
    let shared = stand.read(&stand.owner, "limit=10").await;
    assert_eq!((sequences(&shared), &shared.body["unread"]), (vec![5], &json!(0)), "{shared:?}");
    assert_eq!(shared.body["messages"][0]["sender_name"], json!(stand.friend.name));

    // Whoever sent it is no member any more.
    let admin = stand.world.member("acme", OrgRole::Admin).await;
    let member = format!("/api/v1/organizations/acme/members/{}", stand.friend.id);
    assert_eq!(stand.world.call("DELETE", &member, &admin, None).await.status, 204);
    let again = stand.read(&stand.owner, "after=4").await;
    assert_eq!(again.body["messages"][0].get("sender_name"), Some(&Value::Null), "{again:?}");
}

#[tokio::test]
async fn what_cannot_be_confirmed_is_named_and_others_hear_nothing_of_it() {
    let stand = Stand::filled(2).await;
    let incarnation = stand.read(&stand.owner, "confirmed=0").await.body["incarnation"].clone();
    let known = incarnation.as_str().unwrap();
    for (query, named) in [
        ("confirmed=1".to_owned(), vec!["incarnation"]),
        (format!("confirmed=x&incarnation={known}"), vec!["confirmed"]),
        ("confirmed=1&incarnation=then".to_owned(), vec!["incarnation"]),
        (format!("incarnation={known}"), vec!["incarnation"]),
        (format!("confirmed=1&incarnation={known}&after=1"), vec!["after"]),
        ("confirmed=0&since=2026-01-01T00:00:00Z".to_owned(), vec!["since"]),
        (format!("confirmed=3&incarnation={known}"), vec!["confirmed"]),
    ] {
        let refused = stand.read(&stand.owner, &query).await;
        assert_eq!(refused.refused(400, "E_INVALID").fields(), named, "{query}");
    }
    let headers = [
        ("Authorization", format!("Bearer {}", stand.owner.token)),
        ("Accept", "text/event-stream".to_owned()),
    ];
    let followed = stand.world.raw("GET", &format!("{INBOX}?confirmed=0"), &headers, b"").await;
    assert_eq!(followed.refused(400, "E_INVALID").fields(), ["confirmed"]);
    let beyond = stand.confirm(&stand.owner, json!({"confirmed": 3, "incarnation": incarnation})).await;
    let said = beyond.refused(400, "E_INVALID").body["error"]["fields"]["confirmed"].as_str().unwrap();
    assert!(said.contains("the last one is 2"), "{said}");
    let bad = stand.confirm(&stand.owner, json!({"confirmed": -1, "odd": 1})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["confirmed", "incarnation", "odd"]);
    // Another one's counts for nothing, and the answer shows which it is.
    let other = json!({"confirmed": 2, "incarnation": "2026-01-01T00:00:00Z"});
    let place = stand.confirm(&stand.owner, other).await;
    assert_eq!(place.body, json!({"sequence": 0, "incarnation": incarnation, "unread": 2}));

    let body = json!({"confirmed": 1, "incarnation": incarnation});
    stand.read(&stand.friend, "confirmed=0").await.refused(403, "E_FORBIDDEN");
    stand.confirm(&stand.friend, body.clone()).await.refused(403, "E_FORBIDDEN");
    stand.confirm(&stand.friend, json!({"odd": 1})).await.refused(403, "E_FORBIDDEN");
    let viewer = stand.world.somebody("acme", OrgRole::Viewer).await;
    stand.confirm(&viewer, body.clone()).await.refused(403, "E_FORBIDDEN");
    let rival = stand.world.somebody("rival", OrgRole::Admin).await;
    stand.read(&rival, "confirmed=0").await.refused(404, "E_NOT_FOUND");
    stand.confirm(&rival, body).await.refused(404, "E_NOT_FOUND");
    assert_eq!(stand.world.db.look::<i64>("SELECT max(sequence) FROM read_cursors").await, 0);
}

#[tokio::test]
async fn the_clients_reader_gives_each_message_once_whatever_is_lost_or_made_anew() {
    let stand = Stand::filled(5).await;
    let url = format!("http://{}", stand.world.handle.address()).parse().unwrap();
    let client = Client::builder(url).token(Secret::new(stand.owner.token.clone())).build().unwrap();
    let build: Handle = "build".parse().unwrap();
    let mut reader = PlaceReader::new(build.clone(), "inbox");
    let mut had = Vec::new();
    for wanted in [(vec![1, 2], 3), (vec![3, 4], 1), (vec![5], 0)] {
        // The answer to a copy is lost.
        reader.clone().next(&client, Some(2), None).await.unwrap();
        let page = reader.next(&client, Some(2), None).await.unwrap();
        let given: Vec<u64> = page.messages.iter().map(|message| message.sequence).collect();
        assert_eq!((&given, page.left), (&wanted.0, wanted.1));
        had.extend(given);
    }
    assert_eq!(had, [1, 2, 3, 4, 5]);
    let mut other = PlaceReader::new(build.clone(), "inbox");
    let page = other.next(&client, None, None).await.unwrap();
    assert_eq!(page.messages.len(), 1, "the last page was not confirmed yet");
    let place = reader.confirm(&client).await.unwrap().unwrap();
    assert_eq!((place.sequence, place.unread), (5, 0));
    assert!(other.next(&client, None, None).await.unwrap().messages.is_empty());

    // The streams came back from a backup that is older than what was read.
    let done = tidegate_model::Confirmation { sequence: 9, ..reader.done() };
    let mut reader = PlaceReader::behind(build.clone(), "inbox", done);
    stand.say("new").await;
    let page = reader.next(&client, None, None).await.unwrap();
    let given: Vec<u64> = page.messages.iter().map(|message| message.sequence).collect();
    assert_eq!((given, page.anew), (vec![6], true));

    // Deleted and made anew, it begins at the first message.
    client.delete_source(&build).await.unwrap();
    let again = Some(json!({"handle": "build"}));
    let made = stand.world.call("POST", "/api/v1/sources", &stand.owner.token, again).await;
    assert_eq!(made.status, 201, "{made:?}");
    stand.say("first").await;
    let page = reader.next(&client, None, None).await.unwrap();
    assert_eq!((page.messages[0].sequence, page.messages.len(), page.anew), (1, 1, true));
}
