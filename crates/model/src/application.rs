//! Installed applications: templates of the catalog that an organization made its own, and which groups may see, launch and
//! change them (seed A).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    AppType, ApplicationGroupId, ApplicationId, CatalogTemplateId, Fields, FromFields, GroupId, OrgId,
    PatchField, TemplatePlatform, UserId, text_enum::text_enum,
};

text_enum! {
    /// What the members of a group may do with an application; each level brings those before it.
    AccessLevel, "access level" {
        /// See it.
        View = "view",
        /// Start sessions of it.
        Launch = "launch",
        /// Change its settings.
        Admin = "admin",
    }
}

text_enum! {
    /// Where an installation stands. It moves on, and never back but by being asked for again.
    InstallStatus, "install status" {
        /// Asked for.
        Pending = "pending",
        /// Somebody is at it.
        Creating = "creating",
        /// It can be launched.
        Installed = "installed",
        /// It came to nothing; the message says why.
        Failed = "failed",
    }
}

impl InstallStatus {
    /// The states from which this one may be entered.
    pub const fn predecessors(self) -> &'static [Self] {
        match self {
            // Asked for once more.
            Self::Pending => &[Self::Failed],
            // Once more, where whoever was at it died.
            Self::Creating => &[Self::Pending, Self::Creating],
            Self::Installed | Self::Failed => &[Self::Creating],
        }
    }
}

/// An application of an organization (seed A, `InstalledApplication`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstalledApplication {
    /// The application's id.
    pub id: ApplicationId,
    /// Its organization.
    pub org_id: OrgId,
    /// The template of the catalog that it was installed from.
    pub catalog_template_id: CatalogTemplateId,
    /// Its name within the organization: the template's, and eight hexadecimal digits.
    #[cfg_attr(feature = "openapi", schema(example = "firefox-abc12345"))]
    pub name: String,
    /// What people know it by.
    pub display_name: String,
    /// Where its configuration belongs.
    #[cfg_attr(feature = "openapi", schema(example = "apps/firefox-abc12345"))]
    pub folder_path: String,
    /// Whether it can be launched; who may not change it does not see it otherwise.
    pub enabled: bool,
    /// What it is installed on.
    pub platform: TemplatePlatform,
    /// What its options are set to; for those alone who may change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub configuration: Option<Map<String, Value>>,
    /// Who installed it.
    pub created_by: UserId,
    /// When it was installed.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
    /// The template's name.
    pub template_name: String,
    /// What the template calls itself.
    pub template_display_name: String,
    /// What it is.
    pub description: String,
    /// Where it stands in the catalog.
    pub category: String,
    /// What kind of thing it is.
    pub app_type: AppType,
    /// Where its icon is, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "/api/v1/applications/0197…/icon"))]
    pub icon: Option<String>,
    /// The template's manifest as it was installed, a JSON text; for those alone who may change it, where the application is
    /// asked for alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Where its installation stands.
    pub install_status: InstallStatus,
    /// Why, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_message: Option<String>,
    /// What the caller may do with it.
    pub access: AccessLevel,
    /// The groups that may do something with it; for those alone who may change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<ApplicationGroupAccess>>,
}

/// What a group may do with an application (seed A).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApplicationGroupAccess {
    /// The access' own id.
    pub id: ApplicationGroupId,
    /// The application.
    pub application_id: ApplicationId,
    /// The group; those below it have the access, too.
    pub group_id: GroupId,
    /// What its members may do.
    pub access_level: AccessLevel,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// The group's name.
    #[serde(default)]
    pub group_name: String,
    /// What the group calls itself.
    #[serde(default)]
    pub group_display_name: String,
}

/// Groups given access by an installation at most.
pub const APPLICATION_GROUPS: usize = 100;
/// Bytes of a configuration, as JSON, at most.
const CONFIGURATION_BYTES: usize = 64 * 1_024;

/// Body of `POST applications` (seed A).
#[derive(Debug, Clone, PartialEq)]
pub struct InstallApplicationRequest {
    /// The template.
    pub catalog_template_id: CatalogTemplateId,
    /// 1–200 characters; the template's where absent.
    pub display_name: Option<String>,
    /// What to install it on; else the template's first platform that has an approved agent.
    pub platform: Option<TemplatePlatform>,
    /// Values of the template's options.
    pub configuration: Map<String, Value>,
    /// Groups whose members may launch it.
    pub group_ids: Vec<GroupId>,
}

