//! SQL as the superuser, through the `psql` beside the server, and the URLs of the socket.
//! Never logs SQL: it may carry the passwords of roles.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::SUPERUSER;
use super::binaries::Binaries;
use super::layout::{Layout, PORT};
use crate::identity::clean_command;
use crate::secrets::Password;
use crate::{Result, programs};

/// Runs `sql` in `database` as the superuser and returns the rows, a line each, columns separated by `|`.
/// Stops at the first error. `variables` can be used as `:'name'`.
pub(super) async fn run(
    layout: &Layout,
    binaries: &Binaries,
    database: &str,
    sql: &str,
    variables: &[(&str, &str)],
) -> Result<String> {
    let mut command = clean_command(&binaries.program("psql"));
    command.args(["--no-psqlrc", "--quiet", "--no-password", "--tuples-only", "--no-align", "--file=-"]);
    command.args(["--set=ON_ERROR_STOP=1", "--username", SUPERUSER, "--host"]).arg(&layout.sockets);
    command.arg("--port").arg(PORT.to_string());
    for (name, value) in variables {
        command.arg(format!("--set={name}={value}"));
    }
    // dbname as a whole connection string would let a name smuggle options in; PGDATABASE is a name alone
    command.env("PGDATABASE", database).env("PGPASSFILE", layout.passfile()).env("PGCONNECT_TIMEOUT", "10");
    // a failing CREATE ROLE … PASSWORD must not put the password into the server's log
    command.env(
        "PGOPTIONS",
        "-c log_statement=none -c log_min_error_statement=panic -c client_min_messages=warning",
    );
    programs::run("psql", command, sql).await
}

/// Makes a database unless it exists.
pub(super) const CREATE_DATABASE: &str = "SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'owner') \
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = :'name')\n\\gexec\n";

/// `postgres://role:password@%2Frun%2Ftidegate%2Fpostgres/database`, which libpq and the Rust drivers read alike.
pub(super) fn url(sockets: &Path, role: &str, password: &Password, database: &str) -> String {
    format!(
        "postgres://{}:{}@{}/{}",
        escape(role.as_bytes()),
        password.expose(),
        escape(sockets.as_os_str().as_bytes()),
        escape(database.as_bytes())
    )
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // writing into a String cannot fail
            write!(text, "%{byte:02X}").ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_cannot_hold_is_escaped() {
        assert_eq!(escape(b"/run/my tide%gate"), "%2Frun%2Fmy%20tide%25gate");
        assert_eq!(escape("é".as_bytes()), "%C3%A9");
    }
}
