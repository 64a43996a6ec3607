//! `catalog`: searched, shown and rated, for people and for programs.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

fn repository() -> Value {
    json!({"id": 1, "name": "official", "url": "https://example.com/x.git", "type": "git", "enabled": true,
           "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"})
}

fn template(id: i64) -> Value {
    json!({"id": id, "repositoryId": 1, "name": "firefox", "displayName": "Firefox", "description": "Surfs\u{1b}[2J\nfar",
           "category": "Web", "appType": "desktop", "platforms": ["docker"], "iconUrl": "", "tags": ["browser"],
           "manifest": {"name": "firefox", "displayName": "Firefox", "description": "", "appType": "desktop",
                        "platforms": ["docker"], "image": "firefox:1", "protocol": "vnc",
                        "options": {"type": "object", "required": ["start"], "properties": {
                            "start": {"type": "string", "title": "First page"}, "tabs": {"type": "integer", "default": 3}}}},
           "installCount": 7, "avgRating": 4.5, "ratingCount": 2, "repository": repository(),
           "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-02T00:00:00Z"})
}

fn plugin() -> Value {
    json!({"id": 3, "repositoryId": 1, "name": "dark", "version": "1.2.0", "displayName": "Dark", "description": "",
           "category": "", "pluginType": "theme", "iconUrl": "", "tags": [],
           "manifest": {"name": "dark", "version": "1.2.0", "displayName": "Dark", "description": "", "author": "Ada",
                        "type": "theme"},
           "installCount": 0, "avgRating": 0.0, "ratingCount": 0, "repository": repository(),
           "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-02T00:00:00Z"})
}

fn rating() -> Value {
    json!({"id": 1, "templateId": 12, "pluginId": 3, "userId": null, "rating": 5, "review": "Good",
           "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-02T00:00:00Z"})
}

fn answer(request: &Request) -> Reply {
    let path = request.line.split(' ').nth(1).unwrap();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Reply::ok(&match path.trim_start_matches("/api/v1") {
        "/catalog/templates" if query.contains("search=twice") => {
            let mut two = [template(12), template(13)];
            for one in &mut two {
                one["name"] = "twice".into();
            }
            json!({"templates": two, "total": 2, "nextCursor": null})
        }
        "/catalog/templates" => json!({"templates": [template(12)], "total": 300, "nextCursor": "more"}),
        "/catalog/templates/12" => template(12),
        "/plugins/catalog" => json!({"plugins": [plugin()], "total": 1, "nextCursor": null}),
        "/plugins/catalog/3" => plugin(),
        "/plugins/catalog/3/versions" => json!({"versions": [], "total": 0, "nextCursor": null}),
        "/plugins/catalog/3/stats" => {
            json!({"pluginId": 3, "viewCount": 41, "installCount": 0, "updatedAt": "2026-01-02T00:00:00Z"})
        }
        path if path.ends_with("/ratings") => json!({"ratings": [rating()], "total": 1, "nextCursor": null}),
        path if path.ends_with("/rate") => rating(),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn the_catalog_is_searched() {
    let server = Fake::start(answer).await;
    let (table, err, code) =
        run(&server, &["catalog", "search", "fire", "fox", "--tag", "browser", "--sort", "rating"]).await;
    for word in ["12", "firefox", "desktop", "4.5 (2)", "7", "Surfs"] {
        assert!(code == 0 && table.contains(word), "{word} in {table} {err}");
    }
    assert!(!table.contains('\u{1b}') && !table.contains("far"), "what a stranger wrote is one plain line");
    assert!(err.contains("1 of 300"), "{err}");
    assert_eq!(
        server.lines().last().unwrap(),
        "GET /api/v1/catalog/templates?limit=100&search=fire+fox&tag=browser&sort=rating"
    );
    let (out, _, _) = run(&server, &["catalog", "search", "--plugins", "--type", "theme", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["plugins"][0], plugin());
    assert_eq!(server.lines().last().unwrap(), "GET /api/v1/plugins/catalog?limit=100&type=theme");
    for bad in [vec!["--type", "theme"], vec!["--plugins", "--app-type", "desktop"], vec!["--sort", "best"]] {
        let (_, err, code) = run(&server, &[vec!["catalog", "search"], bad].concat()).await;
        assert!(code == 2, "{err}");
    }
}

#[tokio::test]
async fn an_entry_is_shown_by_its_name_or_number() {
    let server = Fake::start(answer).await;
    let (out, err, _) = run(&server, &["catalog", "show", "firefox"]).await;
    for word in [
        "firefox (12)",
        "docker",
        "firefox:1",
        "official",
        "Good",
        "start string (needed)  First page",
        "tabs integer [3]",
    ] {
        assert!(out.contains(word), "{word} in {out} {err}");
    }
    let (out, err, _) = run(&server, &["catalog", "show", "--plugin", "3"]).await;
    for word in ["dark (3)", "1.2.0", "Ada", "41"] {
        assert!(out.contains(word), "{word} in {out} {err}");
    }
    let (_, err, code) = run(&server, &["catalog", "show", "twice"]).await;
    assert!(code != 0 && err.contains("12 (from official), 13 (from official)"), "{err}");
    let (_, err, code) = run(&server, &["catalog", "show", "firefo"]).await;
    assert!(code != 0 && err.contains("no template of the catalog is called firefo"), "{err}");
}

#[tokio::test]
async fn an_entry_is_rated_and_the_rating_taken_back() {
    let server = Fake::start(answer).await;
    let (out, err, code) = run(&server, &["catalog", "rate", "firefox", "5", "--review", "Good"]).await;
    assert!(code == 0 && out.contains("5 of 5"), "{out} {err}");
    assert_eq!(server.lines().last().unwrap(), "POST /api/v1/catalog/templates/12/rate");
    let (out, err, code) = run(&server, &["catalog", "rate", "3", "--plugin", "--remove"]).await;
    assert!(code == 0 && out.contains("taken back"), "{out} {err}");
    assert_eq!(server.lines().last().unwrap(), "DELETE /api/v1/plugins/catalog/3/rate");
    for bad in [vec!["firefox"], vec!["firefox", "6"], vec!["firefox", "5", "--remove"]] {
        let (_, err, code) = run(&server, &[vec!["catalog", "rate"], bad].concat()).await;
        assert!(code == 2, "{err}");
    }
}
