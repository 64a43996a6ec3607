//! What sessions serve, and what desktops are told: it goes on and comes back, and nothing of the platform's with it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tidegate_hub::TunnelHandle;
use tidegate_model::OrgRole;
use tidegate_protocol::{ToAgent, TunnelTarget};
use tidegate_test_support::{SocketAgent, SocketOptions, eventually, new_key_of};
use tokio::task::JoinSet;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::support::{Answer, Somebody, World, upgrade};

/// What the application answers to the head of a request.
pub(crate) type App = fn(&str) -> Vec<u8>;

/// How an answer's head ends after which bytes follow for ever.
pub(crate) const ENDLESS: &[u8] = b"X-Ends: never\r\n\r\n";

/// A session whose stream port is an application of the test's.
pub(crate) struct Stand {
    pub(crate) world: World,
    pub(crate) owner: Somebody,
    pub(crate) id: String,
    /// The heads that the application got.
    heard: Arc<Mutex<Vec<String>>>,
    /// Bytes of answers without an end.
    pub(crate) poured: Arc<AtomicU64>,
    agent: Arc<SocketAgent>,
    _tunnels: JoinSet<()>,
}

impl Stand {
    pub(crate) async fn new(template: &str, app: App) -> Self {
        let world = World::new().await;
        let key = new_key_of(&world.services, "vm-1", 10).await;
        let url = world.handle.url().replace("http", "ws");
        let options =
            SocketOptions { url: url.clone(), handle: "vm-1".into(), key: key.clone(), hello: true };
        let agent = Arc::new(SocketAgent::connect(options).await.unwrap());
        eventually("the agent is connected", async || world.handle.hub().connected() > 0).await;
        let owner = world.somebody("acme", OrgRole::User).await;
        let body = json!({"template": template, "command": ["serve"]});
        let made = world.call("POST", "/api/v1/sessions", &owner.token, Some(body)).await;
        let id = made.body["session"]["id"].as_str().unwrap_or_else(|| panic!("{made:?}")).to_owned();
        let path = format!("/api/v1/sessions/{id}");
        let state = async || world.call("GET", &path, &owner.token, None).await.body["state"] == "running";
        eventually("it runs", state).await;
        let (heard, mut tunnels) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        let poured = Arc::new(AtomicU64::new(0));
        // A desktop speaks first.
        let first: &[u8] = if template == "desktop" { b"RFB 003.008\n" } else { b"" };
        let (asked, heads, pours) = (Arc::clone(&agent), Arc::clone(&heard), Arc::clone(&poured));
        tunnels.spawn(async move {
            let (mut served, mut open) = (0, JoinSet::new());
            let mut look = tokio::time::interval(std::time::Duration::from_millis(10));
            loop {
                look.tick().await;
                let Some((id, target)) = opened(&asked).into_iter().nth(served) else { continue };
                let key = key.expose().clone();
                served += 1;
                assert_eq!(target, TunnelTarget::Stream);
                open.spawn(serve(
                    (url.clone(), id, key),
                    (first, app),
                    Arc::clone(&heads),
                    Arc::clone(&pours),
                ));
            }
        });
        Self { world, owner, id, heard, poured, agent, _tunnels: tunnels }
    }

    /// A request to the session's own host, with a browser's cookie.
    pub(crate) async fn browse(
        &self,
        method: &str,
        path: &str,
        cookie: &str,
        more: &[(&str, String)],
    ) -> Answer {
        self.browse_at(&self.id, method, path, cookie, more).await
    }

    async fn browse_at(
        &self,
        id: &str,
        method: &str,
        path: &str,
        cookie: &str,
        more: &[(&str, String)],
    ) -> Answer {
        let host = format!("{id}.localhost:{}", self.world.handle.address().port());
        let headers = [vec![("Host", host), ("Cookie", cookie.to_owned())], more.to_vec()].concat();
        self.world.raw(method, path, &headers, b"").await
    }

    /// A browser that was let in, by its cookie.
    pub(crate) async fn entered(&self, mode: &str) -> String {
        self.entered_as(&self.owner, mode).await
    }

