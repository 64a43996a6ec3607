//! A viewer of desktops on a WebSocket: RFB as far as asking for pictures goes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Bytes, Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    fleet::Socket,
    served::{GREETING, PIXEL, WELCOME, picture},
    stats::mebibytes,
};

/// Longest wait for what was asked for.
const PATIENCE: Duration = Duration::from_secs(30);
/// A picture of throughput: just under a mebibyte.
const LARGE: (u16, u16) = (640, 400);
/// Pictures that are asked for before the first one is there.
const AHEAD: usize = 4;

/// A desktop that is watched.
#[derive(Debug)]
pub(crate) struct Desktop(Socket);

impl Desktop {
    /// Greets the server at the other end of a socket.
    pub(crate) async fn greet(socket: Socket) -> anyhow::Result<Self> {
        let mut desktop = Self(socket);
        desktop.send(Bytes::from_static(GREETING)).await?;
        desktop.take(WELCOME).await?;
        Ok(desktop)
    }

    /// One behind `websockify`.
    pub(crate) async fn behind(address: SocketAddr) -> anyhow::Result<Self> {
        let mut request = format!("ws://{address}/").into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("binary"));
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async(request, stream).await.context("websockify refused a WebSocket")?;
        Self::greet(socket).await
    }

    async fn send(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        Ok(self.0.send(Message::Binary(bytes)).await?)
    }

    /// Reads so many bytes.
    async fn take(&mut self, mut left: usize) -> anyhow::Result<()> {
        while left > 0 {
            let frame = timeout(PATIENCE, self.0.next()).await.context("a desktop says nothing")?;
            match frame.context("a desktop was cut")?? {
                Message::Binary(bytes) => {
                    left =
                        left.checked_sub(bytes.len()).context("a desktop says more than it was asked for")?;
                }
                Message::Close(why) => bail!("a desktop was closed: {why:?}"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks for one pixel and waits for it.
    pub(crate) async fn pixel(&mut self) -> anyhow::Result<Duration> {
        let asked = Instant::now();
        self.send(Bytes::copy_from_slice(&picture(1, 1))).await?;
        self.take(PIXEL).await?;
        Ok(asked.elapsed())
    }

    /// Asks for `count` large pictures, and takes none of them.
    pub(crate) async fn turn_away(&mut self, count: usize) -> anyhow::Result<()> {
        self.send(Bytes::from(picture(LARGE.0, LARGE.1).repeat(count))).await
    }

    /// MiB a second of large pictures.
    pub(crate) async fn pictures(&mut self, length: Duration) -> anyhow::Result<f64> {
        let ask = picture(LARGE.0, LARGE.1);
        let size = 16 + 4 * usize::from(LARGE.0) * usize::from(LARGE.1);
        self.send(Bytes::from(ask.repeat(AHEAD))).await?;
        let (started, mut asked, mut seen) = (Instant::now(), AHEAD, 0_usize);
        let mut rest = 0;
        while seen < asked {
            // The end of one picture and the beginning of the next come in one frame.
            let frame = timeout(PATIENCE, self.0.next()).await.context("a desktop says nothing")?;
            match frame.context("a desktop was cut")?? {
                Message::Binary(bytes) => rest += bytes.len(),
                Message::Close(why) => bail!("a desktop was closed: {why:?}"),
                _ => {}
            }
            while rest >= size {
                rest -= size;
                seen += 1;
                if started.elapsed() < length {
                    self.send(Bytes::copy_from_slice(&ask)).await?;
                    asked += 1;
                }
            }
        }
        Ok(mebibytes((seen * size) as u64, started.elapsed()))
    }
}
