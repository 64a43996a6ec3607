//! Repositories: adding, changing and removing them is an operator's; syncing them is the platform's own.
//!
//! Of several control planes one syncs a repository at a time. It holds a lease that ends by itself, and what it writes, it
//! writes in one transaction that first asks whether the lease is still its own: a sync that was too slow, was killed, or
//! whose repository was changed or removed meanwhile writes nothing.

mod secret;
mod sync;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use serde_json::{Value, json};
use tidegate_model::{
    AddRepositoryRequest, FieldErrors, Operation, PatchField, Repository, RepositoryAuth, RepositoryId,
    RepositoryProblem, RepositoryType, SyncRequested, UpdateRepositoryRequest,
};
use tidegate_persistence::{
    PlatformTx, audit,
    repository::{self, Sealed, Written},
};
use tidegate_repositories::{Branch, Fetcher, Options as FetchOptions, Remote};
use tokio::sync::Notify;

use crate::{
    Caller, Core, Error, Idempotency, Listed, Made, Paging, Result, error::Named,
    permissions::require_platform,
};

pub use sync::{Progress, SyncEnd, SyncReport};

/// Settings of repositories.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepositoryOptions {
    /// Minutes between two syncs of a repository, give or take a tenth. Default 60.
    pub sync_minutes: u32,
    /// Seconds that a sync is nobody else's without a sign of life. Default 60.
    pub lease_seconds: u32,
    /// Where repositories are kept between two syncs; it may be deleted at any time. Default: `repositories` in the data
    /// folder.
    pub cache_dir: Option<PathBuf>,
    /// What may be fetched, and how much of it.
    pub fetch: FetchOptions,
}

impl Default for RepositoryOptions {
    fn default() -> Self {
        Self { sync_minutes: 60, lease_seconds: 60, cache_dir: None, fetch: FetchOptions::default() }
    }
}

/// Repositories of the catalog.
#[derive(Debug, Clone)]
pub struct Repositories {
    pub(crate) core: Arc<Core>,
    fetcher: Fetcher,
    /// That somebody asked this process for a sync.
    wanted: Arc<Notify>,
}

