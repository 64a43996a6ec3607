//! As much of HTTP as a provider needs, one request a connection.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{State, answer::answer};

/// A request.
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) authorization: Option<String>,
    pub(super) body: String,
}

/// What is said to it.
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) body: String,
}

pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        // Ends with its connection.
        tokio::spawn(async move { drop(one(stream, &state).await) });
    }
}

async fn one(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let Some(asked) = read(&mut stream).await? else { return Ok(()) };
    let said = answer(state, &asked);
    let location = said.location.map(|place| format!("location: {place}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} .\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{location}\r\n",
        said.status,
        said.body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(said.body.as_bytes()).await?;
    stream.shutdown().await
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Asked>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let header = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(':'));
                let mut named = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
                named.next().map(|(_, value)| value.trim().to_owned())
            };
            let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap_or(0));
            if body.len() >= length {
                let mut words = head.split(' ');
                let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                return Ok(Some(Asked {
                    method: method.to_owned(),
                    path: path.to_owned(),
                    query: query.to_owned(),
                    authorization: header("authorization"),
                    body: body.to_owned(),
                }));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

/// One request to a server on this machine, and its whole answer.
pub(super) async fn get(url: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
