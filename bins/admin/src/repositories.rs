//! What the verbs about repositories do.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use tidegate_model::{
    AddRepositoryRequest, FromFields, Repository, RepositoryAuth, RepositoryProblem, UpdateRepositoryRequest,
};
use tidegate_service::{Caller, Made, Services, SyncEnd, SyncReport};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::time,
    args::{Asking, RepositoryVerb},
    output,
    pages::all,
    progress,
};

pub(crate) async fn repositories(
    services: &Services,
    verb: RepositoryVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    let (console, every) = (Caller::console(), &services.repositories);
    match verb {
        RepositoryVerb::Add { name, url, branch, kind, description, asking, no_sync, if_needed } => {
            if if_needed && let Ok(there) = every.named(&console, &name).await {
                return output::said(as_json, &there, &format!("repository {name} is there already"));
            }
            let mut body = Map::from_iter([
                ("name".to_owned(), json!(name)),
                ("url".to_owned(), json!(url)),
                ("type".to_owned(), json!(kind)),
            ]);
            put(&mut body, "branch", branch);
            put(&mut body, "description", description);
            let way = asking.auth.unwrap_or(RepositoryAuth::None);
            ask(&mut body, asking, way)?;
            let request =
                AddRepositoryRequest::from_json(body.into()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
            let made = match every.add(&console, request, None, |made| json!(made)).await? {
                Made::New(made) => made,
                Made::Replay(_) => bail!("nothing was asked for twice"),
            };
            if no_sync {
                return output::said(as_json, &made, &format!("repository {name} is there"));
            }
            sync(services, &console, &made, as_json).await
        }
        RepositoryVerb::List => list(services, &console, as_json).await,
        RepositoryVerb::Show { repository } => show(services, &console, &repository, as_json).await,
        RepositoryVerb::Change { repository, name, url, branch, description, enabled, asking } => {
            let found = every.named(&console, &repository).await?;
            let mut body = Map::new();
            put(&mut body, "name", name);
            put(&mut body, "url", url);
            for (field, text) in [("branch", branch), ("description", description)] {
                if let Some(text) = text {
                    let value = if text.is_empty() { Value::Null } else { text.into() };
                    body.insert(field.to_owned(), value);
                }
            }
            if let Some(enabled) = enabled {
                body.insert("enabled".to_owned(), enabled.into());
            }
            let way = asking.auth.unwrap_or(found.auth_type);
            ask(&mut body, asking, way)?;
            let request = UpdateRepositoryRequest::from_json(body.into())
                .map_err(|errors| anyhow::anyhow!("{errors}"))?;
            let after = every.change(&console, found.public.id, request).await?;
            output::said(as_json, &after, &format!("repository {} is changed", after.public.name))
        }
        RepositoryVerb::Sync { repository } => {
            let found = every.named(&console, &repository).await?;
            sync(services, &console, &found, as_json).await
        }
        RepositoryVerb::Remove { repository } => {
            let found = every.named(&console, &repository).await?;
            every.remove(&console, found.public.id).await?;
            let sentence = format!("repository {} is removed", found.public.name);
            output::said(as_json, &json!({"removed": found.public.id}), &sentence)
        }
    }
}

fn put(body: &mut Map<String, Value>, field: &str, text: Option<String>) {
    body.extend(text.map(|text| (field.to_owned(), Value::from(text))));
}

/// What the remote wants to see, out of the files that were named.
fn ask(body: &mut Map<String, Value>, asking: Asking, way: RepositoryAuth) -> anyhow::Result<()> {
    body.extend(asking.auth.map(|auth| ("authType".to_owned(), json!(auth))));
    put(body, "username", asking.username);
    if let Some(file) = &asking.secret_file {
        let field = match way {
            RepositoryAuth::None => bail!("--secret-file wants --auth token, basic or ssh"),
            RepositoryAuth::Token => "token",
            RepositoryAuth::Basic => "password",
            RepositoryAuth::Ssh => "privateKey",
        };
        put(body, field, Some(read(file)?));
    }
    put(body, "knownHosts", asking.known_hosts.as_deref().map(read).transpose()?);
    put(body, "webhookSecret", asking.webhook_secret_file.as_deref().map(read).transpose()?);
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(text.trim_end().to_owned())
}

async fn sync(
    services: &Services,
    console: &Caller,
    repository: &Repository,
    as_json: bool,
) -> anyhow::Result<()> {
    let (id, name) = (repository.public.id, &repository.public.name);
    let line = progress::line(as_json, format!("syncing {name}"));
    let telling = line.clone();
    let tell = move |step| telling.set_message(progress::of_sync(step));
    let stop = CancellationToken::new();
    let report = match services.repositories.sync_now(console, id, &stop, &tell).await {
        // The control plane was faster: its sync is as good.
        Err(tidegate_service::Error::Conflict { code: "E_SYNC_RUNNING", .. }) => {
            line.set_message(format!("waiting for the control plane, which syncs {name}"));
            wait(services, console, repository).await
        }
        other => other.map_err(Into::into),
    };
    line.finish_and_clear();
    let report = report?;
    let sentence = match &report.end {
        SyncEnd::Synced { templates, plugins, changed, withdrawn, problems, .. } => {
            let look = format!("; `tidegate-admin repositories show {name}` lists them");
            let look = if *problems == 0 { "" } else { &look };
            format!(
                "repository {name} is synced: {templates} templates and {plugins} plugins, {changed} of them new or changed, \
                 {withdrawn} withdrawn, {problems} problems{look}"
            )
        }
        SyncEnd::Failed { reason } => {
            if as_json {
                output::one(&report)?;
            }
            bail!("repository {name} was not synced, and its catalog stays as it was: {reason}")
        }
        SyncEnd::Overtaken | SyncEnd::GivenUp => {
            format!("repository {name} was changed or taken over meanwhile: nothing was written by this sync")
        }
    };
    output::said(as_json, &report, &sentence)
}

/// Waits for a sync of somebody else's.
async fn wait(services: &Services, console: &Caller, repository: &Repository) -> anyhow::Result<SyncReport> {
    let id = repository.public.id;
    loop {
        let now = services.repositories.get(console, id).await?;
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        match now.sync_status {
            tidegate_model::RepositorySyncStatus::Synced => {
                let end = SyncEnd::Synced {
                    revision: now.revision.unwrap_or_default(),
                    templates: count(now.templates),
                    plugins: count(now.plugins),
                    changed: 0,
                    withdrawn: 0,
                    problems: count(now.problems),
                };
                return Ok(SyncReport { id, end });
            }
            tidegate_model::RepositorySyncStatus::Failed => {
                return Ok(SyncReport {
                    id,
                    end: SyncEnd::Failed { reason: now.sync_error.unwrap_or_default() },
                });
            }
            tidegate_model::RepositorySyncStatus::Never | tidegate_model::RepositorySyncStatus::Syncing => {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    }
}

async fn list(services: &Services, console: &Caller, as_json: bool) -> anyhow::Result<()> {
    let found = all(async |paging| services.repositories.list(console, paging).await).await?;
    let row = |it: &Repository| {
        vec![
            it.public.name.clone(),
            it.public.id.to_string(),
            if it.public.enabled { it.sync_status.to_string() } else { "disabled".to_owned() },
            it.templates.to_string(),
            it.plugins.to_string(),
            it.problems.to_string(),
            it.synced_at.map_or_else(|| "never".to_owned(), time),
            it.public.url.clone(),
        ]
    };
    let headings = ["REPOSITORY", "ID", "STATUS", "TEMPLATES", "PLUGINS", "PROBLEMS", "SYNCED", "URL"];
    let rows = found.iter().map(row).collect();
    output::list(as_json, &json!({"repositories": found, "total": found.len()}), &headings, rows)
}

async fn show(services: &Services, console: &Caller, wanted: &str, as_json: bool) -> anyhow::Result<()> {
    let found = services.repositories.named(console, wanted).await?;
    let problems = services.repositories.problems(console, found.public.id).await?;
    if as_json {
        return output::one(&json!({"repository": found, "problems": problems}));
    }
    let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = [
        ("name", found.public.name.clone()),
        ("id", found.public.id.to_string()),
        ("url", found.public.url.clone()),
        ("type", found.public.kind.to_string()),
        ("branch", text(found.branch.clone())),
        ("auth", found.auth_type.to_string()),
        ("webhook", if found.has_webhook_secret { "signed" } else { "none" }.to_owned()),
        ("enabled", found.public.enabled.to_string()),
        ("status", found.sync_status.to_string()),
        ("failed with", text(found.sync_error.clone())),
        ("revision", text(found.revision.clone())),
        ("synced", text(found.synced_at.map(time))),
        ("next sync", text(found.next_sync_at.map(time))),
        ("templates", found.templates.to_string()),
        ("plugins", found.plugins.to_string()),
    ];
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output::list(false, &(), &["", ""], rows)?;
    if problems.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let row = |it: &RepositoryProblem| {
        vec![it.path.clone(), it.line.map_or_else(String::new, |line| line.to_string()), it.reason.clone()]
    };
    output::list(false, &(), &["FILE", "LINE", "PROBLEM"], problems.iter().map(row).collect())
}
