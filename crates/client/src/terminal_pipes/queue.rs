//! What waits to be sent: pieces of bytes that may be put together, and texts that may not.

use std::collections::VecDeque;

use tidegate_model::Payload;

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    Text(String),
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
        }
    }
}

/// Messages in the order in which they were given. Bytes are put together and cut into messages as they come, so that however
/// much waits is moved once.
#[derive(Debug)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    largest: usize,
}

impl Queue {
    /// A queue whose messages of bytes have at most `largest` of them.
    pub(super) fn new(largest: usize) -> Self {
        Self { pieces: VecDeque::new(), largest: largest.max(1) }
    }

    pub(super) fn push(&mut self, piece: Piece) {
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes,
            text @ Piece::Text(_) => return self.pieces.push_back(text),
        };
        let mut rest = bytes.as_slice();
        if let Some(Piece::Bytes(last)) = self.pieces.back_mut() {
            let (fits, more) = rest.split_at(rest.len().min(self.largest.saturating_sub(last.len())));
            last.extend_from_slice(fits);
            rest = more;
        }
        self.pieces.extend(rest.chunks(self.largest).map(|part| Piece::Bytes(part.to_vec())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether waiting for more would not make the next message larger.
    pub(super) fn is_ripe(&self) -> bool {
        self.pieces.len() > 1
            || self.pieces.front().is_some_and(|piece| match piece {
                Piece::Bytes(bytes) => bytes.len() >= self.largest,
                Piece::Text(_) => true,
            })
    }

    /// The next message.
    pub(super) fn take(&mut self) -> Option<Payload> {
        Some(match self.pieces.pop_front()? {
            Piece::Text(text) => Payload::Text(text),
            Piece::Bytes(bytes) => Payload::Bytes(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(queue: &mut Queue) -> Vec<Payload> {
        std::iter::from_fn(|| queue.take()).collect()
    }

    #[test]
    fn bytes_are_put_together_and_never_across_a_text() {
        let mut queue = Queue::new(4);
        for piece in [b"a".to_vec(), b"bc".to_vec()] {
            queue.push(Piece::Bytes(piece));
        }
        assert!(!queue.is_ripe());
        queue.push(Piece::Text("end".into()));
        assert!(queue.is_ripe());
        queue.push(Piece::Bytes(b"d".to_vec()));
        let wanted =
            [Payload::Bytes(b"abc".to_vec()), Payload::Text("end".into()), Payload::Bytes(b"d".to_vec())];
        assert_eq!(all(&mut queue), wanted);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_too_large_for_a_message_is_more_than_one() {
        let mut queue = Queue::new(4);
        queue.push(Piece::Bytes(vec![7; 10]));
        assert!(queue.is_ripe());
        let lengths: Vec<usize> = all(&mut queue).iter().map(|payload| payload.as_bytes().len()).collect();
        assert_eq!(lengths, [4, 4, 2]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_split_anywhere_come_out_the_same(
            pieces in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..40), 0..20),
            largest in 1_usize..50,
        ) {
            let mut queue = Queue::new(largest);
            for piece in &pieces {
                queue.push(Piece::Bytes(piece.clone()));
            }
            let sent = all(&mut queue);
            proptest::prop_assert!(sent.iter().all(|payload| (1..=largest).contains(&payload.as_bytes().len())));
            // As few messages as their size allows.
            proptest::prop_assert!(sent.iter().rev().skip(1).all(|payload| payload.as_bytes().len() == largest));
            let whole: Vec<u8> = sent.iter().flat_map(|payload| payload.as_bytes().to_vec()).collect();
            proptest::prop_assert_eq!(whole, pieces.concat());
        }
    }
}