    async fn entered_as(&self, who: &Somebody, mode: &str) -> String {
        let ticket = self.ticket_of(who, mode).await;
        let answer = self.enter(&ticket).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{answer:?}");
        let cookie = answer.header("set-cookie").unwrap();
        for wanted in ["__Host-tidegate_stream=", "; Secure", "; HttpOnly", "; Path=/;", "; Partitioned"] {
            assert!(cookie.contains(wanted), "{cookie}");
        }
        cookie.split(';').next().unwrap().to_owned()
    }

    async fn ticket(&self, mode: &str) -> String {
        self.ticket_of(&self.owner, mode).await
    }

    async fn ticket_of(&self, who: &Somebody, mode: &str) -> String {
        let body = Some(json!({"kind": "http", "mode": mode}));
        let path = format!("/api/v1/sessions/{}/connect", self.id);
        let given = self.world.call("POST", &path, &who.token, body).await;
        let url = given.body["url"].as_str().unwrap();
        assert!(url.starts_with(&format!("http://{}.localhost:", self.id)), "{url}");
        given.body["ticket"].as_str().unwrap().to_owned()
    }

    async fn enter(&self, ticket: &str) -> Answer {
        let host = format!("{}.localhost:{}", self.id, self.world.handle.address().port());
        let headers = [("Host", host), ("Content-Type", "application/x-www-form-urlencoded".to_owned())];
        let path = format!("/.tidegate/enter/{}", self.id);
        self.world.raw("POST", &path, &headers, format!("ticket={ticket}").as_bytes()).await
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

pub(crate) fn opened(agent: &SocketAgent) -> Vec<(String, TunnelTarget)> {
    let asked = agent.received().into_iter().filter_map(|message| match message {
        ToAgent::TunnelOpen(open) => Some((open.tunnel_id.as_str().to_owned(), open.target)),
        _ => None,
    });
    asked.collect()
}

/// The agent's end of one tunnel: what the application answers to each head that comes.
async fn serve(
    (url, id, key): (String, String, String),
    (first, app): (&'static [u8], App),
    heard: Arc<Mutex<Vec<String>>>,
    poured: Arc<AtomicU64>,
) {
    let mut request =
        format!("{url}/api/v1/agents/tunnels/{id}?agent_id=vm-1").into_client_request().unwrap();
    request.headers_mut().insert("X-Agent-API-Key", key.parse().unwrap());
    let mut tunnel = connect_async(request).await.unwrap().0;
    if !first.is_empty() {
        tunnel.send(Message::binary(first)).await.unwrap();
    }
    let mut waiting = Vec::new();
    while let Some(Ok(message)) = tunnel.next().await {
        let Message::Binary(bytes) = message else { continue };
        waiting.extend_from_slice(&bytes);
        while let Some(end) = waiting.windows(4).position(|four| four == b"\r\n\r\n") {
            let asked = String::from_utf8_lossy(&waiting[..end]).into_owned();
            waiting.drain(..end + 4);
            let answer = app(&asked);
            heard.lock().unwrap().push(asked);
            // What is no head any more is said back, as a WebSocket's bytes are here.
            let without_end = answer.ends_with(ENDLESS);
            if tunnel.send(Message::binary(answer)).await.is_err() {
                return;
            }
            if without_end {
                while tunnel.send(Message::binary(vec![b'x'; 64 * 1024])).await.is_ok() {
                    poured.fetch_add(64 * 1024, Ordering::Relaxed);
                }
                return;
            }
        }
    }
}

pub(crate) fn hello(head: &str) -> Vec<u8> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = format!("you asked for {path}");
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nSet-Cookie: mine=1; Domain=.localhost; Path=/\r\n\
         Set-Cookie: __Host-tidegate_session=evil; Path=/; Secure\r\nStrict-Transport-Security: max-age=9\r\n\
         Clear-Site-Data: \"cookies\"\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn a_browser_gets_in_with_a_ticket_and_takes_nothing_of_the_platform_along() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let cookie = stand.entered("control").await;
    let more = [
        ("Authorization", "Basic of-the-application".to_owned()),
        ("X-API-Key", "ppz_secret".to_owned()),
        ("X-Forwarded-For", "6.6.6.6".to_owned()),
    ];
    let cookies = format!("theirs=1; {cookie}; __Host-tidegate_session=secret");
    for _ in 0..3 {
        let answer = stand.browse("GET", "/a/b?c=d", &cookies, &more).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "you asked for /a/b?c=d"), "{answer:?}");
        assert_eq!(answer.header("set-cookie"), Some("mine=1; Path=/"), "{answer:?}");
        assert!(
            !answer.head.contains("tidegate_session")
                && !answer.head.to_lowercase().contains("strict-transport")
                && !answer.head.to_lowercase().contains("clear-site-data")
        );
    }
    for head in stand.heard() {
        assert!(
            !head.contains("secret") && !head.contains("6.6.6.6") && !head.contains("tidegate"),
            "{head}"
        );
        assert!(head.contains("Basic of-the-application") && head.contains("theirs=1"), "{head}");
    }
    // Its own 404 is its own, and the connection is kept.
    assert_eq!(opened(&stand.agent).len(), 1, "one tunnel for all of them");
}

