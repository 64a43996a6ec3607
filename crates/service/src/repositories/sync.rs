//! One sync: claim, fetch, compare, write. Rows are held for moments only; what is slow happens in between.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use metrics::{counter, histogram};
use rand::RngExt;
use tidegate_model::{BlobDigest, RepositoryId, RepositoryType};
use tidegate_persistence::{
    Operator, PlatformTx,
    catalog::{self, Known, NewBlob, NewPlugin, NewTemplate},
    repository::{self, Claimed, Ended, Lease, Synced},
};
use tidegate_repositories::{
    Branch, Found, FoundPlugin, FoundTemplate, Icon, Problems, Remote, Snapshot, Source, SourceKind, Step,
    Tell,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Repositories, secret};
use crate::{Caller, Error, Result, error::Named, permissions::require_platform};

/// Bytes of packages and icons that are written in one transaction.
const BATCH: usize = 8 * 1024 * 1024;
/// What a plugin's folder is kept as.
const PACKAGE: &str = "application/x-tar";

/// Who is told how far a sync is.
pub type Progress = dyn Fn(Step) + Send + Sync;

/// How a sync ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncReport {
    /// The repository.
    pub id: RepositoryId,
    /// How it ended.
    #[serde(flatten)]
    pub end: SyncEnd,
}

/// How a sync ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum SyncEnd {
    /// The catalog is what the repository is.
    Synced {
        /// Its state.
        revision: String,
        /// Templates in it.
        templates: usize,
        /// Plugins in it.
        plugins: usize,
        /// Entries that were new or other than before.
        changed: usize,
        /// Entries that are gone.
        withdrawn: usize,
        /// Files that are in neither.
        problems: usize,
    },
    /// The catalog is what it was.
    Failed {
        /// Why, in plain words.
        reason: String,
    },
    /// Somebody else took over, or the repository was changed or removed meanwhile: nothing was written.
    Overtaken,
    /// It was given up because this program ends: whoever is there next does it.
    GivenUp,
}

/// What there is to write.
#[derive(Default)]
struct Changes {
    templates: Vec<NewTemplate>,
    plugins: Vec<NewPlugin>,
    gone_templates: Vec<String>,
    gone_plugins: Vec<String>,
}

/// Files on their way into the database.
struct Blobs<'a> {
    repositories: &'a Repositories,
    waiting: Vec<NewBlob>,
    bytes: usize,
}

impl Repositories {
    /// Syncs the repository whose turn it is, if there is one.
    pub async fn sync_due(&self, stop: &CancellationToken) -> Result<Option<SyncReport>> {
        let (lease, now) = self.lease();
        let system = Operator::system();
        let claimed = self.core.db.in_platform(&system, async |tx| {
            let Some(claimed) = repository::claim_due(tx, lease, now).await? else { return Ok(None) };
            let known = catalog::known(tx, claimed.id).await?;
            Ok::<_, tidegate_persistence::Error>(Some((claimed, known)))
        });
        let Some((claimed, known)) = claimed.await? else { return Ok(None) };
        self.sync(claimed, known, lease, stop, &|_| {}).await.map(Some)
    }

    /// Syncs one repository now, in this very process. A conflict while somebody else does.
    pub async fn sync_now(
        &self,
        caller: &Caller,
        id: RepositoryId,
        stop: &CancellationToken,
        progress: &Progress,
    ) -> Result<SyncReport> {
        let operator = require_platform(tidegate_model::Operation::ManageRepositories, caller)?;
        let (lease, now) = self.lease();
        let claimed = self.core.db.in_platform(&operator, async |tx| {
            let Some(claimed) = repository::claim(tx, id, lease, now).await? else {
                repository::find(tx, id).await.named(format_args!("repository {id}"))?;
                return Ok(None);
            };
            super::audit_in(tx, "repository.sync", id, serde_json::json!({}), now).await?;
            let known = catalog::known(tx, claimed.id).await?;
            Ok::<_, Error>(Some((claimed, known)))
        });
        let Some((claimed, known)) = claimed.await? else {
            let message = format!("repository {id} is being synced: wait for its end");
            return Err(Error::Conflict { code: "E_SYNC_RUNNING", message });
        };
        self.sync(claimed, known, lease, stop, progress).await
    }

    fn lease(&self) -> (Lease, DateTime<Utc>) {
        let now = self.core.clock.now();
        let length = TimeDelta::seconds(i64::from(self.core.options.repositories.lease_seconds.max(3)));
        (Lease { holder: uuid::Uuid::new_v4(), until: now + length }, now)
    }

