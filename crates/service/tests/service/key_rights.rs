//! What API keys may do: never more than their makers, never more than their scopes, never to make a wider one.

use chrono::TimeDelta;
use tidegate_model::{Clock, NewApiKey, OrgRole, Scope, StreamKind, StreamMode, SystemRole};
use tidegate_persistence::{Operator, api_key};
use tidegate_service::{Caller, Error, Minted, Person};

use crate::keys::{Stage, ended, mint, wanted};

fn forbidden<T: std::fmt::Debug>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Forbidden(_)))
}

#[tokio::test]
async fn a_key_can_make_no_wider_one() {
    let stage = Stage::new(&[Scope::Keys, Scope::SessionsWrite]).await;
    let maker = stage.comes_in().await.unwrap();
    for wider in [Scope::Everything, Scope::Streams, Scope::OrgRead, Scope::Admin] {
        assert!(forbidden(&mint(stage.keys(), &maker, &wanted(&[wider])).await), "{wider}");
        let more = wanted(&[Scope::SessionsRead, wider]);
        assert!(forbidden(&mint(stage.keys(), &maker, &more).await), "{wider} hidden");
    }
    let (key, _) = mint(stage.keys(), &maker, &wanted(&[Scope::SessionsRead])).await.unwrap();
    assert_eq!(key.created_by_user_id, stage.key.created_by_user_id);
}

#[tokio::test]
async fn a_key_can_make_none_that_stands_longer() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let end = stage.test.manual_clock().now() + TimeDelta::days(1);
    let new = NewApiKey { expires_at: Some(end), ..wanted(&[Scope::Everything]) };
    let (key, plaintext) = mint(stage.keys(), &stage.org.admin, &new).await.unwrap();
    let maker = stage.test.services().logins.authenticate(&plaintext, None).await.unwrap();
    let later = NewApiKey { expires_at: Some(end + TimeDelta::seconds(1)), ..new.clone() };
    assert!(forbidden(&mint(stage.keys(), &maker, &later).await));
    let (child, _) = mint(stage.keys(), &maker, &wanted(&[Scope::Everything])).await.unwrap();
    assert_eq!(child.expires_at, Some(end), "it ends with its maker");
    // Half of its time is over: rotating itself gives it no more than is left.
    stage.test.manual_clock().advance(TimeDelta::hours(12));
    let scope = maker.org().unwrap();
    let rotated = stage.keys().rotate_api_key(scope, key.id, None, None, None, |_| ().into()).await.unwrap();
    let Minted::New(rotated, _) = rotated else { panic!("a new key") };
    assert_eq!(rotated.expires_at, Some(end));
}

#[tokio::test]
async fn a_key_with_less_cannot_rotate_one_with_more() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let (_, narrow) = mint(stage.keys(), &stage.org.admin, &wanted(&[Scope::Keys])).await.unwrap();
    let narrow = stage.test.services().logins.authenticate(&narrow, None).await.unwrap();
    let scope = narrow.org().unwrap();
    let rotated = stage.keys().rotate_api_key(scope, stage.key.id, None, None, None, |_| ().into()).await;
    assert!(forbidden(&rotated), "{rotated:?}");
    stage.comes_in().await.unwrap();
}

#[tokio::test]
async fn another_members_key_is_revoked_but_never_rotated() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let other = stage.test.user_in("acme", OrgRole::Admin).await;
    let other = stage.test.caller(&other).await;
    let scope = other.org().unwrap();
    let rotated = stage.keys().rotate_api_key(scope, stage.key.id, None, None, None, |_| ().into()).await;
    assert!(forbidden(&rotated), "{rotated:?}");
    stage.keys().revoke_api_key(scope, stage.key.id, None).await.unwrap();
    assert!(ended(&stage.comes_in().await));
}

