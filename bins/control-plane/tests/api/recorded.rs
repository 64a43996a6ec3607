//! Terminals that are recorded: with a real agent, a real nats-server and whoever may, and may not.

use std::{fs, os::unix::fs::PermissionsExt};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_hub::TunnelEnding;
use tidegate_model::{AgentId, OrgRole, Payload, SessionId};
use tidegate_service::{Error, MessagesRead, MessagesWanted, Operator, PipeLimitsChange, ReadMessage};
use tidegate_test_support::{eventually, eventually_some};

use crate::{
    launched::Agent,
    support::{Answer, Somebody, World},
};

/// Prints bytes of every kind as they are, long and short ones, and ends with a code of its own.
const MANY: &str = "stty raw; printf 'one\\377\\000two'; seq 1 60000; sleep 0.2; printf 'end\\303'; exit 3";

/// What that prints.
fn many() -> Vec<u8> {
    let mut all = b"one\xff\0two".to_vec();
    for number in 1..=60_000 {
        all.extend_from_slice(format!("{number}\n").as_bytes());
    }
    all.extend_from_slice(b"end\xc3");
    all
}

/// A program that prints for as long as it runs, and notes how far it is.
pub(crate) struct Endless(TempDir);

impl Endless {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        // Sessions are users of their own.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self(folder)
    }

    pub(crate) fn script(&self) -> String {
        let noted = self.0.path().join("noted");
        format!("i=0; while :; do i=$((i+1)); echo line $i; echo $i > {}; sleep 0.02; done", noted.display())
    }

    /// How many lines it has printed, or is about to.
    pub(crate) fn lines(&self) -> usize {
        let noted = fs::read_to_string(self.0.path().join("noted")).unwrap_or_default();
        noted.trim().parse().unwrap_or(0)
    }
}

/// The lines that these bytes are the beginning of.
pub(crate) fn lines_of(recorded: &[u8]) -> usize {
    let text = std::str::from_utf8(recorded).unwrap();
    let lines = text.matches('\n').count();
    let whole: Vec<String> = (1..=lines + 1).map(|line| format!("line {line}\r\n")).collect();
    let whole = whole.concat();
    assert!(whole.starts_with(text), "{text:?}");
    lines
}

pub(crate) struct Stand {
    pub(crate) world: World,
    pub(crate) owner: Somebody,
    _agent: Agent,
}

/// All messages of a pipe. A broker that is away for the moment is waited for.
pub(crate) async fn messages(world: &World, reader: &Somebody, handle: &str, pipe: &str) -> Vec<ReadMessage> {
    let caller = world.services.logins.authenticate(&reader.token, None).await.unwrap();
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = eventually_some("the broker answers", async || {
            let wanted = MessagesWanted { read: MessagesRead::After(after), limit: Some(100), wait: None };
            match world.services.messages.read(caller.org().unwrap(), handle, pipe, wanted).await {
                Err(Error::BrokerUnavailable(_) | Error::NotReady(_)) => None,
                outcome => Some(outcome.unwrap()),
            }
        })
        .await;
        all.extend(page.messages);
        match page.last {
            Some(last) => after = last,
            None => return all,
        }
    }
}

/// What is recorded, in order.
async fn recorded(world: &World, reader: &Somebody, handle: &str) -> Vec<u8> {
    let all = messages(world, reader, handle, "stdout").await;
    let bytes = |message: &ReadMessage| match &message.envelope.payload {
        Payload::Bytes(bytes) => bytes.clone(),
        Payload::Text(_) => Vec::new(),
    };
    all.iter().flat_map(bytes).collect()
}

/// What is said between it, to everybody who may watch.
async fn told(world: &World, reader: &Somebody, handle: &str) -> Vec<Value> {
    let all = messages(world, reader, handle, "stdout").await;
    let text = |message: &ReadMessage| match &message.envelope.payload {
        Payload::Bytes(_) => None,
        Payload::Text(text) => Some(serde_json::from_str(text).unwrap()),
    };
    all.iter().filter_map(text).collect()
}

/// What is said beside it.
async fn said(world: &World, reader: &Somebody, handle: &str) -> Vec<Value> {
    let all = messages(world, reader, handle, "stdctrl").await;
    all.iter().map(|message| serde_json::from_slice(message.envelope.payload.as_bytes()).unwrap()).collect()
}

