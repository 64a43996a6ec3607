//! The catalog over HTTP.

use serde_json::{Value, json};
use tidegate_model::{OrgRole, RepositoryId};
use tidegate_test_support::catalog::{digest, plugin, template};

use crate::support::World;

const SVG: &str = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";

/// A template, a plugin and the digest of an icon; made once.
pub(crate) async fn stocked(world: &World) -> [String; 3] {
    let there = "SELECT COALESCE(max(id), 0) FROM repositories WHERE name = 'official'";
    let there: i64 = world.db.look(there).await;
    let of = if there == 0 { stock(world).await } else { RepositoryId::from_number(there) };
    let template = world.db.template_id(of, "firefox-browser").await;
    [template.to_string(), world.db.plugin_id(of, "dark-theme").await.to_string(), digest(9).to_string()]
}

async fn stock(world: &World) -> RepositoryId {
    let of = world.db.repository("official").await;
    world.db.file(digest(9), "image/svg+xml", SVG.as_bytes()).await;
    world.db.file(digest(8), "image/x-page", b"<html>").await;
    let mut firefox =
        template("firefox-browser", &json!({"displayName": "Firefox", "category": "Web Browsers"}));
    firefox.icon = Some(digest(9));
    world
        .db
        .sync(
            of,
            &[firefox, template("gimp", &json!({}))],
            &[plugin("dark-theme", &json!({"type": "theme"}))],
        )
        .await;
    of
}

