//! Shared sessions over HTTP: who gets in, what a viewer's keys do, and how fast it ends.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidegate_model::{OrgRole, Secret};
use tidegate_protocol::ToAgent;
use tidegate_test_support::{SocketAgent, SocketOptions, eventually, new_key_of};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::{
    browsers::Browser,
    support::{Answer, Pace, Somebody, World, upgrade},
};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Far longer than is promised: how long it took is looked at afterwards.
const IN_TIME: Duration = Duration::from_secs(30);

/// A running session of somebody, a friend without a share, and the agent.
pub(crate) struct Stand {
    pub(crate) world: World,
    pub(crate) agent: SocketAgent,
    key: Secret<String>,
    pub(crate) owner: Somebody,
    pub(crate) friend: Somebody,
    pub(crate) path: String,
    /// Tunnels that were asked for before.
    dialled: usize,
    pace: Pace,
}

impl Stand {
    pub(crate) async fn new() -> Self {
        Self::on(World::new().await).await
    }

    async fn on(world: World) -> Self {
        let key = new_key_of(&world.services, "vm-1", 10).await;
        let url = world.handle.url().replace("http", "ws");
        let options = SocketOptions { url, handle: "vm-1".into(), key: key.clone(), hello: true };
        let agent = SocketAgent::connect(options).await.unwrap();
        eventually("the agent is connected", async || world.handle.hub().connected() > 0).await;
        let owner = world.somebody("acme", OrgRole::User).await;
        let friend = world.somebody("acme", OrgRole::User).await;
        let made =
            world.call("POST", "/api/v1/sessions", &owner.token, Some(json!({"template": "shell"}))).await;
        let path = format!("/api/v1/sessions/{}", made.body["session"]["id"].as_str().unwrap());
        let state = async || world.call("GET", &path, &owner.token, None).await.body["state"] == "running";
        eventually("it runs", state).await;
        let pace = Pace::of(&world);
        Self { world, agent, key, owner, friend, path, dialled: 0, pace }
    }

    pub(crate) async fn as_owner(&self, method: &str, path: &str, body: Value) -> Answer {
        self.world.call(method, &format!("{}{path}", self.path), &self.owner.token, Some(body)).await
    }

    pub(crate) async fn as_friend(&self, method: &str, path: &str, body: Value) -> Answer {
        self.world.call(method, &format!("{}{path}", self.path), &self.friend.token, Some(body)).await
    }

    pub(crate) async fn share(&self, mut body: Value) -> String {
        if body["group"].is_null() {
            body["username"] = json!(self.friend.name);
        }
        let made = self.as_owner("POST", "/shares", body).await;
        assert!(made.status == 201 || made.status == 200, "{made:?}");
        made.body["id"].as_str().unwrap().to_owned()
    }

    /// The friend's terminal and its other end, by a ticket.
    pub(crate) async fn watch(&mut self, mode: &str) -> (Socket, Socket) {
        let given = self.as_friend("POST", "/connect", json!({"kind": "terminal", "mode": mode})).await;
        assert_eq!(given.status, 200, "{given:?}");
        let offer = format!("tidegate.v1, ticket.{}", given.body["ticket"].as_str().unwrap());
        let terminal = format!("{}/terminal", self.path);
        let before = self.dialled;
        self.dialled += 1;
        tokio::join!(dial(&self.world, &terminal, "Sec-WebSocket-Protocol", offer), self.tunnel(before))
    }

    /// A stream by a bearer token, and its other end.
    pub(crate) async fn open(&mut self, path: &str, bearer: String) -> (Socket, Socket) {
        let before = self.dialled;
        self.dialled += 1;
        tokio::join!(dial(&self.world, path, "Authorization", bearer), self.tunnel(before))
    }

    /// The agent's end of the next tunnel that is asked for.
    pub(crate) async fn next_tunnel(&mut self) -> Socket {
        let before = self.dialled;
        self.dialled += 1;
        self.tunnel(before).await
    }