#[tokio::test]
async fn a_ticket_lets_one_browser_in_once_and_into_its_own_session() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let ticket = stand.ticket("control").await;
    assert_eq!(stand.enter(&ticket).await.status, 303);
    stand.enter(&ticket).await.refused(401, "E_UNAUTHENTICATED");
    stand.browse("GET", "/", "", &[]).await.refused(401, "E_UNAUTHENTICATED");
    stand.browse("GET", "/", "__Host-tidegate_stream=guessed", &[]).await.refused(401, "E_UNAUTHENTICATED");
    let cookie = stand.entered("control").await;
    let other = tidegate_model::SessionId::new().to_string();
    stand.browse_at(&other, "GET", "/", &cookie, &[]).await.refused(401, "E_UNAUTHENTICATED");
    // At a session's host nothing is the platform's: neither its pages nor its API.
    let at_host = stand.browse("GET", "/api/v1/users/me", &cookie, &[]).await;
    assert_eq!(at_host.text, "you asked for /api/v1/users/me");
}

#[tokio::test]
async fn who_logs_out_is_out_of_the_session_with_the_next_request() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let cookie = stand.entered("control").await;
    assert_eq!(stand.browse("GET", "/", &cookie, &[]).await.status, 200);
    let answer = stand.world.call("POST", "/api/v1/auth/logout", &stand.owner.token, None).await;
    assert!(answer.status < 300, "{answer:?}");
    stand.browse("GET", "/", &cookie, &[]).await.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn who_may_only_watch_reads_and_changes_nothing() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let cookie = stand.entered("view").await;
    assert_eq!(stand.browse("GET", "/", &cookie, &[]).await.status, 200);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        stand.browse(method, "/", &cookie, &[]).await.refused(403, "E_FORBIDDEN");
    }
    assert_eq!(stand.heard().len(), 1);
}

#[tokio::test]
async fn whoever_it_is_shared_with_to_watch_is_not_cut_off_and_who_loses_the_share_is() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let world = &stand.world;
    let friend = world.somebody("acme", OrgRole::User).await;
    let guest = world.somebody("acme", OrgRole::User).await;
    let shares = format!("/api/v1/sessions/{}/shares", stand.id);
    let share = async |who: &Somebody| {
        let body = Some(json!({"username": who.name, "mode": "view"}));
        let made = world.call("POST", &shares, &stand.owner.token, body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["id"].as_str().unwrap().to_owned()
    };
    share(&friend).await;
    let friends = stand.entered_as(&friend, "view").await;
    assert_eq!(stand.browse("GET", "/", &friends, &[]).await.status, 200);
    // Each end of a share has every viewer of the session looked at: once the guest is cut, so was the friend.
    for round in 1..=3 {
        let id = share(&guest).await;
        let guests = stand.entered_as(&guest, "view").await;
        assert_eq!(stand.browse("GET", "/", &guests, &[]).await.status, 200);
        assert_eq!(opened(&stand.agent).len(), 1 + round);
        let ended = world.call("DELETE", &format!("{shares}/{id}"), &stand.owner.token, None).await;
        assert_eq!(ended.status, 204, "{ended:?}");
        let session = stand.id.parse().unwrap();
        let cut = async || world.handle.hub().tunnels(session).len() <= 1;
        eventually("the guest is cut off", cut).await;
        assert!(stand.browse("GET", "/", &guests, &[]).await.status >= 400);
    }
    assert_eq!(stand.browse("GET", "/", &friends, &[]).await.status, 200);
    assert_eq!(opened(&stand.agent).len(), 4, "the friend's connection stood all the time");
}

