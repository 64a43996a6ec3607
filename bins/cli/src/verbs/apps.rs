//! `apps`, and finding the application that somebody means.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use tidegate_client::{ApplicationChange, ApplicationPage, Client, NewApplication};
use tidegate_model::{ApplicationId, InstallStatus, InstalledApplication};

use super::{catalog::find_template, groups::group, people::MOST};
use crate::{
    args::{AppGroupVerb, AppVerb, InstallArgs, Settings, UpdateArgs},
    context::Context,
    output::{self, plain},
    progress,
};

pub(super) async fn apps(context: &Context, verb: AppVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        AppVerb::List { mine } => {
            let page = if mine { mine_all(client).await? } else { all(client).await? };
            out.answer(&page, || output::applications(&page.applications))?;
        }
        AppVerb::Show(words) => {
            let found = client.application(id(client, &words.app).await?).await?;
            out.answer(&found, || output::application(&found))?;
        }
        AppVerb::Install(words) => return install(context, words).await,
        AppVerb::Update(words) => return update(context, words).await,
        AppVerb::Enable(words) => {
            let changed = client.enable_application(id(client, &words.app).await?, true).await?;
            out.answer(&changed, || format!("{} can be started", plain(&changed.display_name)))?;
        }
        AppVerb::Disable(words) => {
            let changed = client.enable_application(id(client, &words.app).await?, false).await?;
            out.answer(&changed, || format!("{} cannot be started any more", plain(&changed.display_name)))?;
        }
        AppVerb::Remove { app, force } => {
            let id = id(client, &app.app).await?;
            client.remove_application(id, force).await?;
            out.answer(&json!({"removed": id}), || format!("{} is removed", plain(&app.app)))?;
        }
        AppVerb::Groups(verb) => groups(context, verb).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn groups(context: &Context, verb: AppGroupVerb) -> anyhow::Result<()> {
    let (client, out) = (&context.client, context.output);
    match verb {
        AppGroupVerb::List(words) => {
            let list = client.application_groups(id(client, &words.app).await?).await?;
            out.answer(&list, || output::application_groups(&list.groups))
        }
        AppGroupVerb::Add { who, access } => {
            let (id, group) = (id(client, &who.app.app).await?, group(client, &who.group).await?);
            let given = client.add_application_group(id, group, access).await?;
            out.answer(&given, || format!("{} has access to {access}", plain(&given.group_name)))
        }
        AppGroupVerb::Change { who, access } => {
            let (id, group) = (id(client, &who.app.app).await?, group(client, &who.group).await?);
            let given = client.set_application_group(id, group, access).await?;
            out.answer(&given, || format!("{} has access to {access}", plain(&given.group_name)))
        }
        AppGroupVerb::Remove(who) => {
            let (id, group) = (id(client, &who.app.app).await?, group(client, &who.group).await?);
            client.remove_application_group(id, group).await?;
            out.answer(&json!({"removed": group}), || format!("{} has no access any more", plain(&who.group)))
        }
    }
}

async fn install(context: &Context, words: InstallArgs) -> anyhow::Result<ExitCode> {
    let client = &context.client;
    let mut group_ids = Vec::with_capacity(words.groups.len());
    for name in &words.groups {
        group_ids.push(group(client, name).await?);
    }
    let new = NewApplication {
        catalog_template_id: find_template(client, &words.template).await?,
        display_name: words.display_name,
        platform: words.platform,
        configuration: options(&words.options, Map::new())?,
        group_ids,
    };
    let made = client.install_application(&new).await?;
    if words.no_wait {
        context.output.answer(&made, || sentence(&made))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = progress::of_installation(client, context.output, made).await?;
    finished(context, &ended)
}

async fn update(context: &Context, words: UpdateArgs) -> anyhow::Result<ExitCode> {
    let client = &context.client;
    let id = id(client, &words.app.app).await?;
    let given = !words.options.set.is_empty() || words.options.options_file.is_some();
    if words.display_name.is_none() && !given && !words.reset && !words.retry {
        bail!("nothing to change: say --display-name, --set, --options-file, --reset or --retry");
    }
    let configuration = if given || words.reset {
        let before = if words.reset { None } else { client.application(id).await?.configuration };
        Some(options(&words.options, before.unwrap_or_default())?)
    } else {
        None
    };
    let change = ApplicationChange { display_name: words.display_name, enabled: None, configuration };
    let changed = client.update_application(id, &change).await?;
    if changed.install_status == InstallStatus::Installed {
        context.output.answer(&changed, || format!("{} is changed", plain(&changed.display_name)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = progress::of_installation(client, context.output, changed).await?;
    finished(context, &ended)
}

fn finished(context: &Context, application: &InstalledApplication) -> anyhow::Result<ExitCode> {
    context.output.answer(application, || sentence(application))?;
    let installed = application.install_status == InstallStatus::Installed;
    Ok(if installed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sentence(application: &InstalledApplication) -> String {
    let (name, shown) = (plain(&application.name), plain(&application.display_name));
    let why =
        application.install_message.as_deref().map(|why| format!(": {}", plain(why))).unwrap_or_default();
    match application.install_status {
        InstallStatus::Installed => {
            format!("{shown} is installed as {name}: start it with `tidegate run {name}`")
        }
        InstallStatus::Failed => {
            format!(
                "{shown} ({name}) is not installed{why}\ntry again with `tidegate apps update {name} --retry`"
            )
        }
        InstallStatus::Pending | InstallStatus::Creating => {
            format!("{shown} is being installed as {name}{why}")
        }
    }
}

/// Options as they are given, over those that are there.
fn options(given: &Settings, mut below: Map<String, Value>) -> anyhow::Result<Map<String, Value>> {
    if let Some(file) = &given.options_file {
        let shown = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
        let read: Map<String, Value> =
            serde_json::from_str(&text).with_context(|| format!("{shown} must hold a JSON object"))?;
        below.extend(read);
    }
    below.extend(given.set.iter().cloned());
    Ok(below)
}

/// The application that is meant.
pub(super) async fn id(client: &Client, text: &str) -> anyhow::Result<ApplicationId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    match pick(all(client).await?.applications, text)? {
        Some(found) => Ok(found.id),
        None => bail!("no application is called `{text}`: see `tidegate apps list`"),
    }
}

/// The application that can be started and is meant, if there is one.
pub(super) async fn launchable(client: &Client, text: &str) -> anyhow::Result<Option<ApplicationId>> {
    if let Ok(id) = text.parse() {
        return Ok(Some(id));
    }
    Ok(pick(mine_all(client).await?.applications, text)?.map(|found| found.id))
}

/// A name means one; what it is called for people, in any case, may mean several.
fn pick(applications: Vec<InstalledApplication>, text: &str) -> anyhow::Result<Option<InstalledApplication>> {
    if let Some(found) = applications.iter().find(|it| it.name == text) {
        return Ok(Some(found.clone()));
    }
    let wanted = text.to_lowercase();
    let mut found: Vec<InstalledApplication> =
        applications.into_iter().filter(|it| it.display_name.to_lowercase() == wanted).collect();
    if found.len() > 1 {
        let names: Vec<String> = found.iter().take(5).map(|it| plain(&it.name)).collect();
        bail!("`{text}` means {} applications, say which: {}", found.len(), names.join(", "));
    }
    Ok(found.pop())
}

async fn all(client: &Client) -> anyhow::Result<ApplicationPage> {
    let mut page = client.applications(None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.applications.len() < MOST) {
        let next = client.applications(Some(&cursor)).await?;
        page.applications.extend(next.applications);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}

async fn mine_all(client: &Client) -> anyhow::Result<ApplicationPage> {
    let mut page = client.my_applications(None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.applications.len() < MOST) {
        let next = client.my_applications(Some(&cursor)).await?;
        page.applications.extend(next.applications);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}
