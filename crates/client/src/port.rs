//! A TCP port of a session: a WebSocket as plain bytes both ways.

use std::io;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tidegate_model::SessionId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{Client, Error, call::Call};

/// Bytes of one message.
const CHUNK: usize = 32 * 1024;

impl Client {
    /// `GET sessions/{id}/ports/{port}`, upgraded: connects to a TCP port of a running session and moves bytes both ways
    /// until either side ends. Refused with 409 when it does not run or nothing of it listens there.
    pub async fn forward_port(
        &self,
        id: SessionId,
        port: u16,
        local: impl AsyncRead + AsyncWrite,
    ) -> Result<(), Error> {
        let call = Call::get(&["sessions", &id.to_string(), "ports", &port.to_string()]);
        let (mut to_session, mut from_session) = self.socket(call).await?.split();
        let (mut from_local, mut to_local) = tokio::io::split(local);
        let outward = async {
            let mut buffer = vec![0; CHUNK];
            while let Ok(length @ 1..) = from_local.read(&mut buffer).await {
                to_session.send(Message::Binary(Bytes::copy_from_slice(&buffer[..length]))).await?;
            }
            Ok::<_, Error>(())
        };
        let inward = async {
            while let Some(message) = from_session.next().await {
                match message {
                    Ok(Message::Binary(bytes)) => {
                        if to_local.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                    Ok(Message::Close(_)) => break,
                    Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                    Err(error) => return Err(Error::from(error)),
                }
            }
            let _: io::Result<()> = to_local.shutdown().await;
            Ok(())
        };
        // Whoever has nothing more to say may still be answered: the session's end is the end.
        let (outward, inward) = (std::pin::pin!(outward), std::pin::pin!(inward));
        let first = futures_util::future::select(outward, inward).await;
        match first {
            futures_util::future::Either::Left((said, inward)) => {
                said?;
                inward.await
            }
            futures_util::future::Either::Right((heard, _)) => heard,
        }
    }
}
