//! Requests of browsers and programs on their way to a session's web application and back.

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BoxBody, SizedStream},
    http::{Method, StatusCode, Uri, header},
    web::{Data, Payload},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyDataStream, BodyExt, StreamBody};
use hyper::{body::Frame, body::Incoming};
use tidegate_model::{SessionId, StreamMode};
use tidegate_service::OpenedStream;

use super::{
    Place, grant_of, headers, place_of,
    pool::{Body, Key, Lent, Pool},
    request_id, upgrade,
};
use crate::{
    departure,
    http::{
        Context, ErrorAnswer, Problem,
        envelope::OwnShape,
        gate::{bearer_of, caller},
        origin,
        routes::PREFIX,
        valid::Segment,
    },
};

/// Who asks, for which session, and what may be kept open for them.
pub(super) struct Asked {
    pub(super) opened: OpenedStream,
    pub(super) key: Key,
    /// The path and query that the application sees.
    pub(super) path: String,
    /// Whether the answer is shown at the platform's own origin.
    sandboxed: bool,
    /// Whether `Authorization` is the application's own: the viewer was known by a cookie.
    keeps_authorization: bool,
}

/// Everything at a session's own host.
pub(crate) async fn by_host(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
    pool: Data<Pool>,
) -> Result<HttpResponse, Problem> {
    let place = place_of(request.head(), &context)
        .ok_or_else(|| Problem::fault("a request without a content origin was taken for one"))?;
    same_site(&request)?;
    let session = match place {
        Place::Own(id) | Place::Path(id) => Some(id),
        Place::Shared => None,
    };
    let secret = grant_of(&request, place.cookie().0).ok_or_else(no_way_in)?;
    let (grant, opened) = context.services.streams.granted(&secret, session).await?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let key = Key::new(&opened, grant.to_string());
    let asked = Asked { opened, key, path, sandboxed: false, keeps_authorization: true };
    pass_on(request, payload, &context, &pool, asked).await
}

/// What a session's web application serves, for programs with a bearer token; browsers come by their page. The path after
/// the id, the query, the method, the body and upgrades go on as they are. Whom it is shared with to watch reads, and sends
/// nothing.
#[utoipa::path(get, path = "/api/v1/http/{id}/{path}", tag = "sessions", params(
    ("id" = String, Path), ("path" = String, Path, description = "what the application is asked for")), responses(
    (status = 200, description = "whatever the application answers", content_type = "application/octet-stream"),
    (status = 401, description = "no credential, or one that is not good", body = ErrorAnswer),
    (status = 403, description = "the viewer may only watch", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "it does not run, or has no web application", body = ErrorAnswer),
    (status = 502, description = "its application does not answer as HTTP", body = ErrorAnswer),
    (status = 503, description = "its agent is offline, or too many requests are open", body = ErrorAnswer),
    (status = 504, description = "its agent did not answer", body = ErrorAnswer),
))]
pub(crate) async fn by_path(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
    pool: Data<Pool>,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    let id = id.0;
    let place = Place::Path(id);
    let shown = grant_of(&request, place.cookie().0).filter(|_| bearer_of(request.headers()).is_none());
    let (viewer, opened) = if let Some(secret) = shown {
        same_site(&request)?;
        let (grant, opened) = context.services.streams.granted(&secret, Some(id)).await?;
        (grant.to_string(), opened)
    } else {
        let caller = caller(&request).await?;
        origin::check(&request, &context)?;
        let viewer = caller.credential().to_string();
        (viewer, context.services.streams.open_quietly(caller, id).await?)
    };
    let rest = request.match_info().get("path").unwrap_or_default();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("/{}{query}", rest.trim_start_matches('/'));
    let key = Key::new(&opened, viewer);
    let asked = Asked { opened, key, path, sandboxed: true, keeps_authorization: false };
    pass_on(request, payload, &context, &pool, asked).await
}

fn no_way_in() -> Problem {
    Problem::unauthenticated(
        "open the session from its page: this browser was not let in here, or not any more",
    )
}

/// Other sites may link here, and neither send forms nor open sockets in the name of whoever visits them.
fn same_site(request: &HttpRequest) -> Result<(), Problem> {
    let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && !request.headers().contains_key(header::UPGRADE);
    let Some(given) = request.headers().get(header::ORIGIN).filter(|_| !harmless) else { return Ok(()) };
    let own = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let same =
        given.to_str().ok().and_then(|given| given.parse::<Uri>().ok()).is_some_and(|given| {
            given.authority().is_some_and(|given| given.as_str().eq_ignore_ascii_case(own))
        });
    if same {
        return Ok(());
    }
    let message = "this may not be asked of the session by a page of another site";
    Err(Problem::new(StatusCode::FORBIDDEN, "E_ORIGIN", message))
}

