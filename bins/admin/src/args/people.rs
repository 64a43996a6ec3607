//! The words about organizations and whoever is in them: members, invites, keys, tokens and groups.

use clap::{Args as ClapArgs, Subcommand};
use tidegate_model::{ApiKeyId, BearerTokenId, GroupRole, GroupType, InviteId, OrgRole};

/// What to do with organizations.
#[derive(Debug, Subcommand)]
pub(crate) enum OrganizationVerb {
    /// Every organization that has not ended, by name
    List,
    /// One organization with what there is of it and what it uses
    Show {
        /// Its id or name
        organization: String,
    },
    /// Make an organization
    Create {
        /// Its name: a-z, 0-9 and -
        name: String,
    },
    /// Change what an organization calls itself
    Update(OrganizationChange),
    /// Let nobody into an organization and start no session in it
    Suspend {
        /// Its id or name
        organization: String,
    },
    /// Let a suspended organization go on
    Activate {
        /// Its id or name
        organization: String,
    },
    /// Give an organization, which may be nobody's, to one of its members
    Transfer {
        /// Its id or name
        organization: String,
        /// The member's username
        username: String,
    },
    /// End an organization: its sessions stop, its keys and invites end, and nobody gets in any more
    Delete {
        /// Its id or name
        organization: String,
        /// The name again, because there is no way back
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
}

/// `organizations update`.
#[derive(Debug, ClapArgs)]
pub(crate) struct OrganizationChange {
    /// Its id or name
    pub(crate) organization: String,
    #[command(flatten)]
    pub(crate) what: OrganizationChanges,
}

/// What of an organization changes.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct OrganizationChanges {
    /// For people, 3 to 100 characters
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// What it is for; an empty text clears it
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Namespace of its sessions on Kubernetes agents
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// `--organization`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Inside {
    /// The organization's id or name
    #[arg(long, value_name = "ORGANIZATION")]
    pub(crate) organization: String,
}

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberVerb {
    /// Members of an organization in joining order
    List {
        #[command(flatten)]
        inside: Inside,
    },
    /// Make a user a member, or give a member a role
    Add {
        /// The username, in any case
        username: String,
        /// `org_admin`, maintainer, user or viewer
        #[arg(long, default_value = "user")]
        role: OrgRole,
        #[command(flatten)]
        inside: Inside,
    },
    /// Give a member another role
    SetRole {
        /// The username, in any case
        username: String,
        /// `org_admin`, maintainer, user or viewer
        role: OrgRole,
        #[command(flatten)]
        inside: Inside,
    },
    /// End a membership with its sessions, keys and tokens
    Remove {
        /// The username, in any case
        username: String,
        #[command(flatten)]
        inside: Inside,
    },
}

/// What to do with invites.
#[derive(Debug, Subcommand)]
pub(crate) enum InviteVerb {
    /// Invites of an organization, answered ones too, the newest first
    List {
        #[command(flatten)]
        inside: Inside,
    },
    /// Invite somebody, whether or not there is such a user, in the name of the organization's owner
    Create {
        /// The username, in any case
        username: String,
        /// Role of whoever accepts it: `org_admin`, maintainer, user or viewer
        #[arg(long, default_value = "user")]
        role: OrgRole,
        /// How long it can be accepted, for example 2h or 30d [default: 7d]
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
        #[command(flatten)]
        inside: Inside,
    },
    /// Take a pending invite back
    Revoke {
        /// Its id, as `invites list` shows it
        invite: InviteId,
        #[command(flatten)]
        inside: Inside,
    },
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// API keys of an organization, those that stand first
    List {
        #[command(flatten)]
        inside: Inside,
    },
    /// Revoke an API key: from the next request on it opens nothing
    Revoke {
        /// Its id, as `keys list` shows it
        key: ApiKeyId,
        #[command(flatten)]
        inside: Inside,
    },
}

/// What to do with tokens of devices.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Bearer tokens of a user's devices, revoked ones too, the newest first
    List {
        /// The username
        #[arg(long, value_name = "USERNAME")]
        user: String,
    },
    /// Revoke a user's tokens: from the next request on they open nothing
    Revoke {
        /// Their ids, as `tokens list` shows them
        #[arg(required = true, value_name = "ID")]
        tokens: Vec<BearerTokenId>,
        /// The username
        #[arg(long, value_name = "USERNAME")]
        user: String,
    },
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// Groups of an organization by name
    List {
        #[command(flatten)]
        inside: Inside,
    },
    /// One group with its quota
    Show {
        #[command(flatten)]
        group: GroupArg,
    },
    /// Make a group
    Create {
        /// Its name: 3 to 50 of a-z, 0-9 and -
        name: String,
        /// For people [default: the name]
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// team, department or project
        #[arg(long = "type", value_name = "TYPE", default_value = "team")]
        kind: GroupType,
        /// The group above it, by id or name
        #[arg(long, value_name = "GROUP")]
        parent: Option<String>,
        #[command(flatten)]
        inside: Inside,
    },
    /// Change a group
    Update {
        #[command(flatten)]
        group: GroupArg,
        #[command(flatten)]
        what: GroupChanges,
    },
    /// End a group; groups below it keep it from that
    Delete {
        #[command(flatten)]
        group: GroupArg,
        /// Hang groups below it under its own parent
        #[arg(long)]
        lift: bool,
    },
    /// Who is in a group
    Members {
        #[command(flatten)]
        group: GroupArg,
    },
    /// Put a member of the organization into a group, or give somebody in it a role
    Add {
        #[command(flatten)]
        group: GroupArg,
        /// The username, in any case
        username: String,
        /// member, admin or owner
        #[arg(long, default_value = "member")]
        role: GroupRole,
    },
    /// Take somebody out of a group
    Remove {
        #[command(flatten)]
        group: GroupArg,
        /// The username, in any case
        username: String,
    },
}

/// A group.
#[derive(Debug, ClapArgs)]
pub(crate) struct GroupArg {
    /// Its id or name
    pub(crate) group: String,
    #[command(flatten)]
    pub(crate) inside: Inside,
}

/// What of a group changes.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct GroupChanges {
    /// For people
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// What it is for; an empty text clears it
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// team, department or project
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<GroupType>,
    /// The group above it, by id or name
    #[arg(long, value_name = "GROUP", conflicts_with = "top")]
    pub(crate) parent: Option<String>,
    /// Move it to the top
    #[arg(long)]
    pub(crate) top: bool,
}
