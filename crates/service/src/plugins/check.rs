//! Whether a plugin can be what it wants to be: its entry point is there, the platform and other plugins are what it needs,
//! it was granted what it asks for, and its configuration is one that it knows.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use serde_json::{Map, Value};
use tidegate_model::{FieldErrors, InstalledPlugin, OrgId, PluginManifest, PluginType};
use tidegate_persistence::installed_plugin::{Digest, Previous, Written};
use tidegate_plugins::Permission;

use super::package::Package;
use crate::OptionsSchema;

/// What `requirements` are compared with: the version of the data model that plugins are written for.
pub(crate) const COMPATIBILITY: Version = Version::new(2, 0, 0);

/// The module that a plugin is, by its manifest.
pub(crate) fn module_path(manifest: &PluginManifest) -> Option<&str> {
    let entrypoints = &manifest.entrypoints;
    match manifest.kind {
        PluginType::Api => entrypoints.api.as_deref().or(entrypoints.main.as_deref()),
        PluginType::Extension => entrypoints.main.as_deref(),
        PluginType::Webhook | PluginType::Ui | PluginType::Theme => None,
    }
}

/// The page or sheet that a plugin begins with.
pub(crate) fn first_file(manifest: &PluginManifest) -> Option<&str> {
    match manifest.kind {
        PluginType::Ui | PluginType::Theme => {
            manifest.entrypoints.ui.as_deref().or(manifest.entrypoints.main.as_deref())
        }
        PluginType::Extension | PluginType::Webhook | PluginType::Api => None,
    }
}

/// Where a webhook's events go: what the configuration says, else the manifest.
pub(crate) fn endpoint(manifest: &PluginManifest, config: &Map<String, Value>) -> Option<String> {
    let configured = config.get("url").and_then(Value::as_str).filter(|url| !url.is_empty());
    let url = configured.or(manifest.entrypoints.webhook.as_deref())?;
    (url.starts_with("https://") || url.starts_with("http://")).then(|| url.to_owned())
}

/// What a plugin is to be.
pub(crate) struct Wanted<'a> {
    pub(crate) manifest: PluginManifest,
    pub(crate) package: &'a Package,
    pub(crate) digest: Digest,
    pub(crate) config: &'a Map<String, Value>,
    pub(crate) granted: &'a [String],
    pub(crate) previous: Option<Previous>,
}

/// Settles what is written of it; everything that is wrong is named.
pub(crate) fn settle(wanted: Wanted<'_>) -> Result<Written, FieldErrors> {
    let Wanted { manifest, package, digest, config, granted, previous } = wanted;
    let mut errors = FieldErrors::new();
    entry(&manifest, package, &mut errors);
    for (field, complaint) in manifest.requirements.unmet(&COMPATIBILITY).iter() {
        errors.add(format!("requirements.{field}"), complaint);
    }
    accepted(&manifest, granted, &mut errors);
    let settled = OptionsSchema::read("configSchema", &manifest.config_schema, &manifest.default_config)
        .and_then(|schema| schema.settle("config", config));
    let settled = match settled {
        Ok(settled) => settled,
        Err(wrong) => {
            for (field, complaint) in wrong.iter() {
                errors.add(field, complaint);
            }
            Map::new()
        }
    };
    let events = events(&settled, &mut errors);
    if manifest.kind == PluginType::Webhook && endpoint(&manifest, &settled).is_none() {
        errors.add("config.url", "must be the address that events are sent to, with https://");
    }
    errors.into_result()?;
    let vetoes = manifest.kind == PluginType::Extension
        && manifest.permissions.iter().any(|word| word == Permission::SessionsVeto.as_str());
    let ordered = settled.get("ordered") == Some(&Value::Bool(true));
    let permissions = manifest.permissions.clone();
    Ok(Written { manifest, config: settled, permissions, package: digest, events, ordered, vetoes, previous })
}

fn entry(manifest: &PluginManifest, package: &Package, errors: &mut FieldErrors) {
    let (field, path) = match manifest.kind {
        PluginType::Webhook => return,
        PluginType::Extension => ("entrypoints.main", module_path(manifest)),
        PluginType::Api => ("entrypoints.api", module_path(manifest)),
        PluginType::Ui | PluginType::Theme => ("entrypoints.ui", first_file(manifest)),
    };
    match path {
        None => errors.add(field, format_args!("is what a plugin of type {} begins with", manifest.kind)),
        Some(path) if package.file(path).is_none() => {
            errors.add(field, format_args!("names `{path}`, which its package does not hold"));
        }
        Some(_) => {}
    }
}

/// Everything that it asks for has to be named: nobody grants what they have not read.
fn accepted(manifest: &PluginManifest, granted: &[String], errors: &mut FieldErrors) {
    let missing: Vec<String> = manifest
        .permissions
        .iter()
        .filter(|asked| !granted.contains(asked))
        .map(|asked| match asked.parse::<Permission>() {
            Ok(permission) => format!("{asked} ({})", permission.meaning()),
            Err(unknown) => format!("{asked} ({unknown})"),
        })
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        errors.add("permissions", format_args!("must name what it asks for, if you accept it: {missing}"));
    }
    let asked: BTreeSet<&str> = manifest.permissions.iter().map(String::as_str).collect();
    if let Some(more) = granted.iter().find(|word| !asked.contains(word.as_str())) {
        let more: String = more.chars().filter(|c| !c.is_control()).take(64).collect();
        errors.add("permissions", format_args!("{more} is nothing that it asks for"));
    }
}

