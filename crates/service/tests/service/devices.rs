//! Device codes and bearer tokens: decided once, used once, and ended with whoever let the device in.

use chrono::TimeDelta;
use futures_util::future::join_all;
use tidegate_model::{DeviceDecision, OrgId, OrgRole};
use tidegate_service::{
    Caller, DeviceCodes, DeviceError, Error, IssuedToken, Operator, Options, Paging, Services,
};
use tidegate_test_support::{TestDb, TestOrg};

struct Stage {
    test: TestDb,
    org: TestOrg,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        Self { test, org }
    }

    fn services(&self) -> &Services {
        self.test.services()
    }

    async fn codes(&self) -> DeviceCodes {
        self.services().devices.create_device_code("a laptop", None).await.unwrap()
    }

    async fn approve(&self, codes: &DeviceCodes) {
        let devices = &self.services().devices;
        let typed = codes.user_code.to_string();
        devices.approve_device_code(&self.org.admin, &typed, self.org.id, None).await.unwrap();
    }

    async fn poll(&self, codes: &DeviceCodes) -> Result<IssuedToken, DeviceError> {
        self.services().devices.consume_device_code(codes.device_code.expose(), None).await
    }

    async fn token(&self) -> IssuedToken {
        let codes = self.codes().await;
        self.approve(&codes).await;
        self.poll(&codes).await.unwrap()
    }

    async fn whose(&self, token: &IssuedToken, org: Option<&str>) -> Result<Caller, Error> {
        self.services().logins.authenticate(token.token.expose(), org).await
    }

    fn later(&self, seconds: i64) {
        self.test.manual_clock().advance(TimeDelta::seconds(seconds));
    }
}

#[tokio::test]
async fn a_device_that_was_let_in_gets_one_token_that_acts_for_whoever_let_it_in() {
    let stage = Stage::new().await;
    let codes = stage.codes().await;
    assert_eq!((codes.interval, codes.expires_in), (5, 600));
    assert!(matches!(stage.poll(&codes).await, Err(DeviceError::Pending)));
    let typed = codes.user_code.to_string().to_lowercase();
    let shown = stage.services().devices.lookup_device_code(&stage.org.admin, &typed, None).await.unwrap();
    assert_eq!((shown.client_name.as_str(), shown.decision, shown.mine), ("a laptop", None, false));
    stage.approve(&codes).await;
    let token = stage.poll(&codes).await.unwrap();
    assert!(token.token.expose().starts_with("ppz_oauth_") && token.token.expose().len() == 74);
    assert_eq!((token.expires_in, token.org_id), (90 * 86_400, stage.org.id));
    assert!(matches!(stage.poll(&codes).await, Err(DeviceError::NotFound)));
    let caller = stage.whose(&token, None).await.unwrap();
    assert_eq!(caller.user().user_id(), stage.org.admin.user().user_id());
    assert_eq!(caller.org().unwrap().org_id(), stage.org.id);
    let row = stage.services().bearer_tokens.lookup_bearer_token(token.token.expose()).await.unwrap();
    assert_eq!((row.prefix.as_str(), row.client_name.as_str()), (&token.token.expose()[10..18], "a laptop"));
    assert_eq!(row.org_id, Some(stage.org.id));
}

#[tokio::test]
async fn nothing_of_a_code_or_token_is_stored_in_clear() {
    let stage = Stage::new().await;
    let codes = stage.codes().await;
    stage.approve(&codes).await;
    let token = stage.poll(&codes).await.unwrap();
    let rows: String = stage
        .test
        .look("SELECT (SELECT string_agg(d::text, '') FROM device_codes d) || (SELECT string_agg(t::text, '') FROM bearer_tokens t)")
        .await;
    let typed = codes.user_code.to_string();
    for secret in [codes.device_code.expose(), &typed, &typed.replace('-', ""), &token.token.expose()[18..]] {
        let hex = hex::encode(secret);
        assert!(!rows.contains(secret) && !rows.contains(&hex), "{rows}");
    }
    assert!(!format!("{codes:?} {token:?}").contains(&typed));
}

#[tokio::test]
async fn of_many_who_decide_at_once_one_does_and_of_many_polls_one_gets_the_token() {
    let stage = Stage::new().await;
    for round in 0..2 {
        let codes = stage.codes().await;
        let typed = codes.user_code.to_string();
        let mut people = Vec::new();
        for _ in 0..32 {
            let user = stage.test.user_in("acme", OrgRole::User).await;
            people.push(stage.test.caller(&user).await);
        }
        let devices = &stage.services().devices;
        let decided = join_all(
            people.iter().map(|caller| devices.approve_device_code(caller, &typed, stage.org.id, None)),
        );
        let outcomes = decided.await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "round {round}");
        for outcome in outcomes {
            assert!(
                matches!(&outcome, Ok(_) | Err(Error::Conflict { code: "E_DEVICE_DECIDED", .. })),
                "{outcome:?}"
            );
        }
        let polls = join_all((0..32).map(|_| stage.poll(&codes))).await;
        assert_eq!(polls.iter().filter(|poll| poll.is_ok()).count(), 1, "round {round}");
        assert!(polls.iter().all(|poll| matches!(poll, Ok(_) | Err(DeviceError::NotFound))), "{polls:?}");
    }
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM bearer_tokens").await, 2);
}

