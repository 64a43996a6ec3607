//! The script server's end of a terminal.

use futures_util::{SinkExt, StreamExt};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use crate::fake::{Reply, Request};

/// What a terminal does, in order.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Says something.
    Say(Message),
    /// Waits for these bytes.
    Hear(&'static str),
    /// Waits for the viewer to go away.
    Wait,
    /// Closes.
    Close(CloseCode),
}

/// An upgrade that plays `steps`; without a close at their end the connection is cut.
pub(crate) fn terminal(steps: Vec<Step>) -> Reply {
    Reply::Upgrade(Box::new(move |stream, request| {
        Box::pin(async move { play(stream, &request, steps).await })
    }))
}

async fn play(mut stream: TcpStream, request: &Request, steps: Vec<Step>) {
    let accept = derive_accept_key(request.header("sec-websocket-key").as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    for step in steps {
        match step {
            Step::Say(message) => socket.send(message).await.unwrap(),
            Step::Hear(text) => {
                let mut so_far = Vec::new();
                while so_far != text.as_bytes() {
                    if let Message::Binary(bytes) = socket.next().await.unwrap().unwrap() {
                        so_far.extend_from_slice(&bytes);
                    }
                }
            }
            Step::Wait => while let Some(Ok(_)) = socket.next().await {},
            Step::Close(code) => {
                socket.close(Some(CloseFrame { code, reason: "over".into() })).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
            }
        }
    }
}
