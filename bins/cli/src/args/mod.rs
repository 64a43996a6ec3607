//! The words of the command line.

mod apps;
mod audit;
mod catalog;
mod events;
mod groups;
mod homes;
mod keys;
mod messages;
mod parse;
mod people;
mod plugins;
mod run;
mod sharing;
mod sources;
mod terminals;
mod tokens;
mod users;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;
use tidegate_model::{AgentHandle, SessionState};
use url::Url;

pub(crate) use self::{
    apps::{AppGroupVerb, AppVerb, InstallArgs, Settings, UpdateArgs},
    audit::{AuditExportArgs, AuditListArgs, AuditVerb},
    catalog::{CatalogEntry, CatalogSearchArgs, CatalogVerb, RateArgs},
    events::EventArgs,
    groups::{GroupVerb, Limits, QuotaVerb, Whose},
    homes::HomeVerb,
    keys::{KeyArgs, KeyCreateArgs, KeyListArgs, KeyRotateArgs, KeyVerb, from_now},
    messages::{Address, Over, ReadArgs, ReceiptArgs, SendArgs, WhoArgs},
    parse::DetachKeys,
    people::{InviteVerb, MemberVerb, OrgChanges, OrgVerb},
    plugins::{InstallPluginArgs, PluginWanted, PluginsVerb},
    run::{Resume, RunApplication, RunArgs, RunFlags, RunWhat, RunWords},
    sharing::{DisconnectArgs, ExtendArgs, OrgPolicy, RecordArgs, Said, ShareArgs, ShareVerb, Which, With},
    sources::{At, PipeVerb, RevokeArgs, SourceVerb, Whom},
    terminals::ViewArgs,
    tokens::TokenVerb,
    users::{LoginsVerb, NewUserArgs, PasswdArgs, UserChanges, UserVerb},
};
use crate::exit;

/// Sessions on machines you do not have to log in to.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        tidegate login --url https://tidegate.example.com\n  \
        tidegate run shell\n  \
        tidegate run command -- make -j4 test\n  \
        tidegate run firefox\n  \
        tidegate ls\n  \
        tidegate attach calm-harbour\n\n\
        A session is named by its id, by the beginning of its id, or by its name.\n\
        An API key in TIDEGATE_API_KEY, or a token in TIDEGATE_TOKEN, is used instead of the stored login."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What goes with every verb.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The control plane's address; that of the last login where absent.
    #[arg(long, global = true, env = "TIDEGATE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) url: Option<Url>,
    /// Also trust the certificate authorities in this PEM file; a login remembers it.
    #[arg(long, global = true, env = "TIDEGATE_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Write JSON for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Log in by browser, with username and password, or with an API key, and remember it
    Login(LoginArgs),
    /// End the login and forget it
    Logout,
    /// Show who you are, where, and what you may do
    Whoami,
    /// Your organizations
    #[command(subcommand)]
    Org(OrgVerb),
    /// Who belongs to an organization
    #[command(subcommand)]
    Members(MemberVerb),
    /// Invites into organizations
    #[command(subcommand)]
    Invites(InviteVerb),
    /// Groups of the organization's members
    #[command(subcommand)]
    Groups(GroupVerb),
    /// What you, groups and the organization may use
    #[command(subcommand)]
    Quota(QuotaVerb),
    /// Users of an organization: make, change and deactivate them
    #[command(subcommand)]
    Users(UserVerb),
    /// Change your password
    Passwd(PasswdArgs),
    /// Where you are logged in
    #[command(subcommand)]
    Logins(LoginsVerb),
    /// Templates and plugins that can be installed: search, look at and rate them
    #[command(subcommand)]
    Catalog(CatalogVerb),
    /// Applications of the organization: see, install and change them
    #[command(subcommand)]
    Apps(AppVerb),
    /// Plugins of the platform, for operators: install, configure and remove them
    #[command(subcommand)]
    Plugins(PluginsVerb),
    /// Start a session and attach to it
    Run(RunArgs),
    /// Reach ports of a session as ports of this machine
    PortForward(PortForwardArgs),
    /// Attach this terminal to a running session, or to a terminal that somebody shares
    Attach(AttachArgs),
    /// List sessions
    Ls(ListArgs),
    /// Show one session
    Get(SessionArg),
    /// End sessions
    Stop(StopArgs),
    /// Put a session to sleep: its processes stop, its home stays
    Hibernate(ChangeArgs),
    /// Wake a session
    Wake(ChangeArgs),
    /// Let somebody watch or use a session of yours, and take it back; or share a terminal of this machine
    Share(ShareArgs),
    /// Watch a terminal that somebody shares, search what it showed, or replay it
    View(ViewArgs),
    /// End what you have open of a session, or somebody else has of yours; the session goes on
    Disconnect(DisconnectArgs),
    /// Keep what a session's terminal prints, to be watched, read and searched after it ended
    Record(RecordArgs),
    /// Put a session's end off, and keep it from being idle for as long
    Extend(ExtendArgs),
    /// Show what kept a session alive
    Activity(SessionArg),
    /// Show what ends or hibernates a session by itself, and who says so
    Policy(SessionArg),
    /// Show what a session printed
    Logs(LogArgs),
    /// Show what changes as it happens: sessions, their commands, and agents
    Events(EventArgs),
    /// Handles that messages are sent to: make them, and say who may read and type
    #[command(subcommand)]
    Source(SourceVerb),
    /// Pipes of a source, and what they keep
    #[command(subcommand)]
    Pipe(PipeVerb),
    /// Send a message to a source, and hear that it is stored
    Send(SendArgs),
    /// Read messages of a source
    Read(ReadArgs),
    /// Show who has read a message that was sent with --ack
    Receipts(ReceiptArgs),
    /// List the pipes that you read, with what waits there
    Subs,
    /// Show who uses pipes, or who may use a source
    Who(WhoArgs),
    /// Persistent homes: what they take, and their end
    #[command(subcommand)]
    Homes(HomeVerb),
    /// Make, list, rotate and revoke API keys
    Keys(KeyArgs),
    /// Who did what, with which credential, from where
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Devices that were let in, and their tokens
    #[command(subcommand)]
    Tokens(TokenVerb),
    /// Write completions for a shell
    #[command(after_help = "For example:\n  \
        tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

