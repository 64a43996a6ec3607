//! People come in: passwords, tokens, refresh, and how a login ends.

use chrono::TimeDelta;
use tidegate_model::{LoginRequest, OrgRole, Secret, SystemRole};
use tidegate_persistence::Operator;
use tidegate_service::{Error, NewLocalUser};
use tidegate_test_support::{MASTER_KEY, TestDb, TestUser};

async fn user(test: &TestDb) -> TestUser {
    test.services().operators.create_organization(&Operator::console(), "acme").await.unwrap();
    test.user_in("acme", OrgRole::User).await
}

fn wrong(result: &Result<impl Sized, Error>) -> bool {
    matches!(result, Err(Error::InvalidCredentials))
}

fn ended(result: &Result<impl Sized, Error>) -> bool {
    matches!(result, Err(Error::Unauthenticated(_)))
}

#[tokio::test]
async fn a_login_opens_the_organization_and_shows_the_user() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let mut login = user.login();
    login.username = login.username.to_uppercase();
    let logged_in = test.services().logins.login(login, None).await.unwrap();
    let shown = logged_in.user.unwrap();
    assert_eq!((shown.username, shown.org_role), (user.username.clone(), OrgRole::User));
    assert!(shown.last_login.is_some());
    let caller = test.services().logins.authenticate(&logged_in.token, Some("acme")).await.unwrap();
    assert_eq!(caller.org().unwrap().username(), user.username);
}

#[tokio::test]
async fn unknown_wrong_and_deactivated_are_the_same() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let unknown = LoginRequest { username: "nobody".into(), password: user.password.clone() };
    let mistaken = LoginRequest { password: Secret::new("wrong".into()), ..user.login() };
    assert!(wrong(&logins.login(unknown, None).await));
    assert!(wrong(&logins.login(mistaken, None).await));
    test.execute("UPDATE users SET active = false").await;
    assert!(wrong(&logins.login(user.login(), None).await));
    test.execute("UPDATE users SET active = true, provider = 'saml'").await;
    assert!(wrong(&logins.login(user.login(), None).await));
}

#[tokio::test]
async fn a_deactivated_users_tokens_end_at_once() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let token = logins.login(user.login(), None).await.unwrap().token;
    let caller = logins.authenticate(&token, None).await.unwrap();
    test.execute("UPDATE users SET active = false").await;
    assert!(ended(&logins.authenticate(&token, None).await));
    assert!(!logins.still_stands(&caller).await.unwrap());
}

#[tokio::test]
async fn a_token_ends_after_its_time_and_a_refresh_gives_another() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let first = logins.login(user.login(), None).await.unwrap();
    test.manual_clock().advance(TimeDelta::minutes(15));
    assert!(ended(&logins.authenticate(&first.token, None).await));
    let second = logins.refresh(&Secret::new(first.refresh_token.clone()), None).await.unwrap();
    assert_ne!(second.refresh_token, first.refresh_token);
    logins.authenticate(&second.token, None).await.unwrap();
    test.manual_clock().advance(TimeDelta::days(31));
    assert!(ended(&logins.refresh(&Secret::new(second.refresh_token), None).await));
}

#[tokio::test]
async fn a_replayed_refresh_token_ends_the_login() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let first = logins.login(user.login(), None).await.unwrap();
    let second = logins.refresh(&Secret::new(first.refresh_token.clone()), None).await.unwrap();
    assert!(ended(&logins.refresh(&Secret::new(first.refresh_token), None).await));
    assert!(ended(&logins.authenticate(&second.token, None).await), "thief and owner both");
    assert!(ended(&logins.refresh(&Secret::new(second.refresh_token), None).await));
    assert!(ended(&logins.refresh(&Secret::new("made up".into()), None).await));
}

#[tokio::test]
async fn a_refresh_token_of_long_ago_ends_the_login_and_says_so() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let first = logins.login(user.login(), None).await.unwrap();
    let other = logins.login(user.login(), None).await.unwrap();
    let mut current = first.refresh_token.clone();
    for _ in 0..3 {
        current = logins.refresh(&Secret::new(current), None).await.unwrap().refresh_token;
    }
    let source = Some("192.0.2.7".parse().unwrap());
    assert!(ended(&logins.refresh(&Secret::new(first.refresh_token.clone()), source).await));
    assert!(ended(&logins.refresh(&Secret::new(current), None).await), "thief and owner both");
    assert!(ended(&logins.refresh(&Secret::new(first.refresh_token), None).await));
    logins.refresh(&Secret::new(other.refresh_token), None).await.unwrap();
    let lines =
        "SELECT string_agg(actor_name || ' ' || address, ',') FROM audit_log WHERE action = 'login.replay'";
    assert_eq!(test.look::<String>(lines).await, format!("{} 192.0.2.7", user.username));
}

