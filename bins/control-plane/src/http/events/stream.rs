//! `GET events`: as server-sent events, or upgraded to a WebSocket.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
    },
    rt,
    web::{Data, Payload},
};
use tidegate_model::{Event, EventId, EventKind, FieldErrors, Fields, FromFields, SessionId};
use tidegate_service::{Caller, EventFilter, EventStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    pump::{Client, pump, watch},
    write::{self, Frames, Lines},
};
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::{caller, origin_of},
    origin, scopes,
    socket::upgrade,
    source::source,
    valid::{parsed, read_query},
};

/// The subprotocol of streams; the ticket stands beside it.
const PROTOCOL: &str = "tidegate.v1";
/// Where programs that come back say what they had.
const LAST_EVENT_ID: &str = "Last-Event-ID";
/// Largest message taken from a client, who has nothing to say.
const LARGEST: usize = 4 * 1024;

/// What the query may say.
#[derive(Debug, Default)]
struct Wanted {
    filter: EventFilter,
    after: Option<EventId>,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let session: Option<SessionId> = parsed(fields, "session", "must be the id of a session");
        let after = fields.optional("after");
        let kinds: Option<String> = fields.optional("kind");
        let kinds = kinds.as_deref().unwrap_or_default().split(',').map(str::trim);
        let kinds: Vec<Option<EventKind>> = kinds
            .filter(|kind| !kind.is_empty())
            .map(|kind| fields.errors().check("kind", kind.parse()))
            .collect();
        Some(Self { filter: EventFilter { session, kinds: kinds.into_iter().flatten().collect() }, after })
    }
}

/// Changes of sessions, commands and agents as they commit, each once and in order: the caller's own sessions and their
/// commands, those of the whole organization for who manages sessions, agents for operators.
///
/// As server-sent events each has its `id`, its kind as `event`, and the object below as `data`. As a WebSocket each is a
/// text frame; `{"kind":"position","id":…}` between them says from where on to come back. Both begin with the events after
/// `Last-Event-ID` or `after`, else with those from now on, and both say something every 15 seconds. After `reset` the stream
/// goes on with the oldest event that is kept. Browsers bring a ticket as subprotocols `tidegate.v1, ticket.<ticket>`.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(
    ("session" = Option<String>, Query, description = "of this session alone"),
    ("kind" = Option<String>, Query, description = "`session`, `command`, `agent`, or some of them with commas between"),
    ("after" = Option<String>, Query, description = "the id of the last event that was seen; `0-0` for everything that is kept"),
    ("Last-Event-ID" = Option<String>, Header, description = "the same; it wins"),
), responses(
    (status = 200, description = "the events", body = Event, content_type = "text/event-stream"),
    (status = 101, description = "the events, a text frame each"),
    (status = 400, description = "bad query or `Last-Event-ID`, each named", body = ErrorAnswer),
    (status = 401, description = "no credential, or a ticket that is not good", body = ErrorAnswer),
    (status = 403, description = "opened from a page of another site", body = ErrorAnswer),
    (status = 404, description = "no such session, or no organization of the caller's", body = ErrorAnswer),
    (status = 406, description = "neither `text/event-stream` nor a WebSocket is asked for", body = ErrorAnswer),
))]
pub(crate) async fn stream(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
) -> Result<HttpResponse, Problem> {
    let caller = caller_of(&request, &context).await?;
    origin::check(&request, &context)?;
    let Wanted { filter, after } = match wanted(&request) {
        Ok(wanted) => wanted,
        Err(complaints) => {
            // What is not there comes before what is wrong with the request for it.
            if caller.operator().is_err() {
                caller.org()?;
            }
            return Err(Problem::invalid(complaints));
        }
    };
    let events = context.services.events.open(caller.clone(), filter, after).await?;
    if request.headers().contains_key(UPGRADE) {
        let (response, inbound, outbound) = upgrade(&request, payload, &[PROTOCOL], LARGEST)?;
        serve(&context, caller, events, Frames::new(outbound, inbound));
        return Ok(response);
    }
    if !accepts_events(request.headers()) {
        let message = "events are sent as text/event-stream, or over a WebSocket: ask for one of them";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "E_NOT_ACCEPTABLE", message));
    }
    let (lines, body) = Lines::new();
    serve(&context, caller, events, lines);
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, write::EVENT_STREAM))
        .insert_header((CACHE_CONTROL, "no-store"))
        // Proxies that gather answers would hold events back.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

/// Moves events until the client or its login is gone.
fn serve(context: &Context, caller: Caller, events: EventStream, client: impl Client + 'static) {
    let (over, (stop, stopped)) = (CancellationToken::new(), oneshot::channel());
    rt::spawn(context.tasks.track_future(watch(context.clone(), caller, stop, over.clone())));
    rt::spawn(context.tasks.track_future(pump(events, client, stopped, over)));
}

/// Who asks, by ticket or credential.
async fn caller_of(request: &HttpRequest, context: &Context) -> Result<Caller, Problem> {
    let Some(ticket) = ticket(request.headers()) else { return caller(request).await };
    origin::check(request, context)?;
    let redeemed = context.services.events.redeem(&ticket).await?;
    scopes::check(request, &redeemed)?;
    Ok(redeemed.with_origin(origin_of(request, source(request, context))))
}

fn ticket(headers: &HeaderMap) -> Option<String> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    offered.map(str::trim).find_map(|protocol| protocol.strip_prefix("ticket.").map(str::to_owned))
}

fn wanted(request: &HttpRequest) -> Result<Wanted, FieldErrors> {
    let mut errors = FieldErrors::new();
    let read = read_query::<Wanted>(request.query_string()).map_err(|complaints| {
        for (field, complaint) in complaints.iter() {
            errors.add(field, complaint);
        }
    });
    // An empty one is what a browser sends that has seen no event yet.
    let given = request.headers().get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let last = given.and_then(|value| {
        errors.check(LAST_EVENT_ID, value.to_str().unwrap_or("\u{fffd}").trim().parse::<EventId>())
    });
    errors.into_result()?;
    let wanted = read.unwrap_or_default();
    Ok(Wanted { after: last.or(wanted.after), ..wanted })
}

/// Whether server-sent events are among what is asked for.
fn accepts_events(headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(ACCEPT).peekable();
    let fits = |kind: &str| {
        let name = kind.split(';').next().unwrap_or_default().trim();
        ["text/event-stream", "text/*", "*/*"].iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    given.peek().is_none() || given.any(|value| value.to_str().is_ok_and(|value| value.split(',').any(fits)))
}
