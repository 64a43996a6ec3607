//! Pipes: made at sources, with what they keep. Their streams are made at the first message or reader, because NATS reserves
//! a stream's bytes at once: until then a pipe costs a row.
//!
//! Every change commits with the operation that makes NATS follow it. What is never kept here: a connection to NATS.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
pub use tidegate_model::PipeUse;
use tidegate_model::{
    CreatePipeRequest, FieldErrors, ListedPipe, Operation, Pipe, PipeId, PipeOperationId, PipeSubject,
    Retention, RetentionChange, Source, SourceRight, UserId, Writers,
};
use tidegate_persistence::{
    Error as DbError, OrgScope, OrgTx, nats_account,
    pipe::{self, NewPipe, Usable},
    pipe_operation::{self, Asked, Claimed, Operation as Told},
    pipe_stream::{self, PipeStream},
    source::Stored,
    source_grant,
};

use crate::{
    Core, Error, Idempotency, Made, Result,
    error::Named,
    permissions::{require, standing},
    sources::{audit_in, changeable_in, entry, found_in, handle_of, may_change, not_too_many_in},
};

/// Pipes of an organization's sources.
#[derive(Debug, Clone)]
pub struct Pipes(pub(crate) Arc<Core>);

/// A pipe that somebody may read or write, with what NATS still has to do before they can.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenPipe {
    /// The source.
    pub source: Source,
    /// The pipe's name.
    pub name: String,
    /// What it is to keep, and what is in force.
    pub stream: PipeStream,
    /// Operations on its stream that are not done: whoever asked waits for them.
    pub pending: Vec<PipeOperationId>,
    /// The one of them that makes its stream, where this opening asked for it and is the one who carries it out, at once.
    pub(crate) claimed: Option<Claimed>,
}

impl OpenPipe {
    /// What somebody sends to it.
    pub fn subject(&self, sender: UserId) -> PipeSubject {
        PipeSubject {
            org_id: self.source.org_id,
            creator: self.source.created_by,
            handle: self.source.handle.to_string(),
            pipe: self.name.clone(),
            sender,
        }
    }
}

/// Pipes of one source at most.
const MOST: i64 = 100;
/// Operations on one stream that one looks at.
const PENDING: i64 = 20;
/// What an organization may promise before it has an account, which begins with this.
const DISK_BYTES: i64 = 64 * 1_024 * 1_024 * 1_024;

