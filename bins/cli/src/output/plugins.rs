//! Installed plugins for people.

use tidegate_model::{InstalledPlugin, PluginDelivery};

use super::{plain, table, time};

fn state(plugin: &InstalledPlugin) -> String {
    match (&plugin.disabled_reason, plugin.enabled) {
        (_, true) => "enabled".to_owned(),
        (Some(reason), false) => format!("disabled: {}", plain(reason)),
        (None, false) => "disabled".to_owned(),
    }
}

fn serves(plugin: &InstalledPlugin) -> String {
    plugin.organization_id.map_or_else(|| "all".to_owned(), |org| org.to_string())
}

/// A table of plugins.
pub(crate) fn installed(plugins: &[InstalledPlugin]) -> String {
    let mut table = table(["NUMBER", "NAME", "VERSION", "TYPE", "ORGANIZATION", "STATE"]);
    for one in plugins {
        table.add_row([
            one.id.to_string(),
            plain(&one.name),
            one.version.to_string(),
            one.plugin_type.to_string(),
            serves(one),
            state(one),
        ]);
    }
    table.trim_fmt()
}

/// All that there is to say of one.
pub(crate) fn one(plugin: &InstalledPlugin) -> String {
    let config = serde_json::to_string_pretty(&plugin.config).unwrap_or_default();
    let before = plugin.previous_version.as_ref().map(ToString::to_string).unwrap_or_default();
    let pairs = [
        ("Number", plugin.id.to_string()),
        ("Name", plain(&plugin.name)),
        ("Called", plain(&plugin.display_name)),
        ("Version", plugin.version.to_string()),
        ("Before", before),
        ("Type", plugin.plugin_type.to_string()),
        ("For", serves(plugin)),
        ("State", state(plugin)),
        ("May", plain(&plugin.permissions.join(", "))),
        ("Faults", plugin.faults.to_string()),
        ("Installed", format!("{} by {}", time(plugin.installed_at), plain(&plugin.installed_by))),
        ("Config", plain(&config)),
    ];
    let filled = pairs.iter().filter(|(_, text)| !text.is_empty());
    filled.map(|(name, text)| format!("{name:<11}{text}")).collect::<Vec<_>>().join("\n")
}

/// A table of what one was told.
pub(crate) fn deliveries(told: &[PluginDelivery]) -> String {
    let mut table = table(["DELIVERY", "EVENT", "STATUS", "TRIES", "ANSWER", "WHY"]);
    for one in told {
        table.add_row([
            one.id.to_string(),
            plain(&one.event),
            one.status.to_string(),
            one.attempts.to_string(),
            one.last_status.map(|status| status.to_string()).unwrap_or_default(),
            plain(one.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table.trim_fmt()
}