    async fn tunnel(&self, before: usize) -> Socket {
        let ids = || -> Vec<Value> {
            let asked = |message: &ToAgent| match message {
                ToAgent::TunnelOpen(open) => Some(serde_json::to_value(&open.tunnel_id).unwrap()),
                _ => None,
            };
            self.agent.received().iter().filter_map(asked).collect()
        };
        eventually("a tunnel is asked for", async || ids().len() > before).await;
        let path = format!("/api/v1/agents/tunnels/{}?agent_id=vm-1", ids()[before].as_str().unwrap());
        dial(&self.world, &path, "X-Agent-API-Key", self.key.expose().clone()).await
    }

    /// The code that a socket is closed with within a second.
    pub(crate) async fn cut(&self, viewer: Socket, since: Instant) {
        let code = timeout(IN_TIME, closed(viewer)).await;
        let (took, second) = (since.elapsed(), self.pace.second());
        assert_eq!(code.ok(), Some(Some(1_008)), "after {took:?}");
        assert!(took < second, "{took:?} of {second:?}");
    }
}

pub(crate) async fn dial(world: &World, path: &str, header: &'static str, value: String) -> Socket {
    let url = world.handle.url().replace("http", "ws");
    let mut request = format!("{url}{path}").into_client_request().unwrap();
    request.headers_mut().insert(header, value.parse().unwrap());
    connect_async(request).await.unwrap().0
}