impl Repositories {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let options = &core.options.repositories;
        let cache =
            options.cache_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tidegate-repositories"));
        let fetcher = Fetcher::new(options.fetch.clone(), cache);
        Self { core, fetcher, wanted: Arc::default() }
    }

    /// Repositories in the order they were added.
    pub async fn list(&self, caller: &Caller, paging: &Paging) -> Result<Listed<Repository>> {
        let operator = require_platform(Operation::ManageRepositories, caller)?;
        let after =
            paging.after()?.map(|text| text.parse().map_err(|_| crate::page::bad_cursor())).transpose()?;
        let rows = paging.rows();
        let found = self.core.db.in_platform(&operator, async |tx| repository::list(tx, after, rows).await);
        let (items, total) = found.await?;
        Ok(paging.page(items, total, |it| it.public.id.to_string()))
    }

    /// One repository.
    pub async fn get(&self, caller: &Caller, id: RepositoryId) -> Result<Repository> {
        let operator = require_platform(Operation::ManageRepositories, caller)?;
        let found = self.core.db.in_platform(&operator, async |tx| repository::find(tx, id).await);
        found.await.named(format_args!("repository {id}"))
    }

    /// One repository, by its number or its name.
    pub async fn named(&self, caller: &Caller, wanted: &str) -> Result<Repository> {
        let operator = require_platform(Operation::ManageRepositories, caller)?;
        let shown: String = wanted.chars().filter(|c| !c.is_control()).take(100).collect();
        let found = self.core.db.in_platform(&operator, async |tx| {
            match repository::find_by_name(tx, &shown).await {
                Err(tidegate_persistence::Error::NotFound) => match shown.parse() {
                    Ok(id) => repository::find(tx, id).await,
                    Err(_) => Err(tidegate_persistence::Error::NotFound),
                },
                found => found,
            }
        });
        found.await.named(format_args!("repository {shown}"))
    }

    /// What is wrong with files of its last sync.
    pub async fn problems(&self, caller: &Caller, id: RepositoryId) -> Result<Vec<RepositoryProblem>> {
        let operator = require_platform(Operation::ManageRepositories, caller)?;
        let found = self.core.db.in_platform(&operator, async |tx| {
            repository::find(tx, id).await?;
            repository::problems(tx, id).await
        });
        found.await.named(format_args!("repository {id}"))
    }

    /// Adds a repository; its first sync begins at once.
    pub async fn add(
        &self,
        caller: &Caller,
        request: AddRepositoryRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Repository) -> Value + Send + Sync,
    ) -> Result<Made<Repository>> {
        let operator = require_platform(Operation::ManageRepositories, caller)?;
        let new = Written {
            name: request.name,
            url: request.url,
            branch: request.branch,
            kind: request.kind,
            auth_type: request.auth_type,
            description: request.description,
            enabled: request.enabled,
        };
        let mut errors = self.check(&new);
        secret::check(&mut errors, new.auth_type, &request.secret, true);
        errors.into_result().map_err(Error::Invalid)?;
        let now = self.core.clock.now();
        let made = self
            .core
            .db
            .in_platform(&operator, async |tx| {
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_operators_in(tx, now).await?
                {
                    return Ok(Made::Replay(replay));
                }
                let id = repository::insert(tx, new, now).await?;
                let sealed = Sealed {
                    secret: Some(secret::seal(&self.core.vault, id, &request.secret)?),
                    webhook_secret: request
                        .webhook_secret
                        .as_ref()
                        .map(|it| secret::seal_webhook(&self.core.vault, id, it).map(Some))
                        .transpose()?,
                };
                repository::seal(tx, id, sealed).await?;
                let made = repository::find(tx, id).await?;
                audit_in(tx, "repository.add", id, json!({"after": shown(&made)}), now).await?;
                if let Some(key) = idempotency {
                    key.keep_operators_in(tx, 201, answer(&made), now).await?;
                }
                Ok::<_, Error>(Made::New(made))
            })
            .await;
        self.wanted.notify_one();
        match (made, idempotency) {
            // A racer with the same key was faster: its answer is there now.
            (Err(lost @ Error::Conflict { .. }), Some(key)) => {
                let find = async |tx: &mut PlatformTx| key.find_operators_in(tx, now).await;
                self.core.db.in_platform(&operator, find).await?.map(Made::Replay).ok_or(lost)
            }
            (made, _) => made,
        }
    }

    /// Changes a repository. Another address gets no secret that was given for the one before.
    pub async fn change(
        &self,
        caller: &Caller,
        id: RepositoryId,
        request: UpdateRepositoryRequest,
    ) -> Result<Repository> {
        let operator = require_platform(Operation::ManageRepositories, caller)?;
        let now = self.core.clock.now();
        let changed = self
            .core
            .db
            .in_platform(&operator, async |tx| {
                let before = repository::lock(tx, id).await.named(format_args!("repository {id}"))?;
                let to = overlaid(&before, &request);
                let errors = self.check_change(&before, &to, &request);
                errors.into_result().map_err(Error::Invalid)?;
                let gives_secret = !request.secret.is_empty() || to.auth_type == RepositoryAuth::None;
                let other_content = to.url != before.public.url
                    || to.branch != before.branch
                    || to.auth_type != before.auth_type
                    || !request.secret.is_empty()
                    || (to.enabled && !before.public.enabled);
                repository::update(tx, id, to, other_content, now).await?;
                let vault = &self.core.vault;
                let sealed = Sealed {
                    secret: gives_secret.then(|| secret::seal(vault, id, &request.secret)).transpose()?,
                    webhook_secret: match &request.webhook_secret {
                        PatchField::Absent => None,
                        PatchField::Clear => Some(None),
                        PatchField::Set(it) => Some(Some(secret::seal_webhook(vault, id, it)?)),
                    },
                };
                repository::seal(tx, id, sealed).await?;
                let after = repository::find(tx, id).await?;
                let mut detail = json!({"before": shown(&before), "after": shown(&after)});
                if !request.secret.is_empty() {
                    detail["after"]["secret"] = json!("[redacted]");
                }
                if request.webhook_secret != PatchField::Absent {
                    detail["after"]["webhookSecret"] = json!("[redacted]");
                }
                if detail["before"] != detail["after"] {
                    audit_in(tx, "repository.change", id, detail, now).await?;
                }
                Ok::<_, Error>(after)
            })
            .await?;
        self.wanted.notify_one();
        Ok(changed)
    }

    /// Removes a repository. What came from it is withdrawn, and stays for whoever has it installed.
    pub async fn remove(&self, caller: &Caller, id: RepositoryId) -> Result<()> {
        let operator = require_platform(Operation::ManageRepositories, caller)?;
        let now = self.core.clock.now();
        self.core
            .db
            .in_platform(&operator, async |tx| {
                let before = repository::lock(tx, id).await.named(format_args!("repository {id}"))?;
                repository::remove(tx, id, now).await?;
                audit_in(tx, "repository.remove", id, json!({"before": shown(&before)}), now).await
            })
            .await?;
        let (fetcher, name) = (self.fetcher.clone(), id.to_string());
        // Files of a cache are in nobody's way: whether they go now or not changes nothing.
        drop(tokio::task::spawn_blocking(move || fetcher.forget(&name)).await);
        Ok(())
    }

    /// Asks for a sync, which begins as soon as a control plane can.
    pub async fn request_sync(&self, caller: &Caller, id: RepositoryId) -> Result<SyncRequested> {
        let operator = require_platform(Operation::ManageRepositories, caller)?;
        let now = self.core.clock.now();
        let requested = self
            .core
            .db
            .in_platform(&operator, async |tx| {
                let found = repository::lock(tx, id).await.named(format_args!("repository {id}"))?;
                if !found.public.enabled {
                    let message = format!("repository {id} is disabled: enable it to sync it");
                    return Err(Error::Conflict { code: "E_REPOSITORY_DISABLED", message });
                }
                let requested = repository::request_sync(tx, id, now).await?;
                if requested {
                    audit_in(tx, "repository.sync", id, json!({}), now).await?;
                }
                Ok::<_, Error>(requested)
            })
            .await?;
        self.wanted.notify_one();
        Ok(SyncRequested { requested })
    }

    /// Somebody's server says that a repository changed. Whether there is such a repository is said to nobody whose
    /// signature does not fit.
    pub async fn webhook(
        &self,
        id: RepositoryId,
        body: &[u8],
        signature: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<SyncRequested> {
        let (now, system) = (self.core.clock.now(), tidegate_persistence::Operator::system());
        self.core.throttle.allows_key(source, now)?;
        let found = self.core.db.in_platform(&system, async |tx| repository::webhook_secret(tx, id).await);
        let sealed = found.await?;
        let fits = match (&sealed, signature) {
            (Some(sealed), Some(signature)) => {
                secret::signature_fits(&self.core.vault, id, sealed, body, signature)?
            }
            _ => false,
        };
        if !fits {
            self.core.throttle.failure(source, now)?;
            return Err(Error::Unauthenticated("the signature does not fit"));
        }
        let asked = self.core.db.in_platform(&system, async |tx| repository::request_sync(tx, id, now).await);
        let requested = asked.await?;
        self.wanted.notify_one();
        Ok(SyncRequested { requested })
    }

    /// Waits until somebody asked this process for a sync.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    fn remote(&self, kind: RepositoryType, url: &str) -> Result<Remote, String> {
        match kind {
            RepositoryType::Git => Remote::git(url, self.fetcher.options()),
            RepositoryType::Http => Remote::archive(url, self.fetcher.options()),
        }
    }

    fn check(&self, written: &Written) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let remote = errors.check("url", self.remote(written.kind, &written.url));
        if let Some(branch) = &written.branch {
            errors.check("branch", Branch::new(branch));
            if written.kind == RepositoryType::Http {
                errors.add("branch", "belongs to a git repository");
            }
        }
        match (remote, written.auth_type) {
            (Some(remote), RepositoryAuth::Ssh) if !remote.is_ssh() => {
                errors.add("authType", "ssh is for addresses such as git@host:path");
            }
            (Some(remote), RepositoryAuth::None | RepositoryAuth::Token | RepositoryAuth::Basic)
                if remote.is_ssh() =>
            {
                errors.add("authType", "must be ssh: the address is reached by ssh, which wants a key");
            }
            (Some(Remote::Local(_)), RepositoryAuth::Token | RepositoryAuth::Basic) => {
                errors.add("authType", "must be none: a folder of this machine asks for nothing");
            }
            _ => {}
        }
        errors
    }

    fn check_change(
        &self,
        before: &Repository,
        to: &Written,
        request: &UpdateRepositoryRequest,
    ) -> FieldErrors {
        let mut errors = self.check(to);
        let other = to.auth_type != before.auth_type;
        secret::check(&mut errors, to.auth_type, &request.secret, other || !request.secret.is_empty());
        let host = |url: &str| self.remote(to.kind, url).ok().map(|remote| secret::host(&remote));
        let elsewhere = to.url != before.public.url && host(&to.url) != host(&before.public.url);
        if elsewhere && to.auth_type != RepositoryAuth::None && request.secret.is_empty() {
            errors.add("url", "is another server's: give the secret again, it was for the one before");
        }
        errors
    }
}

