//! A folder with a repository in it, and a fetcher that may read it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tidegate_repositories::{
    Credential, Error, Fetcher, Found, Options, Remote, Snapshot, Source, SourceKind, Step,
};

pub(crate) const TEMPLATE: &str = "apiVersion: stream.space/v1alpha1\nkind: Template\nmetadata:\n  name: shell\nspec:\n  \
                                   displayName: Shell\n  description: A shell\n  appType: terminal\n  command: [bash]\n";

pub(crate) fn template(name: &str) -> String {
    TEMPLATE.replace("name: shell", &format!("name: {name}"))
}

pub(crate) fn plugin(name: &str, version: &str) -> String {
    format!(
        r#"{{"name":"{name}","version":"{version}","displayName":"X","description":"x","author":"a","type":"webhook"}}"#
    )
}

/// A repository that is being written, and the cache beside it.
pub(crate) struct Stage {
    folder: TempDir,
    pub(crate) options: Options,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { local_folders: vec![folder.path().to_owned()], ..Options::default() };
        let stage = Self { folder, options };
        std::fs::create_dir(stage.work()).unwrap();
        stage.git(&["init", "--quiet", "--initial-branch=main"]);
        stage
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root().join("work")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.root().join("cache")
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    pub(crate) fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
            .args(["-c", "core.protectNTFS=false", "-c", "core.protectHFS=false"])
            .args(arguments)
            .current_dir(self.work())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "-A", "."]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.options.clone(), self.cache())
    }

    pub(crate) fn source(&self) -> Source {
        let remote = Remote::git(self.work().to_str().unwrap(), &self.options).unwrap();
        Source { kind: SourceKind::Git(None), remote, credential: Credential::None }
    }

    pub(crate) fn remote(&self, url: &str) -> Source {
        let remote = Remote::git(url, &self.options).unwrap();
        Source { kind: SourceKind::Git(None), remote, credential: Credential::None }
    }

    pub(crate) fn archive(&self, url: &str) -> Source {
        let remote = Remote::archive(url, &self.options).unwrap();
        Source { kind: SourceKind::Archive, remote, credential: Credential::None }
    }

    pub(crate) async fn fetch(&self, source: &Source) -> Result<Snapshot, Error> {
        self.fetcher().fetch("1", source, &|_| {}).await
    }

    /// What is found in the work folder as it was committed last.
    pub(crate) async fn found(&self) -> Found {
        let mut snapshot = self.fetch(&self.source()).await.unwrap();
        snapshot.catalog(&|_| {}).await.unwrap()
    }
}

/// Writes down how far a fetch is.
#[derive(Clone, Default)]
pub(crate) struct Steps(Arc<Mutex<Vec<Step>>>);

impl Steps {
    pub(crate) fn note(&self) -> impl Fn(Step) + Send + Sync + use<> {
        let steps = Arc::clone(&self.0);
        move |step| steps.lock().unwrap().push(step)
    }

    pub(crate) fn all(&self) -> Vec<Step> {
        self.0.lock().unwrap().clone()
    }
}

/// Names of templates and plugins, and paths of problems with their lines.
pub(crate) fn names(found: &Found) -> (Vec<&str>, Vec<&str>, Vec<(&str, Option<u32>)>) {
    (
        found.templates.iter().map(|it| it.manifest.name.as_str()).collect(),
        found.plugins.iter().map(|it| it.manifest.name.as_str()).collect(),
        found.problems.as_slice().iter().map(|it| (it.path.as_str(), it.line)).collect(),
    )
}
