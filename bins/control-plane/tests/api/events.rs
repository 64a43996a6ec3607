//! The stream of events over HTTP: resumed, scoped, bounded, and ended with the login.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tidegate_client::{Client, EventQuery, Events};
use tidegate_control_plane::{Config, Handle, Server};
use tidegate_model::{Change, Event, EventId, EventKind, OrgRole, Secret, SystemClock};
use tidegate_test_support::{DEADLINE, TestDb, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::support::World;

/// What is promised, and as much again for a machine that is busy with other tests.
const CUT: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn client(handle: &Handle, token: &str) -> Client {
    let builder = Client::builder(handle.url().parse().unwrap()).token(Secret::new(token.to_owned()));
    builder.backoff(Duration::from_millis(20)).build().unwrap()
}

async fn listen(world: &World, token: &str, after: Option<EventId>) -> Events {
    client(&world.handle, token).events(EventQuery { after, ..EventQuery::default() }).await.unwrap()
}

/// The next `count` events.
async fn next(events: &mut Events, count: usize) -> Vec<Event> {
    let mut heard = Vec::new();
    let reading = async {
        while heard.len() < count {
            heard.push(events.next().await.unwrap());
        }
    };
    let in_time = timeout(DEADLINE, reading).await.is_ok();
    assert!(in_time, "{} of {count} events: {heard:?}", heard.len());
    heard
}

async fn start(world: &World, token: &str) -> String {
    let made = world.call("POST", "/api/v1/sessions", token, Some(json!({"template": "shell"}))).await;
    assert_eq!(made.status, 202, "{made:?}");
    made.body["session"]["id"].as_str().unwrap().to_owned()
}

async fn runs(world: &World, token: &str, id: &str) {
    let path = format!("/api/v1/sessions/{id}");
    let state = async || world.call("GET", &path, token, None).await.body["state"] == "running";
    eventually("it runs", state).await;
}

fn of_session<'a>(events: &'a [Event], id: &str) -> Vec<&'a Event> {
    let about = |event: &&Event| event.change.session().is_some_and(|session| session.to_string() == id);
    events.iter().filter(about).collect()
}

