//! Every operation answers 401 bare and 404 with another organization's credential, or stands in a list with its reason.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate_control_plane::http::document;
use tidegate_model::OrgRole;

use crate::support::World;

/// Operations that let in whoever comes.
pub(crate) const OPEN: &[(&str, &str)] = &[
    ("GET /healthz", "a probe has no credential and is told nothing"),
    ("GET /readyz", "a probe has no credential and is told four booleans"),
    ("GET /metrics", "loopback alone, or a token of its own: see errors.rs"),
    ("POST /api/v1/auth/login", "the credential is in the body"),
    ("POST /api/v1/auth/exchange", "the credential is in the body"),
    ("POST /api/v1/auth/refresh", "the credential is in the body"),
    (
        "POST /api/v1/auth/password/reset",
        "whoever forgot their password has no other credential: see forgotten.rs",
    ),
    ("POST /api/v1/auth/password/new", "the credential is in the body"),
    ("POST /oauth/device/code", "a device asks to be let in, which gives it nothing yet: see devices.rs"),
    ("POST /oauth/device/token", "the credential is in the body"),
    ("POST /api/v1/auth/setup", "makes the first admin, and refuses once there is one: see setup.rs"),
    ("GET /api/v1/auth/providers", "what the login page shows, before anybody can log in"),
    ("GET /api/v1/auth/github", "begins a sign-in, which gives nothing yet: see sign_in.rs"),
    ("GET /api/v1/auth/github/callback", "the provider's word is the credential: see sign_in.rs"),
    ("GET /api/v1/auth/oidc/{provider}", "begins a sign-in, which gives nothing yet: see sign_in.rs"),
    ("GET /api/v1/auth/oidc/{provider}/callback", "the provider's word is the credential: see sign_in.rs"),
    ("GET /api/v1/auth/setup/status", "says whether there is an admin, before anybody can log in"),
];

