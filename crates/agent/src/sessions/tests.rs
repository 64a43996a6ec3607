//! What an agent makes of sessions that ended while it was dead itself.

use std::{path::Path, sync::atomic::AtomicUsize};

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Map, json};
use tidegate_model::{CommandAction, SystemClock};

use super::*;
use crate::{Exit, Keep, Progress, SessionSpec, SessionStream, StreamRequest, journal::Outcome};

/// A machine on which every session that was started has ended with an exit.
#[derive(Default)]
struct Ending {
    starts: AtomicUsize,
}

fn exit() -> Exit {
    Exit { code: 129, signal: Some("SIGHUP".into()), output_start: 0, at: SystemClock::new().now() }
}

impl Platform for Ending {
    fn kind(&self) -> tidegate_model::Platform {
        tidegate_model::Platform::Vm
    }

    fn metadata(&self) -> Map<String, Value> {
        Map::new()
    }

    fn start<'a>(&'a self, _: &'a SessionSpec, _: Progress) -> BoxFuture<'a, Result<(), Error>> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }.boxed()
    }

    fn stop<'a>(&'a self, _: &'a SessionKey, _: Keep) -> BoxFuture<'a, Result<Option<Exit>, Error>> {
        async { Ok(Some(exit())) }.boxed()
    }

    fn find<'a>(&'a self, _: &'a SessionKey) -> BoxFuture<'a, Result<Found, Error>> {
        async { Ok(Found::Ended(Ended::Exited(exit()))) }.boxed()
    }

    fn watch(&self, _: &SessionKey) -> BoxFuture<'static, Ended> {
        async { Ended::Exited(exit()) }.boxed()
    }

    fn ready(&self, _: &SessionKey) -> BoxFuture<'static, Option<u16>> {
        async { None }.boxed()
    }

    fn release<'a>(&'a self, _: &'a SessionKey) -> BoxFuture<'a, Result<(), Error>> {
        async { Ok(()) }.boxed()
    }

    fn open<'a>(
        &'a self,
        _: &'a SessionKey,
        _: StreamRequest,
    ) -> BoxFuture<'a, Result<SessionStream, Error>> {
        async { Err(Error::Refused("it has ended".into())) }.boxed()
    }
}

fn command(action: CommandAction) -> CommandMessage {
    let payload = json!({"sessionId": "s-1", "generation": 1, "user": "alice", "template": "shell"});
    let Value::Object(payload) = payload else { unreachable!() };
    CommandMessage { command_id: format!("cmd-{action}"), action, payload }
}

/// Where the session stands, what its command came to and how often it was started, after an agent that died with the
/// session in `state` and these commands begun has started again.
async fn after_a_restart(
    folder: &Path,
    state: SessionState,
    begun: &[CommandAction],
) -> (SessionState, Vec<Known>, usize) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let open = || Journal::open(&folder.join("journal"), Arc::clone(&clock)).unwrap();
    let records = Records::open(&folder.join("sessions")).unwrap();
    let key = SessionKey::new("s-1", 1).unwrap();
    let (reason, metadata, since) = (None, Map::new(), clock.now());
    records
        .put(Record { key, state, reason, metadata, since, end_known: false, ready: true, port: None })
        .await
        .unwrap();
    let (journal, _) = open();
    for action in begun {
        journal.begin(&command(*action)).await.unwrap();
    }
    drop(journal);
    let (journal, unfinished) = open();
    let platform = Arc::new(Ending::default());
    let machine: Arc<dyn Platform> = Arc::clone(&platform) as _;
    let sessions = Sessions::new(machine, records, journal, Arc::clone(&clock), 10);
    sessions.recover(unfinished).await;
    sessions.close().await;
    let known = begun.iter().filter_map(|action| sessions.journal.known(&command(*action).command_id));
    let state = sessions.records.get("s-1").unwrap().state;
    (state, known.collect(), platform.starts.load(Ordering::Relaxed))
}

fn completed() -> Known {
    Known::Ended(Outcome::Completed(Map::from_iter([("sessionId".into(), json!("s-1"))])))
}

#[tokio::test]
async fn a_hibernate_that_a_crash_interrupted_still_hibernates() {
    let folder = tempfile::tempdir().unwrap();
    let action = CommandAction::HibernateSession;
    let after = after_a_restart(folder.path(), SessionState::Running, &[action]).await;
    assert_eq!(after, (SessionState::Hibernated, vec![completed()], 0));
}

#[tokio::test]
async fn a_program_that_ended_before_its_start_was_written_down_is_not_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let after = after_a_restart(folder.path(), SessionState::Pending, &[CommandAction::StartSession]).await;
    assert_eq!(after, (SessionState::Terminated, vec![completed()], 0));
}