impl Verb {
    /// The exit code of a failure that is not the session's program's.
    pub(crate) const fn failure_code(&self) -> u8 {
        match self {
            Self::Run(_) | Self::Attach(_) => exit::RUN_FAILURE,
            Self::Share(words) if words.is_terminal() => exit::RUN_FAILURE,
            _ => exit::FAILURE,
        }
    }
}

/// A session.
#[derive(Debug, ClapArgs)]
pub(crate) struct SessionArg {
    /// Id, beginning of the id, or name.
    pub(crate) session: String,
}

/// `login`.
#[derive(Debug, ClapArgs)]
pub(crate) struct LoginArgs {
    /// Log in with a password instead of by browser.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Read the password from the first line of this file; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Remember the API key on the first line of this file instead of asking for a password; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["username", "password_file"])]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Only show the address of the page that logs in, and open no browser.
    #[arg(long, conflicts_with_all = ["username", "password_file", "api_key_file"])]
    pub(crate) no_browser: bool,
    /// Send the password, key or token although the connection is neither encrypted nor local.
    #[arg(long)]
    pub(crate) allow_plain_http: bool,
}

/// `port-forward`.
#[derive(Debug, ClapArgs)]
pub(crate) struct PortForwardArgs {
    #[command(flatten)]
    pub(crate) session: SessionArg,
    /// Port of this machine and of the session, such as 8080:80; 8080 alone is both, 0:80 takes any free one.
    #[arg(required = true, value_name = "LOCAL:REMOTE", value_parser = parse::ports)]
    pub(crate) ports: Vec<(u16, u16)>,
}

/// `attach`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidegate attach calm-harbour\n  \
    tidegate attach build --source\n  \
    tidegate attach build --view\n\n\
    What is named is the session of this name or id; else the source of this handle, whose terminal somebody shares with\n\
    `tidegate share`; else the session whose id begins so.\n\n\
    A source's terminal is shown from its latest output on. Where you may not type into it you watch, and are told so; where\n\
    standard input is no terminal, that is refused. The window that changed last is the size for all. The exit code is the\n\
    program's; 125 when tidegate itself could not do its part.")]
