//! Signing in elsewhere: `GET auth/github`, `GET auth/oidc/{provider}`, and where their providers send browsers back to.
//!
//! These are addresses of the API because providers know them, and pages because browsers go there.

use std::collections::HashMap;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{ACCEPT, CACHE_CONTROL, LOCATION, RETRY_AFTER, SET_COOKIE},
    },
    web::{Data, Path},
};
use askama::Template;
use tidegate_model::Provider;
use tidegate_service::{Asked, CameBack};

use super::{
    Channel, Cookie, HOME,
    next::local,
    render::{message, page_with},
};
use crate::http::{Context, Problem, origin, routes::PREFIX, source::source, valid::lenient_query};

const GITHUB: &str = "github";

#[derive(Template)]
#[template(path = "signed_in.html")]
struct Page<'a> {
    next: &'a str,
}

/// Sends a browser to GitHub to sign in.
#[utoipa::path(get, path = "/api/v1/auth/github", tag = "auth", security(()),
    params(("next" = Option<String>, Query, description = "where to go afterwards, a path of this server")),
    responses(
        (status = 303, description = "to GitHub, with a cookie that binds the attempt to this browser"),
        (status = 404, description = "GitHub is not in the settings", body = crate::http::ErrorAnswer),
        (status = 429, description = "too many attempts from this address", body = crate::http::ErrorAnswer),
    ))]
pub(crate) async fn github(request: HttpRequest, context: Data<Context>) -> Result<HttpResponse, Problem> {
    told(&request, depart(&request, &context, Provider::Github, GITHUB).await)
}

/// Where GitHub sends a browser back to: it is logged in as whom GitHub says it is.
#[utoipa::path(get, path = "/api/v1/auth/github/callback", tag = "auth", security(()),
    params(
        ("state" = Option<String>, Query, description = "what GitHub was given"),
        ("code" = Option<String>, Query, description = "what GitHub gives a token for"),
        ("error" = Option<String>, Query, description = "why there is no code"),
    ),
    responses(
        (status = 200, description = "logged in; the page leads on"),
        (status = 403, description = "not begun here, not accepted, or not let in", body = crate::http::ErrorAnswer),
        (status = 503, description = "GitHub does not answer", body = crate::http::ErrorAnswer),
    ))]
pub(crate) async fn github_callback(
    request: HttpRequest,
    context: Data<Context>,
) -> Result<HttpResponse, Problem> {
    told(&request, arrive(&request, &context, Provider::Github, GITHUB).await)
}

/// Sends a browser to an OpenID Connect provider to sign in.
#[utoipa::path(get, path = "/api/v1/auth/oidc/{provider}", tag = "auth", security(()),
    params(
        ("provider" = String, Path, description = "the provider's name in the settings"),
        ("next" = Option<String>, Query, description = "where to go afterwards, a path of this server"),
    ),
    responses(
        (status = 303, description = "to the provider, with a cookie that binds the attempt to this browser"),
        (status = 404, description = "no provider of this name is in the settings", body = crate::http::ErrorAnswer),
        (status = 429, description = "too many attempts from this address", body = crate::http::ErrorAnswer),
        (status = 503, description = "the provider does not answer", body = crate::http::ErrorAnswer),
    ))]
pub(crate) async fn oidc(
    request: HttpRequest,
    context: Data<Context>,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    told(&request, depart(&request, &context, Provider::Oidc, &name).await)
}

/// Where an OpenID Connect provider sends a browser back to: it is logged in as whom the provider says it is.
#[utoipa::path(get, path = "/api/v1/auth/oidc/{provider}/callback", tag = "auth", security(()),
    params(
        ("provider" = String, Path, description = "the provider's name in the settings"),
        ("state" = Option<String>, Query, description = "what the provider was given"),
        ("code" = Option<String>, Query, description = "what the provider gives a token for"),
        ("iss" = Option<String>, Query, description = "who the provider is (RFC 9207)"),
        ("error" = Option<String>, Query, description = "why there is no code"),
    ),
    responses(
        (status = 200, description = "logged in; the page leads on"),
        (status = 403, description = "not begun here, not accepted, or not let in", body = crate::http::ErrorAnswer),
        (status = 503, description = "the provider does not answer", body = crate::http::ErrorAnswer),
    ))]