#[tokio::test]
async fn approving_again_is_the_same_for_its_user_and_a_conflict_for_anybody_else() {
    let stage = Stage::new().await;
    let codes = stage.codes().await;
    let typed = codes.user_code.to_string();
    stage.approve(&codes).await;
    stage.approve(&codes).await;
    let other = stage.test.user_in("acme", OrgRole::Admin).await;
    let other = stage.test.caller(&other).await;
    let devices = &stage.services().devices;
    let conflict = |outcome: Result<_, Error>| {
        assert!(matches!(&outcome, Err(Error::Conflict { code: "E_DEVICE_DECIDED", .. })), "{outcome:?}");
    };
    conflict(devices.approve_device_code(&other, &typed, stage.org.id, None).await);
    conflict(devices.deny_device_code(&other, &typed, None).await);
    conflict(devices.deny_device_code(&stage.org.admin, &typed, None).await);
    stage.poll(&codes).await.unwrap();
    // Whoever let it in may press the button twice; a stranger does not learn that there was such a code.
    stage.approve(&codes).await;
    let gone = devices.lookup_device_code(&other, &typed, None).await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
    let lines: i64 = stage
        .test
        .look("SELECT count(*) FROM audit_log WHERE action IN ('device.approve', 'token.issue') AND org_id IS NOT NULL")
        .await;
    assert_eq!(lines, 2, "one line each, in the organization's log");
}

#[tokio::test]
async fn a_denied_device_and_a_late_one_get_nothing() {
    let stage = Stage::new().await;
    let devices = &stage.services().devices;
    let denied = stage.codes().await;
    let typed = denied.user_code.to_string();
    let after = devices.deny_device_code(&stage.org.admin, &typed, None).await.unwrap();
    assert_eq!(after.decision, Some(DeviceDecision::Denied));
    assert!(matches!(stage.poll(&denied).await, Err(DeviceError::Denied)));
    let (late, approved) = (stage.codes().await, stage.codes().await);
    stage.approve(&approved).await;
    stage.later(601);
    for codes in [&late, &approved, &denied] {
        assert!(matches!(stage.poll(codes).await, Err(DeviceError::Expired)));
    }
    let typed = late.user_code.to_string();
    let outcome = devices.approve_device_code(&stage.org.admin, &typed, stage.org.id, None).await;
    assert!(matches!(outcome, Err(Error::NotFound(_))), "{outcome:?}");
    let unknown = devices.consume_device_code("nonsense", None).await;
    assert!(matches!(unknown, Err(DeviceError::NotFound)));
}

#[tokio::test]
async fn a_device_that_polls_too_often_waits_five_seconds_longer_each_time() {
    let stage = Stage::new().await;
    let codes = stage.codes().await;
    let wait = "SELECT poll_seconds FROM device_codes";
    for (after, slowed, seconds) in
        [(0, false, 5), (5, false, 5), (1, true, 10), (5, true, 15), (15, false, 15)]
    {
        stage.later(after);
        let polled = stage.poll(&codes).await;
        assert_eq!(matches!(polled, Err(DeviceError::SlowDown)), slowed, "after {after} s: {polled:?}");
        assert!(slowed || matches!(polled, Err(DeviceError::Pending)), "{polled:?}");
        assert_eq!(stage.test.look::<i32>(wait).await, seconds);
    }
    // What was decided meanwhile is told whenever it is asked for.
    stage.approve(&codes).await;
    stage.poll(&codes).await.unwrap();
}