fn overlaid(before: &Repository, request: &UpdateRepositoryRequest) -> Written {
    let public = &before.public;
    Written {
        name: request.name.clone().unwrap_or_else(|| public.name.clone()),
        url: request.url.clone().unwrap_or_else(|| public.url.clone()),
        branch: match &request.branch {
            PatchField::Absent => before.branch.clone(),
            PatchField::Clear => None,
            PatchField::Set(branch) => Some(branch.clone()),
        },
        kind: public.kind,
        auth_type: request.auth_type.unwrap_or(before.auth_type),
        description: match &request.description {
            PatchField::Absent => public.description.clone(),
            PatchField::Clear => String::new(),
            PatchField::Set(text) => text.clone(),
        },
        enabled: request.enabled.unwrap_or(public.enabled),
    }
}

/// What the audit log shows of a repository.
fn shown(repository: &Repository) -> Value {
    let public = &repository.public;
    json!({
        "name": public.name, "url": public.url, "branch": repository.branch, "type": public.kind,
        "authType": repository.auth_type, "description": public.description, "enabled": public.enabled,
    })
}

async fn audit_in(
    tx: &mut PlatformTx,
    action: &'static str,
    about: RepositoryId,
    detail: Value,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<()> {
    let resource = format!("repository:{about}");
    Ok(audit::insert_platform(tx, audit::Entry { action, resource, address: None, detail, at }).await?)
}
