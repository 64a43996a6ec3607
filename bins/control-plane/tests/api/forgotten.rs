//! Forgotten passwords over HTTP: the pages from the login to the new password, the API, and what others try there.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_test_support::TestUser;

use crate::{
    browsers::{Browser, hidden},
    support::{Answer, World},
};

const ASK: &str = "/password/reset";
const SET: &str = "/password/new";

/// Gives a user an address, asks for a mail, and gives the token of its link.
pub(crate) async fn mailed(world: &World, id: &str, name: &str) -> String {
    let address = world.give_address(id, name).await;
    let body = Some(json!({"username": name}));
    let asked = world.call("POST", "/api/v1/auth/password/reset", "", body).await;
    assert_eq!((asked.status, asked.text.as_str()), (202, ""), "{asked:?}");
    token(world, &address).await
}

/// The token of the link in the mail to an address.
async fn token(world: &World, address: &str) -> String {
    let link = format!("{}{SET}?token=", world.handle.url());
    world.mailed_link(address, &link).await
}

async fn ada(world: &World) -> TestUser {
    drop(world.services.operators.create_organization(&tidegate_service::Operator::console(), "acme").await);
    world.db.user_in("acme", OrgRole::User).await
}

async fn set(browser: &mut Browser<'_>, reset: &str, password: &str, again: &str) -> Answer {
    let page = browser.get(&format!("{SET}?token={reset}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    let (token, reset) = (hidden(&page, "token"), hidden(&page, "reset"));
    let fields = [("token", token.as_str()), ("reset", &reset), ("password", password), ("again", again)];
    browser.post(SET, &fields).await
}

#[tokio::test]
async fn from_the_login_page_over_the_mail_to_the_new_password() {
    let world = World::new().await;
    let ada = ada(&world).await;
    let address = world.give_address(&ada.id.to_string(), &ada.username).await;
    let mut before = Browser::new(&world);
    assert_eq!(before.log_in(&ada, "").await.status, 303);

    let mut browser = Browser::new(&world);
    assert!(browser.get("/login").await.text.contains(&format!("<a href=\"{ASK}\">")));
    let page = browser.get(ASK).await;
    assert!(page.text.contains("<label for=\"username\">") && !page.text.contains("<script"), "{page:?}");
    let token_of_form = hidden(&page, "token");
    let asked = browser.post(ASK, &[("token", &token_of_form), ("username", &address)]).await;
    assert!(asked.status == 202 && asked.text.contains("Look at your mail"), "{asked:?}");
    let reset = token(&world, &address).await;

    let bad = set(&mut browser, &reset, "short", "short").await;
    assert!(bad.status == 400 && bad.text.contains("role=\"alert\"") && bad.text.contains("8 to"), "{bad:?}");
    let differs = set(&mut browser, &reset, "lower tide 42", "lower tide 43").await;
    assert!(differs.status == 400 && differs.text.contains("once more"), "{differs:?}");
    let done = set(&mut browser, &reset, "lower tide 42", "lower tide 42").await;
    assert!(done.status == 200 && done.text.contains("Your password is set"), "{done:?}");
    assert_eq!(done.header("cache-control"), Some("no-store"));
    assert_eq!(done.header("referrer-policy"), Some("same-origin"));

    let used = browser.get(&format!("{SET}?token={reset}")).await;
    assert!(used.status == 404 && used.text.contains("ask for a new one"), "{used:?}");
    assert_eq!(before.get("/home").await.status, 303, "the login of before has ended");
    assert_eq!(browser.log_in(&ada, "").await.status, 401, "the old password is none any more");
    let new = TestUser { password: tidegate_model::Secret::new("lower tide 42".to_owned()), ..ada };
    assert_eq!(browser.log_in(&new, "").await.status, 303);
}

#[tokio::test]
async fn whoever_is_asked_for_the_answer_is_the_same_to_the_letter() {
    let world = World::new().await;
    let (ada, bob, off) = (ada(&world).await, ada(&world).await, ada(&world).await);
    world.give_address(&ada.id.to_string(), &ada.username).await;
    world.give_address(&off.id.to_string(), &off.username).await;
    world.db.execute(&format!("UPDATE users SET active = false WHERE id = '{}'", off.id)).await;
    let own = |line: &&str| {
        let line = line.to_lowercase();
        !line.starts_with("x-request-id:") && !line.starts_with("date:") && !line.starts_with("set-cookie:")
    };
    let plain = |answer: &Answer| {
        let head: Vec<String> = answer.head.lines().filter(own).map(str::to_owned).collect();
        (head, answer.text.clone())
    };
    let (mut answers, mut pages) = (Vec::new(), Vec::new());
    for name in [&ada.username, &bob.username, &off.username, "nobody", "nobody@example.com", "x y; --"] {
        let body = Some(json!({"username": name}));
        answers.push(plain(&world.call("POST", "/api/v1/auth/password/reset", "", body).await));
        let mut browser = Browser::new(&world);
        let token = hidden(&browser.get(ASK).await, "token");
        pages.push(plain(&browser.post(ASK, &[("token", &token), ("username", name)]).await));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert!(pages.iter().all(|page| *page == pages[0]) && pages[0].0[0].contains("202"), "{pages:#?}");
}

#[tokio::test]
async fn a_form_of_another_site_asks_for_nothing_and_sets_nothing() {
    let world = World::new().await;
    let ada = ada(&world).await;
    let reset = mailed(&world, &ada.id.to_string(), &ada.username).await;
    let evil = [("Origin", "https://evil.example".to_owned()), ("Sec-Fetch-Site", "cross-site".to_owned())];
    let mut browser = Browser::new(&world);
    let page = browser.get(&format!("{SET}?token={reset}")).await;
    let token = hidden(&page, "token");
    let fields = |token| {
        [
            ("token", token),
            ("reset", reset.as_str()),
            ("password", "lower tide 42"),
            ("again", "lower tide 42"),
        ]
    };
    assert_eq!(browser.post_as(SET, &fields(&token), &evil).await.status, 403);
    assert_eq!(browser.post(SET, &fields("")).await.status, 403, "without the form's token");
    assert_eq!(Browser::new(&world).post(SET, &fields(&token)).await.status, 403, "of another browser");
    for path in [ASK, SET] {
        assert_eq!(
            Browser::new(&world).post_as(path, &[("username", "ada")], &evil).await.status,
            403,
            "{path}"
        );
    }
    let rows: i64 = world.db.look("SELECT count(*) FROM password_resets").await;
    assert_eq!(rows, 1);
    assert_eq!(browser.post(SET, &fields(&token)).await.status, 200, "nothing was used up");
}

#[tokio::test]
async fn the_link_leads_to_the_settings_address_whatever_host_the_request_names() {
    let world =
        World::with("public_url = \"https://tidegate.example\"\ntrusted_proxies = [\"127.0.0.1\"]").await;
    let ada = ada(&world).await;
    let address = world.give_address(&ada.id.to_string(), &ada.username).await;
    let headers = [
        ("Host", "evil.example".to_owned()),
        ("X-Forwarded-Host", "evil.example".to_owned()),
        ("X-Forwarded-Proto", "http".to_owned()),
        ("Forwarded", "host=evil.example;proto=http".to_owned()),
    ];
    let body = json!({"username": ada.username}).to_string();
    let asked = world.raw("POST", "/api/v1/auth/password/reset", &headers, body.as_bytes()).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let token = world.mailed_link(&address, "https://tidegate.example/password/new?token=").await;
    assert!(token.len() >= 43, "{token}");
}

#[tokio::test]
async fn programs_ask_and_set_too_and_every_bad_field_is_named() {
    let world = World::new().await;
    let ada = ada(&world).await;
    let call = async |path: &str, body| {
        world.call("POST", &format!("/api/v1/auth/password/{path}"), "", Some(body)).await
    };
    for bad in
        [json!({}), json!({"username": ""}), json!({"username": "a\0"}), json!({"username": "a".repeat(400)})]
    {
        let answer = call("reset", bad).await;
        assert_eq!(answer.refused(400, "E_INVALID").fields(), ["username"]);
    }
    let answer = call("new", json!({"newPassword": "short", "odd": 1})).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["newPassword", "odd", "token"]);
    call("new", json!({"token": "x".repeat(43), "newPassword": "lower tide 42"}))
        .await
        .refused(404, "E_NOT_FOUND");
    let token = mailed(&world, &ada.id.to_string(), &ada.username).await;
    let name = call("new", json!({"token": token, "newPassword": ada.username})).await;
    assert_eq!(name.refused(400, "E_INVALID").fields(), ["newPassword"]);
    let body = json!({"token": token, "newPassword": "lower tide 42"});
    assert_eq!(call("new", body.clone()).await.status, 204);
    call("new", body).await.refused(404, "E_NOT_FOUND");
    let login = json!({"username": ada.username, "password": "lower tide 42"});
    assert_eq!(world.call("POST", "/api/v1/auth/login", "", Some(login)).await.status, 200);
}

#[tokio::test]
async fn asking_too_often_is_answered_with_when_to_come_again() {
    let world = World::new().await;
    let ask = async || {
        world.call("POST", "/api/v1/auth/password/reset", "", Some(json!({"username": "ada"}))).await
    };
    for _ in 0..5 {
        assert_eq!(ask().await.status, 202);
    }
    let answer = ask().await;
    answer.refused(429, "E_RATE_LIMITED");
    let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=3_600).contains(&wait), "{wait}");
}
