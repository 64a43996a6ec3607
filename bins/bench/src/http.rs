//! HTTP/1.1 on a kept connection, as little as loading a server needs: the load generator shares the machine with what
//! it loads, and what it spends it takes from it.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest answer taken.
const LONGEST: usize = 1024 * 1024;

/// A request as it goes over the wire, made once and sent often.
pub(crate) fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}{content}\r\n{body}").into_bytes()
}

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What the server said.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("nobody listens at {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(8 * 1024) })
    }

    /// Sends one request and reads its answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        let (status, body, length) = self.begin(request).await?;
        let end = body + length;
        while self.buffer.len() < end {
            self.more().await?;
        }
        Ok(Answer { status, head: &self.buffer[..body], body: &self.buffer[body..end] })
    }

    /// Sends one request and throws the body of its answer away, however long it is. Returns status and length.
    pub(crate) async fn drain(&mut self, request: &[u8]) -> anyhow::Result<(u16, u64)> {
        // As much as is read at once, and no more each time.
        self.buffer.clear();
        self.buffer.reserve(64 * 1024);
        let (status, body, length) = self.begin(request).await?;
        let mut left = length - (self.buffer.len() - body).min(length);
        while left > 0 {
            self.buffer.clear();
            self.more().await?;
            left -= self.buffer.len().min(left);
        }
        Ok((status, length as u64))
    }

    /// Sends a request and reads until its answer's head is there: status, where the body begins, how long it is.
    async fn begin(&mut self, request: &[u8]) -> anyhow::Result<(u16, usize, usize)> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        loop {
            if let Some(found) = head(&self.buffer)? {
                return Ok(found);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("a connection was closed in the middle of an answer");
        }
        if self.buffer.len() > LONGEST {
            bail!("an answer is longer than {LONGEST} bytes");
        }
        Ok(())
    }
}

/// Status, where the body begins and how long it is, once the head is there.
fn head(buffer: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&buffer[..end]).context("an answer's head is no text")?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).context("an answer has no status")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Ok(Some((status, end + 4, length.context("an answer has no length")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_head_says_where_its_body_is() {
        let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(head(answer).unwrap(), Some((202, 44, 2)));
        assert_eq!(head(&answer[..30]).unwrap(), None);
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
