//! Signing in elsewhere: who comes back is who left, the provider's word is checked, and an identity is tied to a user by
//! nothing but the provider's own name for it.

use std::{collections::HashMap, sync::Arc};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tidegate_model::{Clock, OrgRole, Provider as Kind};
use tidegate_service::{Asked, CameBack, Error, GithubUpsert, Services, SignInOptions, SignedIn};
use tidegate_test_support::{Account, IdentityProvider, Lie, ManualClock, Signature, TestDb};

/// Tidegate and a provider that it asks, as OpenID Connect and as GitHub.
struct World {
    test: TestDb,
    provider: IdentityProvider,
    services: Services,
}

/// A browser that was sent away.
struct Away {
    url: String,
    browser: String,
}

const CALLBACK: &str = "https://tidegate.example/callback";

impl World {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut SignInOptions)) -> Self {
        let test = TestDb::new().await;
        let provider = IdentityProvider::start(Arc::clone(test.manual_clock()) as Arc<dyn Clock>).await;
        let mut sign_in = SignInOptions {
            github: Some(provider.github()),
            oidc: vec![provider.oidc("corp"), provider.oidc("other")],
        };
        change(&mut sign_in);
        let services = test.services_with(tidegate_service::Options { sign_in, ..TestDb::options() });
        Self { test, provider, services }
    }

    fn clock(&self) -> &ManualClock {
        self.test.manual_clock()
    }

    async fn leave(&self, kind: Kind, name: &str) -> Result<Away, Error> {
        let asked = Asked {
            kind,
            name: name.to_owned(),
            next: "/home".to_owned(),
            browser: None,
            redirect_uri: CALLBACK.to_owned(),
            source: Some("192.0.2.7".parse().unwrap()),
        };
        let away = self.services.identities.begin(asked).await?;
        Ok(Away { url: away.url, browser: away.browser.expose().clone() })
    }

    /// Leaves, visits the provider, and says what the browser brings back.
    async fn visit(&self, kind: Kind, name: &str) -> CameBack {
        let away = self.leave(kind, name).await.unwrap();
        self.back(&away).await
    }

    async fn back(&self, away: &Away) -> CameBack {
        let place = self.provider.visit(&away.url).await;
        let query: HashMap<String, String> = place
            .split_once('?')
            .unwrap()
            .1
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%3A", ":").replace("%2F", "/")))
            .collect();
        CameBack {
            state: query.get("state").cloned(),
            code: query.get("code").cloned(),
            iss: query.get("iss").cloned(),
            error: query.get("error").cloned(),
            browser: Some(away.browser.clone()),
            redirect_uri: CALLBACK.to_owned(),
            source: Some("192.0.2.7".parse().unwrap()),
        }
    }

    async fn finish(&self, back: CameBack) -> Result<SignedIn, Error> {
        self.services.identities.finish(Kind::Oidc, "corp", back).await
    }

    /// The whole way of somebody, with OpenID Connect.
    async fn sign_in(&self, account: &Account) -> Result<SignedIn, Error> {
        self.provider.visitor(Some(account.clone()));
        let back = self.visit(Kind::Oidc, "corp").await;
        self.finish(back).await
    }

    /// The username of whom a login is.
    async fn name_of(&self, signed_in: &SignedIn) -> String {
        let cookie = signed_in.login.cookie.expose();
        let caller = self.services.browsers.authenticate(cookie, None).await.unwrap();
        caller.user().username().to_owned()
    }

    async fn json(&self, sql: &str) -> Value {
        serde_json::from_str(&self.test.look::<String>(sql).await).unwrap()
    }

    async fn count(&self, table: &str) -> i64 {
        self.test.look(&format!("SELECT count(*) FROM {table}")).await
    }
}

fn ada() -> Account {
    Account::new(7, "ada")
}

#[track_caller]
fn forbidden(outcome: Result<SignedIn, Error>, part: &str) {
    match outcome {
        Err(Error::Forbidden(sentence)) => assert!(sentence.contains(part), "{sentence}"),
        other => panic!("{part}: {other:?}"),
    }
}

