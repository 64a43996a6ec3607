//! The words of `send` and `read`.

use std::{path::PathBuf, str::FromStr};

use chrono::{DateTime, Utc};
use clap::{Args as ClapArgs, ValueEnum, builder::RangedU64ValueParser};
use tidegate_model::{Handle, INBOX, MessageId};

use super::sources::At;

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Over {
    // No help of their own: it would make the whole page a long one.
    Http,
    Nats,
}

/// `send`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidegate send build \"the tests are green\"\n  \
    make 2>&1 | tidegate send build/results\n  \
    make 2>&1 | tidegate send build/results --lines --over nats\n  \
    tidegate send build --file report.json --key nightly-17\n\n\
    With --lines the lines are stored in their order. Where it ends early it says how many are stored,\n\
    and under which --key the same input can be sent again: what was stored within the last ten minutes\n\
    is not stored a second time.\n\n\
    Exit codes:\n  \
    0  stored: the broker has acknowledged it\n  \
    1  something else did not work\n  \
    2  the command line is wrong\n  \
    3  refused: no such source or pipe, or not for you, or no longer logged in\n  \
    4  not acknowledged in time: send it again with the same --key, and it is stored once\n  \
    5  too large, or no room is left\n  \
    6  stored, and with --wait-read nobody has read it in time")]
pub(crate) struct SendArgs {
    /// A source's handle for its inbox, or HANDLE/PIPE.
    #[arg(value_name = "HANDLE[/PIPE]")]
    pub(crate) to: Address,
    /// What to say; standard input where absent. What is no UTF-8 is sent as bytes.
    #[arg(conflicts_with = "file")]
    pub(crate) text: Option<String>,
    /// Send what is in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The message that this answers.
    #[arg(long, value_name = "ID")]
    pub(crate) reply_to: Option<MessageId>,
    /// Ask to hear that it was read: `tidegate receipts` tells.
    #[arg(long)]
    pub(crate) ack: bool,
    /// Wait so many seconds until somebody has read it.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), requires = "ack", conflicts_with = "lines")]
    pub(crate) wait_read: Option<u64>,
    /// What a repeat is known by, within ten minutes; a random one where absent. With --lines the number of the line is
    /// added.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Send each line of standard input, or of the file, as a message of its own.
    #[arg(long, conflicts_with = "text")]
    pub(crate) lines: bool,
    /// Through the control plane, or straight to NATS, with several messages on their way at a time.
    #[arg(long, value_enum, default_value_t = Over::Http)]
    pub(crate) over: Over,
    /// For how many seconds to try again where the broker does not answer.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), default_value_t = 30)]
    pub(crate) timeout: u64,
}

/// `receipts`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidegate send build \"may I deploy?\" --ack\n  \
    tidegate receipts build 17\n\n\
    Whoever has read past a message has read it, with whichever program. Only its sender is told, and whoever made the source\n\
    or manages sources.\n\n\
    Exit codes:\n  \
    0  somebody has read it\n  \
    1  something else did not work\n  \
    3  refused: no such message, or not yours, or no longer logged in\n  \
    4  no answer from the broker\n  \
    6  nobody has read it")]
pub(crate) struct ReceiptArgs {
    /// A source's handle for its inbox, or HANDLE/PIPE.
    #[arg(value_name = "HANDLE[/PIPE]")]
    pub(crate) of: Address,
    /// The message's place in the pipe, as `send` shows it.
    pub(crate) sequence: u64,
}

/// `who`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidegate who\n  \
    tidegate who build\n\n\
    Without a handle: members who read pipes or are connected to NATS, the last one first. With one: who may read, write to\n\
    and type into the source beside whoever made it; that is shown to them and to those who manage sources.")]
pub(crate) struct WhoArgs {
    /// A source's handle.
    pub(crate) handle: Option<Handle>,
}

/// `read`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidegate read build\n  \
    tidegate read build --follow\n  \
    tidegate read build/results --after 0 --limit 100\n\n\
    Without --after and --since you read on from your place, in order. It moves behind what was written to standard output,\n\
    a page at a time: what was not comes with the next read, and the last page may come twice where the program is killed\n\
    between the two. With them nothing moves, and the same messages can be read again. With --json every message is a line.\n\n\
    Over nats each message counts as read once it is written; what was not comes again within 30 seconds, behind newer\n\
    ones. Several programs of yours share the messages there, and over http all have the same ones.\n\n\
    Exit codes:\n  \
    0  there were messages\n  \
    1  something else did not work\n  \
    2  the command line is wrong\n  \
    3  refused: no such source or pipe, or not for you to read, or no longer logged in\n  \
    4  no answer from the broker\n  \
    6  no message was there")]
pub(crate) struct ReadArgs {
    /// A source's handle for its inbox, or HANDLE/PIPE.
    #[arg(value_name = "HANDLE[/PIPE]")]
    pub(crate) from: Address,
    /// Read those behind this sequence, 0 for all that are kept; your place does not move.
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "since")]
    pub(crate) after: Option<u64>,
    /// Read those stored at this moment or later, for example 2026-01-31T12:00:00Z; your place does not move.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<DateTime<Utc>>,
    /// At most so many at a time, 1 to 100.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub(crate) limit: usize,
    /// Wait so many seconds for a message where there is none.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), conflicts_with = "follow")]
    pub(crate) wait: Option<u64>,
    /// Go on with what comes, until it is ended.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Through the control plane, or straight from NATS, where your place moves.
    #[arg(long, value_enum, default_value_t = Over::Http)]
    pub(crate) over: Over,
}

/// The longest wait that can be asked for: 30 days.
const MOST_SECONDS: u64 = 30 * 24 * 60 * 60;

/// Seconds that somebody waits.
fn seconds() -> RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(..=MOST_SECONDS)
}

/// A source and one of its pipes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) handle: Handle,
    pub(crate) pipe: String,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A handle alone is its inbox.
        let whole = if text.contains('/') { text.to_owned() } else { format!("{text}/{INBOX}") };
        let At { handle, name } = whole.parse()?;
        Ok(Self { handle, pipe: name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Waits {
        #[arg(long, value_parser = seconds())]
        wait: u64,
    }

    #[test]
    fn nobody_waits_longer_than_a_moment_can_be_worked_out_for() {
        let read =
            |text: &str| <Waits as clap::Parser>::try_parse_from(["read", "--wait", text]).map(|it| it.wait);
        assert_eq!(read("0").ok(), Some(0));
        assert_eq!(read("2592000").ok(), Some(MOST_SECONDS));
        for far in ["2592001", "18446744073709551615"] {
            assert!(read(far).unwrap_err().to_string().contains("2592000"), "{far}");
        }
    }

    #[test]
    fn an_address_is_an_inbox_or_a_pipe() {
        let address = |text: &str| text.parse::<Address>().map(|it| (it.handle.to_string(), it.pipe));
        assert_eq!(address("build"), Ok(("build".to_owned(), "inbox".to_owned())));
        assert_eq!(address("build/stdout"), Ok(("build".to_owned(), "stdout".to_owned())));
        assert!(address("build/").unwrap_err().contains("build/results"));
        for bad in ["", "/room", "Build", "stdin", "a.b/room"] {
            assert!(address(bad).unwrap_err().starts_with("a handle"), "{bad}");
        }
    }
}
