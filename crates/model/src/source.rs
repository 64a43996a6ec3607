//! Sources: handles that messages are sent to, each with the pipes of its kind.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Fields, FromFields, OrgId, SourceId, UserId, text_enum::text_enum};

text_enum! {
    /// What a source is.
    SourceKind, "source kind" {
        /// Somebody or something that gets messages.
        Message = "message",
        /// A terminal, whose output is watched and which can be typed into.
        Pty = "pty",
    }
}

impl SourceKind {
    /// The pipes that every source of this kind has.
    pub const fn pipes(self) -> &'static [&'static str] {
        match self {
            Self::Message => &[INBOX],
            Self::Pty => &[STDIN, STDOUT, STDCTRL, INBOX],
        }
    }
}

/// The pipe that everybody writes to and the creator reads.
pub const INBOX: &str = "inbox";
/// The pipe that a terminal reads.
pub const STDIN: &str = "stdin";
/// The pipe that a terminal writes.
pub const STDOUT: &str = "stdout";
/// The pipe that a terminal's size is sent by.
pub const STDCTRL: &str = "stdctrl";

/// Words that neither a handle nor a made pipe is called.
const RESERVED: &[&str] = &["broadcast", INBOX, STDIN, STDOUT, STDCTRL, "heartbeat", "system", "db"];

/// A name that stands in subjects: 1 to 32 characters out of a–z, 0–9 and `-`, with no `-` at either end.
fn validate_name(name: &str) -> Result<(), InvalidName> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let fits = (1..=32).contains(&name.len()) && plain && !name.starts_with('-') && !name.ends_with('-');
    if !fits {
        return Err(InvalidName::Malformed);
    }
    if RESERVED.contains(&name) { Err(InvalidName::Reserved) } else { Ok(()) }
}

/// Why something cannot be called that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Other characters, or too many.
    #[error("must have 1 to 32 characters out of a-z, 0-9 and -, with no - at either end")]
    Malformed,
    /// A word with a meaning of its own.
    #[error("is a reserved word: {} cannot be taken", RESERVED.join(", "))]
    Reserved,
}

/// Declares a name that is checked when it is made.
macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub struct $name(String);

        impl $name {
            /// The name itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                validate_name(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                validate_name(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// A source's name, unique in its organization.
    ///
    /// ```
    /// use tidegate_model::Handle;
    ///
    /// assert!("build-7".parse::<Handle>().is_ok());
    /// assert!("inbox".parse::<Handle>().is_err());
    /// ```
    Handle
}
name! {
    /// The name of a pipe that somebody made, unique at its source. Those of the source's kind are not among them.
    PipeName
}

/// A handle of an organization, with what was last sent to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The source's id; a source that is made anew under the same handle has another one.
    pub id: SourceId,
    /// The organization.
    pub org_id: OrgId,
    /// Who made it.
    pub created_by: UserId,
    /// Their username; `null` once they are no member any more.
    pub created_by_username: Option<String>,
    /// What it is called.
    pub handle: Handle,
    /// What it is.
    pub kind: SourceKind,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// When something was last sent to it.
    pub last_message_at: Option<DateTime<Utc>>,
    /// The beginning of it, for those who may read it.
    pub last_message: Option<String>,
}

impl Source {
    /// Whether it has a pipe of this name by its kind, which nobody has to make and nobody can delete.
    pub fn is_auto_pipe(&self, name: &str) -> bool {
        self.pipes().contains(&name)
    }

    /// The pipes that it has by its kind.
    pub fn pipes(&self) -> &'static [&'static str] {
        self.kind.pipes()
    }
}

/// Body of `POST sources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSourceRequest {
    /// What it is called.
    pub handle: Handle,
    /// What it is. Default `message`.
    pub kind: SourceKind,
}

impl FromFields for CreateSourceRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let handle = fields.required("handle");
        let kind = fields.optional("kind").unwrap_or(SourceKind::Message);
        Some(Self { handle: handle?, kind })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn source(kind: SourceKind) -> Source {
        Source {
            id: SourceId::new(),
            org_id: OrgId::new(),
            created_by: UserId::new(),
            created_by_username: None,
            handle: "build".parse().unwrap(),
            kind,
            created_at: DateTime::UNIX_EPOCH,
            last_message_at: None,
            last_message: None,
        }
    }

    #[test]
    fn a_source_has_the_pipes_of_its_kind() {
        assert_eq!(source(SourceKind::Message).pipes(), ["inbox"]);
        assert_eq!(source(SourceKind::Pty).pipes(), ["stdin", "stdout", "stdctrl", "inbox"]);
        assert!(source(SourceKind::Pty).is_auto_pipe("stdout"));
        assert!(!source(SourceKind::Message).is_auto_pipe("stdout"));
        assert!(!source(SourceKind::Pty).is_auto_pipe("broadcast"));
    }

    #[test]
    fn a_name_is_a_word_of_a_subject_and_none_of_ours() {
        for good in ["a", "0", "build-7", &"a".repeat(32)] {
            assert!(good.parse::<Handle>().is_ok() && good.parse::<PipeName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a*", "a>", "a b", "ä", "a_b", &"a".repeat(33)] {
            assert_eq!(bad.parse::<Handle>(), Err(InvalidName::Malformed), "{bad}");
        }
        for kind in SourceKind::ALL {
            for pipe in kind.pipes() {
                assert_eq!(pipe.parse::<PipeName>(), Err(InvalidName::Reserved), "{pipe}");
            }
        }
        for word in ["broadcast", "inbox", "stdin", "stdout", "stdctrl", "heartbeat", "system", "db"] {
            assert_eq!(word.parse::<Handle>(), Err(InvalidName::Reserved), "{word}");
        }
    }

    #[test]
    fn a_new_source_gets_messages_unless_it_says_otherwise() {
        let plain = CreateSourceRequest::from_json(json!({"handle": "build"})).unwrap();
        assert_eq!((plain.handle.as_str(), plain.kind), ("build", SourceKind::Message));
        let bad = json!({"handle": "Inbox", "kind": "tty", "owner": 1});
        let errors = CreateSourceRequest::from_json(bad).unwrap_err();
        assert_eq!(errors.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["handle", "kind", "owner"]);
        let reserved = CreateSourceRequest::from_json(json!({"handle": "inbox"})).unwrap_err();
        assert!(reserved.to_string().contains("reserved"), "{reserved}");
    }

    proptest! {
        #[test]
        fn what_passes_for_a_name_is_one_token_of_a_subject(text in "[a-c0-1*>.A _-]{0,40}") {
            let rule = regex_lite(&text);
            prop_assert_eq!(text.parse::<Handle>().is_ok(), rule);
            prop_assert_eq!(serde_json::from_value::<PipeName>(json!(text)).is_ok(), rule);
        }
    }

    /// `[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`, spelled out.
    fn regex_lite(text: &str) -> bool {
        let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let chars: Vec<char> = text.chars().collect();
        match chars.as_slice() {
            [] => false,
            [one] => end(*one),
            [first, middle @ .., last] => {
                end(*first) && end(*last) && middle.len() <= 30 && middle.iter().all(|c| end(*c) || *c == '-')
            }
        }
    }
}
