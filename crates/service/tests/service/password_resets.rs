//! Forgotten passwords: who gets a mail, what its link does, once, and that nobody who asks learns anything.

use std::net::IpAddr;

use chrono::TimeDelta;
use futures_util::future::join_all;
use tidegate_model::{
    LoginRequest, NewApiKey, NewPasswordRequest, OrgRole, ResetPasswordRequest, Secret, SystemRole,
    UpdateUserRequest,
};
use tidegate_service::{Error, Minted, Operator, Post};
use tidegate_test_support::{TestDb, TestUser};

use crate::mail::{Does, Recorder, recorded, send, unquoted};

/// A member of an organization who has an address.
struct Stage {
    test: TestDb,
    ada: TestUser,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        test.org_with_admin("acme").await;
        let ada = test.user_in("acme", OrgRole::User).await;
        test.execute(&format!("UPDATE users SET email = 'Ada@example.com' WHERE id = '{}'", ada.id)).await;
        Self { test, ada }
    }

    async fn ask(&self, username: &str) -> Result<(), Error> {
        self.ask_from(username, None).await
    }

    async fn ask_from(&self, username: &str, source: Option<IpAddr>) -> Result<(), Error> {
        let request = ResetPasswordRequest::new(username).unwrap();
        self.test.services().password_resets.ask(&request, source).await
    }

    async fn send(&self, post: &Post) -> usize {
        send(&self.test.services().mails, post).await
    }

    /// Asks, has the mail sent, and gives the token of its link.
    async fn token(&self) -> String {
        self.ask(&self.ada.username).await.unwrap();
        let recorder = Recorder::new(Does::Take);
        assert_eq!(self.send(&recorded(&recorder)).await, 1);
        token_of(&recorder.taken()[0])
    }

    async fn set(&self, token: &str, password: &str) -> Result<(), Error> {
        let request = NewPasswordRequest {
            token: Secret::new(token.to_owned()),
            new_password: Secret::new(password.to_owned()),
        };
        self.test.services().password_resets.set(request, None).await
    }

    async fn logs_in_with(&self, password: &str) -> bool {
        let request =
            LoginRequest { username: self.ada.username.clone(), password: Secret::new(password.to_owned()) };
        match self.test.services().logins.login(request, None).await {
            Ok(_) => true,
            Err(Error::InvalidCredentials) => false,
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn rows(&self) -> String {
        let sql = "SELECT COALESCE(string_agg(concat_ws(' ', status, attempts, subject IS NULL, used_at IS NOT NULL), ', ' ORDER BY id), '')
                   FROM password_resets";
        self.test.look(sql).await
    }

    fn later(&self, minutes: i64) {
        self.test.manual_clock().advance(TimeDelta::minutes(minutes));
    }
}

fn token_of(mail: &str) -> String {
    let plain = unquoted(mail);
    let link = plain.split_once("https://tidegate.example/password/new?token=").unwrap().1;
    link.split_whitespace().next().unwrap().to_owned()
}

fn gone(outcome: &Result<(), Error>) -> bool {
    matches!(outcome, Err(Error::NotFound(_)))
}

#[tokio::test]
async fn the_link_of_the_mail_sets_the_password_once_and_both_logs_tell() {
    let stage = Stage::new().await;
    let token = stage.token().await;
    assert_eq!(stage.rows().await, "sent 1 t f");
    let resets = &stage.test.services().password_resets;
    resets.look(&token, None).await.unwrap();
    resets.look(&token, None).await.unwrap();
    stage.set(&token, "lower tide 42").await.unwrap();
    assert!(stage.logs_in_with("lower tide 42").await);
    assert!(!stage.logs_in_with(stage.ada.password.expose()).await);
    assert!(gone(&stage.set(&token, "another tide").await));
    assert!(gone(&resets.look(&token, None).await));
    assert!(stage.logs_in_with("lower tide 42").await);
    assert_eq!(stage.rows().await, "sent 1 t t");
    for action in ["user.password_reset.ask", "user.password_reset"] {
        let lines = format!(
            "SELECT string_agg(concat_ws(' ', actor, resource = 'user:{}', org_id IS NULL), ', ' ORDER BY org_id IS NULL)
             FROM audit_log WHERE action = '{action}'",
            stage.ada.id
        );
        assert_eq!(stage.test.look::<String>(&lines).await, "system t f, system t t", "{action}");
    }
}

#[tokio::test]
async fn an_address_in_any_case_is_as_good_as_a_name() {
    let stage = Stage::new().await;
    for name in ["ADA@EXAMPLE.com", &stage.ada.username.to_uppercase()] {
        stage.ask(name).await.unwrap();
        let recorder = Recorder::new(Does::Take);
        stage.send(&recorded(&recorder)).await;
        let mails = recorder.taken();
        assert!(mails[0].contains("To: Ada@example.com\r\n") && mails.len() == 1, "{mails:?}");
        assert!(mails[0].contains(&format!("a new password for {} on", stage.ada.username)), "{mails:?}");
    }
}

#[tokio::test]
async fn a_letter_that_is_counted_as_another_name_finds_nobody() {
    let stage = Stage::new().await;
    let sql = format!(
        "UPDATE users SET username = 'iiki', email = 'iiki@example.com' WHERE id = '{}'",
        stage.ada.id
    );
    stage.test.execute(&sql).await;
    let recorder = Recorder::new(Does::Take);
    // To PostgreSQL the small letter of the first is `i`, and of the second `k`.
    for name in ["\u{130}iki", "i\u{130}ki@example.com", "I\u{130}KI"] {
        stage.ask(name).await.unwrap();
    }
    stage.send(&recorded(&recorder)).await;
    assert_eq!((recorder.taken().len(), stage.rows().await), (0, ["dropped 1 t f"; 3].join(", ")));
    for name in ["II\u{212a}I", "iiki", "IIKI", "iiKi", "Iiki"] {
        stage.ask(name).await.unwrap();
    }
    let sixth = stage.ask("ii\u{212a}i").await;
    assert!(matches!(sixth, Err(Error::RateLimited(_))), "{sixth:?}: it is the same name");
}

#[tokio::test]
async fn whoever_has_no_password_here_gets_no_mail_and_the_asking_tells_nothing_of_it() {
    let stage = Stage::new().await;
    let (test, recorder) = (&stage.test, Recorder::new(Does::Take));
    let person = async |what: &str| {
        let user = test.user_in("acme", OrgRole::User).await;
        test.execute(&format!("UPDATE users SET {what} WHERE id = '{}'", user.id)).await;
        user.username
    };
    let names = [
        person("email = 'a@example.com', active = false").await,
        person("email = 'b@example.com', provider = 'github', password_hash = NULL").await,
        person("email = 'c@example.com', password_hash = NULL").await,
        person("email = NULL").await,
        person("email = 'd@example.com', active = false, deleted_at = now()").await,
        "nobody-at-all".to_owned(),
        "nobody@example.com".to_owned(),
        "a password, typed in the wrong place".to_owned(),
    ];
    for name in &names {
        stage.ask(name).await.unwrap();
    }
    let kept: Vec<u8> = test.look("SELECT string_agg(subject, ''::bytea) FROM password_resets").await;
    for name in &names {
        assert!(!kept.windows(name.len()).any(|part| part == name.as_bytes()), "{name} is kept in clear");
    }
    while stage.send(&recorded(&recorder)).await > 0 {}
    assert_eq!(recorder.taken(), Vec::<String>::new());
    assert_eq!(stage.rows().await, ["dropped 1 t f"; 8].join(", "));
    assert_eq!(
        test.look::<i64>("SELECT count(*) FROM audit_log WHERE action LIKE 'user.password_reset%'").await,
        0
    );
}

#[tokio::test]
async fn of_thirty_two_who_use_one_link_exactly_one_sets_the_password() {
    let stage = Stage::new().await;
    let token = stage.token().await;
    let passwords: Vec<String> = (0..32).map(|n| format!("lower tide {n:02}")).collect();
    let set = join_all(passwords.iter().map(|password| stage.set(&token, password))).await;
    let winners: Vec<usize> = (0..32).filter(|n| set[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{set:?}");
    // Some find the token used, some find no place to wait for a hash in.
    let refused =
        |outcome: &&Result<(), Error>| matches!(outcome, Err(Error::NotFound(_) | Error::RateLimited(_)));
    assert_eq!(set.iter().filter(refused).count(), 31, "{set:?}");
    assert!(set.iter().filter(|outcome| gone(outcome)).count() > 0, "{set:?}");
    assert!(stage.logs_in_with(&passwords[winners[0]]).await);
}

#[tokio::test]
async fn a_reset_ends_every_login_and_device_and_leaves_api_keys() {
    let stage = Stage::new().await;
    let services = stage.test.services();
    let admin = stage.test.user_in("acme", OrgRole::Admin).await;
    stage.test.execute(&format!("UPDATE users SET email = 'x@example.com' WHERE id = '{}'", admin.id)).await;
    let caller = stage.test.caller(&admin).await;
    let org = caller.org().unwrap().org_id();
    let token = services.logins.login(admin.login(), None).await.unwrap();
    let cookie = services.browsers.login(admin.login(), None).await.unwrap().cookie;
    let codes = services.devices.create_device_code("a laptop", None).await.unwrap();
    services.devices.approve_device_code(&caller, &codes.user_code.to_string(), org, None).await.unwrap();
    let device = services.devices.consume_device_code(codes.device_code.expose(), None).await.unwrap().token;
    let waiting = services.devices.create_device_code("a phone", None).await.unwrap();
    services.devices.approve_device_code(&caller, &waiting.user_code.to_string(), org, None).await.unwrap();
    let new = NewApiKey { label: "ci".into(), scopes: "sessions:read".parse().unwrap(), expires_at: None };
    let scope = caller.org().unwrap();
    let minted = services.keys.insert_api_key(scope, &new, None, None, |_| ().into()).await.unwrap();
    let Minted::New(_, key) = minted else { panic!("{minted:?}") };

    stage.ask(&admin.username).await.unwrap();
    let recorder = Recorder::new(Does::Take);
    stage.send(&recorded(&recorder)).await;
    stage.set(&token_of(&recorder.taken()[0]), "lower tide 42").await.unwrap();
    assert!(services.logins.authenticate(&token.token, None).await.is_err());
    assert!(services.logins.refresh(&Secret::new(token.refresh_token), None).await.is_err());
    assert!(services.browsers.authenticate(cookie.expose(), None).await.is_err());
    assert!(services.logins.authenticate(device.expose(), None).await.is_err());
    assert!(services.devices.consume_device_code(waiting.device_code.expose(), None).await.is_err());
    services.logins.authenticate(key.expose(), None).await.unwrap();
}

#[tokio::test]
async fn a_link_ends_by_time_and_by_whatever_changes_of_its_user() {
    let stage = Stage::new().await;
    let (users, operator) = (&stage.test.services().all_users, Operator::console());
    let (first, second) = (stage.token().await, stage.token().await);
    stage.later(29);
    stage.set(&first, "lower tide 42").await.unwrap();
    assert!(gone(&stage.set(&second, "lower tide 43").await), "the other link went with it");

    stage.later(60);
    let late = stage.token().await;
    stage.later(30);
    assert!(gone(&stage.set(&late, "lower tide 43").await), "it is half an hour old");

    for change in [
        UpdateUserRequest { email: Some("other@example.com".into()), ..Default::default() },
        UpdateUserRequest { active: Some(false), ..Default::default() },
    ] {
        let token = stage.token().await;
        stage.later(1);
        users.update(&operator, stage.ada.id, change, None).await.unwrap();
        assert!(gone(&stage.set(&token, "lower tide 43").await));
    }
    let back = UpdateUserRequest { active: Some(true), ..Default::default() };
    users.update(&operator, stage.ada.id, back, None).await.unwrap();
    stage.later(60);
    let token = stage.token().await;
    stage.later(1);
    let password = Secret::new("the operator's tide".to_owned());
    users.reset_password(&operator, stage.ada.id, password, None).await.unwrap();
    assert!(gone(&stage.set(&token, "lower tide 43").await));
    assert!(stage.logs_in_with("the operator's tide").await);
}

#[tokio::test]
async fn a_bad_password_uses_nothing_up() {
    let stage = Stage::new().await;
    let token = stage.token().await;
    for bad in ["short", "password1", &stage.ada.username] {
        assert!(matches!(stage.set(&token, bad).await, Err(Error::Invalid(_))), "{bad}");
    }
    stage.set(&token, "lower tide 42").await.unwrap();
}

#[tokio::test]
async fn no_token_and_no_link_is_kept_in_clear() {
    let stage = Stage::new().await;
    let token = stage.token().await;
    assert!(token.len() >= 43, "256 bits: {token}");
    let row: String = stage.test.look("SELECT (r.*)::text FROM password_resets r").await;
    assert!(!row.contains(&token) && !row.contains(&hex::encode(&token)), "{row}");
    assert!(gone(&stage.set(&token.to_uppercase(), "lower tide 42").await));
    assert!(gone(&stage.set("", "lower tide 42").await));
}

#[tokio::test]
async fn a_mail_that_does_not_go_out_is_tried_again_with_another_link_for_an_hour() {
    let stage = Stage::new().await;
    let refuser = Recorder::new(Does::Refuse);
    stage.ask(&stage.ada.username).await.unwrap();
    stage.send(&recorded(&refuser)).await;
    assert_eq!(stage.rows().await, "pending 1 f f");
    stage.later(2);
    let recorder = Recorder::new(Does::Take);
    stage.send(&recorded(&recorder)).await;
    let (old, new) = (token_of(&refuser.taken()[0]), token_of(&recorder.taken()[0]));
    assert!(old != new && gone(&stage.set(&old, "lower tide 42").await));
    stage.set(&new, "lower tide 42").await.unwrap();
    let asked = "SELECT count(*) FROM audit_log WHERE action = 'user.password_reset.ask' AND org_id IS NULL";
    assert_eq!(stage.test.look::<i64>(asked).await, 1, "asked once");

    stage.ask(&stage.ada.username).await.unwrap();
    for _ in 0..8 {
        stage.send(&recorded(&refuser)).await;
        stage.later(20);
    }
    assert_eq!(
        stage
            .test
            .look::<i64>("SELECT count(*) FROM password_resets WHERE status = 'failed' AND subject IS NULL")
            .await,
        1
    );
}

#[tokio::test]
async fn who_asks_too_often_is_refused_whether_there_is_such_a_user_or_not() {
    let stage = Stage::new().await;
    let limited = |outcome: &Result<(), Error>| matches!(outcome, Err(Error::RateLimited(wait)) if *wait > TimeDelta::minutes(5));
    let from = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
    for name in [stage.ada.username.clone(), "nobody".to_owned()] {
        for n in 0..5 {
            stage.ask_from(&name, from(n)).await.unwrap();
        }
        assert!(limited(&stage.ask_from(&name.to_uppercase(), from(9)).await), "{name}");
    }
    for n in 0..20 {
        stage.ask_from(&format!("name-{n}"), from(99)).await.unwrap();
    }
    assert!(matches!(stage.ask_from("name-20", from(99)).await, Err(Error::RateLimited(_))));
    stage.ask_from("name-20", from(100)).await.unwrap();
    // What was refused left no row.
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM password_resets").await, 31);
    stage.later(13);
    stage.ask_from(&stage.ada.username, from(9)).await.unwrap();
}

#[tokio::test]
async fn the_rows_go_after_their_time() {
    let stage = Stage::new().await;
    drop(stage.token().await);
    let operators = &stage.test.services().operators;
    operators.tidy().await.unwrap();
    assert_eq!(stage.rows().await, "sent 1 t f");
    stage.later(2 * 24 * 60);
    operators.tidy().await.unwrap();
    assert_eq!(stage.rows().await, "");
}

fn address(email: &str, current: Option<&str>) -> UpdateUserRequest {
    let current_password = current.map(|password| Secret::new(password.to_owned()));
    UpdateUserRequest { email: Some(email.into()), current_password, ..Default::default() }
}

#[tokio::test]
async fn another_address_of_ones_own_takes_the_password_as_a_mail_to_it_may_set_one() {
    let stage = Stage::new().await;
    let (users, ada) = (&stage.test.services().users, stage.test.caller(&stage.ada).await);
    let (stolen, password) = ("thief@example.com", stage.ada.password.expose());
    let bare = users.update_own(&ada, address(stolen, None), None).await;
    assert!(
        matches!(&bare, Err(Error::Invalid(fields)) if fields.iter().any(|(name, _)| name == "currentPassword")),
        "{bare:?}"
    );
    let by_id = users.update(&ada, stage.ada.id, address(stolen, None), None).await;
    assert!(matches!(by_id, Err(Error::Invalid(_))), "{by_id:?}");
    let wrong = users.update_own(&ada, address(stolen, Some("a wrong password")), None).await;
    assert!(matches!(wrong, Err(Error::InvalidCredentials)), "{wrong:?}");
    let now: String = stage.test.look("SELECT email FROM users WHERE email IS NOT NULL").await;
    assert_eq!(now, "Ada@example.com");

    let named = UpdateUserRequest { full_name: Some("Ada L.".into()), ..address("Ada@example.com", None) };
    assert_eq!(users.update_own(&ada, named, None).await.unwrap().full_name, "Ada L.");
    let moved = users.update_own(&ada, address("ada@new.example", Some(password)), None).await.unwrap();
    assert_eq!(moved.email.as_deref(), Some("ada@new.example"));
    // Who signs in elsewhere has no password that a mail could set.
    stage
        .test
        .execute("UPDATE users SET provider = 'oidc', password_hash = NULL WHERE email IS NOT NULL")
        .await;
    users.update_own(&ada, address("ada@other.example", None), None).await.unwrap();
}

#[tokio::test]
async fn whoever_may_not_set_a_password_sets_no_address_for_its_mail_either() {
    let stage = Stage::new().await;
    let (test, users) = (&stage.test, &stage.test.services().users);
    let forbidden =
        |outcome: &Result<tidegate_model::User, Error>| matches!(outcome, Err(Error::Forbidden(_)));
    let bolt = test.org_with_admin("bolt").await;
    let (home, away) = (test.user_in("bolt", OrgRole::User).await, test.user_in("bolt", OrgRole::User).await);
    let manager = test.user_in("bolt", OrgRole::Maintainer).await;
    let sql = format!(
        "UPDATE users SET home_org_id = '{}' WHERE id IN ('{}', '{}', '{}')",
        bolt.id, home.id, away.id, manager.id
    );
    test.execute(&sql).await;
    let elsewhere = format!(
        "INSERT INTO memberships (org_id, user_id, role, created_at)
         SELECT id, '{}', 'user', now() FROM organizations WHERE name = 'acme'",
        away.id
    );
    test.execute(&elsewhere).await;

    users.update(&bolt.admin, home.id, address("home@example.com", None), None).await.unwrap();
    for (who, email) in [(&away, "away@example.com"), (&manager, "manager@example.com")] {
        let refused = users.update(&bolt.admin, who.id, address(email, None), None).await;
        assert!(forbidden(&refused), "{refused:?}");
        let named = UpdateUserRequest { full_name: Some("Some Body".into()), ..Default::default() };
        users.update(&bolt.admin, who.id, named, None).await.unwrap();
    }
    let operator = test.user_with("acme", OrgRole::User, SystemRole::Operator).await;
    let operator = test.caller(&operator).await;
    let refused = users.update(&operator, manager.id, address("m@example.com", None), None).await;
    assert!(forbidden(&refused), "{refused:?}");
    users.update(&operator, away.id, address("a@example.com", None), None).await.unwrap();
    let admin = test.user_with("acme", OrgRole::User, SystemRole::Admin).await;
    let admin = test.caller(&admin).await;
    users.update(&admin, manager.id, address("m@example.com", None), None).await.unwrap();
}
