//! Syncing a repository of two thousand manifests: the first time, when nothing changed, and when one in a hundred did.
//!
//! Statements are those that the server logs of a login that nobody else uses; rows are counted by the transactions that
//! wrote them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;
use tidegate_model::{AddRepositoryRequest, FromFields, RepositoryId};
use tidegate_service::{Caller, Made, Services, SyncEnd};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::{
    progress::during,
    stage::{DATABASE, Stage},
    stats::real,
};

/// The login that syncs.
pub(crate) const COUNTED: &str = "tidegate_counted";
const TEMPLATES: usize = 1_600;
const PLUGINS: usize = 400;
/// Of how many templates, and of how many plugins, one changes.
const ONE_OF: usize = 100;
/// Syncs of which the middle one counts.
const ROUNDS: usize = 3;
/// Tables that a sync writes entries into.
const TABLES: [&str; 6] = [
    "catalog_templates",
    "catalog_plugins",
    "plugin_versions",
    "template_stats",
    "plugin_stats",
    "catalog_blobs",
];

/// What syncs took.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sync {
    /// Manifests in the repository.
    pub(crate) manifests: usize,
    pub(crate) first: Took,
    pub(crate) unchanged: Took,
    /// One of a hundred manifests had changed.
    pub(crate) changed: Took,
}

/// What one sync took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Took {
    pub(crate) millis: f64,
    /// Statements that the server was sent, those that begin and end transactions included.
    pub(crate) statements: usize,
    /// Entries that were new or other than before.
    pub(crate) entries: usize,
    /// Rows that were written of them.
    pub(crate) rows: f64,
}

impl Sync {
    /// How much of the time that all entries take beyond an unchanged re-sync the changed ones do.
    pub(crate) fn share(&self) -> f64 {
        let beyond = |took: Took| (took.millis - self.unchanged.millis).max(0.0);
        beyond(self.changed) / beyond(self.first).max(f64::EPSILON)
    }

    /// Rows that are written for an entry that changed.
    pub(crate) fn rows_each(&self) -> f64 {
        self.changed.rows / real(self.changed.entries as u64).max(1.0)
    }
}

/// Makes the repository and syncs it.
pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Sync> {
    let folder = stage.folder().join("syncs");
    fs::create_dir_all(&folder)?;
    let repository = during("a repository of 2 000 manifests", Upstream::make(&folder)).await?;
    let synced = Synced::prepare(stage, &repository, &folder).await?;
    let first = during("the first sync", synced.measure(TEMPLATES + PLUGINS)).await?;
    let mut unchanged = Vec::new();
    for _ in 0..ROUNDS {
        unchanged.push(during("a sync without a change", synced.measure(0)).await?);
    }
    let mut changed = Vec::new();
    for round in 1..=ROUNDS {
        let count = repository.change(round).await?;
        changed.push(during("a sync of one in a hundred", synced.measure(count)).await?);
    }
    let manifests = TEMPLATES + PLUGINS;
    Ok(Sync { manifests, first, unchanged: middle(unchanged)?, changed: middle(changed)? })
}

/// The one of the middle time, which must be like the others in what it sent.
fn middle(mut took: Vec<Took>) -> anyhow::Result<Took> {
    took.sort_by(|one, other| one.millis.total_cmp(&other.millis));
    let most = took.iter().map(|it| it.statements).max();
    let middle = *took.get(took.len() / 2).context("nothing was synced")?;
    Ok(Took { statements: most.unwrap_or(middle.statements), ..middle })
}

/// A folder that somebody works in, and the bare repository that they push to.
struct Upstream {
    work: PathBuf,
    bare: PathBuf,
}

impl Upstream {
    async fn make(folder: &Path) -> anyhow::Result<Self> {
        let made = Self { work: folder.join("work"), bare: folder.join("upstream.git") };
        for number in 0..TEMPLATES {
            made.write_template(number, 0)?;
        }
        for number in 0..PLUGINS {
            made.write_plugin(number, 0)?;
        }
        made.git(&["init", "--quiet", "--initial-branch=main"]).await?;
        made.commit().await?;
        let bare = made.bare.display().to_string();
        made.git(&["clone", "--quiet", "--bare", ".", &bare]).await?;
        Ok(made)
    }

