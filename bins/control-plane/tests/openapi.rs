//! The OpenAPI document is made from the handlers, whole, and changes on purpose only.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate_control_plane::http::{KEY_NEEDS, document, needs};

fn operations() -> Vec<(String, String, Value)> {
    let document = serde_json::to_value(document()).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

/// The routes as `routes.rs` registers them: prefix, path and the verbs behind it.
fn registered() -> BTreeSet<String> {
    let text = include_str!("../src/http/routes.rs");
    let mut found = BTreeSet::new();
    let mut prefix = "";
    for piece in text.split("fn ").skip(1) {
        prefix = match piece.split('(').next().unwrap() {
            "configure" | "platform" => "",
            "api" => "/api/v1",
            "of_groups" => "/api/v1/groups",
            "of_applications" => "/api/v1/applications",
            "of_sources" => "/api/v1/sources",
            "of_sessions" => "/api/v1/sessions",
            "of_an_organization" => "/api/v1/organizations/{id}",
            "of_plugins" => "/api/v1/plugins",
            "of_the_catalog" => "/api/v1/catalog",
            "of_catalog_plugins" => "/api/v1/plugins/catalog",
            "of_repositories" => "/api/v1/catalog/repositories",
            "of_operators" => "/api/v1/admin",
            other => {
                panic!("{other} registers routes under a prefix that this test does not know, after {prefix}")
            }
        };
        for resource in piece.split("resource(\"").skip(1) {
            let (path, rest) = resource.split_once('"').unwrap();
            let path = path.replace(":.*", "");
            for verb in ["get", "post", "put", "patch", "delete"] {
                if rest.contains(&format!(".route({verb}()")) {
                    found.insert(format!("{} {prefix}{path}", verb.to_uppercase()));
                }
            }
        }
    }
    found
}

#[test]
fn every_route_is_in_the_document_and_every_operation_is_a_route() {
    // Pages for people and the document itself are no operations of the API.
    let pages = [
        "GET /",
        "GET /api/openapi.json",
        "GET /api/docs",
        "GET /style.css",
        "GET /login",
        "POST /login",
        "GET /password/reset",
        "POST /password/reset",
        "GET /password/new",
        "POST /password/new",
        "POST /logout",
        "GET /assets/{name}",
        "GET /theme.css",
        "GET /plugins/{name}/{path}",
        "GET /sessions/{id}",
        "GET /sessions/{id}/state",
        "POST /sessions/{id}/connect",
        "POST /api/v1/http/{id}/.tidegate/enter/{same}",
        "GET /home",
        "POST /home/tokens/{id}/revoke",
        "GET /invites/{id}",
        "POST /invites/{id}",
        "GET /oauth/device/verify",
        "POST /oauth/device/verify",
    ]
    .map(str::to_owned);
    let documented: BTreeSet<String> =
        operations().iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let routes: BTreeSet<String> = registered().into_iter().filter(|route| !pages.contains(route)).collect();
    assert!(routes.len() > 30, "{routes:?}");
    assert_eq!(routes, documented);
}

#[test]
fn every_operation_says_what_it_does_and_what_it_refuses() {
    for (method, path, operation) in operations() {
        assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 8), "{method} {path}");
        let responses = operation["responses"].as_object().unwrap();
        let public = operation["security"].as_array().is_some_and(|all| all.contains(&serde_json::json!({})));
        assert!(public || responses.contains_key("401"), "{method} {path} says nothing of 401");
        assert!(method != "GET" || !operation["requestBody"].is_object(), "{method} {path}");
    }
}

#[test]
fn every_operation_that_takes_an_api_key_says_which_scope_it_needs() {
    let mut unneeded: BTreeSet<String> =
        KEY_NEEDS.iter().map(|(method, path, _)| format!("{method} /api/v1{path}")).collect();
    assert_eq!(unneeded.len(), KEY_NEEDS.len(), "a route stands twice in the table");
    for (method, path, operation) in operations() {
        // Those with a credential of their own say so themselves.
        let takes_keys = operation["security"].is_null();
        assert_eq!(needs(&method, &path).is_some(), takes_keys, "{method} {path} in the table of scopes");
        unneeded.remove(&format!("{method} {path}"));
    }
    assert!(unneeded.is_empty(), "no longer needed: {unneeded:?}");
}

#[test]
fn the_document_changes_on_purpose_only() {
    let document = serde_json::to_value(document()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    insta::assert_json_snapshot!(document);
}
