//! The files of a repository at one moment: what they are called, how large they are, and their content when it is asked
//! for.

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt};

use tidegate_model::RepositoryProblem;

use crate::{Error, Options, cache::Cache, error::shown, git::Blobs};

/// Bytes of one file at most; larger ones are there, and cannot be read.
pub(crate) const LARGEST_FILE: u64 = 16 * 1024 * 1024;
/// Complaints that are kept of one repository; what is wrong beyond that is counted.
pub(crate) const PROBLEMS: usize = 200;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Link,
    Submodule,
    Other,
}

/// Where a file's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the mirror, under its identity.
    Blob,
    /// In the unpacked archive, from there on.
    At(u64),
    /// Nowhere: it is too large.
    Nowhere,
}

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// Two files with the same one are the same.
    pub(crate) identity: String,
    pub(crate) place: Place,
}

/// The files of one repository by path, with what is wrong with others.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) files: BTreeMap<String, File>,
    pub(crate) problems: Problems,
    /// Files that lie too deep.
    pub(crate) left_out: u32,
    seen: u32,
    most: u32,
    depth: usize,
}

/// What is wrong with a repository's files: so much of it is listed, and the rest counted.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<RepositoryProblem>,
    more: usize,
}

impl Problems {
    pub(crate) fn add(&mut self, path: &str, line: Option<u64>, reason: impl AsRef<str>) {
        let line = line.and_then(|line| u32::try_from(line).ok()).filter(|line| *line > 0);
        self.put(problem(path, line, reason.as_ref()));
    }

    /// One that was found out about an entry.
    pub fn put(&mut self, problem: RepositoryProblem) {
        if self.list.len() >= PROBLEMS {
            self.more += 1;
        } else {
            self.list.push(problem);
        }
    }

    /// What is listed, and how much is not.
    pub fn into_list(mut self) -> Vec<RepositoryProblem> {
        if self.more > 0 {
            let reason = format!("{} more problems are not listed", self.more);
            self.list.push(problem("", None, &reason));
        }
        self.list
    }

    /// What is listed.
    pub fn as_slice(&self) -> &[RepositoryProblem] {
        &self.list
    }
}

fn problem(path: &str, line: Option<u32>, reason: &str) -> RepositoryProblem {
    RepositoryProblem { path: shown(path, &[]), line, reason: shown(reason, &[]) }
}

impl Listing {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            files: BTreeMap::new(),
            problems: Problems::default(),
            left_out: 0,
            seen: 0,
            most: options.max_files,
            depth: usize::try_from(options.max_depth).unwrap_or(usize::MAX),
        }
    }

    /// Adds a file under its raw path. A path that leads elsewhere is left out and told of; too many files are an error.
    pub(crate) fn add(&mut self, path: &[u8], file: File) -> Result<(), Error> {
        self.seen += 1;
        if self.seen > self.most {
            let most = self.most;
            return Err(Error::refused(format!(
                "it has more than {most} files, the most that are read of one"
            )));
        }
        let Ok(path) = std::str::from_utf8(path) else {
            self.problems.add(
                &String::from_utf8_lossy(path),
                None,
                "its name is not UTF-8, and it is left out",
            );
            return Ok(());
        };
        if path.split('/').count() > self.depth {
            self.left_out += 1;
            return Ok(());
        }
        if !is_plain(path) {
            self.problems.add(path, None, "its name leads out of the folder, and it is left out");
            return Ok(());
        }
        if self.files.insert(path.to_owned(), file).is_some() {
            self.problems.add(path, None, "it is there twice, and the last one is taken");
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }
}

/// Whether a path stays where it belongs, whatever reads it later.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | ".." | ".git");
    path.len() <= 1_024 && path.split('/').all(plain) && !path.chars().any(|c| c.is_control() || c == '\\')
}

/// What files are read out of.
#[derive(Debug)]
pub(crate) enum Store {
    Git(Box<Blobs>),
    Archive(fs::File),
}

/// The files of a repository at one moment.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) revision: String,
    pub(crate) files: BTreeMap<String, File>,
    pub(crate) problems: Problems,
    pub(crate) store: Store,
    pub(crate) _cache: Cache,
}

impl Snapshot {
    /// Which state it is: a commit, or the digest of an archive.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// How many files it has.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The content of a regular file of at most `most` bytes; why not, otherwise.
    pub(crate) async fn read(&mut self, path: &str, most: u64) -> Result<Result<Vec<u8>, String>, Error> {
        let Some(file) = self.files.get(path) else { return Ok(Err("there is no such file".into())) };
        match file.kind {
            Kind::Regular => {}
            Kind::Link => return Ok(Err("it is a symbolic link, which is not followed".into())),
            Kind::Submodule | Kind::Other => return Ok(Err("it is no file".into())),
        }
        if file.size > most.min(LARGEST_FILE) || file.place == Place::Nowhere {
            return Ok(Err(format!("it has {} bytes, more than the {most} that are read", file.size)));
        }
        let content = match (&mut self.store, &file.place) {
            (Store::Git(blobs), _) => blobs.read(&file.identity, file.size).await?,
            (Store::Archive(unpacked), Place::At(offset)) => {
                let mut content = vec![0; usize::try_from(file.size).map_err(|_| Error::Ended)?];
                unpacked.read_exact_at(&mut content, *offset)?;
                content
            }
            (Store::Archive(_), Place::Blob | Place::Nowhere) => return Err(Error::Ended),
        };
        Ok(Ok(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        File { kind: Kind::Regular, size: 1, identity: "a".into(), place: Place::Blob }
    }

    #[test]
    fn names_that_lead_elsewhere_are_left_out_and_told_of() {
        let mut listing = Listing::new(&Options::default());
        for bad in ["/etc/passwd", "../x", "a/../../x", "a//b", "./a", ".git/config", "a\\..\\b", "a\nb"] {
            listing.add(bad.as_bytes(), file()).unwrap();
        }
        listing.add(b"\xff.yaml", file()).unwrap();
        listing.add(b"good/a.yaml", file()).unwrap();
        assert_eq!(listing.files.keys().collect::<Vec<_>>(), ["good/a.yaml"]);
        let told = listing.problems.into_list();
        assert_eq!(told.len(), 9);
        assert!(told.iter().all(|problem| !problem.path.chars().any(char::is_control)));
    }

    #[test]
    fn too_many_files_are_refused_and_too_deep_ones_left_out() {
        let mut listing = Listing::new(&Options { max_files: 3, max_depth: 2, ..Options::default() });
        listing.add(b"a/b/c", file()).unwrap();
        listing.add(b"a/b", file()).unwrap();
        listing.add(b"c", file()).unwrap();
        assert_eq!(listing.len(), 2);
        let refused = listing.add(b"d", file()).unwrap_err();
        assert!(refused.to_string().contains("more than 3 files"), "{refused}");
    }

    #[test]
    fn only_so_many_problems_are_kept() {
        let mut problems = Problems::default();
        for index in 0..300 {
            problems.add(&format!("{index}.yaml"), Some(1), "is wrong");
        }
        let list = problems.into_list();
        assert_eq!(list.len(), PROBLEMS + 1);
        assert_eq!(list[PROBLEMS].reason, "100 more problems are not listed");
    }
}
