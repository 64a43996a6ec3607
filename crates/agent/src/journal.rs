//! Which commands were begun and how they ended: on disk before anything is done, so that a repeat, even after a
//! crash, is answered and not carried out again. One thread writes; commands that come together share an fsync.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_model::Clock;
use tidegate_protocol::{CommandMessage, CompleteMessage, FailedMessage, FromAgent};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, files::sync_parent};

/// Finished commands remembered.
const KEPT: usize = 10_000;
/// How long they are.
const KEPT_FOR: TimeDelta = TimeDelta::hours(24);
/// Lines beyond what is remembered before the file is written anew.
const SLACK: usize = 1_000;
/// Lines waiting for the writer; more wait with their command.
const QUEUE: usize = 1_024;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// Done, with its result.
    Completed(Map<String, Value>),
    /// Not done; the sentence says why.
    Failed(String),
}

impl Outcome {
    /// The report of it.
    pub(crate) fn report(&self, command_id: &str) -> FromAgent {
        let command_id = command_id.to_owned();
        match self {
            Self::Completed(result) => CompleteMessage { command_id, result: Some(result.clone()) }.into(),
            Self::Failed(error) => FailedMessage { command_id, error: error.clone() }.into(),
        }
    }
}

/// What is known of a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Known {
    /// Begun, not ended.
    Begun,
    /// Ended.
    Ended(Outcome),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Begun { command: CommandMessage, at: DateTime<Utc> },
    Ended { id: String, outcome: Outcome, at: DateTime<Utc> },
}

#[derive(Debug, Default)]
struct Entries {
    begun: HashMap<String, (CommandMessage, DateTime<Utc>)>,
    ended: HashMap<String, (Outcome, DateTime<Utc>)>,
    order: VecDeque<String>,
}

struct Job {
    line: Line,
    done: oneshot::Sender<io::Result<()>>,
}

/// The journal of one agent.
pub(crate) struct Journal {
    entries: Arc<Mutex<Entries>>,
    jobs: mpsc::Sender<Job>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
}

impl Journal {
    /// Reads the journal, damaged last line included, and answers the commands that were begun and not ended.
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<(Self, Vec<CommandMessage>), Error> {
        let mut entries = Entries::default();
        match fs::read(path) {
            Ok(bytes) => bytes.split(|byte| *byte == b'\n').for_each(|line| entries.read(line)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("read", path)(error)),
        }
        let mut unfinished: Vec<_> = entries.begun.values().cloned().collect();
        unfinished.sort_by_key(|(_, at)| *at);
        let unfinished = unfinished.into_iter().map(|(command, _)| command).collect();
        entries.forget(clock.now());
        let file = compact(path, &entries).map_err(Error::file("write", path))?;
        let lines = entries.lines();
        let entries = Arc::new(Mutex::new(entries));
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let writer = Writer {
            path: path.to_owned(),
            file: Tail::new(file).map_err(Error::file("read", path))?,
            lines,
            entries: Arc::clone(&entries),
            clock: Arc::clone(&clock),
        };
        std::thread::spawn(move || writer.run(waiting));
        Ok((Self { entries, jobs, clock, path: path.to_owned() }, unfinished))
    }

    /// What is known of a command; `None` for a new one.
    pub(crate) fn known(&self, id: &str) -> Option<Known> {
        let entries = lock(&self.entries);
        entries
            .ended
            .get(id)
            .map(|(outcome, _)| Known::Ended(outcome.clone()))
            .or_else(|| entries.begun.contains_key(id).then_some(Known::Begun))
    }

    /// Writes that a command begins; on disk when this returns.
    pub(crate) async fn begin(&self, command: &CommandMessage) -> Result<(), Error> {
        let at = self.clock.now();
        lock(&self.entries).begun.insert(command.command_id.clone(), (command.clone(), at));
        let written = self.write(Line::Begun { command: command.clone(), at }).await;
        if written.is_err() {
            // Not begun after all: the control plane sends it again.
            lock(&self.entries).begun.remove(&command.command_id);
        }
        written
    }

    /// Writes how a command ended; on disk when this returns.
    pub(crate) async fn end(&self, id: &str, outcome: &Outcome) -> Result<(), Error> {
        let at = self.clock.now();
        lock(&self.entries).end(id.to_owned(), outcome.clone(), at);
        self.write(Line::Ended { id: id.to_owned(), outcome: outcome.clone(), at }).await
    }

