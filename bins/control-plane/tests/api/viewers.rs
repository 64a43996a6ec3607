//! A viewer whose rights end is cut off within a second, and nothing it types arrives any more.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tidegate_model::{ApiKeyId, NewApiKey, OrgRole, Scope, Scopes, Secret};
use tidegate_protocol::ToAgent;
use tidegate_service::{Minted, Operator};
use tidegate_test_support::{SocketAgent, SocketOptions, TestUser, eventually, new_key_of};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::support::{Pace, World};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Far longer than is promised: how long it took is looked at afterwards.
const IN_TIME: Duration = Duration::from_secs(30);

/// Somebody at a terminal, and both ends of it.
struct Stand {
    world: World,
    user: TestUser,
    token: String,
    viewer: Socket,
    tunnel: Socket,
    _agent: SocketAgent,
    pace: Pace,
}

impl Stand {
    async fn new() -> Self {
        Box::pin(Self::with(OrgRole::User, async |_, token| token.to_owned())).await
    }

    /// The same, through an API key of the user.
    async fn with_key() -> (Self, ApiKeyId) {
        let mut id = None;
        let made = &mut id;
        let stand = Self::with(OrgRole::Admin, async |world, token| {
            let caller = world.services.logins.authenticate(token, None).await.unwrap();
            let scopes = Scopes::from_iter([Scope::Streams]);
            let new = NewApiKey { label: "viewer".into(), scopes, expires_at: None };
            let keys = &world.services.keys;
            let minted = keys.insert_api_key(caller.org().unwrap(), &new, None, None, |_| ().into()).await;
            let Minted::New(key, plaintext) = minted.unwrap() else { panic!("a new key") };
            *made = Some(key.id);
            plaintext.into_inner()
        });
        (Box::pin(stand).await, id.unwrap())
    }

    async fn with(role: OrgRole, credential: impl AsyncFnOnce(&World, &str) -> String) -> Self {
        let world = World::new().await;
        let key = new_key_of(&world.services, "vm-1", 10).await;
        let url = world.handle.url().replace("http", "ws");
        let options = SocketOptions { url, handle: "vm-1".into(), key: key.clone(), hello: true };
        let agent = SocketAgent::connect(options).await.unwrap();
        eventually("the agent is connected", async || world.handle.hub().connected() > 0).await;
        world.services.operators.create_organization(&Operator::console(), "acme").await.unwrap();
        let user = world.db.user_in("acme", role).await;
        let token = world.token(&user).await;
        let made = world.call("POST", "/api/v1/sessions", &token, Some(json!({"template": "shell"}))).await;
        let path = format!("/api/v1/sessions/{}", made.body["session"]["id"].as_str().unwrap());
        let state = async || world.call("GET", &path, &token, None).await.body["state"] == "running";
        eventually("it runs", state).await;
        let terminal = format!("{path}/terminal");
        let credential = credential(&world, &token).await;
        let (viewer, tunnel) = tokio::join!(
            dial(&world, &terminal, "Authorization", format!("Bearer {credential}")),
            dialled(&world, &agent, &key)
        );
        let pace = Pace::of(&world);
        let mut stand = Self { world, user, token, viewer, tunnel, _agent: agent, pace };
        stand.viewer.send(Message::binary("before")).await.unwrap();
        assert_eq!(stand.arrived().await.as_deref(), Some(&b"before"[..]));
        stand
    }