#[tokio::test]
async fn a_token_ends_with_its_user_its_password_its_time_and_its_revocation() {
    let stage = Stage::new().await;
    let stands = async |token: &IssuedToken| match stage.whose(token, None).await {
        Ok(_) => true,
        Err(Error::Unauthenticated(_)) => false,
        Err(error) => panic!("{error}"),
    };
    let revoked = stage.token().await;
    let id = stage.services().bearer_tokens.lookup_bearer_token(revoked.token.expose()).await.unwrap().id;
    let stranger = stage.test.user_in("acme", OrgRole::Admin).await;
    let stranger = stage.test.caller(&stranger).await;
    let tokens = &stage.services().bearer_tokens;
    assert!(matches!(tokens.revoke(&stranger, id, None).await, Err(Error::NotFound(_))));
    assert!(stands(&revoked).await);
    for _ in 0..2 {
        assert!(tokens.revoke(&stage.org.admin, id, None).await.unwrap().revoked_at.is_some());
    }
    assert!(!stands(&revoked).await);
    let own = stage.token().await;
    let caller = stage.whose(&own, None).await.unwrap();
    stage.services().logins.logout(&caller).await.unwrap();
    assert!(!stands(&own).await && !stage.services().logins.still_stands(&caller).await.unwrap());

    let inactive = stage.token().await;
    stage.test.execute("UPDATE users SET active = false").await;
    assert!(!stands(&inactive).await);
    stage.test.execute("UPDATE users SET active = true").await;

    let (reset, waiting) = (stage.token().await, stage.codes().await);
    stage.approve(&waiting).await;
    let name = stage.org.admin.user().username();
    let password = tidegate_model::Secret::new("another tide entirely".to_owned());
    stage.services().operators.set_password(&Operator::console(), name, password).await.unwrap();
    assert!(!stands(&reset).await);
    assert!(matches!(stage.poll(&waiting).await, Err(DeviceError::Denied)));
}

#[tokio::test]
async fn a_token_is_good_for_its_days_and_no_longer() {
    let stage = Stage::new().await;
    let token = stage.token().await;
    stage.later(90 * 86_400 - 1);
    stage.whose(&token, None).await.unwrap();
    stage.later(1);
    assert!(matches!(stage.whose(&token, None).await, Err(Error::Unauthenticated(_))));
}

#[tokio::test]
async fn a_token_reaches_the_organization_chosen_for_it_and_others_when_they_are_named() {
    let stage = Stage::new().await;
    let me = stage.org.admin.user().user_id();
    let second =
        stage.services().operators.create_organization(&Operator::console(), "second").await.unwrap();
    let join = format!("INSERT INTO memberships VALUES ('{second}', '{me}', 'viewer', now())");
    stage.test.execute(&join).await;
    let token = stage.token().await;
    let org = async |wanted: Option<&str>| {
        stage.whose(&token, wanted).await.unwrap().org().ok().map(|org| (org.org_id(), org.role()))
    };
    assert_eq!(org(None).await, Some((stage.org.id, OrgRole::Admin)));
    assert_eq!(org(Some("second")).await, Some((second, OrgRole::Viewer)));
    assert_eq!(org(Some("nobodys")).await, None);
    assert_eq!(org(Some("a\0b")).await, None);
    let caller = stage.whose(&token, None).await.unwrap();
    stage.services().organizations.switch(&caller, "second").await.unwrap();
    assert_eq!(org(None).await.map(|org| org.0), Some(second));
    stage.test.execute("UPDATE organizations SET status = 'suspended' WHERE name = 'second'").await;
    assert_eq!(org(None).await, Some((stage.org.id, OrgRole::Admin)), "a suspended one is no place to be");
    assert_eq!(org(Some("second")).await, None);
    let elsewhere: OrgId = OrgId::new();
    let codes = stage.codes().await;
    let typed = codes.user_code.to_string();
    for org in [elsewhere, second] {
        let refused = stage.services().devices.approve_device_code(&stage.org.admin, &typed, org, None).await;
        assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn removing_a_member_ends_their_tokens_for_that_organization_for_good() {
    let stage = Stage::new().await;
    let user = stage.test.user_in("acme", OrgRole::User).await;
    let caller = stage.test.caller(&user).await;
    let (codes, waiting) = (stage.codes().await, stage.codes().await);
    for codes in [&codes, &waiting] {
        let typed = codes.user_code.to_string();
        let devices = &stage.services().devices;
        devices.approve_device_code(&caller, &typed, stage.org.id, None).await.unwrap();
    }
    let token = stage.poll(&codes).await.unwrap();
    let members = &stage.services().members;
    let scope = stage.org.admin.org().unwrap();
    members.remove(scope, user.id).await.unwrap();
    assert!(matches!(stage.whose(&token, None).await, Err(Error::Unauthenticated(_))));
    assert!(matches!(stage.poll(&waiting).await, Err(DeviceError::Denied)));
    members.add(scope, tidegate_service::Person::Id(user.id), OrgRole::User).await.unwrap();
    assert!(matches!(stage.whose(&token, None).await, Err(Error::Unauthenticated(_))));
}

#[tokio::test]
async fn tokens_are_listed_for_their_owner_alone_and_say_when_they_were_used() {
    let stage = Stage::new().await;
    let token = stage.token().await;
    stage.later(1);
    stage.token().await;
    stage.whose(&token, None).await.unwrap();
    let tokens = &stage.services().bearer_tokens;
    assert_eq!(tokens.flush_uses().await.unwrap(), 1);
    stage.whose(&token, None).await.unwrap();
    assert_eq!(tokens.flush_uses().await.unwrap(), 0, "once a minute is enough");
    let page = |cursor| Paging { limit: 1, cursor };
    let first = tokens.list(&stage.org.admin, &page(None)).await.unwrap();
    assert_eq!((first.items.len(), first.total, first.items[0].last_used_at), (1, 2, None));
    let second = tokens.list(&stage.org.admin, &page(first.next_cursor)).await.unwrap();
    assert!(second.items[0].last_used_at.is_some() && second.next_cursor.is_none());
    let other = stage.test.user_in("acme", OrgRole::Admin).await;
    let other = stage.test.caller(&other).await;
    assert_eq!(tokens.list(&other, &page(None)).await.unwrap().total, 0);
}

#[tokio::test]
async fn asking_and_guessing_are_limited() {
    let stage = Stage::new().await;
    let options = Options { device_codes_per_source: 3, wrong_user_codes: 3, ..TestDb::options() };
    let services = stage.test.services_with(options);
    let here = Some("192.0.2.1".parse().unwrap());
    for _ in 0..3 {
        services.devices.create_device_code("x", here).await.unwrap();
    }
    let refused = services.devices.create_device_code("x", here).await;
    assert!(matches!(refused, Err(Error::RateLimited(_))), "{refused:?}");
    let codes = services.devices.create_device_code("x", Some("192.0.2.2".parse().unwrap())).await.unwrap();
    let guess = async |caller: &Caller, typed: &str, from| {
        services.devices.lookup_device_code(caller, typed, from).await.map(drop)
    };
    for typed in ["BBBB-BBBB", "nonsense", ""] {
        assert!(matches!(guess(&stage.org.admin, typed, here).await, Err(Error::NotFound(_))), "{typed}");
    }
    let right = codes.user_code.to_string();
    // Neither from elsewhere as the same user, nor as another user from here.
    let elsewhere = Some("192.0.2.3".parse().unwrap());
    assert!(matches!(guess(&stage.org.admin, &right, elsewhere).await, Err(Error::RateLimited(_))));
    let other = stage.test.user_in("acme", OrgRole::User).await;
    let other = stage.test.caller(&other).await;
    assert!(matches!(guess(&other, &right, here).await, Err(Error::RateLimited(_))));
    guess(&other, &right, elsewhere).await.unwrap();
    stage.later(61);
    guess(&stage.org.admin, &right, here).await.unwrap();
}

#[tokio::test]
async fn what_is_over_is_swept_away() {
    let stage = Stage::new().await;
    stage.token().await;
    stage.later(86_400 + 601);
    stage.codes().await;
    stage.services().operators.tidy().await.unwrap();
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM device_codes").await, 1);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM bearer_tokens").await, 1);
    stage.later((90 + 366) * 86_400);
    stage.services().operators.tidy().await.unwrap();
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM bearer_tokens").await, 0);
}

