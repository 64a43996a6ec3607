//! The pages of invites, from the mail's link to the answer, and what others try there.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_test_support::{TestUser, eventually_some};

use crate::{
    browsers::{Browser, hidden},
    support::{Answer, Somebody, World},
};

/// An organization with its owner, and somebody who is not in it yet.
async fn people(world: &World) -> (Somebody, TestUser) {
    let owner = world.owner("acme").await;
    (owner, world.db.user_in("lobby", OrgRole::User).await)
}

/// Invites somebody and gives the page of the invite.
async fn invite(world: &World, owner: &Somebody, name: &str) -> String {
    let body = Some(json!({"username": name, "role": "maintainer"}));
    let made = world.call("POST", "/api/v1/organizations/acme/invites", &owner.token, body).await;
    assert_eq!(made.status, 201, "{made:?}");
    format!("/invites/{}", made.body["id"].as_str().unwrap())
}

async fn logged_in<'a>(world: &'a World, user: &TestUser) -> Browser<'a> {
    let mut browser = Browser::new(world);
    assert_eq!(browser.log_in(user, "").await.status, 303);
    browser
}

async fn answer(browser: &mut Browser<'_>, place: &str, action: &str) -> Answer {
    let token = hidden(&browser.get("/home").await, "token");
    browser.post(place, &[("token", &token), ("action", action)]).await
}

async fn memberships(world: &World) -> i64 {
    world.db.look("SELECT count(*) FROM memberships m JOIN organizations o ON o.id = m.org_id WHERE o.name = 'acme'").await
}

#[tokio::test]
async fn the_link_of_the_mail_leads_over_the_login_to_the_invite_and_into_the_organization() {
    let world = World::new().await;
    let (owner, friend) = people(&world).await;
    world
        .db
        .execute(&format!("UPDATE users SET email = 'friend@example.com' WHERE id = '{}'", friend.id))
        .await;
    let place = invite(&world, &owner, &friend.username).await;
    let outbox = world.data.path().join("outbox");
    let mail = eventually_some("the mail is in the outbox", async || {
        let mut files = std::fs::read_dir(&outbox).ok()?;
        let file = files
            .find_map(|file| Some(file.ok()?.path()).filter(|path| path.extension() == Some("eml".as_ref())));
        std::fs::read_to_string(file?).ok()
    });
    let link = format!("{}{place}", world.handle.url());
    assert!(mail.await.contains(&format!("\r\n{link}\r\n")), "{link}");

    let mut browser = Browser::new(&world);
    let login = browser.get(&place).await;
    assert_eq!(login.status, 303);
    let to = login.header("location").unwrap().to_owned();
    assert_eq!(hidden(&browser.get(&to).await, "next"), place);
    let entered = browser.log_in(&friend, &place).await;
    assert_eq!((entered.status, entered.header("location")), (303, Some(place.as_str())));
    let page = browser.get(&place).await;
    assert_eq!(page.status, 200, "{page:?}");
    for part in ["Of somebody", "(acme)", &owner.name, "maintainer", &friend.username, "UTC"] {
        assert!(page.text.contains(part), "{part} in {}", page.text);
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !page.text.contains("<script"), "{policy}");
    assert!(browser.get("/home").await.text.contains(&format!("<a href=\"{place}\">acme</a>")));
    let before = memberships(&world).await;
    let token = hidden(&page, "token");
    let joined = browser.post(&place, &[("token", &token), ("action", "accept")]).await;
    assert!(joined.status == 200 && joined.text.contains("member of acme"), "{joined:?}");
    assert_eq!(memberships(&world).await, before + 1);
    let again = browser.post(&place, &[("token", &token), ("action", "accept")]).await;
    assert!(again.status == 409 && again.text.contains("You accepted this invite"), "{again:?}");
    assert!(browser.get(&place).await.text.contains("member of acme"));
    assert!(!browser.get("/home").await.text.contains(&place));
}

