//! The operator's machine: a configuration, a master key, and the program itself.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use tidegate_test_support::{MASTER_KEY, TestDb};

/// A shell beside a database.
pub(crate) struct Console(TempDir);

impl Console {
    pub(crate) fn of(test: &TestDb) -> Self {
        let console = Self(tempfile::tempdir().unwrap());
        let key = console.path("master.key");
        fs::write(&key, MASTER_KEY).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let url = test.app_url();
        let (url, key) = (url.expose(), key.display());
        let toml = format!("[database]\nurl = \"{url}\"\n[secrets]\nmaster_key_file = \"{key}\"\n");
        console.configure(&toml);
        console
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes more into the configuration.
    pub(crate) fn configure(&self, toml: &str) {
        let mut file =
            fs::File::options().create(true).append(true).open(self.path("control-plane.toml")).unwrap();
        file.write_all(toml.as_bytes()).unwrap();
    }

    /// Whether it succeeded, and what it said.
    pub(crate) fn run(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-admin"));
        command.env_remove("TIDEGATE_CONFIG").arg("--config").arg(self.path("control-plane.toml"));
        let output = command.args(words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    pub(crate) fn says(&self, words: &[&str]) -> String {
        let (done, said) = self.run(words);
        assert!(done, "{words:?}: {said}");
        said
    }

    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let said = self.says(&[words, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
    }

    pub(crate) fn refused(&self, words: &[&str]) -> String {
        let (done, said) = self.run(words);
        assert!(!done, "{words:?}: {said}");
        said
    }
}