#[tokio::test]
async fn another_site_sends_nothing_in_a_visitors_name() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let cookie = stand.entered("control").await;
    let foreign = ("Origin", "https://evil.example".to_owned());
    stand.browse("POST", "/", &cookie, std::slice::from_ref(&foreign)).await.refused(403, "E_ORIGIN");
    let socket = [upgrade(), vec![foreign]].concat();
    stand.browse("GET", "/", &cookie, &socket).await.refused(403, "E_ORIGIN");
    assert_eq!(stand.heard().len(), 0);
}

#[tokio::test]
async fn programs_come_by_path_and_other_organizations_do_not() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let path = format!("/api/v1/http/{}/x/y?z=1", stand.id);
    let answer = stand.world.call("GET", &path, &stand.owner.token, None).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "you asked for /x/y?z=1"), "{answer:?}");
    assert!(answer.header("content-security-policy").unwrap().starts_with("sandbox "));
    let own = format!("mine=1; Path=/api/v1/http/{}", stand.id);
    assert_eq!(answer.header("set-cookie"), Some(own.as_str()), "at this origin it is of its own path alone");
    let posted = stand.world.call("POST", &path, &stand.owner.token, None).await;
    assert_eq!(posted.status, 200, "{posted:?}");
    let stranger = stand.world.somebody("other", OrgRole::Admin).await;
    stand.world.call("GET", &path, &stranger.token, None).await.refused(404, "E_NOT_FOUND");
    stand.world.call("GET", &path, "", None).await.refused(401, "E_UNAUTHENTICATED");
    assert!(stand.heard().iter().all(|head| !head.contains(&stand.owner.token)));
}

#[tokio::test]
async fn whom_it_is_shared_with_to_watch_reads_by_a_bearer_and_by_no_more_than_that() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let friend = stand.world.somebody("acme", OrgRole::User).await;
    let path = format!("/api/v1/http/{}/x", stand.id);
    let ask = async |method: &str| stand.world.call(method, &path, &friend.token, None).await;
    ask("GET").await.refused(404, "E_NOT_FOUND");
    let shares = format!("/api/v1/sessions/{}/shares", stand.id);
    let share = async |mode: &str| {
        let body = json!({"username": friend.name, "mode": mode});
        let made = stand.world.call("POST", &shares, &stand.owner.token, Some(body)).await;
        made.body["id"].as_str().unwrap().to_owned()
    };
    share("view").await;
    for method in ["GET", "OPTIONS"] {
        assert_eq!(ask(method).await.text, "you asked for /x", "{method}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        ask(method).await.refused(403, "E_FORBIDDEN");
    }
    assert_eq!(stand.heard().len(), 2);
    let id = share("control").await;
    assert_eq!(ask("POST").await.status, 200);
    let ended = stand.world.call("DELETE", &format!("{shares}/{id}"), &stand.owner.token, None).await;
    assert_eq!(ended.status, 204);
    ask("GET").await.refused(404, "E_NOT_FOUND");
    // Who manages sessions may stop it, and not read it.
    let manager = stand.world.somebody("acme", OrgRole::Maintainer).await;
    stand.world.call("GET", &path, &manager.token, None).await.refused(403, "E_FORBIDDEN");
}

