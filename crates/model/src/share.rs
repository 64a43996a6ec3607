//! Sharing a session: who may watch or use it beside its owner, and until when.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Fields, FromFields, GroupId, SessionId, ShareId, StreamMode, TimeLimit, UserId, validate_username,
};

/// A session that is shared with somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SessionShare {
    /// The share's id.
    pub id: ShareId,
    /// The session.
    pub session_id: SessionId,
    /// The user it is shared with; `null` for a group.
    pub user_id: Option<UserId>,
    /// Their username.
    pub user: Option<String>,
    /// The group it is shared with; `null` for a user.
    pub group_id: Option<GroupId>,
    /// The group's name.
    pub group: Option<String>,
    /// What they may do.
    pub mode: StreamMode,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// Until when; `null` lasts as long as the session.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What somebody may do with a session of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SharedWith {
    /// Watch, or watch and type.
    pub mode: StreamMode,
    /// Until when; `null` lasts as long as the session.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Whom a session is shared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareTarget {
    /// The member of this id.
    UserId(UserId),
    /// The member of this name, in any case.
    Username(String),
    /// The group of this id, with those below it.
    GroupId(GroupId),
    /// The group of this name, with those below it.
    Group(String),
}

/// Body of `POST sessions/{id}/shares`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateShareRequest {
    /// With whom.
    pub with: ShareTarget,
    /// What they may do. Default `view`.
    pub mode: StreamMode,
    /// For how long; none lasts as long as the session.
    pub expires_in: Option<TimeDelta>,
}

impl FromFields for CreateShareRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let targets = [
            fields.optional("userId").map(ShareTarget::UserId),
            fields.optional("username").map(ShareTarget::Username),
            fields.optional("groupId").map(ShareTarget::GroupId),
            fields.optional("group").map(ShareTarget::Group),
        ];
        let mode = fields.optional("mode").unwrap_or(StreamMode::View);
        let expires_in = match fields.optional::<TimeLimit>("expiresIn") {
            None | Some(TimeLimit::Never) => None,
            Some(TimeLimit::Seconds(seconds)) => Some(TimeDelta::seconds(i64::from(seconds))),
        };
        let mut given = targets.into_iter().flatten();
        let with = match (given.next(), given.next()) {
            (Some(with), None) => Some(with),
            (None, _) => {
                fields
                    .errors()
                    .add("username", "is required: say `username`, `userId`, `group` or `groupId`");
                None
            }
            (Some(_), Some(_)) => {
                fields
                    .errors()
                    .add("username", "only one of `username`, `userId`, `group` and `groupId` may be there");
                None
            }
        };
        if let Some(ShareTarget::Username(name)) = &with {
            fields.errors().check("username", validate_username(name));
        }
        if let Some(ShareTarget::Group(name)) = &with {
            fields.check_length("group", name, 1..=50);
        }
        Some(Self { with: with?, mode, expires_in })
    }
}

/// Body of `POST sessions/{id}/disconnect`: whose viewing of it ends. Without either, the caller's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisconnectRequest {
    /// The member of this id.
    pub user_id: Option<UserId>,
    /// The member of this name, in any case.
    pub username: Option<String>,
}

impl FromFields for DisconnectRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (user_id, username) = (fields.optional("userId"), fields.optional::<String>("username"));
        if let Some(name) = &username {
            fields.errors().check("username", validate_username(name));
            if user_id.is_some() {
                fields.errors().add("username", "only one of `username` and `userId` may be there");
            }
        }
        Some(Self { user_id, username })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_share_is_to_view_and_for_ever_unless_it_says_otherwise() {
        let plain = CreateShareRequest::from_json(json!({"username": "ada"})).unwrap();
        assert_eq!(plain.with, ShareTarget::Username("ada".into()));
        assert_eq!((plain.mode, plain.expires_in), (StreamMode::View, None));
        let asked = json!({"group": "crew", "mode": "control", "expiresIn": "2h"});
        let asked = CreateShareRequest::from_json(asked).unwrap();
        assert_eq!((asked.mode, asked.expires_in), (StreamMode::Control, Some(TimeDelta::hours(2))));
    }

    #[test]
    fn whoever_names_nobody_means_themselves_and_nobody_names_two() {
        assert_eq!(DisconnectRequest::from_json(json!({})).unwrap(), DisconnectRequest::default());
        let named = DisconnectRequest::from_json(json!({"username": "ada"})).unwrap();
        assert_eq!(named.username.as_deref(), Some("ada"));
        let two = json!({"username": "a b", "userId": UserId::new(), "odd": 1});
        let errors = DisconnectRequest::from_json(two).unwrap_err();
        assert_eq!(errors.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["odd", "username"]);
    }

    #[test]
    fn a_share_is_with_one_and_every_bad_field_is_named() {
        let fields = |body| {
            let errors = CreateShareRequest::from_json(body).unwrap_err();
            errors.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(fields(json!({"mode": "own", "expiresIn": "1s"})), ["expiresIn", "mode", "username"]);
        assert_eq!(fields(json!({"username": "ada", "group": "crew"})), ["username"]);
        assert_eq!(fields(json!({"username": "a b", "odd": 1})), ["odd", "username"]);
        assert_eq!(fields(json!({"group": ""})), ["group"]);
    }
}
