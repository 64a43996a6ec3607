//! Users: made, changed, deactivated and deleted; who may, and what ends with them.

use futures_util::future::join_all;
use serde_json::Value;
use tidegate_model::{
    CreateUserRequest, FromFields, ImportedUser, LoginRequest, NewApiKey, OrgRole, PatchField, Scope, Scopes,
    Secret, SystemRole, UpdateUserRequest, UserId,
};
use tidegate_persistence::Operator;
use tidegate_service::{Caller, Error, MadeUser, Minted, Paging};
use tidegate_test_support::{TestDb, TestOrg};

fn wanted(name: &str) -> CreateUserRequest {
    CreateUserRequest::from_json(serde_json::json!({"username": name, "email": format!("{name}@example.com"),
        "fullName": "Some Body", "password": "tidewater gate"}))
    .unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Error::Conflict { code, .. }) => code,
        Err(Error::Forbidden(_)) => "forbidden",
        Err(Error::NotFound(_)) => "not found",
        Err(Error::InvalidCredentials) => "wrong",
        Err(Error::Unauthenticated(_)) => "ended",
        Err(Error::Invalid(_)) => "invalid",
        Err(other) => panic!("{other:?}"),
    }
}

async fn make(test: &TestDb, org: &TestOrg, request: CreateUserRequest) -> Result<UserId, Error> {
    let scope = org.admin.org().unwrap();
    match test.services().users.create(scope, request, None, None, |_| Value::Null).await? {
        MadeUser::New(user) => Ok(user.id),
        MadeUser::Replay(_) => panic!("no key was given"),
    }
}

async fn comes_in(test: &TestDb, name: &str) -> Result<Caller, Error> {
    let request = LoginRequest { username: name.into(), password: Secret::new("tidewater gate".to_owned()) };
    let token = test.services().logins.login(request, None).await?.token;
    test.services().logins.authenticate(&token, None).await
}

fn active(active: bool) -> UpdateUserRequest {
    UpdateUserRequest { active: Some(active), ..Default::default() }
}

fn role(role: SystemRole) -> UpdateUserRequest {
    UpdateUserRequest { role: Some(role), ..Default::default() }
}

#[tokio::test]
async fn an_org_admin_makes_users_at_home_and_no_operators() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let id = make(&test, &org, wanted("alice")).await.unwrap();
    let alice = test.services().users.get(&org.admin, id).await.unwrap();
    assert_eq!((alice.home_org_id, alice.role), (Some(org.id), SystemRole::User));
    assert_eq!(alice.mode.as_str(), "internal");
    comes_in(&test, "ALICE").await.unwrap();
    for above in [SystemRole::Operator, SystemRole::Admin] {
        let request = CreateUserRequest { role: above, ..wanted("robert") };
        assert_eq!(code(make(&test, &org, request).await), "forbidden");
    }
    let member = test.user_in("acme", OrgRole::Maintainer).await;
    let scope = test.caller(&member).await;
    let made =
        test.services().users.create(scope.org().unwrap(), wanted("robert"), None, None, |_| Value::Null);
    assert_eq!(code(made.await), "forbidden");
    assert_eq!(test.look::<i64>("SELECT count(*) FROM users WHERE role <> 'user'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_thirty_two_of_a_name_or_an_address_in_any_case_one_wins() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let brought = |number: usize| {
        let name = if number.is_multiple_of(2) { "Alice" } else { "aLICE" };
        ImportedUser::from_json(serde_json::json!({"username": name})).unwrap()
    };
    let operator = Operator::console();
    let racers = (0..32).map(|number| test.services().all_users.import(&operator, brought(number)));
    let mut names: Vec<&str> = join_all(racers).await.into_iter().map(code).collect();
    names.sort_unstable();
    assert_eq!((names[..31].to_vec(), names[31]), (vec!["E_USERNAME_TAKEN"; 31], "ok"));
    let brought = |number: usize| {
        let email = if number.is_multiple_of(2) { "One@Example.com" } else { "one@example.COM" };
        let line =
            serde_json::json!({"username": format!("user-{number}"), "email": email, "organization": "acme"});
        ImportedUser::from_json(line).unwrap()
    };
    let racers = (0..32).map(|number| test.services().all_users.import(&operator, brought(number)));
    let mut addresses: Vec<&str> = join_all(racers).await.into_iter().map(code).collect();
    addresses.sort_unstable();
    assert_eq!((addresses[..31].to_vec(), addresses[31]), (vec!["E_EMAIL_TAKEN"; 31], "ok"));
    let mut request = wanted("robert");
    request.email = "ONE@example.com".into();
    assert_eq!(code(make(&test, &org, request).await), "E_EMAIL_TAKEN");
}

