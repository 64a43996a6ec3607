//! A running server and somebody who speaks to it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tidegate_control_plane::{Config, Handle, Server};
use tidegate_model::{OrgRole, SystemClock, SystemRole};
use tidegate_service::{BrokerOptions, NatsOperator, Options, Services};
use tidegate_test_support::{
    SocketAgent, SocketOptions, TestDb, TestUser, eventually, eventually_some, nats::TestNats, new_key_of,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// A server on a database of its own.
pub(crate) struct World {
    pub(crate) db: TestDb,
    pub(crate) services: Services,
    pub(crate) handle: Handle,
    /// The data folder, where the outbox is.
    pub(crate) data: TempDir,
}

/// A user with a token.
pub(crate) struct Somebody {
    pub(crate) token: String,
    pub(crate) id: String,
    pub(crate) name: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
    pub(crate) body: Value,
    /// Whether the body is there to its end; one that broke off is not.
    pub(crate) whole: bool,
}

impl Answer {
    /// Checks status and code of a refusal and its shape.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, self.body["error"]["code"].as_str()), (status, Some(code)), "{self:?}");
        let id = self.body["error"]["requestId"].as_str().unwrap();
        assert_eq!(self.header("x-request-id"), Some(id), "{self:?}");
        assert!(!self.body["error"]["message"].as_str().unwrap().is_empty());
        self
    }

    /// The names of bad fields.
    pub(crate) fn fields(&self) -> Vec<String> {
        self.body["error"]["fields"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        Some(self.head.lines().find(named)?.split_once(':')?.1.trim())
    }
}

impl World {
    /// Gives a user an e-mail address.
    pub(crate) async fn give_address(&self, id: &str, name: &str) -> String {
        let address = format!("{name}@example.com");
        self.db.execute(&format!("UPDATE users SET email = '{address}' WHERE id = '{id}'")).await;
        address
    }

    /// What stands behind `link` in the mail to an address, once it is in the outbox.
    pub(crate) async fn mailed_link(&self, address: &str, link: &str) -> String {
        let (outbox, to) = (self.data.path().join("outbox"), format!("To: {address}\r\n"));
        let mail = eventually_some("the mail is in the outbox", async || {
            let files = std::fs::read_dir(&outbox).ok()?.filter_map(|file| Some(file.ok()?.path()));
            let mut mails = files.filter(|path| path.extension() == Some("eml".as_ref()));
            mails.find_map(|path| std::fs::read_to_string(path).ok().filter(|mail| mail.contains(&to)))
        })
        .await;
        // As mail programs undo quoted-printable.
        let mail = mail.replace("=\r\n", "").replace("=3D", "=");
        let (_, rest) = mail.split_once(link).unwrap_or_else(|| panic!("{link} in {mail}"));
        rest.split_whitespace().next().unwrap().to_owned()
    }

    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// A server with settings of its own.
    pub(crate) async fn with(toml: &str) -> Self {
        Self::with_options(toml, TestDb::options()).await
    }

    /// The same with settings of the use cases.
    pub(crate) async fn with_options(toml: &str, options: Options) -> Self {
        let db = TestDb::new().await;
        let clock = Arc::new(SystemClock::new());
        let services = db.services_with_clock(options, Arc::clone(&clock) as _);
        Self::start(toml, db, services, clock)
    }

    /// A server whose pipes are carried by the nats-server of the tests.
    pub(crate) async fn with_nats() -> Self {
        let nats = TestNats::shared();
        Self::with_nats_at(nats.url.clone(), (*nats.authority).clone()).await
    }

    /// A server whose pipes are carried by a nats-server that trusts this operator.
    pub(crate) async fn with_nats_at(url: String, operator: NatsOperator) -> Self {
        let db = TestDb::new().await;
        let clock = Arc::new(SystemClock::new());
        let services = db.services_with_clock(TestDb::options(), Arc::clone(&clock) as _);
        services.broker.adopt(operator).await.unwrap();
        services.broker.open(BrokerOptions::new([url])).await.unwrap();
        Self::start("", db, services, clock)
    }

    /// A server whose decisions follow a clock that stands still until the test moves it.
    pub(crate) async fn by_hand(toml: &str) -> Self {
        let db = TestDb::new().await;
        let services = db.services().clone();
        Self::start(toml, db, services, Arc::new(SystemClock::new()))
    }

    fn start(toml: &str, db: TestDb, services: Services, clock: Arc<SystemClock>) -> Self {
        let data = TempDir::new().unwrap();
        let mut config = Config::from_parts(toml, &[]).unwrap();
        config.data_dir = Some(data.path().to_owned());
        config.listen.set_port(0);
        config.workers = Some(1);
        let handle = Server::start(&config, services.clone(), clock).unwrap();
        Self { db, services, handle, data }
    }

    /// The bearer token of a user.
    pub(crate) async fn token(&self, user: &TestUser) -> String {
        self.services.logins.login(user.login(), None).await.unwrap().token
    }

    /// An organization and the token of a member of it.
    pub(crate) async fn member(&self, org: &str, role: OrgRole) -> String {
        drop(self.services.operators.create_organization(&tidegate_service::Operator::console(), org).await);
        self.token(&self.db.user_in(org, role).await).await
    }

    /// Somebody in an organization, with a name to be called by.
    pub(crate) async fn somebody(&self, org: &str, role: OrgRole) -> Somebody {
        drop(self.services.operators.create_organization(&tidegate_service::Operator::console(), org).await);
        let user = self.db.user_in(org, role).await;
        Somebody { token: self.token(&user).await, id: user.id.to_string(), name: user.username }
    }

    /// Somebody who owns an organization of this name.
    pub(crate) async fn owner(&self, org: &str) -> Somebody {
        let owner = self.somebody("lobby", OrgRole::User).await;
        let body = Some(serde_json::json!({"name": org, "displayName": "Of somebody"}));
        let made = self.call("POST", "/api/v1/organizations", &owner.token, body).await;
        assert_eq!(made.status, 201, "{made:?}");
        owner
    }

    /// The token of an admin of the platform.
    pub(crate) async fn admin(&self) -> String {
        drop(
            self.services.operators.create_organization(&tidegate_service::Operator::console(), "ops").await,
        );
        self.token(&self.db.user_with("ops", OrgRole::User, SystemRole::Admin).await).await
    }

    /// The token of an operator.
    pub(crate) async fn operator(&self) -> String {
        drop(
            self.services.operators.create_organization(&tidegate_service::Operator::console(), "ops").await,
        );
        self.token(&self.db.user_with("ops", OrgRole::User, SystemRole::Operator).await).await
    }

    /// An approved agent that is connected and does what it is told.
    pub(crate) async fn agent(&self, handle: &str) -> SocketAgent {
        let key = new_key_of(&self.services, handle, 10).await;
        let url = self.handle.url().replace("http", "ws");
        let options = SocketOptions { url, handle: handle.to_owned(), key, hello: true };
        let agent = SocketAgent::connect(options).await.unwrap();
        eventually("the agent is connected", async || self.handle.hub().connected() > 0).await;
        agent
    }

    /// One request.
    pub(crate) async fn call(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        let credential =
            if token.is_empty() { vec![] } else { vec![("Authorization", format!("Bearer {token}"))] };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.raw(method, path, &credential, body.as_bytes()).await
    }

    /// One request with headers and a body of any kind.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Answer {
        ask(self.handle.address(), method, path, headers, body).await
    }
}