async fn pass_on(
    request: HttpRequest,
    payload: Payload,
    context: &Context,
    pool: &Pool,
    asked: Asked,
) -> Result<HttpResponse, Problem> {
    if asked.opened.mode == StreamMode::View && !is_reading(&request) {
        return Err(Problem::forbidden("you may watch this session, and not change anything in it"));
    }
    if is_of_a_person(&request) {
        context.hub.note_activity(asked.opened.session, asked.opened.caller.user().user_id());
    }
    let upgrades = request.headers().contains_key(header::UPGRADE);
    if upgrades {
        return upgrade::pass_on(request, payload, context, pool, asked).await;
    }
    let mut lent = pool.lend(context, &asked.opened, asked.key.clone(), departure::of(&request)).await?;
    // A request without a body is asked again where its connection had been closed while it waited.
    let bodiless = !has_body(&request);
    let mut body = Some(payload);
    loop {
        let onward = onward(&request, &asked, body.take().filter(|_| !bodiless), context)?;
        match lent.connection.send_request(onward).await {
            Ok(answer) => return Ok(answer_of(&request, answer, lent, &asked)),
            Err(_) if lent.used && bodiless => {
                lent = pool.lend(context, &asked.opened, asked.key.clone(), departure::of(&request)).await?;
            }
            Err(error) => return Err(not_answered(error, &lent)),
        }
    }
}

/// Why there is no answer: the application's fault, or the end of the way to it.
pub(super) fn not_answered(error: hyper::Error, lent: &Lent) -> Problem {
    if lent.tunnel.has_ended() {
        return Problem::bad_gateway("the session's application hung up, or the way to it ended", error);
    }
    Problem::bad_gateway("the session's application did not answer as HTTP", error)
}

fn is_reading(request: &HttpRequest) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether somebody did something, as far as a request tells: went somewhere, sent something. What a page asks for by
/// itself, again and again, reads.
fn is_of_a_person(request: &HttpRequest) -> bool {
    let says = |name: &str, what: &str| request.headers().get(name).is_some_and(|value| value == what);
    !is_reading(request) || says("sec-fetch-user", "?1")
}

fn has_body(request: &HttpRequest) -> bool {
    let headers = request.headers();
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// The request as the application gets it.
pub(super) fn onward(
    request: &HttpRequest,
    asked: &Asked,
    payload: Option<Payload>,
    context: &Context,
) -> Result<hyper::Request<Body>, Problem> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("session");
    let encrypted = origin::own(request, context).is_some_and(|own| own.is_encrypted());
    let mut headers = headers::onward(request.headers(), host, encrypted, asked.keeps_authorization);
    headers::own_protocols(&mut headers);
    if let Some(length) = request.headers().get(header::CONTENT_LENGTH).filter(|_| payload.is_some())
        && let Ok(length) = hyper::header::HeaderValue::from_bytes(length.as_bytes())
    {
        headers.insert(hyper::header::CONTENT_LENGTH, length);
    }
    let body: Body = match payload {
        Some(payload) => {
            let frames = payload.map_ok(Frame::data).map_err(std::io::Error::other);
            Box::pin(StreamBody::new(frames))
        }
        None => Box::pin(http_body_util::Empty::<Bytes>::new().map_err(|never| match never {})),
    };
    let mut onward = hyper::Request::new(body);
    *onward.method_mut() = hyper::Method::from_bytes(request.method().as_str().as_bytes()).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "E_BAD_REQUEST", "the method cannot be understood")
    })?;
    *onward.uri_mut() = asked.path.parse().map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "E_BAD_REQUEST", "the path cannot be understood")
    })?;
    *onward.headers_mut() = headers;
    Ok(onward)
}

/// The application's answer as the viewer gets it; the connection is kept once all of it was read.
fn answer_of(
    request: &HttpRequest,
    answer: hyper::Response<Incoming>,
    lent: Lent,
    asked: &Asked,
) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let length = answer
        .headers()
        .get(hyper::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut response = with_headers(status, answer.headers(), asked, &request_id(request));
    let bodiless = *request.method() == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless {
        if let Some(length) = length
            && *request.method() == Method::HEAD
        {
            response.no_chunking(length);
        }
        lent.keep();
        return marked(response.finish());
    }
    let body = body_of(answer.into_body(), lent);
    marked(match length {
        Some(length) => response.body(BoxBody::new(SizedStream::new(length, body))),
        None => response.streaming(body),
    })
}

pub(super) fn with_headers(
    status: StatusCode,
    given: &hyper::HeaderMap,
    asked: &Asked,
    request: &str,
) -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    let own = asked.sandboxed.then(|| format!("{PREFIX}/http/{}", asked.key.session));
    for (name, value) in headers::back(given, own.as_deref()) {
        if let (Ok(name), Ok(value)) =
            (header::HeaderName::from_bytes(name.as_bytes()), header::HeaderValue::from_bytes(&value))
        {
            response.append_header((name, value));
        }
    }
    response.insert_header(("x-request-id", request));
    if asked.sandboxed {
        // Beside whatever the application says itself: a browser keeps to both. Nothing in it is of the platform's origin.
        response.append_header((
            header::CONTENT_SECURITY_POLICY,
            "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads",
        ));
        response.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    }
    response
}

/// An answer of the application's own, whatever its status.
pub(super) fn marked(response: HttpResponse) -> HttpResponse {
    let mut response = response;
    response.extensions_mut().insert(OwnShape);
    response
}

fn body_of(
    body: Incoming,
    lent: Lent,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + 'static {
    let mut lent = Some(lent);
    BodyDataStream::new(body)
        .map(|piece| Some(piece.map_err(std::io::Error::other)))
        .chain(futures_util::stream::once(async { None }))
        .filter_map(move |piece| {
            // Read to its end, the connection can carry the next request; left before, it is closed.
            if piece.is_none()
                && let Some(lent) = lent.take()
            {
                lent.keep();
            }
            std::future::ready(piece)
        })
}