#[tokio::test]
async fn keys_are_made_and_listed_by_admins_and_the_owner_alone() {
    let stage = Stage::new(&[Scope::Everything]).await;
    for role in [OrgRole::Maintainer, OrgRole::User, OrgRole::Viewer] {
        let member = stage.test.user_in("acme", role).await;
        let id = member.id;
        let member = stage.test.caller(&member).await;
        let scope = member.org().unwrap();
        assert!(forbidden(&mint(stage.keys(), &member, &wanted(&[Scope::SessionsRead])).await), "{role}");
        assert!(forbidden(&stage.keys().list_api_keys_for_org(scope, 10, None).await), "{role}");
        assert!(forbidden(&stage.keys().revoke_api_key(scope, stage.key.id, None).await), "{role}");
        assert!(forbidden(&stage.keys().get(scope, stage.key.id).await), "{role}");
        stage.test.execute(&format!("UPDATE organizations SET owner_user_id = '{id}'")).await;
        mint(stage.keys(), &member, &wanted(&[Scope::SessionsRead])).await.unwrap();
    }
}

#[tokio::test]
async fn a_member_who_was_removed_and_comes_back_finds_their_keys_revoked() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let (services, admin) = (stage.test.services(), stage.org.admin.org().unwrap());
    let member = stage.test.user_in("acme", OrgRole::Admin).await;
    let caller = stage.test.caller(&member).await;
    let (_, plaintext) = mint(stage.keys(), &caller, &wanted(&[Scope::SessionsRead])).await.unwrap();
    services.logins.authenticate(&plaintext, None).await.unwrap();
    services.members.remove(admin, member.id).await.unwrap();
    assert!(ended(&services.logins.authenticate(&plaintext, None).await));
    services.members.add(admin, Person::Id(member.id), OrgRole::Admin).await.unwrap();
    assert!(ended(&services.logins.authenticate(&plaintext, None).await), "the old key stays dead");
    stage.comes_in().await.unwrap();
}

#[tokio::test]
async fn a_key_lets_nobody_in_who_may_more_than_it() {
    let stage = Stage::new(&[Scope::OrgWrite]).await;
    let (services, key) = (stage.test.services(), stage.comes_in().await.unwrap());
    let friend = stage.test.user_in("acme", OrgRole::Viewer).await;
    for role in OrgRole::ALL {
        let given = services.members.set_role(key.org().unwrap(), friend.id, *role).await;
        assert!(forbidden(&given), "{role}: {given:?}");
        let invited = tidegate_model::CreateInviteRequest {
            username: "stranger".into(),
            role: *role,
            expires_in: TimeDelta::days(1),
        };
        let invited =
            services.invites.create(key.org().unwrap(), invited, None, |_| serde_json::Value::Null).await;
        assert!(forbidden(&invited), "{role}: {invited:?}");
    }
    services.members.set_role(stage.org.admin.org().unwrap(), friend.id, OrgRole::Admin).await.unwrap();
}

#[tokio::test]
async fn an_invite_brings_nobody_back_who_was_removed() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let (services, admin) = (stage.test.services(), stage.org.admin.org().unwrap());
    let member = stage.test.user_in("acme", OrgRole::Viewer).await;
    stage
        .test
        .execute(&format!(
            "INSERT INTO invites (id, org_id, invitee_username, inviter_user_id, inviter_username, role, status, created_at, expires_at)
             SELECT gen_random_uuid(), '{}', username, id, username, 'org_admin', 'pending', now(), now() + interval '1 day' FROM users WHERE id = '{}'",
            admin.org_id(),
            member.id
        ))
        .await;
    services.members.remove(admin, member.id).await.unwrap();
    let pending = "SELECT count(*) FROM invites WHERE status = 'pending'";
    assert_eq!(stage.test.look::<i64>(pending).await, 0);
}

#[tokio::test]
async fn another_organizations_key_is_not_found() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let bolt = stage.test.org_with_admin("bolt").await;
    let (scope, id, keys) = (bolt.admin.org().unwrap(), stage.key.id, stage.keys());
    let missing = |error: Error| matches!(error, Error::NotFound(_));
    assert!(missing(keys.get(scope, id).await.unwrap_err()));
    assert!(missing(keys.revoke_api_key(scope, id, None).await.unwrap_err()));
    let rotated = keys.rotate_api_key(scope, id, None, None, None, |_| ().into()).await;
    assert!(missing(rotated.unwrap_err()));
    assert_eq!(keys.list_api_keys_for_org(scope, 10, None).await.unwrap().total, 0);
    stage.comes_in().await.unwrap();
}

