//! Plugins by HTTP: brought by hand, asked, shown in a sandbox, and gone.

use std::io::Write;

use serde_json::{Value, json};
use tidegate_model::OrgRole;

use crate::support::{Answer, World};

/// A tar of these files.
fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The `api` plugin of the examples, as it was built.
const MODULE: &[u8] = include_bytes!("../../../../examples/plugins/api/sessions.wasm");

/// An `api` plugin of this name that was granted nothing and asks for nothing of the platform.
pub(crate) fn api_plugin(name: &str) -> Vec<u8> {
    let manifest =
        json!({"name": name, "version": "1.0.0", "type": "api", "entrypoints": {"api": "main.wasm"}});
    // `alloc` gives always the same place, and `handle` answers nothing.
    let module: &[u8] = &[
        0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x0c, 0x02, 0x60, 0x01, 0x7f, 0x01, 0x7f, 0x60,
        0x02, 0x7f, 0x7f, 0x01, 0x7e, 0x03, 0x03, 0x02, 0x00, 0x01, 0x05, 0x03, 0x01, 0x00, 0x02, 0x07, 0x1b,
        0x03, 0x06, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 0x02, 0x00, 0x05, 0x61, 0x6c, 0x6c, 0x6f, 0x63, 0x00,
        0x00, 0x06, 0x68, 0x61, 0x6e, 0x64, 0x6c, 0x65, 0x00, 0x01, 0x0a, 0x0b, 0x02, 0x04, 0x00, 0x41, 0x00,
        0x0b, 0x04, 0x00, 0x42, 0x00, 0x0b,
    ];
    package(&[("plugin.json", manifest.to_string().as_bytes()), ("main.wasm", module)])
}

/// A zip of these files, deflated: the crate for it is where archives of strangers are unpacked.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut entries, mut directory) = (Vec::new(), Vec::new());
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    for (path, content) in files {
        let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        deflated.write_all(content).unwrap();
        let (deflated, mut crc) = (deflated.finish().unwrap(), flate2::Crc::new());
        crc.update(content);
        // Version and flags, deflated, no time, then what both lists say of it.
        let mut said = vec![20, 0, 0, 0, 8, 0, 0, 0, 0x21, 0];
        said.extend(crc.sum().to_le_bytes());
        said.extend(size(&deflated).into_iter().chain(size(content)));
        said.extend([u8::try_from(path.len()).unwrap(), 0, 0, 0]);
        let offset = size(&entries);
        directory
            .extend([b"PK\x01\x02\x14\x00", said.as_slice(), &[0; 10], &offset, path.as_bytes()].concat());
        entries.extend([b"PK\x03\x04", said.as_slice(), path.as_bytes(), &deflated].concat());
    }
    let count = [u8::try_from(files.len()).unwrap(), 0];
    let end = [&[0; 4], count.as_slice(), &count, &size(&directory), &size(&entries), &[0; 2]].concat();
    [entries.as_slice(), &directory, b"PK\x05\x06", &end].concat()
}

async fn upload(world: &World, token: &str, archive: &[u8], request: &Value) -> Answer {
    let mut body = Vec::new();
    body.extend_from_slice(
        b"--cut\r\nContent-Disposition: form-data; name=\"archive\"; filename=\"a.tar\"\r\n\r\n",
    );
    body.extend_from_slice(archive);
    body.extend_from_slice(b"\r\n--cut\r\nContent-Disposition: form-data; name=\"request\"\r\n\r\n");
    body.extend_from_slice(request.to_string().as_bytes());
    body.extend_from_slice(b"\r\n--cut--\r\n");
    let headers = [
        ("Authorization", format!("Bearer {token}")),
        ("Content-Type", "multipart/form-data; boundary=cut".to_owned()),
    ];
    world.raw("POST", "/api/v1/plugins", &headers, &body).await
}

