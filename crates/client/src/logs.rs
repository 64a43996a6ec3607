//! What a session printed, as bytes, surviving a lost connection.

use bytes::Bytes;
use reqwest::{Response, header::HeaderName};
use tidegate_model::SessionId;

use crate::{Client, Error, call::Call};

/// The header with the absolute offset of an answer's first byte.
const OFFSET: HeaderName = HeaderName::from_static("tidegate-offset");
/// Failures in a row after which a follower gives up: about half a minute with the default backoff.
const FAILURES: u32 = 8;

/// A piece of a session's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// How many bytes the session printed before these. Where it is past the end of the chunk before, the bytes
    /// between are no longer kept.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// A session's output, read piece by piece. Made by [`Client::logs`].
#[derive(Debug)]
pub struct Logs {
    client: Client,
    id: SessionId,
    follow: bool,
    offset: u64,
    body: Option<Response>,
    failures: u32,
}

impl Client {
    /// `GET sessions/{id}/logs`: what the session printed after its first `after` bytes. With `follow` it goes on until
    /// the program ends. A connection that is cut is opened again where it broke.
    pub async fn logs(&self, id: SessionId, after: u64, follow: bool) -> Result<Logs, Error> {
        let (body, offset) = self.open_logs(id, after, follow).await?;
        Ok(Logs { client: self.clone(), id, follow, offset, body: Some(body), failures: 0 })
    }

    async fn open_logs(&self, id: SessionId, after: u64, follow: bool) -> Result<(Response, u64), Error> {
        let call = Call::get(&["sessions", &id.to_string(), "logs"])
            .query("after", after.to_string())
            .query("follow", follow.to_string())
            .streaming();
        let response = self.send(&call).await?;
        let offset = response
            .headers()
            .get(OFFSET)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .unwrap_or(after);
        Ok((response, offset))
    }
}

impl Logs {
    /// How many bytes the session had printed at the end of the last chunk: `after` for a reader that goes on later.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece; `None` when there is no more. May be dropped and called again without losing bytes.
    pub async fn next(&mut self) -> Result<Option<LogChunk>, Error> {
        loop {
            let Some(body) = &mut self.body else {
                self.resume().await?;
                continue;
            };
            match body.chunk().await {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    self.failures = 0;
                    let offset = self.offset;
                    self.offset += bytes.len() as u64;
                    return Ok(Some(LogChunk { offset, bytes }));
                }
                Err(error) => {
                    self.body = None;
                    self.failed(self.client.transport(error))?;
                }
            }
        }
    }

    async fn resume(&mut self) -> Result<(), Error> {
        tokio::time::sleep(self.client.wait_before(self.failures)).await;
        match self.client.open_logs(self.id, self.offset, self.follow).await {
            Ok((body, offset)) => {
                self.body = Some(body);
                // An older offset would be bytes that were already given: a server that ignores `after` is not
                // believed.
                self.offset = self.offset.max(offset);
                Ok(())
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        if error.is_passing() && self.failures < FAILURES { Ok(()) } else { Err(error) }
    }
}
