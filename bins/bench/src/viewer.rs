//! Somebody at a terminal: asks for a session, waits until it runs, and opens its stream.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::sleep};
use tokio_tungstenite::{
    client_async,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    fleet::Socket,
    http::{Connection, request},
    stage::{REAL, Stage},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for a session and waits until it runs. Returns its id.
pub(crate) async fn session(stage: &Stage, token: &str, new: &Value) -> anyhow::Result<String> {
    let found = until(stage, token, new, |_| true).await?;
    Ok(found["id"].as_str().context("a session without an id")?.to_owned())
}

/// Asks for a session and waits until it runs and `ready` is content with it. Returns what is known of it.
async fn until(
    stage: &Stage,
    token: &str,
    new: &Value,
    ready: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let mut connection = Connection::open(stage.address).await?;
    let answer = connection.send(&request("POST", "/api/v1/sessions", Some(token), &new.to_string())).await?;
    let said = String::from_utf8_lossy(answer.body).into_owned();
    ensure!(answer.status == 202, "a create was answered with {}: {said}", answer.status);
    let made: Value = serde_json::from_str(&said)?;
    let id = made["session"]["id"].as_str().context("a session without an id")?.to_owned();
    let look = request("GET", &format!("/api/v1/sessions/{id}"), Some(token), "");
    let until = Instant::now() + PATIENCE;
    loop {
        let found: Value = serde_json::from_slice(connection.send(&look).await?.body)?;
        match found["state"].as_str() {
            Some("running") if ready(&found) => return Ok(found),
            Some("pending" | "running") => {}
            _ => bail!("session {id} does not start: {found}"),
        }
        ensure!(Instant::now() < until, "session {id} is not ready after {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A program on an agent of `region`.
pub(crate) fn command(region: &str, argv: &[&str]) -> Value {
    json!({"template": "command", "command": argv, "region": region})
}

/// A session that serves from memory, and where its server listens.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) id: String,
    pub(crate) at: SocketAddr,
}

/// Asks for a session that serves what [`crate::served`] does, on the real agent, and waits until it listens.
pub(crate) async fn served(stage: &Stage, token: &str) -> anyhow::Result<Served> {
    let program = stage.own_program()?;
    let new = json!({
        "template": "web", "command": [program, "serve"], "region": REAL,
        // As much as it wants: it is not what is measured.
        "resources": {"cpu": "2000m", "memory": "512Mi"},
    });
    let found = until(stage, token, &new, |found| found["streamingReady"] == true).await?;
    let port = found["streamingPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let at = (Ipv4Addr::LOCALHOST, port.context("a session that serves has no port")?).into();
    Ok(Served { id: found["id"].as_str().context("a session without an id")?.to_owned(), at })
}

/// Lets a browser into a session's web application: the host and the cookie of its requests.
pub(crate) async fn enter(stage: &Stage, token: &str, session: &str) -> anyhow::Result<(String, String)> {
    let mut connection = Connection::open(stage.address).await?;
    let path = format!("/api/v1/sessions/{session}/connect");
    let answer = connection.send(&request("POST", &path, Some(token), r#"{"kind":"http"}"#)).await?;
    ensure!(answer.status == 200, "a ticket was asked for and answered with {}", answer.status);
    let given: Value = serde_json::from_slice(answer.body)?;
    let form = format!("ticket={}", given["ticket"].as_str().context("an answer without a ticket")?);
    let host = format!("{session}.localhost:{}", stage.address.port());
    let entering = format!(
        "POST /.tidegate/enter/{session} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let answer = connection.send(entering.as_bytes()).await?;
    ensure!(answer.status == 303, "a ticket was shown and answered with {}", answer.status);
    let head = String::from_utf8_lossy(answer.head);
    let cookie = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie")
            .then(|| value.split(';').next().unwrap_or_default().to_owned())
    });
    Ok((host, cookie.context("a ticket was good and brought no cookie")?))
}

/// Opens a session's terminal.
pub(crate) async fn attach(stage: &Stage, token: &str, session: &str) -> anyhow::Result<Socket> {
    watch(stage, token, session, "terminal").await
}

/// Opens a stream of a session: `terminal` or `vnc`.
pub(crate) async fn watch(stage: &Stage, token: &str, session: &str, kind: &str) -> anyhow::Result<Socket> {
    let url = format!("ws://{}/api/v1/sessions/{session}/{kind}", stage.address);
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("Authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
    let stream = TcpStream::connect(stage.address).await?;
    stream.set_nodelay(true)?;
    let (socket, _) =
        client_async(request, stream).await.with_context(|| format!("the {kind} was refused"))?;
    Ok(socket)
}

/// Ends a session.
pub(crate) async fn end(stage: &Stage, token: &str, session: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(stage.address).await?;
    connection.send(&request("DELETE", &format!("/api/v1/sessions/{session}"), Some(token), "")).await?;
    Ok(())
}