impl Stand {
    async fn new() -> Self {
        Self::on(World::with_nats().await).await
    }

    pub(crate) async fn on(world: World) -> Self {
        let agent = Agent::start(&world).await;
        let owner = world.somebody("acme", OrgRole::User).await;
        Self { world, owner, _agent: agent }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, who: &Somebody, body: Option<Value>) -> Answer {
        self.world.call(method, path, &who.token, body).await
    }

    /// A session of the owner's that runs this.
    pub(crate) async fn session(&self, script: &str) -> String {
        let body = json!({"template": "command", "command": ["sh", "-c", script]});
        let made = self.call("POST", "/api/v1/sessions", &self.owner, Some(body)).await;
        assert_eq!(made.status, 202, "{made:?}");
        made.body["session"]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn record(&self, who: &Somebody, session: &str, handle: &str) -> Answer {
        let path = format!("/api/v1/sessions/{session}/terminal-source");
        self.call("PUT", &path, who, Some(json!({"handle": handle}))).await
    }

    pub(crate) async fn recorded(&self, handle: &str) -> Vec<u8> {
        recorded(&self.world, &self.owner, handle).await
    }

    pub(crate) async fn said(&self, handle: &str) -> Vec<Value> {
        said(&self.world, &self.owner, handle).await
    }

    pub(crate) async fn ends(&self, handle: &str) -> Vec<Value> {
        self.said(handle).await.into_iter().filter(|said| said.get("end").is_some()).collect()
    }

    async fn state(&self, session: &str) -> Value {
        self.call("GET", &format!("/api/v1/sessions/{session}"), &self.owner, None).await.body
    }

    /// Lets the recorder lose its tunnel, as with a control plane or a network that is gone.
    async fn cut(&self, session: &str) {
        let id: SessionId = session.parse().unwrap();
        eventually("it is being recorded", async || {
            let tunnels = self.world.handle.hub().tunnels(id);
            for tunnel in &tunnels {
                tunnel.cut(TunnelEnding::Shutdown);
            }
            !tunnels.is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_terminal_prints_is_in_its_source_byte_for_byte_and_its_end_is_marked() {
    let stand = Stand::new().await;
    let session = stand.session(MANY).await;
    let answer = stand.record(&stand.owner, &session, "build").await;
    assert_eq!(
        (answer.status, &answer.body["terminalSource"]["handle"]),
        (200, &json!("build")),
        "{answer:?}"
    );
    eventually("the end is marked", async || !stand.ends("build").await.is_empty()).await;

    let recorded = stand.recorded("build").await;
    assert_eq!(recorded.len(), many().len());
    assert!(recorded == many(), "other bytes are recorded than were printed");
    let said = stand.said("build").await;
    assert_eq!(said[0], json!({"begin": {"sessionId": session, "generation": 1}}), "{said:?}");
    assert_eq!(said.last().unwrap(), &json!({"end": {"exitCode": 3}}), "{said:?}");
    let told = told(&stand.world, &stand.owner, "build").await;
    assert_eq!(told, [said[0].clone(), json!({"end": {"exitCode": 3}})]);
    for message in messages(&stand.world, &stand.owner, "build", "stdout").await {
        assert_eq!(message.envelope.sender.to_string(), stand.owner.id);
    }
    // The session has ended, and says where its recording is; the source is there as any other.
    assert_eq!(stand.state(&session).await["terminalSource"]["handle"], "build");
    let source = stand.call("GET", "/api/v1/sources/build", &stand.owner, None).await;
    assert_eq!((source.status, &source.body["kind"]), (200, &json!("pty")), "{source:?}");

    // Another process that finds an old note of how far it was records nothing twice, and marks no second end.
    let forget = "UPDATE terminal_sources SET finished = 0, generation = 0, recorded = 0, sequence = 0, lease_until = 'epoch'";
    stand.world.db.execute(forget).await;
    eventually("it was looked at again", async || {
        stand.world.db.look::<i64>("SELECT finished FROM terminal_sources").await == 1
    })
    .await;
    assert!(stand.recorded("build").await == many(), "something is recorded twice");
    assert_eq!(stand.ends("build").await.len(), 1);

    // And the source takes the next session, behind this one.
    eventually("the session has ended", async || stand.state(&session).await["state"] == "terminated").await;
    let next = stand.session("printf next").await;
    assert_eq!(stand.record(&stand.owner, &next, "build").await.status, 200);
    eventually("its end is marked, too", async || stand.ends("build").await.len() == 2).await;
    assert!(stand.recorded("build").await.ends_with(b"end\xc3next"));
    assert_eq!(stand.state(&session).await["terminalSource"], Value::Null);
}

#[tokio::test]
async fn a_recording_that_breaks_off_goes_on_without_a_gap_and_without_doubling() {
    let stand = Stand::new().await;
    let endless = Endless::new();
    let session = stand.session(&endless.script()).await;
    assert_eq!(stand.record(&stand.owner, &session, "build").await.status, 200);
    let lines = async || lines_of(&stand.recorded("build").await);
    for _ in 0..2 {
        let before = lines().await;
        eventually("something is recorded", async || lines().await > before + 10).await;
        stand.cut(&session).await;
    }
    let before = lines().await;
    eventually("it goes on", async || lines().await > before + 10).await;
    let ended =
        stand.call("POST", &format!("/api/v1/sessions/{session}/terminate"), &stand.owner, None).await;
    assert_eq!(ended.status, 202, "{ended:?}");
    eventually("the end is marked", async || !stand.ends("build").await.is_empty()).await;
    // All that it noted, but for a line that it was ended before.
    assert!(lines().await + 1 >= endless.lines());
    let said = stand.said("build").await;
    assert!(said.iter().all(|said| said.get("gap").is_none()), "{said:?}");
    assert!(said[1]["resize"]["cols"].as_u64().is_some_and(|cols| cols > 0), "{said:?}");
    assert_eq!(said.iter().filter(|said| said.get("begin").is_some()).count(), 1, "{said:?}");
}

#[tokio::test]
async fn a_recording_for_which_there_is_no_room_is_counted_and_goes_on_once_there_is() {
    let stand = Stand::new().await;
    let body = json!({"handle": "mail", "kind": "message"});
    assert_eq!(stand.call("POST", "/api/v1/sources", &stand.owner, Some(body)).await.status, 201);
    let path = "/api/v1/sources/mail/pipes/inbox/messages";
    let sent = stand.call("POST", path, &stand.owner, Some(json!({"payload": "hi"}))).await;
    assert_eq!(sent.status, 201, "{sent:?}");
    let caller = stand.world.services.logins.authenticate(&stand.owner.token, None).await.unwrap();
    let promise = async |bytes: i64| {
        let change = PipeLimitsChange { disk_bytes: Some(bytes), ..PipeLimitsChange::default() };
        let broker = &stand.world.services.broker;
        broker.limits(&Operator::console(), caller.org().unwrap(), change).await.unwrap();
    };
    // The inbox has all of it.
    promise(17 << 20).await;
    let session = stand.session("echo recorded; sleep 1000").await;
    assert_eq!(stand.record(&stand.owner, &session, "build").await.status, 200);
    eventually("it is counted", async || {
        let figures = stand.world.call("GET", "/metrics", "", None).await.text;
        let is_some = |name: &str| {
            let value = figures.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            value.is_some_and(|value| value > 0.0)
        };
        is_some("tidegate_recordings_broken ") && is_some("tidegate_recording_breaks_total ")
    })
    .await;
    promise(1 << 30).await;
    eventually("it is recorded", async || stand.recorded("build").await == b"recorded\r\n").await;
}

#[tokio::test]
async fn what_is_recorded_no_more_is_not_and_neither_is_what_a_deactivated_owner_prints() {
    let stand = Stand::new().await;
    let endless = Endless::new();
    let session = stand.session(&endless.script()).await;
    let path = format!("/api/v1/sessions/{session}/terminal-source");
    assert_eq!(stand.record(&stand.owner, &session, "build").await.status, 200);
    eventually("something is recorded", async || !stand.recorded("build").await.is_empty()).await;
    assert_eq!(stand.call("DELETE", &path, &stand.owner, None).await.status, 204);
    let id: SessionId = session.parse().unwrap();
    eventually("its tunnel is given back", async || stand.world.handle.hub().tunnels(id).is_empty()).await;
    let (recorded, printed) = (stand.recorded("build").await, endless.lines());
    eventually("it prints on", async || endless.lines() > printed + 20).await;
    assert!(stand.recorded("build").await == recorded, "it is still recorded");
    stand.call("DELETE", &path, &stand.owner, None).await.refused(404, "E_NOT_FOUND");
    assert_eq!(stand.state(&session).await["terminalSource"], Value::Null);

    assert_eq!(stand.record(&stand.owner, &session, "again").await.status, 200);
    eventually("something is recorded", async || !stand.recorded("again").await.is_empty()).await;
    let deactivate = format!("UPDATE users SET active = false WHERE id = '{}'", stand.owner.id);
    stand.world.db.execute(&deactivate).await;
    eventually_some("the recording is over", async || {
        (stand.world.db.look::<i64>("SELECT count(*) FROM terminal_sources").await == 0).then_some(())
    })
    .await;
    let line = "SELECT actor || ' ' || (detail->>'reason') FROM audit_log WHERE action = 'session.unrecord' ORDER BY at DESC LIMIT 1";
    assert_eq!(stand.world.db.look::<String>(line).await, "system its owner was deactivated");
}

#[tokio::test]
async fn only_the_owner_has_a_terminal_recorded_and_only_at_a_source_of_theirs() {
    let stand = Stand::new().await;
    let session = stand.session("sleep 1000").await;
    let path = format!("/api/v1/sessions/{session}/terminal-source");
    let (friend, manager) = (
        stand.world.somebody("acme", OrgRole::User).await,
        stand.world.somebody("acme", OrgRole::Maintainer).await,
    );
    let rival = stand.world.somebody("rival", OrgRole::Admin).await;
    stand.record(&rival, &session, "build").await.refused(404, "E_NOT_FOUND");
    stand.record(&friend, &session, "build").await.refused(404, "E_NOT_FOUND");
    stand.record(&manager, &session, "build").await.refused(403, "E_FORBIDDEN");
    let share = json!({"username": friend.name, "mode": "control"});
    let shared =
        stand.call("POST", &format!("/api/v1/sessions/{session}/shares"), &stand.owner, Some(share)).await;
    assert_eq!(shared.status, 201, "{shared:?}");
    stand.record(&friend, &session, "build").await.refused(403, "E_FORBIDDEN");
    assert_eq!(stand.call("GET", "/api/v1/sources/build", &stand.owner, None).await.status, 404);

    let made = async |who: &Somebody, handle: &str, kind: &str| {
        let body = json!({"handle": handle, "kind": kind});
        assert_eq!(stand.call("POST", "/api/v1/sources", who, Some(body)).await.status, 201);
    };
    made(&friend, "theirs", "pty").await;
    made(&stand.owner, "mail", "message").await;
    // Of another organization the handle is free here.
    made(&rival, "foreign", "pty").await;
    stand.record(&stand.owner, &session, "theirs").await.refused(403, "E_FORBIDDEN");
    let bad = stand.record(&stand.owner, &session, "mail").await;
    assert_eq!((bad.status, bad.fields()), (400, vec!["handle".to_owned()]), "{bad:?}");
    let bad = stand.record(&stand.owner, &session, "stdout").await;
    assert_eq!((bad.status, bad.fields()), (400, vec!["handle".to_owned()]), "{bad:?}");

    let first = stand.record(&stand.owner, &session, "foreign").await;
    assert_eq!(first.status, 200, "{first:?}");
    let again = stand.record(&stand.owner, &session, "foreign").await;
    assert_eq!(again.body["terminalSource"], first.body["terminalSource"], "{again:?}");
    let other = stand.session("sleep 1000").await;
    stand.record(&stand.owner, &other, "foreign").await.refused(409, "E_SOURCE_BUSY");
    let list = stand.call("GET", "/api/v1/sessions", &stand.owner, None).await;
    let shown = list.body["sessions"].as_array().unwrap().iter().find(|it| it["id"] == session.as_str());
    assert_eq!(shown.unwrap()["terminalSource"]["handle"], "foreign", "{list:?}");
    // Who manages sessions ends it, and whom it is shared with does not; both are in the log.
    stand.call("DELETE", &path, &friend, None).await.refused(403, "E_FORBIDDEN");
    stand.call("DELETE", &path, &rival, None).await.refused(404, "E_NOT_FOUND");
    assert_eq!(stand.call("DELETE", &path, &manager, None).await.status, 204);
    let lines = "SELECT string_agg(action, ' ' ORDER BY at) FROM audit_log WHERE action IN ('session.record', 'session.unrecord')";
    assert_eq!(stand.world.db.look::<String>(lines).await, "session.record session.unrecord");

    // A source that goes takes the recording along, and so does whoever leaves.
    assert_eq!(stand.record(&stand.owner, &session, "one").await.status, 200);
    assert_eq!(stand.record(&stand.owner, &other, "two").await.status, 200);
    let count = "SELECT count(*) FROM terminal_sources";
    assert_eq!(stand.call("DELETE", "/api/v1/sources/one", &stand.owner, None).await.status, 204);
    assert_eq!(stand.world.db.look::<i64>(count).await, 1);
    assert_eq!(stand.state(&session).await["terminalSource"], Value::Null);
    stand.world.db.execute(&format!("DELETE FROM memberships WHERE user_id = '{}'", stand.owner.id)).await;
    assert_eq!(stand.world.db.look::<i64>(count).await, 0);
}

#[tokio::test]
async fn of_two_who_record_one_does_and_whoever_lost_it_stores_nothing() {
    let world = World::with_nats().await;
    let owner = world.somebody("acme", OrgRole::User).await;
    let agent = world.agent("vm-1").await;
    let body = json!({"template": "command", "command": ["sh"]});
    let made = world.call("POST", "/api/v1/sessions", &owner.token, Some(body)).await;
    let session = made.body["session"]["id"].as_str().unwrap().to_owned();
    // The test records, and nobody else: the session's agent is of another control plane.
    let of = format!("SELECT agent_id::text FROM sessions WHERE id = '{session}'");
    let id: AgentId = world.db.look::<String>(&of).await.parse().unwrap();
    drop(agent);
    eventually("the agent is away", async || !world.handle.hub().is_connected(id)).await;
    world.db.execute(&format!("UPDATE sessions SET state = 'running' WHERE id = '{session}'")).await;
    let body = json!({"handle": "build"});
    let path = format!("/api/v1/sessions/{session}/terminal-source");
    assert_eq!(world.call("PUT", &path, &owner.token, Some(body)).await.status, 200);
    let recorder = &world.services.recorder;
    let look = async || recorder.free(vec![id], TimeDelta::minutes(1)).await.unwrap();
    let free = eventually_some("it is free", async || look().await.pop()).await;
    let (one, two) = tokio::join!(recorder.claim(&free), recorder.claim(&free));
    let mut won: Vec<_> = [one.unwrap(), two.unwrap()].into_iter().flatten().collect();
    assert_eq!(won.len(), 1, "{won:?}");
    let mut first = won.pop().unwrap();
    let to = first.open().await.unwrap();
    first.store(&to, b"one ").await.unwrap();
    first.store(&to, b"two ").await.unwrap();
    // Its lease is over without a word, and what it stored was not written down.
    world.db.execute("UPDATE terminal_sources SET lease_until = 'epoch'").await;
    let mut second = recorder.claim(&free).await.unwrap().unwrap();
    let to_second = second.open().await.unwrap();
    assert_eq!(second.recorded(), 8);
    // Both believe that it is theirs: the same bytes are stored once, whoever is late looks and gives up.
    second.store(&to_second, b"three ").await.unwrap();
    first.store(&to, b"three ").await.unwrap_err();
    first.renew().await.unwrap_err();
    second.miss(&to_second, 5).await.unwrap();
    // It is gone before it wrote down that something is missing: the next one knows it, and marks nothing twice.
    drop(second);
    world.db.execute("UPDATE terminal_sources SET lease_until = 'epoch'").await;
    let mut third = recorder.claim(&free).await.unwrap().unwrap();
    let to_third = third.open().await.unwrap();
    assert_eq!(third.recorded(), 19);
    third.store(&to_third, b"four").await.unwrap();
    third.finish(&to_third, None).await.unwrap();
    assert!(look().await.is_empty());
    assert_eq!(recorded(&world, &owner, "build").await, b"one two three four");
    let said = said(&world, &owner, "build").await;
    assert_eq!(said[1..], [json!({"gap": {"bytes": 5}}), json!({"end": {}})], "{said:?}");
}
