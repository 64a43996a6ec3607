//! `GET` and `POST /password/reset`, which asks for a mail, and `/password/new`, where its link leads. Looking at that page
//! uses nothing up: programs that read mails follow links.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};
use askama::Template;
use tidegate_model::{NewPasswordRequest, ResetPasswordRequest, Secret};

use super::{
    LOGIN,
    render::{message, page_with, told},
    visit,
};
use crate::http::{Context, Problem, form::Parameters, source::source, valid::lenient_query};

#[derive(Template)]
#[template(path = "forgotten.html")]
struct Ask<'a> {
    token: String,
    username: &'a str,
    message: Option<String>,
    login: &'a str,
}

/// The page that asks whose password was forgotten.
pub(crate) async fn ask_page(request: HttpRequest, context: Data<Context>) -> Result<HttpResponse, Problem> {
    told(ask_form(&request, &context, "", None))
}

fn ask_form(
    request: &HttpRequest,
    context: &Context,
    username: &str,
    problem: Option<&Problem>,
) -> Result<HttpResponse, Problem> {
    let (response, token) = visit::begin(request, context, problem)?;
    let message = problem.map(Problem::to_string);
    page_with(response, &Ask { token, username, message, login: LOGIN })
}

/// Asks for the mail. The answer is the same for everybody.
pub(crate) async fn ask(
    request: HttpRequest,
    context: Data<Context>,
    sent: Parameters,
) -> Result<HttpResponse, Problem> {
    told(asked(&request, &context, &sent).await)
}

async fn asked(request: &HttpRequest, context: &Context, sent: &Parameters) -> Result<HttpResponse, Problem> {
    visit::check(request, context, sent)?;
    let username = sent.get("username").unwrap_or_default();
    let outcome = match ResetPasswordRequest::new(username) {
        Ok(wanted) => context.services.password_resets.ask(&wanted, source(request, context)).await,
        Err(complaint) => Err(invalid("username", complaint)),
    };
    match outcome.map_err(Problem::from) {
        Ok(()) => message(
            StatusCode::ACCEPTED,
            "Look at your mail",
            "If there is such a user with an e-mail address and a password here, a mail with a link is on its way.",
        ),
        Err(problem) if problem.status.is_server_error() => Err(problem),
        Err(problem) => ask_form(request, context, username, Some(&problem)),
    }
}

#[derive(Template)]
#[template(path = "new_password.html")]
struct Set<'a> {
    token: String,
    reset: &'a str,
    message: Option<String>,
}

/// The page where a mail's link leads.
pub(crate) async fn set_page(request: HttpRequest, context: Data<Context>) -> Result<HttpResponse, Problem> {
    told(look(&request, &context).await)
}

async fn look(request: &HttpRequest, context: &Context) -> Result<HttpResponse, Problem> {
    let query = lenient_query(request.query_string());
    let reset = query.get("token").map(String::as_str).unwrap_or_default();
    context.services.password_resets.look(reset, source(request, context)).await?;
    set_form(request, context, reset, None)
}

fn set_form(
    request: &HttpRequest,
    context: &Context,
    reset: &str,
    problem: Option<&Problem>,
) -> Result<HttpResponse, Problem> {
    let (response, token) = visit::begin(request, context, problem)?;
    page_with(response, &Set { token, reset, message: problem.map(Problem::to_string) })
}

/// Sets the password.
pub(crate) async fn set(
    request: HttpRequest,
    context: Data<Context>,
    sent: Parameters,
) -> Result<HttpResponse, Problem> {
    told(decided(&request, &context, &sent).await)
}

async fn decided(
    request: &HttpRequest,
    context: &Context,
    sent: &Parameters,
) -> Result<HttpResponse, Problem> {
    visit::check(request, context, sent)?;
    let reset = sent.get("reset").unwrap_or_default();
    let new = sent.get("password").unwrap_or_default();
    let outcome = if sent.get("again").unwrap_or_default() == new {
        let wanted = NewPasswordRequest {
            token: Secret::new(reset.to_owned()),
            new_password: Secret::new(new.to_owned()),
        };
        context.services.password_resets.set(wanted, source(request, context)).await
    } else {
        Err(invalid("again", "must be the same password once more"))
    };
    match outcome.map_err(Problem::from) {
        Ok(()) => message(
            StatusCode::OK,
            "Your password is set",
            "Every login of yours has ended, on devices too: log in with the new password. API keys go on.",
        ),
        // There is nothing to try again.
        Err(problem) if problem.status.is_server_error() || problem.status == StatusCode::NOT_FOUND => {
            Err(problem)
        }
        Err(problem) => set_form(request, context, reset, Some(&problem)),
    }
}

fn invalid(field: &str, complaint: &str) -> tidegate_service::Error {
    tidegate_service::Error::Invalid(tidegate_model::FieldErrors::one(field, complaint))
}
