//! Templates of the catalog: what a `kind: Template` file says, and what the catalog keeps of it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CatalogRepository, CatalogTemplateId, Fields, FromFields, Platform, RepositoryId, ResourceRequest,
    StreamKind, TimeLimit, manifest,
    session::{check_command, check_environment, check_image, read_tags},
    text_enum::text_enum,
};

text_enum! {
    /// What kind of application a template starts.
    AppType, "application type" {
        /// A desktop.
        Desktop = "desktop",
        /// A program that serves pages.
        WebApp = "webapp",
        /// A program in a terminal.
        Terminal = "terminal",
    }
}

impl AppType {
    /// How it is watched where the template does not say.
    pub const fn protocol(self) -> StreamKind {
        match self {
            Self::Desktop => StreamKind::Vnc,
            Self::WebApp => StreamKind::Http,
            Self::Terminal => StreamKind::Terminal,
        }
    }
}

text_enum! {
    /// Where a template's application can run.
    TemplatePlatform, "template platform" {
        /// Agents of platform `kubernetes`.
        Kubernetes = "kubernetes",
        /// Agents of platform `docker`.
        Docker = "docker",
        /// The agent's own machine.
        Vm = "vm",
        /// A machine of Hyper-V: agents of platform `vm`.
        HyperV = "hyperv",
        /// A machine of vCenter: agents of platform `vm`.
        VCenter = "vcenter",
    }
}

impl TemplatePlatform {
    /// The platform of the agents that run it.
    pub const fn agents(self) -> Platform {
        match self {
            Self::Kubernetes => Platform::Kubernetes,
            Self::Docker => Platform::Docker,
            Self::Vm | Self::HyperV | Self::VCenter => Platform::Vm,
        }
    }

    /// Whether an image is run there.
    pub const fn runs_images(self) -> bool {
        matches!(self, Self::Kubernetes | Self::Docker)
    }
}

text_enum! {
    /// What a port speaks below its application.
    PortProtocol, "port protocol" {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
    }
}

/// A port of a template's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TemplatePort {
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number.
    pub container_port: u16,
    /// TCP where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<PortProtocol>,
}

/// What a template says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TemplateManifest {
    /// Lower case and hyphens.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Where it stands in the catalog.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// Path of its icon, below its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// Desktop, web application or terminal.
    pub app_type: AppType,
    /// Where it can run, the best first.
    pub platforms: Vec<TemplatePlatform>,
    /// The container's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Program and arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The container's ports; the first one is streamed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<TemplatePort>,
    /// How it is watched.
    pub protocol: StreamKind,
    /// Its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What it needs.
    #[serde(default, skip_serializing_if = "is_unset", deserialize_with = "stored_resources")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub resources: ResourceRequest,
    /// Hibernates after so long without activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30m"))]
    pub idle_timeout: Option<TimeLimit>,
    /// Ends after so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "8h"))]
    pub max_session_duration: Option<TimeLimit>,
    /// Keywords.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What can be configured: a JSON Schema, or a bare map of properties.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
}

impl TemplateManifest {
    /// The icon's path below the template's folder, without the `./` it may begin with.
    pub fn icon_path(&self) -> Option<&str> {
        self.icon.as_deref().map(manifest::relative)
    }

    /// The port that is streamed.
    pub fn streamed_port(&self) -> Option<u16> {
        self.ports.first().map(|port| port.container_port)
    }
}

fn is_unset(resources: &ResourceRequest) -> bool {
    *resources == ResourceRequest::default()
}

fn stored_resources<'de, D: serde::Deserializer<'de>>(stored: D) -> Result<ResourceRequest, D::Error> {
    ResourceRequest::from_json(Value::deserialize(stored)?).map_err(serde::de::Error::custom)
}

