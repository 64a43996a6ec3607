//! Invites into an organization (seed B): by username, answered once, good for some days.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Fields, FromFields, InviteId, OrgId, OrgRole, TimeLimit, UserId, text_enum::text_enum, validate_username,
};

text_enum! {
    /// Where an invite stands; all but pending are final (seed B, `InviteStatus`).
    InviteStatus, "invite status" {
        /// Waits for its answer.
        Pending = "pending",
        /// The invitee is a member by it.
        Accepted = "accepted",
        /// The invitee does not want to.
        Declined = "declined",
        /// The organization took it back.
        Revoked = "revoked",
    }
}

/// An invite with the name of its organization (seed B, `Invite` and `InviteWithAccount`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    /// The invite's id.
    pub id: InviteId,
    /// The organization.
    pub org_id: OrgId,
    /// Its name.
    pub org_name: String,
    /// Whom it is for, as it was written.
    pub invitee_username: String,
    /// Who made it.
    pub inviter_user_id: UserId,
    /// Their name.
    pub inviter_username: String,
    /// The role of whoever accepts it.
    pub role: OrgRole,
    /// Pending, accepted, declined or revoked.
    pub status: InviteStatus,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Until when it can be accepted.
    pub expires_at: DateTime<Utc>,
    /// When it was answered or taken back.
    pub decided_at: Option<DateTime<Utc>>,
}

/// Body of `POST organizations/{id}/invites`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateInviteRequest {
    /// In any case; whether there is such a user is not said.
    pub username: String,
    /// The role of whoever accepts it. Default `user`.
    pub role: OrgRole,
    /// How long it can be accepted, at most 30 days. Default 7 days.
    pub expires_in: TimeDelta,
}

/// Days an invite is good for unless it says otherwise.
const DAYS: i64 = 7;

impl FromFields for CreateInviteRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username: Option<String> = fields.required("username");
        let role = fields.optional("role").unwrap_or(OrgRole::User);
        let expires_in = match fields.optional::<TimeLimit>("expiresIn") {
            None => TimeDelta::days(DAYS),
            // A time limit ends after 30 days at most.
            Some(TimeLimit::Seconds(seconds)) => TimeDelta::seconds(i64::from(seconds)),
            Some(TimeLimit::Never) => {
                fields.errors().add("expiresIn", "must end, after at most 30 days");
                TimeDelta::zero()
            }
        };
        if let Some(username) = &username {
            fields.errors().check("username", validate_username(username));
        }
        Some(Self { username: username?, role, expires_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_is_for_a_plain_user_and_a_week_unless_it_says_otherwise() {
        let plain = CreateInviteRequest::from_json(serde_json::json!({"username": "Bob"})).unwrap();
        assert_eq!((plain.role, plain.expires_in), (OrgRole::User, TimeDelta::days(7)));
        let asked = serde_json::json!({"username": "bob", "role": "viewer", "expiresIn": "2h"});
        let asked = CreateInviteRequest::from_json(asked).unwrap();
        assert_eq!((asked.role, asked.expires_in), (OrgRole::Viewer, TimeDelta::hours(2)));
        let bad = serde_json::json!({"username": "a b", "role": "owner", "expiresIn": "0"});
        let bad = CreateInviteRequest::from_json(bad).unwrap_err();
        assert_eq!(bad.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["expiresIn", "role", "username"]);
    }
}
