//! `GET` and `POST /invites/{id}`: where the link of an invite's mail leads. Whose it is comes before how it stands.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};
use askama::Template;
use tidegate_model::{FieldErrors, Invite, InviteId};
use tidegate_service::{Error, InviteStanding, SeenInvite};

use super::{
    SEC_FETCH_SITE, check_form,
    render::{message, page, to_login, told},
    signed_in,
};
use crate::http::{Context, Problem, form::Parameters, valid::Segment};

#[derive(Template)]
#[template(path = "invite.html")]
struct Page<'a> {
    token: String,
    invite: &'a Invite,
    organization: &'a str,
}

#[derive(Template)]
#[template(path = "again.html")]
struct Again {
    path: String,
}

fn path(id: InviteId) -> String {
    format!("/invites/{id}")
}

/// Shows an invite to whom it is for.
pub(crate) async fn invite(
    request: HttpRequest,
    context: Data<Context>,
    id: Segment<InviteId>,
) -> Result<HttpResponse, Problem> {
    told(show(&request, &context, id.0).await)
}

async fn show(request: &HttpRequest, context: &Context, id: InviteId) -> Result<HttpResponse, Problem> {
    let Some(caller) = signed_in(request, context).await? else {
        // A browser that comes from a mail program's page brings no cookie: asked again by a page of ours, it does.
        let away = request.headers().get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site");
        if away {
            return page(StatusCode::OK, &Again { path: path(id) });
        }
        return to_login(request, context, &path(id));
    };
    let seen = context.services.invites.look(&caller, id).await?;
    if seen.standing != InviteStanding::Open {
        return over(&seen, StatusCode::OK);
    }
    page(
        StatusCode::OK,
        &Page {
            token: context.services.browsers.form_token(&caller),
            invite: &seen.invite,
            organization: seen.organization.as_deref().unwrap_or(&seen.invite.org_name),
        },
    )
}

/// Accepts an invite, or declines it.
pub(crate) async fn answer_invite(
    request: HttpRequest,
    context: Data<Context>,
    id: Segment<InviteId>,
    sent: Parameters,
) -> Result<HttpResponse, Problem> {
    told(answer(&request, &context, id.0, &sent).await)
}

async fn answer(
    request: &HttpRequest,
    context: &Context,
    id: InviteId,
    sent: &Parameters,
) -> Result<HttpResponse, Problem> {
    let Some(caller) = signed_in(request, context).await? else {
        return to_login(request, context, &path(id));
    };
    check_form(request, context, &caller, sent)?;
    let invites = &context.services.invites;
    invites.look(&caller, id).await?;
    let done = match sent.get("action") {
        Some("accept") => invites.accept(&caller, id).await.map(drop),
        Some("decline") => invites.decline(&caller, id).await,
        _ => return Err(Problem::invalid(FieldErrors::one("action", "must be accept or decline"))),
    };
    match done {
        Ok(()) => over(&invites.look(&caller, id).await?, StatusCode::OK),
        Err(Error::Conflict { .. }) => over(&invites.look(&caller, id).await?, StatusCode::CONFLICT),
        Err(error) => Err(error.into()),
    }
}

/// How an invite stands that cannot be answered any more.
fn over(seen: &SeenInvite, status: StatusCode) -> Result<HttpResponse, Problem> {
    let name = &seen.invite.org_name;
    match seen.standing {
        InviteStanding::Accepted if name.is_empty() => {
            message(status, "You accepted this invite", "You are no member of its organization any more.")
        }
        InviteStanding::Accepted => message(
            status,
            "You accepted this invite",
            &format!(
                "You are a member of {name}. You find it on your page, beside your other organizations."
            ),
        ),
        InviteStanding::Declined => {
            message(status, "You declined this invite", "If you want to join after all, ask for a new one.")
        }
        InviteStanding::Revoked => message(
            status,
            "This invite was taken back",
            "Ask the organization for a new one if you think that this is a mistake.",
        ),
        InviteStanding::Expired => {
            message(status, "This invite has expired", "Ask the organization for a new one.")
        }
        // Open again only where somebody let the organization live again between two looks.
        InviteStanding::Closed | InviteStanding::Open => message(
            status,
            "The organization takes nobody at this time",
            "Open the page again later: the invite stands until it expires.",
        ),
    }
}