impl FromFields for InstallApplicationRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let template: Option<i64> = fields.required("catalogTemplateId");
        if template.is_some_and(|id| id <= 0) {
            fields.errors().add("catalogTemplateId", "must be greater than 0");
        }
        let display_name: Option<String> = fields.optional("displayName");
        check_display_name(fields, display_name.as_deref());
        let platform = fields.optional("platform");
        let configuration: Map<String, Value> = fields.optional("configuration").unwrap_or_default();
        check_configuration(fields, &configuration);
        let group_ids = read_groups(fields);
        Some(Self {
            catalog_template_id: CatalogTemplateId::from_number(template?),
            display_name,
            platform,
            configuration,
            group_ids,
        })
    }
}

/// Each id by itself, so that a bad one is named by its place.
fn read_groups(fields: &mut Fields) -> Vec<GroupId> {
    let texts: Vec<String> = fields.optional("groupIds").unwrap_or_default();
    if texts.len() > APPLICATION_GROUPS {
        fields.errors().add("groupIds", format!("must not have more than {APPLICATION_GROUPS} groups"));
        return Vec::new();
    }
    let mut groups: Vec<GroupId> = Vec::with_capacity(texts.len());
    for (place, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(id) if !groups.contains(&id) => groups.push(id),
            Ok(_) => {}
            Err(_) => fields.errors().add(format!("groupIds.{place}"), "must be the id of a group"),
        }
    }
    groups
}

fn check_display_name(fields: &mut Fields, text: Option<&str>) {
    if let Some(text) = text {
        fields.check_length("displayName", text, 1..=200);
        if text.chars().any(char::is_control) {
            fields.errors().add("displayName", "must not contain control characters");
        }
    }
}

fn check_configuration(fields: &mut Fields, configuration: &Map<String, Value>) {
    let bytes = serde_json::to_vec(configuration).map_or(usize::MAX, |text| text.len());
    if bytes > CONFIGURATION_BYTES {
        fields.errors().add("configuration", "must not have more than 64 KiB");
    }
}

/// Body of `PUT applications/{id}` (seed A): what is absent stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpdateApplicationRequest {
    /// 1–200 characters.
    pub display_name: Option<String>,
    /// Whether it can be launched.
    pub enabled: Option<bool>,
    /// Values of the template's options, all of them anew.
    pub configuration: Option<Map<String, Value>>,
}

impl FromFields for UpdateApplicationRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let display_name: Option<String> = not_null(fields, "displayName");
        check_display_name(fields, display_name.as_deref());
        let enabled = not_null(fields, "enabled");
        let configuration: Option<Map<String, Value>> = not_null(fields, "configuration");
        if let Some(configuration) = &configuration {
            check_configuration(fields, configuration);
        }
        Some(Self { display_name, enabled, configuration })
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

/// Body of `POST applications/{id}/groups` (seed A).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddGroupAccessRequest {
    /// The group.
    pub group_id: GroupId,
    /// What its members may do. Default `launch`.
    pub access_level: AccessLevel,
}

impl FromFields for AddGroupAccessRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let group_id = fields.required("groupId");
        let access_level = fields.optional("accessLevel").unwrap_or(AccessLevel::Launch);
        Some(Self { group_id: group_id?, access_level })
    }
}

/// Body of `PATCH applications/{id}/groups/{groupId}` (seed A).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateGroupAccessRequest {
    /// What its members may do.
    pub access_level: AccessLevel,
}

impl FromFields for UpdateGroupAccessRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { access_level: fields.required("accessLevel")? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaints<T: FromFields>(body: Value) -> Vec<String> {
        let errors = T::from_json(body).err().unwrap_or_default();
        errors.iter().map(|(field, _)| field.to_owned()).collect()
    }

