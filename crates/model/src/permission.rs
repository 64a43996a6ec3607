//! Who may do what: the permission matrix as data. A golden file beside it shows every operation for every role.

use crate::{OrgRole, Scope, SystemRole, text_enum::text_enum};

text_enum! {
    /// Something that needs a right. What is one's own (user, login, sessions) needs none beyond these.
    Operation, "operation" {
        /// See and end one's own sessions.
        OwnSessions = "session.own",
        /// Start and wake sessions.
        StartSessions = "session.start",
        /// See, stop and wake everybody's sessions in the organization.
        ManageSessions = "session.manage",
        /// See the applications that one's groups allow.
        ReadApplications = "application.read",
        /// Install, change and remove applications of the organization, and say which groups may do what with them.
        ManageApplications = "application.manage",
        /// Make an organization and own it.
        CreateOrganization = "organization.create",
        /// See the organization.
        ReadOrganization = "organization.read",
        /// Change the organization's names and settings.
        UpdateOrganization = "organization.update",
        /// Give the organization to another member.
        TransferOrganization = "organization.transfer",
        /// End the organization.
        DeleteOrganization = "organization.delete",
        /// See who is a member.
        ReadMembers = "member.read",
        /// Add and remove members and change their roles.
        ManageMembers = "member.manage",
        /// See, make and revoke invites of the organization.
        ManageInvites = "invite.manage",
        /// See groups, who is in them, and what they and the organization may use.
        ReadGroups = "group.read",
        /// Make, change and end any group of the organization.
        ManageGroups = "group.manage",
        /// Set what members, groups and the organization may use, within what the platform allows it.
        ManageQuotas = "quota.manage",
        /// See the invites one got, accept and decline them.
        AnswerInvites = "invite.answer",
        /// Make, see and revoke API keys of the organization.
        ManageKeys = "key.manage",
        /// Search and export the organization's audit log.
        ReadAudit = "audit.read",
        /// See and change one's own profile, password and logins.
        OwnProfile = "user.own",
        /// See the members of the organization with everything that is known of them.
        ReadUsers = "user.read",
        /// Make users whose home is the organization, change and end them.
        ManageUsers = "user.manage",
        /// Look through templates and plugins that can be installed.
        ReadCatalog = "catalog.read",
        /// Say what one thinks of templates and plugins.
        RateCatalog = "catalog.rate",
        /// See sources and pipes, and read those that one may.
        ReadSources = "source.read",
        /// Send to inboxes, and to the pipes that one may write to.
        SendMessages = "source.send",
        /// Make sources, and change and end one's own, their pipes and who may use them.
        MakeSources = "source.make",
        /// Change and end everybody's sources, their pipes and who may use them; it opens none of them.
        ManageSources = "source.manage",
        /// Approve, drain and command agents.
        ManageAgents = "platform.agent.manage",
        /// Add, change, sync and remove repositories of the catalog.
        ManageRepositories = "platform.repository.manage",
        /// See and end sessions of every organization.
        ManageAllSessions = "platform.session.manage",
        /// Install plugins for the platform or for an organization, configure, enable and end them.
        ManagePlugins = "platform.plugin.manage",
        /// See every organization of the platform.
        ReadAllOrganizations = "platform.organization.read",
        /// Search and export the audit log of the platform and of every organization.
        ReadAllAudit = "platform.audit.read",
        /// Set what organizations may use, and what any member of them may.
        ManageAllQuotas = "platform.quota.manage",
        /// Make organizations for others, change, suspend and end any of them.
        ManageAllOrganizations = "platform.organization.manage",
        /// See every user of the platform, make users, change and end those whose role is not above one's own.
        ManageAllUsers = "platform.user.manage",
        /// Make users who manage an organization, and reset the passwords of those who do: both are ways into it.
        AppointManagers = "platform.user.appoint",
    }
}

/// What an operation needs; every role that has it is named.
enum Needs {
    /// A login is enough.
    Login,
    /// One of these roles in the organization.
    Member(&'static [OrgRole]),
    /// To own the organization.
    Ownership,
    /// One of these roles on the platform.
    Platform(&'static [SystemRole]),
}

/// Where somebody stands when they ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Role on the platform.
    pub system: SystemRole,
    /// Role in the organization of the request, if it has one.
    pub org: Option<OrgRole>,
    /// Whether the organization is theirs.
    pub owner: bool,
}

impl Operation {
    /// The matrix.
    const fn needs(self) -> Needs {
        use OrgRole::{Admin, Maintainer, User, Viewer};
        match self {
            Self::CreateOrganization
            | Self::AnswerInvites
            | Self::OwnProfile
            | Self::ReadCatalog
            | Self::RateCatalog => Needs::Login,
            Self::OwnSessions
            | Self::ReadApplications
            | Self::ReadOrganization
            | Self::ReadMembers
            | Self::ReadGroups
            | Self::ReadSources
            | Self::SendMessages => Needs::Member(&[Admin, Maintainer, User, Viewer]),
            Self::StartSessions | Self::MakeSources => Needs::Member(&[Admin, Maintainer, User]),
            Self::ManageSessions | Self::ManageApplications | Self::ManageSources => {
                Needs::Member(&[Admin, Maintainer])
            }
            Self::UpdateOrganization
            | Self::ManageMembers
            | Self::ManageInvites
            | Self::ManageKeys
            | Self::ReadAudit
            | Self::ManageGroups
            | Self::ManageQuotas
            | Self::ReadUsers
            | Self::ManageUsers => Needs::Member(&[Admin]),
            Self::TransferOrganization | Self::DeleteOrganization => Needs::Ownership,
            Self::ManageAgents
            | Self::ManageRepositories
            | Self::ManageAllSessions
            | Self::ManagePlugins
            | Self::ReadAllOrganizations
            | Self::ReadAllAudit
            | Self::ManageAllQuotas
            | Self::ManageAllUsers => Needs::Platform(&[SystemRole::Operator, SystemRole::Admin]),
            Self::ManageAllOrganizations | Self::AppointManagers => Needs::Platform(&[SystemRole::Admin]),
        }
    }

