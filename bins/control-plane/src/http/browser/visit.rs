//! Forms for those who are not logged in: each carries a token of a cookie that the page itself set, so that no other site's
//! page can send it.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{RETRY_AFTER, SET_COOKIE},
    },
};
use tidegate_model::Secret;

use super::{Channel, Cookie, check_site, stale};
use crate::http::{Context, Problem, form::Parameters};

/// Seconds somebody may look at such a page.
const VISIT: u32 = 3_600;

/// Begins a page with a form, and gives the token that the form carries. `problem` is why it is shown again.
pub(super) fn begin(
    request: &HttpRequest,
    context: &Context,
    problem: Option<&Problem>,
) -> Result<(HttpResponseBuilder, String), Problem> {
    let (channel, browsers) = (Channel::of(request, context)?, &context.services.browsers);
    // Kept from tab to tab: each of them may be sent.
    let visit = match channel.read(request, Cookie::Visit) {
        Some(visit) => Secret::new(visit),
        None => browsers.visit()?,
    };
    let mut response = HttpResponse::build(problem.map_or(StatusCode::OK, |problem| problem.status));
    response.append_header((SET_COOKIE, channel.set(Cookie::Visit, &visit, VISIT)?));
    if let Some(seconds) = problem.and_then(Problem::retry_after) {
        response.insert_header((RETRY_AFTER, seconds));
    }
    Ok((response, browsers.visit_token(visit.expose())))
}

/// Refuses forms that were not made for this very visit.
pub(super) fn check(request: &HttpRequest, context: &Context, sent: &Parameters) -> Result<(), Problem> {
    check_site(request, context, sent)?;
    let visit = Channel::of(request, context)?.read(request, Cookie::Visit).ok_or_else(stale)?;
    let fits = context.services.browsers.visit_token_fits(&visit, sent.get("token").unwrap_or_default());
    if fits { Ok(()) } else { Err(stale()) }
}
