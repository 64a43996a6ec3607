//! What waits to be written to one agent: in order, bounded in bytes.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{CloseReason, Frame, guard::lock};

/// The queue takes nothing more: the agent does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Whether taking a frame out made room for new commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// From here on there is room again.
    Now,
    /// Nothing changed.
    No,
}

/// Frames and their bytes.
#[derive(Debug)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    limit: usize,
    /// When the agent last proved that it reads, or the first waiting frame came.
    moved: Instant,
}

impl Queue {
    const fn new(limit: usize, now: Instant) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, limit, moved: now }
    }

    /// Takes all or none. The bound is looked at before, not after: one batch may pass it, so that a queue which has
    /// room takes what was claimed for it, however much that is.
    fn push(&mut self, frames: impl IntoIterator<Item = Frame>, now: Instant) -> Result<(), Full> {
        if self.bytes >= self.limit {
            return Err(Full);
        }
        if self.frames.is_empty() {
            self.moved = now;
        }
        for frame in frames {
            self.bytes += frame.weight();
            self.frames.push_back(frame);
        }
        Ok(())
    }

    fn pop(&mut self, now: Instant) -> Option<(Frame, Drained)> {
        let had_room = self.has_room();
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.weight();
        self.moved = now;
        if self.frames.is_empty() && self.frames.capacity() > 16 {
            // A burst must not be remembered by every idle connection.
            self.frames = VecDeque::new();
        }
        Some((frame, if !had_room && self.has_room() { Drained::Now } else { Drained::No }))
    }

    /// Whether commands may be claimed for it: it is at most half full.
    const fn has_room(&self) -> bool {
        self.bytes <= self.limit / 2
    }

    fn stalled(&self, now: Instant) -> Duration {
        if self.frames.is_empty() { Duration::ZERO } else { now.saturating_duration_since(self.moved) }
    }
}

/// The queue, shared between those who send and the one who writes, and the order to close.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    reason: Mutex<Option<CloseReason>>,
    closing: CancellationToken,
}

impl Outbox {
    pub(crate) fn new(limit: usize, now: Instant) -> Self {
        Self {
            queue: Mutex::new(Queue::new(limit, now)),
            filled: Notify::new(),
            reason: Mutex::new(None),
            closing: CancellationToken::new(),
        }
    }

    /// Queues frames. When they do not fit the connection is told to close: what is not sent stays open in the
    /// database and is claimed again by the agent's next connection.
    pub(crate) fn push(&self, frames: impl IntoIterator<Item = Frame>) -> Result<(), Full> {
        let pushed = lock(&self.queue).push(frames, Instant::now());
        match pushed {
            Ok(()) => self.filled.notify_one(),
            Err(Full) => self.close(CloseReason::OutboundFull),
        }
        pushed
    }

    pub(crate) fn pop(&self) -> Option<(Frame, Drained)> {
        lock(&self.queue).pop(Instant::now())
    }

    /// Waits until there is something to write. One waiter at a time.
    pub(crate) async fn filled(&self) {
        while lock(&self.queue).frames.is_empty() {
            self.filled.notified().await;
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        lock(&self.queue).has_room()
    }

    /// For how long frames have waited without one of them being taken.
    pub(crate) fn stalled(&self, now: Instant) -> Duration {
        lock(&self.queue).stalled(now)
    }

    /// Orders the connection to close; the first reason stands.
    pub(crate) fn close(&self, reason: CloseReason) {
        lock(&self.reason).get_or_insert(reason);
        self.closing.cancel();
    }

    /// Waits for the order to close.
    pub(crate) async fn closed(&self) -> CloseReason {
        self.closing.cancelled().await;
        lock(&self.reason).unwrap_or(CloseReason::Failed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::Binary(Bytes::from(vec![0; bytes - Frame::OVERHEAD]))
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_not_in_frames() {
        let now = Instant::now();
        let mut queue = Queue::new(1_000, now);
        for _ in 0..10 {
            queue.push([frame(100)], now).unwrap();
        }
        assert_eq!(queue.push([frame(64)], now), Err(Full));
        queue.pop(now).unwrap();
        queue.push([frame(64)], now).unwrap();
    }

    #[test]
    fn a_batch_that_was_claimed_for_a_queue_with_room_is_taken_whole() {
        let now = Instant::now();
        let mut queue = Queue::new(1_000, now);
        queue.push((0..50).map(|_| frame(100)), now).unwrap();
        assert!(!queue.has_room());
        assert_eq!(queue.push([frame(64)], now), Err(Full));
    }

    #[test]
    fn room_is_announced_once_when_half_is_free_again() {
        let now = Instant::now();
        let mut queue = Queue::new(400, now);
        queue.push((0..4).map(|_| frame(100)), now).unwrap();
        let drained: Vec<Drained> =
            std::iter::from_fn(|| queue.pop(now)).map(|(_, drained)| drained).collect();
        assert_eq!(drained, [Drained::No, Drained::Now, Drained::No, Drained::No]);
    }

    #[test]
    fn a_queue_that_nobody_reads_is_stalled_and_an_empty_one_never() {
        let now = Instant::now();
        let later = now + Duration::from_mins(1);
        let mut queue = Queue::new(400, now);
        assert_eq!(queue.stalled(later), Duration::ZERO);
        queue.push([frame(100), frame(100)], later).unwrap();
        assert_eq!(queue.stalled(later), Duration::ZERO);
        assert_eq!(queue.stalled(later + Duration::from_secs(9)), Duration::from_secs(9));
        queue.pop(later + Duration::from_secs(9)).unwrap();
        assert_eq!(queue.stalled(later + Duration::from_secs(9)), Duration::ZERO);
    }

    #[tokio::test]
    async fn an_agent_that_does_not_read_is_closed_and_the_first_reason_stands() {
        let outbox = Outbox::new(100, Instant::now());
        outbox.push([frame(100)]).unwrap();
        assert_eq!(outbox.push([frame(100)]), Err(Full));
        outbox.close(CloseReason::Shutdown);
        assert_eq!(outbox.closed().await, CloseReason::OutboundFull);
    }
}
