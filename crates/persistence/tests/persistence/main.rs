//! The database as the plain login role meets it: schema, walls between tenants, transactions, migrations.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

mod audit;
mod catalog;
mod connections;
mod encrypted;
mod events;
mod locks;
mod migrations;
mod pipes;
mod plans;
mod retention;
mod schema;
mod tenants;
mod terminal_sources;
mod walls;

use tidegate_model::{OrgRole, SessionState};
use tidegate_test_support::{SimAgent, TestDb, TestOrg};

/// Two organizations, each with a row in every table that belongs to organizations, on an agent of its own.
struct Filled {
    test: TestDb,
    acme: TestOrg,
    bolt: TestOrg,
    acme_agent: SimAgent,
    bolt_agent: SimAgent,
}

impl Filled {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let (acme, mut acme_agent) = fill(&test, "acme", "vm-acme").await;
        // The other one's sessions do not go to the first one's agent.
        serve(&test, &acme_agent, &acme).await;
        let (bolt, mut bolt_agent) = fill(&test, "bolt", "vm-bolt").await;
        serve(&test, &bolt_agent, &bolt).await;
        for (org, agent) in [(&acme, &mut acme_agent), (&bolt, &mut bolt_agent)] {
            let unknown = tidegate_service::ReportKind::UnknownSession {
                session_id: format!("stray of {}", org.name),
                state: SessionState::Running,
            };
            agent.report(unknown).await;
        }
        Self { test, acme, bolt, acme_agent, bolt_agent }
    }
}

/// Says that an agent serves one organization alone.
async fn serve(test: &TestDb, agent: &SimAgent, org: &TestOrg) {
    let organization = tidegate_model::PatchField::Set(org.name.clone());
    let change = tidegate_model::UpdateAgentRequest { organization, ..Default::default() };
    let operator = tidegate_persistence::Operator::console();
    test.services().agents.update(&operator, agent.handle(), change).await.unwrap();
}

async fn fill(test: &TestDb, name: &str, handle: &str) -> (TestOrg, SimAgent) {
    use tidegate_model::{NewApiKey, Scope, Scopes, StreamKind, StreamMode};
    use tidegate_service::Idempotency;
    let org = test.org_with_admin(name).await;
    let viewer = test.user_in(name, OrgRole::Viewer).await;
    let mut agent = test.online_agent(handle, 10).await;
    let mut new = tidegate_test_support::new_session("shell");
    new.environment.insert("TOKEN".into(), "hidden".into());
    new.persistent_home = true;
    let scope = org.admin.org().unwrap();
    let key = Idempotency::new(scope.credential(), "POST /sessions", "key-1", b"{}").unwrap();
    let made =
        test.services().sessions.create(scope, new, Some(&key), |session, _| serde_json::json!(session.id));
    let tidegate_service::Changed::Queued(session, _) = made.await.unwrap() else { panic!("a new session") };
    agent.work().await;
    let streams = &test.services().streams;
    streams.disconnect(scope, session.id, tidegate_model::DisconnectRequest::default()).await.unwrap();
    streams.connect(scope, session.id, StreamKind::Terminal, StreamMode::Control).await.unwrap();
    let ticket = streams.connect(scope, session.id, StreamKind::Http, StreamMode::View).await.unwrap().ticket;
    streams.exchange(&ticket, session.id).await.unwrap();
    test.services().events.ticket(&org.admin).await.unwrap();
    let share = tidegate_model::CreateShareRequest {
        with: tidegate_model::ShareTarget::UserId(viewer.id),
        mode: StreamMode::View,
        expires_in: None,
    };
    test.services().shares.create(scope, session.id, share, None, |_| ().into()).await.unwrap();
    let request = tidegate_model::CreateInviteRequest {
        username: format!("friend-of-{name}"),
        role: OrgRole::User,
        expires_in: chrono::TimeDelta::days(1),
    };
    test.services().invites.create(scope, request, None, |_| serde_json::Value::Null).await.unwrap();
    let ci = NewApiKey { label: "ci".into(), scopes: Scopes::from_iter([Scope::Streams]), expires_at: None };
    test.services().keys.insert_api_key(scope, &ci, None, None, |_| ().into()).await.unwrap();
    let devices = &test.services().devices;
    let codes = devices.create_device_code("laptop", None).await.unwrap();
    devices.approve_device_code(&org.admin, &codes.user_code.to_string(), org.id, None).await.unwrap();
    devices.consume_device_code(codes.device_code.expose(), None).await.unwrap();
    fill_groups(test, &org).await;
    fill_plugins(test, &org).await;
    pipes::fill(test, &org, viewer.id).await;
    terminal_sources::fill(test, &org, session.id).await;
    let stop_later = test.pending_session(&org.admin).await;
    test.services().sessions.terminate(scope, stop_later.id).await.unwrap();
    (org, agent)
}

