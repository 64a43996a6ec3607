//! `events`.

use serde_json::json;

use crate::{Fake, Reply, Request, fake::session, run};

/// One session's start over two connections, then a refusal.
async fn server() -> Fake {
    let event = |id: &str, rest: serde_json::Value| {
        let mut data = json!({"id": id, "at": "2026-01-01T00:00:00Z"});
        data.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        format!("id: {id}\ndata: {data}\n\n").into_bytes()
    };
    let id = "01970000-0000-7000-8000-000000000001";
    let pending = event(
        "5-1",
        json!({"kind": "session", "sessionId": id, "name": "calm-harbour", "user": "alice", "agentId": null,
               "fromState": null, "toState": "pending", "reason": null, "generation": 1}),
    );
    let failed = event(
        "7-1",
        json!({"kind": "command", "commandId": "cmd-1", "sessionId": id, "agentId": "agent-1", "action": "start_session",
               "status": "failed", "reason": "no \u{1b}[31mroom"}),
    );
    let mut opened = 0;
    Fake::start(move |request: &Request| {
        if !request.line.contains("/events") {
            let page = json!({"sessions": [session("running")], "total": 1, "nextCursor": null});
            return Reply::ok(&page);
        }
        opened += 1;
        let chunks =
            |chunk: &[u8]| Reply::Chunks { headers: Vec::new(), chunks: vec![chunk.to_vec()], whole: false };
        match opened {
            1 => chunks(&pending),
            2 => chunks(&failed),
            _ => Reply::refusal("401 Unauthorized", "E_UNAUTHENTICATED"),
        }
    })
    .await
}

#[tokio::test]
async fn events_are_lines_for_people_and_it_goes_on_where_it_was_cut() {
    let server = server().await;
    let words = ["events", "--session", "calm-harbour", "--kind", "session,command", "--after", "4-9"];
    let (out, err, code) = run(&server, &words).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out} {err}");
    assert!(lines[0].ends_with("5-1  session  calm-harbour of alice: pending"), "{out}");
    assert!(
        lines[1].contains("7-1  command  start_session for session") && lines[1].contains("failed"),
        "{out}"
    );
    assert!(!out.contains('\u{1b}'), "nothing that a terminal would obey");
    assert_ne!(code, 0, "the refusal ends it");
    let asked: Vec<String> = server.lines().into_iter().filter(|line| line.contains("/events")).collect();
    let with = "session=01970000-0000-7000-8000-000000000001&kind=session%2Ccommand";
    assert_eq!(asked, ["4-9", "5-1", "7-1"].map(|after| format!("GET /api/v1/events?{with}&after={after}")));
}

#[tokio::test]
async fn events_are_one_object_a_line_for_programs() {
    let server = server().await;
    let (out, _, _) = run(&server, &["events", "--json", "--after", "0-0"]).await;
    let ids: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].take())
        .collect();
    assert_eq!(ids, ["5-1", "7-1"]);
}

#[tokio::test]
async fn an_id_that_is_none_and_a_kind_that_is_none_are_named() {
    let server = server().await;
    for (words, named) in [(["--after", "yesterday"], "--after"), (["--kind", "weather"], "--kind")] {
        let (_, err, code) = run(&server, &["events", words[0], words[1]]).await;
        assert!(code != 0 && err.contains(named), "{err}");
    }
    assert!(server.lines().is_empty(), "nothing was asked for");
}