#[tokio::test]
async fn a_plugin_is_brought_by_hand_asked_disabled_and_uninstalled() {
    let world = World::new().await;
    let operator = world.operator().await;
    let member = world.member("acme", OrgRole::User).await;
    let manifest = json!({"name": "session-list", "version": "1.0.0", "type": "api", "permissions": ["sessions:read"],
        "entrypoints": {"api": "sessions.wasm"}});
    let archive = package(&[("plugin.json", manifest.to_string().as_bytes()), ("sessions.wasm", MODULE)]);
    upload(&world, &member, &archive, &json!({})).await.refused(403, "E_FORBIDDEN");
    let unread = upload(&world, &operator, &archive, &json!({})).await;
    assert_eq!(unread.refused(400, "E_INVALID").fields(), ["permissions"]);
    let wrong = upload(&world, &operator, b"no archive", &json!({"permission": []})).await;
    assert_eq!(wrong.refused(400, "E_INVALID").fields(), ["permission"]);
    let made = upload(&world, &operator, &archive, &json!({"permissions": ["sessions:read"]})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["id"].as_i64().unwrap();
    assert_eq!((&made.body["enabled"], &made.body["pluginType"]), (&json!(true), &json!("api")));

    let ask = "/api/v1/plugins/session-list/api/all";
    world.call("GET", ask, "", None).await.refused(401, "E_UNAUTHENTICATED");
    let answer = world.call("POST", ask, &member, Some(json!({"any": "body"}))).await;
    assert_eq!((answer.status, &answer.body), (200, &json!({"ok": []})));
    assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));

    let path = format!("/api/v1/plugins/{id}");
    let off = world.call("POST", &format!("{path}/disable"), &operator, None).await;
    assert_eq!((off.status, &off.body["enabled"]), (200, &json!(false)));
    world.call("GET", ask, &member, None).await.refused(404, "E_NOT_FOUND");
    let unnamed = world.call("GET", "/api/v1/plugins/session%00list/api/all", &member, None).await;
    unnamed.refused(404, "E_NOT_FOUND");
    assert_eq!(world.call("DELETE", &path, &operator, None).await.status, 204);
    let listed = world.call("GET", "/api/v1/plugins", &operator, None).await;
    assert_eq!(listed.body, json!({"plugins": [], "total": 0, "nextCursor": null}));
}

#[tokio::test]
async fn an_archive_of_any_kind_is_taken_and_what_is_no_plain_folder_is_refused() {
    let world = World::new().await;
    let operator = world.operator().await;
    let manifest = |name: &str| json!({"name": name, "version": "1.0.0", "type": "theme", "entrypoints": {"ui": "a.css"}});
    let gzip = |content: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(content).unwrap();
        gzip.finish().unwrap()
    };
    let (zipped, gzipped) = (manifest("zipped").to_string(), manifest("gzipped").to_string());
    let archives = [
        ("zipped", zip(&[("plugin.json", zipped.as_bytes()), ("a.css", b"a{}")])),
        ("gzipped", gzip(&package(&[("in/plugin.json", gzipped.as_bytes()), ("in/a.css", b"a{}")]))),
    ];
    for (name, archive) in archives {
        let made = upload(&world, &operator, &archive, &json!({})).await;
        assert_eq!(made.status, 201, "{made:?}");
        let shown = world.raw("GET", &format!("/plugins/{name}/"), &[], b"").await;
        assert_eq!((shown.status, shown.text.as_str()), (200, "a{}"));
    }
    // Two entries of one name, which no tool writes.
    let mut twice = zip(&[("plugin.json", zipped.as_bytes()), ("a.css", b"a{}"), ("b.css", b"b{}")]);
    while let Some(at) = twice.windows(5).position(|name| name == b"b.css") {
        twice[at] = b'a';
    }
    let zeros = vec![0; 17 * 1024 * 1024];
    for hostile in [
        zip(&[("../plugin.json", zipped.as_bytes())]),
        zip(&[("plugin.json", zipped.as_bytes()), ("a.css", &zeros)]),
        gzip(&package(&[("plugin.json", gzipped.as_bytes()), ("a.css", &zeros)])),
        twice,
        b"PK\x03\x04 and nothing more".to_vec(),
    ] {
        let refused = upload(&world, &operator, &hostile, &json!({})).await;
        assert_eq!(refused.refused(400, "E_INVALID").fields(), ["archive"]);
    }
}