    /// When the next sync is due: a tenth of the period more or less, so that not all of them are at one time.
    fn next(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let period = i64::from(self.core.options.repositories.sync_minutes.max(1)) * 60;
        let jitter = rand::rng().random_range(-period / 10..=period / 10);
        now + TimeDelta::seconds(period + jitter)
    }

    async fn sync(
        &self,
        claimed: Claimed,
        known: Known,
        lease: Lease,
        stop: &CancellationToken,
        progress: &Progress,
    ) -> Result<SyncReport> {
        let (id, holder, started) = (claimed.id, lease.holder, Instant::now());
        // The lease is kept alive in a task of its own, which no slow remote holds up and nobody cuts half-way.
        let (done, ended) = oneshot::channel::<()>();
        let lost = CancellationToken::new();
        let keeper = tokio::spawn(keep_alive(self.clone(), id, holder, (ended, lost.clone())));
        let outcome = self.fetch_and_write(&claimed, &known, holder, (stop, &lost), progress).await;
        drop(done);
        drop(keeper.await);
        let end = match outcome {
            Ok(end) => end,
            Err(Failure::Remote(reason)) => self.fail(id, holder, reason).await?,
            // Where the folder is in use, the lease is left to end: whoever works in there is gone by then.
            Err(Failure::Lost | Failure::Busy) => SyncEnd::Overtaken,
            Err(Failure::Stopped) => {
                let system = Operator::system();
                let release = async |tx: &mut PlatformTx| repository::release(tx, id, holder).await;
                self.core.db.in_platform(&system, release).await?;
                SyncEnd::GivenUp
            }
            Err(Failure::Ours(error)) => {
                // Whether it is the database or us: the sync is tried again, and later than at once.
                let told = "the control plane could not write what it found: its log says more".to_owned();
                drop(self.fail(id, holder, told).await);
                return Err(error);
            }
        };
        let label = match &end {
            SyncEnd::Synced { .. } => "synced",
            SyncEnd::Failed { .. } => "failed",
            SyncEnd::Overtaken => "overtaken",
            SyncEnd::GivenUp => "given_up",
        };
        counter!("tidegate_repository_syncs_total", "outcome" => label).increment(1);
        histogram!("tidegate_repository_sync_seconds").record(started.elapsed());
        Ok(SyncReport { id, end })
    }

    async fn fail(&self, id: RepositoryId, holder: uuid::Uuid, reason: String) -> Result<SyncEnd> {
        tracing::info!(repository = %id, reason, "a sync failed, and the catalog stays as it was");
        let now = self.core.clock.now();
        let shown: String = reason.chars().take(2_000).collect();
        let ended = Ended { outcome: Err(shown), next: self.next(now), now };
        let system = Operator::system();
        let write = async |tx: &mut PlatformTx| repository::finish(tx, id, holder, ended).await;
        let written = self.core.db.in_platform(&system, write).await?;
        Ok(if written { SyncEnd::Failed { reason } } else { SyncEnd::Overtaken })
    }

    async fn fetch_and_write(
        &self,
        claimed: &Claimed,
        known: &Known,
        holder: uuid::Uuid,
        (stop, lost): (&CancellationToken, &CancellationToken),
        progress: &Progress,
    ) -> Result<SyncEnd, Failure> {
        let source = self.source(claimed)?;
        let fetching = read(self, claimed.id, &source, progress);
        // Nothing of the database is in there: it may be dropped at any point.
        let (mut snapshot, mut found) = tokio::select! {
            read = fetching => read?,
            () = stop.cancelled() => return Err(Failure::Stopped),
            () = lost.cancelled() => return Err(Failure::Lost),
        };
        let changes = self.prepare(&mut snapshot, &mut found, known).await?;
        let revision = snapshot.revision().to_owned();
        drop(snapshot);
        self.write(claimed, holder, revision, found, changes).await
    }

    fn source(&self, claimed: &Claimed) -> Result<Source, Failure> {
        let options = self.fetcher.options();
        // The settings may have changed since it was added.
        let wrong = |complaint: String| Failure::Remote(format!("its address {complaint}"));
        let (kind, remote) = match claimed.kind {
            RepositoryType::Git => {
                let branch = claimed.branch.as_deref().map(Branch::new).transpose().map_err(wrong)?;
                (SourceKind::Git(branch), Remote::git(&claimed.url, options).map_err(wrong)?)
            }
            RepositoryType::Http => {
                (SourceKind::Archive, Remote::archive(&claimed.url, options).map_err(wrong)?)
            }
        };
        let sealed = claimed.secret.as_deref();
        let credential = secret::open(&self.core.vault, claimed.id, claimed.auth_type, sealed)?;
        Ok(Source { kind, remote, credential })
    }

