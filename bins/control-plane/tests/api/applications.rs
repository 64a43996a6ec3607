//! Installed applications over HTTP: installing, who sees and launches them, the icon, removing.

use serde_json::{Value, json};
use tidegate_model::OrgRole;
use tidegate_test_support::{TestDb, eventually};

use crate::support::{Answer, Somebody, World};

/// The id of a template of the catalog that a test's database has from then on.
pub(crate) async fn template(db: &TestDb, name: &str) -> i64 {
    let manifest = json!({
        "name": name, "displayName": "Walked", "description": "says what it was told", "category": "Tests", "appType": "terminal",
        "platforms": ["docker", "vm"], "image": "debian:12", "command": ["sh", "-c", "echo $GREETING"], "protocol": "terminal",
        "env": {"GREETING": "hello ${whom}"}, "tags": ["greeter"], "idleTimeout": "30m",
        "options": {"whom": {"type": "string", "default": "world", "maxLength": 20}},
    });
    db.execute(&format!(
        "INSERT INTO repositories (name, url, type, synced_at, sync_status, created_at, updated_at)
         VALUES ('tests', 'https://example.com/tests.git', 'git', now(), 'synced', now(), now()) ON CONFLICT DO NOTHING;
         INSERT INTO catalog_blobs (digest, media_type, size, content, put_at)
         VALUES (sha256('<svg/>'), 'image/svg+xml', 6, '<svg/>', now()) ON CONFLICT DO NOTHING;
         INSERT INTO catalog_templates (repository_id, name, display_name, description, category, app_type, platforms, tags, icon, manifest, digest, created_at, updated_at)
         SELECT id, '{name}', 'Walked', 'says what it was told', 'Tests', 'terminal', '{{docker,vm}}', '{{}}', sha256('<svg/>'), '{manifest}', sha256('{name}'), now(), now()
         FROM repositories WHERE name = 'tests' ON CONFLICT DO NOTHING;
         INSERT INTO template_stats (template_id, updated_at) SELECT id, now() FROM catalog_templates WHERE name = '{name}' ON CONFLICT DO NOTHING"
    ))
    .await;
    db.look(&format!("SELECT id FROM catalog_templates WHERE name = '{name}'")).await
}

struct Stand {
    world: World,
    manager: Somebody,
    user: Somebody,
    template: i64,
}

impl Stand {
    async fn new() -> Self {
        let world = World::new().await;
        let manager = world.somebody("acme", OrgRole::Maintainer).await;
        let user = world.somebody("acme", OrgRole::User).await;
        let template = template(&world.db, "greeter").await;
        Self { world, manager, user, template }
    }

    async fn ask(&self, who: &Somebody, method: &str, path: &str, body: Value) -> Answer {
        let body = (!body.is_null()).then_some(body);
        self.world.call(method, &format!("/api/v1{path}"), &who.token, body).await
    }

    /// A group with the user in it.
    async fn group(&self) -> String {
        let owner = self.world.somebody("acme", OrgRole::Admin).await;
        let made = self.ask(&owner, "POST", "/groups", crate::walk::new_group()).await;
        let id = made.body["id"].as_str().unwrap().to_owned();
        let member = json!({"userId": self.user.id});
        let added = self.ask(&owner, "POST", &format!("/groups/{id}/members"), member).await;
        assert_eq!(added.status, 201, "{added:?}");
        id
    }

    /// The path of an application whose installation has come to an end.
    async fn installed(&self, mut body: Value) -> String {
        body["catalogTemplateId"] = json!(self.template);
        let made = self.ask(&self.manager, "POST", "/applications", body).await;
        assert_eq!((made.status, &made.body["installStatus"]), (201, &json!("pending")), "{made:?}");
        let path = format!("/applications/{}", made.body["id"].as_str().unwrap());
        let ended = async || {
            let seen = self.ask(&self.manager, "GET", &path, Value::Null).await.body;
            seen["installStatus"] == "installed" || seen["installStatus"] == "failed"
        };
        eventually("the installation ends", ended).await;
        path
    }

    async fn launch(&self, who: &Somebody, path: &str) -> Answer {
        let id = path.rsplit('/').next().unwrap();
        self.ask(who, "POST", "/sessions", json!({"applicationId": id})).await
    }
}

