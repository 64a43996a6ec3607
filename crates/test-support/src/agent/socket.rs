//! A simulated agent on a real WebSocket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{SinkExt, StreamExt};
use tidegate_model::{Clock, Secret, SystemClock};
use tidegate_protocol::{Decoded, FromAgent, PongMessage, ToAgent};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{Behaviour, eventually_some};

/// How to connect.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// `ws://host:port`, without a path.
    pub url: String,
    /// The agent's name.
    pub handle: String,
    /// Its own key.
    pub key: Secret<String>,
    /// Whether it opens with `hello`; agents of seed A do not.
    pub hello: bool,
}

/// An agent on a socket, which answers by itself as its [`Behaviour`] says. Dropping it cuts the connection.
#[derive(Debug)]
pub struct SocketAgent {
    behaviour: Arc<Mutex<Behaviour>>,
    received: Arc<Mutex<Vec<ToAgent>>>,
    outgoing: mpsc::Sender<Message>,
    closed: watch::Receiver<Option<u16>>,
    task: JoinHandle<()>,
}

/// Frames that wait to be written.
const OUTGOING: usize = 1_024;
/// The code of a connection that ended without a closing handshake (RFC 6455, 7.1.5).
const ABNORMAL: u16 = 1_006;

impl SocketAgent {
    /// Connects; the error is the refusal before the upgrade, with its status and body.
    pub async fn connect(options: SocketOptions) -> Result<Self, tungstenite::Error> {
        Self::connect_as(options, Behaviour::default()).await
    }

    /// Connects as an agent that was there before.
    pub async fn connect_as(
        options: SocketOptions,
        behaviour: Behaviour,
    ) -> Result<Self, tungstenite::Error> {
        let target = format!("{}/api/v1/agents/connect?agent_id={}", options.url, options.handle);
        let mut request = target.into_client_request()?;
        let key = HeaderValue::from_str(options.key.expose()).map_err(tungstenite::http::Error::from)?;
        request.headers_mut().insert("X-Agent-API-Key", key);
        let (socket, _) = connect_async(request).await?;
        let (outgoing, queued) = mpsc::channel(OUTGOING);
        let (closing, closed) = watch::channel(None);
        if options.hello {
            let hello = FromAgent::Hello(behaviour.hello("boot-1"));
            outgoing.try_send(text(&hello)).expect("an empty queue has room");
        }
        let behaviour = Arc::new(Mutex::new(behaviour));
        let received = Arc::new(Mutex::new(Vec::new()));
        let serving = Serving { behaviour: Arc::clone(&behaviour), received: Arc::clone(&received) };
        let task = tokio::spawn(async move {
            closing.send_replace(Some(serving.run(socket, queued).await));
        });
        Ok(Self { behaviour, received, outgoing, closed, task })
    }

    /// How it behaves.
    pub fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        lock(&self.behaviour)
    }

    /// Everything it was told so far.
    pub fn received(&self) -> Vec<ToAgent> {
        lock(&self.received).clone()
    }

    /// Waits for the first thing it was told that `wanted` takes.
    pub async fn told<T>(&self, what: &str, wanted: impl Fn(&ToAgent) -> Option<T>) -> T {
        eventually_some(what, async || lock(&self.received).iter().find_map(&wanted)).await
    }

    /// Says something.
    pub async fn say(&self, message: &FromAgent) {
        self.send(text(message)).await;
    }

    /// Sends any frame at all.
    pub async fn send(&self, frame: Message) {
        self.outgoing.send(frame).await.expect("the connection stands");
    }

    /// Says what it held back since [`Behaviour::hold`].
    pub async fn release(&self) {
        let held = self.behaviour().release();
        for message in held {
            self.say(&message).await;
        }
    }

    /// Waits for the end of the connection: its close code, 1006 when it was cut.
    pub async fn closed(&self) -> u16 {
        let mut closed = self.closed.clone();
        eventually_some("the end of the connection", async || *closed.borrow_and_update()).await
    }

    /// Cuts the connection without a word, and returns the agent's memory for its next one.
    pub fn cut(self) -> Behaviour {
        self.task.abort();
        let behaviour = Arc::clone(&self.behaviour);
        drop(self);
        let mut guard = lock(&behaviour);
        std::mem::take(&mut *guard)
    }
}

impl Drop for SocketAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked has failed already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(message: &FromAgent) -> Message {
    Message::text(message.encode(SystemClock::new().now()))
}

struct Serving {
    behaviour: Arc<Mutex<Behaviour>>,
    received: Arc<Mutex<Vec<ToAgent>>>,
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

impl Serving {
    /// Serves the socket to its end, and returns the close code.
    async fn run(self, socket: Socket, mut queued: mpsc::Receiver<Message>) -> u16 {
        let (mut sink, mut stream) = socket.split();
        loop {
            let frame = tokio::select! {
                frame = stream.next() => frame,
                Some(frame) = queued.recv() => {
                    if sink.send(frame).await.is_err() { return ABNORMAL }
                    continue;
                }
            };
            match frame {
                Some(Ok(Message::Text(frame))) => {
                    for message in self.hear(&frame) {
                        if sink.send(text(&message)).await.is_err() {
                            return ABNORMAL;
                        }
                    }
                }
                Some(Ok(Message::Close(close))) => {
                    // The other half of the closing handshake is written by the library when it is flushed.
                    drop(sink.flush().await);
                    return close.map_or(1_005, |close| close.code.into());
                }
                Some(Ok(_)) => drop(sink.flush().await),
                Some(Err(_)) | None => return ABNORMAL,
            }
        }
    }

    fn hear(&self, frame: &str) -> Vec<FromAgent> {
        let Ok(Decoded::Message(message)) = ToAgent::decode(frame) else { panic!("{frame} is no message") };
        lock(&self.received).push(message.clone());
        match message {
            ToAgent::Command(command) => lock(&self.behaviour).answer(&command),
            ToAgent::Ping(_) => vec![FromAgent::Pong(PongMessage::default())],
            ToAgent::Shutdown(_) | ToAgent::TunnelOpen(_) | ToAgent::Welcome(_) => Vec::new(),
        }
    }
}
