//! Somebody lets a device in, in a browser that runs no scripts.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_test_support::eventually;

use crate::{
    browser::{Browser, WITHOUT_SCRIPTS, with_browser},
    support::World,
};

#[tokio::test]
async fn somebody_lets_a_device_in_by_browser_without_scripts() {
    with_browser(WITHOUT_SCRIPTS, walk).await;
}

async fn walk(browser: &Browser) {
    browser.open("data:text/html,<p id=a>off</p><script>a.textContent='on'</script>").await;
    assert_eq!(browser.text("#a").await, "off", "the browser runs no scripts");

    let world = World::new().await;
    let operator = tidegate_service::Operator::console();
    world.services.operators.create_organization(&operator, "acme").await.unwrap();
    let ada = world.db.user_in("acme", OrgRole::User).await;
    let name = "<b id=bold>laptop</b><script>document.title='taken'</script>";
    let codes = world.call("POST", "/oauth/device/code", "", Some(json!({"client_name": name}))).await;
    let text = |name: &str| codes.body[name].as_str().unwrap().to_owned();

    browser.open(&text("verification_uri_complete")).await;
    assert!(browser.url().await.contains("/login?next="), "first the login");
    assert_eq!(browser.label("#username").await, "Username");
    assert_eq!(browser.label("#password").await, "Password");
    browser.type_in("#username", &ada.username).await;
    browser.type_in("#password", "wrong").await;
    browser.click("button").await;
    browser.shows("[role=alert]", "username or password is wrong").await;
    browser.type_in("#password", ada.password.expose()).await;
    browser.click("button").await;
    browser.there("#code").await;

    assert_eq!(browser.text("#code").await, text("user_code"));
    assert_eq!(browser.text("#name").await, name, "shown as it is written, and not obeyed");
    assert!(!browser.has("#bold").await);
    assert_eq!(browser.label("#organization").await, "Organization");
    let poll = async || {
        world.call("POST", "/oauth/device/token", "", Some(json!({"device_code": text("device_code")}))).await
    };
    assert_eq!(poll().await.body["error"], "authorization_pending");
    browser.click("#approve").await;
    browser.shows("h1", "The device is let in").await;
    let got = poll().await;
    assert_eq!(got.status, 200, "{got:?}");

    browser.open(&format!("{}/home", world.handle.url())).await;
    browser.shows("h1", &ada.username).await;
    browser.click("form[action^='/home/tokens/'] button").await;
    browser.shows("main", "None is let in.").await;
    browser.click("#logout").await;
    eventually("the login page is there again", async || browser.url().await.ends_with("/login")).await;
    browser.open(&format!("{}/home", world.handle.url())).await;
    assert!(browser.url().await.contains("/login?next="));
}