#[tokio::test]
async fn the_icon_of_a_plugin_is_a_picture_that_does_nothing_and_is_kept() {
    let world = World::new().await;
    let operator = world.operator().await;
    let member = world.member("acme", OrgRole::User).await;
    let svg: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    let brought = |name: &str, icon: &str, content: &[u8]| {
        let manifest = json!({"name": name, "version": "1.0.0", "type": "theme", "icon": icon, "entrypoints": {"ui": "a.css"}});
        package(&[("plugin.json", manifest.to_string().as_bytes()), ("a.css", b"a{}"), ("icon.svg", content)])
    };
    let made = upload(&world, &operator, &brought("drawn", "./icon.svg", svg), &json!({})).await;
    let (url, id) = (made.body["iconUrl"].as_str().unwrap().to_owned(), made.body["id"].as_i64().unwrap());
    assert!(url.starts_with(&format!("/api/v1/plugins/{id}/icon?v=")), "{url}");
    let ask = async |path: &str, token: &str, more: Option<(&'static str, String)>| {
        let mut headers = vec![("Authorization", format!("Bearer {token}"))];
        headers.extend(more);
        world.raw("GET", path, &headers, b"").await
    };
    let shown = ask(&url, &operator, None).await;
    assert_eq!((shown.status, shown.text.as_bytes()), (200, svg));
    for (name, value) in [
        ("content-type", "image/svg+xml"),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        ("content-disposition", "attachment; filename=\"icon.svg\""),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(shown.header(name), Some(value), "{name}");
    }
    let tag = shown.header("etag").unwrap().to_owned();
    let again = ask(&url, &operator, Some(("If-None-Match", tag))).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    let plain = ask(&format!("/api/v1/plugins/{id}/icon"), &operator, None).await;
    assert_eq!((plain.status, plain.header("cache-control")), (200, Some("private, no-cache")));
    assert_eq!(ask(&url, &member, None).await.status, 403);

    let page = upload(&world, &operator, &brought("page", "icon.svg", b"<html></html>"), &json!({})).await;
    assert_eq!(ask(page.body["iconUrl"].as_str().unwrap(), &operator, None).await.status, 404);
    let none = upload(&world, &operator, &api_plugin("plain"), &json!({})).await;
    assert_eq!(none.body["iconUrl"], json!(""));
    let path = format!("/api/v1/plugins/{}/icon", none.body["id"]);
    ask(&path, &operator, None).await.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn a_plugin_that_is_not_there_is_said_before_what_is_wrong_with_the_body() {
    let world = World::new().await;
    let operator = world.operator().await;
    for (method, path) in [
        ("PATCH", "/api/v1/plugins/999999"),
        ("POST", "/api/v1/plugins/999999/upgrade"),
        ("POST", "/api/v1/plugins/catalog/999999/install"),
    ] {
        let answer = world.call(method, path, &operator, Some(json!({"config": 1}))).await;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_page_of_a_plugin_is_shown_in_a_sandbox_and_nothing_beside_it() {
    let world = World::new().await;
    let operator = world.operator().await;
    let manifest =
        json!({"name": "board", "version": "1.0.0", "type": "ui", "entrypoints": {"ui": "index.html"}});
    let archive =
        package(&[("plugin.json", manifest.to_string().as_bytes()), ("index.html", b"<p>hello</p>")]);
    assert_eq!(upload(&world, &operator, &archive, &json!({})).await.status, 201);
    let shown = world.raw("GET", "/plugins/board/", &[], b"").await;
    assert_eq!((shown.status, shown.text.as_str()), (200, "<p>hello</p>"));
    let policy = shown.header("content-security-policy").unwrap();
    for part in ["sandbox allow-scripts;", "default-src 'none';", "connect-src 'none';", "base-uri 'none';"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
    for hidden in [
        "board/plugin.json",
        "board/./plugin.json",
        "board/%2e/plugin.json",
        "board/../board/index.html",
        "board/%2e%2e/index.html",
        "board/..%2findex.html",
        "board/%00",
        "board/gone.html",
        "bo%00ard/index.html",
    ] {
        let answer = world.raw("GET", &format!("/plugins/{hidden}"), &[], b"").await;
        assert!(matches!(answer.status, 400 | 404), "{hidden}: {answer:?}");
    }
}
