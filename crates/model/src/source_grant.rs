//! Who may do what with a source beside its creator.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Fields, FromFields, GroupId, SourceGrantId, SourceId, UserId,
    source::{INBOX, STDCTRL, STDIN, STDOUT},
    text_enum::text_enum,
    validate_username,
};

text_enum! {
    /// What somebody may do with a source.
    SourceRight, "right" {
        /// Read its output and the pipes that were made at it; its inbox stays the creator's.
        Read = "read",
        /// Write to the pipes that were made at it. Its inbox needs no right.
        Write = "write",
        /// Type into its terminal and set the terminal's size.
        Type = "type",
    }
}

impl SourceRight {
    /// The right that reading a pipe needs of anybody but the creator; none where the creator alone reads it.
    pub fn to_read(pipe: &str) -> Option<Self> {
        match pipe {
            INBOX | STDIN | STDCTRL => None,
            _ => Some(Self::Read),
        }
    }

    /// What writing to a pipe needs of anybody but the creator.
    pub fn to_write(pipe: &str) -> Writers {
        match pipe {
            INBOX => Writers::Members,
            STDIN | STDCTRL => Writers::Granted(Self::Type),
            STDOUT => Writers::Creator,
            _ => Writers::Granted(Self::Write),
        }
    }
}

/// Who may write to a pipe beside the creator of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writers {
    /// Every member of the organization.
    Members,
    /// Those who were given this right.
    Granted(SourceRight),
    /// Nobody.
    Creator,
}

/// Something that somebody may do with a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SourceGrant {
    /// The grant's id.
    pub id: SourceGrantId,
    /// The source.
    pub source_id: SourceId,
    /// The member it is for; `null` for a group and for everyone.
    pub user_id: Option<UserId>,
    /// Their username.
    pub user: Option<String>,
    /// The group it is for, with those below it; `null` for a member and for everyone.
    pub group_id: Option<GroupId>,
    /// The group's name.
    pub group: Option<String>,
    /// Whether it is for every member of the organization.
    pub everyone: bool,
    /// What they may do.
    pub right: SourceRight,
    /// Who gave it.
    pub granted_by: UserId,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// Whom a right is given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantTarget {
    /// The member of this id.
    UserId(UserId),
    /// The member of this name, in any case.
    Username(String),
    /// The group of this id, with those below it.
    GroupId(GroupId),
    /// The group of this name, with those below it.
    Group(String),
    /// Every member of the organization.
    Everyone,
}

/// Body of `POST sources/{handle}/grants`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantSourceRequest {
    /// To whom.
    pub to: GrantTarget,
    /// What they may do.
    pub right: SourceRight,
}

impl FromFields for GrantSourceRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let targets = [
            fields.optional("userId").map(GrantTarget::UserId),
            fields.optional("username").map(GrantTarget::Username),
            fields.optional("groupId").map(GrantTarget::GroupId),
            fields.optional("group").map(GrantTarget::Group),
            fields.optional("everyone").and_then(|all: bool| all.then_some(GrantTarget::Everyone)),
        ];
        let right = fields.required("right");
        let mut given = targets.into_iter().flatten();
        let to = match (given.next(), given.next()) {
            (Some(to), None) => Some(to),
            (None, _) => {
                let all = "is required: say `username`, `userId`, `group`, `groupId` or `everyone`";
                fields.errors().add("username", all);
                None
            }
            (Some(_), Some(_)) => {
                let one = "only one of `username`, `userId`, `group`, `groupId` and `everyone` may be there";
                fields.errors().add("username", one);
                None
            }
        };
        if let Some(GrantTarget::Username(name)) = &to {
            fields.errors().check("username", validate_username(name));
        }
        if let Some(GrantTarget::Group(name)) = &to {
            fields.check_length("group", name, 1..=50);
        }
        Some(Self { to: to?, right: right? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_inbox_is_open_to_write_and_the_creators_to_read() {
        assert_eq!(SourceRight::to_read(INBOX), None);
        assert_eq!(SourceRight::to_write(INBOX), Writers::Members);
    }

    #[test]
    fn a_terminal_is_read_by_those_invited_and_typed_into_by_those_trusted() {
        assert_eq!(SourceRight::to_read(STDOUT), Some(SourceRight::Read));
        assert_eq!(SourceRight::to_write(STDOUT), Writers::Creator);
        for pipe in [STDIN, STDCTRL] {
            assert_eq!(SourceRight::to_read(pipe), None, "{pipe}");
            assert_eq!(SourceRight::to_write(pipe), Writers::Granted(SourceRight::Type), "{pipe}");
        }
        assert_eq!(SourceRight::to_read("room"), Some(SourceRight::Read));
        assert_eq!(SourceRight::to_write("room"), Writers::Granted(SourceRight::Write));
    }

    #[test]
    fn a_grant_is_to_one_and_every_bad_field_is_named() {
        let all = GrantSourceRequest::from_json(json!({"everyone": true, "right": "read"})).unwrap();
        assert_eq!(all, GrantSourceRequest { to: GrantTarget::Everyone, right: SourceRight::Read });
        let one = GrantSourceRequest::from_json(json!({"username": "ada", "right": "type"})).unwrap();
        assert_eq!(one.to, GrantTarget::Username("ada".into()));
        let fields = |body| {
            let errors = GrantSourceRequest::from_json(body).unwrap_err();
            errors.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(fields(json!({"everyone": false})), ["right", "username"]);
        assert_eq!(fields(json!({"everyone": true, "group": "crew", "right": "read"})), ["username"]);
        assert_eq!(
            fields(json!({"username": "a b", "right": "own", "odd": 1})),
            ["odd", "right", "username"]
        );
        assert_eq!(fields(json!({"group": "", "right": "read"})), ["group"]);
    }
}
