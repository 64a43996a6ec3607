//! Signing in elsewhere, as a browser does it: away by the login page, back by the callback, and everything that may be
//! wrong with either.

use std::sync::Arc;

use serde_json::json;
use tidegate_control_plane::{Config, Server};
use tidegate_model::{Clock, SystemClock};
use tidegate_service::{Options, SignInOptions};
use tidegate_test_support::{Account, IdentityProvider, TestDb};

use crate::{
    browsers::Browser,
    support::{Answer, World},
};

/// A server, and a provider that it asks as GitHub and as OpenID Connect.
async fn worlds() -> (World, IdentityProvider) {
    let (db, clock) = (TestDb::new().await, Arc::new(SystemClock::new()));
    let provider = IdentityProvider::start(Arc::clone(&clock) as Arc<dyn Clock>).await;
    let sign_in = SignInOptions { github: Some(provider.github()), oidc: vec![provider.oidc("corp")] };
    let options = Options { sign_in, ..TestDb::options() };
    let services = db.services_with_clock(options, Arc::clone(&clock) as Arc<dyn Clock>);
    let mut config = Config::from_parts("", &[]).unwrap();
    let data = tempfile::tempdir().unwrap();
    config.data_dir = Some(data.path().to_owned());
    config.listen.set_port(0);
    config.workers = Some(1);
    let handle = Server::start(&config, services.clone(), clock).unwrap();
    (World { db, services, handle, data }, provider)
}

/// Where an answer leads to, on this server.
fn local(world: &World, place: &str) -> String {
    place.strip_prefix(&world.handle.url()).unwrap_or_else(|| panic!("{place} is not here")).to_owned()
}

/// From the login page to the provider and back; what the callback answers.
async fn sign_in(
    world: &World,
    provider: &IdentityProvider,
    browser: &mut Browser<'_>,
    place: &str,
) -> Answer {
    let sent = browser.get(place).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    let back = provider.visit(sent.header("location").unwrap()).await;
    browser.get(&local(world, &back)).await
}

const AS_PAGE: (&str, &str) = ("Accept", "text/html,application/xhtml+xml");

#[tokio::test]
async fn somebody_signs_in_by_the_login_page_and_comes_to_where_they_were_going() {
    let (world, provider) = worlds().await;
    let listed = world.call("GET", "/api/v1/auth/providers", "", None).await;
    assert_eq!(
        listed.body,
        json!({"providers": [
            {"kind": "github", "name": "github", "displayName": "GitHub", "url": "/api/v1/auth/github"},
            {"kind": "oidc", "name": "corp", "displayName": "The corp directory", "url": "/api/v1/auth/oidc/corp"},
        ]})
    );
    for (id, place) in [(1, "/api/v1/auth/github"), (2, "/api/v1/auth/oidc/corp")] {
        provider.visitor(Some(Account::new(id, &format!("ada{id}"))));
        let mut browser = Browser::new(&world);
        let page = browser.get("/login?next=/oauth/device/verify?user_code=WDJB-MJHT").await;
        let link = page.text.split("href=\"").find(|rest| rest.starts_with(place)).unwrap();
        let link = link.split('"').next().unwrap().to_owned();
        assert_eq!(browser.cookie("tidegate_sign_in"), None);
        let arrived = sign_in(&world, &provider, &mut browser, &link).await;
        assert_eq!(arrived.status, 200, "{arrived:?}");
        assert!(
            arrived.text.contains("content=\"0; url=/oauth/device/verify?user_code=WDJB-MJHT\""),
            "{}",
            arrived.text
        );
        assert_eq!(arrived.header("cache-control"), Some("no-store"));
        let home = browser.get("/home").await;
        assert!(home.status == 200 && home.text.contains(&format!("ada{id}")), "{home:?}");
    }
}