impl FromFields for TemplateManifest {
    /// Reads the fields at one level: what stands under `spec` and `metadata` in a file is brought there by its reader.
    /// Unknown fields are passed over: templates are written for other platforms too.
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        fields.tolerate_unknown();
        let name = manifest::name(fields);
        let display_name = manifest::display_name(fields, name.as_deref());
        let description = manifest::text(fields, "description", manifest::DESCRIPTION);
        let category = manifest::text(fields, "category", 64);
        let icon: Option<String> = fields.optional("icon").filter(|icon: &String| !icon.is_empty());
        manifest::path(fields.errors(), "icon", icon.as_ref());
        let app_type = fields.optional("appType").unwrap_or(AppType::Desktop);
        let image = read_image(fields);
        let command: Option<Vec<String>> = fields.optional("command");
        if let Some(argv) = &command {
            check_command(fields, argv);
        }
        let platforms = read_platforms(fields, app_type, image.is_some(), command.is_some());
        let ports = read_ports(fields);
        let protocol = fields.optional("protocol").unwrap_or_else(|| app_type.protocol());
        let env = read_env(fields);
        let resources = read_resources(fields);
        let idle_timeout = fields.optional("idleTimeout");
        let max_session_duration = fields.optional("maxSessionDuration");
        let tags = read_tags(fields);
        let options = fields.optional("options").unwrap_or_default();
        check_variables(fields, &options);
        Some(Self {
            name: name?,
            display_name,
            description,
            category,
            icon,
            app_type,
            platforms,
            image,
            command,
            ports,
            protocol,
            env,
            resources,
            idle_timeout,
            max_session_duration,
            tags,
            options,
        })
    }
}

/// What begins the name of a variable that an option is passed by.
const OPTION: &str = "TIDEGATE_OPTION_";

/// The variable that an option of a template is passed by: its name in capitals, with `_` for everything but letters and digits.
///
/// ```
/// assert_eq!(tidegate_model::option_variable("home-page"), "TIDEGATE_OPTION_HOME_PAGE");
/// ```
pub fn option_variable(option: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    OPTION.chars().chain(option.chars().map(plain)).collect()
}

/// The options that a template declares: those of a schema, or of a bare map of properties.
pub fn declared_options(options: &Map<String, Value>) -> &Map<String, Value> {
    options.get("properties").and_then(Value::as_object).unwrap_or(options)
}

/// Two options that share a variable could not both be told.
fn check_variables(fields: &mut Fields, options: &Map<String, Value>) {
    let mut taken = BTreeMap::new();
    for name in declared_options(options).keys() {
        let variable = option_variable(name);
        if let Some(other) = taken.get(&variable) {
            let complaint = format!("is passed by {variable}, as {other} is: give one of them another name");
            fields.errors().add(format!("options.{name}"), complaint);
        } else {
            taken.insert(variable, name);
        }
    }
}

/// `image`, or `baseImage` as `StreamSpace`'s own templates call it.
fn read_image(fields: &mut Fields) -> Option<String> {
    let (image, base) = (fields.optional::<String>("image"), fields.optional::<String>("baseImage"));
    let (field, image) = if let Some(image) = image { ("image", image) } else { ("baseImage", base?) };
    check_image(fields, field, &image);
    Some(image)
}

fn read_platforms(
    fields: &mut Fields,
    app_type: AppType,
    image: bool,
    command: bool,
) -> Vec<TemplatePlatform> {
    let default = if image { TemplatePlatform::Docker } else { TemplatePlatform::Vm };
    let mut platforms: Vec<TemplatePlatform> = fields.optional("platforms").unwrap_or_default();
    let mut seen = Vec::new();
    platforms.retain(|platform| {
        !seen.contains(platform) && {
            seen.push(*platform);
            true
        }
    });
    if platforms.is_empty() {
        platforms.push(default);
    }
    if platforms.iter().any(|platform| platform.runs_images()) && !image {
        fields.errors().add("image", "is required: platforms `docker` and `kubernetes` run images");
    }
    if platforms.iter().any(|platform| !platform.runs_images()) && app_type == AppType::WebApp && !command {
        fields.errors().add("command", "is required: a machine does not know by itself which program serves");
    }
    platforms
}

fn read_ports(fields: &mut Fields) -> Vec<TemplatePort> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Written {
        name: Option<String>,
        container_port: u32,
        protocol: Option<String>,
    }
    let written: Vec<Written> = fields.optional("ports").unwrap_or_default();
    if written.len() > 64 {
        fields.errors().add("ports", "must be at most 64");
    }
    let mut ports = Vec::new();
    for (index, port) in written.into_iter().take(64).enumerate() {
        let number = u16::try_from(port.container_port).ok().filter(|number| *number > 0);
        if number.is_none() {
            let complaint = "must be a number from 1 to 65535";
            fields.errors().add(format!("ports.{index}.containerPort"), complaint);
        }
        if port
            .name
            .as_ref()
            .is_some_and(|name| name.chars().count() > 64 || name.chars().any(char::is_control))
        {
            fields.errors().add(format!("ports.{index}.name"), "must have at most 64 characters");
        }
        let protocol = port.protocol.and_then(|text| {
            let read = text.to_ascii_uppercase().parse::<PortProtocol>();
            fields.errors().check(&format!("ports.{index}.protocol"), read)
        });
        if let Some(container_port) = number {
            ports.push(TemplatePort { name: port.name, container_port, protocol });
        }
    }
    ports
}

