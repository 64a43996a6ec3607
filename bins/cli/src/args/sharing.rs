//! The words about sharing sessions, and about what keeps and ends them.

use std::ffi::OsString;

use clap::{Args as ClapArgs, Subcommand};
use tidegate_model::{Handle, StreamMode, TimeLimit};

use super::{SessionArg, people::OrgArg};

/// `share`.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "tidegate share <SESSION> --with <USERNAME> [--mode <MODE>] [--for <TIME>]\n       \
        tidegate share <HANDLE> [-- COMMAND [ARG]...]\n       \
        tidegate share ls <SESSION>\n       \
        tidegate share rm <SESSION> <SHARE>",
    after_help = "Examples:\n  \
        tidegate share calm-harbour --with ada\n  \
        tidegate share calm-harbour --group crew --mode control --for 2h\n  \
        tidegate share ls calm-harbour\n  \
        tidegate share rm calm-harbour --with ada\n  \
        tidegate share build\n  \
        tidegate share build -- make -j4 test\n\n\
        With --with or --group a session is shared: whoever it is shared with finds it in `tidegate ls` and attaches to it.\n\
        Shared again, it gets the new mode and time.\n\n\
        Without them a terminal of this machine is: a shell, or the command, runs here, and who may read the source HANDLE\n\
        watches it with `tidegate view`. The source is made where it is not there, and is yours alone until you let others\n\
        in: `tidegate source grant HANDLE read --user ada`, and `type` for those who may type what your shell then does as\n\
        you. What was typed before a share began is never typed into it. A newer share of the same source takes its place.\n\n\
        While the control plane is away the program goes on: up to 8 MiB of its output wait, then it waits itself. The exit\n\
        code is the command's; 125 when tidegate itself could not do its part."
)]
pub(crate) struct ShareArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<ShareVerb>,
    /// A session's id, beginning of its id, or name; or the handle of a source, for a terminal of this machine.
    #[arg(required = true, value_name = "SESSION|HANDLE")]
    pub(crate) what: Option<String>,
    #[command(flatten)]
    pub(crate) with: With,
    /// `view` to watch, `control` to type too.
    #[arg(long, default_value = "view", requires = "With")]
    pub(crate) mode: StreamMode,
    /// For how long, for example 2h; as long as the session where absent.
    #[arg(long = "for", value_name = "TIME", requires = "With")]
    pub(crate) time: Option<TimeLimit>,
    /// What runs in the shared terminal; your shell where absent.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "With")]
    pub(crate) command: Vec<OsString>,
}

impl ShareArgs {
    /// Whether a terminal of this machine is shared.
    pub(crate) const fn is_terminal(&self) -> bool {
        self.verb.is_none() && self.with.with.is_none() && self.with.group.is_none()
    }
}

/// Whom a session is shared with.
#[derive(Debug, Clone, ClapArgs)]
#[group(multiple = false)]
pub(crate) struct With {
    /// A member of the organization, by username.
    #[arg(long, value_name = "USERNAME")]
    pub(crate) with: Option<String>,
    /// A group with those below it, by id or name.
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
}

/// `share ls` and `share rm`.
#[derive(Debug, Subcommand)]
pub(crate) enum ShareVerb {
    /// Show whom a session is shared with
    #[command(alias = "list")]
    Ls(SessionArg),
    /// End a share: whoever watches by it is cut off
    #[command(alias = "remove")]
    Rm {
        #[command(flatten)]
        session: SessionArg,
        #[command(flatten)]
        which: Which,
    },
}

/// Which share ends.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The share's id, as `share ls` shows it.
    pub(crate) share: Option<String>,
    /// That with a member, by username.
    #[arg(long, value_name = "USERNAME")]
    pub(crate) with: Option<String>,
    /// That with a group, by id or name.
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
}

/// `disconnect`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
        tidegate disconnect calm-harbour\n  \
        tidegate disconnect calm-harbour --user ada\n\n\
        Terminals, desktops and pages that are open are cut within a second, wherever they are. They may be opened again:\n\
        `tidegate share rm` takes that right back.")]
pub(crate) struct DisconnectArgs {
    #[command(flatten)]
    pub(crate) session: SessionArg,
    /// What this member has open, by username; for the session's owner and for those who manage sessions.
    #[arg(long, value_name = "USERNAME")]
    pub(crate) user: Option<String>,
}

/// `record`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
        tidegate record calm-harbour build\n  \
        tidegate read build/stdout --follow\n  \
        tidegate record calm-harbour --off\n\n\
        What the terminal prints goes to the pipe stdout of the source, what its agent still keeps of before included. The\n\
        source stays when the session has ended, and keeps what its pipes keep. Who may read it: see `tidegate source grant`.")]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    pub(crate) session: SessionArg,
    /// Handle of a source of kind pty that you made, or one that is free: then it is made.
    #[arg(required_unless_present = "off", conflicts_with = "off")]
    pub(crate) handle: Option<Handle>,
    /// Record it no more; what is recorded stays.
    #[arg(long)]
    pub(crate) off: bool,
}

/// `extend`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ExtendArgs {
    #[command(flatten)]
    pub(crate) session: SessionArg,
    /// How much longer, for example 30m.
    #[arg(value_name = "TIME", default_value = "30m")]
    pub(crate) by: TimeLimit,
}

/// `org policy`.
#[derive(Debug, ClapArgs)]
pub(crate) struct OrgPolicy {
    #[command(flatten)]
    pub(crate) organization: OrgArg,
    /// Idle timeout of sessions that ask for none, for example 30m; 0 is never, `none` leaves it to the platform.
    #[arg(long, value_name = "TIME")]
    pub(crate) idle_default: Option<Said>,
    /// Longest idle timeout that a session may ask for; `none` leaves it to the platform.
    #[arg(long, value_name = "TIME")]
    pub(crate) idle_maximum: Option<Said>,
    /// Longest duration of sessions that ask for none, for example 8h; 0 is never, `none` leaves it to the platform.
    #[arg(long, value_name = "TIME")]
    pub(crate) duration_default: Option<Said>,
    /// Longest duration that a session may ask for and be extended to; `none` leaves it to the platform.
    #[arg(long, value_name = "TIME")]
    pub(crate) duration_maximum: Option<Said>,
}

/// A time, or none for `none`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said(pub(crate) Option<TimeLimit>);

impl std::str::FromStr for Said {
    type Err = tidegate_model::TimeLimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|limit| Self(Some(limit))) }
    }
}
