//! The command line.

mod books;
mod nats;
mod people;
mod plugins;
mod repositories;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use tidegate_model::{
    AgentHandle, AgentStatus, ApprovalStatus, CommandAction, CommandId, DrainDeadline, OrgRole, Platform,
    SessionId, SessionState, SystemRole,
};

pub(crate) use self::{
    books::{AuditVerb, Limits, QuotaVerb, Which, Whose},
    nats::{ConfigArgs, DurabilityArg, LimitsArgs, NatsVerb},
    people::{GroupArg, GroupVerb, InviteVerb, KeyVerb, MemberVerb, OrganizationVerb, TokenVerb},
    plugins::{From as PluginSource, Options as PluginOptions, PluginVerb},
    repositories::{Asking, RepositoryVerb},
};

/// Operates a Tidegate platform from the machine of its database.
///
/// Without `database.url` in the configuration it works on the embedded PostgreSQL, whether the control plane is
/// running or not.
#[derive(Debug, Parser)]
#[command(version, name = "tidegate-admin")]
pub(crate) struct Args {
    /// Configuration file of the control plane (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON for programs instead of tables for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log what happens
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make the first organization and its owner, who is admin of the platform
    Bootstrap {
        /// Name of the organization: a-z, 0-9 and -
        #[arg(long, default_value = "main")]
        organization: String,
        /// Username of the admin
        #[arg(long, default_value = "admin")]
        username: String,
        /// E-mail address of the admin
        #[arg(long)]
        email: Option<String>,
        /// File the password is read from; if it does not exist, a password is made up and written to it (0600)
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        /// Succeed without doing anything when there is an admin already
        #[arg(long)]
        if_needed: bool,
    },
    /// Bring the database's schema to this version
    Migrate,
    /// List, approve, drain, assign and remove agents, change their keys
    #[command(subcommand)]
    Agents(AgentVerb),
    /// List and terminate sessions of every organization
    #[command(subcommand)]
    Sessions(SessionVerb),
    /// Look at what agents were told
    #[command(subcommand)]
    Commands(CommandVerb),
    /// List, make, import and change users, set passwords
    #[command(subcommand)]
    Users(UserVerb),
    /// List, make, change, suspend, give away and end organizations
    #[command(subcommand)]
    Organizations(OrganizationVerb),
    /// Who belongs to an organization, and with which role
    #[command(subcommand)]
    Members(MemberVerb),
    /// Invites into an organization
    #[command(subcommand)]
    Invites(InviteVerb),
    /// API keys of an organization
    #[command(subcommand)]
    Keys(KeyVerb),
    /// Tokens of the devices that act for a user
    #[command(subcommand)]
    Tokens(TokenVerb),
    /// Groups of an organization's members
    #[command(subcommand)]
    Groups(GroupVerb),
    /// What organizations, members and groups may use
    #[command(subcommand)]
    Quota(QuotaVerb),
    /// Plugins: install, configure, enable and end them, and see what they were told
    #[command(subcommand)]
    Plugins(PluginVerb),
    /// Who did what, with which credential, from where
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Add, list, change, sync and remove repositories of templates and plugins
    #[command(subcommand)]
    Repositories(RepositoryVerb),
    /// The database roles
    Roles {
        /// Print the SQL that a DBA runs once per cluster, as a superuser
        #[arg(long, required = true)]
        sql: bool,
    },
    /// Try out how mails go out
    #[command(subcommand)]
    Mail(MailVerb),
    /// NATS, which carries pipes: look at it, configure your own, change the operator's key, have differences repaired
    #[command(subcommand)]
    Nats(NatsVerb),
    /// Look at engines, migrations, roles, row-level security, the master key, NATS and the mailer
    Doctor,
    /// Write completions for a shell
    #[command(after_help = "For example:\n  \
        tidegate-admin completions bash > ~/.local/share/bash-completion/completions/tidegate-admin")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What to do about mail.
#[derive(Debug, Subcommand)]
pub(crate) enum MailVerb {
    /// Send one mail as the control plane would
    Test {
        /// Whom to send it to
        #[arg(long, value_name = "ADDRESS")]
        to: String,
    },
}

/// What to do with agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    /// Every registered agent, by name
    List {
        /// Only of this platform: vm, docker, kubernetes or cloud
        #[arg(long)]
        platform: Option<Platform>,
        /// Only in this health: online, offline or draining
        #[arg(long)]
        status: Option<AgentStatus>,
        /// Only of this region
        #[arg(long, value_name = "NAME")]
        region: Option<String>,
        /// Only with this approval: pending, approved or rejected
        #[arg(long)]
        approval: Option<ApprovalStatus>,
        /// Only those that serve this organization alone; its id or name
        #[arg(long, value_name = "ORGANIZATION")]
        organization: Option<String>,
    },
    /// One agent with its drain and the age of its key
    Show {
        /// The agent's id
        agent: AgentHandle,
    },
    /// Let a waiting agent connect
    Approve {
        /// The agent's id
        agent: AgentHandle,
        /// Print the agent's key once, for agents that keep no claim token
        #[arg(long)]
        show_key: bool,
    },
    /// Keep a waiting agent out
    Reject {
        /// The agent's id
        agent: AgentHandle,
    },
    /// Give an agent a new key and print it once
    RotateKey {
        /// The agent's id
        agent: AgentHandle,
        /// Seconds that the old key stays good beside it, at most 604800; with 0 it ends at once, and cuts the agent's
        /// connection and its tunnels
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap_seconds: u32,
    },
    /// Take an agent's keys: its connection and tunnels are cut at once, its sessions run on. It comes back with the key
    /// of rotate-key
    RevokeKey {
        /// The agent's id
        agent: AgentHandle,
    },
    /// Place no sessions on an agent, and wake none there
    Drain {
        /// The agent's id
        agent: AgentHandle,
        /// When what still runs is hibernated, or terminated where it has no home: a time such as 2026-12-24T18:00:00Z or
        /// a duration such as 90s, 30m, 8h or 2d. Never without it
        #[arg(long, value_name = "WHEN")]
        deadline: Option<DrainDeadline>,
        /// Why, for other operators
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Place sessions on a drained agent again; what was ended for the drain stays so
    Undrain {
        /// The agent's id
        agent: AgentHandle,
    },
    /// Let an agent serve one organization alone, or all of them
    #[command(group = clap::ArgGroup::new("whom").required(true).args(["organization", "shared"]))]
    Assign {
        /// The agent's id
        agent: AgentHandle,
        /// The organization's id or name; the agent must hold no sessions of others
        #[arg(long, value_name = "ORGANIZATION")]
        organization: Option<String>,
        /// Let it serve all
        #[arg(long)]
        shared: bool,
    },
    /// Remove an agent: its keys and its connection end at once, and its name is free
    Remove {
        /// The agent's id
        agent: AgentHandle,
        /// Even though it holds sessions: they are terminated in the books
        #[arg(long)]
        force: bool,
    },
    /// Give an agent a command; one that is offline gets it when it comes back
    Command {
        /// The agent's id
        agent: AgentHandle,
        /// `start_session`, `stop_session`, `hibernate_session` or `wake_session`
        action: CommandAction,
        /// The session it is about, which must be placed on that agent
        #[arg(long, value_name = "ID")]
        session: Option<SessionId>,
        /// With what: a JSON object, for example '{"template": "shell"}'. It is shown in the history, so never a secret
        #[arg(long, value_name = "JSON")]
        payload: Option<String>,
    },
    /// Sessions that agents run and the platform does not know: list them, or decide what becomes of one
    Quarantine {
        #[command(subcommand)]
        verb: Option<QuarantineVerb>,
    },
}

/// What to do with a session that nobody knows.
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineVerb {
    /// All of them (the default)
    List,
    /// Tell its agent to stop it
    Stop {
        /// The agent's id
        agent: AgentHandle,
        /// The id the agent gave it
        session: String,
    },
    /// Take it off the list; what still runs comes back when its agent reports it again
    Forget {
        /// The agent's id
        agent: AgentHandle,
        /// The id the agent gave it
        session: String,
    },
}

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionVerb {
    /// Sessions of every organization, the newest first
    List {
        /// Only of this organization; its id or name
        #[arg(long, value_name = "ORGANIZATION")]
        organization: Option<String>,
        /// Only of the user of this name
        #[arg(long, value_name = "USERNAME")]
        user: Option<String>,
        /// Only in this state, for example running
        #[arg(long)]
        state: Option<SessionState>,
        /// Only with this tag
        #[arg(long)]
        tag: Option<String>,
        /// Only on this agent
        #[arg(long)]
        agent: Option<AgentHandle>,
        /// Sessions at most
        #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
        limit: usize,
    },
    /// End a session; its owner sees why
    Terminate {
        /// The session's id
        session: SessionId,
        /// Why, for its owner
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// What to do with commands.
#[derive(Debug, Subcommand)]
pub(crate) enum CommandVerb {
    /// The latest commands of an agent, the newest first
    List {
        /// The agent's id
        agent: AgentHandle,
        /// Commands at most, up to 100
        #[arg(long, value_name = "NUMBER", default_value_t = 20)]
        limit: u32,
    },
    /// One command with all its times
    Show {
        /// The command's id, with or without cmd-
        #[arg(value_parser = command_id)]
        command: CommandId,
    },
}

fn command_id(text: &str) -> Result<CommandId, &'static str> {
    CommandId::from_wire(text).ok_or("is no id of a command, for example cmd-01980d4e-…")
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Every user
    List {
        /// Only those with this in their username, name or e-mail address
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Make a local user
    Create {
        /// Username: 3 to 32 of A-Z, a-z, 0-9, - and _
        username: String,
        /// Organization the user is a member of
        #[arg(long, default_value = "main")]
        organization: String,
        /// Role in the organization: `org_admin`, maintainer, user or viewer
        #[arg(long, default_value = "user")]
        org_role: OrgRole,
        /// System-wide role: user, operator or admin
        #[arg(long, default_value = "user")]
        role: SystemRole,
        /// E-mail address
        #[arg(long)]
        email: Option<String>,
        /// Display name [default: the username]
        #[arg(long)]
        full_name: Option<String>,
        /// File the password is read from; if it does not exist, a password is made up and written to it (0600)
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
    /// Take users over from another system: one JSON object a line with username, email, fullName, role, provider,
    /// active, passwordHash (bcrypt or argon2id), organization and orgRole
    Import {
        /// The file; every line is taken or refused by itself
        file: PathBuf,
    },
    /// End a user's logins, keys, invites, sessions and open streams, and let them in no more
    Deactivate {
        /// The username
        username: String,
    },
    /// Let a user in again; nothing that ended comes back
    Activate {
        /// The username
        username: String,
    },
    /// Give a user a role on the platform
    SetRole {
        /// The username
        username: String,
        /// user, operator or admin
        role: SystemRole,
    },
    /// Delete a user; the name stays taken
    Delete {
        /// The username
        username: String,
        /// The username again, because there is no way back
        #[arg(long, value_name = "USERNAME")]
        confirm: String,
    },
    /// Set a user's password and end all their logins and API keys
    #[command(alias = "reset-password")]
    SetPassword {
        /// The username
        username: String,
        /// File the password is read from; if it does not exist, a password is made up and written to it (0600)
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn look(command: &clap::Command, of_all: &[&str]) {
        for argument in command.get_arguments() {
            let name = argument.get_long().unwrap_or_default();
            assert!(!of_all.contains(&name), "--{name} of {}", command.get_name());
        }
        command.get_subcommands().for_each(|verb| look(verb, of_all));
    }

    #[test]
    fn no_verb_takes_a_word_of_all_verbs_for_itself() {
        let command = Args::command();
        let of_all: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert!(of_all.contains(&"config"), "{of_all:?}");
        command.get_subcommands().for_each(|verb| look(verb, &of_all));
    }
}