#[tokio::test]
async fn an_invite_that_is_over_says_how_it_ended() {
    let world = World::new().await;
    let (owner, friend) = people(&world).await;
    let mut browser = logged_in(&world, &friend).await;
    let declined = invite(&world, &owner, &friend.username).await;
    let answered = answer(&mut browser, &declined, "decline").await;
    assert!(answered.status == 200 && answered.text.contains("You declined"), "{answered:?}");
    assert_eq!(answer(&mut browser, &declined, "accept").await.status, 409);

    let revoked = invite(&world, &owner, &friend.username).await;
    let path = format!("/api/v1/organizations/acme{revoked}/revoke");
    assert_eq!(world.call("POST", &path, &owner.token, None).await.status, 200);
    assert!(browser.get(&revoked).await.text.contains("taken back"));
    let late = answer(&mut browser, &revoked, "accept").await;
    assert!(late.status == 409 && late.text.contains("taken back"), "{late:?}");

    let expired = invite(&world, &owner, &friend.username).await;
    world
        .db
        .execute("UPDATE invites SET expires_at = now() - interval '1 day' WHERE status = 'pending'")
        .await;
    assert!(browser.get(&expired).await.text.contains("has expired"));
    let late = answer(&mut browser, &expired, "accept").await;
    assert!(late.status == 409 && late.text.contains("has expired"), "{late:?}");

    let closed = invite(&world, &owner, &friend.username).await;
    world.db.execute("UPDATE organizations SET status = 'suspended' WHERE name = 'acme'").await;
    assert!(browser.get(&closed).await.text.contains("takes nobody"));
    assert_eq!(answer(&mut browser, &closed, "accept").await.status, 409);
    assert_eq!(memberships(&world).await, 1, "the owner alone");
}

#[tokio::test]
async fn somebody_elses_invite_is_not_found_however_it_stands() {
    let world = World::new().await;
    let (owner, friend) = people(&world).await;
    let stranger = world.db.user_in("lobby", OrgRole::User).await;
    let place = invite(&world, &owner, &friend.username).await;
    let mut browser = logged_in(&world, &stranger).await;
    let nothing = format!("/invites/{}", tidegate_model::InviteId::new());
    for place in [&place, &nothing, "/invites/x", "/invites/%00"] {
        let page = browser.get(place).await;
        assert!(page.status == 404 && !page.text.contains("acme"), "{place}: {page:?}");
        for action in ["accept", "decline"] {
            assert_eq!(answer(&mut browser, place, action).await.status, 404, "{place}");
        }
    }
    let status: String = world.db.look("SELECT status FROM invites").await;
    assert_eq!((status.as_str(), memberships(&world).await), ("pending", 1));
}

#[tokio::test]
async fn what_another_sites_page_sends_answers_no_invite() {
    let world = World::new().await;
    let (owner, friend) = people(&world).await;
    let place = invite(&world, &owner, &friend.username).await;
    let (mut browser, mut other) = (logged_in(&world, &friend).await, logged_in(&world, &friend).await);
    let token = hidden(&browser.get(&place).await, "token");
    let foreign = hidden(&other.get(&place).await, "token");
    let own = [("Origin", world.handle.url()), ("Sec-Fetch-Site", "same-origin".to_owned())];
    let evil = [("Origin", "https://evil.example".to_owned())];
    for (token, headers) in [
        (token.as_str(), &evil[..]),
        (&token, &[("Sec-Fetch-Site", "cross-site".to_owned())]),
        (&foreign, &own),
        ("", &own),
    ] {
        for action in ["accept", "decline"] {
            let refused = browser.post_as(&place, &[("token", token), ("action", action)], headers).await;
            assert_eq!(refused.status, 403, "{headers:?}");
        }
    }
    let bad = browser.post(&place, &[("token", &token), ("action", "both")]).await;
    assert_eq!(bad.status, 400, "{bad:?}");
    let mut nobody = Browser::new(&world);
    let away = nobody.post(&place, &[("token", &token), ("action", "accept")]).await;
    assert_eq!(away.status, 303);
    assert!(away.header("location").unwrap().starts_with("/login?next=%2Finvites%2F"), "{away:?}");
    let status: String = world.db.look("SELECT status FROM invites").await;
    assert_eq!((status.as_str(), memberships(&world).await), ("pending", 1));
}

#[tokio::test]
async fn whoever_comes_from_a_mail_programs_page_is_asked_once_more_from_our_own() {
    let world = World::new().await;
    let (owner, friend) = people(&world).await;
    let place = invite(&world, &owner, &friend.username).await;
    // Browsers keep the cookie back on the way from another site.
    let cross = [("Sec-Fetch-Site", "cross-site".to_owned())];
    let page = world.raw("GET", &place, &cross, b"").await;
    assert!(page.status == 200 && page.text.contains(&format!("content=\"0; url={place}\"")), "{page:?}");
    assert_eq!(page.header("set-cookie"), None);
    let mut browser = logged_in(&world, &friend).await;
    assert!(browser.get(&place).await.text.contains("id=\"accept\""));
    let same = [("Sec-Fetch-Site", "same-origin".to_owned())];
    assert_eq!(world.raw("GET", &place, &same, b"").await.status, 303);
}
