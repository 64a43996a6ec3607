//! Sending: access from the rows at this moment, the sender from the credential, success after JetStream's word.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_broker::{
    Error as BrokerError, Missing, OrgBroker, Outgoing, PipeSubject as BrokerSubject, Position, Principal,
    Receipt, StreamName,
};
use tidegate_model::{
    Envelope, EnvelopeError, MessageId, NewMessage, OpenPipeRequest, OrgId, PipeSubject, STDCTRL, Scope,
    SourceId, SourceRight, UserId, Writers,
};
use tidegate_persistence::{
    OrgScope, auth,
    pipe_stream::PipeStream,
    source::{LastMessage, PREVIEW},
};

use super::{
    accounts::{Tenant, connection},
    exchange::{self, allowed_by_key},
    keyed, reading,
    ready::{made_anew, open_first, open_ready, settle_all},
};
use crate::{Core, Error, Idempotency, OpenPipe, PipeUse, Pipes, Result, pipes::allowed_at_all};

/// Messages of an organization's pipes.
#[derive(Debug, Clone)]
pub struct Messages(pub(crate) Arc<Core>);

/// A message that is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The message as it is stored.
    pub envelope: Envelope,
    /// Its place in the pipe.
    pub sequence: u64,
    /// Whether it was stored by an earlier request with the same key.
    pub repeated: bool,
}

/// A pipe that is written to, with its stream.
#[derive(Debug)]
struct Target {
    org: OrgId,
    source: SourceId,
    creator: UserId,
    handle: String,
    pipe: String,
}

impl Target {
    /// What somebody sends to it.
    fn subject(&self, sender: UserId) -> PipeSubject {
        let (handle, pipe) = (self.handle.clone(), self.pipe.clone());
        PipeSubject { org_id: self.org, creator: self.creator, handle, pipe, sender }
    }

    /// What its stream listens to.
    fn listened(&self) -> Result<BrokerSubject> {
        let (org, creator) = (self.org.as_uuid(), self.creator.as_uuid());
        Ok(BrokerSubject::new(org, creator, &self.handle, &self.pipe)?)
    }
}

/// How a client of NATS uses a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeRoute {
    /// What it publishes to.
    pub subject: String,
    /// The pipe's stream.
    pub stream: String,
    /// Its reader there, which is asked with `$JS.API.CONSUMER.MSG.NEXT.<stream>.<reader>`; none for writing.
    pub reader: Option<String>,
    /// The prefix that its inboxes must have.
    pub inbox_prefix: String,
}

impl Messages {
    /// Sends a message: refused where the caller may not, done once JetStream has it on disk. With a key, a repeat within
    /// ten minutes, or as long as the pipe keeps messages where that is less, is the first message, and another message under
    /// the same key is refused.
    pub async fn publish(
        &self,
        scope: &OrgScope,
        handle: &str,
        pipe: &str,
        message: NewMessage,
        idempotency: Option<&Idempotency>,
    ) -> Result<Published> {
        let core = &self.0;
        let live = core.broker.live()?;
        let room = live.disk.as_ref().map_or(Ok(()), super::disk::Guard::check);
        let target = self.target(scope, (handle, pipe), room).await?;
        let (me, id, now) = (scope.user_id(), MessageId::new(), core.clock.now());
        let preview = message.payload.preview(PREVIEW);
        let envelope = Envelope::new(id, &target.subject(me), message, now);
        let payload = encoded(&envelope)?;
        let id = idempotency.map_or_else(
            || id.to_string(),
            |key| keyed::name(&keyed::secret(core, scope.org_id(), me), key.text()),
        );
        let (pipe, sender, headers) = (target.listened()?, me.as_uuid(), Vec::new());
        let outgoing = Outgoing { pipe, sender, id, headers, payload };
        let (receipt, broker) = self.stored(scope, &target, outgoing).await?;
        let sequence = receipt.sequence;
        if receipt.repeated {
            let envelope = first(&broker, &receipt, envelope).await?;
            return Ok(Published { envelope, sequence, repeated: true });
        }
        // What terminals say to each other is nothing to read.
        if target.pipe != STDCTRL {
            let news = LastMessage { at: now, pipe: target.pipe, text: preview };
            core.broker.noted.note(scope, target.source, news);
        }
        Ok(Published { envelope, sequence, repeated: false })
    }

