//! From settings to services: the configured database, the running embedded one, or the embedded one started for this
//! command alone.

use std::sync::Arc;

use anyhow::Context;
use tidegate_engines::{Error as EngineError, postgres, secrets};
use tidegate_model::{Secret, SystemClock};
use tidegate_service::{Db, DbOptions, Options, Services, migrate, roles};

use crate::settings::Settings;

/// A database to work on.
pub(crate) struct Connected {
    /// URL of the serving login.
    pub(crate) url: Secret<String>,
    /// URL of the migrating login, where there is one.
    pub(crate) migrate_url: Option<Secret<String>>,
    /// What was connected to, for people.
    pub(crate) what: String,
    /// The server, if it runs for this command alone.
    engine: Option<postgres::Postgres>,
}

const DATABASE: &str = "tidegate";

/// Finds or starts the database.
pub(crate) async fn connect(settings: &Settings) -> anyhow::Result<Connected> {
    if let Some(url) = &settings.database.url {
        let migrate_url = settings.database.migrate_url.clone();
        return Ok(Connected {
            url: url.clone(),
            migrate_url,
            what: "the configured PostgreSQL".into(),
            engine: None,
        });
    }
    let options = settings.engine();
    let place = options.data_dir.display().to_string();
    match postgres::Postgres::start(options.clone()).await {
        Ok(engine) => {
            prepare(&engine).await?;
            let (url, migrate_url) = urls(&engine)?;
            let what = format!("the embedded PostgreSQL in {place}, started for this command");
            Ok(Connected { url, migrate_url: Some(migrate_url), what, engine: Some(engine) })
        }
        Err(EngineError::Owned { .. }) => {
            let access = postgres::Access::to_running(&options)?;
            let (url, migrate_url) = urls(&access)?;
            let what = format!("the embedded PostgreSQL in {place}, run by the control plane");
            Ok(Connected { url, migrate_url: Some(migrate_url), what, engine: None })
        }
        Err(error) => Err(error).context("the embedded PostgreSQL cannot be started"),
    }
}

/// Roles, passwords and database, exactly as a DBA sets them up on an external server.
async fn prepare(engine: &postgres::Access) -> anyhow::Result<()> {
    let (app, migrator) = (engine.password(postgres::APP)?, engine.password(postgres::MIGRATOR)?);
    engine.run_superuser_sql("postgres", &roles::setup_sql(app.expose(), migrator.expose())).await?;
    engine.create_database(DATABASE, postgres::MIGRATOR).await?;
    Ok(())
}

fn urls(access: &postgres::Access) -> anyhow::Result<(Secret<String>, Secret<String>)> {
    let url = |role| access.url(role, DATABASE).map(Secret::new);
    Ok((url(postgres::APP)?, url(postgres::MIGRATOR)?))
}

impl Connected {
    /// Applies the migrations; an external database needs `database.migrate_url` for it.
    pub(crate) async fn migrate(&self) -> anyhow::Result<Vec<String>> {
        let url =
            self.migrate_url.as_ref().context("set database.migrate_url to the URL of tidegate_migrator")?;
        migrate::run(url).await.context("the migrations failed")
    }

    /// The services on this database, its schema brought up to date where that is possible.
    pub(crate) async fn services(&self, settings: &Settings) -> anyhow::Result<Services> {
        if self.migrate_url.is_some() {
            self.migrate().await?;
        }
        self.services_as_they_are(settings)
    }

    /// The services on this database, whatever its schema is.
    pub(crate) fn services_as_they_are(&self, settings: &Settings) -> anyhow::Result<Services> {
        let file = settings.master_key_file();
        let key = if settings.database.url.is_some() {
            secrets::read_master_key(&file)
        } else {
            secrets::master_key(&file)
        }?;
        let options = DbOptions { url: self.url.clone(), max_connections: 2, ..DbOptions::default() };
        let db = Db::new(&options)?;
        let key = Secret::new(*key.expose());
        let options = Options { repositories: settings.repositories(), ..Options::default() };
        Ok(Services::new(db, &key, options, Arc::new(SystemClock::new()))?)
    }

    /// Stops what was started for this command.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        if let Some(engine) = self.engine {
            engine.stop().await?;
        }
        Ok(())
    }
}