impl Pipes {
    /// Makes a pipe at a source: for whoever made the source, and for those who manage sources.
    pub async fn create(
        &self,
        scope: &OrgScope,
        handle: &str,
        request: CreatePipeRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Pipe) -> Value + Send + Sync,
    ) -> Result<Made<Pipe>> {
        let (id, now) = (PipeId::new(), self.0.clock.now());
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(Made::Replay(replay));
                }
                // Of those who make pipes at it none is one too many: the organization is locked.
                let shown = handle_of(handle)?;
                let found = pipe::place(tx, handle, MOST).await;
                let (Stored { source, .. }, room) = found.named(format_args!("source {shown}"))?;
                may_change(scope, role, &source)?;
                let retention = request.retention.resolve();
                retention.check(room.most_bytes.unwrap_or(DISK_BYTES)).map_err(Error::Invalid)?;
                if room.made >= MOST {
                    let message =
                        format!("source {handle} has {MOST} pipes, which is the most: delete some of them");
                    return Err(Error::Conflict { code: "E_TOO_MANY_PIPES", message });
                }
                let shown = json!({"id": id, "pipe": request.name, "retention": retention, "sourceCreatedBy": source.created_by});
                let line = entry("pipe.create", handle, json!({"after": shown}), now);
                let new = NewPipe { id, source: source.id, name: request.name, retention: request.retention, now };
                let made = pipe::insert(tx, new, line).await?;
                if room.has_writers {
                    let writers = source_grant::writers(tx, source.id).await?;
                    not_too_many_in(tx, &source, writers).await?;
                }
                if let Some(key) = idempotency {
                    key.keep_in(tx, 201, answer(&made), now).await?;
                }
                Ok(Made::New(made))
            })
            .await
    }

    /// Changes what a pipe keeps, for the same people. Where its stream is there, NATS is to follow: gives the operations
    /// that have to be done for that.
    pub async fn update(
        &self,
        scope: &OrgScope,
        handle: &str,
        name: &str,
        change: &RetentionChange,
    ) -> Result<(Pipe, Vec<PipeOperationId>)> {
        let now = self.0.clock.now();
        let updated = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                let Stored { source, .. } = changeable_in(tx, scope, role, handle).await?;
                not_auto(
                    &source,
                    name,
                    "keeps what every pipe of its kind keeps, and that cannot be changed",
                )?;
                let before = made_in(tx, &source, name).await?;
                let choice = change.applied_to(before.choice());
                let retention = choice.resolve();
                retention.check(most_bytes_in(tx).await?).map_err(Error::Invalid)?;
                pipe::set_retention(tx, before.id, choice).await?;
                match pipe_stream::find(tx, source.id, name).await {
                    Err(DbError::NotFound) => {}
                    Err(other) => return Err(other.into()),
                    Ok(known) => {
                        want_in(tx, &source, name, retention, now).await?;
                        follow_in(tx, &known, retention, now).await?;
                    }
                }
                let detail = json!({
                    "before": {"pipe": name, "retention": before.retention()},
                    "after": {"pipe": name, "retention": retention, "sourceCreatedBy": source.created_by},
                });
                audit_in(tx, "pipe.update", handle, detail, now).await?;
                Ok((pipe::find_by_name(tx, source.id, name).await?, pending_in(tx, &source, name).await?))
            })
            .await;
        self.0.broker.wake();
        updated
    }

    /// Ends a pipe with its messages, for the same people. Gives the operations that have to be done for that.
    pub async fn delete(&self, scope: &OrgScope, handle: &str, name: &str) -> Result<Vec<PipeOperationId>> {
        let now = self.0.clock.now();
        let deleted = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                let Stored { source, .. } = changeable_in(tx, scope, role, handle).await?;
                not_auto(&source, name, "is there as long as its source is")?;
                let before = made_in(tx, &source, name).await?;
                pipe::delete(tx, source.id, name).await?;
                let shown = json!({"id": before.id, "pipe": name, "sourceCreatedBy": source.created_by});
                audit_in(tx, "pipe.delete", handle, json!({"before": shown}), now).await?;
                pending_in(tx, &source, name).await
            })
            .await;
        self.0.broker.wake();
        deleted
    }

    /// The pipes of a source: those of its kind first, then those that were made, by name. For every member.
    pub async fn list(&self, scope: &OrgScope, handle: &str) -> Result<Vec<ListedPipe>> {
        require(Operation::ReadSources, standing(scope, scope.role()))?;
        let work = self.0.db.in_org(scope, async |tx| {
            let Stored { source, .. } = found_in(tx, handle).await?;
            let made = pipe::list(tx, source.id, MOST).await?;
            let streams = pipe_stream::of_source(tx, source.id).await?;
            Ok::<_, Error>(listed(&source, made, streams))
        });
        work.await
    }

    /// Opens a pipe for the caller to read or write: refused where they may not; its stream is wanted from now on.
    pub async fn open(&self, scope: &OrgScope, handle: &str, name: &str, to: PipeUse) -> Result<OpenPipe> {
        self.open_until(scope, (handle, name), to, None).await
    }

    /// The same for whoever makes the stream where nobody wanted it before, at once and until `lease`.
    pub(crate) async fn open_until(
        &self,
        scope: &OrgScope,
        (handle, name): (&str, &str),
        to: PipeUse,
        lease: Option<DateTime<Utc>>,
    ) -> Result<OpenPipe> {
        allowed_at_all(scope, to)?;
        let now = self.0.clock.now();
        let work = self.0.db.in_org_hot(scope, async |tx| {
            let Usable { source, stream, made } = usable_in(tx, (handle, name), false).await?;
            if stream.is_none() && source.created_by != scope.user_id() {
                // What is not there is not found, whatever one may do.
                kept(&source, name, made)?;
            }
            allowed_in(tx, scope, &source, name, to).await?;
            match stream {
                Some(stream) => opened(tx, source, name, stream).await,
                None => first_opened_in(tx, source, name, now, lease).await,
            }
        });
        work.await
    }
}