    /// The pipe that the caller may write to at this moment, with its stream: one question where all is as it should be, and
    /// else step by step, which tells what is wrong or makes what is not there. `room` is whether anything can be stored.
    async fn target(
        &self,
        scope: &OrgScope,
        (handle, pipe): (&str, &str),
        room: Result<()>,
    ) -> Result<Target> {
        allowed_at_all(scope, PipeUse::Write)?;
        let writers = SourceRight::to_write(pipe);
        let org = scope.org_id();
        if let Some(found) = auth::writable_pipe(&self.0.db, scope, (handle, pipe), writers).await? {
            room?;
            let (handle, pipe) = (handle.to_owned(), pipe.to_owned());
            return Ok(Target { org, source: found.source, creator: found.creator, handle, pipe });
        }
        if let Err(full) = room {
            // What is not there, or not allowed, is so whether or not there is room.
            Pipes(Arc::clone(&self.0)).open(scope, handle, pipe, PipeUse::Write).await?;
            return Err(full);
        }
        let (opened, _) = open_first(&self.0, scope, (handle, pipe)).await?;
        let OpenPipe { source, name, .. } = opened;
        let (creator, handle) = (source.created_by, source.handle.to_string());
        Ok(Target { org, source: source.id, creator, handle, pipe: name })
    }

    /// Stores it in the pipe's stream, which is made where somebody took it away.
    async fn stored(
        &self,
        scope: &OrgScope,
        target: &Target,
        outgoing: Outgoing,
    ) -> Result<(Receipt, OrgBroker)> {
        let core = &self.0;
        let broker = connection(core, Tenant::Member(scope)).await?;
        let receipt = match broker.publish(outgoing.clone()).await {
            // Somebody took it away behind our back.
            Err(BrokerError::NotFound(Missing::Stream)) => {
                made_anew(core, scope, target.source, &target.pipe).await?;
                broker.publish(outgoing).await?
            }
            outcome => outcome?,
        };
        Ok((receipt, broker))
    }

    /// How the caller's own client of NATS uses a pipe.
    pub async fn route(
        &self,
        scope: &OrgScope,
        handle: &str,
        pipe: &str,
        wanted: OpenPipeRequest,
    ) -> Result<PipeRoute> {
        match wanted {
            OpenPipeRequest { to: PipeUse::Write, .. } => self.write_route(scope, handle, pipe).await,
            OpenPipeRequest { to: PipeUse::Read, anew: false } => self.read_route(scope, handle, pipe).await,
            OpenPipeRequest { to: PipeUse::Read, anew: true } => {
                self.read_route_anew(scope, handle, pipe).await
            }
        }
    }

    /// How it writes to one: its stream is there when this returns.
    pub async fn write_route(&self, scope: &OrgScope, handle: &str, pipe: &str) -> Result<PipeRoute> {
        // Its token for NATS would not let it either.
        allowed_by_key(scope, Scope::PipesWrite)?;
        let (opened, _) = open_ready(&self.0, scope, (handle, pipe), PipeUse::Write).await?;
        let by_grant = matches!(SourceRight::to_write(&opened.name), Writers::Granted(_));
        if by_grant && opened.source.created_by != scope.user_id() {
            exchange::fits(&self.0, scope, handle, pipe).await?;
        }
        let broker = connection(&self.0, Tenant::Member(scope)).await?;
        // Whoever asks may have found that it is not there, behind our back.
        if broker.stream(&stream_of(opened.source.id, &opened.name)?).await?.is_none() {
            made_anew(&self.0, scope, opened.source.id, &opened.name).await?;
        }
        Self::routed(scope, &opened, None)
    }

