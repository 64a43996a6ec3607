//! From a template to an answer that loads nothing from anywhere else, runs nothing, and is kept nowhere.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER,
            SET_COOKIE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
};
use askama::Template;

use super::channel::{Channel, Cookie};
use crate::http::{Context, Problem, envelope::OwnShape};

const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A page that runs scripts, under a policy of its own.
pub(super) fn page_under(policy: &str, template: &impl Template) -> Result<HttpResponse, Problem> {
    let mut response = page(StatusCode::OK, template)?;
    let policy = HeaderValue::from_str(policy).map_err(Problem::fault)?;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

/// A page.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Result<HttpResponse, Problem> {
    page_with(HttpResponse::build(status), template)
}

/// A page with headers of its own.
pub(super) fn page_with(
    mut response: HttpResponseBuilder,
    template: &impl Template,
) -> Result<HttpResponse, Problem> {
    let body = template.render().map_err(Problem::fault)?;
    let mut response = response
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((CACHE_CONTROL, "no-store"))
        // Not `no-referrer`: with it browsers send forms with the origin `null`, which is nobody's.
        .insert_header((REFERRER_POLICY, "same-origin"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .content_type("text/html; charset=utf-8")
        .body(body);
    if response.status() == StatusCode::UNAUTHORIZED {
        // A refusal must name a scheme; of one it does not know, the browser shows the page.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Form"));
    }
    response.extensions_mut().insert(OwnShape);
    Ok(response)
}

/// Sends the browser to a path of ours, with a GET.
pub(super) fn go(path: &str) -> HttpResponseBuilder {
    let mut response = HttpResponse::SeeOther();
    response.insert_header((LOCATION, path)).insert_header((CACHE_CONTROL, "no-store"));
    response
}

/// Sends whoever is not logged in to the login page, without a cookie that opens nothing.
pub(super) fn to_login(
    request: &HttpRequest,
    context: &Context,
    path: &str,
) -> Result<HttpResponse, Problem> {
    let channel = Channel::of(request, context)?;
    let mut response = go(&super::next::login_before(path));
    if channel.read(request, Cookie::Session).is_some() {
        response.append_header((SET_COOKIE, channel.clear(Cookie::Session)?));
    }
    Ok(response.finish())
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    title: &'a str,
    message: &'a str,
}

/// A page with one sentence.
pub(super) fn message(status: StatusCode, title: &str, message: &str) -> Result<HttpResponse, Problem> {
    page(status, &Message { title, message })
}

/// A refusal as a page; faults of ours go on, to the log and out as every other.
pub(super) fn told(outcome: Result<HttpResponse, Problem>) -> Result<HttpResponse, Problem> {
    let problem = match outcome {
        Err(problem) if !problem.status.is_server_error() => problem,
        other => return other,
    };
    let mut response = message(problem.status, "This did not work", &problem.to_string())?;
    if let Some(seconds) = problem.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}
