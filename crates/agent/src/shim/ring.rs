//! The last bytes of an endless stream, addressed by their distance from its first one.

use bytes::{Bytes, BytesMut};

/// A ring that keeps the newest `capacity` bytes; memory grows with what was written, up to that.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: Vec<u8>,
    capacity: usize,
    end: u64,
}

impl Ring {
    /// An empty ring.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { bytes: Vec::new(), capacity, end: 0 }
    }

    /// Offset after the newest byte.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Offset of the oldest byte kept.
    pub(crate) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Adds bytes, forgetting the oldest.
    pub(crate) fn append(&mut self, mut new: &[u8]) {
        if new.len() > self.capacity {
            self.end += (new.len() - self.capacity) as u64;
            new = &new[new.len() - self.capacity..];
            // Everything older goes; what follows must lie as if it had been written one by one.
            self.bytes.resize(self.capacity, 0);
        }
        let room = self.capacity - self.bytes.len();
        if room > 0 && self.bytes.len() as u64 == self.end {
            let first = new.len().min(room);
            self.bytes.extend_from_slice(&new[..first]);
            self.end += first as u64;
            new = &new[first..];
        }
        while !new.is_empty() {
            let at = self.place(self.end);
            let length = new.len().min(self.capacity - at);
            self.bytes[at..at + length].copy_from_slice(&new[..length]);
            self.end += length as u64;
            new = &new[length..];
        }
    }

    /// At most `limit` bytes from `offset` on, which must lie between start and end.
    pub(crate) fn read(&self, offset: u64, limit: usize) -> Bytes {
        let wanted = usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(limit);
        let at = self.place(offset);
        let first = wanted.min(self.bytes.len() - at);
        let mut out = BytesMut::with_capacity(wanted);
        out.extend_from_slice(&self.bytes[at..at + first]);
        out.extend_from_slice(&self.bytes[..wanted - first]);
        out.freeze()
    }

    fn place(&self, offset: u64) -> usize {
        usize::try_from(offset % self.capacity as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ring_is_the_tail_of_everything_written(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut ring = Ring::new(16);
            let mut all = Vec::new();
            for chunk in chunks {
                ring.append(&chunk);
                all.extend(chunk);
                prop_assert_eq!(ring.end(), all.len() as u64);
                prop_assert!(ring.end() - ring.start() <= 16);
                for offset in ring.start()..=ring.end() {
                    let from = usize::try_from(offset).unwrap();
                    prop_assert_eq!(&ring.read(offset, 1_000)[..], &all[from..]);
                    prop_assert_eq!(ring.read(offset, 3).len(), (all.len() - from).min(3));
                }
            }
        }
    }
}