/// Refuses whoever may use no pipe like this, whatever its source is.
pub(crate) fn allowed_at_all(scope: &OrgScope, to: PipeUse) -> Result<()> {
    let needed = match to {
        PipeUse::Read => Operation::ReadSources,
        PipeUse::Write => Operation::SendMessages,
    };
    require(needed, standing(scope, scope.role()))
}

/// Opens a pipe of a source for whoever may; its stream is wanted from now on.
pub(crate) async fn opened_in(
    tx: &mut OrgTx,
    source: Source,
    name: &str,
    now: DateTime<Utc>,
) -> Result<OpenPipe> {
    match pipe_stream::find(tx, source.id, name).await {
        Ok(stream) => opened(tx, source, name, stream).await,
        Err(DbError::NotFound) => first_opened_in(tx, source, name, now, None).await,
        Err(other) => Err(other.into()),
    }
}

/// A source with one of its pipes: where the pipe has a stream, it is there, too. Where they are `held`, nobody deletes them
/// meanwhile, or changes what the pipe keeps.
async fn usable_in(tx: &mut OrgTx, (handle, name): (&str, &str), held: bool) -> Result<Usable> {
    let shown = handle_of(handle)?;
    // The database refuses to look for NUL; nothing is called so.
    let name = if name.contains('\0') { "" } else { name };
    pipe::usable(tx, (handle, name), held).await.named(format_args!("source {shown}"))
}

async fn opened(tx: &mut OrgTx, source: Source, name: &str, stream: PipeStream) -> Result<OpenPipe> {
    let pending = pending_in(tx, &source, name).await?;
    Ok(OpenPipe { source, name: name.to_owned(), stream, pending, claimed: None })
}

/// Opens a pipe that nobody used before.
async fn first_opened_in(
    tx: &mut OrgTx,
    source: Source,
    name: &str,
    now: DateTime<Utc>,
    lease: Option<DateTime<Utc>>,
) -> Result<OpenPipe> {
    let handle = source.handle.as_str();
    let Usable { source: held, stream, made } = usable_in(tx, (handle, name), true).await?;
    if held.id != source.id {
        return Err(Error::not_found(format_args!("source {handle}")));
    }
    if let Some(stream) = stream {
        // Somebody else was first.
        return opened(tx, source, name, stream).await;
    }
    let wanted = kept(&source, name, made)?;
    let asked = pipe_operation::insert_wanted(tx, (source.id, name), wanted, now, lease).await?;
    let Some(asked) = asked else {
        // Somebody else was first.
        let stream = pipe_stream::find(tx, source.id, name).await?;
        return opened(tx, source, name, stream).await;
    };
    let stream = PipeStream {
        source_id: source.id,
        pipe: name.to_owned(),
        creator: source.created_by,
        handle: handle.to_owned(),
        wanted,
        in_force: None,
    };
    match asked {
        Asked::Claimed(claimed) => {
            let (name, pending) = (name.to_owned(), vec![claimed.id]);
            Ok(OpenPipe { source, name, stream, pending, claimed: Some(claimed) })
        }
        Asked::Waiting => opened(tx, source, name, stream).await,
    }
}

/// What a pipe of a source is to keep; `made` is the pipe where it is none of the source's kind.
fn kept(source: &Source, name: &str, made: Option<Pipe>) -> Result<Retention> {
    if source.is_auto_pipe(name) {
        return Ok(Retention::default());
    }
    made.map(|pipe| pipe.retention()).ok_or_else(|| Error::not_found(called(source, name)))
}

/// Refuses what the source's creator did not allow.
pub(crate) async fn allowed_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    source: &Source,
    name: &str,
    to: PipeUse,
) -> Result<()> {
    let me = scope.user_id();
    if source.created_by == me {
        return Ok(());
    }
    let handle = &source.handle;
    let needed = match to {
        PipeUse::Read => SourceRight::to_read(name),
        PipeUse::Write => match SourceRight::to_write(name) {
            Writers::Members => return Ok(()),
            Writers::Granted(right) => Some(right),
            Writers::Creator => None,
        },
    };
    let owner = source.created_by_username.as_deref().unwrap_or("somebody who left");
    let Some(right) = needed else {
        return Err(Error::Forbidden(format!("pipe {name} of source {handle} is for {owner} alone")));
    };
    let rights = source_grant::rights(tx, me, vec![source.id]).await?;
    if rights.contains(&(source.id, right)) {
        return Ok(());
    }
    Err(Error::Forbidden(format!(
        "pipe {name} of source {handle} needs the right to {right}: ask {owner} for it"
    )))
}

