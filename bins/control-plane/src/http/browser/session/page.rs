//! `GET /sessions/{id}`: the page that waits for a session and shows it.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use askama::Template;
use tidegate_model::SessionId;

use super::{Asked, find, policy};
use crate::http::{
    Context, Origin, Problem,
    browser::{
        assets,
        render::{page_under, to_login, told},
    },
    content, origin,
    valid::Segment,
};

#[derive(Template)]
#[template(path = "session.html")]
struct Page<'a> {
    id: SessionId,
    name: &'a str,
    org: String,
    token: String,
    mode: &'a str,
    nonce: &'a str,
    style: String,
    script: String,
}

/// The page of a session.
pub(crate) async fn session(
    request: HttpRequest,
    context: Data<Context>,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    told(show(&request, &context, id.0).await)
}

async fn show(request: &HttpRequest, context: &Context, id: SessionId) -> Result<HttpResponse, Problem> {
    let asked = Asked::of(request);
    let Some(seen) = find(request, context, id, &asked).await? else {
        return to_login(
            request,
            context,
            request.uri().path_and_query().map_or("/", |place| place.as_str()),
        );
    };
    let own = origin::own(request, context);
    let application = content::entrance(request, context, id).and_then(|url| Origin::of_url(&url));
    let nonce = context.services.browsers.visit()?;
    let template = Page {
        id,
        name: &seen.session.name,
        org: seen.org_id().to_string(),
        token: context.services.browsers.form_token(&seen.caller),
        mode: asked.mode.as_str(),
        nonce: nonce.expose(),
        style: assets::style(),
        script: assets::script(),
    };
    let policy = policy::of(own.as_ref(), application.as_ref(), seen.session.protocol, nonce.expose());
    page_under(&policy, &template)
}
