//! Pages for people: logging in by browser, letting devices in, and everything that other sites try.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_test_support::TestUser;

use crate::support::{Answer, World};

const VERIFY: &str = "/oauth/device/verify";

/// A browser with its cookies.
pub(crate) struct Browser<'a> {
    world: &'a World,
    pub(crate) cookies: Vec<(String, String)>,
}

impl<'a> Browser<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        Self { world, cookies: Vec::new() }
    }

    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if cookies.is_empty() { vec![] } else { vec![("Cookie", cookies.join("; "))] }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let answer = self.world.raw("GET", path, &self.headers(), b"").await;
        self.keep(&answer);
        answer
    }

    /// Sends a form as the page of this server would.
    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let site = [("Origin", self.world.handle.url()), ("Sec-Fetch-Site", "same-origin".to_owned())];
        self.post_as(path, fields, &site).await
    }

    pub(crate) async fn post_as(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        extra: &[(&'static str, String)],
    ) -> Answer {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mut headers = self.headers();
        headers.push(("Content-Type", "application/x-www-form-urlencoded".to_owned()));
        headers.extend(extra.iter().cloned());
        let answer = self.world.raw("POST", path, &headers, body.join("&").as_bytes()).await;
        self.keep(&answer);
        answer
    }

    fn keep(&mut self, answer: &Answer) {
        for line in answer.head.lines().filter(|line| line.to_lowercase().starts_with("set-cookie:")) {
            let (name, value) = line.split_once(':').unwrap().1.trim().split_once('=').unwrap();
            let value = value.split(';').next().unwrap().to_owned();
            self.cookies.retain(|(kept, _)| kept != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value));
            }
        }
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|(kept, _)| kept == name).map(|(_, value)| value.as_str())
    }

    pub(crate) async fn log_in(&mut self, user: &TestUser, next: &str) -> Answer {
        let page = self.get("/login").await;
        let token = hidden(&page, "token");
        let password = user.password.expose().clone();
        let fields = [
            ("token", token.as_str()),
            ("username", &user.username),
            ("password", &password),
            ("next", next),
        ];
        self.post("/login", &fields).await
    }
}

/// Every byte as a form or query may carry it.
fn encoded(text: &str) -> String {
    text.bytes().flat_map(|byte| ['%', digit(byte >> 4), digit(byte & 15)]).collect()
}

fn digit(half: u8) -> char {
    char::from_digit(u32::from(half), 16).unwrap()
}

/// The value of a hidden field of a page.
pub(crate) fn hidden(page: &Answer, name: &str) -> String {
    let begin = format!("name=\"{name}\" value=\"");
    let rest = page.text.split_once(&begin).unwrap_or_else(|| panic!("{name}: {page:?}")).1;
    rest.split('"').next().unwrap().to_owned()
}

fn organization(page: &Answer) -> String {
    page.text.split_once("<option value=\"").unwrap().1.split('"').next().unwrap().to_owned()
}

async fn user(world: &World) -> TestUser {
    drop(world.services.operators.create_organization(&tidegate_service::Operator::console(), "acme").await);
    world.db.user_in("acme", OrgRole::User).await
}

async fn code(world: &World, name: &str) -> (String, String) {
    let codes = world.call("POST", "/oauth/device/code", "", Some(json!({"client_name": name}))).await;
    let text = |name: &str| codes.body[name].as_str().unwrap().to_owned();
    (text("user_code"), text("device_code"))
}

