//! The page of a session as requests see it: who gets it, what its cookie opens, what it may load.

use serde_json::{Value, json};
use tidegate_model::OrgRole;
use tidegate_service::Operator;
use tidegate_test_support::{SocketAgent, TestUser, eventually};

use crate::{
    browsers::{Browser, hidden},
    support::{Answer, World, upgrade},
};

/// Somebody at a browser, with a running session.
struct Stand {
    world: World,
    user: TestUser,
    token: String,
    id: String,
    _agent: SocketAgent,
}

impl Stand {
    async fn new() -> Self {
        // The agent never dials: a stream that is let in ends with 504.
        let world = World::with("[hub]\ntunnel_dial_seconds = 0").await;
        let agent = world.agent("vm-1").await;
        world.services.operators.create_organization(&Operator::console(), "acme").await.unwrap();
        let user = world.db.user_in("acme", OrgRole::User).await;
        let token = world.token(&user).await;
        let body = json!({"template": "shell", "name": "<b>\"pool\"</b>"});
        let made = world.call("POST", "/api/v1/sessions", &token, Some(body)).await;
        let id = made.body["session"]["id"].as_str().unwrap().to_owned();
        let stand = Self { world, user, token, id, _agent: agent };
        eventually("it runs", async || stand.look().await["state"] == "running").await;
        stand
    }

    fn page(&self) -> String {
        format!("/sessions/{}", self.id)
    }

    async fn look(&self) -> Value {
        self.world.call("GET", &format!("/api/v1/sessions/{}", self.id), &self.token, None).await.body
    }

    async fn browser(&self) -> Browser<'_> {
        let mut browser = Browser::new(&self.world);
        browser.log_in(&self.user, "/home").await;
        browser
    }

    /// A browser of somebody else in this organization.
    async fn other(&self, org: &str, role: OrgRole) -> Browser<'_> {
        drop(self.world.services.operators.create_organization(&Operator::console(), org).await);
        let other = self.world.db.user_in(org, role).await;
        let mut browser = Browser::new(&self.world);
        browser.log_in(&other, "/home").await;
        browser
    }
}

