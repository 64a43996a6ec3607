//! `POST /logout`.

use actix_web::{HttpRequest, HttpResponse, http::header::SET_COOKIE, web::Data};

use super::{
    Channel, Cookie, LOGIN, check_form,
    render::{go, told},
    signed_in,
};
use crate::http::{Context, Problem, form::Parameters};

/// Ends the browser's login.
pub(crate) async fn logout(
    request: HttpRequest,
    context: Data<Context>,
    sent: Parameters,
) -> Result<HttpResponse, Problem> {
    told(leave(&request, &context, &sent).await)
}

async fn leave(request: &HttpRequest, context: &Context, sent: &Parameters) -> Result<HttpResponse, Problem> {
    let channel = Channel::of(request, context)?;
    if let Some(caller) = signed_in(request, context).await? {
        check_form(request, context, &caller, sent)?;
        context.services.logins.logout(&caller).await?;
    }
    Ok(go(LOGIN).append_header((SET_COOKIE, channel.clear(Cookie::Session)?)).finish())
}
