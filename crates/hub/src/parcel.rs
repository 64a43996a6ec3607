//! A channel bounded in bytes: a sender waits until what it brings fits. Its waiting is what pauses the reading of a
//! socket, so that TCP slows the peer down.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What was sent, with its share of the bound. Keep it until the content has left this process.
#[derive(Debug)]
pub(crate) struct Parcel<T> {
    pub(crate) content: T,
    pub(crate) share: OwnedSemaphorePermit,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    parcels: mpsc::UnboundedSender<Parcel<T>>,
    room: Arc<Semaphore>,
    bound: u32,
}

// By hand: a derive would ask `T: Clone`.
impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { parcels: self.parcels.clone(), room: Arc::clone(&self.room), bound: self.bound }
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    parcels: mpsc::UnboundedReceiver<Parcel<T>>,
    room: Arc<Semaphore>,
}

/// The receiver is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// A channel in which at most `bound` bytes are on their way.
pub(crate) fn channel<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let bound = u32::try_from(bound).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new(bound as usize));
    // Unbounded in parcels, bounded by the room: no parcel enters without its share.
    let (sender, receiver) = mpsc::unbounded_channel();
    (Sender { parcels: sender, room: Arc::clone(&room), bound }, Receiver { parcels: receiver, room })
}

impl<T> Sender<T> {
    /// Waits for room, first come first served. What is larger than the bound waits until it is alone.
    pub(crate) async fn send(&self, content: T, weight: usize) -> Result<(), Gone> {
        let weight = u32::try_from(weight).unwrap_or(u32::MAX).clamp(1, self.bound);
        let share = Arc::clone(&self.room).acquire_many_owned(weight).await.map_err(|_| Gone)?;
        self.parcels.send(Parcel { content, share }).map_err(|_| Gone)
    }
}

impl<T> Receiver<T> {
    /// The next parcel; `None` when every sender is gone and nothing is left.
    pub(crate) async fn recv(&mut self) -> Option<Parcel<T>> {
        self.parcels.recv().await
    }

    /// The next parcel, if it is there already.
    pub(crate) fn try_recv(&mut self) -> Option<Parcel<T>> {
        self.parcels.try_recv().ok()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Wakes senders that wait for room nobody will make.
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_sender_waits_until_what_it_brings_fits() {
        let (sender, mut receiver) = channel(100);
        sender.send('a', 60).await.unwrap();
        let mut second = Box::pin(sender.send('b', 60));
        assert_eq!(second.as_mut().now_or_never(), None);
        let first = receiver.recv().await.unwrap();
        assert_eq!(second.as_mut().now_or_never(), None, "taken out, but not yet let go");
        drop(first);
        second.await.unwrap();
        assert_eq!(receiver.try_recv().map(|parcel| parcel.content), Some('b'));
    }

    #[tokio::test]
    async fn what_is_larger_than_the_bound_goes_alone() {
        let (sender, mut receiver) = channel(100);
        sender.send('a', 1_000_000).await.unwrap();
        assert_eq!(sender.send('b', 1).now_or_never(), None);
        assert_eq!(receiver.recv().await.map(|parcel| parcel.content), Some('a'));
    }

    #[tokio::test]
    async fn a_waiting_sender_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = channel(10);
        sender.send('a', 10).await.unwrap();
        let mut waiting = Box::pin(sender.send('b', 10));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(receiver);
        assert_eq!(waiting.await, Err(Gone));
    }
}
