//! A viewer who is gone without a word leaves nothing behind: no tunnel, no task, and no end at the agent, ten seconds later
//! at the latest.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::shares::{Socket, Stand, heard};

/// What is promised.
const FREED: Duration = Duration::from_secs(10);

/// What there was before anybody came.
async fn at_rest(stand: &Stand) -> usize {
    // Tasks of requests that were answered a moment ago end by themselves.
    let mut last = usize::MAX;
    tidegate_test_support::eventually("the server is at rest", async || {
        let (tasks, before) = (stand.world.handle.tasks(), last);
        last = tasks;
        tasks == before && tunnels(stand) == 0
    })
    .await;
    last
}

fn tunnels(stand: &Stand) -> usize {
    let id = stand.path.rsplit_once('/').unwrap().1.parse().unwrap();
    stand.world.handle.hub().tunnels(id).len()
}

/// Waits until everything of a viewer is gone, at the agent, too.
async fn freed(stand: &Stand, what: &str, mut tunnel: Socket, before: usize, since: Instant) {
    let ended = timeout(FREED, async { while let Some(Ok(_)) = tunnel.next().await {} }).await;
    assert!(ended.is_ok(), "{what}: the agent's end lives");
    drop(tunnel);
    tidegate_test_support::eventually(&format!("{what}: all is freed"), async || {
        tunnels(stand) == 0 && stand.world.handle.tasks() <= before
    })
    .await;
    assert!(since.elapsed() < FREED, "{what}: {:?}", since.elapsed());
}

#[tokio::test]
async fn a_terminal_a_desktop_and_a_port_whose_viewer_is_gone_are_freed() {
    let mut stand = Stand::new().await;
    let before = at_rest(&stand).await;
    for what in ["terminal", "vnc", "ports/8080"] {
        let path = format!("{}/{what}", stand.path);
        let token = format!("Bearer {}", stand.owner.token);
        let (mut viewer, mut tunnel) = Box::pin(stand.open(&path, token)).await;
        tunnel.send(Message::binary("RFB 003.008\n")).await.unwrap();
        assert_eq!(heard(&mut viewer).await.as_deref(), Some(&b"RFB 003.008\n"[..]));
        assert!(tunnels(&stand) == 1 && stand.world.handle.tasks() > before, "{what}");
        // No word of farewell.
        let since = Instant::now();
        drop(viewer);
        freed(&stand, what, tunnel, before, since).await;
    }
}

/// A request for the application, by whoever speaks HTTP by hand.
async fn request(stand: &Stand, more: &str) -> TcpStream {
    let (address, id) = (stand.world.handle.address(), stand.path.rsplit_once('/').unwrap().1);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let token = &stand.owner.token;
    let head = format!(
        "GET /api/v1/http/{id}/x HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn an_application_whose_viewer_is_gone_is_freed_whatever_it_was_doing() {
    let mut stand = Stand::new().await;
    let before = at_rest(&stand).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let endless = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    for (what, more, answer) in [
        ("one that is not answered", "", ""),
        ("one whose answer does not end", "", endless),
        ("one that was answered", "", whole),
        ("a socket", upgrade, switched),
    ] {
        let mut viewer = request(&stand, more).await;
        let mut tunnel = stand.next_tunnel().await;
        assert!(heard(&mut tunnel).await.unwrap().starts_with(b"GET /x HTTP/1.1\r\n"));
        if !answer.is_empty() {
            tunnel.send(Message::binary(answer)).await.unwrap();
            let mut said = Vec::new();
            let end: &[u8] = if answer == switched { b"\r\n\r\n" } else { b"abc" };
            while !said.windows(end.len()).any(|part| part == end) {
                assert_ne!(viewer.read_buf(&mut said).await.unwrap(), 0, "{what}");
            }
        }
        assert!(tunnels(&stand) == 1 && stand.world.handle.tasks() > before, "{what}");
        let since = Instant::now();
        drop(viewer);
        freed(&stand, what, tunnel, before, since).await;
    }
    let answer = stand.as_owner("GET", "", json!({})).await;
    assert_eq!(answer.body["state"], "running");
}