#[tokio::test]
async fn somebody_logs_in_lets_a_device_in_and_logs_out() {
    let world = World::new().await;
    let ada = user(&world).await;
    let (typed, device) = code(&world, "<script>alert('x')</script> \"&").await;
    let mut browser = Browser::new(&world);
    let place = format!("{VERIFY}?user_code={typed}");
    let sent = browser.get(&place).await;
    assert_eq!(sent.status, 303, "{sent:?}");
    let login = sent.header("location").unwrap().to_owned();
    assert_eq!(hidden(&browser.get(&login).await, "next"), place);
    let entered = browser.log_in(&ada, &place).await;
    assert_eq!((entered.status, entered.header("location")), (303, Some(place.as_str())), "{entered:?}");
    let page = browser.get(&place).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.text.contains(&typed) && page.text.contains("127.0.0.1") && page.text.contains("acme"));
    assert!(!page.text.contains("<script") && page.text.contains("&#60;script&#62;"), "{}", page.text);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let (token, org) = (hidden(&page, "token"), organization(&page));
    let fields =
        [("token", token.as_str()), ("user_code", &typed), ("organization", &org), ("action", "approve")];
    for _ in 0..2 {
        let approved = browser.post(VERIFY, &fields).await;
        assert!(approved.status == 200 && approved.text.contains("is let in"), "{approved:?}");
    }
    let got = world.call("POST", "/oauth/device/token", "", Some(json!({"device_code": device}))).await;
    assert_eq!(got.status, 200, "{got:?}");
    let home = browser.get("/home").await;
    assert!(home.text.contains(&ada.username) && !home.text.contains("<script"), "{home:?}");
    let action = home.text.split_once("action=\"/home/tokens/").unwrap().1.split('"').next().unwrap();
    let revoked = browser.post(&format!("/home/tokens/{action}"), &[("token", &token)]).await;
    assert_eq!(revoked.status, 303, "{revoked:?}");
    let bearer = got.body["access_token"].as_str().unwrap();
    world.call("GET", "/api/v1/users/me", bearer, None).await.refused(401, "E_UNAUTHENTICATED");

    let secret = browser.cookie("tidegate_session").unwrap().to_owned();
    assert_eq!(browser.post("/logout", &[("token", &token)]).await.status, 303);
    assert_eq!(browser.cookie("tidegate_session"), None);
    browser.cookies.push(("tidegate_session".into(), secret));
    assert_eq!(browser.get("/home").await.status, 303, "the old cookie opens nothing");
}

#[tokio::test]
async fn a_denied_device_gets_nothing_and_a_strangers_code_is_a_conflict() {
    let world = World::new().await;
    let (ada, bob) = (user(&world).await, user(&world).await);
    let (typed, device) = code(&world, "").await;
    let (mut hers, mut his) = (Browser::new(&world), Browser::new(&world));
    hers.log_in(&ada, "").await;
    his.log_in(&bob, "").await;
    let place = format!("{VERIFY}?user_code={}", typed.to_lowercase().replace('-', "+"));
    let page = hers.get(&place).await;
    assert!(page.text.contains("gave no name"), "{page:?}");
    let late = his.get(&place).await;
    let denied = [("token", hidden(&page, "token")), ("user_code", typed.clone()), ("action", "deny".into())];
    let denied: Vec<(&str, &str)> = denied.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(hers.post(VERIFY, &denied).await.status, 200);
    let (token, org) = (hidden(&late, "token"), organization(&late));
    let fields =
        [("token", token.as_str()), ("user_code", &typed), ("organization", &org), ("action", "approve")];
    assert_eq!(his.post(VERIFY, &fields).await.status, 409);
    assert_eq!(his.get(&place).await.status, 409);
    let got = world.call("POST", "/oauth/device/token", "", Some(json!({"device_code": device}))).await;
    assert_eq!((got.status, &got.body["error"]), (400, &json!("access_denied")));
    for bad in [
        vec![
            ("token", token.as_str()),
            ("user_code", "BBBB-BBBB"),
            ("organization", &org),
            ("action", "approve"),
        ],
        vec![("token", token.as_str()), ("user_code", "BBBB-BBBB"), ("action", "deny")],
    ] {
        assert_eq!(his.post(VERIFY, &bad).await.status, 404);
    }
    let (typed, _) = code(&world, "x").await;
    let rival = tidegate_model::OrgId::new().to_string();
    for (org, action, status) in
        [(rival.as_str(), "approve", 404), ("x", "approve", 400), ("", "approve", 400), (&org, "", 400)]
    {
        let fields =
            [("token", token.as_str()), ("user_code", &typed), ("organization", org), ("action", action)];
        assert_eq!(his.post(VERIFY, &fields).await.status, status, "{org} {action}");
    }
    assert_eq!(his.get(&format!("{VERIFY}?user_code=nonsense")).await.status, 404);
    assert_eq!(his.get(&format!("{VERIFY}?user_code=%00%ff")).await.status, 404);
}