#[tokio::test]
async fn somebody_new_gets_a_user_and_an_organization_and_is_the_same_the_next_time() {
    let world = World::new().await;
    let first = world.sign_in(&ada()).await.unwrap();
    assert_eq!((first.next.as_str(), world.name_of(&first).await.as_str()), ("/home", "ada"));
    let user = world.json("SELECT to_jsonb(u)::text FROM users u WHERE username = 'ada'").await;
    assert_eq!(user["email"], "ada@people.example");
    assert_eq!(
        (&user["provider"], &user["role"], &user["password_hash"]),
        (&json!("oidc"), &json!("user"), &Value::Null)
    );
    assert_eq!(user["full_name"], "ada of Elsewhere");
    let home: String = world.test.look("SELECT id::text FROM organizations").await;
    assert_eq!(user["home_org_id"], json!(home));
    let cookie = first.login.cookie.expose();
    let caller = world.services.browsers.authenticate(cookie, None).await.unwrap();
    assert_eq!(caller.org().unwrap().role(), OrgRole::Admin);
    let again = world
        .sign_in(&Account { login: "ada-renamed".into(), ..ada().with_email("new@people.example") })
        .await
        .unwrap();
    assert_eq!(world.name_of(&again).await, "ada");
    let email: String = world.test.look("SELECT email FROM users WHERE username = 'ada'").await;
    assert_eq!(email, "new@people.example");
    for (table, rows) in
        [("users", 1), ("organizations", 1), ("memberships", 1), ("identities", 1), ("identity_attempts", 0)]
    {
        assert_eq!(world.count(table).await, rows, "{table}");
    }
    let lines: String =
        world.test.look("SELECT string_agg(action, ' ' ORDER BY at, id) FROM audit_log").await;
    assert_eq!(lines, "user.sign_up organization.create login.create login.create");
}

#[tokio::test]
async fn whoever_was_deleted_signs_in_again_as_somebody_new() {
    let world = World::new().await;
    let first = world.sign_in(&ada()).await.unwrap();
    let cookie = first.login.cookie.expose();
    let caller = world.services.browsers.authenticate(cookie, None).await.unwrap();
    let id = caller.user().user_id();
    world.services.organizations.delete(caller.org().unwrap()).await.unwrap();
    world.services.users.delete(&caller, id, None).await.unwrap();
    assert_eq!(world.count("identities").await, 0);
    let again = world.sign_in(&ada()).await.unwrap();
    let cookie = again.login.cookie.expose();
    let caller = world.services.browsers.authenticate(cookie, None).await.unwrap();
    assert_ne!(caller.user().user_id(), id);
    // What the name did before is nobody else's doing.
    assert!(caller.user().username().starts_with("ada-"), "{}", caller.user().username());
    assert_eq!((world.count("identities").await, world.count("users").await), (1, 2));
}

#[tokio::test]
async fn every_signature_that_is_believed_is_read() {
    let world = World::new().await;
    for (name, signature) in [("es", Signature::Es256), ("ed", Signature::EdDsa), ("rs", Signature::Rs256)] {
        world.provider.rotate(name, signature);
        world.clock().advance(TimeDelta::minutes(1));
        world.sign_in(&ada()).await.unwrap_or_else(|error| panic!("{signature:?}: {error}"));
    }
}

#[tokio::test]
async fn a_key_that_is_not_known_is_looked_for_once_and_not_at_every_token() {
    let world = World::new().await;
    world.sign_in(&ada()).await.unwrap();
    assert_eq!(world.provider.asked("/keys"), 1);
    for _ in 0..5 {
        world.provider.lie(Lie::HiddenKey);
        forbidden(world.sign_in(&ada()).await, "names a key it has not");
    }
    assert_eq!(world.provider.asked("/keys"), 1, "the keys were read a moment ago");
    world.clock().advance(TimeDelta::seconds(11));
    for _ in 0..5 {
        world.provider.lie(Lie::HiddenKey);
        forbidden(world.sign_in(&ada()).await, "names a key it has not");
    }
    assert_eq!(world.provider.asked("/keys"), 2);
    assert_eq!(world.provider.asked("/.well-known/openid-configuration"), 1);
    world.clock().advance(TimeDelta::hours(1));
    world.sign_in(&ada()).await.unwrap();
    assert_eq!(
        world.provider.asked("/.well-known/openid-configuration"),
        2,
        "an hour is as long as it is believed"
    );
}

