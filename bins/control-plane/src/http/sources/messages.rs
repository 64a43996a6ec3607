//! `sources/{handle}/pipes/{name}/messages`.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ACCEPT, CACHE_CONTROL},
    web::Data,
};
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use serde::Serialize;
use tidegate_model::{
    Confirmation, Envelope, FieldErrors, Fields, FromFields, MessageId, NewMessage, Payload,
};
use tidegate_service::{Error, MessagesPage, MessagesRead, MessagesWanted, PipeUse, Published, ReadMessage};
use utoipa::ToSchema;

use super::{
    follow::{self, EVENT_STREAM},
    last_event::LastEvent,
};
use crate::{
    departure,
    http::{
        Context, ErrorAnswer, Problem,
        gate::Identified,
        idempotency::idempotency,
        valid::{Body, Last, Segment, parsed, read_query},
    },
};

/// Messages of a page at most.
const MOST: usize = 100;
/// Seconds that one waits for a message at most.
const LONGEST: u64 = 30;
/// How long one look waits, and the longest that a login which has ended still gets a message.
const LOOK: Duration = Duration::from_millis(900);
/// Where programs that come back say what they had.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// A message to send. An envelope can be sent as it is: `id`, `sender`, `subject` and `created_at` in it are ignored.
#[derive(Debug, ToSchema)]
#[schema(as = NewMessage)]
#[expect(
    dead_code,
    reason = "the shape of `NewMessage`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// A text, or bytes as `{"base64": "…"}`.
    payload: Payload,
    /// The message that it answers.
    in_reply_to: Option<MessageId>,
    /// Whether the sender wants to hear that it was read. Default `false`.
    ack_requested: Option<bool>,
}

/// A message in its pipe.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub(crate) struct InPipe {
    #[serde(flatten)]
    envelope: Envelope,
    /// Its place in the pipe.
    pub(super) sequence: u64,
    /// What readers are told besides; absent in the answer to whoever sends it.
    #[serde(flatten)]
    read: Option<Kept>,
}

/// What readers are told of a message besides.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeptMessage)]
pub(crate) struct Kept {
    /// When it was stored.
    stored_at: DateTime<Utc>,
    /// The sender's username; `null` where they are no member any more.
    sender_name: Option<String>,
}

impl From<Published> for InPipe {
    fn from(published: Published) -> Self {
        Self { envelope: published.envelope, sequence: published.sequence, read: None }
    }
}

impl From<ReadMessage> for InPipe {
    fn from(read: ReadMessage) -> Self {
        let ReadMessage { sequence, stored_at, envelope, sender_name } = read;
        Self { envelope, sequence, read: Some(Kept { stored_at, sender_name }) }
    }
}

/// Messages of a pipe.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Messages)]
pub(crate) struct Found {
    /// The oldest first.
    messages: Vec<InPipe>,
    /// The sequence of the last thing that was looked at: `after` for the next page.
    last: Option<u64>,
    /// How many are beyond the caller's place, with `confirmed` those of this answer too; `null` where `after` or `since` is
    /// given.
    unread: Option<u64>,
    /// Things on the way that are no messages, which were passed over.
    skipped: usize,
    /// Which stream it is: another one begins with its first message, and its sequences mean other messages.
    incarnation: Option<DateTime<Utc>>,
}

impl From<MessagesPage> for Found {
    fn from(page: MessagesPage) -> Self {
        Self {
            messages: page.messages.into_iter().map(InPipe::from).collect(),
            last: page.last,
            unread: page.unread,
            skipped: page.skipped,
            incarnation: page.incarnation,
        }
    }
}

/// What the query may say.
#[derive(Debug, Clone, Copy)]
struct Wanted(MessagesWanted);

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let after = parsed(fields, "after", "must be the sequence of a message, 0 for all that are kept");
        let since = parsed(fields, "since", "must be a moment, for example 2026-01-31T12:00:00Z");
        let bounds = "must be a number from 1 to 100";
        let limit = parsed(fields, "limit", bounds);
        if limit.is_some_and(|limit| !(1..=MOST).contains(&limit)) {
            fields.errors().add("limit", bounds);
        }
        let bounds = "must be a number of seconds, 0 to 30";
        let wait: Option<u64> = parsed(fields, "wait", bounds);
        if wait.is_some_and(|wait| wait > LONGEST) {
            fields.errors().add("wait", bounds);
        }
        if after.is_some() && since.is_some() {
            fields.errors().add("since", "cannot be given together with after");
        }
        let confirmed = confirmation(fields);
        for (field, given) in [("after", after.is_some()), ("since", since.is_some())] {
            if given && confirmed.is_some() {
                fields.errors().add(field, "cannot be given together with confirmed");
            }
        }
        let read = match (confirmed, after, since) {
            (Some(confirmation), ..) => MessagesRead::Confirmed(confirmation),
            (None, Some(after), _) => MessagesRead::After(after),
            (None, None, Some(since)) => MessagesRead::Since(since),
            (None, None, None) => MessagesRead::Next,
        };
        Some(Self(MessagesWanted { read, limit, wait: wait.map(Duration::from_secs) }))
    }
}

