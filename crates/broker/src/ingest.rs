//! The prefix that the streams of an organization listen below, known to NATS and to us alone.
//!
//! NATS checks the subject a client publishes to, never the reply subject it asks for: the answer to a pull or to a publish
//! goes wherever the client says, and a stream that listens there would store it, with whatever sender the subject names.
//! So no stream listens to the subjects clients use. The account maps what *clients* publish below this prefix (after
//! their permissions were checked), streams listen there and store under the plain subject again; answers of JetStream are
//! not mapped, reach no stream, and the prefix cannot be guessed.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use uuid::Uuid;

use crate::keys::keyed_hash;

const LABEL: &[u8] = b"tidegate nats ingest v1";
/// Bytes of the secret part; 128 bits cannot be guessed.
const SECRET_BYTES: usize = 16;

/// The ingest prefix of one organization: as secret as a seed, though it opens nothing by itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Ingest(String);

impl Ingest {
    /// The prefix of an organization. `derived_key` is a key of its own, derived from the master key for this use.
    pub fn derive(derived_key: &[u8; 32], organization: Uuid) -> Self {
        let hash = keyed_hash(derived_key, LABEL, organization);
        Self(format!("tg.{}", BASE32_NOPAD.encode(&hash[..SECRET_BYTES])))
    }

    /// The subject that streams listen to, for the subject that clients use.
    pub(crate) fn below(&self, subject: &str) -> String {
        format!("{}.{subject}", self.0)
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ingest([redacted])")
    }
}