pub(crate) async fn oidc_callback(
    request: HttpRequest,
    context: Data<Context>,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    told(&request, arrive(&request, &context, Provider::Oidc, &name).await)
}

async fn depart(
    request: &HttpRequest,
    context: &Context,
    kind: Provider,
    name: &str,
) -> Result<HttpResponse, Problem> {
    let channel = Channel::of(request, context)?;
    let query = lenient_query(request.query_string());
    let next = query.get("next").and_then(|next| local(next)).unwrap_or(HOME);
    let asked = Asked {
        kind,
        name: name.to_owned(),
        next: next.to_owned(),
        browser: channel.read(request, Cookie::SignIn),
        redirect_uri: callback(request, context, kind, name)?,
        source: source(request, context),
    };
    let away = context.services.identities.begin(asked).await?;
    Ok(HttpResponse::SeeOther()
        .insert_header((LOCATION, away.url))
        .insert_header((CACHE_CONTROL, "no-store"))
        .append_header((SET_COOKIE, channel.set(Cookie::SignIn, &away.browser, away.expires_in)?))
        .finish())
}

async fn arrive(
    request: &HttpRequest,
    context: &Context,
    kind: Provider,
    name: &str,
) -> Result<HttpResponse, Problem> {
    let channel = Channel::of(request, context)?;
    let mut query = once(request.query_string());
    let mut take = |name: &str| query.remove(name);
    let back = CameBack {
        state: take("state"),
        code: take("code"),
        iss: take("iss"),
        error: take("error"),
        browser: channel.read(request, Cookie::SignIn),
        redirect_uri: callback(request, context, kind, name)?,
        source: source(request, context),
    };
    let signed_in = context.services.identities.finish(kind, name, back).await?;
    let mut response = HttpResponse::build(StatusCode::OK);
    let login = &signed_in.login;
    response.append_header((SET_COOKIE, channel.set(Cookie::Session, &login.cookie, login.expires_in)?));
    // A page and no redirect: on a way that began at the provider, a browser does not show a strict cookie to anybody.
    page_with(response, &Page { next: &signed_in.next })
}

/// The parameters of a query; one that comes twice counts as none.
fn once(query: &str) -> HashMap<String, String> {
    let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(query);
    let pairs = pairs.map(actix_web::web::Query::into_inner).unwrap_or_default();
    let twice = |name: &str| pairs.iter().filter(|(other, _)| other == name).count() > 1;
    pairs.iter().filter(|(name, _)| !twice(name)).cloned().collect()
}

/// Where the provider sends the browser back to.
fn callback(request: &HttpRequest, context: &Context, kind: Provider, name: &str) -> Result<String, Problem> {
    let own = origin::own(request, context)
        .ok_or_else(|| Problem::forbidden("the request names no host: set `public_url`"))?;
    Ok(match kind {
        Provider::Github => format!("{own}{PREFIX}/auth/github/callback"),
        Provider::Oidc | Provider::Saml | Provider::Local => {
            format!("{own}{PREFIX}/auth/oidc/{name}/callback")
        }
    })
}

/// Refusals as pages for whoever reads pages, and as everywhere else for programs.
fn told(request: &HttpRequest, outcome: Result<HttpResponse, Problem>) -> Result<HttpResponse, Problem> {
    let reads_pages = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let problem = match outcome {
        Err(problem) if reads_pages => problem,
        other => return other,
    };
    if problem.status == StatusCode::INTERNAL_SERVER_ERROR {
        return Err(problem);
    }
    let mut response = message(problem.status, "This did not work", &problem.to_string())?;
    if let Some(seconds) = problem.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}
