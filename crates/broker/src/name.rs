//! Names that travel in subjects: checked once, so that no name becomes a wildcard or a second token.

use std::fmt;

use uuid::Uuid;

use crate::{Error, Result, listened};

/// The greatest length of a stream's name in bytes; it becomes a folder's name.
const MAX_STREAM_NAME: usize = 128;

/// The name of a stream: letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(String);

impl StreamName {
    /// The stream of a source's pipe. A source that was deleted and made again has another id, so another stream.
    pub fn of_pipe(source: Uuid, pipe: &str) -> Result<Self> {
        Self::parse(&format!("{}_{}", source.simple(), token("pipe", pipe)?))
    }

    /// A name that was kept or received.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = !text.is_empty() && text.len() <= MAX_STREAM_NAME;
        if fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(
                "the stream name",
                format!("must be 1 to {MAX_STREAM_NAME} of a-z, A-Z, 0-9, - and _"),
            ))
        }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a pipe is published to: organization, the source's creator, handle and pipe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PipeSubject {
    organization: Uuid,
    /// Creator, handle and pipe.
    tokens: String,
}

impl PipeSubject {
    /// Checks handle and pipe, which are a token of the subject each.
    pub fn new(organization: Uuid, creator: Uuid, handle: &str, pipe: &str) -> Result<Self> {
        let (handle, pipe) = (token("handle", handle)?, token("pipe", pipe)?);
        Ok(Self { organization, tokens: format!("{}.{handle}.{pipe}", creator.simple()) })
    }

    /// What `sender` publishes to: `<org>.<creator>.<handle>.<pipe>.<sender>`.
    pub fn from_sender(&self, sender: Uuid) -> String {
        self.with(&sender.simple().to_string())
    }

    /// What the pipe's stream holds: `<org>.<creator>.<handle>.<pipe>.*`.
    pub fn all_senders(&self) -> String {
        self.with("*")
    }

    /// The stored subject, whose sender is the one wildcard of [`PipeSubject::listened`].
    pub(crate) fn stored(&self) -> String {
        self.with("{{wildcard(1)}}")
    }

    /// What the pipe's stream listens to.
    pub(crate) fn listened(&self) -> String {
        listened::below(&format!("{}.*", self.tokens))
    }

    fn with(&self, sender: &str) -> String {
        format!("{}.{}.{sender}", self.organization.simple(), self.tokens)
    }
}

/// One token of a subject: what the contract allows handles and pipes to be.
pub(crate) fn token<'a>(what: &'static str, text: &'a str) -> Result<&'a str> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = !text.is_empty() && text.len() <= 32 && !text.starts_with('-') && !text.ends_with('-');
    if fits && text.bytes().all(inner) {
        Ok(text)
    } else {
        Err(Error::invalid(what, "must be 1 to 32 of a-z, 0-9 and -, with no - at either end"))
    }
}

/// The user that a stored message came from, as its subject's last token says.
pub(crate) fn sender_of(subject: &str) -> Option<Uuid> {
    subject.rsplit('.').next().and_then(|token| Uuid::try_parse(token).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_becomes_a_wildcard_or_a_second_token() {
        let id = Uuid::from_u128(1);
        for bad in ["", "*", ">", "a.b", "a b", "-a", "a-", "A", "ä", "a\r\nPUB", &"a".repeat(33)] {
            assert!(PipeSubject::new(id, id, bad, "inbox").is_err(), "{bad:?}");
            assert!(PipeSubject::new(id, id, "me", bad).is_err(), "{bad:?}");
            assert!(StreamName::of_pipe(id, bad).is_err(), "{bad:?}");
        }
        assert!(StreamName::parse("a.b").is_err());
        let subject = PipeSubject::new(id, id, "me", "inbox").unwrap().from_sender(Uuid::from_u128(5));
        assert_eq!(sender_of(&subject), Some(Uuid::from_u128(5)));
    }
}
