//! Every operation that changes something writes a line that says what. A new one fails the test until it stands here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidegate_test_support::BOOTSTRAP_KEY;

use crate::{
    support::World,
    walk::{Ask, Stage, Who, new_group, unique, walked, who_may},
};

/// What a line says of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// What there is now.
    After,
    /// What there was.
    Before,
    /// Both.
    Both,
    /// That it was done.
    Nothing,
}

/// Whose log the line stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Log {
    Organization,
    Platform,
    /// What operators do to organizations of others.
    Each,
}

/// What an operation writes.
#[derive(Debug, Clone, Copy)]
enum Writes {
    Line(&'static str, Says, Log),
    /// None, and why.
    None(&'static str),
}

use Log::{Each, Organization, Platform};
use Says::{After, Before, Both, Nothing};
use Writes::{Line, None as No};

const TABLE: &[(&str, Writes)] = &[
    ("POST /auth/setup", Line("platform.bootstrap", After, Each)),
    ("POST /auth/login", Line("login.create", Nothing, Platform)),
    ("POST /auth/refresh", No("goes on with a login whose line stands; a replay has one of its own")),
    ("POST /auth/exchange", No("a token of five minutes for what its owner may do anyway")),
    ("POST /auth/logout", Line("login.end", Nothing, Platform)),
    ("POST /auth/switch", Line("auth.switch", Both, Platform)),
    (
        "POST /auth/password/reset",
        No("says nothing of any user: whoever sends the mail writes the line, if there is one"),
    ),
    ("POST /auth/password/new", Line("user.password_reset", Nothing, Each)),
    ("POST /auth/password", Line("user.change_password", Nothing, Platform)),
    ("DELETE /auth/logins/{id}", Line("auth.revoke_login", Nothing, Platform)),
    ("DELETE /auth/tokens/{id}", Line("token.revoke", Before, Organization)),
    ("POST /oauth/device/code", No("lets nobody in: whoever decides about it has a line")),
    ("POST /oauth/device/token", Line("token.issue", After, Organization)),
    ("PATCH /users/me", Line("user.update", Both, Platform)),
    ("POST /users", Line("user.create", After, Organization)),
    ("PATCH /users/{id}", Line("user.update", Both, Each)),
    ("DELETE /users/{id}", Line("user.delete", Before, Each)),
    ("PUT /users/{id}/quota", Line("quota.set", Both, Organization)),
    ("DELETE /users/{id}/quota", Line("quota.reset", Before, Organization)),
    ("POST /quotas/check", No("a dry run")),
    ("POST /groups", Line("group.create", After, Organization)),
    ("PATCH /groups/{id}", Line("group.update", Both, Organization)),
    ("DELETE /groups/{id}", Line("group.delete", Before, Organization)),
    ("POST /groups/{id}/members", Line("group.member.add", After, Organization)),
    ("PATCH /groups/{id}/members/{userId}", Line("group.member.set_role", Both, Organization)),
    ("DELETE /groups/{id}/members/{userId}", Line("group.member.remove", Before, Organization)),
    ("PUT /groups/{id}/quota", Line("quota.set", Both, Organization)),
    ("DELETE /groups/{id}/quota", Line("quota.reset", Before, Organization)),
    ("POST /organizations", Line("organization.create", After, Organization)),
    ("PATCH /organizations/{id}", Line("organization.update", Both, Organization)),
    ("DELETE /organizations/{id}", Line("organization.delete", Both, Organization)),
    ("POST /organizations/{id}/transfer", Line("organization.transfer", Both, Organization)),
    ("PUT /organizations/{id}/quota", Line("quota.set", Both, Organization)),
    ("DELETE /organizations/{id}/quota", Line("quota.reset", Before, Organization)),
    ("POST /organizations/{id}/members", Line("member.add", After, Organization)),
    ("PATCH /organizations/{id}/members/{userId}", Line("member.set_role", Both, Organization)),
    ("DELETE /organizations/{id}/members/{userId}", Line("member.remove", Before, Organization)),
    ("POST /organizations/{id}/invites", Line("invite.create", After, Organization)),
    ("POST /organizations/{id}/invites/{inviteId}/revoke", Line("invite.revoke", Both, Organization)),
    ("POST /invites/{id}/accept", Line("invite.accept", Both, Organization)),
    ("POST /invites/{id}/decline", Line("invite.decline", Both, Organization)),
    ("POST /organizations/{id}/keys", Line("key.create", After, Organization)),
    ("POST /orgs/{id}/keys", Line("key.create", After, Organization)),
    ("POST /keys/{id}/revoke", Line("key.revoke", Before, Organization)),
    ("POST /keys/{id}/rotate", Line("key.rotate", Both, Organization)),
    ("GET /audit/export", Line("audit.export", Nothing, Organization)),
    ("POST /sessions", Line("session.start", After, Organization)),
    ("DELETE /sessions/{id}", Line("session.stop", Both, Organization)),
    ("POST /sessions/{id}/terminate", Line("session.stop", Both, Organization)),
    ("PUT /sessions/{id}/hibernate", Line("session.hibernate", Both, Organization)),
    ("PUT /sessions/{id}/wake", Line("session.wake", Both, Organization)),
    ("PATCH /sessions/{id}/tags", Line("session.tags", Both, Organization)),
    ("POST /sessions/{id}/connect", No("a ticket of seconds for what its owner may open anyway")),
    ("POST /sessions/{id}/disconnect", Line("session.disconnect", Nothing, Organization)),
    (
        "POST /sessions/{id}/heartbeat",
        No("says that somebody is there; the reasons are kept beside the session"),
    ),
    ("POST /sessions/{id}/extend", Line("session.extend", Both, Organization)),
    ("POST /sessions/{id}/shares", Line("session.share", After, Organization)),
    ("DELETE /sessions/{id}/shares/{shareId}", Line("session.unshare", Before, Organization)),
    ("PUT /organizations/{id}/session-policy", Line("organization.session_policy", Both, Organization)),
    ("POST /events/ticket", No("a ticket of seconds for what its owner may hear anyway")),
    ("POST /catalog/templates/{id}/rate", Line("template.rate", After, Platform)),
    ("DELETE /catalog/templates/{id}/rate", Line("template.unrate", Nothing, Platform)),
    ("POST /plugins/catalog/{id}/rate", Line("plugin.rate", After, Platform)),
    ("DELETE /plugins/catalog/{id}/rate", Line("plugin.unrate", Nothing, Platform)),
    ("POST /applications", Line("application.install", After, Organization)),
    ("PUT /applications/{id}", Line("application.update", Both, Organization)),
    ("PUT /applications/{id}/enabled", Line("application.disable", Both, Organization)),
    ("DELETE /applications/{id}", Line("application.remove", Before, Organization)),
    ("POST /applications/{id}/groups", Line("application.group.add", After, Organization)),
    ("PATCH /applications/{id}/groups/{groupId}", Line("application.group.change", Both, Organization)),
    ("DELETE /applications/{id}/groups/{groupId}", Line("application.group.remove", Before, Organization)),
    (
        "PUT /sessions/{id}/terminal-source",
        No("the walk has no NATS, without which nothing is bound; with one: see recorded.rs"),
    ),
    ("DELETE /sessions/{id}/terminal-source", Line("session.unrecord", Before, Organization)),
    ("POST /sources", Line("source.create", After, Organization)),
    ("DELETE /sources/{handle}", Line("source.delete", Before, Organization)),
    ("POST /sources/{handle}/pipes", Line("pipe.create", After, Organization)),
    ("PATCH /sources/{handle}/pipes/{name}", Line("pipe.update", Both, Organization)),
    ("DELETE /sources/{handle}/pipes/{name}", Line("pipe.delete", Before, Organization)),
    (
        "POST /sources/{handle}/pipes/{name}/messages",
        No("a message is kept with its sender in the pipe itself, and there are too many of them for a log"),
    ),
    ("PUT /sources/{handle}/pipes/{name}/place", No("how far somebody has read is theirs, and kept as such")),
    (
        "POST /sources/{handle}/pipes/{name}/open",
        No("says how a client of NATS reads or writes what its owner may anyway"),
    ),
    ("POST /sources/{handle}/grants", Line("source.grant", After, Organization)),
    ("DELETE /sources/{handle}/grants/{grantId}", Line("source.revoke", Before, Organization)),
    ("DELETE /homes/{id}", Line("home.delete", Before, Organization)),
    ("POST /agents/register", Line("agent.register", After, Platform)),
    ("POST /agents/{agentId}/heartbeat", No("what an agent says of itself is no change that somebody made")),
    ("POST /admin/agents/{agentId}/approve", Line("agent.approve", Both, Platform)),
    ("POST /admin/agents/{agentId}/reject", Line("agent.reject", Both, Platform)),
    ("POST /admin/agents/{agentId}/rotate-key", Line("agent.rotate_key", Nothing, Platform)),
    ("POST /admin/agents/{agentId}/revoke-key", Line("agent.revoke_key", Nothing, Platform)),
    ("PATCH /admin/agents/{agentId}", Line("agent.update", Both, Platform)),
    ("DELETE /admin/agents/{agentId}", Line("agent.remove", Nothing, Platform)),
    ("POST /admin/agents/{agentId}/drain", Line("agent.drain", Both, Platform)),
    ("POST /admin/agents/{agentId}/undrain", Line("agent.undrain", Before, Platform)),
    ("POST /admin/agents/{agentId}/command", Line("agent.command", Nothing, Platform)),
    ("POST /admin/quarantine/{agentId}/{sessionId}/stop", Line("agent.command", Nothing, Platform)),
    (
        "POST /admin/quarantine/{agentId}/{sessionId}/forget",
        Line("agent.quarantine.forget", Nothing, Platform),
    ),
    ("POST /admin/sessions/{id}/terminate", Line("session.stop", Before, Each)),
    ("GET /admin/audit/export", Line("audit.export", Nothing, Platform)),
    ("POST /admin/users", Line("user.create", After, Each)),
    ("PATCH /admin/users/{id}", Line("user.update", Both, Each)),
    ("DELETE /admin/users/{id}", Line("user.delete", Before, Each)),
    ("POST /admin/users/{id}/password", Line("user.reset_password", Nothing, Each)),
    ("POST /admin/quotas", Line("quota.set", Both, Each)),
    ("PUT /admin/quotas/{username}", Line("quota.set", Both, Each)),
    ("DELETE /admin/quotas/{username}", Line("quota.reset", Before, Each)),
    ("PUT /admin/organizations/{id}/quota", Line("quota.ceiling", Both, Each)),
    ("DELETE /admin/organizations/{id}/quota", Line("quota.ceiling.reset", Both, Each)),
    ("POST /admin/organizations", Line("organization.create", After, Each)),
    ("PATCH /admin/organizations/{id}", Line("organization.update", Both, Each)),
    ("DELETE /admin/organizations/{id}", Line("organization.delete", Both, Each)),
    ("POST /admin/organizations/{id}/transfer", Line("organization.transfer", Both, Each)),
    ("POST /plugins", No("without an archive nothing is installed; with one: see the service's tests")),
    ("POST /plugins/catalog/{id}/install", No("the catalog of the walk is empty: as with an archive")),
    ("PATCH /plugins/{id}", Line("plugin.configure", Both, Platform)),
    ("DELETE /plugins/{id}", Line("plugin.uninstall", Before, Platform)),
    ("POST /plugins/{id}/enable", Line("plugin.enable", Both, Platform)),
    ("POST /plugins/{id}/disable", Line("plugin.disable", Both, Platform)),
    (
        "POST /plugins/{id}/upgrade",
        No("the catalog of the walk is empty; with an archive: see the service's tests"),
    ),
    ("POST /plugins/{id}/rollback", No("there is no version before; with one: see the service's tests")),
    (
        "POST /plugins/{id}/deliveries/{deliveryId}/redeliver",
        No("there was no event; with one: see the service's tests"),
    ),
    ("POST /catalog/repositories", Line("repository.add", After, Platform)),
    ("PATCH /catalog/repositories/{id}", Line("repository.change", Both, Platform)),
    ("DELETE /catalog/repositories/{id}", Line("repository.remove", Before, Platform)),
    ("POST /catalog/repositories/{id}/sync", Line("repository.sync", Nothing, Platform)),
    (
        "POST /catalog/repositories/{id}/webhook",
        No("asks for a sync that would come by itself; nobody of ours asks"),
    ),
];

/// A line as the database has it.
#[derive(Debug)]
struct Written {
    action: String,
    says: Says,
    of_platform: bool,
}

async fn lines(world: &World) -> BTreeMap<String, Written> {
    let sql = "SELECT id::text, action, before IS NOT NULL, after IS NOT NULL, org_id IS NULL FROM audit_log";
    let rows = world.db.superuser().await.query(sql, &[]).await.unwrap();
    let says = |before, after| match (before, after) {
        (true, true) => Both,
        (true, false) => Before,
        (false, true) => After,
        (false, false) => Nothing,
    };
    rows.iter()
        .map(|row| {
            let says = says(row.get(2), row.get(3));
            (row.get(0), Written { action: row.get(1), says, of_platform: row.get(4) })
        })
        .collect()
}

/// What is wrong with what was written.
fn wrong(new: &[Written], (action, says, log): (&str, Says, Log)) -> Option<String> {
    let stands = |platform: bool| {
        new.iter().any(|line| line.action == action && line.says == says && line.of_platform == platform)
    };
    let stands = match log {
        Organization => stands(false),
        Platform => stands(true),
        Each => stands(false) && stands(true),
    };
    (!stands).then(|| format!("wants {action} ({says:?}, {log:?}), but wrote {new:?}"))
}

impl Stage {
    /// A request that changes something for sure.
    async fn change(&self, operation: &str, who: Who) -> Ask {
        let mut ask = self.ask(operation, who, true).await;
        let token = ask.token.clone().unwrap_or_else(|| self.token(who).to_owned());
        match operation {
            "POST /auth/login" => {
                let name = self.fresh().await.name;
                ask.body = Some(json!({"username": name, "password": format!("tidewater {name}")}));
            }
            "POST /organizations/{id}/members" => {
                ask.body = Some(json!({"userId": self.fresh().await.id, "role": "user"}));
            }
            "PATCH /groups/{id}" => ask.body = Some(json!({"displayName": unique("Walked")})),
            "POST /groups" => ask.body = Some(new_group()),
            _ if operation.ends_with("/quota") || operation.contains("/admin/quotas") => {
                if operation.starts_with("DELETE") {
                    let body = json!({"maxSessions": 77});
                    self.done_by(&token, "PUT", &ask.path, body).await;
                } else if let Some(body) = &mut ask.body {
                    // Another one than whoever walked here before has set.
                    body["maxSessions"] = Value::from(1_000 + operation.len());
                }
            }
            _ => {}
        }
        ask
    }
}

/// Operations that need no user's credential, asked for by hand.
async fn by_hand(stage: &Stage, operation: &str) -> bool {
    let world = &stage.world;
    let answer = match operation {
        "POST /agents/register" => {
            let key = [("X-Agent-API-Key", BOOTSTRAP_KEY.to_owned())];
            let body = json!({"agentId": unique("vm"), "platform": "vm"}).to_string();
            world.raw("POST", "/api/v1/agents/register", &key, body.as_bytes()).await
        }
        "POST /oauth/device/token" => {
            let own = stage.fresh().await;
            let caller = world.services.logins.authenticate(&own.token, None).await.unwrap();
            let (devices, org) = (&world.services.devices, caller.org().unwrap().org_id());
            let codes = devices.create_device_code("walk", None).await.unwrap();
            devices.approve_device_code(&caller, &codes.user_code.to_string(), org, None).await.unwrap();
            let body = json!({"device_code": codes.device_code.expose()});
            world.call("POST", "/oauth/device/token", "", Some(body)).await
        }
        "POST /auth/password/new" => {
            let own = stage.fresh().await;
            let token = crate::forgotten::mailed(world, &own.id, &own.name).await;
            let body = json!({"token": token, "newPassword": format!("lower tide {}", own.name)});
            world.call("POST", "/api/v1/auth/password/new", "", Some(body)).await
        }
        _ => return false,
    };
    assert!((200..300).contains(&answer.status), "{operation}: {answer:?}");
    true
}

#[tokio::test]
async fn every_change_writes_its_line() {
    let stage = Stage::new().await;
    let table: BTreeMap<&str, Writes> = TABLE.iter().copied().collect();
    let documented: BTreeSet<String> = walked().into_iter().collect();
    let mut complaints = Vec::new();
    for operation in &documented {
        let Some(writes) = table.get(operation.as_str()).copied() else {
            let reads = operation.starts_with("GET ");
            assert!(reads, "{operation} is not in the table: say in audited.rs which line it writes");
            continue;
        };
        let Line(action, says, log) = writes else { continue };
        // Once for each platform; asserted below, where nobody is set up yet.
        if operation == "POST /auth/setup" {
            continue;
        }
        let mut known = lines(&stage.world).await;
        if !by_hand(&stage, operation).await {
            let who = who_may(operation);
            let ask = stage.change(operation, who).await;
            known = lines(&stage.world).await;
            let answer = stage.send(operation, who, &ask).await;
            assert!((200..300).contains(&answer.status), "{operation} as {who:?}: {answer:?}");
        }
        let all = lines(&stage.world).await;
        let new: Vec<Written> =
            all.into_iter().filter(|(id, _)| !known.contains_key(id)).map(|(_, line)| line).collect();
        complaints.extend(wrong(&new, (action, says, log)).map(|what| format!("{operation} {what}")));
        if operation.contains("/sessions") {
            stage.end_all().await;
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    for (operation, why) in TABLE {
        assert!(documented.contains(*operation), "{operation} is gone: take it off the table");
        assert!(!matches!(why, No("")), "{operation} writes nothing, and nobody says why");
    }
}

#[tokio::test]
async fn the_setup_and_what_a_console_makes_say_what_they_made() {
    let world = World::new().await;
    let body =
        json!({"password": "tidewater gate", "passwordConfirm": "tidewater gate", "email": "a@example.com"});
    assert_eq!(world.call("POST", "/api/v1/auth/setup", "", Some(body)).await.status, 200);
    let new: Vec<Written> = lines(&world).await.into_values().collect();
    assert_eq!(wrong(&new, ("platform.bootstrap", After, Each)), None);
    drop(world.somebody("acme", tidegate_model::OrgRole::User).await);
    let new: Vec<Written> = lines(&world).await.into_values().collect();
    for action in ["organization.create", "user.create"] {
        assert_eq!(wrong(&new, (action, After, Each)), None);
    }
}

#[tokio::test]
async fn what_cannot_be_written_down_in_the_platforms_log_is_not_done_in_an_organization() {
    let world = World::new().await;
    let (root, owner) = (world.admin().await, world.owner("acme").await);
    let heir = world.somebody("acme", tidegate_model::OrgRole::User).await;
    let id: String = world.db.look("SELECT id::text FROM organizations WHERE name = 'acme'").await;
    world
        .db
        .execute(
            "CREATE FUNCTION full_log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the log is full'; END $$;
             CREATE TRIGGER full_log BEFORE INSERT ON audit_log FOR EACH ROW WHEN (NEW.org_id IS NULL) EXECUTE FUNCTION full_log()",
        )
        .await;
    let organization = format!("/api/v1/admin/organizations/{id}");
    let quota = format!("/api/v1/admin/quotas/{}?organization=acme", heir.name);
    for (method, path, body) in [
        ("PATCH", organization.clone(), json!({"displayName": "Another name", "status": "suspended"})),
        ("PATCH", organization.clone(), json!({"status": "deleted"})),
        ("DELETE", organization.clone(), json!({})),
        ("POST", format!("{organization}/transfer"), json!({"userId": heir.id})),
        ("PUT", quota, json!({"maxSessions": 7})),
        ("PUT", format!("{organization}/quota"), json!({"maxSessions": 7})),
    ] {
        let answer = world.call(method, &path, &root, Some(body)).await;
        assert_eq!(answer.status, 500, "{method} {path}: {answer:?}");
    }
    let about =
        format!("SELECT count(*) FROM audit_log WHERE org_id = '{id}' AND action NOT LIKE '%.create'");
    assert_eq!(world.db.look::<i64>(&about).await, 0);
    let now = world.call("GET", "/api/v1/organizations/acme", &owner.token, None).await.body;
    assert_eq!(
        (&now["displayName"], &now["ownerUserId"]),
        (&"Of somebody".into(), &owner.id.as_str().into())
    );
    let quotas = "SELECT (SELECT count(*) FROM user_quotas) + (SELECT count(*) FROM organization_quotas)";
    assert_eq!(world.db.look::<i64>(quotas).await, 0);
}
