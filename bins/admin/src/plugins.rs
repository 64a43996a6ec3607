//! What the verbs about plugins do.

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tidegate_model::{
    InstallPluginRequest, InstalledPlugin, InstalledPluginId, PluginDelivery, UpdatePluginRequest,
    UpgradePluginRequest,
};
use tidegate_service::{Caller, Made, Paging, Services};

use crate::{
    args::{PluginOptions, PluginSource, PluginVerb},
    output, progress,
};

pub(crate) async fn plugins(services: &Services, verb: PluginVerb, as_json: bool) -> anyhow::Result<()> {
    let (plugins, caller) = (&services.plugins, Caller::console());
    let changed = match verb {
        PluginVerb::List => return list(&plugins.list(&caller, None).await?, as_json),
        PluginVerb::Show { plugin } => return output::one(&plugins.get(&caller, plugin).await?),
        PluginVerb::Uninstall { plugin } => {
            plugins.uninstall(&caller, plugin).await?;
            return output::said(as_json, &json!({"uninstalled": plugin}), "uninstalled");
        }
        PluginVerb::Deliveries { plugin, status } => {
            let page = Paging { limit: 100, cursor: None };
            let told = plugins.deliveries(&caller, plugin, status, &page).await?.items;
            return deliveries(&told, as_json);
        }
        PluginVerb::Redeliver { plugin, delivery } => {
            let again = plugins.redeliver(&caller, plugin, delivery).await?;
            return output::said(as_json, &again, "it is told again, with the same id");
        }
        PluginVerb::Install { from, options, organization, disabled } => {
            let org = match organization {
                Some(organization) => Some(services.operators.enter(&organization).await?.org_id()),
                None => None,
            };
            let request =
                InstallPluginRequest { organization_id: org, enabled: Some(!disabled), ..request(&options)? };
            let doing = match (&from.catalog, &from.archive) {
                (Some(id), _) => format!("installing plugin {id} of the catalog"),
                (None, archive) => {
                    format!("installing {}", archive.as_deref().unwrap_or(Path::new("")).display())
                }
            };
            progress::until(as_json, doing, Box::pin(install(services, &caller, from, request))).await?
        }
        PluginVerb::Enable { plugin } => plugins.enable(&caller, plugin).await?,
        PluginVerb::Disable { plugin } => plugins.disable(&caller, plugin).await?,
        PluginVerb::Configure { plugin, values } => {
            let change = UpdatePluginRequest { enabled: None, config: Some(object(&values)?) };
            plugins.update(&caller, plugin, change).await?
        }
        PluginVerb::Upgrade { plugin, archive, options } => {
            let work = Box::pin(upgrade(services, &caller, plugin, archive.as_deref(), options));
            progress::until(as_json, format!("upgrading plugin {plugin}"), work).await?
        }
        PluginVerb::Rollback { plugin } => plugins.roll_back(&caller, plugin).await?,
    };
    let stands = if changed.enabled { "enabled" } else { "disabled" };
    let sentence = format!("{} {} is number {} and {stands}", changed.name, changed.version, changed.id);
    output::said(as_json, &changed, &sentence)
}

async fn install(
    services: &Services,
    caller: &Caller,
    from: PluginSource,
    request: InstallPluginRequest,
) -> anyhow::Result<InstalledPlugin> {
    let made = match (from.catalog, from.archive) {
        (Some(id), _) => services.plugins.install(caller, id, request, None, |made| json!(made)).await?,
        (None, archive) => {
            let archive = archive.context("name a plugin with --catalog or --archive")?;
            let bytes =
                fs::read(&archive).with_context(|| format!("{} cannot be read", archive.display()))?;
            services.plugins.upload(caller, bytes, request, None, |made| json!(made)).await?
        }
    };
    match made {
        Made::New(made) => Ok(made),
        Made::Replay(replay) => Ok(serde_json::from_value(replay.body)?),
    }
}

async fn upgrade(
    services: &Services,
    caller: &Caller,
    plugin: InstalledPluginId,
    archive: Option<&Path>,
    options: PluginOptions,
) -> anyhow::Result<InstalledPlugin> {
    let config = options.values.as_deref().map(object).transpose()?;
    let request = UpgradePluginRequest { version: options.version, config, permissions: options.grants };
    Ok(match archive {
        None => services.plugins.upgrade(caller, plugin, request).await?,
        Some(archive) => {
            let bytes = fs::read(archive).with_context(|| format!("{} cannot be read", archive.display()))?;
            services.plugins.upgrade_by_hand(caller, plugin, bytes, request).await?
        }
    })
}

fn request(options: &PluginOptions) -> anyhow::Result<InstallPluginRequest> {
    Ok(InstallPluginRequest {
        version: options.version.clone(),
        config: options.values.as_deref().map(object).transpose()?.unwrap_or_default(),
        permissions: options.grants.clone(),
        ..InstallPluginRequest::default()
    })
}

fn object(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON object", file.display()))
}

fn list(plugins: &[InstalledPlugin], as_json: bool) -> anyhow::Result<()> {
    let rows = plugins.iter().map(|plugin| {
        let state = match (&plugin.disabled_reason, plugin.enabled) {
            (_, true) => "enabled".to_owned(),
            (Some(reason), false) => format!("disabled: {reason}"),
            (None, false) => "disabled".to_owned(),
        };
        vec![
            plugin.id.to_string(),
            plugin.name.clone(),
            plugin.version.to_string(),
            plugin.plugin_type.to_string(),
            plugin.organization_id.map_or_else(|| "all".to_owned(), |org| org.to_string()),
            state,
        ]
    });
    let headings = ["NUMBER", "NAME", "VERSION", "TYPE", "ORGANIZATION", "STATE"];
    output::list(as_json, &plugins, &headings, rows.collect())
}

fn deliveries(told: &[PluginDelivery], as_json: bool) -> anyhow::Result<()> {
    let rows = told.iter().map(|one| {
        vec![
            one.id.to_string(),
            one.event.clone(),
            one.status.to_string(),
            one.attempts.to_string(),
            one.last_status.map(|status| status.to_string()).unwrap_or_default(),
            one.reason.clone().unwrap_or_default(),
        ]
    });
    let headings = ["DELIVERY", "EVENT", "STATUS", "TRIES", "ANSWER", "WHY"];
    output::list(as_json, &told, &headings, rows.collect())
}
