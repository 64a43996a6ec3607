//! A headless Chromium, by way of `chromedriver`. A page may be replaced by the next one at any time: everything that is
//! read is waited for, and what is gone when it is asked is looked for anew.

use std::{
    env, fs,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
};

use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource, KeyAction, KeyActions},
    elements::Element,
    error::CmdError,
    key::Key,
    wd::WebDriverCompatibleCommand,
};
use futures_util::FutureExt;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_test_support::{eventually, eventually_some};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tokio_tungstenite::tungstenite::http::Method;
use url::{ParseError, Url};

/// Whether pages may run scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scripts {
    Off,
    On,
}

/// How a browser is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) scripts: Scripts,
    /// More of the browser's own switches.
    pub(crate) switches: &'static [&'static str],
}

pub(crate) const WITH_SCRIPTS: Setup = Setup { scripts: Scripts::On, switches: &[] };
pub(crate) const WITHOUT_SCRIPTS: Setup = Setup { scripts: Scripts::Off, switches: &[] };

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    client: Client,
    _profile: TempDir,
}

/// What the standard does not name and `chromedriver` does.
#[derive(Debug)]
struct Special {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Special {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// What an element is asked by a screen reader.
#[derive(Debug)]
struct Label(String);

impl WebDriverCompatibleCommand for Label {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/element/{}/computedlabel", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::GET, None)
    }
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let all = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    all.into_iter().find(|program| program.is_file())
}

/// Runs a test in a browser of its own, which ends with it. Without a browser there is nothing to test, and in CI that
/// is a failure.
pub(crate) fn with_browser<'a>(
    setup: Setup,
    test: impl AsyncFnOnce(&Browser) + 'a,
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(async move {
        let Some(browser) = Browser::start(setup).await else { return };
        let done = AssertUnwindSafe(test(&browser)).catch_unwind().await;
        if done.is_err() {
            browser.shot("failed").await;
        }
        browser.quit().await;
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    })
}

impl Browser {
    async fn start(setup: Setup) -> Option<Self> {
        let found = (find(&["chromedriver"]), find(&["chromium", "chromium-browser", "google-chrome"]));
        let (Some(driver), Some(browser)) = found else {
            assert!(
                env::var_os("CI").is_none(),
                "chromium and chromedriver are missing: run scripts/install --test"
            );
            return None;
        };
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        // It may go on talking.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = tempfile::tempdir().unwrap();
        let Value::Object(wanted) = wanted(&browser, profile.path(), setup) else { unreachable!() };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(wanted)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Some(Self { driver, client, _profile: profile })
    }

    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    pub(crate) async fn url(&self) -> String {
        self.client.current_url().await.unwrap().to_string()
    }

    /// Waits until an element is there.
    pub(crate) async fn there(&self, element: &str) {
        eventually(&format!("{element} is there"), async || self.has(element).await).await;
    }

    /// What an element shows, once it is there.
    pub(crate) async fn text(&self, element: &str) -> String {
        self.ask(element, async |found| found.text().await).await
    }

    /// Waits until an element shows a text.
    pub(crate) async fn shows(&self, element: &str, text: &str) {
        let what = format!("{element} shows {text:?}");
        let look = async || self.has(element).await && self.text(element).await.contains(text);
        let shown = AssertUnwindSafe(eventually(&what, look)).catch_unwind().await.is_ok();
        let page = if shown { String::new() } else { self.body().await };
        assert!(shown, "{what}; the page: {page}");
    }

    /// Everything the page shows.
    pub(crate) async fn body(&self) -> String {
        self.text("body").await
    }

