//! `plugins`, for operators.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use tidegate_client::{Client, DeliveryPage};
use tidegate_model::{
    InstallPluginRequest, InstalledPlugin, InstalledPluginId, OrgId, UpdatePluginRequest,
    UpgradePluginRequest,
};

use super::catalog::find_plugin;
use crate::{
    args::{InstallPluginArgs, PluginWanted, PluginsVerb},
    context::Context,
    output::{self, plain},
    progress,
};

/// Most deliveries that are listed at once.
const MOST: usize = 100_000;

pub(super) async fn plugins(context: &Context, verb: PluginsVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    let changed = match verb {
        PluginsVerb::List { organization } => {
            let org = match organization {
                Some(name) => Some(organization_id(client, &name).await?),
                None => None,
            };
            let found = client.plugins(org).await?;
            out.answer(&found, || output::plugins::installed(&found.plugins))?;
            return Ok(ExitCode::SUCCESS);
        }
        PluginsVerb::Show(words) => {
            let found = client.plugin(find(client, &words.plugin).await?).await?;
            out.answer(&found, || output::plugins::one(&found))?;
            return Ok(ExitCode::SUCCESS);
        }
        PluginsVerb::Uninstall(words) => {
            let id = find(client, &words.plugin).await?;
            client.uninstall_plugin(id).await?;
            out.answer(&json!({"uninstalled": id}), || format!("{} is uninstalled", plain(&words.plugin)))?;
            return Ok(ExitCode::SUCCESS);
        }
        PluginsVerb::Deliveries { plugin, all } => {
            let page = deliveries(client, find(client, &plugin.plugin).await?, all).await?;
            out.answer(&page, || output::plugins::deliveries(&page.deliveries))?;
            return Ok(ExitCode::SUCCESS);
        }
        PluginsVerb::Redeliver { plugin, delivery } => {
            let again = client.redeliver(find(client, &plugin.plugin).await?, delivery).await?;
            out.answer(&again, || "it is told again, with the same id".to_owned())?;
            return Ok(ExitCode::SUCCESS);
        }
        PluginsVerb::Install(words) => {
            progress::until(out, "the plugin is being installed", install(client, words)).await?
        }
        PluginsVerb::Upgrade { plugin, wanted } => {
            let id = find(client, &plugin.plugin).await?;
            let request = UpgradePluginRequest {
                config: wanted.values.as_deref().map(object).transpose()?,
                version: wanted.version,
                permissions: wanted.grants,
            };
            let changed =
                progress::until(out, "the plugin is being upgraded", client.upgrade_plugin(id, &request))
                    .await?;
            tell_changes(context, &changed).await?;
            changed
        }
        PluginsVerb::Configure { plugin, values } => {
            let change = UpdatePluginRequest { enabled: None, config: Some(object(&values)?) };
            client.update_plugin(find(client, &plugin.plugin).await?, &change).await?
        }
        PluginsVerb::Enable(words) => client.enable_plugin(find(client, &words.plugin).await?).await?,
        PluginsVerb::Disable(words) => client.disable_plugin(find(client, &words.plugin).await?).await?,
        PluginsVerb::Rollback(words) => client.roll_back_plugin(find(client, &words.plugin).await?).await?,
    };
    out.answer(&changed, || sentence(&changed))?;
    Ok(ExitCode::SUCCESS)
}

/// Tells people what the versions after the one before say that they changed.
async fn tell_changes(context: &Context, plugin: &InstalledPlugin) -> anyhow::Result<()> {
    let (Some(entry), Some(before)) = (plugin.catalog_plugin_id, &plugin.previous_version) else {
        return Ok(());
    };
    let versions = context.client.catalog_plugin_versions(entry).await?.versions;
    let new = versions.iter().filter(|one| *before < one.version && one.version <= plugin.version);
    let changes = output::catalog::changes(new);
    if !changes.is_empty() {
        context.output.note(&changes);
    }
    Ok(())
}

fn sentence(plugin: &InstalledPlugin) -> String {
    let stands = if plugin.enabled { "enabled" } else { "disabled" };
    format!("{} {} is number {} and {stands}", plain(&plugin.name), plugin.version, plugin.id)
}

async fn install(client: &Client, words: InstallPluginArgs) -> anyhow::Result<InstalledPlugin> {
    let InstallPluginArgs { entry, wanted, organization, disabled } = words;
    let PluginWanted { values, grants, version } = wanted;
    let organization_id = match organization {
        Some(name) => Some(organization_id(client, &name).await?),
        None => None,
    };
    let request = InstallPluginRequest {
        plugin_id: None,
        version,
        config: values.as_deref().map(object).transpose()?.unwrap_or_default(),
        organization_id,
        permissions: grants,
        enabled: Some(!disabled),
    };
    Ok(client.install_plugin(find_plugin(client, &entry).await?, &request).await?)
}

async fn deliveries(client: &Client, id: InstalledPluginId, all: bool) -> anyhow::Result<DeliveryPage> {
    let mut page = client.plugin_deliveries(id, None).await?;
    while all && page.deliveries.len() < MOST {
        let Some(cursor) = page.next_cursor.take() else { break };
        let next = client.plugin_deliveries(id, Some(&cursor)).await?;
        // A cursor that leads nowhere must not be followed for ever.
        if next.deliveries.is_empty() {
            break;
        }
        page.deliveries.extend(next.deliveries);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}

/// The plugin of this number or name; a name may stand for several organizations' own.
async fn find(client: &Client, plugin: &str) -> anyhow::Result<InstalledPluginId> {
    if let Ok(id) = plugin.parse() {
        return Ok(id);
    }
    let found = client.plugins(None).await?.plugins;
    let called: Vec<_> = found.iter().filter(|one| one.name == plugin).collect();
    match called.as_slice() {
        [] => bail!(
            "no plugin is called {}: `tidegate plugins list` shows those that are installed",
            plain(plugin)
        ),
        [one] => Ok(one.id),
        several => {
            let numbers: Vec<String> = several.iter().map(|one| one.id.to_string()).collect();
            bail!("{} is installed more than once, say the number: {}", plain(plugin), numbers.join(", "))
        }
    }
}

async fn organization_id(client: &Client, name: &str) -> anyhow::Result<OrgId> {
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(client.organization(name).await?.id),
    }
}

fn object(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    serde_json::from_str(&text).with_context(|| format!("{shown} must hold a JSON object"))
}
