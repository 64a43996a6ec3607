//! The stream of events: read as the standard says, opened again where it broke.

use serde_json::json;
use tidegate_client::{EventQuery, StatusCode};
use tidegate_model::{Change, EventId, EventKind};

use crate::fake::{Fake, Reply, Request};

/// A server-sent event about an agent.
fn event(id: &str, agent: &str) -> String {
    let data = json!({
        "id": id, "at": "2026-01-01T00:00:00Z", "kind": "agent", "agentId": agent, "status": "online",
        "approvalStatus": "approved", "drained": false, "removed": false, "fromTheFuture": 1,
    });
    format!("id: {id}\nevent: agent\ndata: {data}\n\n")
}

fn body(pieces: &[&str], whole: bool) -> Reply {
    let chunks = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    Reply::Chunks { headers: vec!["content-type: text/event-stream".into()], chunks, whole }
}

fn queries(server: &Fake) -> Vec<String> {
    server.lines().iter().map(|line| line.split_once("events").unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn a_stream_that_is_cut_goes_on_where_it_broke_without_a_gap_or_a_repeat() {
    let mut asked = 0;
    let server = Fake::start(move |_: &Request| {
        asked += 1;
        match asked {
            1 => body(
                &["retry: 2000\n:\nid: 5-1\n\n", &event("6-2", "one"), &event("7-3", "two")[..40]],
                false,
            ),
            2 => Reply::refusal("503 Service Unavailable", "E_UNAVAILABLE"),
            // It stops properly, and repeats what was given.
            3 => body(&[&event("6-2", "one"), &event("7-3", "two")], true),
            4 => body(&[":\n\n", "id: 9-0\n\n"], false),
            _ => body(&[&event("10-1", "three")], true),
        }
    })
    .await;
    let mut events = server.client().events(EventQuery::default()).await.unwrap();
    assert_eq!(events.place(), Some(EventId::new(5, 1)), "known before the first event");
    let mut heard = Vec::new();
    for _ in 0..3 {
        let event = events.next().await.unwrap();
        let Change::Agent(change) = event.change else { panic!("{event:?}") };
        heard.push(format!("{} {}", event.id, change.agent_id));
    }
    assert_eq!(heard, ["6-2 one", "7-3 two", "10-1 three"]);
    assert_eq!(queries(&server), ["", "?after=6-2", "?after=6-2", "?after=7-3", "?after=9-0"]);
}

#[tokio::test]
async fn a_place_that_is_cut_in_pieces_is_put_together_and_what_is_unknown_is_passed_over() {
    let known = event("8-1", "known");
    let (first, second) = known.split_at(37);
    let unknown = "id: 7-1\r\nevent: weather\r\ndata: {\"id\":\"7-1\",\"kind\":\"weather\"}\r\n\r\n";
    let pieces: Vec<String> = ["id: 6-", "1\n\n", unknown, first, second].map(str::to_owned).to_vec();
    let server =
        Fake::start(move |_: &Request| body(&pieces.iter().map(String::as_str).collect::<Vec<_>>(), true))
            .await;
    let query = EventQuery { kinds: vec![EventKind::Agent, EventKind::Session], ..EventQuery::default() };
    let mut events = server.client().events(query).await.unwrap();
    assert_eq!(events.next().await.unwrap().id, EventId::new(8, 1));
    assert_eq!(queries(&server)[0], "?kind=agent%2Csession");
}

#[tokio::test]
async fn a_reset_may_lead_back() {
    let reset =
        json!({"id": "2-1", "at": "2026-01-01T00:00:00Z", "kind": "reset", "reason": "another database"});
    let said = format!("id: 2-1\nevent: reset\ndata: {reset}\n\n{}", event("3-1", "one"));
    let server = Fake::start(move |_: &Request| body(&[&said], false)).await;
    let after = Some(EventId::new(900, 1));
    let mut events = server.client().events(EventQuery { after, ..EventQuery::default() }).await.unwrap();
    assert!(matches!(events.next().await.unwrap().change, Change::Reset(_)));
    assert_eq!(events.next().await.unwrap().id, EventId::new(3, 1));
    assert_eq!(events.place(), Some(EventId::new(3, 1)));
}

#[tokio::test]
async fn a_refusal_ends_it() {
    let mut asked = 0;
    let server = Fake::start(move |_: &Request| {
        asked += 1;
        if asked == 1 { body(&["id: 1-1\n\n"], true) } else { Reply::refusal("404 Not Found", "E_NOT_FOUND") }
    })
    .await;
    let mut events = server.client().events(EventQuery::default()).await.unwrap();
    assert_eq!(events.next().await.unwrap_err().status(), Some(StatusCode::NOT_FOUND));
    assert_eq!(queries(&server), ["", "?after=1-1"]);
}

#[tokio::test]
async fn an_event_without_an_end_is_not_read_for_ever() {
    let long = format!("id: 1-1\n\ndata: {}", "x".repeat(3 << 20));
    let server = Fake::start(move |_: &Request| body(&["id: 1-1\n\n", &long], false)).await;
    let mut events = server.client().events(EventQuery::default()).await.unwrap();
    let error = events.next().await.unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
}
