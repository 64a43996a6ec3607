//! Groups of an organization's members, in a hierarchy (seed A).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Fields, FromFields, GroupId, GroupMembershipId, GroupQuota, OrgId, PatchField, UserId,
    text_enum::text_enum, validate_org_name,
};

text_enum! {
    /// What a group is.
    GroupType, "group type" {
        /// A small working group.
        Team = "team",
        /// A part of the organization.
        Department = "department",
        /// People of one project.
        Project = "project",
    }
}

text_enum! {
    /// A member's role within a group, and within the groups below it.
    GroupRole, "group role" {
        /// Everything, and ending the group.
        Owner = "owner",
        /// Settings and members, owners left aside.
        Admin = "admin",
        /// Belongs to it.
        Member = "member",
    }
}

impl GroupRole {
    /// Whether the role changes the group's settings and members.
    pub const fn manages(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// Whether somebody of this role may give `other` to somebody, or take it away: nobody reaches above themselves.
    pub fn may_grant(self, other: Self) -> bool {
        // Declared from the most to the least.
        self.manages() && self <= other
    }
}

/// Groups above each other at most, the lowest one included.
pub const GROUP_DEPTH: i64 = 8;

/// A group (seed A, `Group`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The group's id.
    pub id: GroupId,
    /// Its organization.
    pub org_id: OrgId,
    /// Unique in the organization; lower case alone, so that no two differ by case.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Team, department or project.
    #[serde(rename = "type")]
    pub kind: GroupType,
    /// The group above it.
    pub parent_id: Option<GroupId>,
    /// Its own members; those of groups below it are not among them.
    pub member_count: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Last change of the group itself.
    pub updated_at: DateTime<Utc>,
    /// Its quota, where one is set and the group is asked for alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<GroupQuota>,
}

/// Somebody in a group (seed A, `GroupMembership`); a user is in a group once, so that both ids together are its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GroupMembership {
    /// The membership's own id.
    pub id: GroupMembershipId,
    /// The group.
    pub group_id: GroupId,
    /// Its name.
    pub group_name: String,
    /// The member.
    pub user_id: UserId,
    /// Their name.
    pub username: String,
    /// Role in the group.
    pub role: GroupRole,
    /// When they became a member.
    pub created_at: DateTime<Utc>,
}

/// Body of `POST groups` (seed A, `CreateGroupRequest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateGroupRequest {
    /// 3–50 of `a-z 0-9 -`.
    pub name: String,
    /// 3–100 characters.
    pub display_name: String,
    /// At most 500 characters.
    pub description: String,
    /// Team, department or project.
    pub kind: GroupType,
    /// The group above it.
    pub parent_id: Option<GroupId>,
}

const DISPLAY_NAME: std::ops::RangeInclusive<usize> = 3..=100;
const DESCRIPTION: std::ops::RangeInclusive<usize> = 0..=500;

impl FromFields for CreateGroupRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name: Option<String> = fields.required("name");
        let display_name: Option<String> = fields.required("displayName");
        let description: String = fields.optional("description").unwrap_or_default();
        let kind = fields.required("type");
        let parent_id = fields.optional("parentId");
        if let Some(name) = &name {
            fields.errors().check("name", validate_org_name(name));
        }
        if let Some(text) = &display_name {
            fields.check_length("displayName", text, DISPLAY_NAME);
        }
        fields.check_length("description", &description, DESCRIPTION);
        Some(Self { name: name?, display_name: display_name?, description, kind: kind?, parent_id })
    }
}

/// Body of `PATCH groups/{id}` (seed A, `UpdateGroupRequest`): what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateGroupRequest {
    /// 3–100 characters.
    pub display_name: Option<String>,
    /// At most 500 characters; `null` clears it.
    pub description: Option<String>,
    /// Team, department or project.
    pub kind: Option<GroupType>,
    /// The group above it; `null` moves it to the top.
    pub parent_id: PatchField<GroupId>,
}

impl FromFields for UpdateGroupRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let display_name: Option<String> = not_null(fields, "displayName");
        let description = match fields.patch::<String>("description") {
            PatchField::Absent => None,
            PatchField::Clear => Some(String::new()),
            PatchField::Set(text) => Some(text),
        };
        let kind = not_null(fields, "type");
        let parent_id = fields.patch("parentId");
        if let Some(text) = &display_name {
            fields.check_length("displayName", text, DISPLAY_NAME);
        }
        if let Some(text) = &description {
            fields.check_length("description", text, DESCRIPTION);
        }
        Some(Self { display_name, description, kind, parent_id })
    }
}

fn not_null<T: serde::de::DeserializeOwned>(fields: &mut Fields, name: &str) -> Option<T> {
    match fields.patch(name) {
        PatchField::Absent => None,
        PatchField::Clear => {
            fields.errors().add(name, "cannot be null");
            None
        }
        PatchField::Set(value) => Some(value),
    }
}

/// Body of `POST groups/{id}/members` (seed A, `AddGroupMemberRequest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddGroupMemberRequest {
    /// Who is to be in it, a member of the organization.
    pub user_id: UserId,
    /// In which role. Default `member`.
    pub role: GroupRole,
}

impl FromFields for AddGroupMemberRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let user_id = fields.required("userId");
        let role = fields.optional("role").unwrap_or(GroupRole::Member);
        Some(Self { user_id: user_id?, role })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_group_names_every_bad_field() {
        let bad = json!({"name": "A b", "displayName": "é", "description": "x".repeat(501), "type": "gang", "parentId": "x"});
        let bad = CreateGroupRequest::from_json(bad).unwrap_err();
        let names: Vec<&str> = bad.iter().map(|(field, _)| field).collect();
        assert_eq!(names, ["description", "displayName", "name", "parentId", "type"]);
        let missing = CreateGroupRequest::from_json(json!({})).unwrap_err();
        assert_eq!(
            missing.iter().map(|(field, _)| field).collect::<Vec<_>>(),
            ["displayName", "name", "type"]
        );
    }

    #[test]
    fn a_change_clears_description_and_parent_alone() {
        let clear = UpdateGroupRequest::from_json(json!({"description": null, "parentId": null})).unwrap();
        assert_eq!((clear.description.as_deref(), clear.parent_id), (Some(""), PatchField::Clear));
        let bad = UpdateGroupRequest::from_json(json!({"displayName": null, "type": null, "name": "x"}))
            .unwrap_err();
        assert_eq!(bad.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["displayName", "name", "type"]);
    }

    #[test]
    fn nobody_in_a_group_grants_more_than_they_hold() {
        use GroupRole::{Admin, Member, Owner};
        let granted = |role: GroupRole| GroupRole::ALL.iter().filter(|other| role.may_grant(**other)).count();
        assert_eq!((granted(Owner), granted(Admin), granted(Member)), (3, 2, 0));
        assert!(!Admin.may_grant(Owner) && Admin.may_grant(Member));
    }
}