#[tokio::test]
async fn a_template_is_installed_given_to_a_group_launched_and_removed() {
    let stand = Stand::new().await;
    let agent = stand.world.agent("vm-1").await;
    let path = stand.installed(json!({"configuration": {"whom": "tide"}})).await;
    let seen = stand.ask(&stand.manager, "GET", &path, Value::Null).await.body;
    assert_eq!((&seen["installStatus"], &seen["platform"]), (&json!("installed"), &json!("vm")), "{seen}");
    let name = seen["name"].as_str().unwrap();
    assert!(name.starts_with("greeter-") && name.len() == "greeter-".len() + 8, "{name}");
    assert_eq!(seen["folderPath"], format!("apps/{name}"));
    assert!(seen["manifest"].as_str().unwrap().contains("GREETING"), "{seen}");

    // No groups are nobody but those who manage them.
    stand.ask(&stand.user, "GET", &path, Value::Null).await.refused(404, "E_NOT_FOUND");
    stand.launch(&stand.user, &path).await.refused(404, "E_NOT_FOUND");
    let group = stand.group().await;
    let groups = format!("{path}/groups");
    let view = json!({"groupId": group, "accessLevel": "view"});
    assert_eq!(stand.ask(&stand.manager, "POST", &groups, view).await.status, 201);
    let mine = stand.ask(&stand.user, "GET", "/applications/user", Value::Null).await.body;
    assert_eq!((&mine["total"], &mine["applications"][0]["access"]), (&json!(1), &json!("view")), "{mine}");
    assert!(
        mine["applications"][0].get("configuration").is_none(),
        "what it is set to is not theirs: {mine}"
    );
    stand.launch(&stand.user, &path).await.refused(403, "E_FORBIDDEN");
    let again = stand.ask(&stand.manager, "POST", &groups, json!({"groupId": group})).await;
    assert_eq!((again.status, &again.body["accessLevel"]), (200, &json!("launch")));
    stand.ask(&stand.user, "PUT", &path, json!({"displayName": "Mine"})).await.refused(403, "E_FORBIDDEN");

    let started = stand.launch(&stand.user, &path).await;
    assert_eq!(started.status, 202, "{started:?}");
    let session = &started.body["session"];
    assert_eq!(session["applicationId"], seen["id"]);
    assert_eq!((&session["template"], &session["tags"]), (&json!("greeter"), &json!(["greeter"])));
    let filtered = format!("/sessions?application={}", seen["id"].as_str().unwrap());
    assert_eq!(stand.ask(&stand.user, "GET", &filtered, Value::Null).await.body["total"], 1);
    stand.ask(&stand.user, "GET", "/sessions?application=x", Value::Null).await.refused(400, "E_INVALID");

    let refused = stand.ask(&stand.manager, "DELETE", &path, Value::Null).await;
    refused.refused(409, "E_APPLICATION_IN_USE");
    let forced = format!("{path}?force=true");
    assert_eq!(stand.ask(&stand.manager, "DELETE", &forced, Value::Null).await.status, 204);
    let of_session = format!("/sessions/{}", session["id"].as_str().unwrap());
    let ended =
        async || stand.ask(&stand.user, "GET", &of_session, Value::Null).await.body["state"] == "terminated";
    eventually("its session is ended", ended).await;
    stand.ask(&stand.manager, "GET", &path, Value::Null).await.refused(404, "E_NOT_FOUND");
    let actions: String = stand
        .world
        .db
        .look("SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE action LIKE 'application.%'")
        .await;
    let lines = "application.install application.installed application.group.add application.group.change application.remove";
    assert_eq!(actions, lines);
    drop(agent);
}

#[tokio::test]
async fn bad_options_are_named_by_their_paths_and_bad_fields_by_their_names() {
    let stand = Stand::new().await;
    let body = json!({
        "catalogTemplateId": stand.template, "platform": "kubernetes",
        "configuration": {"whom": "x".repeat(21), "colour": "red"},
    });
    let answer = stand.ask(&stand.manager, "POST", "/applications", body).await;
    answer.refused(400, "E_INVALID");
    assert_eq!(answer.fields(), ["configuration.colour", "configuration.whom", "platform"]);
    let unknown =
        stand.ask(&stand.manager, "POST", "/applications", json!({"catalogTemplateId": 4_000_000})).await;
    unknown.refused(404, "E_NOT_FOUND");
    let none = stand.ask(&stand.manager, "POST", "/applications", json!({})).await;
    assert_eq!(none.refused(400, "E_INVALID").fields(), ["catalogTemplateId"]);
    let mine =
        stand.ask(&stand.user, "POST", "/applications", json!({"catalogTemplateId": stand.template})).await;
    mine.refused(403, "E_FORBIDDEN");
}

