//! Git behind ssh, from a real `sshd` on loopback: whose keys are right, and what is said where they are not.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tidegate_repositories::{Credential, Source};
use tidegate_test_support::eventually;

use crate::stage::{Stage, names, template};

/// A key of its own, made in `folder`; gives its path.
fn key(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
        .arg(&path)
        .status()
        .unwrap_or_else(|_| {
            panic!("`ssh-keygen` must be there: ./scripts/install --test, or apt-get install openssh-client")
        });
    assert!(made.success());
    path
}

fn public(key: &Path) -> String {
    fs::read_to_string(key.with_extension("pub")).unwrap().trim().to_owned()
}

/// A server that lets in whoever has the one key, as the user that the tests run as.
struct Sshd {
    child: Child,
    port: u16,
}

impl Sshd {
    async fn start(folder: &Path, host_key: &Path, lets_in: &Path, port: Option<u16>) -> Self {
        if nix::unistd::geteuid().is_root() {
            // What it gives its rights away in.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port =
            port.unwrap_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let (config, keys) = (folder.join(format!("sshd-{port}")), folder.join("authorized_keys"));
        fs::write(&keys, public(lets_in)).unwrap();
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            host_key.display(),
            keys.display()
        );
        fs::write(&config, text).unwrap();
        let program =
            ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|it| Path::new(it).exists());
        let program = program.unwrap_or_else(|| {
            panic!("`sshd` must be there: ./scripts/install --test, or apt-get install openssh-server")
        });
        let log = fs::File::create(folder.join("sshd.log")).unwrap();
        let child = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, port };
        eventually("sshd listens", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        server
    }

    /// A line of known hosts that gives it this key.
    fn known_as(&self, host_key: &Path) -> String {
        format!("[127.0.0.1]:{} {}", self.port, public(host_key))
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A repository, and a folder for keys that the repository's own is not in.
struct World {
    stage: Stage,
    keys: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let mut stage = Stage::new();
        stage.options.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
        stage.write("a.yaml", template("a"));
        stage.commit();
        Self { stage, keys: tempfile::tempdir().unwrap() }
    }

    fn source(&self, server: &Sshd, user_key: &Path, known_hosts: Option<String>) -> Source {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let url = format!("ssh://{user}@127.0.0.1:{}{}", server.port, self.stage.work().display());
        let private_key = fs::read_to_string(user_key).unwrap().into();
        let credential = Credential::Ssh { private_key, known_hosts };
        Source { credential, ..self.stage.remote(&url) }
    }

    async fn refused(&self, source: &Source) -> String {
        self.stage.fetch(source).await.unwrap_err().to_string()
    }
}

#[tokio::test]
async fn a_repository_behind_ssh_is_fetched_by_whoever_has_its_key_from_the_server_that_is_known() {
    let world = World::new();
    let folder = world.keys.path();
    let (host, other_host) = (key(folder, "host"), key(folder, "other-host"));
    let (mine, not_mine) = (key(folder, "mine"), key(folder, "not-mine"));
    let server = Sshd::start(folder, &host, &mine, None).await;

    let known = Some(server.known_as(&host));
    let mut snapshot = world.stage.fetch(&world.source(&server, &mine, known.clone())).await.unwrap();
    let found = snapshot.catalog(&|_| {}).await.unwrap();
    assert_eq!(names(&found), (vec!["a"], vec![], vec![]));
    drop(snapshot);

    let wrong_host = world.refused(&world.source(&server, &mine, Some(server.known_as(&other_host)))).await;
    assert!(wrong_host.starts_with("the server showed another host key than the one"), "{wrong_host}");
    let unknown_host = world.refused(&world.source(&server, &mine, Some("example.org x".into()))).await;
    assert!(unknown_host.starts_with("the server showed another host key than the one"), "{unknown_host}");
    let wrong_key = world.refused(&world.source(&server, &not_mine, known.clone())).await;
    assert!(wrong_key.starts_with("the server refused the ssh key: "), "{wrong_key}");
    let mut gone = world.source(&server, &mine, known);
    if let tidegate_repositories::Remote::Ssh(remote) = &mut gone.remote {
        remote.path.push_str("-gone");
    }
    let gone = world.refused(&gone).await;
    assert!(gone.starts_with("there is no git repository at this address"), "{gone}");
    for told in [wrong_host, unknown_host, wrong_key, gone] {
        assert!(!told.contains("PRIVATE KEY") && !told.contains('/'), "{told}");
    }
    // None of it spoilt what lies there.
    assert!(world.stage.fetch(&world.source(&server, &mine, Some(server.known_as(&host)))).await.is_ok());
}

#[tokio::test]
async fn the_first_host_key_of_a_server_is_remembered_and_another_one_refused() {
    let world = World::new();
    let folder = world.keys.path();
    let (host, other_host, mine) = (key(folder, "host"), key(folder, "other-host"), key(folder, "mine"));
    let server = Sshd::start(folder, &host, &mine, None).await;
    assert!(world.stage.fetch(&world.source(&server, &mine, None)).await.is_ok());
    assert!(world.stage.fetch(&world.source(&server, &mine, None)).await.is_ok());
    let port = server.port;
    drop(server);
    let another = Sshd::start(folder, &other_host, &mine, Some(port)).await;
    let refused = world.refused(&world.source(&another, &mine, None)).await;
    assert!(refused.starts_with("the server showed another host key than the one"), "{refused}");
    drop(another);
    let again = Sshd::start(folder, &host, &mine, Some(port)).await;
    assert!(world.stage.fetch(&world.source(&again, &mine, None)).await.is_ok());
}
