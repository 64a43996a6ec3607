//! As much of `WebDriver` (W3C) as the pages need, spoken to `chromedriver`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_test_support::eventually;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

/// What the protocol calls an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window and without scripts.
pub(crate) struct Browser {
    driver: Child,
    address: String,
    session: String,
    profile: TempDir,
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let all = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    all.into_iter().find(|program| program.is_file())
}

impl Browser {
    /// Starts it; nothing where none is installed.
    pub(crate) async fn start() -> Option<Self> {
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
        let mut new = Self { driver, address: format!("127.0.0.1:{port}"), session: String::new(), profile };
        let wanted = new.wanted(&browser);
        let session = new.call("POST", "/session", Some(wanted)).await;
        session["sessionId"].as_str().unwrap_or_else(|| panic!("{session}")).clone_into(&mut new.session);
        Some(new)
    }

    fn wanted(&self, browser: &Path) -> Value {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", &profile];
        json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {
            "binary": browser,
            "args": arguments,
            "prefs": {"profile.managed_default_content_settings.javascript": 2},
        }}}})
    }

    pub(crate) async fn open(&self, url: &str) {
        self.of_session("POST", "/url", Some(json!({"url": url}))).await;
    }

    pub(crate) async fn url(&self) -> String {
        self.of_session("GET", "/url", None).await.as_str().unwrap().to_owned()
    }

    /// What an element shows.
    pub(crate) async fn text(&self, element: &str) -> String {
        self.of_element(element, "GET", "text", None).await.as_str().unwrap().to_owned()
    }

    /// Waits until an element shows a text: a click does not always wait for the page that it leads to.
    pub(crate) async fn shows(&self, element: &str, text: &str) {
        let what = format!("{element} shows {text:?}");
        eventually(&what, async || {
            let answer = self.ask_element(element, "GET", "text", None).await;
            answer.is_ok_and(|shown| shown.as_str().unwrap().contains(text))
        })
        .await;
    }

    /// What a screen reader calls an element.
    pub(crate) async fn label(&self, element: &str) -> String {
        self.of_element(element, "GET", "computedlabel", None).await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn type_in(&self, element: &str, text: &str) {
        self.of_element(element, "POST", "clear", Some(json!({}))).await;
        self.of_element(element, "POST", "value", Some(json!({"text": text}))).await;
    }

    /// Clicks, and waits for the page that comes of it.
    pub(crate) async fn click(&self, element: &str) {
        self.of_element(element, "POST", "click", Some(json!({}))).await;
    }

    pub(crate) async fn has(&self, element: &str) -> bool {
        let found = json!({"using": "css selector", "value": element});
        let found = self.of_session("POST", "/elements", Some(found)).await;
        !found.as_array().unwrap().is_empty()
    }

    /// Ends the browser, and then its driver.
    pub(crate) async fn quit(mut self) {
        self.of_session("DELETE", "", None).await;
        self.driver.kill().await.unwrap();
    }

    async fn of_element(&self, element: &str, method: &str, what: &str, body: Option<Value>) -> Value {
        let answer = self.ask_element(element, method, what, body).await;
        answer.unwrap_or_else(|gone| panic!("{method} {element} {what}: {gone}"))
    }

    /// Asks an element; the driver's complaint where it is not there, or went with its page while it was asked.
    async fn ask_element(
        &self,
        element: &str,
        method: &str,
        what: &str,
        body: Option<Value>,
    ) -> Result<Value, Value> {
        let gone = |answer: Value| match answer["error"].as_str() {
            Some("no such element" | "stale element reference") => Err(answer),
            _ => Ok(answer),
        };
        let session = format!("/session/{}", self.session);
        let wanted = json!({"using": "css selector", "value": element});
        let found = gone(self.exchange("POST", &format!("{session}/element"), Some(wanted)).await)?;
        let id = found[ELEMENT].as_str().unwrap_or_else(|| panic!("{element}: {found}"));
        let path = format!("{session}/element/{id}/{what}");
        let answer = gone(self.exchange(method, &path, body).await)?;
        Ok(told(method, &path, answer))
    }

    async fn of_session(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        told(method, path, self.exchange(method, path, body).await)
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        // It keeps the connection open, whatever it is asked.
        let mut lines = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while lines.read_line(&mut line).await.unwrap() > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body).await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["value"].take()
    }
}

/// An answer that is none of the driver's complaints.
fn told(method: &str, path: &str, answer: Value) -> Value {
    assert!(answer.get("error").is_none(), "{method} {path}: {answer}");
    answer
}
