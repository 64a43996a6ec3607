//! Applications from the command line.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, fake::session, run};

const APP: &str = "01970000-0000-7000-8000-0000000000a1";
const ORG: &str = "01970000-0000-7000-8000-0000000000aa";
const GROUP: &str = "01970000-0000-7000-8000-0000000000cc";

fn application(status: &str, message: Option<&str>) -> Value {
    json!({
        "id": APP, "orgId": ORG, "catalogTemplateId": 7, "name": "firefox-0a1b2c3d", "displayName": "Fire\u{1b}fox",
        "folderPath": "apps/firefox-0a1b2c3d", "enabled": true, "platform": "docker", "configuration": {"tabs": 1, "home": "x"},
        "createdBy": "01970000-0000-7000-8000-000000000003", "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z", "templateName": "firefox", "templateDisplayName": "Firefox",
        "description": "A browser", "category": "Web", "appType": "desktop", "installStatus": status,
        "installMessage": message, "access": "admin", "groups": [],
    })
}

async fn server(ends: &'static str, message: Option<&'static str>) -> Fake {
    Fake::start(move |request: &Request| match request.line.as_str() {
        "POST /api/v1/applications" => {
            Reply::Answer("201 Created", &[], application("pending", None).to_string())
        }
        "POST /api/v1/sessions" if request.body.contains("nothing") => {
            let error = json!({"error": {"code": "E_NOT_FOUND", "message": "template nothing is not found", "requestId": "r"}});
            Reply::Answer("404 Not Found", &[], error.to_string())
        }
        "POST /api/v1/sessions" => {
            let answer = json!({"session": session("pending"), "commandId": "cmd-1"});
            Reply::Answer("202 Accepted", &[], answer.to_string())
        }
        line if line.starts_with("GET /api/v1/groups?") => Reply::ok(&json!({"groups": [{"id": GROUP, "orgId": ORG,
            "name": "crew", "displayName": "The crew", "description": "", "type": "team", "parentId": null, "memberCount": 1,
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}], "total": 1, "nextCursor": null})),
        line if line.starts_with("POST") && line.ends_with("/groups") => Reply::ok(&json!({"id": GROUP, "applicationId": APP,
            "groupId": GROUP, "accessLevel": "view", "createdAt": "2026-01-01T00:00:00Z", "groupName": "crew",
            "groupDisplayName": "The crew"})),
        line if line.contains("applications?") || line.contains("applications/user?") => {
            Reply::ok(&json!({"applications": [application(ends, message)], "total": 1, "nextCursor": null}))
        }
        _ => Reply::ok(&application(ends, message)),
    })
    .await
}

#[tokio::test]
async fn applications_are_listed_and_shown_without_what_a_terminal_would_obey() {
    let server = server("installed", None).await;
    let (out, err, code) = run(&server, &["apps", "list"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with("APPLICATION") && out.contains("firefox-0a1b2c3d") && !out.contains('\u{1b}'),
        "{out}"
    );
    let (out, _, _) = run(&server, &["apps", "show", "firefox-0a1b2c3d"]).await;
    assert!(out.contains("home=\"x\" tabs=1") && out.contains("docker"), "{out}");
    let (_, err, code) = run(&server, &["apps", "show", "chrome"]).await;
    assert!(code == 1 && err.contains("no application is called `chrome`"), "{err}");
}

#[tokio::test]
async fn an_installation_is_waited_for_and_its_end_is_the_exit_code() {
    let good = server("installed", None).await;
    let words = ["apps", "install", "7", "--set", "tabs=3", "--set", "home=about:blank", "--group", "crew"];
    let (out, err, code) = run(&good, &words).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("tidegate run firefox-0a1b2c3d"), "{out}");
    let seen = good.seen();
    let asked = seen.iter().find(|request| request.line == "POST /api/v1/applications").unwrap();
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body["configuration"], json!({"tabs": 3, "home": "about:blank"}));
    assert_eq!((&body["catalogTemplateId"], &body["groupIds"]), (&json!(7), &json!([GROUP])));
    let bad = server("failed", Some("no approved agent")).await;
    let (out, _, code) = run(&bad, &["apps", "install", "7"]).await;
    assert!(code == 1 && out.contains("no approved agent") && out.contains("--retry"), "{out}");
}

#[tokio::test]
async fn options_are_laid_over_those_that_are_there() {
    let server = server("installed", None).await;
    let (_, err, code) = run(&server, &["apps", "update", "firefox-0a1b2c3d", "--set", "tabs=2"]).await;
    assert_eq!(code, 0, "{err}");
    let put = |body: &Value| {
        let seen = server.seen();
        let last = seen.iter().rfind(|request| request.line.starts_with("PUT")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&last.body).unwrap(), *body);
    };
    put(&json!({"configuration": {"tabs": 2, "home": "x"}}));
    run(&server, &["apps", "update", APP, "--reset", "--set", "tabs=2"]).await;
    put(&json!({"configuration": {"tabs": 2}}));
    let (_, err, code) = run(&server, &["apps", "update", APP]).await;
    assert!(code == 1 && err.contains("nothing to change"), "{err}");
    let (out, _, _) = run(&server, &["apps", "groups", "add", APP, "crew", "--access", "view"]).await;
    assert!(out.contains("crew has access to view"), "{out}");
}

#[tokio::test]
async fn run_finds_the_application_and_falls_back_to_templates() {
    let server = server("installed", None).await;
    let (_, err, code) = run(&server, &["run", "firefox-0a1b2c3d", "--detach", "-e", "A=1"]).await;
    assert_eq!(code, 0, "{err}");
    let (_, err, code) = run(&server, &["run", "greeter", "--detach"]).await;
    assert_eq!(code, 0, "{err}");
    let seen = server.seen();
    let bodies: Vec<Value> = seen
        .iter()
        .filter(|request| request.line == "POST /api/v1/sessions")
        .map(|request| serde_json::from_str(&request.body).unwrap())
        .collect();
    assert_eq!((&bodies[0]["applicationId"], &bodies[0]["environment"]), (&json!(APP), &json!({"A": "1"})));
    assert_eq!((&bodies[1]["template"], bodies[1].get("applicationId")), (&json!("greeter"), None));
    let (_, err, code) = run(&server, &["run", "nothing"]).await;
    assert!(code == 125 && err.contains("nothing that you may start is called `nothing`"), "{code} {err}");
}
