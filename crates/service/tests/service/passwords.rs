//! Passwords: changed, brought from elsewhere, and what is written down of those who try.

use std::net::IpAddr;

use futures_util::future::join_all;
use tidegate_model::{ChangePasswordRequest, FromFields, ImportedUser, LoginRequest, OrgRole, Secret};
use tidegate_persistence::Operator;
use tidegate_service::{Error, LoggedIn, Options, Paging};
use tidegate_test_support::{TestDb, TestUser};

async fn login(test: &TestDb, name: &str, password: &str) -> Result<LoggedIn, Error> {
    let from: IpAddr = "192.0.2.1".parse().unwrap();
    let request = LoginRequest { username: name.into(), password: Secret::new(password.into()) };
    test.services().logins.login(request, Some(from)).await
}

async fn user(test: &TestDb) -> TestUser {
    test.services().operators.create_organization(&Operator::console(), "acme").await.unwrap();
    test.user_in("acme", OrgRole::User).await
}

#[tokio::test]
async fn a_password_change_ends_the_other_logins_and_no_key_of_this_one() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let (here, there) = (test.caller(&user).await, test.caller(&user).await);
    let change = |current: &str, new: &str| ChangePasswordRequest {
        current_password: Secret::new(current.into()),
        new_password: Secret::new(new.into()),
    };
    let wrong = logins.change_password(&here, change("wrong", "a brand new password"), None).await;
    assert!(matches!(wrong, Err(Error::InvalidCredentials)), "{wrong:?}");
    let name = logins.change_password(&here, change("wrong", &user.username.to_uppercase()), None).await;
    assert!(matches!(name, Err(Error::Invalid(_))), "{name:?}");
    logins
        .change_password(&here, change(user.password.expose(), "a brand new password"), None)
        .await
        .unwrap();
    assert!(logins.still_stands(&here).await.unwrap());
    assert!(!logins.still_stands(&there).await.unwrap());
    assert!(login(&test, &user.username, user.password.expose()).await.is_err());
    login(&test, &user.username, "a brand new password").await.unwrap();
    assert_eq!(
        test.look::<i64>("SELECT count(*) FROM audit_log WHERE action = 'user.change_password'").await,
        1
    );
}

#[tokio::test]
async fn logins_are_listed_and_ended_one_by_one() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let (here, there) = (test.caller(&user).await, test.caller(&user).await);
    let stranger = test.caller(&test.user_in("acme", OrgRole::Admin).await).await;
    let page = logins.list(&here, &Paging { limit: 1, cursor: None }).await.unwrap();
    assert_eq!((page.items.len(), page.total, page.items[0].current), (1, 2, false));
    let rest = logins.list(&here, &Paging { limit: 1, cursor: page.next_cursor }).await.unwrap();
    assert!(rest.items[0].current && rest.next_cursor.is_none());
    let id = page.items[0].id;
    assert!(matches!(logins.revoke(&stranger, id, None).await, Err(Error::NotFound(_))));
    assert!(logins.still_stands(&there).await.unwrap());
    logins.revoke(&here, id, None).await.unwrap();
    assert!(!logins.still_stands(&there).await.unwrap());
    assert!(matches!(logins.revoke(&here, id, None).await, Err(Error::NotFound(_))));
    assert!(logins.still_stands(&here).await.unwrap());
}

#[tokio::test]
async fn a_hash_that_was_brought_is_good_once_and_then_ours() {
    let test = TestDb::new().await;
    user(&test).await;
    let line = serde_json::json!({"username": "alice", "organization": "acme", "passwordHash": brought()});
    let all = &test.services().all_users;
    let alice = ImportedUser::from_json(line).unwrap();
    all.import(&Operator::console(), alice).await.unwrap();
    let hash = "SELECT password_hash FROM users WHERE username = 'alice'";
    assert!(login(&test, "alice", "tidewater gates").await.is_err());
    assert_eq!(test.look::<String>(hash).await, brought());
    assert!(login(&test, "alice", "tidewater gate").await.unwrap().user.is_some());
    assert!(test.look::<String>(hash).await.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    login(&test, "alice", "tidewater gate").await.unwrap();
    let dear = brought().replace("$04$", "$15$");
    let dear = serde_json::json!({"username": "robert", "passwordHash": dear});
    let refused = all.import(&Operator::console(), ImportedUser::from_json(dear).unwrap()).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

/// `tidewater gate` as another system keeps it, at cost 4.
fn brought() -> String {
    let hash = bcrypt::hash_with_salt("tidewater gate", 4, [7; 16]).unwrap();
    hash.format_for_version(bcrypt::Version::TwoB)
}

#[tokio::test]
async fn a_login_and_a_failed_one_are_written_down_and_a_refused_one_is_not() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let services = test.services_with(Options { failures_per_subject: 2, ..TestDb::options() });
    let attempt = async |name: &str, password: &str| {
        let request = LoginRequest { username: name.into(), password: Secret::new(password.into()) };
        services.logins.login(request, Some("192.0.2.1".parse().unwrap())).await
    };
    attempt(&user.username, user.password.expose()).await.unwrap();
    let good = "SELECT actor || ' ' || address FROM audit_log WHERE action = 'login.create'";
    assert_eq!(test.look::<String>(good).await, format!("user:{} 192.0.2.1", user.id));
    attempt(&user.username, "wrong").await.unwrap_err();
    let odd = format!("no\u{1b}body{}", "x".repeat(5_000));
    for _ in 0..5 {
        attempt(&odd, "wrong").await.unwrap_err();
    }
    // What was typed as a name may be a password, and is not there.
    let lines = "SELECT string_agg(resource || ' ' || (detail->>'reason'), E'\\n' ORDER BY id)
                 FROM audit_log WHERE action = 'login.refuse'";
    let lines: String = test.look(lines).await;
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], format!("user:{} wrong password", user.id));
    assert_eq!(lines[1], "user:unknown no such user");
}

#[tokio::test]
async fn whoever_signs_in_elsewhere_has_no_password_here_and_looks_like_nobody() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    for provider in ["saml", "oidc", "github"] {
        test.execute(&format!("UPDATE users SET provider = '{provider}'")).await;
        let refused = login(&test, &user.username, user.password.expose()).await;
        assert!(matches!(refused, Err(Error::InvalidCredentials)), "{provider}: {refused:?}");
    }
    test.execute("UPDATE users SET provider = 'local', password_hash = NULL").await;
    let refused = login(&test, &user.username, user.password.expose()).await;
    assert!(matches!(refused, Err(Error::InvalidCredentials)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_thirty_two_refreshes_wins_and_the_family_ends() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let first = login(&test, &user.username, user.password.expose()).await.unwrap();
    let token = Secret::new(first.refresh_token);
    let outcomes = join_all((0..32).map(|_| logins.refresh(&token, None))).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for refused in lost {
        assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    }
    let winner = won.into_iter().next().unwrap().unwrap();
    let after = logins.refresh(&Secret::new(winner.refresh_token), None).await;
    assert!(matches!(after, Err(Error::Unauthenticated(_))), "the others replayed it: {after:?}");
    assert!(logins.authenticate(&winner.token, None).await.is_err());
}
