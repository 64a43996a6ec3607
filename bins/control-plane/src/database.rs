//! From the settings to migrated, reachable services: the private PostgreSQL or a configured one, the master key, the
//! agents' bootstrap key.

use std::sync::Arc;

use tidegate_engines::{postgres::Postgres, secrets};
use tidegate_model::{Secret, SystemClock};
use tidegate_service::{Db, DbOptions, Services, health, migrate};

use crate::{
    Config, Error, clock,
    embedded::{self, Embedded},
};

/// The services and what has to be stopped after them.
#[derive(Debug)]
pub(crate) struct Foundation {
    pub(crate) services: Services,
    pub(crate) clock: Arc<SystemClock>,
    /// The private PostgreSQL, where there is one.
    pub(crate) postgres: Option<Postgres>,
}

/// Connects, migrates and wires.
pub(crate) async fn open(config: &Config) -> Result<Foundation, Error> {
    let Some(url) = &config.database.url else {
        let Embedded { postgres, app_url, migrate_url } = embedded::start(config).await?;
        let opened = async {
            migrate(&migrate_url).await?;
            wire(config, app_url).await
        };
        return match opened.await {
            Ok((services, clock)) => Ok(Foundation { services, clock, postgres: Some(postgres) }),
            Err(error) => {
                // Why it could not be used matters more than how it ended.
                drop(postgres.stop().await);
                Err(error)
            }
        };
    };
    if let Some(url) = &config.database.migrate_url {
        migrate(url).await?;
    }
    let (services, clock) = wire(config, url.clone()).await?;
    Ok(Foundation { services, clock, postgres: None })
}

async fn migrate(url: &Secret<String>) -> Result<(), Error> {
    let applied = migrate::run(url).await.map_err(|error| failed("apply the migrations", error))?;
    if !applied.is_empty() {
        tracing::info!(migrations = applied.join(", "), "the schema was brought to this version");
    }
    Ok(())
}

async fn wire(config: &Config, url: Secret<String>) -> Result<(Services, Arc<SystemClock>), Error> {
    let options = DbOptions { url, ..config.database.options() };
    let db = Db::new(&options).map_err(|error| failed("open the pool", error))?;
    check(&db).await?;
    let clock = Arc::new(SystemClock::new());
    clock.set_offset(clock::measure(&db).await.map_err(|error| failed("read its clock", error))?);
    let mut options = config.service.clone();
    options.agent_bootstrap_key = bootstrap_key(config)?;
    options.sign_in = config.auth.clone();
    options.repositories = config.repositories.clone();
    let cache = options.repositories.cache_dir.get_or_insert_with(|| config.data_dir().join("repositories"));
    tracing::debug!(cache = %cache.display(), "repositories are kept there");
    let key = master_key(config)?;
    let services = Services::new(db, &key, options, Arc::clone(&clock) as _)
        .map_err(|error| failed("wire the services", error))?;
    Ok((services, clock))
}

/// Refuses a login that row-level security does not hold, and a schema of another version.
async fn check(db: &Db) -> Result<(), Error> {
    let health = health(db).await.map_err(|error| failed("look at it", error))?;
    if health.bypasses_rls {
        return Err(Error::Setting(
            "the login of `database.url` bypasses row-level security: use tidegate_app, made by `tidegate-admin roles --sql`".into(),
        ));
    }
    if !health.missing_roles.is_empty() {
        let missing = health.missing_roles.join(", ");
        return Err(Error::Setting(format!(
            "the login of `database.url` lacks the roles {missing}: run the SQL of `tidegate-admin roles --sql` as a superuser"
        )));
    }
    if !health.migrated {
        return Err(Error::Setting(
            "the database's schema is older than this program: set `database.migrate_url`, or run `tidegate-admin migrate`".into(),
        ));
    }
    Ok(())
}

/// The master key: made once beside the private PostgreSQL, configured for any other.
fn master_key(config: &Config) -> Result<Secret<[u8; 32]>, Error> {
    let key = match (&config.secrets.master_key_file, config.is_embedded()) {
        (Some(path), true) => secrets::master_key(path)?,
        (None, true) => secrets::master_key(&config.secrets_dir().join("master.key"))?,
        (Some(path), false) => secrets::read_master_key(path)?,
        (None, false) => {
            return Err(Error::Setting(
                "with `database.url` set, `secrets.master_key_file` must name a 0600 file of 32 random bytes: `head -c 32 /dev/urandom > master-key`".into(),
            ));
        }
    };
    Ok(Secret::new(*key.expose()))
}

/// The key agents register with: configured, from a file, or made once beside the private PostgreSQL.
fn bootstrap_key(config: &Config) -> Result<Option<Secret<String>>, Error> {
    if let Some(key) = &config.service.agent_bootstrap_key {
        return Ok(Some(key.clone()));
    }
    if let Some(path) = &config.secrets.agent_bootstrap_key_file {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })?;
        let key = text.trim().to_owned();
        if key.len() < 32 {
            let path = path.display();
            return Err(Error::Setting(format!("{path} must hold a key of at least 32 characters")));
        }
        return Ok(Some(Secret::new(key)));
    }
    if !config.is_embedded() {
        return Ok(None);
    }
    let key = secrets::password(&config.secrets_dir().join("agent-bootstrap-key"))?;
    Ok(Some(Secret::new(key.expose().to_owned())))
}

fn failed(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Database { doing, source: source.into() }
}