    /// How it reads one: its reader is there when this returns, where it was or at the oldest message.
    pub async fn read_route(&self, scope: &OrgScope, handle: &str, pipe: &str) -> Result<PipeRoute> {
        let (opened, stream) = open_ready(&self.0, scope, (handle, pipe), PipeUse::Read).await?;
        let broker = connection(&self.0, Tenant::Member(scope)).await?;
        let reader = reading::made(&self.0, scope, &broker, &stream).await?;
        Self::routed(scope, &opened, Some(reader))
    }

    /// The same for whoever wants nothing of before: a fresh shell never gets what was typed into another one.
    pub async fn read_route_anew(&self, scope: &OrgScope, handle: &str, pipe: &str) -> Result<PipeRoute> {
        let route = self.read_route(scope, handle, pipe).await?;
        let broker = connection(&self.0, Tenant::Member(scope)).await?;
        if let Some(reader) = &route.reader {
            let stream = StreamName::parse(&route.stream)?;
            broker.move_reader(&stream, reader, Position::Newest).await?;
            reading::kept(&self.0, scope, &broker, &stream, reader).await?;
        }
        Ok(route)
    }

    /// Waits until NATS has followed changes of pipes, which [`Pipes::update`] and [`Pipes::delete`] gave; a repeat of
    /// what is refused here as not ready completes it.
    pub async fn settled(
        &self,
        scope: &OrgScope,
        operations: &[tidegate_model::PipeOperationId],
    ) -> Result<()> {
        if operations.is_empty() {
            return Ok(());
        }
        settle_all(&self.0, scope, operations).await
    }

    /// Writes down what was last sent to sources; called every moment by the platform itself, and by whoever wants to see it
    /// at once. Gives how many changed.
    pub async fn write_noted(&self) -> Result<usize> {
        self.0.broker.noted.write(&self.0).await
    }

    fn routed(scope: &OrgScope, opened: &OpenPipe, reader: Option<String>) -> Result<PipeRoute> {
        Ok(PipeRoute {
            subject: opened.subject(scope.user_id()).to_string(),
            stream: stream_of(opened.source.id, &opened.name)?.to_string(),
            reader,
            inbox_prefix: Principal::new(scope.user_id().as_uuid()).inbox_prefix(),
        })
    }
}

pub(super) fn encoded(envelope: &Envelope) -> Result<Bytes> {
    match envelope.encode() {
        Ok(bytes) => Ok(bytes.into()),
        Err(error @ EnvelopeError::TooLarge(_)) => Err(Error::TooLarge(error.to_string())),
        Err(error @ EnvelopeError::Malformed(_)) => Err(Error::internal(error)),
    }
}

pub(super) fn subject_of(opened: &OpenPipe) -> Result<BrokerSubject> {
    let source = &opened.source;
    let (org, creator) = (source.org_id.as_uuid(), source.created_by.as_uuid());
    Ok(BrokerSubject::new(org, creator, source.handle.as_str(), &opened.name)?)
}

/// The stream of a source's pipe.
pub(super) fn stream_of(source: SourceId, pipe: &str) -> Result<StreamName> {
    Ok(StreamName::of_pipe(source.as_uuid(), pipe)?)
}

/// The message that an earlier request with the same key stored; `second` where it is gone by now.
async fn first(broker: &OrgBroker, receipt: &Receipt, second: Envelope) -> Result<Envelope> {
    let stored = broker.message(&receipt.stream, receipt.sequence).await?;
    let Some(stored) = stored else { return Ok(second) };
    if stored.sender != Some(second.sender.as_uuid()) {
        return Err(mismatch());
    }
    let Some(first) = reading::envelope(&stored) else { return Ok(second) };
    let said = |envelope: &Envelope| (envelope.payload.clone(), envelope.in_reply_to, envelope.ack_requested);
    if said(&first) == said(&second) { Ok(first) } else { Err(mismatch()) }
}

fn mismatch() -> Error {
    let message =
        "this Idempotency-Key was used with another body: use a new key for a new request".to_owned();
    Error::Conflict { code: "E_IDEMPOTENCY_MISMATCH", message }
}

/// What a stream's row says of its incarnation, for cursors.
pub(super) fn incarnation(stream: &PipeStream) -> Option<chrono::DateTime<chrono::Utc>> {
    stream.in_force.map(|found| found.incarnation)
}
