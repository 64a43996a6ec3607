//! Somebody who has forgotten their password sets another one, in a browser that runs no scripts.

use tidegate_model::OrgRole;

use crate::{
    browser::{Browser, WITHOUT_SCRIPTS, with_browser},
    support::World,
};

#[tokio::test]
async fn somebody_sets_a_forgotten_password_by_browser_without_scripts() {
    with_browser(WITHOUT_SCRIPTS, walk).await;
}

async fn walk(browser: &Browser) {
    let world = World::new().await;
    let operator = tidegate_service::Operator::console();
    world.services.operators.create_organization(&operator, "acme").await.unwrap();
    let ada = world.db.user_in("acme", OrgRole::User).await;
    let address = world.give_address(&ada.id.to_string(), &ada.username).await;
    let url = world.handle.url();

    browser.open(&format!("{url}/login")).await;
    browser.click("a[href='/password/reset']").await;
    browser.shows("h1", "Forgotten password").await;
    assert_eq!(browser.label("#username").await, "Username or e-mail address");
    browser.type_in("#username", &address).await;
    browser.click("button").await;
    browser.shows("h1", "Look at your mail").await;

    let link = format!("{url}/password/new?token=");
    let token = world.mailed_link(&address, &link).await;
    browser.open(&format!("{link}{token}")).await;
    browser.shows("h1", "New password").await;
    assert_eq!(browser.label("#password").await, "New password");
    assert_eq!(browser.label("#again").await, "The same once more");
    browser.type_in("#password", "lower tide 42").await;
    browser.type_in("#again", "lower tide 43").await;
    browser.click("button").await;
    browser.shows("[role=alert]", "the same password once more").await;
    browser.type_in("#password", "lower tide 42").await;
    browser.type_in("#again", "lower tide 42").await;
    browser.click("button").await;
    browser.shows("h1", "Your password is set").await;

    browser.open(&format!("{url}/login")).await;
    browser.type_in("#username", &ada.username).await;
    browser.type_in("#password", "lower tide 42").await;
    browser.click("button").await;
    browser.shows("h1", &ada.username).await;
}
