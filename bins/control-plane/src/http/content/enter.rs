//! `POST /.tidegate/enter/{id}`: a ticket becomes the cookie of the session's own origin.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE},
    web::{Data, Form},
};
use serde::Deserialize;
use tidegate_model::SessionId;

use super::{Place, cookie, place_of};
use crate::http::{Context, Problem, valid::Last};

/// What the form says.
#[derive(Debug, Deserialize)]
pub(crate) struct Entering {
    /// The ticket; in the form's body, so that no address shows it.
    ticket: String,
}

/// Takes a ticket and lets the browser in. Without one that is good, it is told so in a sentence.
pub(crate) async fn enter(
    request: HttpRequest,
    context: Data<Context>,
    id: Last<SessionId>,
    form: Form<Entering>,
) -> Result<HttpResponse, Problem> {
    let place = place_of(request.head(), &context).unwrap_or(Place::Path(id.0));
    if let Place::Own(host) = place
        && host != id.0
    {
        return Err(Problem::not_found(format_args!("session {}", id.0)));
    }
    let granted = context.services.streams.exchange(&form.ticket, id.0).await?;
    let seconds = (granted.expires_at - context.services.clock().now()).num_seconds().max(0);
    let cookie = cookie(place, &granted.secret, seconds, is_trustworthy(&request, &context, place));
    let (_, path) = place.cookie();
    let to = if path == "/" { path } else { format!("{path}/") };
    let mut answer = HttpResponse::SeeOther();
    answer
        .insert_header((SET_COOKIE, cookie))
        .insert_header((LOCATION, to))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"));
    if place == Place::Shared {
        // The session that was shown here before leaves nothing to this one.
        answer.insert_header(("Clear-Site-Data", "\"cache\", \"storage\""));
    }
    Ok(answer.finish())
}

/// Whether browsers take a `Secure` cookie here: over TLS, and below `localhost` without it, too.
fn is_trustworthy(request: &HttpRequest, context: &Context, place: Place) -> bool {
    let own = crate::http::origin::own(request, context);
    let local =
        || request.connection_info().host().split(':').next().is_some_and(|name| name.ends_with("localhost"));
    own.is_some_and(|own| own.is_encrypted()) || (matches!(place, Place::Own(_)) && local())
}