#[tokio::test]
async fn a_token_that_lies_lets_nobody_in() {
    let world = World::new().await;
    let now = world.clock().now().timestamp();
    for (lie, part) in [
        (Lie::Claim("nonce", json!("another")), "another attempt"),
        (Lie::Claim("nonce", Value::Null), "another attempt"),
        (Lie::Claim("aud", json!("another-client")), "for somebody else"),
        (Lie::Claim("aud", json!(["tidegate-at-test", "another-client"])), "given to somebody else"),
        (Lie::Claim("azp", json!("another-client")), "given to somebody else"),
        (Lie::Claim("iss", json!("https://id.example")), "another issuer"),
        (Lie::Claim("exp", json!(now - 61)), "expired"),
        (Lie::Claim("exp", json!("4102444800")), "cannot be read"),
        (Lie::Claim("iat", json!(now - 3_600)), "not made just now"),
        (Lie::Claim("iat", json!(now + 3_600)), "not made just now"),
        (Lie::Claim("sub", json!("")), "names nobody"),
        (Lie::Unsigned, "signed in no way"),
        (Lie::SharedSecret, "not accepted"),
        (Lie::HiddenKey, "names a key it has not"),
        (Lie::ForgedKey, "names a key it has not"),
    ] {
        world.provider.lie(lie.clone());
        let outcome = world.sign_in(&ada()).await;
        assert!(outcome.is_err(), "{lie:?}");
        forbidden(outcome, part);
    }
    assert_eq!(world.count("users").await + world.count("login_sessions").await, 0);
}

#[tokio::test]
async fn a_browser_that_did_not_leave_does_not_come_back() {
    let world = World::new().await;
    world.provider.visitor(Some(ada()));
    let away = world.leave(Kind::Oidc, "corp").await.unwrap();
    let back = world.back(&away).await;
    let other = world.leave(Kind::Oidc, "corp").await.unwrap();
    let strays = [
        CameBack { state: Some("x".repeat(43)), ..back.clone() },
        CameBack { state: None, ..back.clone() },
        CameBack { browser: None, ..back.clone() },
        CameBack { browser: Some(other.browser), ..back.clone() },
    ];
    for stray in strays {
        forbidden(world.finish(stray).await, "another browser");
    }
    // The state is of this provider alone.
    let mixed = world.services.identities.finish(Kind::Oidc, "other", back.clone()).await;
    forbidden(mixed, "another browser");
    let mixed = world.services.identities.finish(Kind::Github, "github", back.clone()).await;
    forbidden(mixed, "another browser");
    // None of them took the attempt away; its own browser does, once.
    world.finish(back.clone()).await.unwrap();
    forbidden(world.finish(back).await, "finished already");
    assert_eq!(world.count("login_sessions").await, 1);
}

#[tokio::test]
async fn of_32_who_come_back_with_one_state_one_is_let_in() {
    let world = World::new().await;
    world.provider.visitor(Some(ada()));
    let back = world.visit(Kind::Oidc, "corp").await;
    let racers = (0..32).map(|_| world.finish(back.clone()));
    let outcomes = futures_util::future::join_all(racers).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for outcome in lost {
        forbidden(outcome, "another browser");
    }
}

#[tokio::test]
async fn an_attempt_ends_after_ten_minutes_and_is_swept_away() {
    let world = World::new().await;
    world.provider.visitor(Some(ada()));
    let back = world.visit(Kind::Oidc, "corp").await;
    world.clock().advance(TimeDelta::minutes(10));
    forbidden(world.finish(back).await, "too old");
    assert_eq!(world.count("identity_attempts").await, 1);
    world.clock().advance(TimeDelta::seconds(86_401));
    world.services.operators.tidy().await.unwrap();
    assert_eq!(world.count("identity_attempts").await, 0);
}

#[tokio::test]
async fn nothing_that_finishes_an_attempt_is_stored() {
    let world = World::new().await;
    let away = world.leave(Kind::Oidc, "corp").await.unwrap();
    let row = world.json("SELECT to_jsonb(a)::text FROM identity_attempts a").await;
    let text = row.to_string();
    for (name, value) in url::form_urlencoded::parse(away.url.split_once('?').unwrap().1.as_bytes()) {
        if ["state", "nonce", "code_challenge"].contains(&&*name) {
            let hex = hex::encode(value.as_bytes());
            assert!(!text.contains(&*value) && !text.contains(&hex), "{name} stands in {text}");
        }
    }
    assert!(!text.contains(&away.browser), "{text}");
}