/// Dials the stream as a WebSocket.
async fn dial(world: &World, query: &str, headers: &[(&'static str, String)]) -> Result<Socket, u16> {
    let url = format!("{}/api/v1/events{query}", world.handle.url().replace("http", "ws"));
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// The next thing a socket says, its close code at the end.
async fn said(socket: &mut Socket) -> Result<Value, u16> {
    loop {
        match timeout(DEADLINE, socket.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(Some(close)))) => return Err(close.code.into()),
            Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(1006),
            Some(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn a_session_is_told_as_it_starts_and_to_nobody_who_may_not_see_it() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.member("acme", OrgRole::User).await;
    let manager = world.member("acme", OrgRole::Maintainer).await;
    let colleague = world.member("acme", OrgRole::User).await;
    let viewer = world.member("acme", OrgRole::Viewer).await;
    let stranger = world.member("rival", OrgRole::Admin).await;
    let mut told = Vec::new();
    for token in [&owner, &manager] {
        told.push(listen(&world, token, None).await);
    }
    let mut silent = Vec::new();
    for token in [&colleague, &viewer, &stranger] {
        silent.push(listen(&world, token, None).await);
    }
    let id = start(&world, &owner).await;
    for events in &mut told {
        let heard = next(events, 4).await;
        let kinds: Vec<&str> = of_session(&heard, &id).iter().map(|event| event.change.as_str()).collect();
        assert_eq!(kinds, ["session", "command", "command", "session"], "{heard:?}");
    }
    // They hear of their own, which came later, and of nothing before it.
    let later = start(&world, &stranger).await;
    let heard = next(&mut silent[2], 2).await;
    assert_eq!(of_session(&heard, &later).len(), 2, "{heard:?}");
    let own = start(&world, &colleague).await;
    let heard = next(&mut silent[0], 2).await;
    assert_eq!(of_session(&heard, &own).len(), 2, "{heard:?}");
    let nothing = timeout(Duration::from_millis(300), silent[1].next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    // Nor do they when they ask for what was.
    let mut all = listen(&world, &viewer, Some(EventId::START)).await;
    let nothing = timeout(Duration::from_millis(300), all.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let path = format!("/api/v1/events?session={id}");
    for token in [&colleague, &viewer, &stranger] {
        world.call("GET", &path, token, None).await.refused(404, "E_NOT_FOUND");
    }
    assert_eq!(world.call("GET", &path, &manager, None).await.status, 200);
}

#[tokio::test]
async fn agents_are_told_to_operators_alone() {
    let world = World::new().await;
    let (operator, admin) = (world.operator().await, world.member("acme", OrgRole::Admin).await);
    let query = EventQuery { kinds: vec![EventKind::Agent], after: Some(EventId::START), session: None };
    let mut told = client(&world.handle, &operator).events(query.clone()).await.unwrap();
    let mut silent = client(&world.handle, &admin).events(query).await.unwrap();
    let agent = world.agent("vm-1").await;
    let states = async |events: &mut Events, count| {
        let heard = next(events, count).await;
        let state = |event: Event| match event.change {
            Change::Agent(change) => format!("{} {}", change.approval_status, change.status),
            other => panic!("{other:?}"),
        };
        heard.into_iter().map(state).collect::<Vec<_>>()
    };
    assert_eq!(
        states(&mut told, 3).await,
        ["pending offline", "approved offline", "approved online"],
        "registered, approved, connected"
    );
    drop(agent);
    assert_eq!(states(&mut told, 1).await, ["approved offline"]);
    let nothing = timeout(Duration::from_millis(300), silent.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

/// A server on a database that outlives it.
fn serve(db: &TestDb, port: u16, folder: &std::path::Path) -> Handle {
    let clock = Arc::new(SystemClock::new());
    let mut config = Config::from_parts("", &[]).unwrap();
    config.data_dir = Some(folder.to_owned());
    config.listen.set_port(port);
    config.workers = Some(1);
    let services = db.services_at(Arc::clone(&clock) as _);
    Server::start(&config, services, clock).unwrap()
}

/// Two changes of every session, and a command that fails.
async fn go_on(db: &TestDb) {
    for state in ["hibernated", "running"] {
        db.execute(&format!("UPDATE sessions SET state = '{state}', state_since = now()")).await;
    }
    db.execute("UPDATE commands SET status = 'sent', error_message = NULL, completed_at = NULL, deadline = 'infinity'").await;
    db.execute("UPDATE commands SET status = 'failed', error_message = 'it did', completed_at = now()").await;
}

#[tokio::test]
async fn restarts_of_the_server_lose_no_event_and_repeat_none() {
    let (db, data) = (TestDb::new().await, tempfile::TempDir::new().unwrap());
    let org = db.org_with_admin("acme").await;
    let _agent = db.online_agent("vm-1", 10).await;
    db.pending_session(&org.admin).await;
    go_on(&db).await;
    let user = db.user_in("acme", OrgRole::Admin).await;
    let services = db.services_at(Arc::new(SystemClock::new()));
    let token = services.logins.login(user.login(), None).await.unwrap().token;
    let mut running = serve(&db, 0, data.path());
    let port = running.address().port();
    let mut events = client(&running, &token).events(EventQuery::default()).await.unwrap();
    let begin = events.place().unwrap();
    let listening = tokio::spawn(async move { next(&mut events, 18).await });
    for _ in 0..3 {
        go_on(&db).await;
        running.stop().await.unwrap();
        // While nobody serves, things go on.
        go_on(&db).await;
        running = serve(&db, port, data.path());
    }
    let heard: Vec<EventId> = listening.await.unwrap().iter().map(|event| event.id).collect();
    let sql = "SELECT xact, seq FROM session_events UNION ALL SELECT xact, seq FROM events WHERE kind = 'command' ORDER BY 1, 2";
    let rows = db.superuser().await.query(sql, &[]).await.unwrap();
    let written = rows.iter().map(|row| EventId::new(row.get(0), row.get(1)));
    let written: Vec<EventId> = written.filter(|id| *id > begin).collect();
    assert_eq!(heard, written, "every event once and in order");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_browser_comes_by_ticket_once_and_from_its_own_page() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.member("acme", OrgRole::User).await;
    let made = client(&world.handle, &owner).event_ticket().await.unwrap();
    assert_eq!(made.url, format!("{}/api/v1/events", world.handle.url().replace("http", "ws")));
    let with = ("Sec-WebSocket-Protocol", format!("tidegate.v1, ticket.{}", made.ticket.expose()));
    let elsewhere = [with.clone(), ("Origin", "https://evil.example".to_owned())];
    assert_eq!(dial(&world, "", &elsewhere).await.unwrap_err(), 403, "and it is not used up");
    let own = [with.clone(), ("Origin", world.handle.url())];
    let mut socket = dial(&world, "", &own).await.unwrap();
    let position = said(&mut socket).await.unwrap();
    assert_eq!(position["kind"], "position");
    assert_eq!(dial(&world, "", &own).await.unwrap_err(), 401, "a ticket is good once");
    let id = start(&world, &owner).await;
    let mut heard = Vec::new();
    while heard.len() < 4 {
        let event = said(&mut socket).await.unwrap();
        if event["kind"] != "position" {
            heard.push(event);
        }
    }
    assert_eq!((&heard[0]["kind"], &heard[0]["sessionId"]), (&json!("session"), &json!(id)), "{heard:?}");
    // A WebSocket goes on where the last one ended.
    let after = format!("?after={}", heard[1]["id"].as_str().unwrap());
    let mut again = dial(&world, &after, &[("Authorization", format!("Bearer {owner}"))]).await.unwrap();
    let mut rest = Vec::new();
    while rest.len() < 2 {
        let event = said(&mut again).await.unwrap();
        if event["kind"] != "position" {
            rest.push(event);
        }
    }
    assert_eq!(rest, heard[2..]);
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_what_is_not_there_comes_first() {
    let world = World::new().await;
    let owner = world.member("acme", OrgRole::User).await;
    let get = async |path: &str, headers: &[(&str, String)]| {
        let mut all = vec![("Authorization", format!("Bearer {owner}"))];
        all.extend(headers.iter().cloned());
        world.raw("GET", &format!("/api/v1/events{path}"), &all, b"").await
    };
    for wrong in ["7421", "a-b", "-1-2", "1-2-3", "9999999999999999999-1", "\u{fffd}"] {
        let answer = get("", &[("Last-Event-ID", wrong.to_owned())]).await;
        assert_eq!(answer.refused(400, "E_INVALID").fields(), ["Last-Event-ID"], "{wrong}");
    }
    let answer =
        get("?after=x&kind=session,nothing&session=y&more=1", &[("Last-Event-ID", "z".into())]).await;
    let named = answer.refused(400, "E_INVALID").fields();
    assert_eq!(named, ["Last-Event-ID", "after", "kind", "more", "session"]);
    let nobody = "01970000-0000-7000-8000-000000000001";
    get(&format!("?session={nobody}"), &[]).await.refused(404, "E_NOT_FOUND");
    get("", &[("X-Tidegate-Org", "nowhere".into()), ("Last-Event-ID", "z".into())])
        .await
        .refused(404, "E_NOT_FOUND");
    get("", &[("Accept", "application/json".into())]).await.refused(406, "E_NOT_ACCEPTABLE");
    world.raw("GET", "/api/v1/events", &[], b"").await.refused(401, "E_UNAUTHENTICATED");
    for good in ["text/event-stream", "text/html, */*;q=0.1", "Text/Event-Stream; charset=utf-8"] {
        let answer =
            get("?kind=session,command", &[("Accept", good.into()), ("Last-Event-ID", String::new())]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn an_old_id_is_told_that_something_may_be_missing() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.member("acme", OrgRole::User).await;
    let id = start(&world, &owner).await;
    runs(&world, &owner, &id).await;
    let all = next(&mut listen(&world, &owner, Some(EventId::START)).await, 4).await;
    world.db.execute(&format!("DELETE FROM events WHERE seq = {}", all[1].id.seq())).await;
    let heard = next(&mut listen(&world, &owner, Some(all[0].id)).await, 3).await;
    assert!(matches!(heard[0].change, Change::Reset(_)), "{heard:?}");
    assert_eq!(heard[1..], all[2..]);
}

/// The end of a body, and how long it took.
async fn ends(stream: &mut TcpStream) -> Duration {
    let since = Instant::now();
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    since.elapsed()
}

/// Opens the stream on a bare connection, and waits for the first thing it says.
async fn bare(world: &World, token: &str, query: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.handle.address()).await.unwrap();
    let head = format!(
        "GET /api/v1/events{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n",
        world.handle.address()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\nid: ") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
    }
    stream
}

#[tokio::test]
async fn a_login_that_ends_ends_its_streams_in_time() {
    let world = World::new().await;
    let user = world.somebody("acme", OrgRole::User).await;
    let other = world.member("acme", OrgRole::User).await;
    let mut lines = bare(&world, &user.token, "").await;
    let bearer = [("Authorization", format!("Bearer {}", user.token))];
    let mut frames = dial(&world, "", &bearer).await.unwrap();
    said(&mut frames).await.unwrap();
    let mut stays = dial(&world, "", &[("Authorization", format!("Bearer {other}"))]).await.unwrap();
    said(&mut stays).await.unwrap();
    // Services of their own tell this server nothing: as `tidegate-admin` does it beside it.
    world
        .db
        .execute(&format!("UPDATE login_sessions SET revoked_at = now() WHERE user_id = '{}'", user.id))
        .await;
    let since = Instant::now();
    assert_eq!(said(&mut frames).await, Err(1_008));
    assert!(since.elapsed() < CUT && ends(&mut lines).await < CUT, "{:?}", since.elapsed());
    assert_eq!(dial(&world, "", &bearer).await.unwrap_err(), 401);
    let nothing = timeout(Duration::from_millis(200), said(&mut stays)).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn a_manager_who_becomes_a_user_is_cut() {
    let world = World::new().await;
    let manager = world.somebody("acme", OrgRole::Maintainer).await;
    let bearer = [("Authorization", format!("Bearer {}", manager.token))];
    let mut frames = dial(&world, "", &bearer).await.unwrap();
    said(&mut frames).await.unwrap();
    world.db.execute("UPDATE memberships SET role = 'user'").await;
    let since = Instant::now();
    assert_eq!(said(&mut frames).await, Err(1_008));
    assert!(since.elapsed() < CUT, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_server_that_stops_sends_its_listeners_away_and_waits_for_none() {
    let world = World::new().await;
    let user = world.member("acme", OrgRole::User).await;
    let mut lines = bare(&world, &user, "").await;
    let mut frames = dial(&world, "", &[("Authorization", format!("Bearer {user}"))]).await.unwrap();
    said(&mut frames).await.unwrap();
    let World { handle, db: _db, services: _services, data: _data } = world;
    let stopping = tokio::spawn(handle.stop());
    assert_eq!(said(&mut frames).await, Err(1_012));
    ends(&mut lines).await;
    timeout(Duration::from_secs(20), stopping).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_listener_that_leaves_is_forgotten() {
    let world = World::new().await;
    let user = world.member("acme", OrgRole::User).await;
    let lines = bare(&world, &user, "").await;
    let frames = dial(&world, "", &[("Authorization", format!("Bearer {user}"))]).await.unwrap();
    assert_eq!(world.services.events.listeners(), 2);
    drop((lines, frames));
    eventually("both are gone", async || world.services.events.listeners() == 0).await;
}

/// The process's memory in KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn readers_that_do_not_read_cost_no_memory_and_catch_up() {
    const LINES: usize = 40_000;
    const READERS: usize = 8;
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.member("acme", OrgRole::User).await;
    let id = start(&world, &owner).await;
    runs(&world, &owner, &id).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(bare(&world, &owner, &format!("?session={id}")).await);
    }
    let mut quick = listen(&world, &owner, None).await;
    let before = memory();
    world
        .db
        .execute(&format!(
            "INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
             SELECT gen_random_uuid(), s.org_id, s.id, s.agent_id, 'running', 'running', repeat('line ', 40), 1, now()
             FROM sessions s, generate_series(1, {LINES}) n"
        ))
        .await;
    for _ in 0..LINES {
        timeout(DEADLINE, quick.next()).await.unwrap().unwrap();
    }
    // Some 450 bytes an event: what waits for these readers would be 140 MiB.
    let grown = memory().saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB more");
    let mut slow = readers.pop().unwrap();
    let (mut text, mut ids) = (Vec::with_capacity(1 << 20), Vec::new());
    let catching_up = async {
        while ids.len() < LINES {
            assert!(slow.read_buf(&mut text).await.unwrap() > 0, "it ended after {}", ids.len());
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let whole: Vec<u8> = text.drain(..end).collect();
            for line in String::from_utf8_lossy(&whole).lines() {
                let data = line.strip_prefix("data: ").map(serde_json::from_str::<Event>);
                ids.extend(data.map(|event| event.unwrap().id));
            }
        }
    };
    let in_time = timeout(DEADLINE, catching_up).await.is_ok();
    assert!(in_time, "{} events", ids.len());
    assert_eq!(ids.len(), LINES);
    assert!(ids.is_sorted_by(|one, next| one < next), "in order, and none twice");
}
