//! The words about groups and quotas.

use clap::{Args as ClapArgs, Subcommand};
use tidegate_model::{GroupRole, GroupType, Quantity};

/// `groups …`.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// List the groups of the organization
    #[command(alias = "ls")]
    List,
    /// Make a group
    Create(NewGroup),
    /// Show a group with its quota
    Show(GroupArg),
    /// Change a group
    Update(GroupChange),
    /// End a group; groups below it keep it from that
    #[command(alias = "rm")]
    Delete {
        #[command(flatten)]
        group: GroupArg,
        /// Hang groups below it under its own parent.
        #[arg(long)]
        lift: bool,
    },
    /// Show who is in a group
    Members(GroupArg),
    /// Put a member of the organization into a group, or give somebody in it a role
    Add {
        #[command(flatten)]
        group: GroupArg,
        /// Username in any case.
        username: String,
        /// `member`, `admin` or `owner`.
        #[arg(long, default_value = "member")]
        role: GroupRole,
    },
    /// Take somebody out of a group
    Remove {
        #[command(flatten)]
        group: GroupArg,
        /// Username in any case.
        username: String,
    },
}

/// A group.
#[derive(Debug, ClapArgs)]
pub(crate) struct GroupArg {
    /// Id or name.
    pub(crate) group: String,
}

/// `groups create`.
#[derive(Debug, ClapArgs)]
pub(crate) struct NewGroup {
    /// 3 to 50 of a-z, 0-9 and -.
    pub(crate) name: String,
    /// For people; the name where absent.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// `team`, `department` or `project`.
    #[arg(long = "type", value_name = "TYPE", default_value = "team")]
    pub(crate) kind: GroupType,
    /// The group above it, by id or name.
    #[arg(long, value_name = "GROUP")]
    pub(crate) parent: Option<String>,
}

/// `groups update`.
#[derive(Debug, ClapArgs)]
pub(crate) struct GroupChange {
    #[command(flatten)]
    pub(crate) group: GroupArg,
    #[command(flatten)]
    pub(crate) what: GroupChanges,
}

/// What of a group changes.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct GroupChanges {
    /// For people.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// What it is for; an empty text clears it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// `team`, `department` or `project`.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<GroupType>,
    /// The group above it, by id or name.
    #[arg(long, value_name = "GROUP", conflicts_with = "top")]
    pub(crate) parent: Option<String>,
    /// Move it to the top.
    #[arg(long)]
    pub(crate) top: bool,
}

/// `quota …`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaVerb {
    /// Show what you, a member, a group or the organization may use, and use
    Show(Whose),
    /// Set it, as far as it is given
    Set {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        limits: Limits,
    },
    /// Go back to the default
    Reset(Whose),
    /// Ask whether a session could be started now
    Check {
        /// CPU, for example 500m.
        #[arg(long, value_name = "QUANTITY")]
        cpu: Option<Quantity>,
        /// Memory, for example 2Gi.
        #[arg(long, value_name = "QUANTITY")]
        memory: Option<Quantity>,
        /// Storage of a persistent home, for example 10Gi.
        #[arg(long, value_name = "QUANTITY")]
        storage: Option<Quantity>,
        /// With a persistent home.
        #[arg(long)]
        home: bool,
        /// For this member instead of you.
        #[arg(long, value_name = "USERNAME")]
        user: Option<String>,
    },
    /// Show what there is of the organization and what it uses
    Usage,
}

/// Whose quota is meant: one's own where nothing is said.
#[derive(Debug, ClapArgs)]
#[group(multiple = false)]
pub(crate) struct Whose {
    /// That of a member.
    #[arg(long, value_name = "USERNAME")]
    pub(crate) user: Option<String>,
    /// That of a group, by id or name.
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// That of the organization.
    #[arg(long)]
    pub(crate) organization: bool,
}

/// Bounds to set.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct Limits {
    /// Active sessions, or `unlimited`.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) sessions: Option<Bound<u32>>,
    /// CPU of active sessions, for example 4000m, or `unlimited`.
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) cpu: Option<Bound<Quantity>>,
    /// Memory of active sessions, for example 8Gi, or `unlimited`.
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) memory: Option<Bound<Quantity>>,
    /// Persistent homes, for example 50Gi, or `unlimited`.
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) storage: Option<Bound<Quantity>>,
}

/// A bound; none for `unlimited`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound<T>(pub(crate) Option<T>);

impl<T: std::str::FromStr> std::str::FromStr for Bound<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unlimited" { Ok(Self(None)) } else { text.parse().map(|bound| Self(Some(bound))) }
    }
}
