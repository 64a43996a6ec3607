//! Calls: credentials, retries, refusals.

use crate::fake::{Fake, Reply, Request, login, session};
use tidegate_client::{Client, Error, IdempotencyKey, StatusCode};
use tidegate_model::{AgentCommandRequest, CommandAction, NewSession, Secret, SessionFilter, SessionState};

fn accepted() -> String {
    serde_json::json!({"session": session("pending"), "commandId": "cmd-1"}).to_string()
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_call_made_again() {
    let server =
        Fake::start(|request: &Request| match (request.line.as_str(), request.header("authorization")) {
            ("POST /api/v1/auth/refresh", _) => Reply::ok(&login("second")),
            (_, "Bearer second") => Reply::ok(&session("running")),
            _ => Reply::refusal("401 Unauthorized", "E_UNAUTHENTICATED"),
        })
        .await;
    let id = "01970000-0000-7000-8000-000000000001".parse().unwrap();
    let client = server.client();
    assert_eq!(client.session(id).await.unwrap().state, SessionState::Running);
    client.session(id).await.unwrap();
    assert_eq!(
        server.lines(),
        [
            "GET /api/v1/sessions/01970000-0000-7000-8000-000000000001",
            "POST /api/v1/auth/refresh",
            "GET /api/v1/sessions/01970000-0000-7000-8000-000000000001",
            "GET /api/v1/sessions/01970000-0000-7000-8000-000000000001",
        ]
    );
    assert_eq!(server.seen()[1].body, r#"{"refreshToken":"again"}"#);
}

#[tokio::test]
async fn many_calls_with_one_dead_token_renew_it_once() {
    let server =
        Fake::start(|request: &Request| match (request.line.as_str(), request.header("authorization")) {
            ("POST /api/v1/auth/refresh", _) => Reply::ok(&login("second")),
            (_, "Bearer second") => Reply::ok(&session("running")),
            _ => Reply::refusal("401 Unauthorized", "E_UNAUTHENTICATED"),
        })
        .await;
    let id = "01970000-0000-7000-8000-000000000001".parse().unwrap();
    let client = server.client();
    let calls = (0..8).map(|_| client.session(id));
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!(server.lines().iter().filter(|line| line.contains("refresh")).count(), 1);
}

#[tokio::test]
async fn a_refused_renewal_says_that_the_login_has_ended() {
    let server = Fake::start(|_: &Request| Reply::refusal("401 Unauthorized", "E_UNAUTHENTICATED")).await;
    let error = server.client().me().await.unwrap_err();
    assert!(matches!(error, Error::LoginEnded), "{error:?}");
}

#[tokio::test]
async fn a_fixed_token_is_never_renewed() {
    let server = Fake::start(|_: &Request| Reply::refusal("401 Unauthorized", "E_UNAUTHENTICATED")).await;
    let client = Client::builder(server.url.clone()).token(Secret::new("mine".to_owned())).build().unwrap();
    assert_eq!(client.me().await.unwrap_err().status(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_asked_again_with_the_same_key() {
    let mut asked = 0;
    let server = Fake::start(move |_: &Request| {
        asked += 1;
        match asked {
            1 => Reply::HangUp,
            2 => Reply::Answer(
                "409 Conflict",
                &["retry-after: 0"],
                r#"{"error":{"code":"E_IDEMPOTENCY_RUNNING","message":"still at work","requestId":"r"}}"#
                    .to_owned(),
            ),
            _ => Reply::Answer("202 Accepted", &[], accepted()),
        }
    })
    .await;
    let key = IdempotencyKey::new("my-key").unwrap();
    let answer = server.client().create_session_keyed(&NewSession::of("shell"), &key).await.unwrap();
    assert_eq!(answer.command_id.as_deref(), Some("cmd-1"));
    let keys: Vec<String> =
        server.seen().iter().map(|request| request.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys, ["my-key"; 3]);
}

#[tokio::test]
async fn a_refused_create_is_not_asked_again() {
    let server = Fake::start(|_: &Request| Reply::refusal("409 Conflict", "E_IDEMPOTENCY_MISMATCH")).await;
    let error = server.client().create_session(&NewSession::of("shell")).await.unwrap_err();
    assert_eq!(error.api().unwrap().code, "E_IDEMPOTENCY_MISMATCH");
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn a_login_whose_answer_was_lost_is_not_sent_again() {
    let server = Fake::start(|_: &Request| Reply::HangUp).await;
    let error = server.client().login("alice", &Secret::new("x".to_owned())).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn a_refusal_tells_its_fields_and_when_to_try_again() {
    let server = Fake::start(|_: &Request| {
        Reply::Answer(
            "429 Too Many Requests",
            &["retry-after: 7"],
            r#"{"error":{"code":"E_RATE_LIMITED","message":"too many attempts","fields":{"username":"is wrong"},
                "requestId":"r-9"}}"#
                .to_owned(),
        )
    })
    .await;
    let error = server.client().login("alice", &Secret::new("x".to_owned())).await.unwrap_err();
    let refusal = error.api().unwrap();
    assert_eq!((refusal.code.as_str(), refusal.request_id.as_deref()), ("E_RATE_LIMITED", Some("r-9")));
    assert_eq!(refusal.retry_after.unwrap().as_secs(), 7);
    assert_eq!(refusal.fields.to_string(), "username: is wrong");
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let server = Fake::start(|_: &Request| Reply::Chunks {
        headers: Vec::new(),
        chunks: vec![vec![b' '; 1 << 20]; 9],
        whole: true,
    })
    .await;
    let error = server.client().me().await.unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}

#[tokio::test]
async fn every_page_is_read_and_a_cursor_that_leads_nowhere_is_not_followed() {
    let server = Fake::start(|_: &Request| {
        Reply::ok(&serde_json::json!({"sessions": [session("running")], "total": 9, "nextCursor": "same"}))
    })
    .await;
    let sessions = server.client().all_sessions(&SessionFilter::default(), 1_000).await.unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!(
        server.lines(),
        ["GET /api/v1/sessions?limit=100", "GET /api/v1/sessions?limit=100&cursor=same"]
    );
}

#[tokio::test]
async fn a_stored_token_past_its_time_is_renewed_before_it_is_used() {
    use std::sync::Arc;
    use tidegate_client::{MemoryStore, TokenStore, Tokens};
    let server = Fake::start(|request: &Request| match request.line.as_str() {
        "POST /api/v1/auth/refresh" => Reply::ok(&login("second")),
        _ => Reply::ok(&session("running")),
    })
    .await;
    let old = Tokens {
        token: Secret::new("old".to_owned()),
        expires_at: "2001-01-01T00:00:00Z".parse().unwrap(),
        refresh_token: Secret::new("again".to_owned()),
    };
    let store = Arc::new(MemoryStore::new(Some(old)));
    let client = Client::builder(server.url.clone()).store(Arc::clone(&store) as _).build().unwrap();
    client.session("01970000-0000-7000-8000-000000000001".parse().unwrap()).await.unwrap();
    assert_eq!(server.lines()[0], "POST /api/v1/auth/refresh");
    assert_eq!(server.seen()[1].header("authorization"), "Bearer second");
    assert_eq!(store.load().unwrap().unwrap().refresh_token.expose(), "next");
}

#[tokio::test]
async fn an_operator_commands_agents_and_decides_about_strangers() {
    let command = serde_json::json!({
        "id": "01970000-0000-7000-8000-000000000001", "commandId": "cmd-01970000-0000-7000-8000-000000000001",
        "agentId": "vm-1", "action": "stop_session", "status": "pending", "createdAt": "2026-11-27T00:00:00Z",
    });
    let server = Fake::start(move |request: &Request| {
        let stranger = serde_json::json!({
            "agentId": "vm-1", "sessionId": "stray 7/8", "state": "running",
            "firstSeen": "2026-11-27T00:00:00Z", "lastSeen": "2026-11-27T00:00:00Z",
        });
        match request.line.as_str() {
            "GET /api/v1/admin/quarantine" => {
                Reply::ok(&serde_json::json!({"sessions": [stranger], "total": 1}).to_string())
            }
            _ => Reply::ok(&command.to_string()),
        }
    })
    .await;
    let (client, agent) = (server.client(), "vm-1".parse().unwrap());
    let request = AgentCommandRequest { action: CommandAction::StopSession, session_id: None, payload: None };
    assert_eq!(client.order_agent(&agent, &request).await.unwrap().action, CommandAction::StopSession);
    let listed = client.quarantine().await.unwrap();
    let session = &listed.sessions[0].session_id;
    client.stop_quarantined(&agent, session).await.unwrap();
    client.forget_quarantined(&agent, session).await.unwrap();
    assert_eq!(
        server.lines(),
        [
            "POST /api/v1/admin/agents/vm-1/command",
            "GET /api/v1/admin/quarantine",
            "POST /api/v1/admin/quarantine/vm-1/stray%207%2F8/stop",
            "POST /api/v1/admin/quarantine/vm-1/stray%207%2F8/forget",
        ]
    );
    assert_eq!(server.seen()[0].body, r#"{"action":"stop_session"}"#);
}
