//! Plugins of the catalog (seed A): what a `plugin.json` says, what the catalog keeps of it, its versions and its counts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CatalogPluginId, CatalogRepository, FieldErrors, Fields, FromFields, PluginVersionId, RepositoryId,
    manifest::{
        self, parse_loose_version, parse_version_range, validate_catalog_name, validate_manifest_path,
        validate_web_address,
    },
    session::read_tags,
    text_enum::text_enum,
};

text_enum! {
    /// A plugin's architecture.
    PluginType, "plugin type" {
        /// A module that runs inside the platform.
        Extension = "extension",
        /// Told of events by HTTP.
        Webhook = "webhook",
        /// A module that answers requests of its own.
        Api = "api",
        /// Pages.
        Ui = "ui",
        /// Colors and pictures.
        Theme = "theme",
    }
}

/// Where a plugin's code is (seed A, `PluginEntrypoints`): paths below the plugin's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct PluginEntrypoints {
    /// The main one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main: Option<String>,
    /// Pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ui: Option<String>,
    /// Routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Events: a path, or an address that they are sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// Commands; shown, never run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cli: Option<String>,
}

impl PluginEntrypoints {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn read(fields: &mut Fields) -> Self {
        let read: Self = nested(fields, "entrypoints");
        let Self { main, ui, api, webhook, cli } = &read;
        let errors = fields.errors();
        for (field, path) in [("main", main), ("ui", ui), ("api", api)] {
            manifest::path(errors, &format!("entrypoints.{field}"), path.as_ref());
        }
        if let Some(webhook) = webhook
            && validate_web_address(webhook).is_err()
        {
            errors.check("entrypoints.webhook", validate_manifest_path(webhook));
        }
        // A command line is no path, and is never run.
        if cli.as_ref().is_some_and(|cli| cli.chars().count() > 255 || cli.chars().any(char::is_control)) {
            errors.add("entrypoints.cli", "must have at most 255 characters");
        }
        read
    }
}

/// What a plugin wants of the platform (seed A, `PluginRequirements`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct PluginRequirements {
    /// Range of the platform's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streamspace_version: Option<String>,
    /// The least version of the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<String>,
    /// The greatest version of the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_version: Option<String>,
    /// Plugins that must be there, in any version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
}

impl PluginRequirements {
    /// Whether it wants nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Which of them a platform of version `platform` does not meet: field and complaint.
    pub fn unmet(&self, platform: &Version) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if let Some(range) = &self.streamspace_version
            && !parse_version_range(range).is_ok_and(|range| range.matches(platform))
        {
            errors.add("streamspaceVersion", format!("wants {range}, and this is {platform}"));
        }
        if let Some(least) = &self.minimum_version
            && !parse_loose_version(least).is_ok_and(|least| *platform >= least)
        {
            errors.add("minimumVersion", format!("wants at least {least}, and this is {platform}"));
        }
        if let Some(most) = &self.maximum_version
            && !parse_loose_version(most).is_ok_and(|most| *platform <= most)
        {
            errors.add("maximumVersion", format!("wants at most {most}, and this is {platform}"));
        }
        errors
    }

    fn read(fields: &mut Fields) -> Self {
        let read: Self = nested(fields, "requirements");
        let errors = fields.errors();
        if let Some(range) = &read.streamspace_version {
            errors.check("requirements.streamspaceVersion", parse_version_range(range));
        }
        if let Some(least) = &read.minimum_version {
            errors.check("requirements.minimumVersion", parse_loose_version(least));
        }
        if let Some(most) = &read.maximum_version {
            errors.check("requirements.maximumVersion", parse_loose_version(most));
        }
        if read.plugins.len() > 64 || read.plugins.iter().any(|name| validate_catalog_name(name).is_err()) {
            errors.add("requirements.plugins", "must be at most 64 names of plugins");
        }
        read
    }
}

