//! Groups of the organization of the request.

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tidegate_model::{Group, GroupId, GroupMembership, GroupRole, GroupType, UserId};

use crate::{Client, Error, call::Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One page of groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupPage {
    /// By name.
    pub groups: Vec<Group>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// One page of who is in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupMemberPage {
    /// In joining order.
    pub members: Vec<GroupMembership>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// One page of the groups that somebody is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserGroupPage {
    /// By name of the group.
    pub groups: Vec<GroupMembership>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// A group to make.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewGroup {
    /// 3–50 of `a-z 0-9 -`.
    pub name: String,
    /// 3–100 characters.
    pub display_name: String,
    /// At most 500 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Team, department or project.
    #[serde(rename = "type")]
    pub kind: GroupType,
    /// The group above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<GroupId>,
}

/// What changes; what is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupChange {
    /// 3–100 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// At most 500 characters; an empty one clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Team, department or project.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<GroupType>,
    /// The group above it; `Some(None)` moves it to the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<Option<GroupId>>,
}

impl Client {
    /// `GET groups`, one page: at most 100, from `cursor` on.
    pub async fn groups(&self, cursor: Option<&str>) -> Result<GroupPage, Error> {
        let call = Call::get(&["groups"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST groups`, with a key of its own: an answer that was lost is asked for again.
    pub async fn create_group(&self, new: &NewGroup) -> Result<Group, Error> {
        let key = uuid::Uuid::new_v4().to_string();
        let key = HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("0"));
        self.fetch(Call::post(&["groups"]).json(new)?.header(IDEMPOTENCY_KEY, key).repeatable()).await
    }

    /// `GET groups/{id}`.
    pub async fn group(&self, id: GroupId) -> Result<Group, Error> {
        self.fetch(Call::get(&["groups", &id.to_string()])).await
    }

    /// `PATCH groups/{id}`.
    pub async fn update_group(&self, id: GroupId, change: &GroupChange) -> Result<Group, Error> {
        self.fetch(Call::new(Method::PATCH, &["groups", &id.to_string()]).json(change)?).await
    }

    /// `DELETE groups/{id}`; 409 while there are groups below it, unless `lift` hangs these under its own parent.
    pub async fn delete_group(&self, id: GroupId, lift: bool) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, &["groups", &id.to_string()]);
        self.send(&call.query_if("children", lift.then_some("lift"))).await.map(drop)
    }

    /// `GET groups/{id}/members`, one page: at most 100, from `cursor` on.
    pub async fn group_members(&self, id: GroupId, cursor: Option<&str>) -> Result<GroupMemberPage, Error> {
        let call = Call::get(&["groups", &id.to_string(), "members"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST groups/{id}/members`: a repeat gives the role.
    pub async fn add_group_member(
        &self,
        id: GroupId,
        user: UserId,
        role: GroupRole,
    ) -> Result<GroupMembership, Error> {
        let body = serde_json::json!({"userId": user, "role": role});
        self.fetch(Call::post(&["groups", &id.to_string(), "members"]).json(&body)?.repeatable()).await
    }

    /// `PATCH groups/{id}/members/{userId}`.
    pub async fn set_group_role(
        &self,
        id: GroupId,
        user: UserId,
        role: GroupRole,
    ) -> Result<GroupMembership, Error> {
        let path = ["groups", &id.to_string(), "members", &user.to_string()];
        self.fetch(Call::new(Method::PATCH, &path).json(&serde_json::json!({"role": role}))?).await
    }

    /// `DELETE groups/{id}/members/{userId}`.
    pub async fn remove_group_member(&self, id: GroupId, user: UserId) -> Result<(), Error> {
        let path = ["groups", &id.to_string(), "members", &user.to_string()];
        self.send(&Call::new(Method::DELETE, &path)).await.map(drop)
    }

    /// `GET users/{id}/groups`, one page: at most 100, from `cursor` on.
    pub async fn groups_of(&self, user: UserId, cursor: Option<&str>) -> Result<UserGroupPage, Error> {
        let call = Call::get(&["users", &user.to_string(), "groups"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }
}
