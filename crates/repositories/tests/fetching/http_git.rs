//! Git by HTTP from a server on loopback: `git http-backend` behind as little HTTP as it needs.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tidegate_repositories::{Credential, Options, Remote, Source};
use tidegate_test_support::eventually;

use crate::stage::{Stage, names, template};

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn ok(body: Vec<u8>) -> Self {
        Self { status: "200 OK", headers: vec![], body }
    }
}

/// A server on loopback that answers one request a connection.
pub(crate) struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let (answer, counted) = (Arc::new(answer), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, counted) = (Arc::clone(&answer), Arc::clone(&counted));
                thread::spawn(move || {
                    let _ = serve(stream, answer.as_ref(), &counted);
                });
            }
        });
        Self { port, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(
    stream: TcpStream,
    answer: &dyn Fn(&Request) -> Answer,
    counted: &AtomicUsize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) =
        (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let find = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let mut body = Vec::new();
    if find("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = find("content-length").and_then(|it| it.parse().ok()) {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    }
    counted.fetch_add(1, Ordering::SeqCst);
    let answer = answer(&Request { method, path, headers, body });
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n",
        answer.status,
        answer.body.len()
    )?;
    for (name, value) in &answer.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&answer.body)
}

/// What `git http-backend` answers.
fn backend(root: &std::path::Path, request: &Request) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", request.header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&request.body).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    let split = out.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&out[..split]).into_owned();
    let value =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(|it| it.trim().to_owned());
    let kind = value("Content-Type:").unwrap_or_default();
    let status =
        if value("Status:").is_some_and(|it| it.starts_with("404")) { "404 Not Found" } else { "200 OK" };
    Answer { status, headers: vec![("Content-Type", kind)], body: out[split + 4..].to_vec() }
}

fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.options.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    stage.write("a.yaml", template("a"));
    stage.commit();
    stage
}

#[tokio::test]
async fn a_repository_behind_a_password_is_fetched_with_it_alone() {
    let stage = stage();
    let root = stage.root().to_owned();
    let server = Server::start(move |request| {
        // `me:s3cret`.
        if request.header("authorization") != Some("Basic bWU6czNjcmV0") {
            let headers = vec![("WWW-Authenticate", "Basic realm=\"git\"".to_owned())];
            return Answer { status: "401 Unauthorized", headers, body: Vec::new() };
        }
        backend(&root, request)
    });
    let url = server.url("/work/.git");
    let with = |password: &str| {
        let password = password.to_owned().into();
        Source { credential: Credential::Basic { username: "me".into(), password }, ..stage.remote(&url) }
    };
    let mut snapshot = stage.fetch(&with("s3cret")).await.unwrap();
    assert_eq!(names(&snapshot.catalog(&|_| {}).await.unwrap()).0, ["a"]);
    drop(snapshot);
    for source in [with("wr0ng"), stage.remote(&url)] {
        let told = stage.fetch(&source).await.unwrap_err().to_string();
        assert!(told.starts_with("the server refused what it was asked with"), "{told}");
        assert!(!told.contains("wr0ng"), "{told}");
    }
    // A failure kept nothing of the secret on the disk either.
    let grep =
        Command::new("grep").args(["-rl", "s3cret\\|bWU6czNjcmV0"]).arg(stage.cache()).output().unwrap();
    assert!(grep.stdout.is_empty(), "{}", String::from_utf8_lossy(&grep.stdout));
}

#[tokio::test]
async fn git_follows_no_redirect() {
    let stage = stage();
    let target = Server::start(|_| Answer::ok(Vec::new()));
    let onward = target.url("/work/.git/info/refs?service=git-upload-pack");
    let server = Server::start(move |_| Answer {
        status: "302 Found",
        headers: vec![("Location", onward.clone())],
        body: Vec::new(),
    });
    let told = stage.fetch(&stage.remote(&server.url("/x"))).await.unwrap_err().to_string();
    assert!(told.contains("sends on to another address"), "{told}");
    assert_eq!(target.requests(), 0);
}

#[tokio::test]
async fn loopback_is_not_dialled_unless_it_is_allowed() {
    let stage = stage();
    let server = Server::start(|_| Answer::ok(Vec::new()));
    let elsewhere = Options { private_networks: vec!["10.0.0.0/8".parse().unwrap()], ..Options::default() };
    for url in [
        server.url("/x"),
        server.url("/x").replace("127.0.0.1", "localhost"),
        "http://[::ffff:127.0.0.1]/x".into(),
    ] {
        let remote = Remote::git(&url, &elsewhere).unwrap();
        let fetcher = tidegate_repositories::Fetcher::new(elsewhere.clone(), stage.cache());
        let told =
            fetcher.fetch("1", &Source { remote, ..stage.source() }, &|_| {}).await.unwrap_err().to_string();
        assert!(told.contains("is an address of this machine"), "{told}");
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_nothing_runs_on() {
    let mut stage = stage();
    stage.options.fetch_seconds = 1;
    let (hold, release) = std::sync::mpsc::channel::<()>();
    let release = std::sync::Mutex::new(release);
    let server = Server::start(move |_| {
        let _ = release.lock().unwrap().recv();
        Answer::ok(Vec::new())
    });
    let url = server.url("/hangs");
    let told = stage.fetch(&stage.remote(&url)).await.unwrap_err().to_string();
    assert!(told.contains("longer than 1 seconds"), "{told}");
    let gone = || {
        let listed = Command::new("ps").args(["-eo", "args"]).output().unwrap();
        !String::from_utf8_lossy(&listed.stdout).contains(&url)
    };
    eventually("nothing of the fetch runs any more", async || gone()).await;
    drop(hold);
}
