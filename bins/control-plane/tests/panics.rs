//! A handler that panics ends its own request and nothing else.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]

use std::sync::Arc;

use actix_web::{App, HttpResponse, HttpServer, middleware::from_fn, web};
use serde_json::Value;
use tidegate_control_plane::http;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

async fn ask(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_panic_is_500_in_the_one_shape_and_its_neighbours_live_on() {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (seen, wait) = (Arc::clone(&arrived), Arc::clone(&go_on));
    let app = move || {
        let (seen, wait) = (Arc::clone(&seen), Arc::clone(&wait));
        let slow = move || {
            let (seen, wait) = (Arc::clone(&seen), Arc::clone(&wait));
            async move {
                seen.notify_one();
                wait.notified().await;
                HttpResponse::Ok().body("slow and whole")
            }
        };
        App::new()
            .wrap(from_fn(http::envelope))
            .route("/slow", web::get().to(slow))
            .route("/panic", web::get().to(async || -> HttpResponse { panic!("the cellar is flooded") }))
    };
    // One worker: what panics shares its thread with everybody.
    let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    let serving = tokio::spawn(server);
    let neighbour = tokio::spawn(ask(address, "/slow"));
    arrived.notified().await;
    for _ in 0..3 {
        let answer = ask(address, "/panic").await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(!answer.contains("cellar"), "what a panic says is for the log: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "E_INTERNAL");
        let id = body["error"]["requestId"].as_str().unwrap();
        assert!(!id.is_empty() && head.to_lowercase().contains(&format!("x-request-id: {id}")), "{head}");
    }
    go_on.notify_one();
    assert!(neighbour.await.unwrap().ends_with("slow and whole"));
    handle.stop(true).await;
    serving.await.unwrap().unwrap();
}