#[tokio::test]
async fn a_key_loses_what_its_makers_role_loses() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let before = stage.comes_in().await.unwrap();
    stage.test.execute("UPDATE memberships SET role = 'viewer'").await;
    let after = stage.comes_in().await.unwrap();
    assert!(before.scopes().allow(Scope::SessionsWrite) && !after.scopes().allow(Scope::SessionsWrite));
    assert_eq!(after.org().unwrap().role(), OrgRole::Viewer);
    assert!(!stage.test.services().logins.still_stands(&before).await.unwrap());
    assert!(forbidden(&mint(stage.keys(), &before, &wanted(&[Scope::SessionsRead])).await), "an old scope");
    stage.test.execute("DELETE FROM memberships").await;
    assert!(ended(&stage.comes_in().await));
}

#[tokio::test]
async fn a_key_of_somebody_deactivated_or_of_a_suspended_organization_opens_nothing() {
    let stage = Stage::new(&[Scope::Everything]).await;
    stage.test.execute("UPDATE organizations SET status = 'suspended'").await;
    assert!(matches!(stage.comes_in().await.unwrap().org(), Err(Error::NotFound(_))));
    stage.test.execute("UPDATE organizations SET status = 'active'").await;
    stage.test.execute("UPDATE users SET active = false").await;
    assert!(ended(&stage.comes_in().await));
}

#[tokio::test]
async fn an_operators_key_is_none_while_its_organization_is_suspended() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let operator = stage.test.user_with("acme", OrgRole::Admin, SystemRole::Operator).await;
    let operator = stage.test.caller(&operator).await;
    let (_, plaintext) = mint(stage.keys(), &operator, &wanted(&[Scope::Admin])).await.unwrap();
    let logins = &stage.test.services().logins;
    assert!(logins.authenticate(&plaintext, None).await.unwrap().operator().is_ok());
    stage.test.execute("UPDATE organizations SET status = 'suspended'").await;
    assert!(logins.authenticate(&plaintext, None).await.unwrap().operator().is_err());
}