/// A plugin of the organization's own, which keeps something and is told something.
async fn fill_plugins(test: &TestDb, org: &TestOrg) {
    let digest = "decode(repeat('00', 32), 'hex')";
    test.execute(&format!(
        "INSERT INTO plugin_packages VALUES ({digest}, '', now()) ON CONFLICT DO NOTHING;
         WITH made AS (INSERT INTO installed_plugins (org_id, name, version, plugin_type, enabled, config, manifest, package, permissions,
                events, ordered, vetoes, installed_by, installed_at, updated_at)
            VALUES ('{org}', 'own', '1.0.0', 'ui', true, '{{}}', '{{}}', {digest}, '{{}}', '{{}}', false, false, 'x', now(), now())
            RETURNING id),
         kept AS (INSERT INTO plugin_store SELECT id, '{org}', 'key', '1', now() FROM made)
         INSERT INTO plugin_deliveries (id, plugin_id, org_id, event, payload, due_at, since, created_at)
            SELECT gen_random_uuid(), id, '{org}', 'session.running', '{{}}', now(), now(), now() FROM made",
        org = org.id
    ))
    .await;
}

/// An application that a group may launch.
async fn fill_applications(test: &TestDb, org: &TestOrg, group: tidegate_model::GroupId) {
    use tidegate_test_support::catalog::template;
    let repository = test.repository(&format!("of-{}", org.name)).await;
    test.sync(repository, &[template("editor", &serde_json::json!({}))], &[]).await;
    let request = tidegate_model::InstallApplicationRequest {
        catalog_template_id: test.template_id(repository, "editor").await,
        display_name: None,
        platform: None,
        configuration: serde_json::Map::new(),
        group_ids: vec![group],
    };
    let applications = &test.services().applications;
    applications.install(org.admin.org().unwrap(), request, None, |_| ().into()).await.unwrap();
}

/// A group of one with a quota, beside quotas of its member and of the organization.
async fn fill_groups(test: &TestDb, org: &TestOrg) {
    use tidegate_model::{
        AddGroupMemberRequest, CreateGroupRequest, GroupRole, GroupType, PatchField, SetQuotaRequest,
    };
    let (scope, services) = (org.admin.org().unwrap(), test.services());
    let request = CreateGroupRequest {
        name: "team".into(),
        display_name: "Team".into(),
        description: String::new(),
        kind: GroupType::Team,
        parent_id: None,
    };
    let made = services.groups.create(scope, request, None, |_| ().into()).await.unwrap();
    let tidegate_service::MadeGroup::New(group) = made else { panic!("a new group") };
    let member = AddGroupMemberRequest { user_id: scope.user_id(), role: GroupRole::Owner };
    services.groups.add(scope, group.id, member).await.unwrap();
    fill_applications(test, org, group.id).await;
    let many = PatchField::Set(1_000);
    let quota = SetQuotaRequest {
        limits: [many, PatchField::Absent, PatchField::Absent, PatchField::Absent],
        username: None,
    };
    services.quotas.set_user(scope, scope.user_id(), quota.clone()).await.unwrap();
    services.quotas.set_group(scope, group.id, quota.clone()).await.unwrap();
    services.quotas.set_organization(scope, quota).await.unwrap();
}