    /// What is new, other and gone, with its files written already: they stay for a while without anything that refers to
    /// them, and each batch is a short transaction.
    async fn prepare(
        &self,
        snapshot: &mut Snapshot,
        found: &mut Found,
        known: &Known,
    ) -> Result<Changes, Failure> {
        let mut changes = Changes::default();
        let mut blobs = Blobs { repositories: self, waiting: Vec::new(), bytes: 0 };
        let Found { templates, plugins, problems } = found;
        for template in templates.iter() {
            let name = &template.manifest.name;
            let same = known
                .templates
                .get(name)
                .is_some_and(|(_, digest, withdrawn)| digest.as_slice() == template.digest && !withdrawn);
            if !same {
                changes.templates.push(new_template(snapshot, template, &mut blobs, problems).await?);
            }
        }
        for plugin in plugins.iter() {
            let name = &plugin.manifest.name;
            let same = known
                .plugins
                .get(name)
                .is_some_and(|(_, digest, withdrawn)| digest.as_slice() == plugin.digest && !withdrawn);
            if !same {
                changes.plugins.extend(new_plugin(snapshot, plugin, &mut blobs, problems).await?);
            }
        }
        blobs.flush().await?;
        let here: BTreeSet<&str> = templates.iter().map(|it| it.manifest.name.as_str()).collect();
        let gone = |(name, (_, _, withdrawn)): (&String, &(_, Vec<u8>, bool))| {
            (!withdrawn && !here.contains(name.as_str())).then(|| name.clone())
        };
        changes.gone_templates = known.templates.iter().filter_map(gone).collect();
        let here: BTreeSet<&str> = plugins.iter().map(|it| it.manifest.name.as_str()).collect();
        changes.gone_plugins = known
            .plugins
            .iter()
            .filter(|(name, (_, _, withdrawn))| !withdrawn && !here.contains(name.as_str()))
            .map(|(name, _)| name.clone())
            .collect();
        Ok(changes)
    }

    /// All of it or nothing, and nothing where the lease is over.
    async fn write(
        &self,
        claimed: &Claimed,
        holder: uuid::Uuid,
        revision: String,
        found: Found,
        changes: Changes,
    ) -> Result<SyncEnd, Failure> {
        let (id, now) = (claimed.id, self.core.clock.now());
        let problems = found.problems.into_list();
        let count = |items: usize| i32::try_from(items).unwrap_or(i32::MAX);
        let synced = Synced {
            revision: revision.clone(),
            templates: count(found.templates.len()),
            plugins: count(found.plugins.len()),
            problems: count(problems.len()),
        };
        let ended = Ended { outcome: Ok(synced), next: self.next(now), now };
        let upserts = changes.templates.len() + changes.plugins.len();
        let system = Operator::system();
        let written = self.core.db.in_platform(&system, async |tx| {
            // First: it holds the row, and says whether the rest may be written.
            if !repository::finish(tx, id, holder, ended).await? {
                return Ok(None);
            }
            catalog::upsert_templates(tx, id, &changes.templates, now).await?;
            catalog::upsert_plugins(tx, id, &changes.plugins, now).await?;
            let gone = catalog::withdraw(tx, id, changes.gone_templates, changes.gone_plugins, now).await?;
            // Where none were and none are, nothing is said of them.
            if !problems.is_empty() || claimed.problems > 0 {
                repository::put_problems(tx, id, &problems).await?;
            }
            Ok::<_, tidegate_persistence::Error>(Some(gone))
        });
        let Some(withdrawn) = written.await.map_err(Error::from)? else { return Ok(SyncEnd::Overtaken) };
        Ok(SyncEnd::Synced {
            revision,
            templates: found.templates.len(),
            plugins: found.plugins.len(),
            changed: upserts,
            withdrawn,
            problems: problems.len(),
        })
    }
}