/// `{NAME: value}`, or a list of `{name, value}` as Kubernetes writes it. Numbers and truth values are texts there too.
fn read_env(fields: &mut Fields) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut keep = |fields: &mut Fields, name: String, value: Value| {
        let value = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Null => String::new(),
            Value::Array(_) | Value::Object(_) => {
                let shown: String = name.chars().take(64).collect();
                fields.errors().add(format!("env.{shown}"), "must be a text");
                return;
            }
        };
        env.insert(name, value);
    };
    match fields.optional::<Value>("env") {
        None => {}
        Some(Value::Object(map)) => map.into_iter().for_each(|(name, value)| keep(fields, name, value)),
        Some(Value::Array(list)) => {
            for (index, item) in list.into_iter().enumerate() {
                let Value::Object(mut item) = item else {
                    fields.errors().add(format!("env.{index}"), "must be a name and a value");
                    continue;
                };
                match item.remove("name") {
                    Some(Value::String(_)) if item.contains_key("valueFrom") => {
                        let complaint = "takes its value from somewhere else, which no agent can look up";
                        fields.errors().add(format!("env.{index}"), complaint);
                    }
                    Some(Value::String(name)) => {
                        keep(fields, name, item.remove("value").unwrap_or(Value::Null));
                    }
                    _ => fields.errors().add(format!("env.{index}.name"), "is required"),
                }
            }
        }
        Some(_) => fields.errors().add("env", "must be names with their values"),
    }
    check_environment(fields, "env", &env);
    env
}

/// `resources`, or `defaultResources` as `StreamSpace`'s own templates call it; with `requests` and `limits` inside as
/// Kubernetes writes it, the requests count.
fn read_resources(fields: &mut Fields) -> ResourceRequest {
    let (own, other) = (fields.optional::<Value>("resources"), fields.optional::<Value>("defaultResources"));
    let (field, value) = match (own, other) {
        (Some(value), _) => ("resources", value),
        (None, Some(value)) => ("defaultResources", value),
        (None, None) => return ResourceRequest::default(),
    };
    let nested = |key: &str| value.get(key).filter(|inner| inner.is_object()).cloned();
    let mut flat = nested("requests").or_else(|| nested("limits")).unwrap_or(value);
    if let Value::Object(object) = &mut flat {
        // A bare number is a quantity too: `cpu: 2`.
        for amount in object.values_mut().filter(|amount| amount.is_number()) {
            *amount = Value::String(amount.to_string());
        }
    }
    ResourceRequest::from_json(flat).unwrap_or_else(|errors| {
        for (name, complaint) in errors.iter() {
            fields.errors().add(format!("{field}.{name}"), complaint);
        }
        ResourceRequest::default()
    })
}

