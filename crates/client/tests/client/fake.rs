//! A server that answers from a script, request by request, and can hang up at any byte.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use tidegate_client::{Client, Url};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// What takes over an upgraded connection.
type Takeover = Box<dyn FnOnce(TcpStream, Request) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What becomes of a request.
pub(crate) enum Reply {
    /// An answer: status line, further headers, body.
    Answer(&'static str, &'static [&'static str], String),
    /// The connection is closed without an answer.
    HangUp,
    /// A chunked answer; `whole` says whether its end is sent before the connection closes.
    Chunks { headers: Vec<String>, chunks: Vec<Vec<u8>>, whole: bool },
    /// The connection is handed over.
    Upgrade(Takeover),
}

impl Reply {
    pub(crate) fn ok(body: &impl ToString) -> Self {
        Self::Answer("200 OK", &[], body.to_string())
    }

    pub(crate) fn refusal(status: &'static str, code: &str) -> Self {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"refused","requestId":"r-1"}}}}"#);
        Self::Answer(status, &[], body)
    }
}

/// The server; ends with the test.
pub(crate) struct Fake {
    pub(crate) url: Url,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// Starts a server that answers request after request with what `script` makes of it.
    pub(crate) async fn start(mut script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // One request a connection keeps the script in one place.
                if let Some(request) = read(&mut stream).await {
                    log.lock().unwrap().push(request.clone());
                    let reply = script(&request);
                    write(stream, request, reply).await;
                }
            }
        });
        Self { url, seen, task }
    }

    /// A client of it that loses no time.
    pub(crate) fn client(&self) -> Client {
        use tidegate_client::{MemoryStore, Tokens};
        use tidegate_model::Secret;
        let tokens = Tokens {
            token: Secret::new("first".to_owned()),
            expires_at: "2999-01-01T00:00:00Z".parse().unwrap(),
            refresh_token: Secret::new("again".to_owned()),
        };
        Client::builder(self.url.clone())
            .store(Arc::new(MemoryStore::new(Some(tokens))))
            .backoff(std::time::Duration::from_millis(1))
            .build()
            .unwrap()
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The request lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.line).collect()
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_lowercase(), value.to_owned()))
        .collect();
    let mut request = Request { line, headers, body: String::new() };
    let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}

async fn write(mut stream: TcpStream, request: Request, reply: Reply) {
    let bytes = match reply {
        Reply::HangUp => return,
        Reply::Upgrade(take) => return take(stream, request).await,
        Reply::Answer(status, headers, body) => {
            let headers = headers.iter().flat_map(|header| [header, "\r\n"]).collect::<String>();
            let length = body.len();
            format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
            )
            .into_bytes()
        }
        Reply::Chunks { headers, chunks, whole } => {
            let headers = headers.iter().flat_map(|header| [header.as_str(), "\r\n"]).collect::<String>();
            let mut bytes = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n{headers}\r\n"
            )
            .into_bytes();
            for chunk in chunks {
                bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            if whole {
                bytes.extend(b"0\r\n\r\n");
            }
            bytes
        }
    };
    // A client that went away is a case of its own, told by what it does next.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

/// A session as the server writes one.
pub(crate) fn session(state: &str) -> serde_json::Value {
    serde_json::json!({
        "id": "01970000-0000-7000-8000-000000000001", "orgId": "01970000-0000-7000-8000-000000000002",
        "user": "alice", "userId": "01970000-0000-7000-8000-000000000003", "name": "calm-harbour",
        "template": "shell", "applicationId": null, "agentId": "agent-1", "platform": "vm", "region": null,
        "state": state, "stateReason": null, "stateSince": "2026-01-01T00:00:00Z", "generation": 1,
        "resources": {"cpu": "500m", "memory": "512Mi", "storage": "0"}, "persistentHome": false,
        "image": null, "protocol": "terminal", "idleTimeout": "0", "maxSessionDuration": "8h", "tags": [], "streamingReady": true, "streamingPort": null,
        "platformMetadata": {}, "createdAt": "2026-01-01T00:00:00Z", "startedAt": null, "lastActivityAt": null,
        "hibernatedAt": null, "endedAt": null, "idleAt": null, "endsAt": null, "warning": null, "shared": null,
        "terminalSource": null,
    })
}

/// A login as the server writes one.
pub(crate) fn login(token: &str) -> String {
    serde_json::json!({
        "token": token, "expiresAt": "2999-01-01T00:00:00Z", "refreshToken": "next",
        "user": {
            "id": "01970000-0000-7000-8000-000000000003", "orgId": "01970000-0000-7000-8000-000000000002",
            "username": "alice", "email": null, "fullName": "Alice", "role": "user", "orgRole": "user",
            "provider": "local", "active": true, "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": "2026-01-01T00:00:00Z",
        },
    })
    .to_string()
}