pub(crate) struct AttachArgs {
    /// A session's id, beginning of its id, or name; or a source's handle.
    #[arg(value_name = "SESSION|HANDLE")]
    pub(crate) what: String,
    /// It is a source's handle, even where a session is called so.
    #[arg(long)]
    pub(crate) source: bool,
    /// Watch without typing.
    #[arg(long)]
    pub(crate) view: bool,
    #[command(flatten)]
    pub(crate) resume: Resume,
}

/// `ls`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ListArgs {
    /// Only sessions in this state: pending, running, hibernating, hibernated, waking, terminating, terminated or
    /// failed.
    #[arg(long)]
    pub(crate) state: Option<SessionState>,
    /// Only sessions with this tag.
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Only sessions of this user.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only sessions on this agent.
    #[arg(long, value_parser = parse::agent)]
    pub(crate) agent: Option<AgentHandle>,
    /// Only sessions of this application.
    #[arg(long, value_name = "APPLICATION")]
    pub(crate) application: Option<String>,
    /// Only sessions of others that are shared with you.
    #[arg(long)]
    pub(crate) shared: bool,
    /// All pages, not only the newest hundred.
    #[arg(long)]
    pub(crate) all: bool,
}

/// `stop`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StopArgs {
    /// Ids, beginnings of ids, or names.
    #[arg(required = true, value_name = "SESSION")]
    pub(crate) sessions: Vec<String>,
    /// Do not wait until they have ended.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `hibernate` and `wake`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) session: SessionArg,
    /// Do not wait until it is done.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `logs`.
#[derive(Debug, ClapArgs)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    pub(crate) session: SessionArg,
    /// Go on until the program ends.
    #[arg(long, short, conflicts_with = "states")]
    pub(crate) follow: bool,
    /// Leave out the first so many bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 0, conflicts_with = "states")]
    pub(crate) after: u64,
    /// Show the session's states instead of its output.
    #[arg(long)]
    pub(crate) states: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn help(words: &[&str]) -> String {
        let mut command = Args::command().term_width(100);
        command.build();
        let mut part = &mut command;
        for word in words {
            part = part.find_subcommand_mut(word).unwrap();
        }
        part.render_help().to_string()
    }

    #[test]
    fn the_command_line_is_whole() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_verb() {
        insta::assert_snapshot!(help(&[]));
    }

    #[test]
    fn the_help_of_run_command_names_every_flag() {
        insta::assert_snapshot!(help(&["run", "command"]));
    }

    #[test]
    fn the_help_of_logs_names_every_flag() {
        insta::assert_snapshot!(help(&["logs"]));
    }

    #[test]
    fn the_help_of_events_names_every_flag() {
        insta::assert_snapshot!(help(&["events"]));
    }

    #[test]
    fn the_help_of_source_grant_names_every_flag() {
        insta::assert_snapshot!(help(&["source", "grant"]));
    }

    #[test]
    fn the_help_of_pipe_set_names_every_flag() {
        insta::assert_snapshot!(help(&["pipe", "set"]));
    }

    #[test]
    fn the_help_of_send_names_every_exit_code() {
        insta::assert_snapshot!(help(&["send"]));
    }

    #[test]
    fn the_help_of_read_names_every_exit_code() {
        insta::assert_snapshot!(help(&["read"]));
    }

    #[test]
    fn the_help_of_share_tells_its_two_uses() {
        insta::assert_snapshot!(help(&["share"]));
    }

    #[test]
    fn the_help_of_attach_tells_what_a_name_means() {
        insta::assert_snapshot!(help(&["attach"]));
    }

    #[test]
    fn the_help_of_view_names_every_flag() {
        insta::assert_snapshot!(help(&["view"]));
    }

    #[test]
    fn the_help_of_keys_create_names_every_flag() {
        insta::assert_snapshot!(help(&["keys", "create"]));
    }
}