#[tokio::test]
async fn the_cookie_of_an_attempt_is_for_us_alone_and_comes_back_from_elsewhere() {
    let (world, _provider) = worlds().await;
    let sent = world.call("GET", "/api/v1/auth/github", "", None).await;
    let cookie = sent.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("tidegate_sign_in=") && cookie.contains("; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    assert!(cookie.contains("Max-Age=600"), "{cookie}");
    // Over TLS no other host and no other path sets it.
    let config = [("Host", "tidegate.example".to_owned())];
    world.raw("GET", "/api/v1/auth/github", &config, b"").await.refused(403, "E_FORBIDDEN");
}

#[tokio::test]
async fn two_tabs_of_one_browser_sign_in_side_by_side() {
    let (world, provider) = worlds().await;
    provider.visitor(Some(Account::new(1, "ada")));
    let mut browser = Browser::new(&world);
    let one = browser.get("/api/v1/auth/oidc/corp?next=/one").await;
    let two = browser.get("/api/v1/auth/oidc/corp?next=/two").await;
    for (sent, next) in [(two, "/two"), (one, "/one")] {
        let back = provider.visit(sent.header("location").unwrap()).await;
        let arrived = browser.get(&local(&world, &back)).await;
        assert!(arrived.status == 200 && arrived.text.contains(&format!("url={next}\"")), "{arrived:?}");
    }
}

#[tokio::test]
async fn nobody_is_sent_to_another_server_afterwards() {
    let (world, provider) = worlds().await;
    provider.visitor(Some(Account::new(1, "ada")));
    for next in [
        "//evil.example",
        "https://evil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
        "javascript:alert(1)",
        "%2F%2Fevil.example",
        "/a%0d%0aSet-Cookie:%20x=y",
    ] {
        let mut browser = Browser::new(&world);
        let place = format!("/api/v1/auth/oidc/corp?next={next}");
        let arrived = sign_in(&world, &provider, &mut browser, &place).await;
        assert_eq!(arrived.status, 200, "{arrived:?}");
        assert!(
            arrived.text.contains("url=/home\"") && !arrived.text.contains("evil"),
            "{next}: {}",
            arrived.text
        );
    }
    // A path that only looks odd stays text in the page.
    let mut browser = Browser::new(&world);
    let place = "/api/v1/auth/oidc/corp?next=/%22%3E%3Cscript%3E";
    let arrived = sign_in(&world, &provider, &mut browser, place).await;
    assert!(!arrived.text.contains("<script"), "{}", arrived.text);
}

#[tokio::test]
async fn another_browser_a_replay_and_a_forged_state_are_refused_and_log_nobody_in() {
    let (world, provider) = worlds().await;
    provider.visitor(Some(Account::new(1, "ada")));
    let (mut mine, mut theirs) = (Browser::new(&world), Browser::new(&world));
    let sent = mine.get("/api/v1/auth/github").await;
    drop(theirs.get("/api/v1/auth/github").await);
    let back = local(&world, &provider.visit(sent.header("location").unwrap()).await);
    for path in [back.as_str(), "/api/v1/auth/github/callback?state=x&code=y", "/api/v1/auth/github/callback"]
    {
        theirs.get(path).await.refused(403, "E_FORBIDDEN");
        assert_eq!(theirs.cookie("tidegate_session"), None);
    }
    // A parameter that comes twice counts as none.
    let state = back.split("state=").nth(1).unwrap().split('&').next().unwrap();
    mine.get(&format!("{back}&state={state}")).await.refused(403, "E_FORBIDDEN");
    assert_eq!(mine.get(&back).await.status, 200);
    let cookie = mine.cookie("tidegate_session").unwrap().to_owned();
    mine.get(&back).await.refused(403, "E_FORBIDDEN");
    assert_eq!(mine.cookie("tidegate_session"), Some(cookie.as_str()));
}

#[tokio::test]
async fn what_the_provider_says_is_never_part_of_a_page() {
    let (world, provider) = worlds().await;
    provider.visitor(None);
    let mut browser = Browser::new(&world);
    let sent = browser.get("/api/v1/auth/oidc/corp").await;
    let back = local(&world, &provider.visit(sent.header("location").unwrap()).await);
    assert!(back.contains("error_description="), "{back}");
    let mut headers = browser.headers();
    headers.push((AS_PAGE.0, AS_PAGE.1.to_owned()));
    let page = world.raw("GET", &back, &headers, b"").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (403, Some("text/html; charset=utf-8")),
        "{page:?}"
    );
    assert!(page.text.contains("not let in by The corp directory"), "{}", page.text);
    assert!(!page.text.contains("onerror") && !page.text.contains("access_denied"), "{}", page.text);
}

#[tokio::test]
async fn a_provider_that_is_down_is_503_with_a_sentence_for_people_and_programs() {
    let (world, provider) = worlds().await;
    provider.broken(true);
    let answer = world.call("GET", "/api/v1/auth/oidc/corp", "", None).await;
    answer.refused(503, "E_PROVIDER_UNAVAILABLE");
    assert!(answer.header("retry-after").is_some());
    let headers = [(AS_PAGE.0, AS_PAGE.1.to_owned())];
    let page = world.raw("GET", "/api/v1/auth/oidc/corp", &headers, b"").await;
    assert_eq!(page.status, 503);
    assert!(
        page.text.contains("The corp directory does not answer") && !page.text.contains("maintenance"),
        "{}",
        page.text
    );
    assert!(page.header("retry-after").is_some());
    // Everything else goes on.
    assert_eq!(Browser::new(&world).get("/login").await.status, 200);
}

#[tokio::test]
async fn what_is_not_in_the_settings_is_not_there() {
    let world = World::new().await;
    for path in
        ["/api/v1/auth/github", "/api/v1/auth/oidc/corp", "/api/v1/auth/oidc/corp/callback?state=a&code=b"]
    {
        world.call("GET", path, "", None).await.refused(404, "E_NOT_FOUND");
    }
    assert_eq!(world.call("GET", "/api/v1/auth/providers", "", None).await.body, json!({"providers": []}));
    let page = Browser::new(&world).get("/login").await;
    assert!(!page.text.contains("Sign in with"), "{}", page.text);
}
