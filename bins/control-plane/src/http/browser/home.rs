//! `GET /home`, and `POST /home/tokens/{id}/revoke`.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};
use askama::Template;
use tidegate_model::{
    BearerToken, BearerTokenId, Invite, OrgRole, OrgStatus, Organization, Session, SessionFilter,
    SessionState, SharedWith, StreamMode,
};
use tidegate_service::{Caller, Paging};

use super::{
    HOME, check_form,
    render::{go, page, to_login, told},
    signed_in, signed_in_to,
};
use crate::http::{Context, Problem, form::Parameters, source::source, valid::Segment};

/// Organizations whose sessions are shown, and the newest sessions of each that are looked at.
const ORGANIZATIONS: usize = 20;
const SESSIONS: u32 = 50;

#[derive(Template)]
#[template(path = "home.html")]
struct Page {
    username: String,
    token: String,
    invites: Vec<Invite>,
    sessions: Vec<(String, Session)>,
    shared: Vec<(String, Session, SharedWith)>,
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
    let (sessions, shared) = their_sessions(request, context, &caller, &organizations.items).await?;
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
            sessions,
            shared,
            organizations: organizations.items,
            devices: devices.items.into_iter().filter(stands).collect(),
            more,
        },
    )
}

type Own = (String, Session);
type Shared = (String, Session, SharedWith);

/// The sessions that have not ended, the caller's own and those that are shared with them, each with the name of its
/// organization.
async fn their_sessions(
    request: &HttpRequest,
    context: &Context,
    caller: &Caller,
    organizations: &[(Organization, OrgRole)],
) -> Result<(Vec<Own>, Vec<Shared>), Problem> {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let newest = Paging { limit: SESSIONS, cursor: None };
    let stands = |session: &Session| session.state != SessionState::Terminated;
    let active = organizations.iter().filter(|(organization, _)| organization.status == OrgStatus::Active);
    for (organization, _) in active.take(ORGANIZATIONS) {
        let inside = signed_in_to(request, context, Some(&organization.id.to_string())).await?;
        // Who was a member a moment ago may be none now.
        let Some(Ok(scope)) = inside.as_ref().map(Caller::org) else { continue };
        let (sessions, name) = (&context.services.sessions, &organization.name);
        let filter =
            SessionFilter { user: Some(caller.user().username().to_owned()), ..SessionFilter::default() };
        let page = sessions.list(scope, filter, &newest).await?;
        own.extend(page.items.into_iter().filter(stands).map(|session| (name.clone(), session)));
        let page =
            sessions.list(scope, SessionFilter { shared: true, ..SessionFilter::default() }, &newest).await?;
        let shared = page.items.into_iter().filter(stands);
        others.extend(shared.filter_map(|session| session.shared.map(|with| (name.clone(), session, with))));
    }
    own.sort_by_key(|(_, session)| std::cmp::Reverse(session.created_at));
    others.sort_by_key(|(_, session, _)| std::cmp::Reverse(session.created_at));
    Ok((own, others))
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
