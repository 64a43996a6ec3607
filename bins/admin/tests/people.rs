//! `tidegate-admin organizations`, `members`, `invites`, `keys`, `tokens`, `groups`, `quota` and `audit`, as an operator
//! types them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

mod console;

use std::{fs, os::unix::fs::PermissionsExt};

use console::Console;
use serde_json::Value;
use tidegate_model::{Clock, NewApiKey, OrgRole, SystemClock};
use tidegate_service::{DeviceError, Minted};
use tidegate_test_support::{TestDb, TestOrg};

/// A database with an organization, and the operator's machine.
struct Stand {
    test: TestDb,
    org: TestOrg,
    console: Console,
}

/// Words about the organization.
fn inside<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [words, &["--organization", "acme"]].concat()
}

impl Stand {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let console = Console::of(&test);
        Self { test, org, console }
    }

    fn says(&self, words: &[&str]) -> String {
        self.console.says(&inside(words))
    }

    fn json(&self, words: &[&str]) -> Value {
        self.console.json(&inside(words))
    }

    fn refused(&self, words: &[&str]) -> String {
        self.console.refused(&inside(words))
    }

    /// Gives the organization to its admin.
    fn own(&self) -> String {
        let admin = self.org.admin.user().username().to_owned();
        let said = self.console.says(&["organizations", "transfer", "acme", &admin]);
        assert!(said.contains(&format!("organization acme is {admin}'s")), "{said}");
        admin
    }

    /// Who wrote lines of this action, of the organization's log and of the platform's.
    async fn written(&self, action: &str) -> (i64, i64) {
        let count = async |org: &str| {
            let sql = format!(
                "SELECT count(*) FROM audit_log WHERE action = '{action}' AND actor = 'console' AND credential IS NULL AND org_id {org}"
            );
            self.test.look::<i64>(&sql).await
        };
        (count("IS NOT NULL").await, count("IS NULL").await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_are_listed_changed_suspended_given_away_and_ended() {
    let stand = Stand::new().await;
    let console = &stand.console;
    stand.test.org_with_admin("bolt").await;
    let list = console.says(&["organizations", "list"]);
    assert!(list.contains("acme") && list.contains("bolt") && list.contains("nobody"), "{list}");
    assert_eq!(console.json(&["organizations", "list"])["total"], 2);
    let changed = console.json(&["organizations", "update", "acme", "--display-name", "Acme & Söhne"]);
    assert_eq!(changed["displayName"], "Acme & Söhne");
    let refused =
        console.refused(&["organizations", "update", "acme", "--display-name", "A", "--namespace", "-"]);
    assert!(refused.contains("displayName: ") && refused.contains("k8sNamespace: "), "{refused}");
    assert!(console.refused(&["organizations", "update", "acme"]).contains("--display-name"));

    let admin = stand.own();
    let shown = console.says(&["organizations", "show", "acme"]);
    assert!(
        shown.contains(&admin) && shown.contains("Acme & Söhne") && shown.contains("unlimited"),
        "{shown}"
    );
    assert_eq!(console.json(&["organizations", "show", "acme"])["usage"]["members"], 1);
    assert!(
        console.refused(&["organizations", "transfer", "acme", "nobody"]).contains("no member is called")
    );
    assert!(console.refused(&["organizations", "show", "zinc"]).contains("organization zinc"));

    assert!(console.says(&["organizations", "suspend", "acme"]).contains("nobody gets in"));
    assert_eq!(console.json(&["organizations", "show", "acme"])["organization"]["status"], "suspended");
    assert_eq!(console.json(&["organizations", "activate", "acme"])["status"], "active");
    assert!(
        console.refused(&["organizations", "delete", "acme", "--confirm", "bolt"]).contains("must be `acme`")
    );
    console.says(&["organizations", "delete", "acme", "--confirm", "acme"]);
    assert_eq!(console.json(&["organizations", "list"])["total"], 1);
    for (action, times) in [
        ("organization.update", 1),
        ("organization.transfer", 1),
        ("organization.status", 2),
        ("organization.delete", 1),
    ] {
        assert_eq!(stand.written(action).await, (times, times), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_added_given_roles_and_removed_and_both_logs_tell() {
    let stand = Stand::new().await;
    stand.test.org_with_admin("bolt").await;
    let bob = stand.test.user_in("bolt", OrgRole::User).await.username;
    let added = stand.json(&["members", "add", &bob.to_uppercase(), "--role", "viewer"]);
    assert_eq!((added["username"].as_str(), added["role"].as_str()), (Some(bob.as_str()), Some("viewer")));
    let said = stand.says(&["members", "set-role", &bob, "maintainer"]);
    assert_eq!(said.trim(), format!("{bob} is a member with the role maintainer"));
    let list = stand.says(&["members", "list"]);
    assert!(list.contains(&bob) && list.contains("maintainer") && list.contains("SINCE"), "{list}");
    assert_eq!(stand.json(&["members", "list"])["total"], 2);
    assert!(stand.refused(&["members", "add", &bob, "--role", "boss"]).contains("boss"));
    assert!(stand.refused(&["members", "add", "nobody-here"]).contains("user nobody-here"));
    let admin = stand.org.admin.user().username().to_owned();
    let kept = stand.refused(&["members", "remove", &admin]);
    assert!(kept.contains("this is the last org_admin"), "{kept}");
    assert!(stand.says(&["members", "remove", &bob]).contains("is no member any more"));
    assert_eq!(stand.json(&["members", "list"])["total"], 1);
    assert!(stand.refused(&["members", "remove", &bob]).contains("no member is called"));
    for action in ["member.add", "member.set_role", "member.remove"] {
        assert_eq!(stand.written(action).await, (1, 1), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invites_are_made_in_the_owners_name_and_taken_back() {
    let stand = Stand::new().await;
    let refused = stand.refused(&["invites", "create", "carol"]);
    assert!(refused.contains("the organization is nobody's"), "{refused}");
    let owner = stand.own();
    let made = stand.json(&["invites", "create", "carol", "--role", "viewer", "--expires-in", "2h"]);
    assert_eq!(
        (made["inviterUsername"].as_str(), made["role"].as_str()),
        (Some(owner.as_str()), Some("viewer"))
    );
    assert!(stand.refused(&["invites", "create", "Carol"]).contains("pending"));
    let bad = stand.refused(&["invites", "create", "a b", "--expires-in", "0"]);
    assert!(bad.contains("username: ") && bad.contains("expiresIn: "), "{bad}");
    let list = stand.says(&["invites", "list"]);
    assert!(list.contains("carol") && list.contains("pending"), "{list}");
    let id = made["id"].as_str().unwrap();
    assert!(stand.says(&["invites", "revoke", id]).contains("the invite of carol is taken back"));
    assert!(stand.refused(&["invites", "revoke", id]).contains("ask for a new one"));
    assert_eq!(stand.json(&["invites", "list"])["invites"][0]["status"], "revoked");
    for action in ["invite.create", "invite.revoke"] {
        assert_eq!(stand.written(action).await, (1, 1), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_made_changed_filled_and_ended_without_their_children() {
    let stand = Stand::new().await;
    let bob = stand.test.user_in("acme", OrgRole::User).await.username;
    stand.says(&["groups", "create", "engineering", "--type", "department"]);
    stand.says(&["groups", "create", "crew", "--parent", "engineering", "--display-name", "The crew"]);
    let list = stand.says(&["groups", "list"]);
    assert!(list.contains("The crew") && list.contains("department"), "{list}");
    let circle = stand.refused(&["groups", "update", "engineering", "--parent", "crew"]);
    assert!(circle.contains("would stand above itself"), "{circle}");
    assert_eq!(stand.json(&["groups", "update", "crew", "--description", "rowers"])["description"], "rowers");
    let added = stand.says(&["groups", "add", "crew", &bob, "--role", "admin"]);
    assert_eq!(added.trim(), format!("{bob} has the role admin in crew"));
    assert!(stand.says(&["groups", "members", "crew"]).contains(&bob));
    assert_eq!(stand.json(&["groups", "show", "crew"])["memberCount"], 1);
    assert!(stand.refused(&["groups", "add", "crew", "nobody"]).contains("no member is called `nobody`"));
    assert!(stand.says(&["groups", "remove", "crew", &bob]).contains("is not in crew any more"));
    let kept = stand.refused(&["groups", "delete", "engineering"]);
    assert!(kept.contains("has groups below it: crew"), "{kept}");
    stand.says(&["groups", "delete", "engineering", "--lift"]);
    let left = stand.json(&["groups", "list"]);
    assert_eq!((&left["total"], &left["groups"][0]["parentId"]), (&1.into(), &Value::Null));
    assert!(stand.refused(&["groups", "show", "engineering"]).contains("no group is called `engineering`"));
    assert_eq!(stand.written("group.create").await, (2, 2));
    assert_eq!(stand.written("group.delete").await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_of_everybody_are_shown_set_within_the_ceiling_and_reset() {
    let stand = Stand::new().await;
    let bob = stand.test.user_in("acme", OrgRole::User).await.username;
    stand.says(&["groups", "create", "crew"]);
    let bound = stand.json(&["quota", "set", "--ceiling", "--sessions", "20", "--memory", "64Gi"]);
    assert_eq!((&bound["maxSessions"], &bound["maxMemory"]), (&20.into(), &"64Gi".into()));
    let above = stand.refused(&["quota", "set", "--sessions", "21"]);
    assert!(above.contains("maxSessions: must not be more than 20"), "{above}");
    let own = stand.says(&["quota", "set", "--sessions", "10"]);
    assert!(
        own.contains("sessions") && own.contains("10") && own.contains("the platform allows it"),
        "{own}"
    );
    let of_bob = ["quota", "set", "--user", &bob, "--sessions", "3", "--cpu", "unlimited"];
    let set = stand.json(&of_bob);
    assert_eq!((&set["maxSessions"], &set["maxCpu"]), (&3.into(), &Value::Null));
    stand.says(&["quota", "set", "--group", "crew", "--memory", "16Gi"]);
    assert_eq!(stand.json(&["quota", "show", "--group", "crew"])["maxMemory"], "16Gi");
    let bad = stand.refused(&["quota", "set", "--cpu", "lots", "--memory=-1Gi"]);
    assert!(bad.contains("maxCpu: ") && bad.contains("maxMemory: "), "{bad}");
    assert!(stand.refused(&["quota", "set", "--sessions", "few"]).contains("such as 5, or unlimited"));
    assert!(stand.refused(&["quota", "set", "--user", &bob]).contains("--sessions"));
    let everybody = stand.console.says(&["quota", "list"]);
    assert!(everybody.contains(&bob) && everybody.contains("0 of 3"), "{everybody}");
    stand.says(&["quota", "reset", "--user", &bob]);
    assert_eq!(stand.console.json(&["quota", "list"])["total"], 0);
    stand.says(&["quota", "reset"]);
    assert_eq!(stand.json(&["quota", "show"])["maxSessions"], 20);
    stand.says(&["quota", "reset", "--ceiling"]);
    assert_eq!(stand.json(&["quota", "show"])["maxSessions"], Value::Null);
    assert_eq!(stand.written("quota.set").await, (3, 3));
    assert_eq!(stand.written("quota.ceiling").await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_tokens_are_listed_and_revoked() {
    let stand = Stand::new().await;
    // The program's clock is the machine's.
    let ahead = SystemClock::new().now() - stand.test.manual_clock().now();
    stand.test.manual_clock().advance(ahead);
    let maker = stand.test.user_in("acme", OrgRole::Admin).await;
    let (services, admin) = (stand.test.services(), &stand.test.caller(&maker).await);
    let new = NewApiKey { label: "ci".into(), scopes: "sessions:read".parse().unwrap(), expires_at: None };
    let scope = admin.org().unwrap();
    let minted = services.keys.insert_api_key(scope, &new, None, None, |_| ().into()).await.unwrap();
    let Minted::New(key, plaintext) = minted else { panic!("{minted:?}") };
    let list = stand.says(&["keys", "list"]);
    assert!(list.contains("ci") && list.contains("stands") && !list.contains(plaintext.expose()), "{list}");
    services.logins.authenticate(plaintext.expose(), None).await.unwrap();
    stand.says(&["keys", "revoke", &key.id.to_string()]);
    services.logins.authenticate(plaintext.expose(), None).await.unwrap_err();
    assert!(stand.json(&["keys", "list"])["keys"][0]["revokedAt"].is_string());

    let codes = services.devices.create_device_code("a laptop", None).await.unwrap();
    let typed = codes.user_code.to_string();
    services.devices.approve_device_code(admin, &typed, stand.org.id, None).await.unwrap();
    let issued = services.devices.consume_device_code(codes.device_code.expose(), None).await;
    let issued = issued.unwrap_or_else(|error: DeviceError| panic!("{error:?}"));
    let name = admin.user().username().to_owned();
    let tokens = stand.console.json(&["tokens", "list", "--user", &name]);
    let id = tokens["tokens"][0]["id"].as_str().unwrap();
    let list = stand.console.says(&["tokens", "list", "--user", &name]);
    assert!(
        list.contains("a laptop") && list.contains("until ") && !list.contains(issued.token.expose()),
        "{list}"
    );
    services.logins.authenticate(issued.token.expose(), None).await.unwrap();
    // Of this user alone: the id of a token says whose it is.
    let bob = stand.test.user_in("acme", OrgRole::User).await.username;
    assert!(
        stand.console.refused(&["tokens", "revoke", id, "--user", &bob]).contains(&format!("token {id}"))
    );
    assert!(stand.console.says(&["tokens", "revoke", id, "--user", &name]).contains("is revoked"));
    services.logins.authenticate(issued.token.expose(), None).await.unwrap_err();
    stand.console.says(&["tokens", "revoke", id, "--user", &name]);
    for action in ["key.revoke", "token.revoke"] {
        assert_eq!(stand.written(action).await, (1, 1), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_searched_and_exported_as_json_lines_and_csv() {
    let stand = Stand::new().await;
    let console = &stand.console;
    stand.says(&["groups", "create", "crew"]);
    stand.says(&["groups", "create", "deck"]);
    let found = stand.json(&["audit", "list", "--action", "group.create"]);
    assert_eq!((found["total"].as_i64(), found["entries"][0]["actor"].as_str()), (Some(2), Some("console")));
    assert_eq!(found["entries"][0]["after"]["name"], "deck");
    // The platform's log and every organization's: each change stands in both.
    assert_eq!(console.json(&["audit", "list", "--action", "group.create"])["total"], 4);
    assert_eq!(console.json(&["audit", "list", "--actor", "nobody"])["total"], 0);
    let one = console.json(&["audit", "list", "--action", "group.create", "--limit", "1"]);
    assert_eq!((one["total"].as_i64(), one["entries"].as_array().map(Vec::len)), (Some(4), Some(1)));
    let table = console.says(&["audit", "list", "--actor", "console"]);
    assert!(table.contains("group.create") && table.contains("platform"), "{table}");
    let bad = console.refused(&["audit", "list", "--since", "yesterday"]);
    assert!(bad.contains("since: must be a moment such as"), "{bad}");
    assert_eq!(console.json(&["audit", "list", "--until", "2020-01-01T00:00:00Z"])["total"], 0);

    let jsonl = stand.says(&["audit", "export", "--action", "group.create"]);
    let lines: Vec<Value> = jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["after"]["name"]), (2, &"crew".into()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.csv");
    let name = file.to_str().unwrap();
    let said =
        stand.says(&["audit", "export", "--format", "csv", "--output", name, "--action", "group.create"]);
    assert!(said.contains(&format!("2 lines are in {name}")), "{said}");
    let csv = fs::read_to_string(&file).unwrap();
    assert!(csv.starts_with("at,id,orgId,") && csv.lines().count() == 3 && csv.contains("deck"), "{csv}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    assert!(console.refused(&["audit", "export", "--format", "xml"]).contains("must be jsonl or csv"));
    assert_eq!(stand.written("audit.export").await, (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_many_parts_is_whole() {
    let stand = Stand::new().await;
    let sql = "INSERT INTO audit_log (id, actor, actor_key, action, resource, detail, at)
        SELECT gen_random_uuid(), 'system', 'system', 'test.line', 'n:' || n, '{}', now() - n * interval '1 s' FROM generate_series(1, 1203) n";
    stand.test.superuser().await.batch_execute(sql).await.unwrap();
    let jsonl = stand.console.says(&["audit", "export", "--action", "test.line"]);
    assert_eq!(jsonl.lines().count(), 1203);
    assert!(jsonl.lines().last().unwrap().contains("\"n:1203\""));
}
