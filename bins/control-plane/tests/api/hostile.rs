//! Web applications and desktops that mean harm: what they say reaches no other session, no other viewer, not the platform's
//! origin, and no memory without a bound.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
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
use tokio_tungstenite::tungstenite::Message;

use crate::{
    content::{ENDLESS, Stand, hello},
    shares::{self, Socket, heard},
};

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

/// How a desktop begins.
const VERSION: &[u8] = b"RFB 003.008\n";

/// Somebody at the desktop of a session, and the desktop.
async fn at_desktop(stand: &mut shares::Stand, mode: &str) -> (Socket, Socket) {
    let path = format!("{}/vnc?mode={mode}", stand.path);
    let token = format!("Bearer {}", stand.owner.token);
    Box::pin(stand.open(&path, token)).await
}

async fn say(socket: &mut Socket, bytes: impl Into<Vec<u8>>) {
    socket.send(Message::binary(bytes.into())).await.unwrap();
}

/// So many bytes, in whatever pieces.
async fn hear(socket: &mut Socket, length: usize) -> Vec<u8> {
    let mut said = Vec::new();
    while said.len() < length {
        said.extend(heard(socket).await.unwrap_or_else(|| panic!("{} of {length} bytes", said.len())));
    }
    said
}

/// Code and reason of a socket that was closed.
async fn closed(mut socket: Socket) -> Option<(u16, String)> {
    let close = async {
        loop {
            match socket.next().await? {
                Ok(Message::Close(close)) => return close.map(|it| (it.code.into(), it.reason.to_string())),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    timeout(Duration::from_secs(30), close).await.unwrap()
}

#[tokio::test]
async fn a_desktop_that_says_garbage_is_watched_by_nobody_and_harms_nobody() {
    let mut stand = shares::Stand::new().await;
    let garbage: Vec<u8> =
        (0..300_000_u32).map(|at| at.wrapping_mul(2_654_435_761).rotate_left(7).to_be_bytes()[1]).collect();
    // Somebody who controls another desktop meanwhile, and one whose bytes are theirs to judge.
    let (mut other, mut others) = at_desktop(&mut stand, "control").await;
    say(&mut others, garbage.clone()).await;
    assert!(hear(&mut other, garbage.len()).await == garbage, "bytes that are nobody's here pass untouched");
    for nonsense in [&garbage[..], b"RFB 003.003\n\0\0\0\x01", b"RFB 999999999999999\n", &[0; 12]] {
        let (viewer, mut desktop) = at_desktop(&mut stand, "view").await;
        say(&mut desktop, nonsense).await;
        let (code, why) = closed(viewer).await.unwrap();
        assert_eq!(code, 1_008, "{why}");
        assert!(why.contains("RFB"), "{why}");
        assert_eq!(heard(&mut desktop).await, None, "and its end is freed");
    }
    say(&mut other, VERSION).await;
    assert_eq!(hear(&mut others, VERSION.len()).await, VERSION, "the other goes on");
    assert_eq!(stand.as_owner("GET", "", json!({})).await.body["state"], "running");
}

#[tokio::test]
async fn a_desktop_with_a_name_of_any_length_costs_no_more_than_what_is_on_its_way() {
    let mut stand = shares::Stand::new().await;
    for mode in ["view", "control"] {
        let (mut viewer, mut desktop) = at_desktop(&mut stand, mode).await;
        // 64 KiB of a name that is none, and then one that has 4 GiB.
        let name: Vec<u8> = b"\x1b]0;<script>\xff\0\r\n".iter().copied().cycle().take(64 * 1024).collect();
        let init = |length: u32| [&[0, 8, 0, 8], &[0; 16][..], &length.to_be_bytes()].concat();
        let said = [VERSION, b"\x01\x01\0\0\0\0", &init(64 * 1024), &name, &init(u32::MAX)].concat();
        say(&mut desktop, said.clone()).await;
        assert!(hear(&mut viewer, said.len()).await == said, "{mode}: it is the viewer's to read");
        let poured = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&poured);
        let pouring = tokio::spawn(async move {
            while desktop.send(Message::binary(vec![b'x'; 64 * 1024])).await.is_ok() {
                count.fetch_add(64 * 1024, Ordering::Relaxed);
            }
        });
        let (mut last, mut still) = (0, 0);
        let stopped = eventually_some("nothing more is taken", async || {
            let now = poured.load(Ordering::Relaxed);
            still = if now == last { still + 1 } else { 0 };
            last = now;
            (still == 50).then_some(now as u64)
        })
        .await;
        assert!(stopped < BOUND, "{mode}: {stopped} bytes wait for somebody who reads none");
        assert!(hear(&mut viewer, 1 << 20).await.iter().all(|byte| *byte == b'x'), "{mode}: it goes on");
        drop(viewer);
        timeout(Duration::from_secs(30), pouring).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn whatever_the_pieces_no_key_of_somebody_who_watches_reaches_a_desktop() {
    const KEY: &[u8] = &[4, 1, 0, 0, 0, 0, 0, 0x61];
    const POINTER: &[u8] = &[5, 0x81, 0, 10, 0, 20];
    const UPDATE: &[u8] = &[3, 1, 0, 0, 0, 0, 5, 0, 3, 32];
    let mut stand = shares::Stand::new().await;
    // A clipboard whose text is a key, for whoever counts wrong.
    let clipboard = [&[6, 0, 0, 0, 0, 0, 0, 8], KEY].concat();
    // The same in what passes: eight bytes of a fence.
    let fence = [&[248, 0, 0, 0, 0, 0, 0, 1, 8], KEY].concat();
    let said = [VERSION, &[1, 0], KEY, UPDATE, &clipboard, POINTER, &fence, KEY, UPDATE].concat();
    let wanted = [VERSION, &[1, 1], UPDATE, &fence, UPDATE].concat();
    for at in 1..said.len() {
        let (mut viewer, mut desktop) = at_desktop(&mut stand, "view").await;
        let (first, second) = VERSION.split_at(1 + at % (VERSION.len() - 1));
        say(&mut desktop, first).await;
        say(&mut desktop, second).await;
        assert_eq!(hear(&mut viewer, VERSION.len()).await, VERSION);
        say(&mut viewer, &said[..at]).await;
        say(&mut viewer, &said[at..]).await;
        viewer.close(None).await.unwrap();
        let mut arrived = Vec::new();
        while let Some(bytes) = heard(&mut desktop).await {
            arrived.extend(bytes);
        }
        assert_eq!(arrived, wanted, "cut at {at}");
    }
    // Byte for byte.
    let (mut viewer, mut desktop) = at_desktop(&mut stand, "view").await;
    say(&mut desktop, VERSION).await;
    hear(&mut viewer, VERSION.len()).await;
    for byte in &said {
        say(&mut viewer, [*byte]).await;
    }
    assert_eq!(hear(&mut desktop, wanted.len()).await, wanted);
}
