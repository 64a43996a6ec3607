//! Streams: a session's output and its terminal.

use crate::fake::{Fake, Reply, Request};
use futures_util::{SinkExt, StreamExt};
use tidegate_client::{CloseReason, StatusCode, TerminalEvent, TerminalInput};
use tidegate_model::{SessionId, StreamMode};
use tidegate_protocol::TerminalFrame;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

fn id() -> SessionId {
    "01970000-0000-7000-8000-000000000001".parse().unwrap()
}

fn chunks(offset: u64, chunks: &[&str], whole: bool) -> Reply {
    Reply::Chunks {
        headers: vec![format!("tidegate-offset: {offset}")],
        chunks: chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect(),
        whole,
    }
}

#[tokio::test]
async fn a_log_that_is_cut_goes_on_where_it_broke() {
    let mut asked = 0;
    let server = Fake::start(move |_: &Request| {
        asked += 1;
        match asked {
            1 => chunks(10, &["abc", "de"], false),
            2 => Reply::refusal("503 Service Unavailable", "E_AGENT_OFFLINE"),
            _ => chunks(15, &["fgh"], true),
        }
    })
    .await;
    let mut logs = server.client().logs(id(), 10, true).await.unwrap();
    let mut text = Vec::new();
    while let Some(chunk) = logs.next().await.unwrap() {
        assert_eq!(chunk.offset, 10 + text.len() as u64);
        text.extend_from_slice(&chunk.bytes);
    }
    assert_eq!((text.as_slice(), logs.offset()), (&b"abcdefgh"[..], 18));
    let asked: Vec<String> =
        server.lines().iter().map(|line| line.split_once('?').unwrap().1.to_owned()).collect();
    assert_eq!(asked, ["after=10&follow=true", "after=15&follow=true", "after=15&follow=true"]);
}

#[tokio::test]
async fn a_log_whose_beginning_is_gone_says_so_by_its_offset() {
    let server = Fake::start(|_: &Request| chunks(4_096, &["late"], true)).await;
    let mut logs = server.client().logs(id(), 0, false).await.unwrap();
    let chunk = logs.next().await.unwrap().unwrap();
    assert_eq!((chunk.offset, &chunk.bytes[..]), (4_096, &b"late"[..]));
    assert_eq!(logs.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_log_of_an_agent_that_stays_away_is_given_up() {
    let mut asked = 0;
    let server = Fake::start(move |_: &Request| {
        asked += 1;
        if asked == 1 {
            chunks(0, &["a"], false)
        } else {
            Reply::refusal("503 Service Unavailable", "E_AGENT_OFFLINE")
        }
    })
    .await;
    let mut logs = server.client().logs(id(), 0, true).await.unwrap();
    logs.next().await.unwrap();
    assert_eq!(logs.next().await.unwrap_err().status(), Some(StatusCode::SERVICE_UNAVAILABLE));
}

/// A server whose terminal says `messages`, then waits for one message and leaves with `close`.
async fn terminal_server(messages: Vec<Message>, close: Option<CloseCode>) -> Fake {
    let mut script = Some((messages, close));
    Fake::start(move |_: &Request| match script.take() {
        Some((messages, close)) => Reply::Upgrade(Box::new(move |stream, request| {
            Box::pin(async move { play(stream, &request, messages, close).await })
        })),
        None => Reply::HangUp,
    })
    .await
}

async fn play(mut stream: TcpStream, request: &Request, messages: Vec<Message>, close: Option<CloseCode>) {
    assert_eq!(request.header("authorization"), "Bearer first");
    let accept = derive_accept_key(request.header("sec-websocket-key").as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    for message in messages {
        socket.send(message).await.unwrap();
    }
    let Some(code) = close else { return };
    let echo = socket.next().await.unwrap().unwrap();
    socket.send(echo).await.unwrap();
    socket.close(Some(CloseFrame { code, reason: "over".into() })).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn a_terminal_carries_bytes_and_frames_and_tells_why_it_closed() {
    let said = vec![
        Message::text(r#"{"type":"mode","mode":"control"}"#),
        Message::text(r#"{"type":"from the future"}"#),
        Message::binary(&b"hello"[..]),
    ];
    let server = terminal_server(said, Some(CloseCode::Restart)).await;
    let mut terminal = server.client().terminal(id(), StreamMode::Control).await.unwrap();
    terminal.send(TerminalInput::Bytes("typed".into())).await.unwrap();
    let events: Vec<TerminalEvent> = terminal.map(Result::unwrap).collect().await;
    let over = CloseReason { code: 1012, reason: "over".to_owned() };
    assert!(over.may_reattach());
    assert_eq!(
        events,
        [
            TerminalEvent::Frame(TerminalFrame::Mode { mode: StreamMode::Control }),
            TerminalEvent::Bytes("hello".into()),
            TerminalEvent::Bytes("typed".into()),
            TerminalEvent::Closed(over),
        ]
    );
}

#[tokio::test]
async fn a_terminal_of_an_ended_program_closes_normally_after_its_exit() {
    let said = vec![Message::text(r#"{"type":"exit","code":3}"#)];
    let server = terminal_server(said, Some(CloseCode::Normal)).await;
    let mut terminal = server.client().terminal(id(), StreamMode::View).await.unwrap();
    let resize = TerminalFrame::Resize { cols: 80, rows: 24 };
    terminal.send(TerminalInput::Frame(resize)).await.unwrap();
    let events: Vec<TerminalEvent> = terminal.map(Result::unwrap).collect().await;
    assert_eq!(events[0], TerminalEvent::Frame(TerminalFrame::Exit { code: 3, signal: None }));
    let TerminalEvent::Closed(reason) = events.last().unwrap() else { panic!("{events:?}") };
    assert_eq!((reason.code, reason.may_reattach()), (CloseReason::NORMAL, false));
    assert!(server.lines()[0].ends_with("/terminal?mode=view"));
}

#[tokio::test]
async fn a_terminal_whose_connection_is_lost_may_be_opened_again() {
    let server = terminal_server(vec![Message::binary(&b"half a scr"[..])], None).await;
    let terminal = server.client().terminal(id(), StreamMode::Control).await.unwrap();
    let events: Vec<TerminalEvent> = terminal.map(Result::unwrap).collect().await;
    let TerminalEvent::Closed(reason) = events.last().unwrap() else { panic!("{events:?}") };
    assert_eq!((reason.code, reason.may_reattach()), (CloseReason::LOST, true));
}

#[tokio::test]
async fn a_terminal_that_is_refused_says_why() {
    let server = Fake::start(|_: &Request| Reply::refusal("409 Conflict", "E_WRONG_STATE")).await;
    let error = server.client().terminal(id(), StreamMode::Control).await.unwrap_err();
    assert_eq!(error.api().unwrap().code, "E_WRONG_STATE");
}
