//! Fetching a repository: takes its folder, bounds its time, and chooses the way.

use std::{fs, path::PathBuf, sync::Arc};

use tokio::time::{Instant, timeout_at};

use crate::{
    Branch, Credential, Error, Options, Remote, Snapshot, Step, archive,
    cache::Cache,
    egress::Guard,
    git::Git,
    http::{self, Download, Remembered},
    snapshot::Store,
};

/// Who is told how far a fetch is.
pub type Tell = dyn Fn(Step) + Send + Sync;

/// A repository and what it is asked with.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it is.
    pub kind: SourceKind,
    /// Where it lies.
    pub remote: Remote,
    /// What it is asked with.
    pub credential: Credential,
}

/// What a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A git repository; without a branch, the one that its server shows first.
    Git(Option<Branch>),
    /// An archive: zip, tar, or a compressed tar.
    Archive,
}

/// Fetches repositories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    options: Arc<Options>,
    guard: Guard,
    cache: PathBuf,
}

impl Fetcher {
    /// One that keeps what it fetches in the folder `cache`.
    pub fn new(options: Options, cache: PathBuf) -> Self {
        let guard = Guard::new(options.private_networks.clone());
        Self { options: Arc::new(options), guard, cache }
    }

    /// Its settings.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Fetches the newest state of a repository, whose folder is called `name`.
    pub async fn fetch(&self, name: &str, source: &Source, tell: &Tell) -> Result<Snapshot, Error> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Error::refused("its folder in the cache cannot be called so"));
        }
        let cache = Cache::take(&self.cache, name)?;
        let until = Instant::now() + self.options.time();
        tell(Step::Fetching { bytes: 0 });
        match (&source.kind, &source.remote) {
            (SourceKind::Git(branch), remote) => {
                let git = Git::new(&self.options, &self.guard, &cache, &source.credential, until)?;
                let fetched = git.fetch(remote, branch.as_ref(), tell).await?;
                let (files, problems) = (fetched.listing.files, fetched.listing.problems);
                let store = Store::Git(Box::new(fetched.blobs));
                Ok(Snapshot { revision: fetched.commit, files, problems, store, _cache: cache })
            }
            (SourceKind::Archive, Remote::Http(url)) => {
                timeout_at(until, self.fetch_archive(cache, url, &source.credential, tell))
                    .await
                    .map_err(|_| Error::TooSlow(self.options.time().as_secs()))?
            }
            (SourceKind::Archive, Remote::Ssh(_) | Remote::Local(_)) => {
                Err(Error::refused("an archive is fetched by https"))
            }
        }
    }

    /// Forgets what is kept of a repository that is no more.
    pub fn forget(&self, name: &str) {
        let folder = self.cache.join(name);
        if let Ok(cache) = Cache::take(&self.cache, name) {
            drop(cache);
            // What cannot be removed now is in nobody's way.
            let _ = fs::remove_dir_all(folder);
        }
    }

    async fn fetch_archive(
        &self,
        cache: Cache,
        url: &url::Url,
        credential: &Credential,
        tell: &Tell,
    ) -> Result<Snapshot, Error> {
        let (kept, notes) = (cache.path("archive"), cache.path("archive.json"));
        let remembered = fs::read(&notes)
            .ok()
            .filter(|_| kept.is_file())
            .and_then(|text| serde_json::from_slice::<Remembered>(&text).ok());
        let new = cache.path("archive.new");
        let download =
            http::download(url, credential, &self.guard, &self.options, remembered, &new, tell).await?;
        if let Download::New(next) = download {
            // The notes last: without them the archive is asked for again.
            let _ = fs::remove_file(&notes);
            fs::rename(&new, &kept)?;
            cache.write("archive.json", &serde_json::to_vec(&next).unwrap_or_default())?;
        }
        let (options, folder) = (Arc::clone(&self.options), cache.folder().to_owned());
        let unpacked = tokio::task::spawn_blocking(move || archive::unpack(&kept, &folder, &options))
            .await
            .map_err(|_| Error::Ended)?;
        if unpacked.is_err() {
            let _ = fs::remove_file(&notes);
        }
        let archive::Unpacked { digest, listing, content } = unpacked?;
        tell(Step::Listing { files: listing.len() });
        let (files, problems) = (listing.files, listing.problems);
        Ok(Snapshot { revision: digest, files, problems, store: Store::Archive(content), _cache: cache })
    }
}