#[tokio::test]
async fn a_person_searches_looks_and_rates() {
    let world = World::new().await;
    let [template, plugin, icon] = stocked(&world).await;
    let user = world.somebody("acme", OrgRole::Viewer).await;
    let get = async |path: &str| world.call("GET", path, &user.token, None).await;
    let found = get("/api/v1/catalog/templates?search=firef&limit=1").await;
    assert_eq!(
        (found.status, &found.body["total"], &found.body["nextCursor"]),
        (200, &json!(1), &Value::Null)
    );
    let one = &found.body["templates"][0];
    assert_eq!(
        (one["name"].as_str(), one["iconUrl"].as_str()),
        (Some("firefox-browser"), Some(format!("/api/v1/catalog/icons/{icon}").as_str()))
    );
    assert_eq!(one["repository"]["name"], "official");
    assert_eq!(one, &get(&format!("/api/v1/catalog/templates/{template}")).await.body);

    let found = get("/api/v1/plugins/catalog?type=theme&sort=name").await;
    assert_eq!(found.body["plugins"][0]["id"].to_string(), plugin);
    let path = format!("/api/v1/plugins/catalog/{plugin}");
    assert_eq!(get(&path).await.body["manifest"]["version"], "1.0.0");
    let versions = get(&format!("{path}/versions")).await.body;
    assert_eq!((&versions["total"], &versions["versions"][0]["version"]), (&json!(1), &json!("1.0.0")));
    let rated = world.call("POST", &format!("{path}/rate"), &user.token, Some(json!({"rating": 5}))).await;
    assert_eq!((rated.status, rated.body["userId"].as_str()), (200, Some(user.id.as_str())));
    let ratings = get(&format!("{path}/ratings")).await.body;
    assert_eq!((&ratings["total"], &ratings["ratings"][0]), (&json!(1), &rated.body));
    world.services.catalog.flush_views().await.unwrap();
    let stats = get(&format!("{path}/stats")).await.body;
    assert_eq!((&stats["viewCount"], &stats["installCount"]), (&json!(1), &json!(0)));
    assert_eq!(world.call("DELETE", &format!("{path}/rate"), &user.token, None).await.status, 204);
    assert_eq!(get(&path).await.body["ratingCount"], 0);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_named() {
    let world = World::new().await;
    let [template, plugin, _] = stocked(&world).await;
    let user = world.somebody("acme", OrgRole::User).await;
    let get = async |path: &str| world.call("GET", path, &user.token, None).await;
    let long = "x".repeat(201);
    let bad = get("/api/v1/catalog/templates?appType=game&sort=best&limit=0&color=red").await;
    assert_eq!(
        (bad.status, bad.fields()),
        (400, ["appType", "color", "limit", "sort"].map(str::to_owned).to_vec())
    );
    assert_eq!(get(&format!("/api/v1/plugins/catalog?search={long}")).await.fields(), ["search"]);
    assert_eq!(get("/api/v1/plugins/catalog?cursor=no").await.fields(), ["cursor"]);
    for path in
        [format!("templates/{template}"), "templates/0".into(), "templates/-1".into(), "templates/x".into()]
    {
        let (path, there) =
            (format!("/api/v1/catalog/{path}"), path.ends_with(&template) && !path.ends_with("-1"));
        assert_eq!(get(&path).await.status, if there { 200 } else { 404 }, "{path}");
    }
    let rate = async |path: String, body: Value| world.call("POST", &path, &user.token, Some(body)).await;
    let bad = rate(
        format!("/api/v1/plugins/catalog/{plugin}/rate"),
        json!({"rating": 6, "review": "x".repeat(2_001)}),
    )
    .await;
    assert_eq!((bad.status, bad.fields()), (400, ["rating", "review"].map(str::to_owned).to_vec()));
    let nowhere = rate("/api/v1/plugins/catalog/999999/rate".into(), json!({"rating": 6})).await;
    assert_eq!(nowhere.status, 404, "what is not there is said before what is wrong with the body");
}

#[tokio::test]
async fn a_cursor_with_a_moment_that_the_database_does_not_know_is_none() {
    let world = World::new().await;
    let [template, ..] = stocked(&world).await;
    let user = world.somebody("acme", OrgRole::Admin).await;
    for (path, cursor) in [
        // `newest -8000000000000000000 0 1 ` and `newest 9000000000000000000 0 1 `.
        ("catalog/templates?sort=newest".to_owned(), "bmV3ZXN0IC04MDAwMDAwMDAwMDAwMDAwMDAwIDAgMSA"),
        ("catalog/templates?sort=newest".to_owned(), "bmV3ZXN0IDkwMDAwMDAwMDAwMDAwMDAwMDAgMCAxIA"),
        // `-8000000000000000000 1` and `9000000000000000000 1`.
        (format!("catalog/templates/{template}/ratings?limit=1"), "LTgwMDAwMDAwMDAwMDAwMDAwMDAgMQ"),
        (format!("catalog/templates/{template}/ratings?limit=1"), "OTAwMDAwMDAwMDAwMDAwMDAwMCAx"),
        // `0/9000000000000000000/…`.
        (
            "organizations/acme/keys?limit=1".to_owned(),
            "MC85MDAwMDAwMDAwMDAwMDAwMDAwLzAxYTIyMTY5LWQwNDUtNzFmZi1iZjNhLTVkYWJjZDcxZDdhZQ",
        ),
    ] {
        let path = format!("/api/v1/{path}&cursor={cursor}");
        let answer = world.call("GET", &path, &user.token, None).await;
        assert_eq!(answer.refused(400, "E_INVALID").fields(), ["cursor"], "{path}");
    }
}

#[tokio::test]
async fn an_icon_is_a_picture_and_nothing_else() {
    let world = World::new().await;
    let [_, _, icon] = stocked(&world).await;
    let user = world.somebody("acme", OrgRole::User).await;
    let path = format!("/api/v1/catalog/icons/{icon}");
    let seen = world.call("GET", &path, &user.token, None).await;
    assert_eq!((seen.status, seen.text.as_str()), (200, SVG));
    for (name, value) in [
        ("content-type", "image/svg+xml"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        ("content-disposition", "attachment; filename=\"icon.svg\""),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let tag = seen.header("etag").unwrap().to_owned();
    let headers =
        [("Authorization", format!("Bearer {}", user.token)), ("If-None-Match", format!("\"x\", W/{tag}"))];
    let kept = world.raw("GET", &path, &headers, b"").await;
    assert_eq!((kept.status, kept.text.as_str(), kept.header("etag")), (304, "", Some(tag.as_str())));
    // What a plugin is made of, a page that calls itself a picture, another spelling, and nothing at all.
    for digest in
        [digest(1).to_string(), digest(8).to_string(), icon.to_uppercase(), digest(7).to_string(), "x".into()]
    {
        let path = format!("/api/v1/catalog/icons/{digest}");
        let status = world.call("GET", &path, &user.token, None).await.status;
        assert_eq!(status, if digest == icon { 200 } else { 404 }, "{digest}");
    }
}