    #[test]
    fn an_installation_needs_a_template_and_nothing_else() {
        let asked = InstallApplicationRequest::from_json(json!({"catalogTemplateId": 7})).unwrap();
        assert_eq!(asked.catalog_template_id, CatalogTemplateId::from_number(7));
        assert_eq!((asked.display_name, asked.platform), (None, None));
        assert_eq!((asked.configuration.len(), asked.group_ids.len()), (0, 0));
    }

    #[test]
    fn every_bad_field_of_an_installation_is_named() {
        let body = json!({
            "catalogTemplateId": 0, "displayName": "", "platform": "cloud", "configuration": [], "odd": 1,
            "groupIds": ["0197aaaa-0000-7000-8000-000000000001", "crew"],
        });
        let named = ["catalogTemplateId", "configuration", "displayName", "groupIds.1", "odd", "platform"];
        assert_eq!(complaints::<InstallApplicationRequest>(body), named);
        let long = json!({"catalogTemplateId": 1, "displayName": "x".repeat(201)});
        assert_eq!(complaints::<InstallApplicationRequest>(long), ["displayName"]);
        let large = json!({"catalogTemplateId": 1, "configuration": {"a": "x".repeat(CONFIGURATION_BYTES)}});
        assert_eq!(complaints::<InstallApplicationRequest>(large), ["configuration"]);
        assert_eq!(complaints::<InstallApplicationRequest>(json!({})), ["catalogTemplateId"]);
    }

    #[test]
    fn a_group_twice_is_a_group_once() {
        let id = GroupId::new();
        let body = json!({"catalogTemplateId": 1, "groupIds": [id, id]});
        assert_eq!(InstallApplicationRequest::from_json(body).unwrap().group_ids, [id]);
    }

    #[test]
    fn a_change_changes_what_it_names_and_clears_nothing() {
        let change = UpdateApplicationRequest::from_json(json!({"enabled": false})).unwrap();
        assert_eq!(change, UpdateApplicationRequest { enabled: Some(false), ..Default::default() });
        let nulls = json!({"displayName": null, "enabled": null, "configuration": null});
        let named = ["configuration", "displayName", "enabled"];
        assert_eq!(complaints::<UpdateApplicationRequest>(nulls), named);
    }

    #[test]
    fn access_is_to_launch_unless_it_says_otherwise() {
        let group = GroupId::new();
        let plain = AddGroupAccessRequest::from_json(json!({"groupId": group})).unwrap();
        assert_eq!(plain.access_level, AccessLevel::Launch);
        assert_eq!(complaints::<UpdateGroupAccessRequest>(json!({})), ["accessLevel"]);
        assert_eq!(complaints::<UpdateGroupAccessRequest>(json!({"accessLevel": "own"})), ["accessLevel"]);
        assert!(AccessLevel::View < AccessLevel::Launch && AccessLevel::Launch < AccessLevel::Admin);
    }

    #[test]
    fn an_application_has_the_names_of_seed_a() {
        let said = json!({
            "id": "550e8400-e29b-41d4-a716-446655440000", "orgId": "550e8400-e29b-41d4-a716-446655440001",
            "catalogTemplateId": 1, "name": "firefox-abc12345", "displayName": "Firefox Browser",
            "folderPath": "apps/firefox-abc12345", "enabled": true, "platform": "docker",
            "configuration": {"homepage": "https://example.com"}, "createdBy": "550e8400-e29b-41d4-a716-446655440002",
            "createdAt": "2026-11-28T00:00:00Z", "updatedAt": "2026-11-28T00:00:00Z", "templateName": "firefox",
            "templateDisplayName": "Firefox", "description": "A browser", "category": "Browsers", "appType": "desktop",
            "icon": "/api/v1/applications/550e8400-e29b-41d4-a716-446655440000/icon", "manifest": "{}",
            "installStatus": "failed", "installMessage": "no agent", "access": "admin",
            "groups": [{
                "id": "550e8400-e29b-41d4-a716-446655440003", "applicationId": "550e8400-e29b-41d4-a716-446655440000",
                "groupId": "550e8400-e29b-41d4-a716-446655440004", "accessLevel": "launch",
                "createdAt": "2026-11-28T00:00:00Z", "groupName": "crew", "groupDisplayName": "The Crew",
            }],
        });
        let read: InstalledApplication = serde_json::from_value(said.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), said);
    }
}