#[tokio::test]
async fn who_is_shown_out_of_an_application_is_out_with_the_next_request() {
    let stand = Box::pin(Stand::new("web", hello)).await;
    let cookie = stand.entered("control").await;
    let path = format!("/api/v1/http/{}/x", stand.id);
    let ask = async || stand.world.call("GET", &path, &stand.owner.token, None).await;
    assert_eq!((stand.browse("GET", "/", &cookie, &[]).await.status, ask().await.status), (200, 200));
    let before = stand.world.handle.hub().tunnels(stand.id.parse().unwrap());
    assert_eq!(before.len(), 2);
    let out = format!("/api/v1/sessions/{}/disconnect", stand.id);
    assert_eq!(stand.world.call("POST", &out, &stand.owner.token, None).await.status, 204);
    stand.browse("GET", "/", &cookie, &[]).await.refused(401, "E_UNAUTHENTICATED");
    // A program with the owner's bearer comes again, by a connection of its own.
    assert_eq!(ask().await.status, 200);
    eventually("what was open is cut", async || before.iter().all(TunnelHandle::has_ended)).await;
    assert_eq!(ask().await.status, 200);
}

fn hostile(head: &str) -> Vec<u8> {
    match head.split(' ').nth(1).unwrap_or_default() {
        "/headers" => format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
        "/many" => format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(10_000)).into_bytes(),
        "/garbage" => b"\x00\x01 this is no HTTP\r\n\r\n".to_vec(),
        "/lie" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".to_vec(),
        _ => hello(head),
    }
}

#[tokio::test]
async fn an_application_that_answers_nonsense_is_said_so_and_the_next_request_is_answered() {
    let stand = Box::pin(Stand::new("web", hostile)).await;
    let cookie = stand.entered("control").await;
    for path in ["/headers", "/many", "/garbage", "/lie"] {
        stand.browse("GET", path, &cookie, &[]).await.refused(502, "E_SESSION");
    }
    assert_eq!(stand.browse("GET", "/", &cookie, &[]).await.status, 200);
}

/// Whatever is said to a desktop is kept; it answers nothing.
fn silent(_: &str) -> Vec<u8> {
    Vec::new()
}

#[tokio::test]
async fn of_those_who_only_watch_a_desktop_no_key_arrives() {
    for (mode, arrives) in [("view", false), ("control", true)] {
        let stand = Box::pin(Stand::new("desktop", silent)).await;
        let body = Some(json!({"kind": "vnc", "mode": mode}));
        let path = format!("/api/v1/sessions/{}", stand.id);
        let given = stand.world.call("POST", &format!("{path}/connect"), &stand.owner.token, body).await;
        let ticket = given.body["ticket"].as_str().unwrap().to_owned();
        let url = format!("{}{path}/vnc", stand.world.handle.url().replace("http", "ws"));
        let mut request = url.into_client_request().unwrap();
        let offer = format!("tidegate.v1, ticket.{ticket}");
        request.headers_mut().insert("Sec-WebSocket-Protocol", offer.parse().unwrap());
        let mut viewer = connect_async(request).await.unwrap().0;
        assert_eq!(viewer.next().await.unwrap().unwrap().into_data(), &b"RFB 003.008\n"[..]);
        viewer.send(Message::binary(&b"RFB 003.008\n\x01\x00"[..])).await.unwrap();
        viewer.send(Message::binary(&b"\x04\x01\x00\x00\x00\x00\x00\x61"[..])).await.unwrap();
        // A request for pictures, which looks like the end of a head to the test's desktop.
        viewer.send(Message::binary(&b"\x03\x01\r\n\r\n\x05\x00\x03\x20"[..])).await.unwrap();
        eventually("the request for pictures arrives", async || !stand.heard().is_empty()).await;
        let heard = stand.heard().concat();
        assert!(heard.starts_with("RFB 003.008\n\u{1}\u{1}"), "shared: {heard:?}");
        assert_eq!(heard.contains('a'), arrives, "{mode}: {heard:?}");
    }
}
