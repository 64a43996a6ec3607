//! Reading what is typed.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::detach::Detector;
use crate::args::DetachKeys;

/// Pieces that wait for a slow session. When they are full reading stops: a paste is never cut short.
const PIECES: usize = 64;
/// Longest piece.
const PIECE: usize = 8 * 1024;

/// What is typed, read by a thread of its own.
///
/// A read of a terminal cannot be called off, so the thread ends at the detach keys, at the end of input, or with the
/// program.
#[derive(Debug)]
pub(crate) struct Keyboard {
    pieces: mpsc::Receiver<Bytes>,
    detached: watch::Receiver<bool>,
}

impl Keyboard {
    /// Begins to read. Detach keys are looked for where a person types them.
    pub(crate) fn start(keys: Option<&DetachKeys>) -> io::Result<Self> {
        let (to_session, pieces) = mpsc::channel(PIECES);
        let (detach, detached) = watch::channel(false);
        let detector = Detector::new(keys.map_or(&[], DetachKeys::bytes));
        std::thread::Builder::new()
            .name("keyboard".to_owned())
            .spawn(move || read(io::stdin().lock(), detector, &to_session, &detach))?;
        Ok(Self { pieces, detached })
    }

    /// The next piece; never anything after the end of input. May be dropped without losing one.
    pub(crate) async fn next(&mut self) -> Bytes {
        match self.pieces.recv().await {
            Some(piece) => piece,
            None => std::future::pending().await,
        }
    }

    /// Waits for the detach keys.
    pub(crate) fn detached(&self) -> impl Future<Output = ()> + 'static {
        let mut detached = self.detached.clone();
        async move {
            if detached.wait_for(|&detached| detached).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn read(
    mut input: impl Read,
    mut detector: Detector,
    to_session: &mpsc::Sender<Bytes>,
    detach: &watch::Sender<bool>,
) {
    let mut buffer = [0; PIECE];
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let typed = detector.feed(&buffer[..length]);
        if !typed.bytes.is_empty() && to_session.blocking_send(typed.bytes.into()).is_err() {
            return;
        }
        if typed.detached {
            detach.send_replace(true);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_before_the_detach_keys_is_sent() {
        let (to_session, mut pieces) = mpsc::channel(PIECES);
        let (detach, detached) = watch::channel(false);
        read(&b"exit\r\x1dmore"[..], Detector::new(b"\x1d"), &to_session, &detach);
        assert_eq!(pieces.try_recv().unwrap(), &b"exit\r"[..]);
        assert!(pieces.try_recv().is_err());
        assert!(*detached.borrow());
    }
}