/// What a `plugin.json` says (seed A, `PluginManifest`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PluginManifest {
    /// Lower case and hyphens.
    pub name: String,
    /// Semantic version.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1.2.0"))]
    pub version: Version,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Who made it.
    pub author: String,
    /// Its website.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// Where its source is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// SPDX identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Its architecture.
    #[serde(rename = "type")]
    pub kind: PluginType,
    /// Where it stands in the catalog.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// Keywords.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Path of its icon, below its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// What it wants of the platform.
    #[serde(default, skip_serializing_if = "PluginRequirements::is_empty")]
    pub requirements: PluginRequirements,
    /// Where its code is.
    #[serde(default, skip_serializing_if = "PluginEntrypoints::is_empty")]
    pub entrypoints: PluginEntrypoints,
    /// What its configuration may be: a JSON Schema, or a bare map of properties.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config_schema: Map<String, Value>,
    /// What its configuration is where nobody says otherwise.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub default_config: Map<String, Value>,
    /// What it wants to be allowed; unknown ones are kept, shown, and grant nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    /// Other plugins that must be there, with ranges of their versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, String>,
}

impl PluginManifest {
    /// Every plugin it needs with the range of its versions: `dependencies`, and `requirements.plugins` in any version.
    pub fn needs(&self) -> BTreeMap<&str, VersionReq> {
        let any = self.requirements.plugins.iter().map(|name| (name.as_str(), VersionReq::STAR));
        // A range that cannot be read was refused when the manifest was; nothing matches it here.
        let named = self
            .dependencies
            .iter()
            .filter_map(|(name, range)| Some((name.as_str(), parse_version_range(range).ok()?)));
        any.chain(named).collect()
    }

    /// The icon's path below the plugin's folder, without the `./` it may begin with.
    pub fn icon_path(&self) -> Option<&str> {
        self.icon.as_deref().map(manifest::relative)
    }
}

impl FromFields for PluginManifest {
    /// Unknown fields are passed over: manifests are written for other platforms too.
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        fields.tolerate_unknown();
        let name = manifest::name(fields);
        let version: Option<String> = fields.required("version");
        let version = version.and_then(|text| {
            fields.check_length("version", &text, 1..=100);
            let read = Version::parse(&text).map_err(|_| "must be a semantic version, such as 1.2.0");
            fields.errors().check("version", read)
        });
        let display_name = manifest::display_name(fields, name.as_deref());
        let description = manifest::text(fields, "description", manifest::DESCRIPTION);
        let author = manifest::text(fields, "author", 200);
        let homepage = filled(fields, "homepage");
        if let Some(address) = &homepage {
            fields.errors().check("homepage", validate_web_address(address));
        }
        let repository = filled(fields, "repository");
        if let Some(address) = &repository
            && !(address.starts_with("git@") || address.starts_with("ssh://"))
        {
            fields.errors().check("repository", validate_web_address(address));
        }
        let license = filled(fields, "license");
        let kind = fields.required("type");
        let category = manifest::text(fields, "category", 64);
        let tags = read_tags(fields);
        let icon = filled(fields, "icon");
        manifest::path(fields.errors(), "icon", icon.as_ref());
        let requirements = PluginRequirements::read(fields);
        let entrypoints = PluginEntrypoints::read(fields);
        let config_schema = fields.optional("configSchema").unwrap_or_default();
        let default_config = fields.optional("defaultConfig").unwrap_or_default();
        let permissions = read_permissions(fields);
        let dependencies = read_dependencies(fields, name.as_deref());
        Some(Self {
            name: name?,
            version: version?,
            display_name,
            description,
            author,
            homepage,
            repository,
            license,
            kind: kind?,
            category,
            tags,
            icon,
            requirements,
            entrypoints,
            config_schema,
            default_config,
            permissions,
            dependencies,
        })
    }
}

