//! How to reach a running server, for its owner and for other programs of the same user beside it.
//! Never starts or stops anything.

use std::collections::BTreeMap;
use std::path::Path;

use super::binaries::{Binaries, find};
use super::layout::Layout;
use super::{Options, SUPERUSER, postmaster, sql};
use crate::secrets::{self, Password};
use crate::{Error, Result};

/// The socket, the passwords and the programs of one server.
#[derive(Clone, Debug)]
pub struct Access {
    pub(super) layout: Layout,
    pub(super) binaries: Binaries,
    pub(super) passwords: BTreeMap<String, Password>,
}

impl Access {
    /// Access to the server that another process owns: what [`super::Postgres::start`] refuses with [`Error::Owned`].
    ///
    /// Makes nothing: fails when no server accepts connections there, or when a password is missing or not readable
    /// by this user.
    pub fn to_running(options: &Options) -> Result<Self> {
        let layout = Layout::new(&options.data_dir, &options.run_dir)?;
        if !postmaster::accepts_connections(&layout.cluster, None) {
            let place = layout.data_dir.display();
            return Err(Error::Setting(format!(
                "no PostgreSQL of this user accepts connections in {place}; start it first"
            )));
        }
        let binaries = find(options.bin_dirs.as_deref(), layout.cluster_major()?)?;
        let roles = options.login_roles.iter().map(String::as_str).chain([SUPERUSER]);
        let password =
            |role: &str| Ok((role.to_owned(), secrets::read_password(&layout.password_file(role))?));
        let passwords = roles.map(password).collect::<Result<_>>()?;
        Ok(Self { layout, binaries, passwords })
    }

    /// The folder with the server's socket, to connect to as the host.
    pub fn socket_dir(&self) -> &Path {
        &self.layout.sockets
    }

    /// The connection URL of the superuser. It holds the password.
    pub fn superuser_url(&self, database: &str) -> String {
        // every constructor puts the superuser's password there
        self.passwords
            .get(SUPERUSER)
            .map_or_else(String::new, |password| self.url_with(SUPERUSER, password, database))
    }

    /// The connection URL of one of [`Options::login_roles`]. It holds the password.
    pub fn url(&self, role: &str, database: &str) -> Result<String> {
        Ok(self.url_with(role, self.password(role)?, database))
    }

    /// The generated password of one of [`Options::login_roles`].
    pub fn password(&self, role: &str) -> Result<&Password> {
        self.passwords.get(role).ok_or_else(|| Error::Setting(format!("{role} is not among the login roles")))
    }

    fn url_with(&self, role: &str, password: &Password, database: &str) -> String {
        sql::url(&self.layout.sockets, role, password, database)
    }

    /// Runs a script in `database` as the superuser, up to its first error. The script is `psql`'s: `\` and `:` speak
    /// to it. Dropping the future ends `psql`; a statement that the server has begun still runs to its end.
    pub async fn run_superuser_sql(&self, database: &str, sql: &str) -> Result<()> {
        self.superuser_query(database, sql).await.map(drop)
    }

    /// Like [`Access::run_superuser_sql`], and returns the rows: one a line, columns separated by `|`.
    pub async fn superuser_query(&self, database: &str, sql: &str) -> Result<String> {
        sql::run(&self.layout, &self.binaries, database, sql, &[]).await
    }

    /// Makes the database `name`, owned by the existing role `owner`, unless there is one of that name.
    pub async fn create_database(&self, name: &str, owner: &str) -> Result<()> {
        let variables = [("name", name), ("owner", owner)];
        sql::run(&self.layout, &self.binaries, "postgres", sql::CREATE_DATABASE, &variables).await.map(drop)
    }
}