/// `["session.*", "plugin.enable"]`, or `["*"]`.
fn events(config: &Map<String, Value>, errors: &mut FieldErrors) -> Vec<String> {
    const KINDS: [&str; 5] = ["session", "agent", "user", "application", "plugin"];
    let Some(Value::Array(listed)) = config.get("events") else { return Vec::new() };
    let fits = |word: &str| {
        word == "*"
            || word.split_once('.').is_some_and(|(kind, rest)| {
                KINDS.contains(&kind)
                    && (rest == "*"
                        || (1..=64).contains(&rest.len())
                            && rest.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.".contains(&byte)))
            })
    };
    let words: Vec<String> = listed.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if words.len() != listed.len() || words.len() > 64 || !words.iter().all(|word| fits(word)) {
        let kinds = KINDS.join(", ");
        errors.add("config.events", format_args!("must be at most 64 words such as session.* of: {kinds}"));
    }
    words
}

/// As much of a configuration as a schema knows: what an upgrade carries over.
pub(crate) fn known_part(manifest: &PluginManifest, config: &Map<String, Value>) -> Map<String, Value> {
    let Ok(schema) = OptionsSchema::read("", &manifest.config_schema, &manifest.default_config) else {
        return config.clone();
    };
    let schema = schema.schema();
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let known = schema.get("properties").and_then(Value::as_object);
    let keep = |name: &str| !closed || known.is_some_and(|known| known.contains_key(name));
    config.iter().filter(|(name, _)| keep(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A plugin among those that are there.
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) manifest: &'a PluginManifest,
    pub(crate) org: Option<OrgId>,
}

/// Whether what it needs is there, enabled, in a version that fits, and needs it not itself in turn. Plugins of the platform
/// need those of the platform; those of an organization its own or the platform's.
pub(crate) fn dependencies(place: &Place<'_>, there: &[InstalledPlugin]) -> FieldErrors {
    let visible: BTreeMap<&str, &InstalledPlugin> = there
        .iter()
        .filter(|other| other.name != place.name)
        .filter(|other| other.organization_id.is_none() || other.organization_id == place.org)
        .map(|other| (other.name.as_str(), other))
        .collect();
    let mut errors = FieldErrors::new();
    for (name, range) in place.manifest.needs() {
        let field = format!("dependencies.{name}");
        match visible.get(name) {
            None => errors.add(field, format_args!("{name} {range} is not installed: install it first")),
            Some(other) if !range.matches(&other.version) => {
                let has = &other.version;
                errors.add(
                    field,
                    format_args!("wants {name} {range}, and {has} is installed: upgrade it first"),
                );
            }
            Some(other) if !other.enabled => {
                errors.add(field, format_args!("{name} is disabled: enable it first"));
            }
            Some(_) => {}
        }
    }
    if let Some(circle) = circle(place, &visible) {
        errors.add("dependencies", format_args!("go round in a circle: {}", circle.join(" → ")));
    }
    errors
}

fn circle(place: &Place<'_>, visible: &BTreeMap<&str, &InstalledPlugin>) -> Option<Vec<String>> {
    let mut paths: Vec<Vec<String>> =
        place.manifest.needs().into_keys().map(|name| vec![place.name.to_owned(), name.to_owned()]).collect();
    let mut seen = BTreeSet::new();
    while let Some(path) = paths.pop() {
        let last = path.last()?.clone();
        if last == place.name {
            return Some(path);
        }
        if !seen.insert(last.clone()) {
            continue;
        }
        for next in visible.get(last.as_str()).map(|it| it.manifest.needs()).unwrap_or_default().into_keys() {
            let mut longer = path.clone();
            longer.push(next.to_owned());
            paths.push(longer);
        }
    }
    None
}

/// Those that need this one, in any version or in one that `next` is not; `next` is none where it goes away.
pub(crate) fn dependents(
    place: &Place<'_>,
    next: Option<&Version>,
    there: &[InstalledPlugin],
) -> Vec<String> {
    there
        .iter()
        .filter(|other| other.name != place.name)
        .filter(|other| place.org.is_none() || other.organization_id == place.org)
        .filter_map(|other| {
            let range = other.manifest.needs().get(place.name).cloned()?;
            let goes_on = next.is_some_and(|next| range.matches(next));
            (!goes_on).then(|| format!("{} {} wants {range}", other.name, other.version))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;
    use tidegate_model::{FromFields, InstalledPluginId};

    use super::*;

    fn manifest(name: &str, version: &str, needs: Value) -> PluginManifest {
        let mut said = json!({"name": name, "version": version, "type": "webhook",
            "entrypoints": {"webhook": "https://a.example"}});
        said["dependencies"] = needs;
        PluginManifest::from_json(said).unwrap()
    }

    fn installed(name: &str, version: &str, needs: Value, org: Option<OrgId>) -> InstalledPlugin {
        let manifest = manifest(name, version, needs);
        InstalledPlugin {
            id: InstalledPluginId::from_number(1),
            catalog_plugin_id: None,
            organization_id: org,
            name: name.to_owned(),
            version: manifest.version.clone(),
            enabled: true,
            config: Map::new(),
            installed_by: "me".into(),
            installed_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            display_name: String::new(),
            description: String::new(),
            plugin_type: manifest.kind,
            icon_url: String::new(),
            manifest,
            permissions: vec![],
            faults: 0,
            disabled_reason: None,
            previous_version: None,
        }
    }

    fn said(errors: &FieldErrors) -> Vec<String> {
        errors.iter().map(|(field, complaint)| format!("{field}: {complaint}")).collect()
    }

    #[test]
    fn missing_conflicting_disabled_and_cyclic_dependencies_are_named() {
        let wants = manifest(
            "new",
            "1.0.0",
            json!({"gone": "^1.0.0", "old": ">=2.0.0", "off": "*", "fine": "^1.0.0"}),
        );
        let place = Place { name: "new", manifest: &wants, org: None };
        let mut off = installed("off", "1.0.0", json!({}), None);
        off.enabled = false;
        let there = [
            installed("old", "1.9.0", json!({}), None),
            off,
            installed("fine", "1.4.0", json!({"deep": "*"}), None),
            installed("deep", "1.0.0", json!({"new": "*"}), None),
        ];
        assert_eq!(
            said(&dependencies(&place, &there)),
            [
                "dependencies: go round in a circle: new → fine → deep → new",
                "dependencies.gone: gone ^1.0.0 is not installed: install it first",
                "dependencies.off: off is disabled: enable it first",
                "dependencies.old: wants old >=2.0.0, and 1.9.0 is installed: upgrade it first",
            ]
        );
    }

    #[test]
    fn a_plugin_of_the_platform_needs_none_of_an_organization() {
        let org = OrgId::new();
        let wants = manifest("new", "1.0.0", json!({"own": "*"}));
        let there = [installed("own", "1.0.0", json!({}), Some(org))];
        let everywhere = Place { name: "new", manifest: &wants, org: None };
        assert_eq!(said(&dependencies(&everywhere, &there)).len(), 1);
        let inside = Place { name: "new", manifest: &wants, org: Some(org) };
        assert_eq!(said(&dependencies(&inside, &there)), [""; 0]);
        let elsewhere = Place { name: "new", manifest: &wants, org: Some(OrgId::new()) };
        assert_eq!(said(&dependencies(&elsewhere, &there)).len(), 1);
    }

    #[test]
    fn who_needs_a_plugin_keeps_it_and_its_version() {
        let own = manifest("base", "1.0.0", json!({}));
        let place = Place { name: "base", manifest: &own, org: None };
        let there = [
            installed("base", "1.0.0", json!({}), None),
            installed("up", "2.0.0", json!({"base": "^1.0.0"}), None),
        ];
        assert_eq!(dependents(&place, None, &there), ["up 2.0.0 wants ^1.0.0"]);
        assert_eq!(dependents(&place, Some(&Version::new(1, 5, 0)), &there), [""; 0]);
        assert_eq!(dependents(&place, Some(&Version::new(2, 0, 0)), &there).len(), 1);
    }

    #[test]
    fn everything_wrong_with_a_plugin_is_said_at_once() {
        let said_of = json!({"name": "a", "version": "1.0.0", "type": "api", "permissions": ["kv", "analytics:write"],
            "requirements": {"minimumVersion": "3.0.0"}, "entrypoints": {"api": "a.wasm"},
            "configSchema": {"days": {"type": "number"}, "events": {"type": "array"}}});
        let manifest = PluginManifest::from_json(said_of).unwrap();
        let config = json!({"days": "x", "events": ["everything"]});
        let wanted = Wanted {
            manifest,
            package: &Package::default(),
            digest: vec![],
            config: config.as_object().unwrap(),
            granted: &["kv".to_owned(), "log".to_owned()],
            previous: None,
        };
        let errors = settle(wanted).err().unwrap();
        let fields: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["config.days", "entrypoints.api", "permissions", "requirements.minimumVersion"]);
        assert!(errors.to_string().contains("analytics:write (grants nothing here)"), "{errors}");
    }

    #[test]
    fn an_upgrade_carries_over_what_the_new_version_knows() {
        let mut of = manifest("a", "2.0.0", json!({}));
        of.config_schema = json!({"kept": {"type": "string"}}).as_object().unwrap().clone();
        let old = json!({"kept": "x", "gone": 1});
        assert_eq!(Value::Object(known_part(&of, old.as_object().unwrap())), json!({"kept": "x"}));
        of.config_schema = Map::new();
        assert_eq!(Value::Object(known_part(&of, old.as_object().unwrap())), old);
    }
}
