//! What the audit log says of every use case, and what it never says.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::json;
use tidegate_model::{
    AuditFilter, CreateInviteRequest, CreateOrganizationRequest, FromFields, NewApiKey, OrgRole, Scope,
    Scopes, Secret, SystemRole, UpdateOrganizationRequest,
};
use tidegate_persistence::{Operator, Origin};
use tidegate_service::{Caller, Minted, NewLocalUser, Paging, Person};
use tidegate_test_support::TestDb;

const ADDRESS: &str = "198.51.100.7";

/// The caller with an address and a request id.
fn from_somewhere(caller: Caller) -> Caller {
    let address: IpAddr = ADDRESS.parse().unwrap();
    caller.with_origin(Origin::new(Some(address), Some("request-1".to_owned())))
}

/// Does one of everything that is written down; gives the secrets that came up.
async fn one_of_everything(test: &TestDb, admin: &Caller) -> Vec<String> {
    let services = test.services();
    let scope = admin.org().unwrap();
    let mut secrets = Vec::new();
    let operator = Operator::console();
    let new = |name: &str| NewLocalUser {
        username: name.to_owned(),
        email: None,
        full_name: "Somebody".into(),
        password: Secret::new(format!("the password of {name}")),
        role: SystemRole::User,
    };
    let bob = services
        .operators
        .create_user(&operator, new("bob-the-second"), "acme", OrgRole::User)
        .await
        .unwrap();
    let again = Secret::new("another tidal secret".to_owned());
    services.operators.set_password(&operator, "bob-the-second", again).await.unwrap();
    secrets.extend(["the password of", "another tidal secret"].map(str::to_owned));
    services.members.set_role(scope, bob, OrgRole::Viewer).await.unwrap();
    services.members.remove(scope, bob).await.unwrap();
    services.members.add(scope, Person::Id(bob), OrgRole::User).await.unwrap();
    let invite = CreateInviteRequest {
        username: "friend".into(),
        role: OrgRole::User,
        expires_in: chrono::TimeDelta::days(1),
    };
    services.invites.create(scope, invite, None, |_| json!(null)).await.unwrap();
    let key = NewApiKey { label: "ci".into(), scopes: Scopes::from_iter([Scope::Streams]), expires_at: None };
    let made = services.keys.insert_api_key(scope, &key, None, None, |_| json!(null)).await.unwrap();
    let Minted::New(key, plaintext) = made else { panic!("a new key") };
    secrets.push(plaintext.into_inner());
    let rotated =
        services.keys.rotate_api_key(scope, key.id, None, None, None, |_| json!(null)).await.unwrap();
    let Minted::New(key, plaintext) = rotated else { panic!("a new key") };
    secrets.push(plaintext.into_inner());
    services.keys.revoke_api_key(scope, key.id, None).await.unwrap();
    let agent = test.online_agent("vm-1", 5).await;
    secrets.push(services.agents.rotate_key(&operator, agent.handle(), 0).await.unwrap().0.into_inner());
    services.agents.drain(&operator, agent.handle(), tidegate_model::DrainRequest::default()).await.unwrap();
    services.agents.undrain(&operator, agent.handle()).await.unwrap();
    // The other one's connection went with its key.
    test.online_agent("vm-2", 5).await;
    let mut session = tidegate_test_support::new_session("shell");
    session.environment.insert("NOTES".into(), "an environment that nobody reads".into());
    secrets.push("an environment that nobody reads".into());
    let made = services.sessions.create(scope, session, None, |_, _| json!(null)).await.unwrap();
    let session = crate::queued(made);
    services.sessions.terminate(scope, session.id).await.unwrap();
    let org = CreateOrganizationRequest::from_json(json!({"name": "mine", "displayName": "Mine"})).unwrap();
    services.organizations.create(admin, org).await.unwrap();
    let change = UpdateOrganizationRequest { display_name: Some("Acme".into()), ..Default::default() };
    services.organizations.update(scope, change).await.unwrap();
    secrets
}