#[tokio::test]
async fn what_another_sites_page_sends_is_refused() {
    let world = World::new().await;
    let ada = user(&world).await;
    let (typed, device) = code(&world, "x").await;
    let mut browser = Browser::new(&world);
    browser.log_in(&ada, "").await;
    let page = browser.get(&format!("{VERIFY}?user_code={typed}")).await;
    let (token, org) = (hidden(&page, "token"), organization(&page));
    let mut other = Browser::new(&world);
    other.log_in(&ada, "").await;
    let foreign = hidden(&other.get("/home").await, "token");
    let own = world.handle.url();
    let site = |origin: &str, site: &str| {
        let all = [("Origin", origin.to_owned()), ("Sec-Fetch-Site", site.to_owned())];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>()
    };
    for (token, headers) in [
        (token.as_str(), site("https://evil.example", "")),
        (&token, site("null", "")),
        (&token, site("", "cross-site")),
        (&token, site("", "same-site")),
        (&token, site(&own, "cross-site")),
        (&token, site(&own.replace("http", "https"), "none")),
        (&foreign, site(&own, "same-origin")),
        (&"0".repeat(64), site(&own, "same-origin")),
        ("", site("", "")),
    ] {
        let fields = [("token", token), ("user_code", &typed), ("organization", &org), ("action", "approve")];
        let refused = browser.post_as(VERIFY, &fields, &headers).await;
        assert_eq!(refused.status, 403, "{headers:?}");
        assert_eq!(
            browser.post_as("/logout", &[("token", token)], &headers).await.status,
            403,
            "{headers:?}"
        );
    }
    let pending = world.call("POST", "/oauth/device/token", "", Some(json!({"device_code": device}))).await;
    assert_eq!(pending.body["error"], "authorization_pending");
    // JSON, which other sites can send as plain text, is no form.
    let mut headers = browser.headers();
    headers.push(("Content-Type", "text/plain".into()));
    let body = json!({"token": token, "user_code": typed, "organization": org, "action": "approve"});
    let answer = world.raw("POST", VERIFY, &headers, body.to_string().as_bytes()).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(browser.get("/home").await.status, 200, "still logged in");
}

#[tokio::test]
async fn nobody_is_logged_in_by_a_form_of_somebody_elses() {
    let world = World::new().await;
    let ada = user(&world).await;
    let password = ada.password.expose().clone();
    let (mut browser, mut attacker) = (Browser::new(&world), Browser::new(&world));
    let theirs = hidden(&attacker.get("/login").await, "token");
    for visit in [false, true] {
        if visit {
            browser.get("/login").await;
        }
        for token in [theirs.as_str(), "", "x"] {
            let fields = [("token", token), ("username", &ada.username), ("password", &password)];
            assert_eq!(browser.post("/login", &fields).await.status, 403);
            assert_eq!(browser.cookie("tidegate_session"), None);
        }
    }
    let token = hidden(&browser.get("/login").await, "token");
    let fields = [("token", token.as_str()), ("username", &ada.username), ("password", &password)];
    let evil = [("Origin", "https://evil.example".to_owned())];
    assert_eq!(browser.post_as("/login", &fields, &evil).await.status, 403);
    // A cookie that comes twice was put there by somebody else.
    let visit = browser.cookie("tidegate_visit").unwrap().to_owned();
    browser.cookies.push(("tidegate_visit".into(), visit));
    assert_eq!(browser.post("/login", &fields).await.status, 403);
}