/// Operations about nothing that belongs to one organization.
const NO_TENANT: &[(&str, &str)] = &[
    ("POST /api/v1/auth/logout", "the caller's own login"),
    ("POST /api/v1/auth/password", "the caller's own password"),
    ("GET /api/v1/auth/logins", "the caller's own logins"),
    ("GET /api/v1/users/me", "the caller's own user"),
    ("PATCH /api/v1/users/me", "the caller's own user"),
    ("GET /api/v1/users", "lists the caller's own organization, asserted in users.rs"),
    ("POST /api/v1/users", "makes one in the caller's own organization"),
    ("GET /api/v1/plugins", "operators only, 403 for anybody else"),
    ("POST /api/v1/plugins", "operators only, 403 for anybody else"),
    ("GET /api/v1/plugins/{id}", "operators only, 403 for anybody else"),
    ("PATCH /api/v1/plugins/{id}", "operators only, 403 for anybody else"),
    ("DELETE /api/v1/plugins/{id}", "operators only, 403 for anybody else"),
    ("POST /api/v1/plugins/{id}/enable", "operators only, 403 for anybody else"),
    ("POST /api/v1/plugins/{id}/disable", "operators only, 403 for anybody else"),
    ("POST /api/v1/plugins/{id}/upgrade", "operators only, 403 for anybody else"),
    ("POST /api/v1/plugins/{id}/rollback", "operators only, 403 for anybody else"),
    ("GET /api/v1/plugins/{id}/secret", "operators only, 403 for anybody else"),
    ("GET /api/v1/plugins/{id}/icon", "operators only, 403 for anybody else"),
    ("GET /api/v1/plugins/{id}/deliveries", "operators only, 403 for anybody else"),
    ("POST /api/v1/plugins/{id}/deliveries/{deliveryId}/redeliver", "operators only, 403 for anybody else"),
    ("POST /api/v1/plugins/catalog/{id}/install", "operators only, 403 for anybody else"),
    ("GET /api/v1/catalog/repositories", "operators only, 403 for anybody else"),
    ("POST /api/v1/catalog/repositories", "operators only, 403 for anybody else"),
    ("GET /api/v1/catalog/repositories/{id}", "operators only, 403 for anybody else"),
    ("PATCH /api/v1/catalog/repositories/{id}", "operators only, 403 for anybody else"),
    ("DELETE /api/v1/catalog/repositories/{id}", "operators only, 403 for anybody else"),
    ("GET /api/v1/catalog/repositories/{id}/problems", "operators only, 403 for anybody else"),
    ("POST /api/v1/catalog/repositories/{id}/sync", "operators only, 403 for anybody else"),
    (
        "POST /api/v1/catalog/repositories/{id}/webhook",
        "belongs to the platform; a signature lets it in, 401 without",
    ),
    ("GET /api/v1/admin/users", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/users", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/users/{id}", "operators only, 403 for anybody else"),
    ("PATCH /api/v1/admin/users/{id}", "operators only, 403 for anybody else"),
    ("DELETE /api/v1/admin/users/{id}", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/users/{id}/password", "operators only, 403 for anybody else"),
    ("POST /api/v1/auth/switch", "the caller's own login; another organization: see organizations.rs"),
    ("GET /api/v1/auth/tokens", "lists the caller's own, asserted in devices.rs"),
    ("GET /api/v1/me/permissions", "the caller's own rights"),
    ("GET /api/v1/organizations", "lists the caller's own, asserted in organizations.rs"),
    ("POST /api/v1/organizations", "makes one of the caller's own"),
    ("GET /api/v1/invites", "the caller's own, asserted in invites.rs"),
    ("GET /api/v1/groups", "lists the organization's, asserted empty in quotas.rs"),
    ("POST /api/v1/groups", "makes one in the caller's own organization"),
    ("POST /api/v1/quotas/check", "the caller's own; for others: see quotas.rs"),
    ("GET /api/v1/admin/quotas", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/quotas", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/quotas/{username}", "operators only, 403 for anybody else"),
    ("PUT /api/v1/admin/quotas/{username}", "operators only, 403 for anybody else"),
    ("DELETE /api/v1/admin/quotas/{username}", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/organizations/{id}/quota", "operators only, 403 for anybody else"),
    ("PUT /api/v1/admin/organizations/{id}/quota", "operators only, 403 for anybody else"),
    ("DELETE /api/v1/admin/organizations/{id}/quota", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/organizations", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/organizations", "admins only, 403 for anybody else"),
    ("GET /api/v1/admin/organizations/{id}", "operators only, 403 for anybody else"),
    ("PATCH /api/v1/admin/organizations/{id}", "admins only, 403 for anybody else"),
    ("DELETE /api/v1/admin/organizations/{id}", "admins only, 403 for anybody else"),
    ("POST /api/v1/admin/organizations/{id}/transfer", "admins only, 403 for anybody else"),
    (
        "GET /api/v1/sessions",
        "lists what the caller's organization has: asserted empty in sessions of others below",
    ),
    ("GET /api/v1/catalog/templates", "the platform's catalog, the same one for everybody"),
    ("GET /api/v1/catalog/templates/{id}", "the platform's catalog, the same one for everybody"),
    (
        "GET /api/v1/catalog/templates/{id}/ratings",
        "the platform's; who rated is shown of one's own people alone, asserted in catalog.rs",
    ),
    ("POST /api/v1/catalog/templates/{id}/rate", "one's own rating of what is the platform's"),
    ("DELETE /api/v1/catalog/templates/{id}/rate", "one's own rating of what is the platform's"),
    ("GET /api/v1/catalog/icons/{digest}", "the platform's catalog, the same one for everybody"),
    ("GET /api/v1/plugins/catalog", "the platform's catalog, the same one for everybody"),
    ("GET /api/v1/plugins/catalog/{id}", "the platform's catalog, the same one for everybody"),
    ("GET /api/v1/plugins/catalog/{id}/versions", "the platform's catalog, the same one for everybody"),
    ("GET /api/v1/plugins/catalog/{id}/stats", "the platform's catalog, the same one for everybody"),
    (
        "GET /api/v1/plugins/catalog/{id}/ratings",
        "the platform's; who rated is shown of one's own people alone, asserted in catalog.rs",
    ),
    ("POST /api/v1/plugins/catalog/{id}/rate", "one's own rating of what is the platform's"),
    ("DELETE /api/v1/plugins/catalog/{id}/rate", "one's own rating of what is the platform's"),
    ("GET /api/v1/applications", "lists what the caller's organization has"),
    ("GET /api/v1/applications/user", "lists what the caller's organization has"),
    ("POST /api/v1/applications", "makes one in the caller's own organization"),
    ("GET /api/v1/pipes/subscriptions", "lists what the caller reads, asserted in receipts.rs"),
    (
        "GET /api/v1/pipes/members",
        "lists who uses pipes in the caller's organization, asserted in receipts.rs",
    ),
    ("GET /api/v1/sources", "lists what the caller's organization has, asserted empty in sources.rs"),
    ("POST /api/v1/sources", "makes one in the caller's own organization"),
    ("GET /api/v1/homes", "lists what the caller's organization has"),
    ("POST /api/v1/sessions", "makes one in the caller's own organization"),
    ("GET /api/v1/events", "tells what the caller may see, asserted in events.rs"),
    ("POST /api/v1/events/ticket", "a ticket for the caller's own stream"),
    ("POST /api/v1/agents/register", "agents belong to the platform; other keys: see handshake.rs"),
    ("GET /api/v1/agents/connect", "agents belong to the platform; other keys: see handshake.rs"),
    ("GET /api/v1/agents/tunnels/{id}", "agents belong to the platform; other keys: see handshake.rs"),
    (
        "POST /api/v1/agents/{agentId}/heartbeat",
        "agents belong to the platform; other keys: see handshake.rs",
    ),
    ("GET /api/v1/admin/agents", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/agents/{agentId}", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/agents/{agentId}/approve", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/agents/{agentId}/reject", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/agents/{agentId}/rotate-key", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/agents/{agentId}/revoke-key", "operators only, 403 for anybody else"),
    ("PATCH /api/v1/admin/agents/{agentId}", "operators only, 403 for anybody else"),
    ("DELETE /api/v1/admin/agents/{agentId}", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/sessions", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/sessions/{id}/terminate", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/agents/{agentId}/drain", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/agents/{agentId}/undrain", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/agents/{agentId}/commands", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/commands/{commandId}", "operators only, 403 for anybody else"),
    ("GET /api/v1/audit", "the log of the caller's own organization, asserted in audit.rs"),
    ("GET /api/v1/audit/export", "the log of the caller's own organization, asserted in audit.rs"),
    ("GET /api/v1/admin/audit", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/audit/export", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/agents/{agentId}/command", "operators only, 403 for anybody else"),
    ("GET /api/v1/admin/quarantine", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/quarantine/{agentId}/{sessionId}/stop", "operators only, 403 for anybody else"),
    ("POST /api/v1/admin/quarantine/{agentId}/{sessionId}/forget", "operators only, 403 for anybody else"),
];

pub(crate) fn operations() -> Vec<(String, String)> {
    let document = serde_json::to_value(document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, all): (&String, &Value)| -> Vec<(String, String)> {
        all.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())).collect()
    };
    paths.iter().flat_map(methods).collect()
}

pub(crate) fn fill(path: &str, id: &str) -> String {
    let path = path.replace("{id}", id).replace("{agentId}", "vm-1").replace("{commandId}", id);
    path.replace("{userId}", id)
        .replace("{inviteId}", id)
        .replace("{port}", "8080")
        .replace("{path}", "index.html")
        .replace("{shareId}", id)
        .replace("{sessionId}", id)
        .replace("{username}", "nobody")
        .replace("{name}", "nobody")
        .replace("{handle}", "nobody")
        .replace("{grantId}", id)
        .replace("{deliveryId}", id)
}

#[tokio::test]
async fn every_operation_is_closed_to_whoever_brings_nothing() {
    let world = World::new().await;
    let open: BTreeSet<&str> = OPEN.iter().map(|(operation, _)| *operation).collect();
    let mut unneeded = open.clone();
    for (method, path) in operations() {
        let operation = format!("{method} {path}");
        let answer = world.call(&method, &fill(&path, &"0".repeat(32)), "", Some(json!({}))).await;
        if answer.status != 401 || path.starts_with("/api/v1/auth/re") || path == "/api/v1/auth/login" {
            assert!(open.contains(operation.as_str()), "{operation} answers {} bare", answer.status);
            unneeded.remove(operation.as_str());
        }
    }
    assert!(unneeded.is_empty(), "no longer needed: {unneeded:?}");
}

/// Every file of a folder, read.
fn sources(folder: &std::path::Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    all
}

#[test]
fn whoever_comes_by_network_is_never_the_console() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for room in ["bins/control-plane/src", "crates/hub/src"] {
        let files = sources(&crates.join(room));
        assert!(files.len() > 10, "{room}");
        for (file, text) in files {
            // A shell on the machine is the proof that `console()` stands for, and no request brings one.
            assert!(!text.contains("::console("), "{file} acts as the console");
            assert!(!text.contains("operators.enter("), "{file} enters an organization as the console");
        }
    }
}

#[tokio::test]
async fn what_belongs_to_another_organization_is_not_found() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.member("acme", OrgRole::User).await;
    let made = world.call("POST", "/api/v1/sessions", &owner, Some(json!({"template": "shell"}))).await;
    let id = made.body["session"]["id"].as_str().unwrap().to_owned();
    let org = made.body["session"]["orgId"].as_str().unwrap().to_owned();
    let stranger = world.member("rival", OrgRole::Admin).await;
    let colleague = world.member("acme", OrgRole::User).await;
    let listed: BTreeSet<&str> = OPEN.iter().chain(NO_TENANT).map(|(operation, _)| *operation).collect();
    let mut unneeded: BTreeSet<&str> = NO_TENANT.iter().map(|(operation, _)| *operation).collect();
    for (method, path) in operations() {
        let operation = format!("{method} {path}");
        if listed.contains(operation.as_str()) {
            unneeded.remove(operation.as_str());
            continue;
        }
        // An organization is there for its members, whatever they may do in it.
        let of_organization = path.starts_with("/api/v1/organizations/{id}");
        let (id, tokens) =
            if of_organization { (&org, vec![&stranger]) } else { (&id, vec![&stranger, &colleague]) };
        for token in tokens {
            // A bad body must not beat what is not there.
            for body in [json!({}), json!({"odd": 1})] {
                let answer = world.call(&method, &fill(&path, id), token, Some(body)).await;
                answer.refused(404, "E_NOT_FOUND");
            }
        }
    }
    assert!(unneeded.is_empty(), "no longer needed: {unneeded:?}");
    assert_eq!(world.call("GET", "/api/v1/sessions", &stranger, None).await.body["total"], 0);
    assert_eq!(world.call("GET", &format!("/api/v1/sessions/{id}"), &owner, None).await.status, 200);
}

#[tokio::test]
async fn an_organization_one_is_no_member_of_is_not_found() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::User).await;
    drop(world.member("rival", OrgRole::User).await);
    let to = |org: &str| [("Authorization", format!("Bearer {token}")), ("X-Tidegate-Org", org.to_owned())];
    assert_eq!(world.raw("GET", "/api/v1/sessions", &to("acme"), b"").await.status, 200);
    for org in ["rival", "nobody", ""] {
        world.raw("GET", "/api/v1/sessions", &to(org), b"").await.refused(404, "E_NOT_FOUND");
    }
}
