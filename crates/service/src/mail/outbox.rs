//! The mailer of a machine without a mail server: a file a mail, whole or not there, in a folder of the data.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Letter, MailError, Mailer, Sending};

/// Writes mails into a folder, for somebody to look at or to carry on.
#[derive(Debug, Clone)]
pub struct FileOutbox {
    folder: PathBuf,
}

impl FileOutbox {
    /// An outbox in `folder`, which is made with the first mail.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    async fn run(
        &self,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), MailError> {
        let folder = self.folder.clone();
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        done.map_err(io::Error::other).flatten().map_err(|error| {
            MailError::Passing(format!("the outbox {} cannot be written: {error}", self.folder.display()))
        })
    }
}

impl Mailer for FileOutbox {
    fn describe(&self) -> String {
        format!("files in {}: set `mail.smtp.host` to send them", self.folder.display())
    }

    fn check(&self) -> Sending<'_> {
        Box::pin(self.run(|folder| {
            // Not made by whoever only looks: it would be theirs.
            if !folder.exists() {
                return Ok(());
            }
            let probe = folder.join(format!(".{:016x}.probe", rand::random::<u64>()));
            private(&probe)?;
            fs::remove_file(probe)
        }))
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        let (id, text) = (letter.id, letter.formatted());
        Box::pin(self.run(move |folder| {
            make(folder)?;
            // A name of this try alone: another one that is late must not write into the same file.
            let draft = folder.join(format!(".{id}.{:016x}.draft", rand::random::<u64>()));
            let written = private(&draft).and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()
            });
            let placed = written.and_then(|()| fs::rename(&draft, folder.join(format!("{id}.eml"))));
            if placed.is_err() {
                // A full disk must not leave drafts behind; why it failed matters more than whether this does.
                drop(fs::remove_file(&draft));
            }
            placed?;
            File::open(folder)?.sync_all()
        }))
    }
}

/// Only its owner may read it; what it lies in is made as any folder: the database's user has to pass through it.
fn make(folder: &Path) -> io::Result<()> {
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