    /// The next bytes at the agent's end, none when that has ended; both in time.
    async fn arrived(&mut self) -> Option<Vec<u8>> {
        loop {
            match timeout(IN_TIME, self.tunnel.next()).await.unwrap() {
                Some(Ok(Message::Binary(bytes))) => return Some(bytes.to_vec()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Types on and on, and checks that it ends in time, at both ends.
    async fn cut(self) {
        Box::pin(self.cut_with(1_008)).await;
    }

    /// The same, with what the viewer is told.
    async fn cut_with(mut self, wanted: u16) {
        let since = Instant::now();
        let code = timeout(IN_TIME, async {
            loop {
                // What is typed before the cut may arrive.
                drop(self.viewer.send(Message::binary("after")).await);
                match timeout(Duration::from_millis(20), self.viewer.next()).await {
                    Ok(Some(Ok(Message::Close(close)))) => return close.map(|close| u16::from(close.code)),
                    Ok(Some(Err(_)) | None) => return None,
                    Ok(Some(Ok(_))) | Err(_) => {}
                }
            }
        })
        .await;
        let (took, second) = (since.elapsed(), self.pace.second());
        assert_eq!(code.ok(), Some(Some(wanted)), "it is cut in time");
        assert!(took < second, "{took:?} of {second:?}");
        drop(self.viewer.send(Message::binary("too late")).await);
        while let Some(bytes) = self.arrived().await {
            assert_eq!(bytes, b"after");
        }
    }
}

async fn dial(world: &World, path: &str, header: &'static str, value: String) -> Socket {
    let url = world.handle.url().replace("http", "ws");
    let mut request = format!("{url}{path}").into_client_request().unwrap();
    request.headers_mut().insert(header, value.parse().unwrap());
    connect_async(request).await.unwrap().0
}

/// The agent's end, when it is asked for.
async fn dialled(world: &World, agent: &SocketAgent, key: &Secret<String>) -> Socket {
    let wanted = |message: &ToAgent| match message {
        ToAgent::TunnelOpen(open) => Some(serde_json::to_value(&open.tunnel_id).unwrap()),
        _ => None,
    };
    let id = agent.told("a tunnel is asked for", wanted).await;
    let path = format!("/api/v1/agents/tunnels/{}?agent_id=vm-1", id.as_str().unwrap());
    dial(world, &path, "X-Agent-API-Key", key.expose().clone()).await
}

#[tokio::test]
async fn a_viewer_who_logs_out_is_cut() {
    let stand = Box::pin(Stand::new()).await;
    let answer = stand.world.call("POST", "/api/v1/auth/logout", &stand.token, None).await;
    assert!(answer.status < 300, "{answer:?}");
    Box::pin(stand.cut()).await;
}

#[tokio::test]
async fn a_viewer_whose_logins_another_program_revokes_is_cut() {
    let stand = Box::pin(Stand::new()).await;
    // Services of their own tell this server nothing: as `tidegate-admin` does it beside it.
    let elsewhere = stand.world.db.services();
    let new = Secret::new("a brand new password".to_owned());
    elsewhere.operators.set_password(&Operator::console(), &stand.user.username, new).await.unwrap();
    Box::pin(stand.cut()).await;
}

#[tokio::test]
async fn a_viewer_who_is_deactivated_is_cut() {
    let stand = Box::pin(Stand::new()).await;
    stand.world.db.execute("UPDATE users SET active = false").await;
    Box::pin(stand.cut()).await;
}

#[tokio::test]
async fn a_viewer_of_a_suspended_organization_is_cut() {
    let stand = Box::pin(Stand::new()).await;
    stand.world.db.execute("UPDATE organizations SET status = 'suspended'").await;
    Box::pin(stand.cut()).await;
}

#[tokio::test]
async fn a_viewer_whose_api_key_is_revoked_is_cut() {
    let (stand, id) = Box::pin(Stand::with_key()).await;
    let path = format!("/api/v1/keys/{id}/revoke");
    assert_eq!(stand.world.call("POST", &path, &stand.token, None).await.status, 200);
    Box::pin(stand.cut()).await;
}

#[tokio::test]
async fn a_viewer_whose_api_key_ends_by_itself_is_cut() {
    let (stand, _) = Box::pin(Stand::with_key()).await;
    stand.world.db.execute("UPDATE api_keys SET expires_at = created_at").await;
    Box::pin(stand.cut()).await;
}

#[tokio::test]
async fn a_viewer_whose_api_key_loses_its_scope_with_its_makers_role_is_cut() {
    let (stand, _) = Box::pin(Stand::with_key()).await;
    stand.world.db.execute("UPDATE memberships SET role = 'viewer'").await;
    Box::pin(stand.cut()).await;
}

#[tokio::test]
async fn an_agent_whose_key_is_revoked_is_cut_off_with_its_tunnels() {
    let stand = Box::pin(Stand::new()).await;
    let operator = stand.world.operator().await;
    let path = "/api/v1/admin/agents/vm-1/revoke-key";
    let revoked = stand.world.call("POST", path, &operator, None).await;
    assert_eq!((revoked.status, revoked.body.get("keyCreatedAt")), (200, None), "{revoked:?}");
    let hub = stand.world.handle.hub().clone();
    // Viewers may attach again, once the agent has a key.
    Box::pin(stand.cut_with(1_012)).await;
    assert_eq!(hub.connected(), 0);
}

#[tokio::test]
async fn an_agent_that_is_removed_by_another_program_is_cut_off_with_its_tunnels() {
    let stand = Box::pin(Stand::new()).await;
    let elsewhere = stand.world.db.services();
    elsewhere.agents.remove(&Operator::console(), &"vm-1".parse().unwrap(), true).await.unwrap();
    Box::pin(stand.cut_with(1_012)).await;
}

#[tokio::test]
async fn with_the_end_of_an_overlap_what_the_old_key_opened_is_cut() {
    let stand = Box::pin(Stand::new()).await;
    let operator = stand.world.operator().await;
    let path = "/api/v1/admin/agents/vm-1/rotate-key";
    let rotated = stand.world.call("POST", path, &operator, Some(json!({"overlapSeconds": 600}))).await;
    assert!(rotated.body["oldKeyUntil"].is_string(), "{rotated:?}");
    // Until then it lives on.
    let mut stand = stand;
    stand.viewer.send(Message::binary("overlap")).await.unwrap();
    assert_eq!(stand.arrived().await.as_deref(), Some(&b"overlap"[..]));
    stand.world.db.execute("UPDATE agents SET previous_key_expires_at = created_at").await;
    Box::pin(stand.cut_with(1_012)).await;
}