    fn write_template(&self, number: usize, round: usize) -> anyhow::Result<()> {
        let kind = number % 12;
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Template\nmetadata:\n  name: application-{number:04}\nspec:\n  \
             displayName: Application {number}\n  description: An application of kind {kind}, round {round}\n  \
             category: Kind {kind}\n  appType: terminal\n  platforms: [docker]\n  image: registry.example/application:{number}.{round}\n  \
             command: [sh]\n  env:\n    NUMBER: \"{number}\"\n  resources:\n    cpu: 250m\n    memory: 128Mi\n  tags: [kind-{kind}, bench]\n"
        );
        self.write(&format!("templates/{kind:02}/application-{number:04}.yaml"), &text)
    }

    fn write_plugin(&self, number: usize, round: usize) -> anyhow::Result<()> {
        let folder = format!("plugins/extra-{number:03}");
        let manifest = json!({
            "name": format!("extra-{number:03}"),
            "version": format!("1.{round}.0"),
            "displayName": format!("Extra {number}"),
            "description": format!("A sheet of its own, round {round}"),
            "author": "bench",
            "type": "theme",
            "category": "Themes",
            "entrypoints": {"ui": "sheet.css"},
        });
        self.write(&format!("{folder}/plugin.json"), &manifest.to_string())?;
        self.write(&format!("{folder}/CHANGELOG.md"), &format!("## 1.{round}.0\n- round {round}\n"))?;
        self.write(&format!("{folder}/sheet.css"), &format!("/* {number} */ body {{ margin: {round}px }}\n"))
    }

    fn write(&self, path: &str, content: &str) -> anyhow::Result<()> {
        let path = self.work.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, content)?)
    }

    /// Changes one of a hundred and publishes that; how many they are.
    async fn change(&self, round: usize) -> anyhow::Result<usize> {
        let (templates, plugins) = (TEMPLATES / ONE_OF, PLUGINS / ONE_OF);
        for number in 0..templates {
            self.write_template(number * ONE_OF + round, round)?;
        }
        for number in 0..plugins {
            self.write_plugin(number * ONE_OF + round, round)?;
        }
        self.commit().await?;
        let bare = self.bare.display().to_string();
        self.git(&["push", "--quiet", &bare, "main"]).await?;
        Ok(templates + plugins)
    }

    async fn commit(&self) -> anyhow::Result<()> {
        self.git(&["add", "-A"]).await?;
        self.git(&["commit", "--quiet", "-m", "bench"]).await
    }

    async fn git(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let ended = Command::new("git")
            .args([
                "-c",
                "user.name=bench",
                "-c",
                "user.email=bench@example.org",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .current_dir(&self.work)
            .output()
            .await
            .context("git could not be started")?;
        ensure!(ended.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        Ok(())
    }
}

/// A repository that is synced, by use cases whose statements are counted.
struct Synced<'a> {
    stage: &'a Stage,
    services: Services,
    id: RepositoryId,
    log: PathBuf,
}

impl<'a> Synced<'a> {
    async fn prepare(stage: &'a Stage, of: &Upstream, folder: &Path) -> anyhow::Result<Self> {
        let password = stage.postgres.password(COUNTED)?.expose().to_owned();
        let role = format!(
            "CREATE ROLE {COUNTED} LOGIN NOINHERIT PASSWORD '{password}';
             GRANT tidegate_org, tidegate_user, tidegate_hub, tidegate_platform TO {COUNTED};
             ALTER ROLE {COUNTED} SET log_statement = 'all';
             ALTER ROLE {COUNTED} SET log_parameter_max_length = 0"
        );
        stage.sql(&role).await?;
        let url = stage.postgres.url(COUNTED, DATABASE)?;
        let services = stage.services_for_syncs(&url, folder)?;
        // The control plane, which may read no folder of this machine, leaves alone what is disabled.
        let asked = json!({"name": "two-thousand", "url": of.bare.display().to_string(), "type": "git", "enabled": false});
        let request = AddRepositoryRequest::from_json(asked).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let made = services.repositories.add(&Caller::console(), request, None, |made| json!(made)).await?;
        let Made::New(made) = made else { anyhow::bail!("the repository is there already") };
        let log = stage.folder().join("data/postgres.log");
        Ok(Self { stage, services, id: made.public.id, log })
    }

    /// One sync, which has to find so many changed entries.
    async fn measure(&self, expected: usize) -> anyhow::Result<Took> {
        let before = self.statements()?;
        let since = self.stage.numbers("SELECT txid_snapshot_xmin(txid_current_snapshot())").await?[0];
        let started = Instant::now();
        let ended = self
            .services
            .repositories
            .sync_now(&Caller::console(), self.id, &CancellationToken::new(), &|_| {})
            .await?;
        let took: Duration = started.elapsed();
        let SyncEnd::Synced { templates, plugins, changed, withdrawn, problems, .. } = ended.end else {
            anyhow::bail!("it was not synced: {:?}", ended.end);
        };
        let found = (templates, plugins, changed, withdrawn, problems);
        let right = (TEMPLATES, PLUGINS, expected, 0, 0);
        ensure!(
            found == right,
            "templates, plugins, changes, withdrawals, problems: {found:?}, not {right:?}"
        );
        let statements = self.statements()? - before;
        let counts = TABLES
            .map(|table| format!("(SELECT count(*) FROM {table} WHERE xmin::text::bigint >= {since:.0})"));
        let rows = self.stage.numbers(&format!("SELECT {}", counts.join(" + "))).await?[0];
        Ok(Took { millis: took.as_secs_f64() * 1_000.0, statements, entries: changed, rows })
    }

    /// Statements that the server has logged so far: it writes each down before it begins it.
    fn statements(&self) -> anyhow::Result<usize> {
        let whole = |path: &Path| fs::read(path).unwrap_or_default();
        // A log past its bound is set aside, and begun anew.
        let mut text = whole(&self.log.with_extension("log.1"));
        text.extend(fs::read(&self.log).context("the log of PostgreSQL")?);
        Ok(count(&String::from_utf8_lossy(&text)))
    }
}

/// Statements of the counted login in a log; several may be sent as one.
fn count(log: &str) -> usize {
    let of_login = format!(" {COUNTED}@{DATABASE} LOG:  ");
    let said = log.lines().filter_map(|line| line.split_once(&of_login)).map(|(_, said)| said);
    said.map(|said| match said.strip_prefix("statement: ") {
        Some(text) => text.split(';').filter(|part| !part.trim().is_empty()).count(),
        None => usize::from(said.starts_with("execute ")),
    })
    .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_of_the_login_is_counted_once_and_no_other() {
        let log = "\
2026-01-01 00:00:00.000 UTC [7] tidegate_counted@tidegate LOG:  statement: BEGIN; SELECT set_config('role', 'a', true)
2026-01-01 00:00:00.001 UTC [7] tidegate_counted@tidegate LOG:  execute s1: SELECT 1
\tFROM a WHERE b = $1
2026-01-01 00:00:00.002 UTC [8] tidegate_app@tidegate LOG:  execute s1: SELECT 1
2026-01-01 00:00:00.003 UTC [7] tidegate_counted@tidegate LOG:  statement: COMMIT
2026-01-01 00:00:00.004 UTC [9] LOG:  checkpoint starting: time
2026-01-01 00:00:00.005 UTC [7] tidegate_counted@tidegate ERROR:  deadlock detected
";
        assert_eq!(count(log), 4);
    }

    #[test]
    fn what_changed_is_set_beside_everything() {
        let took = |millis, entries, rows| Took { millis, statements: 10, entries, rows };
        let sync = Sync {
            manifests: 2_000,
            first: took(1_100.0, 2_000, 5_000.0),
            unchanged: took(100.0, 0, 0.0),
            changed: took(120.0, 20, 28.0),
        };
        assert!((sync.share() - 0.02).abs() < 1e-9 && (sync.rows_each() - 1.4).abs() < 1e-9, "{sync:?}");
    }
}
