//! Homes of containers: a volume for each user where it is to outlive the session, else one of the session's own.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    container::{AGENT, SESSION},
    engine::Engine,
};
use crate::{Error, SessionSpec, files::make_dir};

/// Where the home is in the container.
pub(super) const PATH: &str = "/home/tidegate";

/// A home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    /// Its volume.
    pub(super) volume: String,
    /// Whether it belongs to root, as it was made, and not yet to its user. The file that says so.
    pub(super) unclaimed: Option<PathBuf>,
    /// Where the engine keeps it.
    place: String,
    labels: HashMap<String, String>,
}

/// How the names of volumes begin that are one session's alone; the session follows.
pub(super) fn own_volumes(agent: &str) -> String {
    format!("{agent}-session-")
}

/// The volume that is one session's alone.
pub(super) fn own_volume(agent: &str, session_id: &str) -> String {
    format!("{}{session_id}", own_volumes(agent))
}

/// The volume that outlives the sessions of an owner.
pub(super) fn owners_volume(agent: &str, owner: &str) -> String {
    format!("{agent}-home-{}", owner.replace('/', "-"))
}

/// Makes the home of a session, or finds it. What is made is noted in the agent's folder `data` first, until it is given
/// away: an agent that is killed in between has left one that is still root's.
pub(super) async fn ensure(
    engine: &Engine,
    data: &Path,
    agent: &str,
    spec: &SessionSpec,
) -> Result<Home, Error> {
    let mut labels = HashMap::from([(AGENT.to_owned(), agent.to_owned())]);
    let volume = if spec.persistent_home {
        owners_volume(agent, &spec.owner)
    } else {
        labels.insert(SESSION.to_owned(), spec.key.session_id.clone());
        own_volume(agent, &spec.key.session_id)
    };
    let notes = data.join("unclaimed-homes");
    make_dir(&notes, 0o700)?;
    let note = notes.join(&volume);
    if let Some(place) = engine.find_volume(&volume).await? {
        let unclaimed = note.exists().then_some(note);
        return Ok(Home { volume, unclaimed, place, labels });
    }
    fs::write(&note, "").map_err(Error::file("write", &note))?;
    let place = engine.make_volume(&volume, labels.clone()).await?;
    Ok(Home { volume, unclaimed: Some(note), place, labels })
}

impl Home {
    /// Whether the engine refused because it has no folder for this home, as one that was killed while it made it: nobody
    /// was given it yet, and what has no folder holds nothing. Of a home that somebody had, the folder may be on a disk
    /// that is away: that one is nobody's to make again.
    pub(super) fn is_unmade(&self, refusal: &Error) -> bool {
        let Error::Refused(sentence) = refusal else { return false };
        self.unclaimed.as_ref().is_some_and(|note| note.exists())
            && !self.place.is_empty()
            && sentence.trim_end().ends_with(&format!("{}: no such file or directory", self.place))
    }

    /// Makes it again. The engine refuses as long as a container has it.
    pub(super) async fn make_again(&self, engine: &Engine) -> Result<(), Error> {
        engine.remove_volume(&self.volume).await?;
        engine.make_volume(&self.volume, self.labels.clone()).await.map(drop)
    }

    /// It is its user's now.
    pub(super) fn claimed(&self) -> Result<(), Error> {
        match self.unclaimed.as_ref().map(|note| (note, fs::remove_file(note))) {
            Some((note, Err(error))) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", note)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Gives a new home to whom the container runs as. Of a user without a number nothing is known but that they are no
/// other user of this container: theirs is open to all who are in it.
pub(super) async fn give_away(engine: &Engine, container: &str, user: Option<&str>) -> Result<(), Error> {
    let Some(user) = user else { return look_at(engine, container).await };
    let mut ids = user.split(':').map(str::parse::<u64>);
    let (uid, gid, mode) = match (ids.next(), ids.next()) {
        (Some(Ok(uid)), Some(Ok(gid))) => (uid, gid, 0o700),
        (Some(Ok(uid)), None) => (uid, uid, 0o700),
        _ => (0, 0, 0o1777),
    };
    engine.upload(container, folder(uid, gid, mode)?).await
}

/// Lets the engine look whether the home is there, by giving the container nothing.
async fn look_at(engine: &Engine, container: &str) -> Result<(), Error> {
    let nothing = tar::Builder::new(Vec::new()).into_inner().map_err(Error::system("describe nothing"))?;
    engine.upload(container, nothing).await
}

/// An archive of the home's folder alone, with its owner and rights.
fn folder(uid: u64, gid: u64, mode: u32) -> Result<Vec<u8>, Error> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mode(mode);
    let mut archive = tar::Builder::new(Vec::new());
    let path = format!("{}/", PATH.trim_start_matches('/'));
    archive
        .append_data(&mut header, path, std::io::empty())
        .and_then(|()| archive.into_inner())
        .map_err(Error::system("describe the home"))
}
