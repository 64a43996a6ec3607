//! The private PostgreSQL of a control plane without `database.url`: started, given its roles as a DBA would give them,
//! and its database. What is in that database is the migrations' business.

use tidegate_engines::postgres::{APP, MIGRATOR, Options, Postgres};
use tidegate_model::Secret;
use tidegate_service::roles;

use crate::{Config, Error};

/// The database's name.
const DATABASE: &str = "tidegate";

/// A running server and the two logins of its database.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) postgres: Postgres,
    pub(crate) app_url: Secret<String>,
    pub(crate) migrate_url: Secret<String>,
}

/// Starts it and sets it up; a second run changes nothing.
pub(crate) async fn start(config: &Config) -> Result<Embedded, Error> {
    let postgres = Postgres::start(options(config)).await?;
    // The passwords are set at each start, so that restored secrets and a restored cluster fit again.
    let (app, migrator) = (postgres.password(APP)?, postgres.password(MIGRATOR)?);
    let setup = roles::setup_sql(app.expose(), migrator.expose());
    postgres.run_superuser_sql("postgres", &setup).await?;
    postgres.create_database(DATABASE, MIGRATOR).await?;
    let grant = format!(
        "REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC; GRANT CONNECT ON DATABASE {DATABASE} TO {APP}, {MIGRATOR};"
    );
    postgres.run_superuser_sql("postgres", &grant).await?;
    let app_url = Secret::new(postgres.url(APP, DATABASE)?);
    let migrate_url = Secret::new(postgres.url(MIGRATOR, DATABASE)?);
    Ok(Embedded { postgres, app_url, migrate_url })
}

/// How the server is run.
fn options(config: &Config) -> Options {
    let mut options = Options::new(config.data_dir(), config.run_dir());
    options.run_as.clone_from(&config.postgres.run_as);
    options.bin_dirs.clone_from(&config.postgres.bin_dirs);
    options.max_connections = config.postgres.max_connections;
    options
}
