//! Web applications that mean harm: what they answer reaches no other session, no other viewer, not the platform's origin, and
//! no memory without a bound.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tidegate_hub::TunnelHandle;
use tidegate_model::OrgRole;
use tidegate_test_support::{eventually, eventually_some};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

use crate::content::{ENDLESS, Stand, hello};

/// What a stalled reader may cost: what the kernel keeps for three sockets, and the bounds of a tunnel.
const BOUND: u64 = 64 << 20;
/// What one viewer may have open at a thread of the server.
const MOST: usize = 24;

fn without_end(head: &str) -> Vec<u8> {
    match head.split(' ').nth(1).unwrap_or_default() {
        "/endless" => [&b"HTTP/1.1 200 OK\r\n"[..], ENDLESS].concat(),
        "/never" => Vec::new(),
        _ => hello(head),
    }
}

/// A browser's request to the session's own host.
async fn request(stand: &Stand, path: &str, cookie: &str) -> TcpStream {
    let address = stand.world.handle.address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (id, port) = (&stand.id, address.port());
    let head = format!("GET {path} HTTP/1.1\r\nHost: {id}.localhost:{port}\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn an_answer_without_an_end_waits_for_its_reader_and_ends_with_them() {
    let stand = Box::pin(Stand::new("web", without_end)).await;
    let cookie = stand.entered("control").await;
    let mut reader = request(&stand, "/endless", &cookie).await;
    let mut some = vec![0; 64 * 1024];
    reader.read_exact(&mut some).await.unwrap();
    // It is read no further, and what is not read is not kept.
    let (mut last, mut still) = (0, 0);
    let poured = eventually_some("nothing more is taken", async || {
        let now = stand.poured.load(Ordering::Relaxed);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        (still == 50).then_some(now)
    })
    .await;
    assert!(poured < BOUND, "{poured} bytes wait for somebody who reads none");
    // Nobody else waits.
    assert_eq!(stand.browse("GET", "/", &cookie, &[]).await.text, "you asked for /");
    reader.read_exact(&mut some).await.unwrap();
    let tunnels = stand.world.handle.hub().tunnels(stand.id.parse().unwrap());
    drop(reader);
    eventually("it ends with its reader", async || tunnels.iter().any(TunnelHandle::has_ended)).await;
}

#[tokio::test]
async fn ten_thousand_requests_take_no_more_than_one_viewer_may_have() {
    const REQUESTS: usize = 10_000;
    let stand = Arc::new(Box::pin(Stand::new("web", without_end)).await);
    let cookie = stand.entered("control").await;
    let (asked, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let told = Arc::new(Notify::new());
    let mut browser = JoinSet::new();
    for _ in 0..MOST + 8 {
        let (stand, cookie) = (Arc::clone(&stand), cookie.clone());
        let (asked, refused, told) = (Arc::clone(&asked), Arc::clone(&refused), Arc::clone(&told));
        browser.spawn(async move {
            let mut stream = request(&stand, "/never", &cookie).await;
            let head = format!(
                "GET /never HTTP/1.1\r\nHost: {}.localhost:{}\r\nCookie: {cookie}\r\n\r\n",
                stand.id,
                stand.world.handle.address().port()
            );
            let mut answer = Vec::new();
            // Those that are let through wait for ever; the others are told at once, and ask again.
            while asked.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                answer.clear();
                while !answer.ends_with(b"}}") {
                    if stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
                refused.fetch_add(1, Ordering::Relaxed);
                told.notify_one();
                stream.write_all(head.as_bytes()).await.unwrap();
            }
        });
    }
    let id = stand.id.parse().unwrap();
    let hub = stand.world.handle.hub().clone();
    eventually("as many as may wait", async || hub.tunnels(id).len() == MOST).await;
    // Somebody else is let in while all that goes on, and the platform answers.
    let friend = stand.world.somebody("acme", OrgRole::User).await;
    let body = json!({"username": friend.name, "mode": "view"});
    let path = format!("/api/v1/sessions/{}/shares", stand.id);
    assert_eq!(stand.world.call("POST", &path, &stand.owner.token, Some(body)).await.status, 201);
    let theirs = stand.world.call("GET", &format!("/api/v1/http/{}/x", stand.id), &friend.token, None).await;
    assert_eq!(theirs.text, "you asked for /x");
    let all = async {
        while asked.load(Ordering::Relaxed) < REQUESTS {
            assert!(hub.tunnels(id).len() <= MOST + 1, "{}", hub.tunnels(id).len());
            told.notified().await;
        }
    };
    timeout(Duration::from_mins(5), all).await.unwrap();
    assert!(refused.load(Ordering::Relaxed) >= REQUESTS - MOST - 16);
    assert_eq!(stand.heard().iter().filter(|head| head.starts_with("GET /never")).count(), MOST);
    // The browser is closed.
    browser.shutdown().await;
    eventually("all is freed", async || hub.tunnels(id).is_empty()).await;
}

#[tokio::test]
async fn a_redirect_to_the_platform_is_followed_by_nobody_here_and_arrives_there_as_nobody() {
    fn away(_: &str) -> Vec<u8> {
        b"HTTP/1.1 302 Found\r\nLocation: http://localhost/home\r\nContent-Length: 0\r\n\r\n".to_vec()
    }
    let stand = Box::pin(Stand::new("web", away)).await;
    let cookie = stand.entered("control").await;
    let answer = stand.browse("GET", "/", &cookie, &[]).await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("http://localhost/home")));
    assert_eq!(stand.heard().len(), 1, "it is the browser's to follow");
    // What lets into the session lets into nothing of the platform, by either name of its cookie.
    for cookie in [cookie.clone(), cookie.replace("__Host-", "")] {
        let headers = [("Cookie", cookie)];
        let home = stand.world.raw("GET", "/home", &headers, b"").await;
        assert_eq!(home.status, 303, "{home:?}");
        assert!(home.header("location").unwrap().starts_with("/login"), "{home:?}");
        stand.world.raw("GET", "/api/v1/users/me", &headers, b"").await.refused(401, "E_UNAUTHENTICATED");
    }
    // And no page of the platform shows itself in the frame that was sent there.
    let session = format!("/sessions/{}", stand.id);
    for path in ["/", "/login", "/home", "/oauth/device/verify", "/api/docs", session.as_str()] {
        let page = stand.world.raw("GET", path, &[], b"").await;
        let to = page.header("location").map(str::to_owned);
        let page = match to {
            Some(to) => stand.world.raw("GET", &to, &[], b"").await,
            None => page,
        };
        let policy = page.header("content-security-policy").unwrap_or_default().to_owned();
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {page:?}");
    }
}