#[tokio::test]
async fn deactivating_ends_everything_of_a_user_and_reactivating_brings_nothing_back() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    let request = CreateUserRequest { org_role: OrgRole::Admin, ..wanted("alice") };
    let id = make(&test, &org, request).await.unwrap();
    let (services, alice) = (test.services(), comes_in(&test, "alice").await.unwrap());
    let scope = alice.org().unwrap();
    let session = test.running_session(&alice, &mut agent).await;
    let others = test.pending_session(&org.admin).await;
    let new =
        NewApiKey { label: "ci".into(), scopes: Scopes::from_iter([Scope::SessionsRead]), expires_at: None };
    let Minted::New(_, key) =
        services.keys.insert_api_key(scope, &new, None, None, |_| ().into()).await.unwrap()
    else {
        panic!("a new key")
    };
    let request = tidegate_model::CreateInviteRequest {
        username: "friend".into(),
        role: OrgRole::User,
        expires_in: chrono::TimeDelta::days(1),
    };
    services.invites.create(scope, request, None, |_| Value::Null).await.unwrap();
    let kind = (tidegate_model::StreamKind::Terminal, tidegate_model::StreamMode::Control);
    services.streams.connect(scope, session.id, kind.0, kind.1).await.unwrap();
    let mut nudges = services.nudges().subscribe();

    services.users.update(&org.admin, id, active(false), None).await.unwrap();

    let told: Vec<_> = std::iter::from_fn(|| nudges.try_recv().ok()).collect();
    assert!(told.contains(&tidegate_service::Nudge::Revalidate), "{told:?}");
    assert!(told.iter().any(|nudge| matches!(nudge, tidegate_service::Nudge::Commands(_))), "{told:?}");
    assert!(!services.logins.still_stands(&alice).await.unwrap());
    assert_eq!(code(services.logins.authenticate(key.expose(), None).await), "ended");
    assert_eq!(code(comes_in(&test, "alice").await), "wrong");
    let state = |id| format!("SELECT state FROM sessions WHERE id = '{id}'");
    assert_eq!(test.look::<String>(&state(session.id)).await, "terminating");
    assert_ne!(test.look::<String>(&state(others.id)).await, "terminating");
    assert_eq!(test.look::<String>("SELECT status FROM invites").await, "revoked");
    assert_eq!(test.look::<i64>("SELECT count(*) FROM stream_tickets").await, 0);
    agent.work().await;
    assert_eq!(test.look::<String>(&state(session.id)).await, "terminated");

    // Who may have been kept out by the platform is let in again by it alone.
    let by_org = services.users.update(&org.admin, id, active(true), None).await;
    assert!(matches!(by_org, Err(Error::Forbidden(_))), "{by_org:?}");
    services.all_users.update(&Operator::console(), id, active(true), None).await.unwrap();
    assert!(!services.logins.still_stands(&alice).await.unwrap());
    assert_eq!(code(services.logins.authenticate(key.expose(), None).await), "ended");
    comes_in(&test, "alice").await.unwrap();
    let lines = "SELECT count(*) FROM audit_log WHERE action = 'user.update' AND org_id IS NOT NULL";
    assert_eq!(test.look::<i64>(lines).await, 2);
}

#[tokio::test]
async fn whoever_was_let_in_before_starts_nothing_once_they_are_deactivated() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let id = make(&test, &org, wanted("alice")).await.unwrap();
    let alice = comes_in(&test, "alice").await.unwrap();
    test.services().users.update(&org.admin, id, active(false), None).await.unwrap();
    // A request that was authenticated just before.
    let new = tidegate_test_support::new_session("shell");
    let made = test.services().sessions.create(alice.org().unwrap(), new, None, |_, _| Value::Null).await;
    assert_eq!(code(made), "not found");
}

