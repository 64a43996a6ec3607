//! A server, somebody who is logged in at a browser, and an agent whose programs are played by the test.

use std::collections::HashSet;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidegate_model::{OrgRole, Secret};
use tidegate_protocol::ToAgent;
use tidegate_service::Operator;
use tidegate_test_support::{SocketAgent, SocketOptions, TestUser, eventually, eventually_some, new_key_of};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::{browser::Browser, support::World};

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) user: TestUser,
    pub(crate) token: String,
}

impl Stage {
    /// Somebody in an organization; nobody is at a browser yet.
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        world.services.operators.create_organization(&Operator::console(), "acme").await.unwrap();
        let user = world.db.user_in("acme", OrgRole::User).await;
        let token = world.token(&user).await;
        Self { world, user, token }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.world.handle.url())
    }

    /// Logs in at the browser, on the way to a path.
    pub(crate) async fn log_in(&self, browser: &Browser, path: &str) {
        browser.open(&self.url(path)).await;
        browser.type_in("#username", &self.user.username).await;
        browser.type_in("#password", self.user.password.expose()).await;
        browser.click("main button").await;
        let place = self.url(path);
        eventually("the login leads on", async || browser.url().await == place).await;
    }

    /// Asks for a session.
    pub(crate) async fn session(&self, body: Value) -> String {
        let made = self.world.call("POST", "/api/v1/sessions", &self.token, Some(body)).await;
        assert_eq!(made.status, 202, "{made:?}");
        made.body["session"]["id"].as_str().unwrap().to_owned()
    }

    /// Asks for a session and waits until it runs.
    pub(crate) async fn running(&self, body: Value) -> String {
        let id = self.session(body).await;
        self.is(&id, "running").await;
        id
    }

    /// Ends every login of the user's, the browser's among them.
    pub(crate) async fn end_logins(&self) {
        let logins = self.world.call("GET", "/api/v1/auth/logins", &self.token, None).await;
        for login in logins.body["logins"].as_array().unwrap() {
            let path = format!("/api/v1/auth/logins/{}", login["id"].as_str().unwrap());
            self.world.call("DELETE", &path, &self.token, None).await;
        }
    }

    pub(crate) async fn look(&self, id: &str) -> Value {
        self.world.call("GET", &format!("/api/v1/sessions/{id}"), &self.token, None).await.body
    }

    /// Waits until a session is in this state.
    pub(crate) async fn is(&self, id: &str, state: &str) {
        eventually(&format!("it is {state}"), async || self.look(id).await["state"] == state).await;
    }
}

/// An agent that does what it is told, and whose tunnels the test holds.
pub(crate) struct Theatre {
    pub(crate) agent: SocketAgent,
    key: Secret<String>,
    url: String,
    dialled: HashSet<String>,
}

impl Theatre {
    pub(crate) async fn new(stage: &Stage) -> Self {
        let world = &stage.world;
        let key = new_key_of(&world.services, "vm-1", 10).await;
        let url = world.handle.url().replace("http", "ws");
        let options =
            SocketOptions { url: url.clone(), handle: "vm-1".into(), key: key.clone(), hello: true };
        let agent = SocketAgent::connect(options).await.unwrap();
        eventually("the agent is connected", async || world.handle.hub().connected() > 0).await;
        Self { agent, key, url, dialled: HashSet::new() }
    }

    /// The program's end of the next stream that somebody opens.
    pub(crate) async fn program(&mut self) -> Program {
        let dialled = &self.dialled;
        let new = |message: &ToAgent| match message {
            ToAgent::TunnelOpen(open) => {
                let id = serde_json::to_value(&open.tunnel_id).unwrap().as_str().unwrap().to_owned();
                (!dialled.contains(&id)).then_some(id)
            }
            _ => None,
        };
        let id = self.agent.told("a tunnel is asked for", new).await;
        let path = format!("{}/api/v1/agents/tunnels/{id}?agent_id=vm-1", self.url);
        let mut request = path.into_client_request().unwrap();
        request.headers_mut().insert("X-Agent-API-Key", self.key.expose().parse().unwrap());
        self.dialled.insert(id);
        Program { socket: connect_async(request).await.unwrap().0, typed: Vec::new(), told: Vec::new() }
    }
}

/// The program at the end of a terminal.
pub(crate) struct Program {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What was typed so far.
    pub(crate) typed: Vec<u8>,
    /// What was said beside it.
    pub(crate) told: Vec<Value>,
}

impl Program {
    pub(crate) async fn print(&mut self, text: &str) {
        self.socket.send(Message::binary(text.as_bytes().to_vec())).await.unwrap();
    }

    pub(crate) async fn print_bytes(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// Waits until so many bytes were typed.
    pub(crate) async fn typed(&mut self, count: usize) {
        eventually_some(&format!("{count} bytes are typed"), async || {
            if self.typed.len() >= count {
                return Some(());
            }
            self.next().await;
            None
        })
        .await;
    }

    /// The same, where the stream may have ended.
    pub(crate) async fn try_print(&mut self, text: &str) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::binary(text.as_bytes().to_vec())).await
    }

    pub(crate) async fn say(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// Ends as a program does.
    pub(crate) async fn exit(mut self, code: i32) {
        self.say(json!({"type": "exit", "code": code})).await;
        drop(self.socket.close(None).await);
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Waits until it was typed something.
    pub(crate) async fn hears(&mut self, text: &str) {
        let what = format!("{text:?} is typed");
        eventually_some(&what, async || {
            if self.typed.windows(text.len()).any(|typed| typed == text.as_bytes()) {
                return Some(());
            }
            self.next().await;
            None
        })
        .await;
    }

    /// Waits until it was told the size of the window.
    pub(crate) async fn size(&mut self) -> (u64, u64) {
        let size = |frame: &Value| Some((frame["cols"].as_u64()?, frame["rows"].as_u64()?));
        eventually_some("the window has a size", async || {
            if let Some(size) = self.told.iter().rev().find_map(size) {
                return Some(size);
            }
            self.next().await;
            None
        })
        .await
    }

    /// Takes what has arrived.
    async fn next(&mut self) {
        match self.socket.next().await {
            Some(Ok(Message::Binary(bytes))) => self.typed.extend_from_slice(&bytes),
            Some(Ok(Message::Text(text))) => self.told.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(_)) => {}
            other => panic!("the stream ended: {other:?}"),
        }
    }
}
