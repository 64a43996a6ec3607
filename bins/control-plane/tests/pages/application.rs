//! A web application on an origin of its own, played by the test: a form brings the ticket, the frame shows what comes.

use serde_json::json;
use tidegate_test_support::eventually_some;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    browser::{WITH_SCRIPTS, with_browser},
    stage::{Stage, Theatre},
};

/// Where applications live; what it was asked is handed on.
async fn content() -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/enter", listener.local_addr().unwrap().port());
    let (asked, asks) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                // The body of a form comes with its head or right after it.
                while !request.windows(4).any(|four| four == b"\r\n\r\n")
                    || (request.starts_with(b"POST") && !request.windows(7).any(|seven| seven == b"ticket="))
                {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let request = String::from_utf8(request).unwrap();
                let answer = if request.starts_with("POST /enter") {
                    "HTTP/1.1 303 See Other\r\nLocation: /app\r\nSet-Cookie: app=1; Path=/\r\nContent-Length: 0\r\n\r\n".to_owned()
                } else {
                    let page = "<title>app</title><p id=app>the application</p>\
                        <script>try { top.location = 'https://evil.example/' } catch { document.body.append(' kept in') }</script>";
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
                        page.len()
                    )
                };
                drop(stream.write_all(answer.as_bytes()).await);
                drop(asked.send(request).await);
            });
        }
    });
    (url, asks)
}

#[tokio::test]
async fn an_application_is_entered_by_a_form_and_stays_in_its_frame() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let _theatre = Theatre::new(&stage).await;
        let id = stage.running(json!({"template": "shell", "name": "pond"})).await;
        let (url, mut asks) = content().await;
        stage.log_in(browser, "/home").await;
        browser.pretend("http", json!({"url": url})).await;
        browser.open(&stage.url(&format!("/sessions/{id}"))).await;
        let entered = asks.recv().await.unwrap();
        assert!(entered.starts_with("POST /enter HTTP/1.1\r\n"), "no ticket in the address: {entered}");
        assert!(entered.contains("\r\n\r\nticket="), "{entered}");
        let frame = "const f = document.querySelector('#stage iframe'); return f && [f.title, f.sandbox.value]";
        let frame = browser.run(frame).await;
        assert_eq!(frame[0], "Application of pond");
        let rights = frame[1].as_str().unwrap();
        assert!(rights.contains("allow-same-origin") && !rights.contains("top-navigation"), "{rights}");
        eventually_some("the application is shown and kept in", async || {
            let text = browser.text_in_frame("body").await?;
            (text.contains("the application") && text.contains("kept in")).then_some(())
        })
        .await;
        browser.shot("application").await;
        assert!(browser.url().await.contains(&id), "the page is still the platform's");
        // Asked for again with a ticket of its own.
        while let Ok(ask) = asks.try_recv() {
            assert!(!ask.starts_with("POST"), "{ask}");
        }
        browser.run("[...document.querySelectorAll('#tools button')].find(b => b.textContent === 'Load again').click()").await;
        let again = loop {
            let ask = asks.recv().await.unwrap();
            if ask.starts_with("POST") {
                break ask;
            }
        };
        assert_ne!(again.split_once("ticket=").unwrap().1, entered.split_once("ticket=").unwrap().1);

        // The session sleeps, and its frame goes.
        let path = format!("/api/v1/sessions/{id}/hibernate");
        stage.world.call("PUT", &path, &stage.token, None).await;
        browser.shows("#panel", "Asleep").await;
        assert!(!browser.has("#stage iframe").await);
    })
    .await;
}

#[tokio::test]
async fn on_the_platforms_own_origin_an_application_is_shut_in() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let _theatre = Theatre::new(&stage).await;
        let id = stage.running(json!({"template": "shell"})).await;
        stage.log_in(browser, "/home").await;
        browser.pretend("http", json!({"url": stage.url("/healthz")})).await;
        browser.open(&stage.url(&format!("/sessions/{id}"))).await;
        browser.shows("#banner", "cookies, storage, sign-in and WebSockets may not work").await;
        let rights = browser.attribute("#stage iframe", "sandbox").await.unwrap();
        assert!(!rights.contains("allow-same-origin"), "{rights}");
        browser.shot("shut-in").await;
    })
    .await;
}
