//! `doctor`: what stands, what does not, and what to do about it.

mod machine;
mod nats;
mod providers;

use std::process::ExitCode;

use serde::Serialize;
use tidegate_engines::{postgres, secrets};
use tidegate_service::{Db, DbOptions, health};

use crate::{connect, output, settings::Settings};

/// What has to hold before anything else is read from the database.
const NEEDED: [&str; 5] = ["master key", "database", "login", "migrations", "roles"];

/// One look.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    ok: bool,
    found: String,
}

fn check(what: &'static str, ok: bool, found: impl Into<String>) -> Check {
    Check { what, ok, found: found.into() }
}

/// Looks at everything; the exit code says whether all of it holds.
pub(crate) async fn run(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut checks =
        vec![binaries(settings), master_key(settings), machine::disk(&settings.engine().data_dir)];
    checks.extend(providers::answer(&settings.auth).await);
    match connect::connect(settings).await {
        Ok(connected) => {
            checks.push(check("database", true, connected.what.clone()));
            checks.extend(database(&connected).await);
            let usable = checks.iter().all(|check| check.ok || !NEEDED.contains(&check.what));
            checks.extend(nats::look(&connected, settings, usable).await);
            connected.close().await?;
        }
        Err(error) => checks.push(check("database", false, format!("{error:#}"))),
    }
    checks.push(mailer(settings).await);
    let well = checks.iter().all(|check| check.ok);
    let rows = checks.iter().map(|check| {
        vec![if check.ok { "ok" } else { "FAILS" }.to_owned(), check.what.to_owned(), check.found.clone()]
    });
    output::list(as_json, &checks, &["", "check", "found"], rows.collect())?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn binaries(settings: &Settings) -> Check {
    if settings.database.url.is_some() {
        return check("engine", true, "not needed: database.url is set");
    }
    match postgres::find(None, None) {
        Ok(found) => {
            check("engine", true, format!("PostgreSQL {} in {}", found.major, found.folder.display()))
        }
        Err(error) => check("engine", false, error.to_string()),
    }
}

fn master_key(settings: &Settings) -> Check {
    let file = settings.master_key_file();
    match secrets::read_master_key(&file) {
        Ok(_) => check("master key", true, format!("{} is there and 0600", file.display())),
        Err(error) => check(
            "master key",
            false,
            format!("{error}; the control plane's first start makes it in embedded mode"),
        ),
    }
}

async fn mailer(settings: &Settings) -> Check {
    let post = match settings.post() {
        Ok(post) => post,
        Err(error) => return check("mail", false, format!("{error:#}")),
    };
    match post.check().await {
        Ok(()) => check("mail", true, post.describe()),
        Err(error) => check("mail", false, format!("{}: {error}", post.describe())),
    }
}

async fn database(connected: &connect::Connected) -> Vec<Check> {
    let options = DbOptions { url: connected.url.clone(), max_connections: 1, ..DbOptions::default() };
    let looked = match Db::new(&options) {
        Ok(db) => health(&db).await.map(|health| (db, health)),
        Err(error) => Err(error),
    };
    let (db, health) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::new(error));
            return vec![check("login", false, format!("tidegate_app cannot log in: {why}"))];
        }
    };
    let list = |names: &[String]| names.join(", ");
    let missing: Vec<String> = health.missing_roles.iter().map(ToString::to_string).collect();
    vec![
        machine::clock(&db).await,
        check(
            "server version",
            health.server_version >= 150_000,
            format!("{} (15 or newer is needed)", health.server_version / 10_000),
        ),
        check(
            "migrations",
            health.migrated,
            if health.migrated { "current" } else { "behind: run `tidegate-admin migrate`" },
        ),
        check(
            "roles",
            missing.is_empty(),
            if missing.is_empty() {
                "all there".to_owned()
            } else {
                format!(
                    "missing: {}; run the output of `tidegate-admin roles --sql` as a superuser",
                    list(&missing)
                )
            },
        ),
        check(
            "row-level security",
            health.unguarded_tables.is_empty(),
            if health.unguarded_tables.is_empty() {
                "forced on every table".to_owned()
            } else {
                format!("not forced on: {}", list(&health.unguarded_tables))
            },
        ),
        check(
            "login role",
            !health.bypasses_rls,
            if health.bypasses_rls {
                "bypasses row-level security: connect as tidegate_app"
            } else {
                "plain"
            },
        ),
    ]
}
