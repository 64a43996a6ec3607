//! Somebody at a terminal: asks for a session, waits until it runs, and opens its stream.

use std::time::{Duration, Instant};

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
    stage::Stage,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for a session and waits until it runs. Returns its id.
pub(crate) async fn session(stage: &Stage, token: &str, new: &Value) -> anyhow::Result<String> {
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
            Some("running") => return Ok(id),
            Some("pending") => {}
            _ => bail!("session {id} does not start: {found}"),
        }
        ensure!(Instant::now() < until, "session {id} does not run after {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A program on an agent of `region`.
pub(crate) fn command(region: &str, argv: &[&str]) -> Value {
    json!({"template": "command", "command": argv, "region": region})
}

/// Opens a session's terminal.
pub(crate) async fn attach(stage: &Stage, token: &str, session: &str) -> anyhow::Result<Socket> {
    let url = format!("ws://{}/api/v1/sessions/{session}/terminal", stage.address);
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("Authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
    let stream = TcpStream::connect(stage.address).await?;
    stream.set_nodelay(true)?;
    let (socket, _) = client_async(request, stream).await.context("the terminal was refused")?;
    Ok(socket)
}

/// Ends a session.
pub(crate) async fn end(stage: &Stage, token: &str, session: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(stage.address).await?;
    connection.send(&request("DELETE", &format!("/api/v1/sessions/{session}"), Some(token), "")).await?;
    Ok(())
}