    /// What ended within this time, oldest first.
    pub(crate) fn ended_within(&self, time: TimeDelta) -> Vec<(String, Outcome)> {
        let since = self.clock.now() - time;
        let entries = lock(&self.entries);
        let recent = entries.order.iter().filter_map(|id| Some((id, entries.ended.get(id)?)));
        recent
            .filter(|(_, (_, at))| *at >= since)
            .map(|(id, (outcome, _))| (id.clone(), outcome.clone()))
            .collect()
    }

    async fn write(&self, line: Line) -> Result<(), Error> {
        let (done, written) = oneshot::channel();
        let gone = || io::Error::other("the journal's writer has ended");
        self.jobs.send(Job { line, done }).await.map_err(|_| Error::file("write", &self.path)(gone()))?;
        written.await.unwrap_or_else(|_| Err(gone())).map_err(Error::file("write", &self.path))
    }
}

fn lock(entries: &Mutex<Entries>) -> MutexGuard<'_, Entries> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entries {
    fn read(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(Line::Begun { command, at }) => {
                self.begun.insert(command.command_id.clone(), (command, at));
            }
            Ok(Line::Ended { id, outcome, at }) => self.end(id, outcome, at),
            // A crash in the middle of a line: what it said was never acknowledged.
            Err(_) if line.is_empty() => {}
            Err(_) => tracing::warn!("a damaged line of the journal is ignored"),
        }
    }

    fn end(&mut self, id: String, outcome: Outcome, at: DateTime<Utc>) {
        self.begun.remove(&id);
        if self.ended.insert(id.clone(), (outcome, at)).is_none() {
            self.order.push_back(id);
        }
    }

    fn forget(&mut self, now: DateTime<Utc>) {
        while let Some(id) = self.order.front() {
            let old = self.ended.get(id).is_none_or(|(_, at)| *at < now - KEPT_FOR);
            if !old && self.order.len() <= KEPT {
                break;
            }
            self.ended.remove(id);
            self.order.pop_front();
        }
    }

    fn lines(&self) -> usize {
        self.begun.len() + self.ended.len()
    }
}

/// Writes the whole journal anew, without the payloads of what ended: they may hold secrets of people.
fn compact(path: &Path, entries: &Entries) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut text = Vec::new();
    for (command, at) in entries.begun.values() {
        add_line(&mut text, &Line::Begun { command: command.clone(), at: *at })?;
    }
    for id in &entries.order {
        if let Some((outcome, at)) = entries.ended.get(id) {
            add_line(&mut text, &Line::Ended { id: id.clone(), outcome: outcome.clone(), at: *at })?;
        }
    }
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // From here on this is the journal, and lines written to the file before it would be lost.
    if let Err(error) = sync_parent(path) {
        tracing::warn!(%error, "a power cut may bring an older journal back");
    }
    Ok(file)
}

fn add_line(text: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    Ok(())
}

/// The file of the journal as its writer needs it.
trait Disk: Write + Seek {
    fn cut(&mut self, length: u64) -> io::Result<()>;
    fn flush_to_disk(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn flush_to_disk(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file that grows by whole lines: what was written in part is taken back.
struct Tail<F> {
    file: F,
    /// Its length after the last whole line.
    good: u64,
    /// Whether half a line may stand behind it that could not be taken back.
    torn: bool,
}

impl<F: Disk> Tail<F> {
    fn new(mut file: F) -> io::Result<Self> {
        let good = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, good, torn: false })
    }

    /// Appends lines; on disk when this returns. After an error none of them is there.
    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.torn {
            self.restore()?;
        }
        let written = self.file.write_all(text).and_then(|()| self.file.flush_to_disk());
        match &written {
            Ok(()) => self.good += u64::try_from(text.len()).unwrap_or(u64::MAX),
            // If even that fails, it is done before the next line.
            Err(_) => self.torn = self.restore().is_err(),
        }
        written
    }

    fn restore(&mut self) -> io::Result<()> {
        self.file.cut(self.good)?;
        self.file.seek(SeekFrom::Start(self.good))?;
        self.torn = false;
        Ok(())
    }
}

struct Writer {
    path: PathBuf,
    file: Tail<File>,
    lines: usize,
    entries: Arc<Mutex<Entries>>,
    clock: Arc<dyn Clock>,
}

