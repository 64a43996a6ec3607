//! What is done at the very moment that somebody goes, loses a role or is locked out.

use tidegate_model::{
    ChangePasswordRequest, CreateInviteRequest, CreateOrganizationRequest, OrgRole, PatchField, Secret,
    UpdateUserRequest, UserId, default_namespace,
};
use tidegate_persistence::user_change;
use tidegate_service::{Caller, DeviceCodes, DeviceError, Error, IssuedToken, Operator, Person};
use tidegate_test_support::{TestDb, eventually};

fn organization(name: &str) -> CreateOrganizationRequest {
    CreateOrganizationRequest {
        name: name.to_owned(),
        display_name: name.to_owned(),
        description: String::new(),
        k8s_namespace: default_namespace(name),
    }
}

fn active(active: bool) -> UpdateUserRequest {
    UpdateUserRequest { active: Some(active), ..Default::default() }
}

fn ended<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Unauthenticated(_)))
}

async fn codes(test: &TestDb) -> DeviceCodes {
    test.services().devices.create_device_code("a laptop", None).await.unwrap()
}

async fn approve(test: &TestDb, caller: &Caller, codes: &DeviceCodes) -> Result<(), Error> {
    let (devices, org) = (&test.services().devices, caller.org().unwrap().org_id());
    devices.approve_device_code(caller, &codes.user_code.to_string(), org, None).await.map(drop)
}

async fn poll(test: &TestDb, codes: &DeviceCodes) -> Result<IssuedToken, DeviceError> {
    let from = Some("192.0.2.7".parse().unwrap());
    test.services().devices.consume_device_code(codes.device_code.expose(), from).await
}

async fn count(test: &TestDb, sql: &str) -> i64 {
    test.look(&format!("SELECT count(*) FROM {sql}")).await
}

async fn set_home(test: &TestDb, user: UserId, org: tidegate_model::OrgId) {
    test.execute(&format!("UPDATE users SET home_org_id = '{org}' WHERE id = '{user}'")).await;
}