fn attribute(page: &Answer, name: &str) -> String {
    let begin = format!("data-{name}=\"");
    let rest = page.text.split_once(&begin).unwrap_or_else(|| panic!("{name}: {page:?}")).1;
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_page_shows_its_session_under_a_policy_of_its_own() {
    let stand = Stand::new().await;
    let page = stand.browser().await.get(&stand.page()).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.text.contains("&#60;b&#62;") && !page.text.contains("<b>"), "{}", page.text);
    let policy = page.header("content-security-policy").unwrap();
    for wanted in [
        "default-src 'none'",
        "script-src 'self';",
        "connect-src 'self' ws://127.0.0.1:",
        "frame-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(wanted), "{wanted}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let nonce = policy.split_once("'nonce-").unwrap().1.split('\'').next().unwrap();
    assert!(page.text.contains(&format!("nonce=\"{nonce}\"")) && nonce.len() >= 32, "{policy}");
    assert!(
        !page.text.contains("<style") && !page.text.contains(" style=") && !page.text.contains("<script>")
    );
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    let again = stand.browser().await.get(&stand.page()).await;
    assert!(!again.text.contains(nonce), "a nonce is good for one page");
}

#[tokio::test]
async fn a_file_of_the_page_is_kept_for_good_and_asked_for_once() {
    let stand = Stand::new().await;
    let page = stand.browser().await.get(&stand.page()).await;
    let path = page.text.split_once("<script type=\"module\" src=\"").unwrap().1.split('"').next().unwrap();
    let plain = stand.world.raw("GET", path, &[], b"").await;
    assert_eq!(plain.status, 200, "{}", plain.head);
    assert_eq!(plain.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(plain.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(plain.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(plain.header("content-encoding"), None);
    let accepts = ("Accept-Encoding", "br, gzip".to_owned());
    let packed = stand.world.raw("GET", path, &[accepts], b"").await;
    assert_eq!((packed.status, packed.header("content-encoding")), (200, Some("gzip")));
    let tag = plain.header("etag").unwrap().to_owned();
    let kept = stand.world.raw("GET", path, &[("If-None-Match", tag)], b"").await;
    assert_eq!((kept.status, kept.text.as_str()), (304, ""), "{kept:?}");
    let other = stand.world.raw("GET", path, &[("If-None-Match", "\"other\"".to_owned())], b"").await;
    assert_eq!(other.status, 200);
    let licenses = stand.world.raw("GET", "/assets/licenses.txt", &[], b"").await;
    assert!(licenses.status == 200 && licenses.text.contains("Mozilla Public License"), "{}", licenses.head);
    for nothing in ["/assets/x.js", "/assets/..%2fassets.rs", "/assets/assets.rs", "/assets/"] {
        assert_eq!(stand.world.raw("GET", nothing, &[], b"").await.status, 404, "{nothing}");
    }
}

#[tokio::test]
async fn who_is_not_logged_in_goes_to_the_login_and_comes_back() {
    let stand = Stand::new().await;
    let mut nobody = Browser::new(&stand.world);
    let sent = nobody.get(&format!("{}?mode=view", stand.page())).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    let login = sent.header("location").unwrap().to_owned();
    assert_eq!(hidden(&nobody.get(&login).await, "next"), format!("{}?mode=view", stand.page()));
    nobody.get(&format!("{}/state", stand.page())).await.refused(401, "E_UNAUTHENTICATED");
    nobody.post(&format!("{}/connect", stand.page()), &[]).await.refused(401, "E_UNAUTHENTICATED");
    // A bearer opens the API, and no pages.
    let bearer = [("Authorization", format!("Bearer {}", stand.token))];
    let state = stand.world.raw("GET", &format!("{}/state", stand.page()), &bearer, b"").await;
    state.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn another_organizations_session_is_not_found() {
    let stand = Stand::new().await;
    let mut other = stand.other("globex", OrgRole::Admin).await;
    for path in [stand.page(), format!("{}?org=acme", stand.page())] {
        let page = other.get(&path).await;
        assert_eq!(page.status, 404, "{page:?}");
        assert!(!page.text.contains("pool"), "{page:?}");
    }
    other.get(&format!("{}/state", stand.page())).await.refused(404, "E_NOT_FOUND");
    other.post(&format!("{}/connect", stand.page()), &[]).await.refused(404, "E_NOT_FOUND");
    // Of the same organization's members, those see it who manage sessions; what it shows is its owner's.
    let mut member = stand.other("acme", OrgRole::User).await;
    assert_eq!(member.get(&stand.page()).await.status, 404);
    let mut manager = stand.other("acme", OrgRole::Maintainer).await;
    let page = manager.get(&stand.page()).await;
    assert_eq!(page.status, 200, "{page:?}");
    let token = attribute(&page, "token");
    let refused = manager.post(&format!("{}/connect", stand.page()), &[("token", &token)]).await;
    refused.refused(403, "E_FORBIDDEN");
}

#[tokio::test]
async fn a_session_is_found_in_each_of_ones_organizations() {
    let stand = Stand::new().await;
    let acme = stand.look().await["orgId"].clone();
    // Their own organization comes first from now on; the session is in the other one.
    let body = json!({"name": "initech", "displayName": "Of their own"});
    let made = stand.world.call("POST", "/api/v1/organizations", &stand.token, Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let mut browser = stand.browser().await;
    let page = browser.get(&stand.page()).await;
    assert_eq!(page.status, 200, "{page:?}");
    let org = attribute(&page, "org");
    assert_eq!(json!(org), acme);
    let state = browser.get(&format!("{}/state?org={org}", stand.page())).await;
    assert_eq!((state.status, &state.body["state"]), (200, &json!("running")), "{state:?}");
    let home = browser.get("/home").await;
    assert!(home.text.contains(&format!("{}?org={org}", stand.page())), "{}", home.text);
    let elsewhere = browser.get(&format!("{}?org=initech", stand.page())).await;
    assert_eq!(elsewhere.status, 404, "where it was looked for, it is not");
}

#[tokio::test]
async fn the_state_is_the_sessions_and_asking_is_no_activity() {
    let stand = Stand::new().await;
    let mut browser = stand.browser().await;
    let before = stand.look().await;
    let state = browser.get(&format!("{}/state", stand.page())).await;
    assert_eq!(state.header("cache-control"), Some("no-store"));
    for (name, value) in [
        ("id", json!(stand.id)),
        ("name", json!("<b>\"pool\"</b>")),
        ("state", json!("running")),
        ("protocol", json!("terminal")),
        ("mode", json!("control")),
        ("progress", json!(null)),
    ] {
        assert_eq!(state.body[name], value, "{state:?}");
    }
    assert_eq!(stand.look().await["lastActivityAt"], before["lastActivityAt"]);
}

#[tokio::test]
async fn a_ticket_needs_the_form_of_this_very_login() {
    let stand = Stand::new().await;
    let mut browser = stand.browser().await;
    let token = attribute(&browser.get(&stand.page()).await, "token");
    let place = format!("{}/connect", stand.page());
    browser.post(&place, &[]).await.refused(403, "E_FORBIDDEN");
    browser.post(&place, &[("token", "wrong")]).await.refused(403, "E_FORBIDDEN");
    let elsewhere = attribute(&stand.browser().await.get(&stand.page()).await, "token");
    browser.post(&place, &[("token", &elsewhere)]).await.refused(403, "E_FORBIDDEN");
    let fields = [("token", token.as_str())];
    let evil = [("Origin", "https://evil.example".to_owned())];
    browser.post_as(&place, &fields, &evil).await.refused(403, "E_ORIGIN");
    let cross = [("Sec-Fetch-Site", "cross-site".to_owned())];
    browser.post_as(&place, &fields, &cross).await.refused(403, "E_FORBIDDEN");
    let odd = browser.post(&place, &[("token", &token), ("mode", "odd")]).await;
    assert_eq!(odd.refused(400, "E_INVALID").fields(), ["mode"]);

    let given = browser.post(&place, &[("token", &token), ("mode", "view")]).await;
    assert_eq!(given.status, 200, "{given:?}");
    assert_eq!((&given.body["kind"], &given.body["mode"]), (&json!("terminal"), &json!("view")));
    assert_eq!(given.header("cache-control"), Some("no-store"));
    let path = format!("/api/v1/sessions/{}/terminal", stand.id);
    assert!(given.body["url"].as_str().unwrap().ends_with(&path), "{given:?}");
    let offer = format!("tidegate.v1, ticket.{}", given.body["ticket"].as_str().unwrap());
    let headers = [upgrade(), vec![("Sec-WebSocket-Protocol", offer)]].concat();
    // Good once: then the agent, who does not dial, is what is missing.
    stand.world.raw("GET", &path, &headers, b"").await.refused(504, "E_AGENT_TIMEOUT");
    stand.world.raw("GET", &path, &headers, b"").await.refused(401, "E_UNAUTHENTICATED");
    // The cookie itself opens no stream.
    let headers = [upgrade(), browser.headers()].concat();
    stand.world.raw("GET", &path, &headers, b"").await.refused(401, "E_UNAUTHENTICATED");
}