#[tokio::test]
async fn each_login_has_a_cookie_of_its_own_that_no_script_and_no_other_site_gets() {
    let world = World::new().await;
    let ada = user(&world).await;
    let mut browser = Browser::new(&world);
    let planted = "a".repeat(43);
    browser.cookies.push(("tidegate_session".into(), planted.clone()));
    let first = browser.log_in(&ada, "").await;
    let line = first.head.lines().find(|line| line.contains("tidegate_session=")).unwrap();
    for part in ["Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains("Secure") && !line.contains("Domain"), "{line}");
    let one = browser.cookie("tidegate_session").unwrap().to_owned();
    assert!(one != planted && one.len() >= 43);
    browser.cookies.clear();
    browser.log_in(&ada, "").await;
    assert_ne!(browser.cookie("tidegate_session").unwrap(), one);
    // It opens pages, and nothing of the API.
    let answer = world.raw("GET", "/api/v1/users/me", &browser.headers(), b"").await;
    answer.refused(401, "E_UNAUTHENTICATED");
    let secret = browser.cookie("tidegate_session").unwrap().to_owned();
    world.call("GET", "/api/v1/users/me", &secret, None).await.refused(401, "E_UNAUTHENTICATED");
    assert!(
        !world.db.look::<String>("SELECT string_agg(l::text, '') FROM login_sessions l").await.contains(&one)
    );
    world.db.execute("UPDATE users SET active = false").await;
    assert_eq!(browser.get("/home").await.status, 303);
}

#[tokio::test]
async fn a_wrong_password_is_told_on_the_page_and_nothing_else() {
    let world = World::new().await;
    let ada = user(&world).await;
    let mut browser = Browser::new(&world);
    let token = hidden(&browser.get("/login").await, "token");
    for (name, password) in [(ada.username.as_str(), "wrong"), ("\"><script>", "x"), ("", ""), ("\0", "\0")] {
        let fields = [("token", token.as_str()), ("username", name), ("password", password)];
        let answer = browser.post("/login", &fields).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.text.contains("username or password is wrong") && !answer.text.contains("<script"));
        assert_eq!(browser.cookie("tidegate_session"), None);
    }
}

#[tokio::test]
async fn nobody_is_sent_to_another_server() {
    let world = World::new().await;
    let ada = user(&world).await;
    for next in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/\t/evil.example",
        "/a\r\nX: y",
        "evil",
    ] {
        let mut browser = Browser::new(&world);
        let answer = browser.log_in(&ada, next).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/home")), "{next:?}");
        assert_eq!(answer.header("x"), None);
        // Logged in already, the page goes on by itself.
        let answer = browser.get(&format!("/login?next={}", encoded(next))).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/home")), "{next:?}");
    }
}

#[tokio::test]
async fn an_open_connection_logs_nobody_in() {
    let world = World::new().await;
    let host = |host: &str| vec![("Host", host.to_owned())];
    for headers in [host("tidegate.example"), vec![("X-Forwarded-For", "192.0.2.1".to_owned())]] {
        for path in ["/login", "/home", VERIFY] {
            let refused = world.raw("GET", path, &headers, b"").await;
            assert!(refused.status == 403 && refused.text.contains("https"), "{refused:?}");
            assert_eq!(refused.header("set-cookie"), None);
        }
    }
    let world = World::with("public_url = \"https://tidegate.example\"").await;
    let page = world.raw("GET", "/login", &host("tidegate.example"), b"").await;
    assert_eq!(page.status, 200);
    let cookie = page.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-tidegate_visit=") && cookie.ends_with("; Secure"), "{cookie}");
}

#[tokio::test]
async fn the_pages_take_their_methods_alone_and_stand_without_the_database() {
    let world = World::new().await;
    for (method, path) in [("GET", "/logout"), ("POST", "/home"), ("PUT", "/login"), ("DELETE", VERIFY)] {
        world.call(method, path, "", None).await.refused(405, "E_METHOD_NOT_ALLOWED");
    }
    assert_eq!(world.call("GET", "/style.css", "", None).await.status, 200);
    let mut browser = Browser::new(&world);
    browser.cookies.push(("tidegate_session".into(), "a".repeat(43)));
    let outage = world.db.outage().await;
    assert_eq!(browser.get("/home").await.status, 503);
    browser.cookies.clear();
    assert_eq!(browser.get("/login").await.status, 200);
    outage.end().await;
}