/// What the query says that its reader has done with.
fn confirmation(fields: &mut Fields) -> Option<Confirmation> {
    let confirmed: Option<String> = fields.optional("confirmed");
    let of: Option<String> = fields.optional("incarnation");
    let sequence = confirmed.as_ref().and_then(|text| text.parse().ok());
    let incarnation = of.as_ref().and_then(|text| text.parse().ok());
    if confirmed.is_some() && sequence.is_none() {
        fields.errors().add("confirmed", "must be the sequence of a message, 0 to begin at your place");
    }
    let begins = sequence == Some(0);
    if confirmed.is_none() && of.is_some() {
        fields.errors().add("incarnation", "is for confirmed alone");
    } else if incarnation.is_none() && (of.is_some() || (sequence.is_some() && !begins)) {
        fields.errors().add("incarnation", "must be the moment that the last answer gave");
    }
    Some(Confirmation { sequence: sequence?, incarnation })
}

/// Sends a message. The answer comes once the broker has it on disk; a repeat with the same key within ten minutes, or
/// within as long as the pipe keeps messages where that is less, stores it once. Who sent it is the caller, whatever the
/// message says.
#[utoipa::path(post, path = "/api/v1/sources/{handle}/pipes/{name}/messages", tag = "sources", request_body = New, params(
    ("handle" = String, Path),
    ("name" = String, Path),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body is answered with the first message"),
), responses(
    (status = 200, description = "an earlier request with the same key stored it", body = InPipe),
    (status = 201, description = "stored", body = InPipe),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not allowed to write there", body = ErrorAnswer),
    (status = 404, description = "no such source or pipe", body = ErrorAnswer),
    (status = 409, description = "the key was used for another message (`E_IDEMPOTENCY_MISMATCH`)", body = ErrorAnswer),
    (status = 413, description = "larger than 64 KiB with its envelope", body = ErrorAnswer),
    (status = 503, description = "the broker does not answer, or the pipe is being made: a repeat with the same key completes it", body = ErrorAnswer),
    (status = 507, description = "no room is left; `fields` has the numbers", body = ErrorAnswer),
))]
pub(crate) async fn send(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    name: Last<String>,
    body: Body<NewMessage>,
) -> Result<HttpResponse, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    // The pipe is part of what must be the same.
    let what = [handle.0.as_bytes(), b"\n", name.0.as_bytes(), b"\n", body.bytes().as_ref()].concat();
    let key = idempotency(&request, &caller, "POST messages", &what)?;
    let allowed =
        async || Ok(services.pipes.open(org, &handle.0, &name.0, PipeUse::Write).await.map(drop)?);
    let message = body.after(allowed).await?;
    let sent = match services.messages.publish(org, &handle.0, &name.0, message, key.as_ref()).await {
        Ok(sent) => sent,
        // What is not there, or not allowed, is so whether or not the broker answers.
        Err(error @ Error::BrokerUnavailable(_)) => {
            allowed().await?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    let mut answer = if sent.repeated { HttpResponse::Ok() } else { HttpResponse::Created() };
    Ok(answer.json(InPipe::from(sent)))
}

/// Reads messages of a pipe, the oldest first, in one of three ways.
///
/// With `confirmed`, each exactly once and in order: it says up to which sequence one has everything, and the answer is what
/// comes behind the caller's place, which moves to what was confirmed and no further. `0` begins. Each following request
/// confirms `last` of the answer before, with its `incarnation`; until then the same messages are answered again. Where the
/// answer shows another `incarnation`, the confirmation counted for nothing, and the pipe begins with its first message.
/// `PUT …/place` confirms without reading.
///
/// Without any of them, work is shared: each message to one of the caller's programs, and their place moves before the answer
/// goes out. One that is lost on its way is not given a second time. What was confirmed is not given either.
///
/// With `after` or `since` from anywhere, again and again, and nothing moves.
///
/// Asked for as `text/event-stream` it goes on: every message is an event `message` with its stream and sequence as `id`,
/// from `Last-Event-ID`, `after` or `since` on, else from now on; nothing moves. `reset` says that the pipe was made anew and
/// begins with its first message, to whoever comes back, too. Something is said every 15 seconds.
#[utoipa::path(get, path = "/api/v1/sources/{handle}/pipes/{name}/messages", tag = "sources", params(
    ("handle" = String, Path),
    ("name" = String, Path),
    ("after" = Option<u64>, Query, description = "those behind this sequence, 0 for all that are kept"),
    ("since" = Option<String>, Query, description = "those stored at this moment or later"),
    ("confirmed" = Option<u64>, Query, description = "the sequence up to which one has everything, 0 to begin: those behind the caller's place"),
    ("incarnation" = Option<String>, Query, description = "what the answer gave that is confirmed; needed with `confirmed` beyond 0"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 10"),
    ("wait" = Option<u32>, Query, description = "seconds to wait for a message where there is none, at most 30"),
    ("Last-Event-ID" = Option<String>, Header, description = "of a stream of events: the `id` of the last one, or a sequence; it wins"),
), responses(
    (status = 200, description = "the messages", content((Found = "application/json"), (InPipe = "text/event-stream"))),
    (status = 400, description = "bad query or `Last-Event-ID`, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not allowed to read it", body = ErrorAnswer),
    (status = 404, description = "no such source or pipe", body = ErrorAnswer),
    (status = 429, description = "so many streams of events are open for you already (`E_TOO_MANY_FOLLOWED`)", body = ErrorAnswer),
    (status = 503, description = "the broker does not answer, or the pipe is being made: ask again", body = ErrorAnswer),
    (status = 507, description = "no room is left to make the pipe; `fields` has the numbers", body = ErrorAnswer),
))]
pub(crate) async fn read(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    name: Last<String>,
) -> Result<HttpResponse, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let (wanted, last) = match wanted(&request) {
        Ok(wanted) => wanted,
        Err(complaints) => {
            // What is not there, or not allowed, comes before what is wrong with the request for it.
            services.pipes.open(org, &handle.0, &name.0, PipeUse::Read).await?;
            return Err(Problem::invalid(complaints));
        }
    };
    if follows(&request) {
        return follow::follow(&context, caller, handle.0, name.0, wanted, last).await;
    }
    let left = departure::of(&request);
    let page = patiently(&context, &caller, (&handle.0, &name.0), wanted, left).await?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(Found::from(page)))
}

