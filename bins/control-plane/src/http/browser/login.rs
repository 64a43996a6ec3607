//! `GET` and `POST /login`.

use actix_web::{HttpRequest, HttpResponse, http::header::SET_COOKIE, web::Data};
use askama::Template;
use tidegate_model::{LoginRequest, Secret};
use tidegate_service::SignInProvider;

use super::{
    Channel, Cookie, HOME,
    next::{local, with_next},
    render::{go, page_with, told},
    signed_in, visit,
};
use crate::http::{
    Context, Problem, auth::providers::place, form::Parameters, source::source, valid::lenient_query,
};

#[derive(Template)]
#[template(path = "login.html")]
struct Page<'a> {
    next: &'a str,
    token: String,
    username: &'a str,
    message: Option<String>,
    providers: Vec<Elsewhere>,
}

/// Another way in.
struct Elsewhere {
    name: String,
    place: String,
}

/// The login page; whoever is logged in already goes on at once.
pub(crate) async fn login_page(
    request: HttpRequest,
    context: Data<Context>,
) -> Result<HttpResponse, Problem> {
    told(show(&request, &context).await)
}

async fn show(request: &HttpRequest, context: &Context) -> Result<HttpResponse, Problem> {
    let query = lenient_query(request.query_string());
    let next = query.get("next").and_then(|next| local(next)).unwrap_or(HOME);
    if signed_in(request, context).await?.is_some() {
        return Ok(go(next).finish());
    }
    form(request, context, Form { next, username: "", problem: None })
}

struct Form<'a> {
    next: &'a str,
    username: &'a str,
    problem: Option<Problem>,
}

fn form(request: &HttpRequest, context: &Context, form: Form<'_>) -> Result<HttpResponse, Problem> {
    let (response, token) = visit::begin(request, context, form.problem.as_ref())?;
    let message = form.problem.map(|problem| problem.to_string());
    // Links and no forms: the pages' policy lets a form go nowhere but here, and a redirect after it neither.
    let elsewhere = |provider: SignInProvider| Elsewhere {
        place: with_next(&place(&provider), form.next),
        name: provider.display_name,
    };
    let providers = context.services.identities.providers().into_iter().map(elsewhere).collect();
    page_with(response, &Page { next: form.next, token, username: form.username, message, providers })
}

/// Logs in, with a new cookie each time: one that was there before counts for nothing.
pub(crate) async fn login(
    request: HttpRequest,
    context: Data<Context>,
    sent: Parameters,
) -> Result<HttpResponse, Problem> {
    told(enter(&request, &context, &sent).await)
}

async fn enter(request: &HttpRequest, context: &Context, sent: &Parameters) -> Result<HttpResponse, Problem> {
    let (channel, browsers) = (Channel::of(request, context)?, &context.services.browsers);
    visit::check(request, context, sent)?;
    let next = sent.get("next").and_then(local).unwrap_or(HOME);
    let username = sent.get("username").unwrap_or_default();
    let password = Secret::new(sent.get("password").unwrap_or_default().to_owned());
    let who = LoginRequest { username: username.to_owned(), password };
    match browsers.login(who, source(request, context)).await.map_err(Problem::from) {
        Ok(login) => Ok(go(next)
            .append_header((SET_COOKIE, channel.set(Cookie::Session, &login.cookie, login.expires_in)?))
            .append_header((SET_COOKIE, channel.clear(Cookie::Visit)?))
            .finish()),
        Err(problem) if problem.status.is_server_error() => Err(problem),
        Err(problem) => form(request, context, Form { next, username, problem: Some(problem) }),
    }
}
