//! Connections over TLS: what is asked of a certificate, and that nothing is sent in the clear where TLS is asked for.

use std::{error::Error as _, fs};

use tempfile::TempDir;
use tidegate_model::Secret;
use tidegate_persistence::{Db, Error, Options, migrate, with_ca_file};
use tidegate_test_support::{ExternalPostgres, TestCa, eventually};

/// A server, and the files of its CA and of another one.
struct Stand {
    server: ExternalPostgres,
    folder: TempDir,
}

impl Stand {
    async fn new() -> Self {
        let (ours, theirs) = (TestCa::new("ours"), TestCa::new("theirs"));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ours.pem"), ours.pem()).unwrap();
        fs::write(folder.path().join("theirs.pem"), theirs.pem()).unwrap();
        // Not for 127.0.0.1: names are told from addresses.
        let server = ExternalPostgres::start(Some(&ours.issue(&["localhost"]))).await;
        Self { server, folder }
    }

    fn url(&self, host: &str, parameters: &str) -> Secret<String> {
        let folder = self.folder.path().display();
        let parameters = parameters.replace("CA/", &format!("{folder}/"));
        let url = self.server.url("postgres", "of-the-dba", "postgres");
        Secret::new(format!("{}?{parameters}", url.replace("127.0.0.1", host)))
    }

    async fn try_it(&self, host: &str, parameters: &str) -> Result<(), String> {
        connect(self.url(host, parameters)).await.map_err(|error| chain(&error))
    }
}

async fn connect(url: Secret<String>) -> Result<(), Error> {
    Db::new(&Options { url, ..Options::default() })?.now().await.map(drop)
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[tokio::test]
async fn verify_full_wants_the_right_ca_and_the_right_name() {
    let stand = Stand::new().await;
    stand.try_it("localhost", "sslmode=verify-full&sslrootcert=CA/ours.pem").await.unwrap();
    let other = stand.try_it("localhost", "sslmode=verify-full&sslrootcert=CA/theirs.pem").await.unwrap_err();
    assert!(other.contains("theirs.pem; name the right file in `database.ca_file`"), "{other}");
    let name = stand.try_it("127.0.0.1", "sslmode=verify-full&sslrootcert=CA/ours.pem").await.unwrap_err();
    assert!(name.contains("at 127.0.0.1 is refused: it is for another name"), "{name}");
    let machines = stand.try_it("localhost", "sslmode=verify-full").await.unwrap_err();
    assert!(machines.contains("no CA this machine trusts has issued it"), "{machines}");
}

#[tokio::test]
async fn weaker_modes_ask_less_and_are_encrypted_all_the_same() {
    let stand = Stand::new().await;
    stand.try_it("127.0.0.1", "sslmode=require").await.unwrap();
    stand.try_it("127.0.0.1", "sslmode=verify-ca&sslrootcert=CA/ours.pem").await.unwrap();
    let other = stand.try_it("127.0.0.1", "sslmode=verify-ca&sslrootcert=CA/theirs.pem").await.unwrap_err();
    assert!(other.contains("is refused: it was not issued by the CA in"), "{other}");
    stand.server.refuse_plain();
    eventually("the server refuses what is not encrypted", async || {
        let plain = stand.try_it("127.0.0.1", "sslmode=disable").await;
        plain.is_err_and(|why| why.contains("no encryption"))
    })
    .await;
    stand.try_it("127.0.0.1", "sslmode=require").await.unwrap();
    stand.try_it("127.0.0.1", "").await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_in_the_clear_where_tls_is_asked_for() {
    let server = ExternalPostgres::start(None).await;
    let url = server.url("postgres", "of-the-dba", "postgres");
    connect(Secret::new(url.clone())).await.unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let strict = Secret::new(format!("{url}?sslmode={mode}"));
        let pool = chain(&connect(strict.clone()).await.unwrap_err());
        assert!(pool.contains("at 127.0.0.1 does not offer TLS, which sslmode asks for"), "{mode}: {pool}");
        let migrator = chain(&migrate::run(&strict).await.unwrap_err());
        assert!(migrator.contains("does not offer TLS"), "{mode}: {migrator}");
    }
}

#[tokio::test]
async fn the_settings_ca_file_is_asked_without_any_sslmode() {
    let stand = Stand::new().await;
    let with = |ca: &str| {
        let url = Secret::new(stand.server.url("postgres", "of-the-dba", "postgres"));
        let url = Secret::new(url.expose().replace("127.0.0.1", "localhost"));
        with_ca_file(&url, &stand.folder.path().join(ca))
    };
    connect(with("ours.pem")).await.unwrap();
    connect(with("theirs.pem")).await.unwrap_err();
    let missing = chain(&connect(with("nowhere.pem")).await.unwrap_err());
    assert!(missing.contains("nowhere.pem cannot be used"), "{missing}");
    fs::write(stand.folder.path().join("empty.pem"), "").unwrap();
    let empty = chain(&connect(with("empty.pem")).await.unwrap_err());
    assert!(empty.contains("it must hold PEM certificates"), "{empty}");
}
