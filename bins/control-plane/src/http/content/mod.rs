//! What sessions serve, shown to browsers: requests go on to the session's web port through a tunnel. It is foreign to the
//! platform and to every other session: it has a host of its own where that can be, and nothing of the platform's own
//! cookies, tokens and tickets ever reaches it.

mod enter;
mod headers;
mod pool;
pub(crate) mod proxy;
mod site;
mod upgrade;
mod watcher;

pub(crate) use enter::enter;
pub(crate) use pool::Pool;
use proxy::by_host;
pub(crate) use proxy::by_path;
pub(crate) use site::Site;
pub(crate) use site::{Place, entrance};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, HttpResponse,
    dev::{RequestHead, ServiceRequest},
    guard::GuardContext,
    http::{Method, StatusCode, header::HOST},
    web::{Data, Form, Payload},
};
use tidegate_model::FieldErrors;

use super::{Context, Problem, routes::PREFIX, valid::Last};

/// Where tickets are exchanged, on every content origin: before the session's id.
const ENTER: &str = "/.tidegate/enter/";
/// The cookie of a content origin that only this host can set.
const HOST_COOKIE: &str = "__Host-tidegate_stream";
/// The cookie where the platform's own origin has to do, below one session's path.
const PATH_COOKIE: &str = "tidegate_stream";

/// What no route of the platform takes: everything at a session's own host, and what is nowhere.
pub(crate) async fn elsewhere(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
    pool: Data<Pool>,
) -> Result<HttpResponse, Problem> {
    if place_of(request.head(), &context).is_none() {
        return Err(Problem::of_status(StatusCode::NOT_FOUND));
    }
    match request.path().strip_prefix(ENTER) {
        Some(id) if *request.method() == Method::POST => {
            let id = id.parse().map_err(|_| Problem::not_found("the session"))?;
            let form = Form::from_request(&request, &mut payload.into_inner())
                .await
                .map_err(|_| Problem::invalid(FieldErrors::one("ticket", "must be a field of a form")))?;
            enter(request, context, Last(id), form).await
        }
        _ => by_host(request, payload, context, pool).await,
    }
}

/// Whether a request is for what a session serves at a host of its own.
pub(crate) fn is_content(guard: &GuardContext<'_>) -> bool {
    let Some(context) = guard.app_data::<Data<Context>>() else { return false };
    place_of(guard.head(), context).is_some()
}

/// The same for requests below the API, which are passed on as they are.
pub(crate) fn is_passed_on(request: &ServiceRequest) -> bool {
    let at_host = request
        .app_data::<Data<Context>>()
        .is_some_and(|context| place_of(request.head(), context).is_some());
    at_host || request.path().strip_prefix(PREFIX).is_some_and(|path| path.starts_with("/http/"))
}

/// The content origin that a request names.
pub(crate) fn place_of(head: &RequestHead, context: &Context) -> Option<Place> {
    // Of an absolute address the host counts, as for every server.
    let named = head.uri.authority().map(|authority| authority.as_str().to_owned());
    let host = || head.headers().get(HOST)?.to_str().ok().map(str::to_owned);
    context.site.place_of(&named.or_else(host)?)
}

/// What the browser shows for its grant.
fn grant_of(request: &HttpRequest, name: &str) -> Option<String> {
    // By hand: a session may set cookies that the library cannot read, and they must not lock anybody out.
    let given = request.headers().get_all(actix_web::http::header::COOKIE);
    let pairs = given.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(cookie, _)| *cookie == name)
        .map(|(_, value)| value.to_owned())
}

/// Whether a cookie is the platform's own, whatever origin it is of.
fn is_ours(name: &str) -> bool {
    let name = name.trim();
    let name = name.strip_prefix("__Host-").or_else(|| name.strip_prefix("__Secure-")).unwrap_or(name);
    name.to_ascii_lowercase().starts_with("tidegate_")
}

/// The cookie that holds a grant, as a header says it.
fn cookie(place: Place, secret: &str, seconds: i64, encrypted: bool) -> String {
    let (name, path) = place.cookie();
    // Shown in a frame of the platform's page, which may be another site: then it is of that page alone.
    let reach = if encrypted { "Secure; SameSite=None; Partitioned" } else { "SameSite=Lax" };
    format!("{name}={secret}; Path={path}; Max-Age={seconds}; HttpOnly; {reach}")
}

/// The id that the log knows a request by.
fn request_id(request: &HttpRequest) -> String {
    request.extensions().get::<super::envelope::Named>().map(|named| named.0.clone()).unwrap_or_default()
}