/// Why a sync did not come to its end.
enum Failure {
    /// Something about the repository, for whoever added it.
    Remote(String),
    /// This program ends.
    Stopped,
    /// The lease is somebody else's, or nobody's.
    Lost,
    /// A sync before, or what is left of it, still works in its folder.
    Busy,
    /// A fault of ours, or a database that is away.
    Ours(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<tidegate_repositories::Error> for Failure {
    fn from(error: tidegate_repositories::Error) -> Self {
        match error {
            tidegate_repositories::Error::Busy => Self::Busy,
            other => Self::Remote(other.to_string()),
        }
    }
}

async fn read(
    repositories: &Repositories,
    id: RepositoryId,
    source: &Source,
    tell: &Tell,
) -> Result<(Snapshot, Found), Failure> {
    let mut snapshot = repositories.fetcher.fetch(&id.to_string(), source, tell).await?;
    let found = snapshot.catalog(tell).await?;
    Ok((snapshot, found))
}

async fn new_template(
    snapshot: &mut Snapshot,
    template: &FoundTemplate,
    blobs: &mut Blobs<'_>,
    problems: &mut Problems,
) -> Result<NewTemplate, Failure> {
    let icon = snapshot.template_icon(template).await?;
    let icon = blobs.keep_icon(icon, problems).await?;
    Ok(NewTemplate { manifest: template.manifest.clone(), icon, digest: template.digest.to_vec() })
}

async fn new_plugin(
    snapshot: &mut Snapshot,
    plugin: &FoundPlugin,
    blobs: &mut Blobs<'_>,
    problems: &mut Problems,
) -> Result<Option<NewPlugin>, Failure> {
    let package = match snapshot.package(plugin).await? {
        Ok(package) => package,
        Err(problem) => {
            // What the catalog had of it stays.
            problems.put(problem);
            return Ok(None);
        }
    };
    let icon = snapshot.plugin_icon(plugin).await?;
    let icon = blobs.keep_icon(icon, problems).await?;
    let changelog = snapshot.changelog(plugin).await?;
    let package = blobs.keep(PACKAGE, package).await?;
    let digest = plugin.digest.to_vec();
    Ok(Some(NewPlugin { manifest: plugin.manifest.clone(), icon, package, changelog, digest }))
}

impl Blobs<'_> {
    async fn keep(&mut self, media_type: &str, content: Vec<u8>) -> Result<BlobDigest, Failure> {
        let digest = digest_of(&content);
        self.bytes += content.len();
        self.waiting.push(NewBlob { digest, media_type: media_type.to_owned(), content });
        if self.bytes >= BATCH {
            self.flush().await?;
        }
        Ok(digest)
    }

    async fn keep_icon(
        &mut self,
        icon: Result<Option<Icon>, tidegate_repositories::Complaint>,
        problems: &mut Problems,
    ) -> Result<Option<BlobDigest>, Failure> {
        match icon {
            Ok(Some(icon)) => self.keep(icon.media_type, icon.content).await.map(Some),
            Ok(None) => Ok(None),
            Err(problem) => {
                problems.put(problem);
                Ok(None)
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        if waiting.is_empty() {
            return Ok(());
        }
        let (core, system) = (&self.repositories.core, Operator::system());
        let now = core.clock.now();
        let put = core.db.in_platform(&system, async |tx| catalog::put_blobs(tx, waiting, now).await);
        put.await.map_err(|error| Failure::Ours(error.into()))
    }
}

fn digest_of(content: &[u8]) -> BlobDigest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content).as_ref());
    BlobDigest::from_bytes(bytes)
}

/// Renews a lease until the sync is done, or the lease is somebody else's, which the sync is told.
async fn keep_alive(
    repositories: Repositories,
    id: RepositoryId,
    holder: uuid::Uuid,
    (mut done, lost): (oneshot::Receiver<()>, CancellationToken),
) {
    let seconds = repositories.core.options.repositories.lease_seconds.max(3);
    let pause = Duration::from_secs(u64::from(seconds)) / 3;
    loop {
        if tokio::time::timeout(pause, &mut done).await.is_ok() {
            return;
        }
        let core: &Arc<crate::Core> = &repositories.core;
        let now = core.clock.now();
        let lease = Lease { holder, until: now + TimeDelta::seconds(i64::from(seconds)) };
        let system = Operator::system();
        match core.db.in_platform(&system, async |tx| repository::renew(tx, id, lease, now).await).await {
            Ok(true) => {}
            Ok(false) => return lost.cancel(),
            // Tried again, as long as the lease lasts.
            Err(error) => tracing::debug!(%error, repository = %id, "a lease was not renewed"),
        }
    }
}
