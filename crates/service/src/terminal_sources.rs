//! Where sessions' terminals are recorded: asked for and ended here, done by [`crate::Recorder`].
//!
//! What a session shows is its owner's. So they alone say that it is recorded, and the source is one of theirs: whoever may
//! read that is who they say. Those who manage sessions may end a recording.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_model::{
    FieldErrors, Handle, Operation, RecordTerminalRequest, Scope, Session, SessionId, Source, SourceId,
    SourceKind, StreamKind,
};
use tidegate_persistence::{OrgScope, OrgTx, audit, source, terminal_source};

use crate::{
    Core, Error, Nudge, Result,
    error::Named,
    permissions::{require, standing},
    sessions::{Right, line, seen_in, visible_in},
    sources::{MOST, audit_in as audit_source_in},
};

/// Sources that sessions' terminals are recorded at.
#[derive(Debug, Clone)]
pub struct TerminalSources(pub(crate) Arc<Core>);

/// What asking for a recording gave: the session as it is now.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordedAt {
    /// It is recorded from now on, with what its agent still keeps of before.
    New(Box<Session>),
    /// It was recorded there already.
    Known(Box<Session>),
}

impl TerminalSources {
    /// Has the terminal of a session of the caller's recorded at a source of theirs, which is made where the handle is
    /// free. One that was recorded elsewhere is so no more.
    pub async fn set(
        &self,
        scope: &OrgScope,
        id: SessionId,
        request: &RecordTerminalRequest,
    ) -> Result<RecordedAt> {
        let (core, now) = (&self.0, self.0.clock.now());
        let done = core
            .db
            // Under the organization's lock, so that nobody is taken out of it meanwhile.
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                let (session, right) = seen_in(core, tx, scope, id).await?;
                recordable(scope, &session, right)?;
                require(Operation::MakeSources, standing(scope, role))?;
                // Nothing is promised that no NATS would carry.
                core.broker.live()?;
                let (source, is_new) = source_in(tx, &request.handle, now).await?;
                fits(&source, &session)?;
                if session.terminal_source.as_ref().is_some_and(|known| known.source_id == source.id) {
                    return Ok(RecordedAt::Known(Box::new(session)));
                }
                free_in(tx, source.id, &request.handle).await?;
                terminal_source::delete(tx, id).await?;
                terminal_source::insert(tx, id, source.id, session.user_id, now).await?;
                let detail = json!({
                    "before": session.terminal_source.as_ref().map(|known| json!({"source": known.handle, "sourceId": known.source_id})),
                    "after": {"source": source.handle, "sourceId": source.id, "made": is_new},
                });
                audit::insert_org(tx, line("session.record", id, detail, now)).await?;
                let terminal_source = Some(terminal_source::find(tx, id).await?);
                Ok::<_, Error>(RecordedAt::New(Box::new(Session { terminal_source, ..session })))
            })
            .await?;
        self.told();
        Ok(done)
    }

    /// Ends that: what is recorded stays. For the session's owner, and for those who manage sessions.
    pub async fn unset(&self, scope: &OrgScope, id: SessionId) -> Result<Session> {
        let (core, now) = (&self.0, self.0.clock.now());
        let work = core.db.in_org(scope, async |tx| {
            let session = visible_in(core, tx, scope, id).await?;
            if !terminal_source::delete(tx, id).await? {
                return Err(Error::not_found(format_args!("a source that session {id} is recorded at")));
            }
            let before = session.terminal_source.as_ref();
            let detail = json!({
                "before": before.map(|known| json!({"source": known.handle, "sourceId": known.source_id})),
            });
            audit::insert_org(tx, line("session.unrecord", id, detail, now)).await?;
            Ok(Session { terminal_source: None, ..session })
        });
        let session = work.await?;
        self.told();
        Ok(session)
    }

    /// Those who record look at once.
    fn told(&self) {
        self.0.broker.wake();
        self.0.broker.record();
        self.0.nudges.send(Nudge::Revalidate);
    }
}

fn recordable(scope: &OrgScope, session: &Session, right: Right) -> Result<()> {
    let id = session.id;
    if right != Right::Owner {
        let owner = &session.user;
        return Err(Error::Forbidden(format!(
            "session {id} belongs to {owner}, who alone may have it recorded"
        )));
    }
    // What is recorded is what the stream shows, and goes where messages are sent to.
    for needed in [Scope::Streams, Scope::PipesWrite] {
        if !scope.scopes().allow(needed) {
            return Err(Error::Forbidden(format!(
                "recording a terminal needs the scopes `streams` and `pipes:write`, and this API key lacks `{}`",
                needed.as_str()
            )));
        }
    }
    if session.protocol != StreamKind::Terminal {
        let message =
            format!("session {id} shows a {}, no terminal: there is nothing to record", session.protocol);
        return Err(Error::Conflict { code: "E_NO_TERMINAL", message });
    }
    if session.state.is_final() {
        return Err(Error::WrongState { id, state: session.state });
    }
    Ok(())
}

/// The source of this handle, held until the end of the transaction; made where there is none.
async fn source_in(
    tx: &mut OrgTx,
    handle: &Handle,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<(Source, bool)> {
    match source::lock_by_handle(tx, handle.as_str()).await {
        Ok(found) => return Ok((found.source, false)),
        Err(tidegate_persistence::Error::NotFound) => {}
        Err(other) => return Err(other.into()),
    }
    let (all, _) = source::counts(tx).await?;
    if all >= MOST {
        let message = format!("the organization has {MOST} sources, which is the most: delete some of them");
        return Err(Error::Conflict { code: "E_TOO_MANY_SOURCES", message });
    }
    let id = SourceId::new();
    source::insert(tx, id, handle.clone(), SourceKind::Pty, now).await?;
    let shown: Value = json!({"id": id, "kind": SourceKind::Pty});
    audit_source_in(tx, "source.create", handle.as_str(), json!({"after": shown}), now).await?;
    Ok((source::find_by_handle(tx, handle.as_str()).await?.source, true))
}

/// Whether a session may be recorded at a source.
fn fits(source: &Source, session: &Session) -> Result<()> {
    let handle = &source.handle;
    if source.created_by != session.user_id {
        let owner = source.created_by_username.as_deref().unwrap_or("somebody who left");
        return Err(Error::Forbidden(format!(
            "source {handle} was made by {owner}: a terminal is recorded at a source of its owner's"
        )));
    }
    if source.kind != SourceKind::Pty {
        let complaint = format!("is a source of kind {}, and a terminal needs one of kind pty", source.kind);
        return Err(Error::Invalid(FieldErrors::one("handle", complaint)));
    }
    Ok(())
}

/// Takes a source from the session that it recorded last, if nothing more of that comes.
async fn free_in(tx: &mut OrgTx, source: SourceId, handle: &Handle) -> Result<()> {
    let Some((session, over)) = terminal_source::of_source(tx, source).await? else { return Ok(()) };
    if over {
        terminal_source::delete(tx, session).await?;
        return Ok(());
    }
    let message =
        format!("source {handle} records session {session}: choose another one, or end that recording first");
    Err(Error::Conflict { code: "E_SOURCE_BUSY", message })
}