#[tokio::test]
async fn an_operators_key_is_no_operator_unless_its_scope_says_so() {
    let stage = Stage::new(&[Scope::Everything]).await;
    assert!(forbidden(&mint(stage.keys(), &stage.org.admin, &wanted(&[Scope::Admin])).await));
    let operator = stage.test.user_with("acme", OrgRole::Admin, SystemRole::Operator).await;
    let operator = stage.test.caller(&operator).await;
    let comes_in = async |scopes: &[Scope]| -> Caller {
        let (_, plaintext) = mint(stage.keys(), &operator, &wanted(scopes)).await.unwrap();
        stage.test.services().logins.authenticate(&plaintext, None).await.unwrap()
    };
    let plain = comes_in(&[Scope::Everything]).await;
    assert!(plain.operator().is_err() && plain.role() == SystemRole::User);
    assert!(forbidden(&mint(stage.keys(), &plain, &wanted(&[Scope::Admin])).await));
    let admin = comes_in(&[Scope::Admin]).await;
    assert!(admin.operator().is_ok());
    stage.test.execute("UPDATE users SET role = 'user'").await;
    assert!(!stage.test.services().logins.still_stands(&admin).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racers_who_rotate_a_key_one_gets_the_new_one() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let scope = stage.org.admin.org().unwrap();
    let rotate =
        async || stage.keys().rotate_api_key(scope, stage.key.id, None, None, None, |_| ().into()).await;
    let outcomes = futures_util::future::join_all((0..8).map(|_| rotate())).await;
    let mut won = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(Minted::New(key, plaintext)) => won.push((key, plaintext)),
            Err(Error::Conflict { code: "E_KEY_REVOKED", .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!((&won[0].0.label, won[0].0.scopes), (&stage.key.label, stage.key.scopes));
    assert!(ended(&stage.comes_in().await));
    stage.test.services().logins.authenticate(won[0].1.expose(), None).await.unwrap();
}

#[tokio::test]
async fn the_list_shows_keys_that_stand_first_and_each_once() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let scope = stage.org.admin.org().unwrap();
    let mut made = vec![stage.key.id];
    for _ in 0..4 {
        stage.test.manual_clock().advance(TimeDelta::seconds(1));
        made.push(mint(stage.keys(), &stage.org.admin, &wanted(&[Scope::Streams])).await.unwrap().0.id);
    }
    for index in [3, 0] {
        stage.keys().revoke_api_key(scope, made[index], None).await.unwrap();
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = stage.keys().list_api_keys_for_org(scope, 2, cursor.as_deref()).await.unwrap();
        assert_eq!((page.total, page.total_is_exact), (5, true));
        seen.extend(page.keys.iter().map(|key| key.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 4, 0, 3].map(|index: usize| made[index]));
    let bad = stage.keys().list_api_keys_for_org(scope, 2, Some("page two")).await;
    assert!(matches!(bad, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn the_audit_log_names_the_credential_and_no_secret() {
    let stage = Stage::new(&[Scope::Keys]).await;
    let maker = stage.comes_in().await.unwrap();
    let (_, child) = mint(stage.keys(), &maker, &wanted(&[Scope::Keys])).await.unwrap();
    let by_key: i64 = stage
        .test
        .look(&format!(
            "SELECT count(*) FROM audit_log WHERE action = 'key.create' AND credential = 'key:{}'",
            stage.key.id
        ))
        .await;
    assert_eq!(by_key, 1);
    let login = stage.org.admin.credential();
    let by_login: i64 = stage
        .test
        .look(&format!("SELECT count(*) FROM audit_log WHERE credential = '{login}' AND action LIKE 'key.%'"))
        .await;
    assert_eq!(by_login, 1);
    for secret in [&stage.plaintext, &child] {
        let told: i64 = stage
            .test
            .look(&format!("SELECT count(*) FROM audit_log a WHERE a::text LIKE '%{}%'", &secret[12..]))
            .await;
        assert_eq!(told, 0);
    }
}

#[tokio::test]
async fn a_key_has_no_login_to_end() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let caller = stage.comes_in().await.unwrap();
    assert!(forbidden(&stage.test.services().logins.logout(&caller).await));
    stage.comes_in().await.unwrap();
}

#[tokio::test]
async fn a_ticket_ends_with_the_key_that_asked_for_it() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let mut agent = stage.test.online_agent("vm-1", 3).await;
    let session = stage.test.running_session(&stage.org.admin, &mut agent).await.id;
    let caller = stage.comes_in().await.unwrap();
    let streams = &stage.test.services().streams;
    let ticket = async || {
        streams.connect(caller.org().unwrap(), session, StreamKind::Terminal, StreamMode::View).await.unwrap()
    };
    let (good, late) = (ticket().await.ticket, ticket().await.ticket);
    let opened = streams.redeem(&good, session, StreamKind::Terminal).await.unwrap();
    assert_eq!(opened.caller.credential(), caller.credential());
    stage.keys().revoke_api_key(stage.org.admin.org().unwrap(), stage.key.id, None).await.unwrap();
    let refused = streams.redeem(&late, session, StreamKind::Terminal).await;
    assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
}

#[tokio::test]
async fn keys_of_a_member_or_a_user_are_revoked_together() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let (scope, user, now) =
        (stage.org.admin.org().unwrap(), stage.key.created_by_user_id, stage.key.created_at);
    mint(stage.keys(), &stage.org.admin, &wanted(&[Scope::Streams])).await.unwrap();
    let db = stage.test.db();
    let of_member = db.in_org(scope, async |tx| api_key::revoke_of_member(tx, user, now).await).await;
    assert_eq!(of_member.unwrap(), 2);
    mint(stage.keys(), &stage.org.admin, &wanted(&[Scope::Streams])).await.unwrap();
    let of_user =
        db.in_platform(&Operator::console(), async |tx| api_key::revoke_of_user(tx, user, now).await).await;
    assert_eq!(of_user.unwrap(), 1);
    assert!(ended(&stage.comes_in().await));
}