/// The next bytes, none at the end; both in time.
pub(crate) async fn heard(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match timeout(IN_TIME, socket.next()).await.unwrap() {
            Some(Ok(Message::Binary(bytes))) => return Some(bytes.to_vec()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

/// What a socket is closed with.
async fn closed(mut viewer: Socket) -> Option<u16> {
    loop {
        match viewer.next().await {
            Some(Ok(Message::Close(close))) => return close.map(|close| u16::from(close.code)),
            Some(Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn what_is_not_shared_is_not_there_and_what_is_shared_says_so() {
    let stand = Stand::new().await;
    stand.as_friend("GET", "", json!({})).await.refused(404, "E_NOT_FOUND");
    let body = json!({"kind": "terminal"});
    stand.as_friend("POST", "/connect", body.clone()).await.refused(404, "E_NOT_FOUND");
    let id = stand.share(json!({"mode": "view", "expiresIn": "2h"})).await;
    let seen = stand.as_friend("GET", "", json!({})).await;
    assert_eq!((seen.status, &seen.body["shared"]["mode"]), (200, &json!("view")), "{seen:?}");
    let listed = stand.world.call("GET", "/api/v1/sessions", &stand.friend.token, None).await.body;
    assert_eq!((&listed["total"], &listed["sessions"][0]["shared"]["mode"]), (&json!(1), &json!("view")));
    stand.as_friend("POST", "/connect", body).await.refused(403, "E_FORBIDDEN");
    stand.as_friend("DELETE", "", json!({})).await.refused(403, "E_FORBIDDEN");
    stand
        .as_friend("POST", "/shares", json!({"username": stand.owner.name}))
        .await
        .refused(403, "E_FORBIDDEN");
    let shares = stand.as_owner("GET", "/shares", json!({})).await.body;
    assert_eq!(
        (&shares["shares"][0]["id"], &shares["shares"][0]["user"]),
        (&json!(id), &json!(stand.friend.name))
    );
    assert_eq!(stand.as_owner("DELETE", &format!("/shares/{id}"), json!({})).await.status, 204);
    stand.as_friend("GET", "", json!({})).await.refused(404, "E_NOT_FOUND");
    stand.as_owner("DELETE", &format!("/shares/{id}"), json!({})).await.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn a_bad_share_names_its_fields_and_nobody_is_let_in_twice() {
    let stand = Stand::new().await;
    let bad = stand.as_owner("POST", "/shares", json!({"mode": "own", "expiresIn": "1s", "odd": 1})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["expiresIn", "mode", "odd", "username"]);
    stand.as_owner("POST", "/shares", json!({"username": "nobody-here"})).await.refused(404, "E_NOT_FOUND");
    stand.as_owner("POST", "/shares", json!({"group": "nobody"})).await.refused(404, "E_NOT_FOUND");
    let own = stand.as_owner("POST", "/shares", json!({"username": stand.owner.name})).await;
    assert_eq!(own.refused(400, "E_INVALID").fields(), ["username"]);
    let key = |body: &Value| {
        let headers = vec![
            ("Authorization", format!("Bearer {}", stand.owner.token)),
            ("Idempotency-Key", "one".to_owned()),
        ];
        (headers, body.to_string())
    };
    let body = json!({"username": stand.friend.name, "mode": "view"});
    let (headers, text) = key(&body);
    let path = format!("{}/shares", stand.path);
    let first = stand.world.raw("POST", &path, &headers, text.as_bytes()).await;
    let second = stand.world.raw("POST", &path, &headers, text.as_bytes()).await;
    assert_eq!((first.status, second.status, &first.body), (201, 201, &second.body));
    let (headers, text) = key(&json!({"username": stand.friend.name, "mode": "control"}));
    stand.world.raw("POST", &path, &headers, text.as_bytes()).await.refused(409, "E_IDEMPOTENCY_MISMATCH");
    // Without the key it is another wish, and the same share.
    let again =
        stand.as_owner("POST", "/shares", json!({"username": stand.friend.name, "mode": "control"})).await;
    assert_eq!((again.status, &again.body["id"]), (200, &first.body["id"]));
}

#[tokio::test]
async fn what_a_viewer_types_reaches_nobody_and_keeps_nothing_alive() {
    let mut stand = Stand::new().await;
    stand.share(json!({"mode": "view"})).await;
    let (mut viewer, mut tunnel) = Box::pin(stand.watch("view")).await;
    for _ in 0..3 {
        viewer.send(Message::binary("rm -rf /\n")).await.unwrap();
    }
    tunnel.send(Message::binary("still here")).await.unwrap();
    assert_eq!(heard(&mut viewer).await.as_deref(), Some(&b"still here"[..]));
    viewer.close(None).await.unwrap();
    assert_eq!(heard(&mut tunnel).await, None, "nothing was typed");
    assert!(stand.world.handle.hub().take_activity().is_empty());
    stand.share(json!({"mode": "control"})).await;
    let (mut viewer, mut tunnel) = Box::pin(stand.watch("control")).await;
    viewer.send(Message::binary("ls\n")).await.unwrap();
    assert_eq!(heard(&mut tunnel).await.as_deref(), Some(&b"ls\n"[..]));
}

#[tokio::test]
async fn a_share_that_is_taken_back_cuts_its_viewer_and_no_other() {
    let mut stand = Stand::new().await;
    let id = stand.share(json!({"mode": "control"})).await;
    let (viewer, _tunnel) = Box::pin(stand.watch("control")).await;
    let token = stand.owner.token.clone();
    let friend =
        std::mem::replace(&mut stand.friend, Somebody { token, id: String::new(), name: String::new() });
    let (mut own, mut other) = Box::pin(stand.watch("control")).await;
    stand.friend = friend;
    let since = Instant::now();
    assert_eq!(stand.as_owner("DELETE", &format!("/shares/{id}"), json!({})).await.status, 204);
    stand.cut(viewer, since).await;
    own.send(Message::binary("mine")).await.unwrap();
    assert_eq!(heard(&mut other).await.as_deref(), Some(&b"mine"[..]));
}

#[tokio::test]
async fn a_share_that_is_lowered_cuts_whoever_types_by_it() {
    let mut stand = Stand::new().await;
    stand.share(json!({"mode": "control"})).await;
    let (viewer, _tunnel) = Box::pin(stand.watch("control")).await;
    let since = Instant::now();
    stand.share(json!({"mode": "view"})).await;
    stand.cut(viewer, since).await;
    Box::pin(stand.watch("view")).await;
}

#[tokio::test]
async fn a_share_of_another_program_is_taken_back_within_the_same_time() {
    let mut stand = Stand::new().await;
    stand.share(json!({"mode": "view"})).await;
    let (viewer, _tunnel) = Box::pin(stand.watch("view")).await;
    let since = Instant::now();
    stand.world.db.execute("DELETE FROM session_shares").await;
    stand.cut(viewer, since).await;
}

#[tokio::test]
async fn who_leaves_the_group_or_the_organization_is_cut() {
    let mut stand = Stand::new().await;
    let admin = stand.world.somebody("acme", OrgRole::Admin).await;
    let body = json!({"name": "crew", "displayName": "The crew", "type": "team"});
    let group = stand.world.call("POST", "/api/v1/groups", &admin.token, Some(body)).await;
    let members = format!("/api/v1/groups/{}/members", group.body["id"].as_str().unwrap());
    let body = json!({"userId": stand.friend.id});
    assert_eq!(stand.world.call("POST", &members, &admin.token, Some(body)).await.status, 201);
    stand.share(json!({"group": "crew", "mode": "view"})).await;
    let (viewer, _tunnel) = Box::pin(stand.watch("view")).await;
    let since = Instant::now();
    let left =
        stand.world.call("DELETE", &format!("{members}/{}", stand.friend.id), &admin.token, None).await;
    assert_eq!(left.status, 204, "{left:?}");
    stand.cut(viewer, since).await;
    stand.share(json!({"mode": "view"})).await;
    let (viewer, _tunnel) = Box::pin(stand.watch("view")).await;
    let since = Instant::now();
    let member = format!("/api/v1/organizations/acme/members/{}", stand.friend.id);
    assert_eq!(stand.world.call("DELETE", &member, &admin.token, None).await.status, 204);
    stand.cut(viewer, since).await;
}

#[tokio::test]
async fn a_share_that_expires_cuts_its_viewer_and_its_tickets_open_nothing() {
    let mut stand = Stand::on(World::by_hand("").await).await;
    stand.share(json!({"mode": "view", "expiresIn": "1m"})).await;
    let (viewer, _tunnel) = Box::pin(stand.watch("view")).await;
    stand.world.db.manual_clock().advance(chrono::TimeDelta::seconds(50));
    let given = stand.as_friend("POST", "/connect", json!({"kind": "terminal", "mode": "view"})).await;
    assert_eq!(given.status, 200, "{given:?}");
    let since = Instant::now();
    stand.world.db.manual_clock().advance(chrono::TimeDelta::seconds(10));
    stand.cut(viewer, since).await;
    let offer = format!("tidegate.v1, ticket.{}", given.body["ticket"].as_str().unwrap());
    let headers = [upgrade(), vec![("Sec-WebSocket-Protocol", offer)]].concat();
    let late = stand.world.raw("GET", &format!("{}/terminal", stand.path), &headers, b"").await;
    late.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn what_is_shared_stands_on_the_page_of_whom_it_is_shared_with_and_in_a_list_of_its_own() {
    let stand = Stand::new().await;
    let user = stand.world.db.user_in("acme", OrgRole::User).await;
    let token = stand.world.token(&user).await;
    let mut browser = Browser::new(&stand.world);
    browser.log_in(&user, "/home").await;
    let listed = async || stand.world.call("GET", "/api/v1/sessions?shared=true", &token, None).await.body;
    assert!(!browser.get("/home").await.text.contains("Shared with you"));
    assert_eq!(listed().await["total"], 0);
    let own = stand.world.call("POST", "/api/v1/sessions", &token, Some(json!({"template": "shell"}))).await;
    assert_eq!(own.status, 202, "{own:?}");
    let made = stand
        .as_owner("POST", "/shares", json!({"username": user.username, "mode": "view", "expiresIn": "2h"}))
        .await;
    let page = browser.get("/home").await.text;
    let id = stand.path.rsplit_once('/').unwrap().1;
    let until = made.body["expiresAt"].as_str().unwrap();
    let shown = format!("{} {} UTC", &until[..10], &until[11..16]);
    for wanted in ["Shared with you", &stand.owner.name, "watch", &shown, &format!("/sessions/{id}?")] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    let body = listed().await;
    assert_eq!((&body["total"], &body["sessions"][0]["id"]), (&json!(1), &json!(id)));
    assert_eq!(body["sessions"][0]["shared"], json!({"mode": "view", "expiresAt": until}));
    stand.as_owner("DELETE", &format!("/shares/{}", made.body["id"].as_str().unwrap()), json!({})).await;
    assert!(!browser.get("/home").await.text.contains("Shared with you"));
    assert_eq!(listed().await["total"], 0);
    let bad = stand.world.call("GET", "/api/v1/sessions?shared=perhaps", &token, None).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["shared"]);
}