#[tokio::test]
async fn every_line_says_who_and_from_where_and_no_secret_is_in_any() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let admin = from_somewhere(org.admin);
    let mut secrets = one_of_everything(&test, &admin).await;
    let login = |password: &str| tidegate_model::LoginRequest {
        username: "bob-the-second".into(),
        password: Secret::new(password.to_owned()),
    };
    let logins = &test.services().logins;
    let source = Some(ADDRESS.parse().unwrap());
    logins.login(login("a wrong guess"), source).await.unwrap_err();
    let unknown =
        tidegate_model::LoginRequest { username: "a-typed-password".into(), ..login("a wrong guess") };
    logins.login(unknown, source).await.unwrap_err();
    let fresh = logins.login(login("another tidal secret"), source).await.unwrap();
    logins.logout(&logins.authenticate(&fresh.token, None).await.unwrap()).await.unwrap();
    secrets.extend(["a wrong guess".into(), "a-typed-password".into(), fresh.token, fresh.refresh_token]);
    let log: String = test.look("SELECT string_agg(a::text, E'\\n') FROM audit_log a").await;
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
    let written: String =
        test.look("SELECT string_agg(DISTINCT action, ' ' ORDER BY action) FROM audit_log").await;
    let written: BTreeSet<&str> = written.split(' ').collect();
    let expected: BTreeSet<&str> = [
        "agent.approve",
        "agent.drain",
        "agent.register",
        "agent.rotate_key",
        "agent.undrain",
        "invite.create",
        "key.create",
        "key.revoke",
        "key.rotate",
        "login.create",
        "login.end",
        "login.refuse",
        "member.add",
        "member.remove",
        "member.set_role",
        "organization.create",
        "organization.update",
        "session.stop",
        "user.create",
        "user.reset_password",
    ]
    .into();
    assert!(expected.is_subset(&written), "{:?} is missing", expected.difference(&written));
    let mine = format!(
        "SELECT count(*) FROM audit_log WHERE actor_user_id = '{}' AND request_id IS NOT NULL AND (address <> '{ADDRESS}'
           OR request_id <> 'request-1' OR actor_name IS NULL OR actor_key <> lower(actor_name) OR credential IS NULL)",
        admin.user().user_id()
    );
    assert_eq!(test.look::<i64>(&mine).await, 0);
    let refused =
        format!("SELECT count(*) FROM audit_log WHERE action = 'login.refuse' AND address = '{ADDRESS}'");
    assert_eq!(test.look::<i64>(&refused).await, 2);
}

#[tokio::test]
async fn what_a_rolled_back_change_would_have_said_is_not_there() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let before: i64 = test.look("SELECT count(*) FROM audit_log").await;
    let me = org.admin.user().user_id();
    test.services().members.remove(org.admin.org().unwrap(), me).await.unwrap_err();
    assert_eq!(test.look::<i64>("SELECT count(*) FROM audit_log").await, before);
}

#[tokio::test]
async fn an_export_stops_when_its_reader_loses_the_right_to_read() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    test.execute(&format!(
        "INSERT INTO audit_log (id, org_id, actor, actor_key, action, resource, at)
         SELECT gen_random_uuid(), '{}', 'console', 'console', 'test', 'test:' || n, '2000-01-01' FROM generate_series(1, 1200) n",
        org.id
    ))
    .await;
    let (audit, filter) = (&test.services().audit, AuditFilter::default());
    let format = "jsonl".parse().unwrap();
    let mut export = audit.export(org.admin.clone(), filter.clone(), format).await.unwrap();
    assert_eq!(export.next().await.unwrap().unwrap().len(), 500, "a bounded part");
    test.execute("UPDATE memberships SET role = 'viewer'").await;
    assert!(matches!(export.next().await, Err(tidegate_service::Error::Unauthenticated(_))));
    let page = Paging { limit: 10, cursor: None };
    let caller = test.user_in("acme", OrgRole::Viewer).await;
    let viewer = test.caller(&caller).await;
    let listed = audit.list(viewer.org().unwrap(), &filter, &page).await;
    assert!(matches!(listed, Err(tidegate_service::Error::Forbidden(_))), "{listed:?}");
}
