//! Tables of installed applications.

use tidegate_model::{ApplicationGroupAccess, InstalledApplication};

use super::{named, plain, table, time};

/// A table of applications.
pub(crate) fn applications(applications: &[InstalledApplication]) -> String {
    let mut sorted: Vec<&InstalledApplication> = applications.iter().collect();
    sorted.sort_by_key(|it| it.display_name.to_lowercase());
    let mut table = table(["APPLICATION", "NAME", "TYPE", "PLATFORM", "STATE", "ACCESS"]);
    for it in sorted {
        let state = if it.enabled { it.install_status.to_string() } else { "disabled".to_owned() };
        table.add_row([
            plain(&it.display_name),
            plain(&it.name),
            it.app_type.to_string(),
            it.platform.to_string(),
            state,
            it.access.to_string(),
        ]);
    }
    table.trim_fmt()
}

/// Everything that people want to know of an application.
pub(crate) fn application(it: &InstalledApplication) -> String {
    let dash = || "-".to_owned();
    let mut lines = vec![
        ("Id", it.id.to_string()),
        ("Application", it.display_name.clone()),
        ("Name", it.name.clone()),
        ("Template", format!("{} ({})", it.template_name, it.catalog_template_id)),
        ("Description", it.description.clone()),
        ("Category", it.category.clone()),
        ("Type", it.app_type.to_string()),
        ("Platform", it.platform.to_string()),
        ("Enabled", if it.enabled { "yes" } else { "no" }.to_owned()),
        ("Installation", it.install_status.to_string()),
        ("Message", it.install_message.clone().unwrap_or_else(dash)),
        ("Access", it.access.to_string()),
        ("Installed", time(it.created_at)),
        ("Changed", time(it.updated_at)),
    ];
    if let Some(options) = &it.configuration {
        let options: Vec<String> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.push(("Options", if options.is_empty() { dash() } else { options.join(" ") }));
    }
    let lines = named(&lines);
    match &it.groups {
        Some(groups) if !groups.is_empty() => format!("{lines}\n\n{}", application_groups(groups)),
        _ => lines,
    }
}

/// A table of the groups that may use an application.
pub(crate) fn application_groups(groups: &[ApplicationGroupAccess]) -> String {
    let mut table = table(["GROUP", "ACCESS", "SINCE", "ID"]);
    for access in groups {
        table.add_row([
            plain(&access.group_name),
            access.access_level.to_string(),
            time(access.created_at),
            access.group_id.to_string(),
        ]);
    }
    table.trim_fmt()
}
