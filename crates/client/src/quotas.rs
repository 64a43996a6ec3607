//! Quotas of members, groups and organizations.

use reqwest::Method;
use serde::Serialize;
use tidegate_model::{
    GroupId, GroupQuota, OrganizationQuota, OrganizationUsage, QuotaVerdict, ResourceRequest, UserId,
    UserQuota,
};

use crate::{Client, Error, call::Call};

/// What a quota becomes: `None` stays, `Some(None)` is unlimited.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaChange {
    /// Active sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<Option<u32>>,
    /// CPU of active sessions, for example `4000m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cpu: Option<Option<String>>,
    /// Memory of active sessions, for example `8Gi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Option<String>>,
    /// Persistent homes, for example `50Gi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_storage: Option<Option<String>>,
}

/// The session that one would ask for.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaQuestion {
    /// What it needs; what is absent comes from the template.
    pub resources: ResourceRequest,
    /// Whether its home outlives it.
    pub persistent_home: bool,
    /// For which member, by username; oneself where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Client {
    /// `GET users/{id}/quota`.
    pub async fn user_quota(&self, user: UserId) -> Result<UserQuota, Error> {
        self.fetch(Call::get(&["users", &user.to_string(), "quota"])).await
    }

    /// `PUT users/{id}/quota`.
    pub async fn set_user_quota(&self, user: UserId, change: &QuotaChange) -> Result<UserQuota, Error> {
        self.fetch(put(&["users", &user.to_string(), "quota"]).json(change)?).await
    }

    /// `DELETE users/{id}/quota`: the platform's default again.
    pub async fn reset_user_quota(&self, user: UserId) -> Result<(), Error> {
        self.send(&delete(&["users", &user.to_string(), "quota"])).await.map(drop)
    }

    /// `GET groups/{id}/quota`.
    pub async fn group_quota(&self, group: GroupId) -> Result<GroupQuota, Error> {
        self.fetch(Call::get(&["groups", &group.to_string(), "quota"])).await
    }

    /// `PUT groups/{id}/quota`.
    pub async fn set_group_quota(&self, group: GroupId, change: &QuotaChange) -> Result<GroupQuota, Error> {
        self.fetch(put(&["groups", &group.to_string(), "quota"]).json(change)?).await
    }

    /// `DELETE groups/{id}/quota`.
    pub async fn reset_group_quota(&self, group: GroupId) -> Result<(), Error> {
        self.send(&delete(&["groups", &group.to_string(), "quota"])).await.map(drop)
    }

    /// `GET organizations/{id}/quota`.
    pub async fn organization_quota(&self, organization: &str) -> Result<OrganizationQuota, Error> {
        self.fetch(Call::get(&["organizations", organization, "quota"])).await
    }

    /// `PUT organizations/{id}/quota`, within the platform's ceiling.
    pub async fn set_organization_quota(
        &self,
        organization: &str,
        change: &QuotaChange,
    ) -> Result<OrganizationQuota, Error> {
        self.fetch(put(&["organizations", organization, "quota"]).json(change)?).await
    }

    /// `DELETE organizations/{id}/quota`; the platform's ceiling stays.
    pub async fn reset_organization_quota(&self, organization: &str) -> Result<(), Error> {
        self.send(&delete(&["organizations", organization, "quota"])).await.map(drop)
    }

    /// `GET organizations/{id}/usage`.
    pub async fn organization_usage(&self, organization: &str) -> Result<OrganizationUsage, Error> {
        self.fetch(Call::get(&["organizations", organization, "usage"])).await
    }

    /// `POST quotas/check`: a dry run.
    pub async fn check_quota(&self, question: &QuotaQuestion) -> Result<QuotaVerdict, Error> {
        self.fetch(Call::post(&["quotas", "check"]).json(question)?.repeatable()).await
    }

    /// `GET admin/quotas/{username}`, for operators.
    pub async fn quota_of(&self, username: &str, organization: Option<&str>) -> Result<UserQuota, Error> {
        let call = Call::get(&["admin", "quotas", username]);
        self.fetch(call.query_if("organization", organization)).await
    }

    /// `PUT admin/quotas/{username}`, for operators.
    pub async fn set_quota_of(
        &self,
        username: &str,
        organization: Option<&str>,
        change: &QuotaChange,
    ) -> Result<UserQuota, Error> {
        let call = put(&["admin", "quotas", username]).query_if("organization", organization);
        self.fetch(call.json(change)?).await
    }
}

fn put(path: &[&str]) -> Call {
    Call::new(Method::PUT, path)
}

fn delete(path: &[&str]) -> Call {
    Call::new(Method::DELETE, path)
}