/// A text that is there and not empty: Go writes an unset one as an empty text.
fn filled(fields: &mut Fields, name: &str) -> Option<String> {
    Some(manifest::text(fields, name, 2_048)).filter(|text| !text.is_empty())
}

/// An object inside the manifest, whose own field is named where it cannot be read.
fn nested<T: serde::de::DeserializeOwned + Default>(fields: &mut Fields, name: &str) -> T {
    let Some(mut object) = fields.optional::<Map<String, Value>>(name) else { return T::default() };
    object.retain(|_, value| !value.is_null() && value.as_str() != Some(""));
    match serde_json::from_value(Value::Object(object)) {
        Ok(read) => read,
        Err(error) => {
            fields.errors().add(name, error);
            T::default()
        }
    }
}

fn read_permissions(fields: &mut Fields) -> Vec<String> {
    let permissions: Vec<String> = fields.optional("permissions").unwrap_or_default();
    let fits =
        |text: &String| (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if permissions.len() > 64 || !permissions.iter().all(fits) {
        fields.errors().add("permissions", "must be at most 64 words such as sessions:read");
    }
    permissions
}

fn read_dependencies(fields: &mut Fields, own: Option<&str>) -> BTreeMap<String, String> {
    let dependencies: BTreeMap<String, String> = fields.optional("dependencies").unwrap_or_default();
    if dependencies.len() > 64 {
        fields.errors().add("dependencies", "must be at most 64 plugins");
    }
    for (name, range) in dependencies.iter().take(64) {
        let shown: String = name.chars().take(64).collect();
        if validate_catalog_name(name).is_err() {
            fields.errors().add(format!("dependencies.{shown}"), "is no name of a plugin");
        } else if Some(name.as_str()) == own {
            fields.errors().add(format!("dependencies.{shown}"), "is the plugin itself");
        } else {
            fields.errors().check(&format!("dependencies.{shown}"), parse_version_range(range));
        }
    }
    dependencies
}

/// A plugin that can be installed (seed A, `CatalogPlugin`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CatalogPlugin {
    /// Its number in the catalog; stays the same whatever its repository does.
    pub id: CatalogPluginId,
    /// Where it came from.
    pub repository_id: RepositoryId,
    /// As in its manifest.
    pub name: String,
    /// The newest version.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1.2.0"))]
    pub version: Version,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Where it stands in the catalog.
    pub category: String,
    /// Its architecture.
    pub plugin_type: PluginType,
    /// Path of its icon on this server; empty where it has none.
    pub icon_url: String,
    /// All that it says of itself.
    pub manifest: PluginManifest,
    /// Keywords.
    pub tags: Vec<String>,
    /// How often it was installed.
    pub install_count: i64,
    /// Mean of its ratings, 1–5; 0 where there are none.
    pub avg_rating: f64,
    /// How many ratings there are.
    pub rating_count: i64,
    /// The repository.
    pub repository: CatalogRepository,
    /// When it first was in the catalog.
    pub created_at: DateTime<Utc>,
    /// When what it says of itself last changed.
    pub updated_at: DateTime<Utc>,
    /// Since when its repository no longer has it; whoever installed it still sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn_at: Option<DateTime<Utc>>,
}

/// One version of a plugin (seed A, `PluginVersion`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PluginVersion {
    /// The version's id.
    pub id: PluginVersionId,
    /// The plugin.
    pub plugin_id: CatalogPluginId,
    /// Semantic version.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1.2.0"))]
    pub version: Version,
    /// What changed, as its author says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub changelog: String,
    /// What it says of itself.
    pub manifest: PluginManifest,
    /// When it came into the catalog.
    pub created_at: DateTime<Utc>,
}