#[tokio::test]
async fn a_login_that_ended_while_it_made_a_key_made_none() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let keys = &test.services().keys;
    let new = NewApiKey { label: "ci".into(), scopes: Scopes::from_iter([Scope::Keys]), expires_at: None };
    let mint = async |caller: &Caller| {
        let made = keys.insert_api_key(caller.org().unwrap(), &new, None, None, |_| ().into()).await;
        made.map(|minted| match minted {
            Minted::New(key, plaintext) => (key, plaintext),
            Minted::Replay(_) => panic!("no key was given"),
        })
    };
    let (key, plaintext) = mint(&org.admin).await.unwrap();
    let program = test.services().logins.authenticate(plaintext.expose(), None).await.unwrap();
    keys.revoke_api_key(org.admin.org().unwrap(), key.id, None).await.unwrap();
    assert_eq!(code(mint(&program).await), "ended");
    test.services().logins.logout(&org.admin).await.unwrap();
    assert_eq!(code(mint(&org.admin).await), "ended");
    assert_eq!(test.look::<i64>("SELECT count(*) FROM api_keys").await, 1);
}

#[tokio::test]
async fn an_organization_changes_its_own_accounts_and_nobody_elses() {
    let test = TestDb::new().await;
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let id = make(&test, &acme, wanted("alice")).await.unwrap();
    let users = &test.services().users;
    let named = UpdateUserRequest { full_name: Some("Alice Smith".into()), ..Default::default() };
    assert_eq!(users.update(&acme.admin, id, named.clone(), None).await.unwrap().full_name, "Alice Smith");
    assert_eq!(code(users.update(&bolt.admin, id, named.clone(), None).await), "not found");
    let person = tidegate_service::Person::Id(id);
    test.services().members.add(bolt.admin.org().unwrap(), person, OrgRole::User).await.unwrap();
    assert_eq!(code(users.update(&bolt.admin, id, named.clone(), None).await), "forbidden");
    assert_eq!(code(users.delete(&bolt.admin, id, None).await), "forbidden");
    for more in
        [role(SystemRole::Admin), UpdateUserRequest { home_org_id: PatchField::Clear, ..Default::default() }]
    {
        assert_eq!(code(users.update(&acme.admin, id, more, None).await), "forbidden");
    }
    test.execute("UPDATE users SET role = 'operator' WHERE username = 'alice'").await;
    assert_eq!(code(users.update(&acme.admin, id, active(false), None).await), "forbidden");
    test.execute("UPDATE users SET role = 'user' WHERE username = 'alice'").await;
    let alice = comes_in(&test, "alice").await.unwrap();
    for raised in [role(SystemRole::Admin), active(false)] {
        assert_eq!(code(users.update(&alice, id, raised.clone(), None).await), "forbidden");
        assert_eq!(code(users.update_own(&alice, raised, None).await), "forbidden");
    }
    assert_eq!(users.update(&alice, id, named, None).await.unwrap().full_name, "Alice Smith");
    test.execute(&format!("UPDATE organizations SET owner_user_id = '{id}' WHERE name = 'acme'")).await;
    assert_eq!(code(users.delete(&acme.admin, id, None).await), "forbidden", "its owner");
    assert_eq!(code(users.delete(&alice, id, None).await), "E_OWNER");
}

#[tokio::test]
async fn operators_touch_nobody_above_them() {
    let test = TestDb::new().await;
    test.org_with_admin("ops").await;
    let admin = test.user_with("ops", OrgRole::User, SystemRole::Admin).await;
    let operator = test.user_with("ops", OrgRole::User, SystemRole::Operator).await;
    let plain = test.user_in("ops", OrgRole::User).await;
    let all = &test.services().all_users;
    let acts = all.operator(&test.caller(&operator).await).unwrap();
    let password = || Secret::new("another long password".to_owned());
    assert_eq!(code(all.reset_password(&acts, admin.id, password(), None).await), "forbidden");
    assert_eq!(code(all.update(&acts, admin.id, active(false), None).await), "forbidden");
    assert_eq!(code(all.delete(&acts, admin.id, None).await), "forbidden");
    assert_eq!(code(all.update(&acts, plain.id, role(SystemRole::Admin), None).await), "forbidden");
    assert_eq!(code(all.update(&acts, operator.id, role(SystemRole::Admin), None).await), "forbidden");
    let more = CreateUserRequest { role: SystemRole::Admin, ..wanted("alice") };
    assert_eq!(code(all.create(&acts, more, Some("ops"), None, None, |_| Value::Null).await), "forbidden");
    all.reset_password(&acts, plain.id, password(), None).await.unwrap();
    let found = all.list(&acts, Some(plain.username.to_uppercase()), &Paging::default()).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert!(all.operator(&test.caller(&LoginOf(&plain).with(password())).await).is_err());
}