#[tokio::test]
async fn whoever_was_deactivated_makes_no_organization_and_accepts_no_invite() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    test.org_with_admin("bolt").await;
    let user = test.user_in("bolt", OrgRole::User).await;
    let caller = test.caller(&user).await;
    let (services, scope) = (test.services(), acme.admin.org().unwrap());
    let request = CreateInviteRequest {
        username: user.username.clone(),
        role: OrgRole::User,
        expires_in: chrono::TimeDelta::days(1),
    };
    services.invites.create(scope, request, None, |_| ().into()).await.unwrap();
    let invite = services.invites.mine(&caller).await.unwrap().remove(0).id;
    services.all_users.update(&Operator::console(), user.id, active(false), None).await.unwrap();
    // Requests that were authenticated a moment before.
    assert!(ended(&services.organizations.create(&caller, organization("mine")).await));
    assert!(ended(&services.invites.accept(&caller, invite).await));
    assert_eq!(count(&test, "organizations WHERE name = 'mine'").await, 0);
    let member = format!("memberships WHERE org_id = '{}' AND user_id = '{}'", acme.id, user.id);
    assert_eq!(count(&test, &member).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_deleted_who_owns_and_nobody_owns_or_joins_who_is_deleted() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    test.org_with_admin("bolt").await;
    let (services, console) = (test.services(), Operator::console());
    for round in 0..4 {
        let user = test.user_in("bolt", OrgRole::User).await;
        let caller = test.caller(&user).await;
        let (made, deleted, added) = tokio::join!(
            services.organizations.create(&caller, organization(&format!("mine-{round}"))),
            services.all_users.delete(&console, user.id, None),
            services.members.add(acme.admin.org().unwrap(), Person::Id(user.id), OrgRole::User),
        );
        assert_ne!(made.is_ok(), deleted.is_ok(), "{made:?} {deleted:?}");
        assert!(matches!(added, Ok(_) | Err(Error::NotFound(_))), "{added:?}");
    }
    let gone = "(SELECT id FROM users WHERE deleted_at IS NOT NULL)";
    assert_eq!(count(&test, &format!("organizations WHERE owner_user_id IN {gone}")).await, 0);
    assert_eq!(count(&test, &format!("memberships WHERE user_id IN {gone}")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_ends_while_it_lets_a_device_in_lets_nothing_in() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    let (waiting, user) = (codes(&test).await, acme.admin.user().user_id());
    let other = test.superuser().await;
    let end = format!(
        "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{user}', 7526411283028599910));
         UPDATE login_sessions SET revoked_at = now() WHERE user_id = '{user}'"
    );
    other.batch_execute(&end).await.unwrap();
    let (approved, ()) = tokio::join!(approve(&test, &acme.admin, &waiting), async {
        let held = "pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
                    WHERE l.locktype = 'advisory' AND NOT l.granted";
        eventually("the approval waits for the logout", async || count(&test, held).await == 1).await;
        other.batch_execute("COMMIT").await.unwrap();
    });
    assert!(ended(&approved), "{approved:?}");
    let typed = waiting.user_code.to_string();
    assert!(ended(&test.services().devices.deny_device_code(&acme.admin, &typed, None).await));
    assert!(matches!(poll(&test, &waiting).await, Err(DeviceError::Pending)));
}

#[tokio::test]
async fn a_changed_password_refuses_the_devices_that_have_no_token_yet() {
    let test = TestDb::new().await;
    test.org_with_admin("acme").await;
    let (user, other) =
        (test.user_in("acme", OrgRole::User).await, test.user_in("acme", OrgRole::User).await);
    let (caller, other) = (test.caller(&user).await, test.caller(&other).await);
    let (fetched, waiting, others) = (codes(&test).await, codes(&test).await, codes(&test).await);
    for (caller, codes) in [(&caller, &fetched), (&caller, &waiting), (&other, &others)] {
        approve(&test, caller, codes).await.unwrap();
    }
    poll(&test, &fetched).await.unwrap();
    let request = ChangePasswordRequest {
        current_password: user.password.clone(),
        new_password: Secret::new("another tide entirely".to_owned()),
    };
    test.services().logins.change_password(&caller, request, None).await.unwrap();
    assert!(matches!(poll(&test, &waiting).await, Err(DeviceError::Denied)));
    assert!(matches!(poll(&test, &fetched).await, Err(DeviceError::NotFound)));
    poll(&test, &others).await.unwrap();
}

#[tokio::test]
async fn a_token_for_an_organization_that_its_user_left_can_still_be_revoked() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    let codes = codes(&test).await;
    approve(&test, &acme.admin, &codes).await.unwrap();
    let token = poll(&test, &codes).await.unwrap();
    let tokens = &test.services().bearer_tokens;
    let id = tokens.lookup_bearer_token(token.token.expose()).await.unwrap().id;
    test.execute("DELETE FROM memberships").await;
    assert!(tokens.revoke(&acme.admin, id, None).await.unwrap().revoked_at.is_some());
    assert_eq!(count(&test, "audit_log WHERE action = 'token.revoke' AND org_id IS NULL").await, 1);
}

#[tokio::test]
async fn an_organization_that_ends_ends_its_tokens_and_refuses_its_devices() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    let user = test.user_in("acme", OrgRole::User).await;
    test.services().organizations.create(&test.caller(&user).await, organization("mine")).await.unwrap();
    // The one of their own is the default.
    let caller = test.caller(&user).await;
    let (fetched, waiting, elsewhere) = (codes(&test).await, codes(&test).await, codes(&test).await);
    for (caller, codes) in [(&caller, &fetched), (&caller, &waiting), (&acme.admin, &elsewhere)] {
        approve(&test, caller, codes).await.unwrap();
    }
    let token = poll(&test, &fetched).await.unwrap();
    test.services().organizations.delete(caller.org().unwrap()).await.unwrap();
    let outcome = test.services().logins.authenticate(token.token.expose(), None).await;
    assert!(ended(&outcome), "{outcome:?}");
    assert_eq!(count(&test, "device_codes WHERE decision = 'denied'").await, 1);
    assert!(matches!(poll(&test, &waiting).await, Err(DeviceError::Denied)));
    poll(&test, &elsewhere).await.unwrap();
}