/// Wants a pipe's stream, and asks for what makes it so where it is not.
async fn want_in(
    tx: &mut OrgTx,
    source: &Source,
    name: &str,
    retention: Retention,
    now: DateTime<Utc>,
) -> Result<()> {
    if pipe_stream::want(tx, source.id, name, retention, now).await? {
        pipe_operation::insert(tx, &Told::EnsureStream(source.id, name.to_owned()), now).await?;
    }
    Ok(())
}

/// Asks once more for what was given up before, where the broker was full for instance: another answer than success is due
/// until it keeps what it is to keep.
async fn follow_in(
    tx: &mut OrgTx,
    known: &PipeStream,
    retention: Retention,
    now: DateTime<Utc>,
) -> Result<()> {
    let (source, name) = (known.source_id, known.pipe.as_str());
    let kept = known.in_force.is_some_and(|found| found.retention == retention);
    let topic = tidegate_model::stream_name(source, name);
    if kept || !pipe_operation::pending(tx, Some(topic), 1).await?.is_empty() {
        return Ok(());
    }
    pipe_operation::insert(tx, &Told::EnsureStream(source, name.to_owned()), now).await?;
    Ok(())
}

/// What is to be done with a pipe's stream, in order.
async fn pending_in(tx: &mut OrgTx, source: &Source, name: &str) -> Result<Vec<PipeOperationId>> {
    let topic = tidegate_model::stream_name(source.id, name);
    let all = pipe_operation::pending(tx, Some(topic), PENDING).await?;
    Ok(all.into_iter().map(|(id, _)| id).collect())
}

/// The most bytes that one pipe of the organization may keep.
async fn most_bytes_in(tx: &mut OrgTx) -> Result<i64> {
    match nats_account::find(tx).await {
        Ok(account) => Ok(account.limits.disk_bytes),
        Err(DbError::NotFound) => Ok(DISK_BYTES),
        Err(other) => Err(other.into()),
    }
}

/// A pipe that was made; what can be no name is none.
async fn made_in(tx: &mut OrgTx, source: &Source, name: &str) -> Result<Pipe> {
    let what = called(source, name);
    if name.parse::<tidegate_model::PipeName>().is_err() {
        return Err(Error::not_found(what));
    }
    pipe::find_by_name(tx, source.id, name).await.named(what)
}

/// A pipe as it is shown.
fn called(source: &Source, name: &str) -> String {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(32).collect();
    format!("pipe {shown} of source {}", source.handle)
}

fn not_auto(source: &Source, name: &str, why: &str) -> Result<()> {
    if source.is_auto_pipe(name) {
        let complaint = FieldErrors::one("name", format!("{name} {why}"));
        return Err(Error::Invalid(complaint));
    }
    Ok(())
}

fn listed(source: &Source, made: Vec<(Pipe, Option<String>)>, streams: Vec<PipeStream>) -> Vec<ListedPipe> {
    let mut in_force: BTreeMap<String, Option<Retention>> = streams
        .into_iter()
        .map(|stream| (stream.pipe, stream.in_force.map(|found| found.retention)))
        .collect();
    let mut all = Vec::with_capacity(made.len() + source.pipes().len());
    for name in source.pipes() {
        all.push(ListedPipe {
            name: (*name).to_owned(),
            auto: true,
            id: None,
            created_by: source.created_by,
            created_by_username: source.created_by_username.clone(),
            retention: Retention::default(),
            in_force: in_force.remove(*name).flatten(),
            created_at: source.created_at,
        });
    }
    for (pipe, created_by_username) in made {
        all.push(ListedPipe {
            name: pipe.name.to_string(),
            auto: false,
            id: Some(pipe.id),
            created_by: pipe.created_by,
            created_by_username,
            retention: pipe.retention(),
            in_force: in_force.remove(pipe.name.as_str()).flatten(),
            created_at: pipe.created_at,
        });
    }
    all
}
