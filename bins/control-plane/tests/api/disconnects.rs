//! Viewings that are ended without their session, over HTTP: who may, who is cut, how fast, and what stays.

use futures_util::SinkExt;
use serde_json::json;
use tidegate_model::DisconnectRequest;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    shares::{Stand, heard},
    support::Somebody,
};

/// The owner in the friend's place for a while, at their own terminal.
async fn own_terminal(stand: &mut Stand) -> (crate::shares::Socket, crate::shares::Socket) {
    let Somebody { token, id, name } = &stand.owner;
    let owner = Somebody { token: token.clone(), id: id.clone(), name: name.clone() };
    let friend = std::mem::replace(&mut stand.friend, owner);
    let ends = Box::pin(stand.watch("control")).await;
    stand.friend = friend;
    ends
}

#[tokio::test]
async fn who_is_shown_out_is_cut_and_nobody_else_and_the_session_goes_on() {
    let mut stand = Stand::new().await;
    stand.share(json!({"mode": "control"})).await;
    let (viewer, _tunnel) = Box::pin(stand.watch("control")).await;
    let (mut own, mut other) = own_terminal(&mut stand).await;
    let whose = json!({"username": stand.friend.name});
    let since = Instant::now();
    assert_eq!(stand.as_owner("POST", "/disconnect", whose).await.status, 204);
    stand.cut(viewer, since).await;
    own.send(Message::binary("mine")).await.unwrap();
    assert_eq!(heard(&mut other).await.as_deref(), Some(&b"mine"[..]));
    assert_eq!(stand.as_owner("GET", "", json!({})).await.body["state"], "running");
    // Whoever may come back does.
    let (mut viewer, mut tunnel) = Box::pin(stand.watch("control")).await;
    viewer.send(Message::binary("again")).await.unwrap();
    assert_eq!(heard(&mut tunnel).await.as_deref(), Some(&b"again"[..]));
}

#[tokio::test]
async fn what_another_replica_ends_is_cut_here_within_the_same_time() {
    let mut stand = Stand::new().await;
    let (own, _tunnel) = own_terminal(&mut stand).await;
    let elsewhere = stand.world.db.services();
    let caller = elsewhere.logins.authenticate(&stand.owner.token, None).await.unwrap();
    let id = stand.path.rsplit_once('/').unwrap().1.parse().unwrap();
    let since = Instant::now();
    elsewhere.streams.disconnect(caller.org().unwrap(), id, DisconnectRequest::default()).await.unwrap();
    stand.cut(own, since).await;
}

#[tokio::test]
async fn a_ticket_from_before_opens_nothing_and_bad_bodies_are_named() {
    let stand = Stand::new().await;
    stand.as_friend("POST", "/disconnect", json!({})).await.refused(404, "E_NOT_FOUND");
    stand.share(json!({"mode": "view"})).await;
    let whose = json!({"userId": stand.owner.id});
    stand.as_friend("POST", "/disconnect", whose).await.refused(403, "E_FORBIDDEN");
    let bad = stand.as_owner("POST", "/disconnect", json!({"username": "a b", "userId": 7, "odd": 1})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["odd", "userId", "username"]);
    let nobody = json!({"username": "nobody-here"});
    stand.as_owner("POST", "/disconnect", nobody).await.refused(404, "E_NOT_FOUND");
    let given = stand.as_friend("POST", "/connect", json!({"kind": "terminal", "mode": "view"})).await;
    // Without a body it is one's own.
    let path = format!("{}/disconnect", stand.path);
    assert_eq!(stand.world.call("POST", &path, &stand.friend.token, None).await.status, 204);
    let offer = format!("tidegate.v1, ticket.{}", given.body["ticket"].as_str().unwrap());
    let headers = [crate::support::upgrade(), vec![("Sec-WebSocket-Protocol", offer)]].concat();
    let late = stand.world.raw("GET", &format!("{}/terminal", stand.path), &headers, b"").await;
    late.refused(401, "E_UNAUTHENTICATED");
}