#[tokio::test]
async fn a_code_is_good_for_the_verifier_of_its_own_attempt_alone() {
    let world = World::new().await;
    world.provider.visitor(Some(ada()));
    let mine = world.visit(Kind::Oidc, "corp").await;
    let stolen = world.visit(Kind::Oidc, "corp").await;
    let injected = CameBack { code: stolen.code, ..mine };
    forbidden(world.finish(injected).await, "does not take the code");
    // Nor does the challenge come off on the way: without it the provider promises nothing.
    let away = world.leave(Kind::Oidc, "corp").await.unwrap();
    assert!(
        away.url.contains("code_challenge_method=S256") && away.url.contains("code_challenge="),
        "{}",
        away.url
    );
}

#[tokio::test]
async fn a_provider_that_names_another_or_nobody_is_not_believed() {
    let world = World::new().await;
    world.provider.visitor(Some(ada()));
    for iss in [Some("https://evil.example".to_owned()), None] {
        let back = CameBack { iss, ..world.visit(Kind::Oidc, "corp").await };
        forbidden(world.finish(back).await, "the browser comes from");
    }
}

#[tokio::test]
async fn whoever_says_no_at_the_provider_is_told_so_in_our_words() {
    let world = World::new().await;
    world.provider.visitor(None);
    let back = world.visit(Kind::Oidc, "corp").await;
    assert_eq!(back.error.as_deref(), Some("access_denied"));
    forbidden(world.finish(back).await, "not let in by The corp directory");
    let mut back = world.visit(Kind::Oidc, "corp").await;
    back.error = Some("<script>alert(1)</script>".to_owned());
    match world.finish(back).await {
        Err(Error::Forbidden(sentence)) => assert!(!sentence.contains("script"), "{sentence}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_address_of_somebody_here_links_nobody_and_fails_nobody() {
    let world = World::new().await;
    let org = world.test.org_with_admin("acme").await;
    let local = org.admin.user().username().to_owned();
    world.test.execute("UPDATE users SET email = 'Boss@people.example'").await;
    let signed_in = world.sign_in(&Account::new(9, &local).with_email("boss@PEOPLE.example")).await.unwrap();
    assert_eq!(world.name_of(&signed_in).await, format!("{local}-2"));
    let email: Option<String> =
        world.test.look(&format!("SELECT email FROM users WHERE username = '{local}-2'")).await;
    assert_eq!(email, None);
    // Nor does a later login take it.
    world.sign_in(&Account::new(9, &local).with_email("boss@people.example")).await.unwrap();
    let email: String = world.test.look(&format!("SELECT email FROM users WHERE username = '{local}'")).await;
    assert_eq!(email, "Boss@people.example");
    let links: i64 = world
        .test
        .look(&format!(
            "SELECT count(*) FROM identities i JOIN users u ON u.id = i.user_id WHERE u.username = '{local}'"
        ))
        .await;
    assert_eq!(links, 0);
}

#[tokio::test]
async fn an_address_that_is_not_verified_by_the_word_true_is_left_out() {
    let world = World::new().await;
    for (id, word) in [json!("true"), json!(1), json!(false), Value::Null].into_iter().enumerate() {
        let id = i64::try_from(id).unwrap() + 20;
        world.sign_in(&Account { verified: word, ..Account::new(id, &format!("user{id}")) }).await.unwrap();
    }
    let known: i64 = world.test.look("SELECT count(email) FROM users").await;
    assert_eq!(known, 0);
}

#[tokio::test]
async fn a_taken_name_gets_an_ending_in_whatever_case_it_is_taken() {
    let world = World::new().await;
    let mut names = Vec::new();
    for id in 1..=11 {
        let login = if id % 2 == 0 { "OctoCat" } else { "octocat" };
        let account = Account::new(id, login).with_email(&format!("{id}@people.example"));
        let signed_in = world.sign_in(&account).await.unwrap();
        names.push(world.name_of(&signed_in).await);
    }
    assert_eq!(names[..3], ["octocat", "OctoCat-2", "octocat-3"]);
    assert_eq!(names[8], "octocat-9");
    assert_eq!(names[9].len(), "OctoCat-".len() + 8, "{names:?}");
    assert_eq!(world.count("organizations").await, 11);
}

#[tokio::test]
async fn who_is_deactivated_stays_so_whatever_a_provider_says() {
    let world = World::new().await;
    world.sign_in(&ada()).await.unwrap();
    world.test.execute("UPDATE users SET active = false").await;
    forbidden(world.sign_in(&ada().with_email("new@people.example")).await, "deactivated");
    let (active, email): (bool, String) =
        (world.test.look("SELECT active FROM users").await, world.test.look("SELECT email FROM users").await);
    assert_eq!((active, email.as_str()), (false, "ada@people.example"));
    let line: String = world
        .test
        .look("SELECT action || ' ' || (detail ->> 'reason') FROM audit_log WHERE action = 'login.refuse'")
        .await;
    assert_eq!(line, "login.refuse deactivated");
}

#[tokio::test]
async fn somebody_unknown_comes_in_only_where_that_is_allowed() {
    let world = World::with(|options| options.oidc[0].allow_signup = false).await;
    forbidden(world.sign_in(&ada()).await, "new people are not let in");
    assert_eq!(world.count("users").await, 0);
}

#[tokio::test]
async fn a_domain_is_allowed_exactly_and_by_a_verified_address_alone() {
    let world =
        World::with(|options| options.oidc[0].allowed_domains = vec!["people.example".to_owned()]).await;
    for email in ["ada@evilpeople.example", "ada@mail.people.example", "ada@people.example.evil.example"] {
        forbidden(world.sign_in(&ada().with_email(email)).await, "domain");
    }
    forbidden(world.sign_in(&Account { verified: json!("true"), ..ada() }).await, "domain");
    world.sign_in(&ada()).await.unwrap();
}

#[tokio::test]
async fn a_thin_token_is_filled_up_by_the_userinfo_endpoint() {
    let world = World::new().await;
    world.provider.thin_tokens(true);
    let signed_in = world.sign_in(&ada()).await.unwrap();
    assert_eq!(world.name_of(&signed_in).await, "ada");
    let email: String = world.test.look("SELECT email FROM users").await;
    assert_eq!(email, "ada@people.example");
}

#[tokio::test]
async fn a_provider_that_is_down_is_503_and_comes_back() {
    let world = World::new().await;
    world.provider.broken(true);
    let Err(Error::ProviderUnavailable { provider, .. }) = world.leave(Kind::Oidc, "corp").await.map(|_| ())
    else {
        panic!("it does not answer")
    };
    assert_eq!(provider, "The corp directory");
    world.provider.broken(false);
    world.clock().advance(TimeDelta::seconds(3));
    world.provider.visitor(Some(ada()));
    let back = world.visit(Kind::Oidc, "corp").await;
    world.provider.broken(true);
    let outcome = world.finish(back).await;
    assert!(matches!(outcome, Err(Error::ProviderUnavailable { .. })), "{outcome:?}");
    assert_eq!(world.count("users").await, 0);
}

#[tokio::test]
async fn attempts_of_one_address_are_counted() {
    let world = World::new().await;
    let options = tidegate_service::Options {
        sign_ins_per_source: 3,
        sign_in: SignInOptions { github: Some(world.provider.github()), oidc: vec![] },
        ..TestDb::options()
    };
    let world = World { services: world.test.services_with(options), ..world };
    for _ in 0..3 {
        world.leave(Kind::Github, "github").await.unwrap();
    }
    assert!(matches!(world.leave(Kind::Github, "github").await, Err(Error::RateLimited(_))));
    assert_eq!(world.count("identity_attempts").await, 3);
}

#[tokio::test]
async fn github_says_who_somebody_is_by_its_number() {
    let world = World::new().await;
    world.provider.visitor(Some(Account::new(583_231, "octocat")));
    let back = world.visit(Kind::Github, "github").await;
    let signed_in = world.services.identities.finish(Kind::Github, "github", back).await.unwrap();
    assert_eq!(world.name_of(&signed_in).await, "octocat");
    let user = world.json("SELECT to_jsonb(u)::text FROM users u").await;
    assert_eq!((&user["provider"], &user["github_id"]), (&json!("github"), &json!(583_231)));
    assert_eq!(user["email"], "octocat@people.example", "the main address, and no other");
    assert_eq!(user["avatar_url"], "https://pictures.example/u/583231");
    // The same person with another name there stays who they are here.
    world.provider.visitor(Some(Account::new(583_231, "renamed")));
    let back = world.visit(Kind::Github, "github").await;
    let again = world.services.identities.finish(Kind::Github, "github", back).await.unwrap();
    assert_eq!(world.name_of(&again).await, "octocat");
    // Somebody else who took the old name there is somebody else here.
    world.provider.visitor(Some(Account::new(9, "octocat").with_email("nine@people.example")));
    let back = world.visit(Kind::Github, "github").await;
    let other = world.services.identities.finish(Kind::Github, "github", back).await.unwrap();
    assert_eq!(world.name_of(&other).await, "octocat-2");
    // And the OpenID Connect subject of the same number is nobody of GitHub's.
    let third = world.sign_in(&Account::new(583_231, "octocat")).await.unwrap();
    assert_eq!(world.name_of(&third).await, "octocat-3");
}

fn upsert(id: i64, name: &str) -> GithubUpsert {
    GithubUpsert {
        github_id: id,
        username: name.to_owned(),
        email: Some(format!("{id}@people.example")),
        avatar_url: Some("https://pictures.example/1".to_owned()),
    }
}

#[tokio::test]
async fn of_32_first_logins_with_github_one_makes_the_user_and_their_organization() {
    let world = World::new().await;
    let racers = (0..32).map(|_| world.services.identities.upsert_user_by_github_id(upsert(1, "octocat")));
    let outcomes = futures_util::future::join_all(racers).await;
    let users: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(users.iter().filter(|(_, created)| *created).count(), 1);
    assert!(users.iter().all(|(user, _)| user.id == users[0].0.id));
    for table in ["users", "organizations", "memberships", "identities"] {
        assert_eq!(world.count(table).await, 1, "{table}");
    }
}

#[tokio::test]
async fn of_32_people_of_one_name_and_address_each_becomes_somebody() {
    let world = World::new().await;
    let shared = |id| GithubUpsert { email: Some("shared@people.example".into()), ..upsert(id, "octocat") };
    let racers = (1..=32).map(|id| world.services.identities.upsert_user_by_github_id(shared(id)));
    let outcomes = futures_util::future::join_all(racers).await;
    let users: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert!(users.iter().all(|(_, created)| *created));
    assert_eq!(users.iter().filter(|(user, _)| user.email.is_some()).count(), 1);
    assert_eq!((world.count("users").await, world.count("organizations").await), (32, 32));
}

#[tokio::test]
async fn an_upsert_brings_address_and_picture_up_to_date_and_not_the_name() {
    let world = World::new().await;
    let identities = &world.services.identities;
    let (first, created) = identities.upsert_user_by_github_id(upsert(1, "octocat")).await.unwrap();
    assert!(created);
    let change = GithubUpsert {
        username: "renamed".into(),
        email: Some("later@people.example".into()),
        avatar_url: Some("javascript:alert(1)".into()),
        ..upsert(1, "octocat")
    };
    let (again, created) = identities.upsert_user_by_github_id(change).await.unwrap();
    assert!(!created);
    assert_eq!((again.id, again.username.as_str()), (first.id, "octocat"));
    assert_eq!(again.email.as_deref(), Some("later@people.example"));
    assert_eq!(again.avatar_url, first.avatar_url, "a picture comes by https or not at all");
    assert_eq!((again.provider, again.github_id), (Kind::Github, Some(1)));
}

#[tokio::test]
async fn who_has_no_organization_left_gets_one_at_the_next_login() {
    let world = World::new().await;
    world.sign_in(&ada()).await.unwrap();
    world.test.execute("UPDATE organizations SET status = 'deleted'").await;
    let again = world.sign_in(&ada()).await.unwrap();
    let caller = world.services.browsers.authenticate(again.login.cookie.expose(), None).await.unwrap();
    assert_eq!(caller.org().unwrap().role(), OrgRole::Admin);
    let names: String =
        world.test.look("SELECT string_agg(name, ' ' ORDER BY name) FROM organizations").await;
    assert_eq!(names, "ada ada-2");
    world.sign_in(&ada()).await.unwrap();
    assert_eq!(world.count("organizations").await, 2);
}
