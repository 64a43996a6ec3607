//! Installed applications of the organization of the request.

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidegate_model::{
    AccessLevel, ApplicationGroupAccess, ApplicationId, CatalogTemplateId, GroupId, InstalledApplication,
    TemplatePlatform,
};

use crate::{Client, Error, call::Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One page of applications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationPage {
    /// By name.
    pub applications: Vec<InstalledApplication>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// The groups that may do something with an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationGroupList {
    /// By name.
    pub groups: Vec<ApplicationGroupAccess>,
    /// How many there are.
    pub total: u64,
}

/// An application to install.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewApplication {
    /// The template of the catalog.
    pub catalog_template_id: CatalogTemplateId,
    /// 1–200 characters; the template's where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// One of the template's; its first one that has an approved agent where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<TemplatePlatform>,
    /// Values of the template's options.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub configuration: Map<String, Value>,
    /// Groups whose members may launch it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_ids: Vec<GroupId>,
}

/// What changes; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationChange {
    /// 1–200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Whether it can be launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Values of the template's options, all of them anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Map<String, Value>>,
}

impl Client {
    /// `GET applications`, one page: at most 100, from `cursor` on.
    pub async fn applications(&self, cursor: Option<&str>) -> Result<ApplicationPage, Error> {
        let call = Call::get(&["applications"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `GET applications/user`, one page: at most 100, from `cursor` on.
    pub async fn my_applications(&self, cursor: Option<&str>) -> Result<ApplicationPage, Error> {
        let call = Call::get(&["applications", "user"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST applications`, with a key of its own: an answer that was lost is asked for again.
    pub async fn install_application(&self, new: &NewApplication) -> Result<InstalledApplication, Error> {
        let key = uuid::Uuid::new_v4().to_string();
        let key = HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("0"));
        self.fetch(Call::post(&["applications"]).json(new)?.header(IDEMPOTENCY_KEY, key).repeatable()).await
    }

    /// `GET applications/{id}`.
    pub async fn application(&self, id: ApplicationId) -> Result<InstalledApplication, Error> {
        self.fetch(Call::get(&["applications", &id.to_string()])).await
    }

    /// `GET applications/{id}/icon`: the picture's bytes.
    pub async fn application_icon(&self, id: ApplicationId) -> Result<Vec<u8>, Error> {
        let response = self.send(&Call::get(&["applications", &id.to_string(), "icon"])).await?;
        self.read_any(response).await
    }

    /// `PUT applications/{id}`; one whose installation failed is installed once more.
    pub async fn update_application(
        &self,
        id: ApplicationId,
        change: &ApplicationChange,
    ) -> Result<InstalledApplication, Error> {
        self.fetch(Call::new(Method::PUT, &["applications", &id.to_string()]).json(change)?).await
    }

    /// `PUT applications/{id}/enabled`.
    pub async fn enable_application(
        &self,
        id: ApplicationId,
        enabled: bool,
    ) -> Result<InstalledApplication, Error> {
        let path = ["applications", &id.to_string(), "enabled"];
        self.fetch(Call::new(Method::PUT, &path).json(&json!({"enabled": enabled}))?).await
    }

    /// `DELETE applications/{id}`; 409 while sessions of it run, unless `force` ends them.
    pub async fn remove_application(&self, id: ApplicationId, force: bool) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, &["applications", &id.to_string()]);
        self.send(&call.query_if("force", force.then_some(true))).await.map(drop)
    }

    /// `GET applications/{id}/groups`.
    pub async fn application_groups(&self, id: ApplicationId) -> Result<ApplicationGroupList, Error> {
        self.fetch(Call::get(&["applications", &id.to_string(), "groups"])).await
    }

    /// `POST applications/{id}/groups`: a repeat gives the level.
    pub async fn add_application_group(
        &self,
        id: ApplicationId,
        group: GroupId,
        level: AccessLevel,
    ) -> Result<ApplicationGroupAccess, Error> {
        let body = json!({"groupId": group, "accessLevel": level});
        self.fetch(Call::post(&["applications", &id.to_string(), "groups"]).json(&body)?.repeatable()).await
    }

    /// `GET applications/{id}/groups/{groupId}`.
    pub async fn application_group(
        &self,
        id: ApplicationId,
        group: GroupId,
    ) -> Result<ApplicationGroupAccess, Error> {
        self.fetch(Call::get(&["applications", &id.to_string(), "groups", &group.to_string()])).await
    }

    /// `PATCH applications/{id}/groups/{groupId}`.
    pub async fn set_application_group(
        &self,
        id: ApplicationId,
        group: GroupId,
        level: AccessLevel,
    ) -> Result<ApplicationGroupAccess, Error> {
        let path = ["applications", &id.to_string(), "groups", &group.to_string()];
        self.fetch(Call::new(Method::PATCH, &path).json(&json!({"accessLevel": level}))?).await
    }

    /// `DELETE applications/{id}/groups/{groupId}`.
    pub async fn remove_application_group(&self, id: ApplicationId, group: GroupId) -> Result<(), Error> {
        let path = ["applications", &id.to_string(), "groups", &group.to_string()];
        self.send(&Call::new(Method::DELETE, &path)).await.map(drop)
    }
}
