//! Pages for people: plain HTML from the server, whole without scripts. A browser proves itself by a cookie, which opens
//! these pages and nothing of the API.

mod assets;
mod channel;
pub(crate) mod forgotten;
pub(crate) mod home;
pub(crate) mod invites;
pub(crate) mod login;
pub(crate) mod logout;
mod next;
mod render;
mod session;
pub(crate) mod sign_in;
pub(crate) mod style;
pub(crate) mod verify;
mod visit;

use actix_web::{HttpRequest, http::header::HeaderName};
use tidegate_service::{Caller, Error};

pub(crate) use assets::asset;
pub(crate) use home::{home, revoke};
pub(crate) use invites::{answer_invite, invite};
pub(crate) use login::{login, login_page};
pub(crate) use logout::logout;
pub(crate) use session::{connect_session, session, session_state};
pub(crate) use style::style;
pub(crate) use verify::{decide, verify};

pub(crate) use self::channel::is_private;
use self::channel::{Channel, Cookie};
use super::{Context, Problem, form::Parameters, gate::origin_of, origin, source::source};

/// Where people let devices in.
pub(crate) const VERIFY: &str = "/oauth/device/verify";
/// Where people log in.
pub(crate) const LOGIN: &str = "/login";
/// Where people come to who did not want to go anywhere.
pub(crate) const HOME: &str = "/home";

/// Who sits at the browser, if anybody is logged in.
async fn signed_in(request: &HttpRequest, context: &Context) -> Result<Option<Caller>, Problem> {
    signed_in_to(request, context, None).await
}

/// The same in an organization, by id or name; in one that is not theirs, they are nobody's member.
async fn signed_in_to(
    request: &HttpRequest,
    context: &Context,
    org: Option<&str>,
) -> Result<Option<Caller>, Problem> {
    let channel = Channel::of(request, context)?;
    let Some(secret) = channel.read(request, Cookie::Session) else { return Ok(None) };
    let from = source(request, context);
    match context.services.browsers.authenticate_in(&secret, org, from).await {
        Ok(caller) => Ok(Some(caller.with_origin(origin_of(request, from)))),
        // An old cookie keeps nobody from logging in, whatever the neighbours tried.
        Err(Error::Unauthenticated(_) | Error::RateLimited(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses forms that pages of other sites send. Browsers say where a form comes from in one header or the other; what
/// says nothing still has to bring the token of its form.
fn check_site(request: &HttpRequest, context: &Context, form: &Parameters) -> Result<(), Problem> {
    origin::check(request, context)?;
    let mut sites = request.headers().get_all(SEC_FETCH_SITE);
    if sites.any(|site| site != "same-origin") || !form.is_form() || form.complaint().is_some() {
        return Err(stale());
    }
    Ok(())
}

/// Refuses forms that were not made for this very login.
fn check_form(
    request: &HttpRequest,
    context: &Context,
    caller: &Caller,
    form: &Parameters,
) -> Result<(), Problem> {
    check_site(request, context, form)?;
    let token = form.get("token").unwrap_or_default();
    if context.services.browsers.form_token_fits(caller, token) { Ok(()) } else { Err(stale()) }
}

fn stale() -> Problem {
    Problem::forbidden(
        "this form is too old or came from somewhere else: open the page again and try once more",
    )
}
