//! The words about organizations, members and invites.

use clap::{Args as ClapArgs, Subcommand};
use tidegate_model::{InviteId, OrgRole};

use super::sharing::OrgPolicy;

/// `org …`.
#[derive(Debug, Subcommand)]
pub(crate) enum OrgVerb {
    /// List your organizations
    #[command(alias = "ls")]
    List,
    /// Make an organization of your own
    Create(NewOrg),
    /// Show an organization
    Show(OrgArg),
    /// Change an organization
    Update(OrgChange),
    /// End an organization of yours: its sessions stop, and nobody gets in any more
    Delete {
        /// Id or name.
        organization: String,
        /// The name again, because there is no way back.
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
    /// Show what ends or hibernates the organization's sessions by themselves, or set it
    Policy(OrgPolicy),
    /// Choose the organization of all that follows
    Switch {
        /// Id or name.
        organization: String,
    },
    /// Give an organization of yours to another member
    Transfer {
        /// Username of the member.
        username: String,
        #[command(flatten)]
        org: InOrg,
    },
}

/// An organization, the chosen one where absent.
#[derive(Debug, ClapArgs)]
pub(crate) struct OrgArg {
    /// Id or name; the chosen organization where absent.
    pub(crate) organization: Option<String>,
}

/// `--org`.
#[derive(Debug, ClapArgs)]
pub(crate) struct InOrg {
    /// Id or name; the chosen organization where absent.
    #[arg(long, value_name = "ORGANIZATION")]
    pub(crate) org: Option<String>,
}

/// `org create`.
#[derive(Debug, ClapArgs)]
pub(crate) struct NewOrg {
    /// 3 to 50 of a-z, 0-9 and -.
    pub(crate) name: String,
    /// For people; the name where absent.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Namespace of its sessions on Kubernetes agents.
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// `org update`.
#[derive(Debug, ClapArgs)]
pub(crate) struct OrgChange {
    #[command(flatten)]
    pub(crate) organization: OrgArg,
    #[command(flatten)]
    pub(crate) changes: OrgChanges,
}

/// What changes of an organization: at least one.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct OrgChanges {
    /// For people.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// What it is for; an empty text clears it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Namespace of its sessions on Kubernetes agents.
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// `members …`.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberVerb {
    /// List members in joining order
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        org: InOrg,
    },
    /// Make somebody a member, or give a member a role
    Add(MemberRole),
    /// Change a member's role
    SetRole(MemberRole),
    /// End a membership with its sessions
    #[command(alias = "rm")]
    Remove {
        /// Username.
        username: String,
        #[command(flatten)]
        org: InOrg,
    },
}

/// A member and a role.
#[derive(Debug, ClapArgs)]
pub(crate) struct MemberRole {
    /// Username in any case.
    pub(crate) username: String,
    /// `org_admin`, `maintainer`, `user` or `viewer`.
    #[arg(long, default_value = "user")]
    pub(crate) role: OrgRole,
    #[command(flatten)]
    pub(crate) org: InOrg,
}

/// `invites …`.
#[derive(Debug, Subcommand)]
pub(crate) enum InviteVerb {
    /// List the pending invites for you, or those of an organization
    #[command(alias = "ls")]
    List {
        /// Those of this organization instead.
        #[arg(long, value_name = "ORGANIZATION")]
        org: Option<String>,
    },
    /// Invite somebody
    Create {
        #[command(flatten)]
        who: MemberRole,
        /// How long it can be accepted, 1m to 30d; 7d where absent.
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
    },
    /// Accept an invite
    Accept(InviteArg),
    /// Decline an invite
    Decline(InviteArg),
    /// Take an invite back
    Revoke {
        #[command(flatten)]
        invite: InviteArg,
        #[command(flatten)]
        org: InOrg,
    },
}

/// An invite.
#[derive(Debug, ClapArgs)]
pub(crate) struct InviteArg {
    /// Its id.
    pub(crate) invite: InviteId,
}