/// Reads in looks so short that neither a shutdown nor the end of the login waits for a message to come, and that whoever has
/// left takes none from those who are there.
async fn patiently(
    context: &Context,
    caller: &Identified,
    (handle, pipe): (&str, &str),
    wanted: MessagesWanted,
    departure: impl Future<Output = ()>,
) -> Result<MessagesPage, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let until = Instant::now() + wanted.wait.unwrap_or_default();
    let mut departure = pin!(departure);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let look = MessagesWanted { wait: Some(left.min(LOOK)), ..wanted };
        let page = services.messages.read(org, handle, pipe, look).await?;
        let over = left <= LOOK || context.shutdown.is_cancelled();
        if page.last.is_some() || over || departure.as_mut().now_or_never().is_some() {
            return Ok(page);
        }
        if !services.logins.still_stands(&caller.0).await? {
            return Err(Problem::unauthenticated("the login has ended: log in again"));
        }
    }
}

/// Whether a stream of events is asked for, by name: everything else is answered as JSON.
fn follows(request: &HttpRequest) -> bool {
    let mut given = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    let event_stream =
        |kind: &str| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(EVENT_STREAM);
    given.any(|value| value.split(',').any(event_stream))
}

/// What is asked for, and what a client that follows had last.
fn wanted(request: &HttpRequest) -> Result<(MessagesWanted, Option<LastEvent>), FieldErrors> {
    let mut errors = FieldErrors::new();
    let read = read_query::<Wanted>(request.query_string()).map_err(|complaints| {
        for (field, complaint) in complaints.iter() {
            errors.add(field, complaint);
        }
    });
    // An empty one is what a browser sends that has seen no message yet.
    let given = request.headers().get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let last = given
        .filter(|_| follows(request))
        .and_then(|value| errors.check(LAST_EVENT_ID, value.to_str().unwrap_or("\u{fffd}").trim().parse()));
    let wanted = read.map(|wanted| wanted.0).unwrap_or_default();
    if follows(request) && matches!(wanted.read, MessagesRead::Confirmed(_)) {
        errors.add("confirmed", "is for asking page by page: a stream of events confirms nothing");
    }
    errors.into_result()?;
    Ok((wanted, last))
}