#[tokio::test]
async fn a_refresh_token_of_the_version_before_is_good_until_its_next_refresh() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    logins.login(user.login(), None).await.unwrap();
    // Random, and known by its digest alone.
    let token = "b2xkIGZvcm0gb2YgYSByZWZyZXNoIHRva2VuLCAzMmI";
    let digest = hex::encode(old_digest(token));
    test.execute(&format!("UPDATE login_sessions SET refresh_hash = decode('{digest}', 'hex')")).await;
    let second = logins.refresh(&Secret::new(token.into()), None).await.unwrap();
    let third = logins.refresh(&Secret::new(second.refresh_token.clone()), None).await.unwrap();
    assert!(ended(&logins.refresh(&Secret::new(second.refresh_token), None).await));
    assert!(ended(&logins.refresh(&Secret::new(third.refresh_token), None).await));
}

/// What such a token is stored as.
fn old_digest(token: &str) -> Vec<u8> {
    use aws_lc_rs::{hkdf, hmac};
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tidegate v1").extract(&MASTER_KEY);
    let okm = derived.expand(&[b"digest"], hmac::HMAC_SHA256).unwrap();
    hmac::sign(&hmac::Key::from(okm), format!("refresh:{token}").as_bytes()).as_ref().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_racing_refreshes_wins_at_most() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let token = Secret::new(logins.login(user.login(), None).await.unwrap().refresh_token);
    let racers = (0..8).map(|_| logins.refresh(&token, None));
    let outcomes = futures_util::future::join_all(racers).await;
    assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() <= 1);
    let rotated = "SELECT count(*) FROM login_sessions WHERE previous_refresh_hash IS NOT NULL";
    assert_eq!(test.look::<i64>(rotated).await, 1);
}

#[tokio::test]
async fn a_logout_ends_this_login_and_no_other() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let (here, there) =
        (logins.login(user.login(), None).await.unwrap(), logins.login(user.login(), None).await.unwrap());
    let caller = logins.authenticate(&here.token, None).await.unwrap();
    logins.logout(&caller).await.unwrap();
    assert!(ended(&logins.authenticate(&here.token, None).await));
    assert!(ended(&logins.refresh(&Secret::new(here.refresh_token), None).await));
    logins.authenticate(&there.token, None).await.unwrap();
}

#[tokio::test]
async fn a_new_password_ends_every_login() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let token = logins.login(user.login(), None).await.unwrap().token;
    let new = Secret::new("a brand new password".to_owned());
    let operators = &test.services().operators;
    operators.set_password(&Operator::console(), &user.username, new.clone()).await.unwrap();
    assert!(ended(&logins.authenticate(&token, None).await));
    assert!(wrong(&logins.login(user.login(), None).await));
    logins.login(LoginRequest { username: user.username, password: new }, None).await.unwrap();
}

#[tokio::test]
async fn a_forged_token_is_not_good() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let logins = &test.services().logins;
    let token = logins.login(user.login(), None).await.unwrap().token;
    let (head, signature) = token.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().rev().collect();
    for forged in
        [String::new(), "a.b.c".into(), head.into(), format!("{head}."), format!("{head}.{flipped}")]
    {
        assert!(ended(&logins.authenticate(&forged, None).await), "{forged}");
    }
}

#[tokio::test]
async fn a_suspended_organization_opens_for_nobody() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let caller = test.caller(&user).await;
    test.execute("UPDATE organizations SET status = 'suspended'").await;
    assert!(!test.services().logins.still_stands(&caller).await.unwrap());
    let token = test.services().logins.login(user.login(), None).await.unwrap().token;
    let caller = test.services().logins.authenticate(&token, Some("acme")).await.unwrap();
    assert!(matches!(caller.org(), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn exactly_one_of_two_bootstraps_wins() {
    let test = TestDb::new().await;
    let (operators, operator) = (&test.services().operators, Operator::console());
    let admin = |name: &str| NewLocalUser {
        username: name.into(),
        email: None,
        full_name: "First Admin".into(),
        password: Secret::new("tidewater gate".into()),
        role: SystemRole::Admin,
    };
    assert!(!operators.is_set_up().await.unwrap());
    let (one, two) = tokio::join!(
        operators.bootstrap(&operator, "acme", admin("alice")),
        operators.bootstrap(&operator, "bolt", admin("robert")),
    );
    assert_ne!(one.is_ok(), two.is_ok());
    assert!(operators.is_set_up().await.unwrap());
    assert_eq!(test.look::<i64>("SELECT count(*) FROM organizations").await, 1);
}

#[tokio::test]
async fn a_database_outage_is_no_wrong_password() {
    let test = TestDb::new().await;
    let user = user(&test).await;
    let token = test.services().logins.login(user.login(), None).await.unwrap().token;
    let outage = test.outage().await;
    assert!(test.services().logins.login(user.login(), None).await.unwrap_err().is_unavailable());
    assert!(test.services().logins.authenticate(&token, None).await.unwrap_err().is_unavailable());
    outage.end().await;
    test.services().logins.authenticate(&token, None).await.unwrap();
}