/// Somebody whose password was changed for them.
struct LoginOf<'a>(&'a tidegate_test_support::TestUser);

impl LoginOf<'_> {
    fn with(&self, password: Secret<String>) -> tidegate_test_support::TestUser {
        tidegate_test_support::TestUser { password, ..self.0.clone() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_is_always_left() {
    let test = TestDb::new().await;
    test.org_with_admin("ops").await;
    let mut admins = Vec::new();
    for _ in 0..4 {
        admins.push(test.user_with("ops", OrgRole::User, SystemRole::Admin).await);
    }
    let all = &test.services().all_users;
    let operator = Operator::console();
    let (one, two, three, four) = tokio::join!(
        all.update(&operator, admins[0].id, role(SystemRole::User), None),
        all.update(&operator, admins[1].id, active(false), None),
        all.delete(&operator, admins[2].id, None),
        all.update(&operator, admins[3].id, role(SystemRole::Operator), None),
    );
    let mut outcomes = [code(one), code(two), code(three), code(four)];
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["E_LAST_ADMIN", "ok", "ok", "ok"]);
    assert_eq!(test.look::<i64>("SELECT count(*) FROM users WHERE role = 'admin' AND active").await, 1);
}

#[tokio::test]
async fn a_deleted_user_leaves_a_name_and_the_books() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let id = make(&test, &org, wanted("alice")).await.unwrap();
    let alice = comes_in(&test, "alice").await.unwrap();
    let before: i64 = test.look("SELECT count(*) FROM audit_log").await;
    test.services().users.delete(&org.admin, id, None).await.unwrap();
    assert!(!test.services().logins.still_stands(&alice).await.unwrap());
    assert_eq!(code(test.services().users.get(&org.admin, id).await), "not found");
    assert_eq!(code(test.services().users.delete(&org.admin, id, None).await), "not found");
    assert_eq!(code(test.services().all_users.get(&Operator::console(), id).await), "not found");
    assert!(test.look::<i64>("SELECT count(*) FROM audit_log").await > before);
    let left = "SELECT email IS NULL AND password_hash IS NULL AND full_name = 'alice' FROM users WHERE username = 'alice'";
    assert!(test.look::<bool>(left).await);
    assert_eq!(code(make(&test, &org, wanted("Alice")).await), "E_USERNAME_TAKEN");
    let again = CreateUserRequest { email: "alice@example.com".into(), ..wanted("alice2") };
    make(&test, &org, again).await.unwrap();
}

#[tokio::test]
async fn names_and_members_are_given_as_the_pipes_service_wants_them() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (users, scope) = (&test.services().users, org.admin.org().unwrap());
    let (one, two) =
        (make(&test, &org, wanted("zoe")).await.unwrap(), make(&test, &org, wanted("alice")).await.unwrap());
    let me = org.admin.user().user_id();
    let names = users.usernames_by_ids(scope, vec![one, two, UserId::new()]).await.unwrap();
    assert_eq!((names.len(), names[&one].as_str(), names[&two].as_str()), (2, "zoe", "alice"));
    let names = |list: Vec<tidegate_model::User>| list.into_iter().map(|user| user.id).collect::<Vec<_>>();
    let all = Paging { limit: 100, cursor: None };
    assert_eq!(names(users.list_non_owners(scope, &all).await.unwrap()), [me, one, two]);
    assert_eq!(code(users.first_owned(&org.admin).await), "not found");
    test.execute(&format!("UPDATE organizations SET owner_user_id = '{me}'")).await;
    assert_eq!(names(users.list_non_owners(scope, &all).await.unwrap()), [one, two], "in joining order");
    assert_eq!(users.first_owned(&org.admin).await.unwrap().id, org.id);
    assert_eq!(users.get_by_username(scope, "ZOE").await.unwrap().id, one);
    assert!(users.is_member_or_owner(scope, one).await.unwrap());
    assert!(!users.is_member_or_owner(scope, UserId::new()).await.unwrap());
    let paging = Paging { limit: 2, cursor: None };
    let page = users.list(scope, Some("example.COM".into()), &paging).await.unwrap();
    let shown: Vec<_> = page.items.iter().map(|user| user.username.as_str()).collect();
    assert_eq!((shown, page.total), (vec!["alice", "zoe"], 2));
}