impl Writer {
    fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < QUEUE
                && let Ok(job) = waiting.try_recv()
            {
                jobs.push(job);
            }
            let written = self.write(&jobs);
            for job in jobs {
                let answer =
                    written.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()));
                let _ = job.done.send(answer.copied());
            }
        }
    }

    fn write(&mut self, jobs: &[Job]) -> io::Result<()> {
        let mut text = Vec::new();
        for job in jobs {
            add_line(&mut text, &job.line)?;
        }
        self.file.append(&text)?;
        self.lines += jobs.len();
        let mut entries = lock(&self.entries);
        if self.lines > 2 * entries.lines() + SLACK {
            entries.forget(self.clock.now());
            // Once these lines are on disk they count, whatever becomes of the smaller file.
            match compact(&self.path, &entries).and_then(Tail::new) {
                Ok(file) => self.file = file,
                Err(error) => {
                    tracing::warn!(%error, "the journal was not written anew");
                    return Ok(());
                }
            }
            self.lines = entries.lines();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_model::{CommandAction, SystemClock};

    use super::*;

    fn command(id: &str) -> CommandMessage {
        let Value::Object(payload) = json!({"sessionId": "s"}) else { unreachable!() };
        CommandMessage { command_id: id.into(), action: CommandAction::StopSession, payload }
    }

    fn open(path: &Path) -> (Journal, Vec<CommandMessage>) {
        Journal::open(path, Arc::new(SystemClock::new())).unwrap()
    }

    #[tokio::test]
    async fn what_was_begun_and_what_ended_survive_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (journal, unfinished) = open(&path);
        assert!(unfinished.is_empty());
        for id in ["cmd-1", "cmd-2"] {
            journal.begin(&command(id)).await.unwrap();
        }
        let outcome = Outcome::Failed("no".into());
        journal.end("cmd-1", &outcome).await.unwrap();
        // A crash leaves half a line behind.
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"ended\":{\"id\":\"cmd-2\"")
            .unwrap();
        let (journal, unfinished) = open(&path);
        assert_eq!(unfinished, [command("cmd-2")]);
        assert_eq!(journal.known("cmd-1"), Some(Known::Ended(outcome)));
        assert_eq!(journal.known("cmd-2"), Some(Known::Begun));
        assert_eq!(journal.known("cmd-3"), None);
    }

    #[tokio::test]
    async fn a_journal_stays_small_and_forgets_payloads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (journal, _) = open(&path);
        for _ in 0..600 {
            journal.begin(&command("cmd-1")).await.unwrap();
            journal.end("cmd-1", &Outcome::Completed(Map::new())).await.unwrap();
        }
        drop(journal);
        let _ = open(&path);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.contains("sessionId")), (1, false));
    }

    /// A disk with this much room left, which may refuse to take anything back.
    struct Full {
        held: io::Cursor<Vec<u8>>,
        room: usize,
        cuts: bool,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= fits;
            self.held.write(&bytes[..fits])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Full {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.held.seek(to)
        }
    }

    impl Disk for Full {
        fn cut(&mut self, length: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.held.get_mut().truncate(usize::try_from(length).unwrap());
            Ok(())
        }

        fn flush_to_disk(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_did_not_fit_leaves_nothing_behind() {
        for cuts_at_once in [true, false] {
            let disk = Full { held: io::Cursor::new(b"kept\n".to_vec()), room: 8, cuts: cuts_at_once };
            let mut tail = Tail::new(disk).unwrap();
            tail.append(b"one\n").unwrap();
            assert!(tail.append(b"two long\n").is_err());
            (tail.file.room, tail.file.cuts) = (100, true);
            tail.append(b"three\n").unwrap();
            assert_eq!(tail.file.held.get_ref().as_slice(), b"kept\none\nthree\n");
        }
    }

    #[test]
    fn old_and_surplus_outcomes_are_forgotten() {
        let mut entries = Entries::default();
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(9);
        entries.end("old".into(), Outcome::Failed(String::new()), now - TimeDelta::hours(25));
        for index in 0..=KEPT {
            entries.end(format!("cmd-{index}"), Outcome::Failed(String::new()), now);
        }
        entries.forget(now);
        assert_eq!((entries.ended.len(), entries.ended.contains_key("cmd-0")), (KEPT, false));
    }
}