/// A template that applications are installed from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CatalogTemplate {
    /// Its number in the catalog; stays the same whatever its repository does.
    pub id: CatalogTemplateId,
    /// Where it came from.
    pub repository_id: RepositoryId,
    /// As in its manifest.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Where it stands in the catalog.
    pub category: String,
    /// Desktop, web application or terminal.
    pub app_type: AppType,
    /// Where it can run, the best first.
    pub platforms: Vec<TemplatePlatform>,
    /// Path of its icon on this server; empty where it has none.
    pub icon_url: String,
    /// All that it says of itself.
    pub manifest: TemplateManifest,
    /// Keywords.
    pub tags: Vec<String>,
    /// How often an application was installed from it.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaints(body: Value) -> Vec<String> {
        let errors = TemplateManifest::from_json(body).err().unwrap_or_default();
        errors.iter().map(|(field, _)| field.to_owned()).collect()
    }

    #[test]
    fn a_template_names_every_bad_field() {
        let bad = json!({
            "name": "Fire Fox", "displayName": "x".repeat(201), "category": "c".repeat(65), "icon": "../i.svg",
            "appType": "game", "platforms": ["amiga"], "image": "-v", "command": [], "ports": [{"containerPort": 0}],
            "protocol": "rdp", "env": {"1A": "x", "TIDEGATE_X": "y", "Z": [1]}, "resources": {"cpu": "1m", "gpu": 1},
            "idleTimeout": "1s", "maxSessionDuration": 5, "tags": "x", "options": []
        });
        assert_eq!(
            complaints(bad),
            [
                "appType",
                "category",
                "command",
                "displayName",
                "env.1A",
                "env.TIDEGATE_X",
                "env.Z",
                "icon",
                "idleTimeout",
                "image",
                "maxSessionDuration",
                "name",
                "options",
                "platforms",
                "ports.0.containerPort",
                "protocol",
                "resources.cpu",
                "resources.gpu",
                "tags",
            ]
        );
        assert_eq!(complaints(json!({})), ["name"]);
    }

    #[test]
    fn what_is_run_fits_where_it_runs() {
        assert_eq!(complaints(json!({"name": "a", "platforms": ["docker"]})), ["image"]);
        assert_eq!(complaints(json!({"name": "a", "appType": "webapp"})), ["command"]);
        assert_eq!(complaints(json!({"name": "a", "appType": "webapp", "image": "nginx:1"})), [""; 0]);
        let both =
            json!({"name": "a", "image": "x", "platforms": ["docker", "hyperv", "docker"], "command": ["x"]});
        let both = TemplateManifest::from_json(both).unwrap();
        assert_eq!(both.platforms, [TemplatePlatform::Docker, TemplatePlatform::HyperV]);
        assert_eq!(both.platforms[1].agents(), Platform::Vm);
    }

    #[test]
    fn options_that_would_share_a_variable_are_told() {
        let with = |options: Value| complaints(json!({"name": "a", "image": "x", "options": options}));
        let (both, one) = (json!({"a-b": {}, "a_b": {}}), json!({"a-b": {}, "a_c": {}}));
        assert_eq!(with(both.clone()), ["options.a_b"]);
        assert_eq!(with(json!({"type": "object", "properties": both})), ["options.a_b"]);
        assert_eq!(with(one), [""; 0]);
    }

    #[test]
    fn streamspaces_own_spelling_is_read() {
        let theirs = json!({
            "name": "firefox-browser", "baseImage": "lscr.io/linuxserver/firefox:latest", "unknown": {"a": 1},
            "defaultResources": {"requests": {"cpu": 1, "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
            "ports": [{"name": "vnc", "containerPort": 3000, "protocol": "tcp"}],
            "env": [{"name": "PUID", "value": 1000}, {"name": "EMPTY"}]
        });
        let read = TemplateManifest::from_json(theirs).unwrap();
        assert_eq!(read.image.as_deref(), Some("lscr.io/linuxserver/firefox:latest"));
        assert_eq!(
            read.env,
            BTreeMap::from([("PUID".into(), "1000".into()), ("EMPTY".into(), String::new())])
        );
        assert_eq!((read.streamed_port(), read.protocol), (Some(3000), StreamKind::Vnc));
        assert_eq!(read.resources.memory, "2Gi".parse().ok());
        let from = json!({"name": "a", "env": [{"name": "A", "valueFrom": {}}, {"value": "x"}, 7]});
        assert_eq!(complaints(from), ["env.0", "env.1.name", "env.2"]);
    }

    #[test]
    fn what_is_stored_is_read_back_the_same() {
        let whole = json!({
            "name": "a", "displayName": "A", "description": "d", "category": "Web", "icon": "icon.svg", "appType": "webapp",
            "platforms": ["docker", "vm"], "image": "nginx:1", "command": ["serve", "-p", "80"],
            "ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"}], "protocol": "http", "env": {"A": "b"},
            "resources": {"cpu": "1", "memory": "1Gi"}, "idleTimeout": "30m", "maxSessionDuration": "8h", "tags": ["x"],
            "options": {"type": "object"}
        });
        let read = TemplateManifest::from_json(whole.clone()).unwrap();
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written, whole);
        assert_eq!(serde_json::from_value::<TemplateManifest>(written).unwrap(), read);
    }
}
