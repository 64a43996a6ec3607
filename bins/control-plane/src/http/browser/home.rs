//! `GET /home`, and `POST /home/tokens/{id}/revoke`.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};
use askama::Template;
use tidegate_model::{BearerToken, BearerTokenId, Invite, OrgRole, Organization};
use tidegate_service::Paging;

use super::{
    HOME, check_form,
    render::{go, page, to_login, told},
    signed_in,
};
use crate::http::{Context, Problem, form::Parameters, source::source, valid::Segment};

#[derive(Template)]
#[template(path = "home.html")]
struct Page {
    username: String,
    token: String,
    invites: Vec<Invite>,
    organizations: Vec<(Organization, OrgRole)>,
    devices: Vec<BearerToken>,
    more: bool,
}

/// Who is logged in, who invites them, their organizations and their devices.
pub(crate) async fn home(request: HttpRequest, context: Data<Context>) -> Result<HttpResponse, Problem> {
    told(show(&request, &context).await)
}

async fn show(request: &HttpRequest, context: &Context) -> Result<HttpResponse, Problem> {
    let Some(caller) = signed_in(request, context).await? else { return to_login(request, context, HOME) };
    let (services, all) = (&context.services, Paging { limit: 100, cursor: None });
    let organizations = services.organizations.list(&caller, &all).await?;
    let invites = services.invites.mine(&caller).await?;
    let devices = services.bearer_tokens.list(&caller, &all).await?;
    let now = services.clock().now();
    let more = organizations.next_cursor.is_some() || devices.next_cursor.is_some();
    let stands = |token: &BearerToken| token.revoked_at.is_none() && token.expires_at > now;
    page(
        StatusCode::OK,
        &Page {
            username: caller.user().username().to_owned(),
            token: services.browsers.form_token(&caller),
            invites,
            organizations: organizations.items,
            devices: devices.items.into_iter().filter(stands).collect(),
            more,
        },
    )
}

/// Revokes the token of a device.
pub(crate) async fn revoke(
    request: HttpRequest,
    context: Data<Context>,
    id: Segment<BearerTokenId>,
    sent: Parameters,
) -> Result<HttpResponse, Problem> {
    told(end(&request, &context, id.0, &sent).await)
}

async fn end(
    request: &HttpRequest,
    context: &Context,
    id: BearerTokenId,
    sent: &Parameters,
) -> Result<HttpResponse, Problem> {
    let Some(caller) = signed_in(request, context).await? else { return to_login(request, context, HOME) };
    check_form(request, context, &caller, sent)?;
    context.services.bearer_tokens.revoke(&caller, id, source(request, context)).await?;
    Ok(go(HOME).finish())
}
