//! A PostgreSQL as somebody else runs it: on TCP, with passwords, knowing nothing of Tidegate.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use nix::unistd::{Uid, User};
use tempfile::TempDir;
use tidegate_engines::postgres::find;
use tokio_postgres::NoTls;

use crate::{TestCertificate, eventually, free_port};

/// The superuser's password.
const PASSWORD: &str = "of-the-dba";

/// A server on a port of 127.0.0.1; it and its folder go with this value, or with the process.
#[derive(Debug)]
pub struct ExternalPostgres {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    keeper: Child,
    /// Its end is what stops the server.
    lifeline: Option<ChildStdin>,
}

impl ExternalPostgres {
    /// Makes and starts it, with TLS where there is a certificate to offer.
    pub async fn start(certificate: Option<&TestCertificate>) -> Self {
        let folder = tempfile::Builder::new().prefix("tg-external-").tempdir_in("/tmp").unwrap();
        let owner = Owner::new();
        owner.give(folder.path());
        let programs = find(None, None).unwrap().folder;
        let cluster = folder.path().join("cluster");
        let password = owner.write(folder.path(), "password", PASSWORD);
        let mut initdb = owner.command(&programs.join("initdb"));
        initdb.arg("-D").arg(&cluster).arg("--pwfile").arg(&password);
        initdb.args([
            "-U",
            "postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        if let Some(TestCertificate { cert, key }) = certificate {
            owner.write(&cluster, "server.crt", cert);
            owner.write(&cluster, "server.key", key);
        }
        let port = free_port();
        let script = r#""$1" -D "$2" -h 127.0.0.1 -p "$3" -k "" -c fsync=off -c ssl="$4" >"$2/log" 2>&1 &
            read -r _; kill -INT $!; wait $!"#;
        let mut keeper = owner.command(Path::new("sh"));
        keeper.args(["-c", script, "sh"]).arg(programs.join("postgres")).arg(&cluster).arg(port.to_string());
        keeper.arg(if certificate.is_some() { "on" } else { "off" }).stdin(Stdio::piped());
        let mut keeper = keeper.process_group(0).spawn().unwrap();
        let lifeline = keeper.stdin.take();
        let server = Self { folder, programs, port, keeper, lifeline };
        let url = format!("{}?sslmode=disable", server.url("postgres", PASSWORD, "postgres"));
        eventually("the external PostgreSQL answers", async || {
            tokio_postgres::connect(&url, NoTls).await.is_ok()
        })
        .await;
        server
    }

    /// The URL of a role.
    pub fn url(&self, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One of PostgreSQL's programs (`psql`, `createdb`, `pg_dump`), told where the server is and who the superuser.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGPASSWORD", PASSWORD);
        command
    }

    /// Makes the server refuse connections that are not encrypted.
    pub fn refuse_plain(&self) {
        let cluster = self.folder.path().join("cluster");
        fs::write(cluster.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        let pid = fs::read_to_string(cluster.join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP).unwrap();
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("cluster/log")).unwrap_or_default()
    }
}

impl Drop for ExternalPostgres {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // A server that does not end is seen by whoever looks at the machine; a test cannot do more.
        drop(self.keeper.wait());
    }
}

/// Whom the server runs as: PostgreSQL refuses root.
struct Owner(Option<User>);

impl Owner {
    fn new() -> Self {
        let named = |name| User::from_name(name).unwrap();
        Self(Uid::effective().is_root().then(|| named("postgres").or_else(|| named("nobody")).unwrap()))
    }

    fn give(&self, path: &Path) {
        if let Some(user) = &self.0 {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
    }

    fn write(&self, folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.give(&path);
        path
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Some(user) = &self.0 {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }
}
