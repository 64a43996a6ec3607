//! Organizations and their members. An organization is named by its id or its name.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tidegate_model::{Member, Operation, OrgId, OrgRole, Organization, SystemRole, UserId};

use crate::{Client, Error, call::Call};

/// An organization with the caller's role in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MyOrganization {
    /// The organization.
    #[serde(flatten)]
    pub organization: Organization,
    /// The caller's role in it.
    pub org_role: OrgRole,
}

/// One page of the caller's organizations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrganizationPage {
    /// By name.
    pub organizations: Vec<MyOrganization>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// One page of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberPage {
    /// In joining order.
    pub members: Vec<Member>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// An organization to make.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewOrganization {
    /// 3–50 of `a-z 0-9 -`.
    pub name: String,
    /// 3–100 characters.
    pub display_name: String,
    /// At most 500 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A DNS-1123 label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
}

/// What changes; what is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrganizationChange {
    /// 3–100 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// At most 500 characters; an empty one clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A DNS-1123 label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
}

/// What the caller may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permissions {
    /// The organization of the request.
    pub org_id: Option<OrgId>,
    /// Its name.
    pub organization: Option<String>,
    /// The caller's role in it.
    pub org_role: Option<OrgRole>,
    /// Whether it is theirs.
    pub owner: bool,
    /// The caller's role on the platform.
    pub role: SystemRole,
    /// Everything that these roles allow.
    pub permissions: Vec<Operation>,
}

impl Client {
    /// `GET me/permissions`.
    pub async fn permissions(&self) -> Result<Permissions, Error> {
        self.fetch(Call::get(&["me", "permissions"])).await
    }

    /// `POST auth/switch`: the organization of all later requests of this login.
    pub async fn switch_organization(&self, organization: &str) -> Result<MyOrganization, Error> {
        let body = serde_json::json!({"organization": organization});
        self.fetch(Call::post(&["auth", "switch"]).json(&body)?.repeatable()).await
    }

    /// `GET organizations`, one page: at most 100, from `cursor` on.
    pub async fn organizations(&self, cursor: Option<&str>) -> Result<OrganizationPage, Error> {
        let call = Call::get(&["organizations"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST organizations`; 409 when the name is taken.
    pub async fn create_organization(&self, new: &NewOrganization) -> Result<Organization, Error> {
        self.fetch(Call::post(&["organizations"]).json(new)?).await
    }

    /// `GET organizations/{id}`.
    pub async fn organization(&self, organization: &str) -> Result<Organization, Error> {
        self.fetch(Call::get(&["organizations", organization])).await
    }

    /// `PATCH organizations/{id}`.
    pub async fn update_organization(
        &self,
        organization: &str,
        change: &OrganizationChange,
    ) -> Result<Organization, Error> {
        self.fetch(Call::new(Method::PATCH, &["organizations", organization]).json(change)?).await
    }

    /// `DELETE organizations/{id}`, for its owner.
    pub async fn delete_organization(&self, organization: &str) -> Result<(), Error> {
        // A repeat of one whose answer was lost would say that there is no such organization.
        self.send(&Call::new(Method::DELETE, &["organizations", organization])).await.map(drop)
    }

    /// `POST organizations/{id}/transfer`, for its owner.
    pub async fn transfer_organization(&self, organization: &str, to: UserId) -> Result<Organization, Error> {
        let body = serde_json::json!({"userId": to});
        self.fetch(Call::post(&["organizations", organization, "transfer"]).json(&body)?).await
    }

    /// `GET organizations/{id}/members`, one page: at most 100, from `cursor` on.
    pub async fn members(&self, organization: &str, cursor: Option<&str>) -> Result<MemberPage, Error> {
        let call = Call::get(&["organizations", organization, "members"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST organizations/{id}/members`: a repeat gives the role.
    pub async fn add_member(
        &self,
        organization: &str,
        username: &str,
        role: OrgRole,
    ) -> Result<Member, Error> {
        let body = serde_json::json!({"username": username, "role": role});
        self.fetch(Call::post(&["organizations", organization, "members"]).json(&body)?.repeatable()).await
    }

    /// `PATCH organizations/{id}/members/{userId}`.
    pub async fn set_member_role(
        &self,
        organization: &str,
        user: UserId,
        role: OrgRole,
    ) -> Result<Member, Error> {
        let path = ["organizations", organization, "members", &user.to_string()];
        self.fetch(Call::new(Method::PATCH, &path).json(&serde_json::json!({"role": role}))?).await
    }

    /// `DELETE organizations/{id}/members/{userId}`.
    pub async fn remove_member(&self, organization: &str, user: UserId) -> Result<(), Error> {
        let path = ["organizations", organization, "members", &user.to_string()];
        self.send(&Call::new(Method::DELETE, &path)).await.map(drop)
    }
}