/// How fast this machine is at the moment: the longest that the server took to answer a request that asks the database, again
/// and again since it was started. What is promised in seconds can be held against it.
pub(crate) struct Pace {
    slowest: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Pace {
    pub(crate) fn of(world: &World) -> Self {
        let slowest = Arc::new(AtomicU64::new(0));
        let (kept, address) = (Arc::clone(&slowest), world.handle.address());
        let task = tokio::spawn(async move {
            loop {
                let since = Instant::now();
                ask(address, "GET", "/readyz", &[], b"").await;
                // An answer, and this task's turn after it.
                let took = u64::try_from(since.elapsed().as_millis()).unwrap();
                kept.fetch_max(took, Ordering::Relaxed);
                sleep(Duration::from_millis(20)).await;
            }
        });
        Self { slowest, task }
    }

    /// A second, and twice what this machine takes for a request: one that ends something, and the look that finds it.
    pub(crate) fn second(&self) -> Duration {
        Duration::from_secs(1) + 2 * Duration::from_millis(self.slowest.load(Ordering::Relaxed))
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request to a server.
pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head.extend(["Host: ", &address.to_string(), "\r\n"]);
    }
    for (name, value) in headers {
        head.extend([*name, ": ", value, "\r\n"]);
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    // A server that has refused already may have stopped reading.
    drop(stream.write_all(body).await);
    parse(&whole(&mut stream).await)
}

/// Reads one answer to the end of its body. One that has neither length nor pieces has no body, and events have no end.
async fn whole(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let answer = parse(&bytes);
        let is_events =
            answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if answer.status != 0 && (answer.whole || is_events) {
            return bytes;
        }
        // A server that has refused already may hang up.
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return bytes,
            Ok(_) => {}
        }
    }
}

/// What came of an answer so far; without a status where that is less than its head.
fn parse(bytes: &[u8]) -> Answer {
    let mut answer =
        Answer { status: 0, head: String::new(), text: String::new(), body: Value::Null, whole: false };
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return answer };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    answer.head = String::from_utf8_lossy(head).into_owned();
    answer.status = answer.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = if answer.header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        let (body, whole) = joined(body);
        answer.whole = whole;
        body
    } else {
        let length: usize = answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        answer.whole = body.len() >= length;
        body.to_vec()
    };
    answer.text = String::from_utf8_lossy(&body).into_owned();
    answer.body = serde_json::from_str(&answer.text).unwrap_or_default();
    answer
}

/// A body that came in pieces, and whether its end did.
fn joined(mut pieces: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = pieces.windows(2).position(|two| two == b"\r\n") else { return (body, false) };
        let length =
            std::str::from_utf8(&pieces[..line]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.unwrap_or_else(|| panic!("no length of a piece: {pieces:?}"));
        let piece = &pieces[line + 2..];
        body.extend_from_slice(&piece[..length.min(piece.len())]);
        match piece.get(length..length + 2) {
            Some(_) if length == 0 => return (body, true),
            Some(_) => pieces = &piece[length + 2..],
            None => return (body, false),
        }
    }
}

/// The headers that ask for a WebSocket.
pub(crate) fn upgrade() -> Vec<(&'static str, String)> {
    [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}