/// How much a plugin is looked at and installed (seed A, `PluginStats`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PluginStats {
    /// The plugin.
    pub plugin_id: CatalogPluginId,
    /// How often its page was asked for.
    pub view_count: i64,
    /// How often it was installed.
    pub install_count: i64,
    /// When it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_viewed_at: Option<DateTime<Utc>>,
    /// When it was last installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_installed_at: Option<DateTime<Utc>>,
    /// When the counts last changed.
    pub updated_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manifest_names_every_bad_field() {
        let bad = json!({
            "name": "../Evil", "version": "1.2", "displayName": "x".repeat(201), "description": "y".repeat(4_001),
            "author": 7, "homepage": "javascript:alert(1)", "repository": "file:///etc", "type": "virus",
            "category": "c".repeat(65), "tags": [""], "icon": "../../etc/passwd",
            "requirements": {"streamspaceVersion": "new", "minimumVersion": "x", "maximumVersion": "y", "plugins": ["A b"]},
            "entrypoints": {"main": "/bin/sh", "ui": "a/../../b", "api": "c:\\x", "webhook": "gopher://x", "cli": "a\u{7}"},
            "configSchema": [], "defaultConfig": 1, "permissions": ["a b"],
            "dependencies": {"Upper": "*", "fine": "not a range"}
        });
        let errors = PluginManifest::from_json(bad).unwrap_err();
        let names: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(
            names,
            [
                "author",
                "category",
                "configSchema",
                "defaultConfig",
                "dependencies.Upper",
                "dependencies.fine",
                "description",
                "displayName",
                "entrypoints.api",
                "entrypoints.cli",
                "entrypoints.main",
                "entrypoints.ui",
                "entrypoints.webhook",
                "homepage",
                "icon",
                "name",
                "permissions",
                "repository",
                "requirements.maximumVersion",
                "requirements.minimumVersion",
                "requirements.plugins",
                "requirements.streamspaceVersion",
                "tags",
                "type",
                "version",
            ]
        );
        let missing = PluginManifest::from_json(json!({})).unwrap_err();
        assert_eq!(missing.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["name", "type", "version"]);
    }

    #[test]
    fn what_go_writes_of_unset_fields_is_read_as_unset() {
        let written = json!({
            "name": "a", "version": "1.0.0", "displayName": "", "description": "", "author": "", "type": "ui",
            "homepage": "", "requirements": {"streamspaceVersion": ""}, "entrypoints": {"main": ""}, "unknown": [1]
        });
        let read = PluginManifest::from_json(written).unwrap();
        assert_eq!((read.display_name.as_str(), read.homepage.as_deref()), ("a", None));
        assert!(read.requirements.is_empty() && read.entrypoints.is_empty());
    }

    #[test]
    fn what_it_needs_comes_from_both_places() {
        let read = json!({
            "name": "a", "version": "1.0.0", "type": "api", "dependencies": {"b": "^2.0.0"},
            "requirements": {"plugins": ["b", "c"]}
        });
        let read = PluginManifest::from_json(read).unwrap();
        let needs: Vec<(&str, String)> =
            read.needs().into_iter().map(|(name, range)| (name, range.to_string())).collect();
        assert_eq!(needs, [("b", "^2.0.0".to_owned()), ("c", "*".to_owned())]);
        let own = json!({"name": "a", "version": "1.0.0", "type": "api", "dependencies": {"a": "*"}});
        assert!(PluginManifest::from_json(own).is_err());
    }

    #[test]
    fn requirements_are_compared_with_the_platform() {
        let of = |wanted: Value| -> Vec<String> {
            let read: PluginRequirements = serde_json::from_value(wanted).unwrap();
            let unmet = read.unmet(&Version::new(2, 0, 0));
            unmet.iter().map(|(field, _)| field.to_owned()).collect()
        };
        assert_eq!(
            of(json!({"streamspaceVersion": ">=0.2.0", "minimumVersion": "2", "maximumVersion": "2.0"})),
            [""; 0]
        );
        assert_eq!(
            of(json!({"streamspaceVersion": "<2", "minimumVersion": "2.0.1", "maximumVersion": "1"})),
            ["maximumVersion", "minimumVersion", "streamspaceVersion"]
        );
    }
}