    /// What an API key needs for it beside its owner's role; none where no key does it: what is about somebody and not
    /// about an organization is theirs to do.
    pub const fn scope(self) -> Option<Scope> {
        match self {
            Self::OwnSessions | Self::ReadCatalog | Self::ReadApplications => Some(Scope::SessionsRead),
            Self::StartSessions | Self::ManageSessions => Some(Scope::SessionsWrite),
            Self::ReadOrganization
            | Self::ReadMembers
            | Self::ReadGroups
            | Self::ReadAudit
            | Self::ReadUsers => Some(Scope::OrgRead),
            Self::UpdateOrganization
            | Self::ManageApplications
            | Self::ManageMembers
            | Self::ManageInvites
            | Self::ManageGroups
            | Self::ManageQuotas
            | Self::ManageUsers => Some(Scope::OrgWrite),
            Self::ReadSources => Some(Scope::PipesRead),
            Self::SendMessages | Self::MakeSources | Self::ManageSources => Some(Scope::PipesWrite),
            Self::ManageKeys => Some(Scope::Keys),
            Self::ManageAgents
            | Self::ManageRepositories
            | Self::ManagePlugins
            | Self::ReadAllOrganizations
            | Self::ReadAllAudit
            | Self::ManageAllSessions
            | Self::ManageAllQuotas
            | Self::ManageAllOrganizations
            | Self::ManageAllUsers => Some(Scope::Admin),
            Self::CreateOrganization
            | Self::TransferOrganization
            | Self::DeleteOrganization
            | Self::AnswerInvites
            | Self::OwnProfile
            | Self::RateCatalog
            | Self::AppointManagers => None,
        }
    }

    /// Whether somebody who stands there may do it. Roles on the platform open nothing inside an organization.
    pub fn allows(self, standing: Standing) -> bool {
        match self.needs() {
            Needs::Login => true,
            Needs::Member(roles) => standing.org.is_some_and(|role| roles.contains(&role)),
            Needs::Ownership => standing.org.is_some() && standing.owner,
            Needs::Platform(roles) => roles.contains(&standing.system),
        }
    }

    /// Who may, for the refusal of somebody who may not.
    pub const fn who(self) -> &'static str {
        match self.needs() {
            Needs::Login => "anybody who is logged in",
            Needs::Member([OrgRole::Admin]) => "an org_admin of the organization",
            Needs::Member([OrgRole::Admin, OrgRole::Maintainer]) => "an org_admin or maintainer",
            Needs::Member(_) => "a member with the role user or higher",
            Needs::Ownership => "the owner of the organization",
            Needs::Platform([SystemRole::Admin]) => "the system role admin",
            Needs::Platform(_) => "the system role operator or admin",
        }
    }

    /// Everything that somebody who stands there may do.
    pub fn allowed(standing: Standing) -> Vec<Self> {
        Self::ALL.iter().copied().filter(|operation| operation.allows(standing)).collect()
    }
}

impl OrgRole {
    /// Whether somebody of this role may give `other` to somebody: nobody grants more than they hold.
    pub fn may_grant(self, other: Self) -> bool {
        // Declared from the most to the least.
        self <= other
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// The columns: the owner, every role of a member, and somebody outside.
    fn columns() -> Vec<(String, Option<OrgRole>, bool)> {
        let mut columns = vec![("owner".to_owned(), Some(OrgRole::Admin), true)];
        columns.extend(OrgRole::ALL.iter().map(|role| (role.to_string(), Some(*role), false)));
        columns.push(("nobody".to_owned(), None, false));
        columns
    }

    #[test]
    fn the_matrix_of_every_role_and_operation_changes_on_purpose_only() {
        let mut text = format!("{:<30}{:<10}", "operation", "system");
        for (name, _, _) in columns() {
            write!(text, "{name:<12}").unwrap();
        }
        for operation in Operation::ALL {
            for system in SystemRole::ALL {
                write!(text, "\n{operation:<30}{system:<10}").unwrap();
                for (_, org, owner) in columns() {
                    let allowed = operation.allows(Standing { system: *system, org, owner });
                    write!(text, "{:<12}", if allowed { "yes" } else { "-" }).unwrap();
                }
            }
        }
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn nobody_grants_more_than_they_hold() {
        for (place, role) in OrgRole::ALL.iter().enumerate() {
            for (other_place, other) in OrgRole::ALL.iter().enumerate() {
                assert_eq!(role.may_grant(*other), place <= other_place, "{role} grants {other}");
            }
        }
    }
}