#[tokio::test]
async fn without_an_agent_an_installation_fails_with_a_reason_and_is_tried_again_when_there_is_one() {
    let stand = Stand::new().await;
    let path = stand.installed(json!({})).await;
    let seen = stand.ask(&stand.manager, "GET", &path, Value::Null).await.body;
    let message = seen["installMessage"].as_str().unwrap();
    assert_eq!((&seen["installStatus"], &seen["platform"]), (&json!("failed"), &json!("docker")), "{seen}");
    assert!(message.contains("no approved agent of platform docker"), "{message}");
    stand.launch(&stand.manager, &path).await.refused(409, "E_APPLICATION_NOT_INSTALLED");
    let vm = stand.installed(json!({"platform": "vm"})).await;
    let _agent = stand.world.agent("vm-1").await;
    let again = stand.ask(&stand.manager, "PUT", &vm, json!({})).await;
    assert_eq!((again.status, &again.body["installStatus"]), (200, &json!("pending")), "{again:?}");
    let installed = async || {
        stand.ask(&stand.manager, "GET", &vm, Value::Null).await.body["installStatus"] == "installed"
    };
    eventually("it is installed", installed).await;
    let off = stand.ask(&stand.manager, "PUT", &format!("{vm}/enabled"), json!({"enabled": false})).await;
    assert_eq!(off.body["enabled"], false, "{off:?}");
    stand.launch(&stand.manager, &vm).await.refused(409, "E_APPLICATION_DISABLED");
}

#[tokio::test]
async fn an_icon_is_a_picture_and_nothing_more() {
    let stand = Stand::new().await;
    let _agent = stand.world.agent("vm-1").await;
    let path = stand.installed(json!({})).await;
    let seen = stand.ask(&stand.manager, "GET", &path, Value::Null).await.body;
    assert_eq!(seen["icon"], format!("/api/v1{path}/icon"));
    // What the catalog has later changes nothing.
    stand.world.db.execute("UPDATE catalog_templates SET icon = NULL; DELETE FROM catalog_blobs").await;
    let bearer = [("Authorization", format!("Bearer {}", stand.manager.token))];
    let icon = stand.world.raw("GET", &format!("/api/v1{path}/icon"), &bearer, b"").await;
    assert_eq!((icon.status, icon.header("content-type")), (200, Some("image/svg+xml")), "{icon:?}");
    assert_eq!(icon.header("x-content-type-options"), Some("nosniff"));
    assert!(icon.header("content-security-policy").unwrap().contains("sandbox"), "{icon:?}");
    stand.ask(&stand.user, "GET", &format!("{path}/icon"), Value::Null).await.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn a_template_of_the_catalog_is_launched_by_its_name_and_says_itself_what_runs() {
    let stand = Stand::new().await;
    let _agent = stand.world.agent("vm-1").await;
    for name in ["greeter", "tests/greeter"] {
        let started = stand.ask(&stand.user, "POST", "/sessions", json!({"template": name})).await;
        assert_eq!(started.status, 202, "{started:?}");
        assert_eq!(started.body["session"]["idleTimeout"], "30m");
        assert_eq!(started.body["session"]["applicationId"], Value::Null);
    }
    let other = json!({"template": "greeter", "command": ["sh"], "image": "debian:12"});
    let refused = stand.ask(&stand.user, "POST", "/sessions", other).await;
    assert_eq!(refused.refused(400, "E_INVALID").fields(), ["command", "image"]);
    for name in ["nothing", "other/greeter", "a/b/c"] {
        let refused = stand.ask(&stand.user, "POST", "/sessions", json!({"template": name})).await;
        refused.refused(404, "E_NOT_FOUND");
    }
    stand
        .world
        .db
        .execute(
            "INSERT INTO repositories (name, url, type, synced_at, created_at, updated_at) VALUES ('more', 'https://example.com/m', 'git', now(), now(), now());
             INSERT INTO catalog_templates (repository_id, name, display_name, description, category, app_type, platforms, tags, manifest, digest, created_at, updated_at)
             SELECT (SELECT id FROM repositories WHERE name = 'more'), name, display_name, description, category, app_type, platforms, tags, manifest, digest, now(), now()
             FROM catalog_templates WHERE name = 'greeter'",
        )
        .await;
    let several = stand.ask(&stand.user, "POST", "/sessions", json!({"template": "greeter"})).await;
    several.refused(409, "E_TEMPLATE_AMBIGUOUS");
    assert!(several.body["error"]["message"].as_str().unwrap().contains("more/greeter"), "{several:?}");
}
