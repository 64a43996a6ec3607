//! Read receipts: who has read a message whose sender wanted to hear of it. Nothing is sent for that: whose place is behind
//! the message has read it, from any program and over NATS too.

use futures_util::{StreamExt, stream};
use tidegate_broker::{OrgBroker, Principal, StreamName};
use tidegate_model::{Operation, PipeName, ReadReceipt, ReadReceipts};
use tidegate_persistence::{
    OrgScope,
    pipe_reader::{self, PipeReader},
};

use super::{
    accounts::{Tenant, connection},
    messages::{Messages, incarnation, stream_of},
    operations::find_in,
    reading,
};
use crate::{
    Error, Result,
    permissions::{may, require, standing},
    sources::found_in,
};

/// Readers of one pipe that are looked at.
const MOST: i64 = 1_000;
/// Readers that NATS is asked about at once.
const AT_ONCE: usize = 16;

impl Messages {
    /// Who has read a message: for whoever sent it, for whoever made the source, and for those who manage sources; for
    /// everybody else it is not there. Refused where its sender did not ask for it.
    pub async fn receipts(
        &self,
        scope: &OrgScope,
        handle: &str,
        pipe: &str,
        sequence: u64,
    ) -> Result<ReadReceipts> {
        require(Operation::ReadSources, standing(scope, scope.role()))?;
        let core = &self.0;
        let gone = || Error::not_found(format_args!("message {sequence} of {handle}/{}", shown(pipe)));
        let work = core.db.in_org(scope, async |tx| {
            let source = found_in(tx, handle).await?.source;
            // What can be no pipe's name is none.
            if !source.is_auto_pipe(pipe) && pipe.parse::<PipeName>().is_err() {
                return Ok((source, None));
            }
            let Some(stream) = find_in(tx, source.id, pipe).await? else { return Ok((source, None)) };
            let readers = pipe_reader::readers(tx, source.id, pipe, MOST).await?;
            Ok::<_, Error>((source, Some((stream, readers))))
        });
        let (source, found) = work.await?;
        // Whether or not there is such a message, without NATS nobody can say.
        let broker = connection(core, Tenant::Member(scope)).await?;
        let (stream, readers) = found.ok_or_else(gone)?;
        let name = stream_of(source.id, pipe)?;
        let stored = if sequence == 0 { None } else { broker.message(&name, sequence).await? };
        let message = stored.as_ref().and_then(reading::envelope).ok_or_else(gone)?;
        let me = scope.user_id();
        if message.sender != me && source.created_by != me && !may(scope, Operation::ManageSources) {
            return Err(gone());
        }
        if !message.ack_requested {
            let message = format!(
                "message {sequence} of {handle}/{pipe} asked for no receipts: send it with ack_requested"
            );
            return Err(Error::Conflict { code: "E_NO_RECEIPTS", message });
        }
        let current = incarnation(&stream);
        let (broker, name) = (&broker, &name);
        let asked = stream::iter(readers).map(|reader| async move {
            let known = reader.incarnation.is_some() && reader.incarnation == current;
            receipt(broker, name, reader, known, sequence).await
        });
        let asked: Vec<Result<Option<ReadReceipt>>> = asked.buffered(AT_ONCE).collect().await;
        let receipts = asked.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
        Ok(ReadReceipts { id: message.id, sequence, receipts })
    }
}

/// Whether somebody has read a message: as it is written down, or else as NATS has it.
async fn receipt(
    broker: &OrgBroker,
    stream: &StreamName,
    reader: PipeReader,
    known: bool,
    sequence: u64,
) -> Result<Option<ReadReceipt>> {
    let PipeReader { user_id, username, sequence: place, at, .. } = reader;
    if known && place.unsigned_abs() >= sequence {
        return Ok(Some(ReadReceipt { user_id, username, read_by: Some(at) }));
    }
    let name = Principal::new(user_id.as_uuid()).reader();
    let state = broker.reader(stream, &name).await?;
    let has_read = state.is_some_and(|state| state.acknowledged >= sequence);
    Ok(has_read.then_some(ReadReceipt { user_id, username, read_by: None }))
}

/// A pipe's name as a sentence may say it.
fn shown(pipe: &str) -> String {
    pipe.chars().filter(|c| !c.is_control()).take(32).collect()
}