#[tokio::test]
async fn a_browsers_cookie_is_a_login_like_any_other() {
    let stage = Stage::new().await;
    let user = stage.test.user_in("acme", OrgRole::User).await;
    let browsers = &stage.services().browsers;
    let (one, two) = (
        browsers.login(user.login(), None).await.unwrap(),
        browsers.login(user.login(), None).await.unwrap(),
    );
    assert_ne!(one.cookie.expose(), two.cookie.expose());
    let caller = browsers.authenticate(one.cookie.expose(), None).await.unwrap();
    assert_eq!(caller.user().user_id(), user.id);
    let other = browsers.authenticate(two.cookie.expose(), None).await.unwrap();
    assert!(browsers.form_token_fits(&caller, &browsers.form_token(&caller)));
    assert!(!browsers.form_token_fits(&caller, &browsers.form_token(&other)));
    assert!(!browsers.form_token_fits(&caller, ""));
    stage.services().logins.logout(&caller).await.unwrap();
    let refused = |outcome: Result<_, Error>| assert!(matches!(outcome, Err(Error::Unauthenticated(_))));
    refused(browsers.authenticate(one.cookie.expose(), None).await);
    browsers.authenticate(two.cookie.expose(), None).await.unwrap();
    stage.test.execute("UPDATE users SET active = false").await;
    refused(browsers.authenticate(two.cookie.expose(), None).await);
    stage.test.execute("UPDATE users SET active = true").await;
    stage.later(12 * 3_600);
    refused(browsers.authenticate(two.cookie.expose(), None).await);
    // It is no bearer token.
    refused(stage.services().logins.authenticate(two.cookie.expose(), None).await);
}
