//! Used by programs: no terminal on either end.

use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    Fake, Reply, Request, SESSION, ended,
    fake::session,
    run,
    terminal::{Step, terminal},
};

fn chunks(offset: u64, text: &str, whole: bool) -> Reply {
    let headers = vec![format!("tidegate-offset: {offset}")];
    Reply::Chunks { headers, chunks: vec![text.as_bytes().to_vec()], whole }
}

/// A session that runs once, prints `one, two` over two connections and leaves exit code 3.
async fn command_server() -> Fake {
    let mut printed = false;
    Fake::start(move |request: &Request| match request.line.as_str() {
        "POST /api/v1/sessions" => {
            let answer = serde_json::json!({"session": session("pending"), "commandId": "cmd-1"});
            Reply::Answer("202 Accepted", &[], answer.to_string())
        }
        line if line.ends_with("/logs?after=0&follow=true") => chunks(0, "one, ", false),
        line if line.ends_with("/logs?after=5&follow=true") => {
            printed = true;
            chunks(5, "two\r\n", true)
        }
        _ if printed => Reply::ok(&ended(3)),
        _ => Reply::ok(&session("running")),
    })
    .await
}

#[tokio::test]
async fn a_command_gives_its_output_and_its_exit_code() {
    let server = command_server().await;
    let (out, err, code) = run(&server, &["run", "command", "-e", "A=1", "--", "make", "-j4"]).await;
    assert_eq!((out.as_str(), code), ("one, two\r\n", 3), "{err}");
    let body = &server.seen()[0].body;
    assert!(
        body.contains(r#""command":["make","-j4"]"#) && body.contains(r#""environment":{"A":"1"}"#),
        "{body}"
    );
}

#[tokio::test]
async fn a_command_is_one_object_in_json() {
    let server = command_server().await;
    let (out, _, code) = run(&server, &["run", "command", "--json", "--", "make"]).await;
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&answer["output"], &answer["exitCode"], code), (&"one, two\r\n".into(), &3.into(), 3));
}

#[tokio::test]
async fn a_terminal_that_was_cut_is_attached_again() {
    let mut attached = 0;
    let server = Fake::start(move |request: &Request| {
        if !request.line.ends_with("/terminal") {
            return Reply::ok(&session("running"));
        }
        attached += 1;
        let bytes = |text: &'static str| Step::Say(Message::binary(text.as_bytes()));
        match attached {
            1 => terminal(vec![bytes("one "), Step::Close(CloseCode::Restart)]),
            2 => Reply::refusal("503 Service Unavailable", "E_AGENT_OFFLINE"),
            3 => terminal(vec![bytes("two ")]),
            _ => {
                let exit = Step::Say(Message::text(r#"{"type":"exit","code":7}"#));
                terminal(vec![bytes("three"), exit, Step::Close(CloseCode::Normal)])
            }
        }
    })
    .await;
    let (out, err, code) = run(&server, &["attach", "01970000-0000-7000-8000-000000000001"]).await;
    assert_eq!((out.as_str(), code), ("one two three", 7), "{err}");
    assert!(err.contains("attaching again") && err.contains("attached again"), "{err}");
}

#[tokio::test]
async fn a_session_that_ended_while_the_connection_was_away_gives_its_exit_code() {
    let mut attached = false;
    let server =
        Fake::start(move |request: &Request| match (request.line.ends_with("/terminal"), attached) {
            (true, false) => {
                attached = true;
                terminal(Vec::new())
            }
            (true, true) => Reply::refusal("409 Conflict", "E_WRONG_STATE"),
            (false, false) => Reply::ok(&session("running")),
            (false, true) => Reply::ok(&ended(9)),
        })
        .await;
    let (_, err, code) = run(&server, &["attach", "01970000-0000-7000-8000-000000000001"]).await;
    assert_eq!(code, 9, "{err}");
}

#[tokio::test]
async fn sessions_are_listed_for_people_and_for_programs() {
    let server = Fake::start(|_: &Request| {
        Reply::ok(&serde_json::json!({"sessions": [session("running")], "total": 1, "nextCursor": null}))
    })
    .await;
    let (table, _, _) = run(&server, &["ls", "--state", "running"]).await;
    assert!(
        table.starts_with("ID") && table.contains("calm-harbour") && table.contains("agent-1"),
        "{table}"
    );
    let (json, _, _) = run(&server, &["ls", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["sessions"][0], session("running"));
    assert_eq!(server.lines()[0], "GET /api/v1/sessions?state=running&limit=100");
}

#[tokio::test]
async fn a_stopped_session_is_waited_for() {
    let mut looks = 0;
    let server = Fake::start(move |request: &Request| {
        if request.line.starts_with("POST") {
            let answer = serde_json::json!({"session": session("terminating"), "commandId": "cmd-2"});
            return Reply::Answer("202 Accepted", &[], answer.to_string());
        }
        looks += 1;
        Reply::ok(&if looks < 3 { session("terminating").to_string() } else { ended(143) })
    })
    .await;
    let (out, err, code) = run(&server, &["stop", "01970000-0000-7000-8000-000000000001"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("calm-harbour is terminated"), "{out}");
    assert!(server.lines().contains(&format!("POST {SESSION}/terminate")));
}

#[tokio::test]
async fn a_refusal_is_a_sentence_or_an_object() {
    let server = Fake::start(|_: &Request| Reply::refusal("401 Unauthorized", "E_UNAUTHENTICATED")).await;
    let (_, err, code) = run(&server, &["ls"]).await;
    assert_eq!((err.as_str(), code), ("tidegate: refused\n", 1));
    let (_, err, _) = run(&server, &["ls", "--json"]).await;
    let error: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!(error["error"]["code"], "E_UNAUTHENTICATED");
}