    /// What a screen reader calls an element.
    pub(crate) async fn label(&self, element: &str) -> String {
        let label = async |found: Element| {
            let id = found.element_id().to_string();
            self.client.issue_cmd(Label(id)).await
        };
        self.ask(element, label).await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn attribute(&self, element: &str, name: &str) -> Option<String> {
        self.ask(element, async |found| found.attr(name).await).await
    }

    pub(crate) async fn type_in(&self, element: &str, text: &str) {
        self.ask(element, async |found| {
            found.clear().await?;
            found.send_keys(text).await
        })
        .await;
    }

    pub(crate) async fn click(&self, element: &str) {
        self.ask(element, async |found| found.click().await).await;
    }

    /// Types wherever the focus is.
    pub(crate) async fn press(&self, text: &str) {
        self.client.active_element().await.unwrap().send_keys(text).await.unwrap();
    }

    /// Presses a key of the keyboard, with others held down.
    pub(crate) async fn chord(&self, held: &[Key], key: char) {
        let mut keys = KeyActions::new("keyboard".into());
        for held in held {
            keys = keys.then(KeyAction::Down { value: (*held).into() });
        }
        keys = keys.then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        for held in held {
            keys = keys.then(KeyAction::Up { value: (*held).into() });
        }
        self.client.perform_actions(keys).await.unwrap();
    }

    /// The id of the element that has the focus; its class where it has none.
    pub(crate) async fn focus(&self) -> String {
        let script = "const e = document.activeElement; return e.id || e.className || e.localName";
        self.run(script).await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn has(&self, element: &str) -> bool {
        !self.client.find_all(Locator::Css(element)).await.unwrap().is_empty()
    }

    /// Whether somebody who looks at the page sees the element.
    pub(crate) async fn sees(&self, element: &str) -> bool {
        match self.client.find(Locator::Css(element)).await {
            Ok(found) => found.is_displayed().await.unwrap_or(false),
            Err(error) if error.is_no_such_element() => false,
            Err(error) => panic!("{element}: {error}"),
        }
    }

    /// Runs a script in the page; its own policy does not bind the browser's driver.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Runs a script in every page to come, before its own.
    pub(crate) async fn at_every_load(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await;
    }

    /// From now on pages hear of their sessions that they are of another kind, and this of their streams. Where that is a
    /// foreign place, the policy of the page's true kind is let be.
    pub(crate) async fn pretend(&self, kind: &str, stream: Value) {
        let (kind, foreign) = (json!(kind), stream["url"].is_string());
        self.at_every_load(&format!(
            "const ask = window.fetch;
             window.fetch = async (...all) => {{
                 const answer = await ask(...all);
                 const body = await answer.json();
                 if (body.protocol) body.protocol = {kind};
                 if (body.kind) Object.assign(body, {{ kind: {kind} }}, {stream});
                 return new Response(JSON.stringify(body), answer);
             }};"
        ))
        .await;
        self.devtools("Page.setBypassCSP", json!({"enabled": foreign})).await;
    }

    /// What an element of the page's frame shows, if it is there.
    pub(crate) async fn text_in_frame(&self, element: &str) -> Option<String> {
        self.client.enter_frame(0).await.ok()?;
        let found = self.client.find(Locator::Css(element)).await;
        let text = match found {
            Ok(found) => found.text().await.ok(),
            Err(_) => None,
        };
        self.client.enter_parent_frame().await.unwrap();
        text
    }

    /// The window becomes a phone's.
    pub(crate) async fn become_phone(&self) {
        let metrics = json!({"width": 375, "height": 667, "deviceScaleFactor": 1, "mobile": true});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        self.devtools("Emulation.setTouchEmulationEnabled", json!({"enabled": true})).await;
    }

    /// Somebody prefers these colours: `dark` or `light`.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.client.issue_cmd(Special { path: "goog/cdp/execute", body }).await.unwrap()
    }

    /// What the browser complained about since the last time: what a policy forbade, and what scripts threw.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Special { path: "se/log", body: json!({"type": "browser"}) }).await;
        let said = |entry: &Value| {
            let message = entry["message"].as_str().unwrap_or_default().to_owned();
            // A look that came too early or too late is no fault of the page.
            let fault = message.contains("Content Security Policy")
                || message.contains("Uncaught")
                || message.contains("Trusted");
            // A frame is looked at while it is still empty, and of this origin; what is in it then is of another.
            let empty = message.contains("can escape its sandboxing");
            (fault || (entry["source"] == "security" && !empty)).then_some(message)
        };
        log.unwrap().as_array().unwrap().iter().filter_map(said).collect()
    }

    /// Keeps a picture of the window, for people: `target/tmp/pages/<name>.png`.
    pub(crate) async fn shot(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
        fs::create_dir_all(&folder).unwrap();
        if let Ok(picture) = self.client.screenshot().await {
            fs::write(folder.join(format!("{name}.png")), picture).unwrap();
        }
    }

    /// Asks an element, once it is there. A page that is replaced between finding and asking takes its elements with it:
    /// then the new page's is meant.
    async fn ask<T>(&self, element: &str, question: impl AsyncFn(Element) -> Result<T, CmdError>) -> T {
        eventually_some(&format!("{element} answers"), async || {
            let found = match self.client.find(Locator::Css(element)).await {
                Ok(found) => found,
                Err(error) if error.is_no_such_element() => return None,
                Err(error) => panic!("{element}: {error}"),
            };
            match question(found).await {
                Ok(answer) => Some(answer),
                Err(error)
                    if error.is_stale_element_reference()
                        || error.is_no_such_element()
                        || error.is_element_not_interactable() =>
                {
                    None
                }
                Err(error) => panic!("{element}: {error}"),
            }
        })
        .await
    }

    /// Ends the browser, and then its driver.
    async fn quit(mut self) {
        drop(self.client.close().await);
        self.driver.kill().await.unwrap();
    }
}

fn wanted(browser: &Path, profile: &Path, setup: Setup) -> Value {
    let profile = format!("--user-data-dir={}", profile.display());
    let mut switches: Vec<&str> =
        vec!["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", &profile];
    switches.extend(setup.switches);
    let scripts = if setup.scripts == Scripts::Off { 2 } else { 1 };
    json!({
        "browserName": "chrome",
        "goog:loggingPrefs": {"browser": "ALL"},
        "goog:chromeOptions": {
            "binary": browser,
            "args": switches,
            "prefs": {"profile.managed_default_content_settings.javascript": scripts},
        },
    })
}