#[tokio::test]
async fn every_organization_reads_in_its_log_that_a_user_of_it_has_gone() {
    let test = TestDb::new().await;
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let user = test.user_in("acme", OrgRole::User).await;
    let services = test.services();
    services.members.add(bolt.admin.org().unwrap(), Person::Id(user.id), OrgRole::User).await.unwrap();
    set_home(&test, user.id, acme.id).await;
    let (console, all) = (Operator::console(), &services.all_users);
    let told = async |action: &str| {
        let both = format!(
            "audit_log WHERE action = '{action}' AND resource = 'user:{}' AND org_id IN ('{}', '{}')",
            user.id, acme.id, bolt.id
        );
        count(&test, &both).await
    };
    let named = UpdateUserRequest { full_name: Some("Some Body".into()), ..Default::default() };
    all.update(&console, user.id, named, None).await.unwrap();
    assert_eq!(told("user.update").await, 1, "a name is its home's affair");
    let moved = UpdateUserRequest { home_org_id: PatchField::Set(bolt.id), ..Default::default() };
    all.update(&console, user.id, moved, None).await.unwrap();
    assert_eq!(told("user.update").await, 3, "the old home and the new one");
    all.update(&console, user.id, active(false), None).await.unwrap();
    assert_eq!(told("user.update").await, 5);
    let password = Secret::new("another tide entirely".to_owned());
    all.reset_password(&console, user.id, password, None).await.unwrap();
    assert_eq!(told("user.reset_password").await, 2, "keys end in both");
    all.delete(&console, user.id, None).await.unwrap();
    assert_eq!(told("user.delete").await, 2);
}

#[tokio::test]
async fn the_last_org_admin_of_an_organization_is_not_deleted() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    let (console, all) = (Operator::console(), &test.services().all_users);
    let last = acme.admin.user().user_id();
    let refused = all.delete(&console, last, None).await;
    assert!(
        matches!(&refused, Err(Error::Conflict { code: "E_LAST_ADMIN", message }) if message.contains("acme")),
        "{refused:?}"
    );
    let other = test.user_in("acme", OrgRole::Admin).await;
    test.execute(&format!("UPDATE users SET active = false WHERE id = '{}'", other.id)).await;
    assert!(all.delete(&console, last, None).await.is_err(), "the other one cannot log in");
    test.execute("UPDATE users SET active = true").await;
    all.delete(&console, last, None).await.unwrap();
    assert!(all.delete(&console, other.id, None).await.is_err());
    test.execute("UPDATE organizations SET status = 'deleted'").await;
    all.delete(&console, other.id, None).await.unwrap();
}

#[tokio::test]
async fn a_steward_who_is_none_any_more_changes_nobody() {
    let test = TestDb::new().await;
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let user = test.user_in("acme", OrgRole::User).await;
    set_home(&test, user.id, acme.id).await;
    let (all, actor) = (&test.services().all_users, acme.admin.user().user_id());
    let scope = acme.admin.org().unwrap();
    let db = test.db();
    let proved = db.in_org(scope, async |tx| user_change::steward(tx, user.id).await);
    let steward = proved.await.unwrap().unwrap();
    let (acme, bolt, id) = (acme.id, bolt.id, user.id);
    for (change, back) in [
        (
            format!("UPDATE memberships SET role = 'maintainer' WHERE user_id = '{actor}'"),
            format!("UPDATE memberships SET role = 'org_admin' WHERE user_id = '{actor}'"),
        ),
        (
            format!("UPDATE users SET home_org_id = '{bolt}' WHERE id = '{id}'"),
            format!("UPDATE users SET home_org_id = '{acme}' WHERE id = '{id}'"),
        ),
        (
            format!("UPDATE organizations SET owner_user_id = '{id}' WHERE id = '{acme}'"),
            "UPDATE organizations SET owner_user_id = NULL".to_owned(),
        ),
        (
            format!("UPDATE users SET active = false WHERE id = '{actor}'"),
            format!("UPDATE users SET active = true WHERE id = '{actor}'"),
        ),
    ] {
        test.execute(&change).await;
        let (updated, deleted) =
            (all.update(&steward, id, active(false), None).await, all.delete(&steward, id, None).await);
        assert!(matches!(updated, Err(Error::Forbidden(_))), "{change}: {updated:?}");
        assert!(matches!(deleted, Err(Error::Forbidden(_))), "{change}: {deleted:?}");
        test.execute(&back).await;
    }
    all.delete(&steward, id, None).await.unwrap();
}

#[tokio::test]
async fn the_line_of_a_devices_token_says_from_where_and_by_whom() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    let codes = codes(&test).await;
    approve(&test, &acme.admin, &codes).await.unwrap();
    poll(&test, &codes).await.unwrap();
    let line: String = test
        .look(
            "SELECT address || ' ' || (detail ->> 'approvedBy') FROM audit_log WHERE action = 'token.issue'",
        )
        .await;
    assert_eq!(line, format!("192.0.2.7 {}", acme.admin.user().username()));
}
