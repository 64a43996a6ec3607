//! Around every request: its id, the shape of its refusal, one line in the log for a failure, figures, a handler's panic
//! that ends nothing but its own request, and a database that does not answer.

use std::{any::Any, panic::AssertUnwindSafe, pin::pin, time::Duration};

use actix_web::{
    Error, HttpMessage, HttpResponse, ResponseError,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{ALLOW, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::Data,
};
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use metrics::{counter, histogram};
use tidegate_model::RequestId;
use tokio::time::{Instant, sleep};

use super::{Context, Problem, content};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Marks an answer of 400 or more that is no refusal of a request: it keeps its own shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnShape;

/// The id of a request, for whoever writes it down.
#[derive(Debug, Clone)]
pub(crate) struct Named(pub(crate) String);

/// The middleware around everything: request ids, one shape for refusals, a handler that panics ends its own request only.
pub async fn envelope<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    let started = Instant::now();
    let id = request_id(request.headers());
    request.extensions_mut().insert(Named(id.clone()));
    let about = About::new(&request, &id);
    let limit = request.app_data::<Data<Context>>().map_or(0, |context| context.limits.body_bytes);
    // What a session's own application is sent, it bounds itself.
    let passed_on = content::is_passed_on(&request);
    if !passed_on && declared_length(request.headers()).is_some_and(|length| length > limit) {
        let answer = about.answer(&Problem::too_large(limit), started);
        return Ok(request.into_response(answer).map_into_right_body());
    }
    let mut response = match answered(request, next).await {
        Answered::In(Ok(Ok(response))) => response,
        Answered::In(Ok(Err(error))) => return Err(about.refusal(problem_of(&error), started).into()),
        Answered::In(Err(panic)) => {
            return Err(about.refusal(Problem::fault(words(&*panic)), started).into());
        }
        Answered::Silence => return Err(about.refusal(Problem::unavailable(Silent), started).into()),
    };
    if let Some(problem) = problem_in(&response) {
        let mut answer = about.answer(&problem, started);
        // A 405 says which methods the path takes (RFC 9110, 15.5.6): the router knows.
        if let Some(allow) = response.headers().get(ALLOW) {
            answer.headers_mut().insert(ALLOW, allow.clone());
        }
        return Ok(response.into_response(answer).map_into_right_body());
    }
    about.finish(response.status(), started);
    set_id(response.headers_mut(), &id);
    Ok(response.map_into_left_body())
}

/// What came of a request.
enum Answered<B> {
    /// An answer, or what a panic left.
    In(Result<Result<ServiceResponse<B>, Error>, Box<dyn Any + Send>>),
    /// Nothing: the database does not answer.
    Silence,
}

/// How long the database has, once it is asked whether it still answers.
const PULSE: Duration = Duration::from_millis(700);

/// Carries a request out. One that takes longer than one waits for the database may have good reasons (a hash, an agent, a
/// slow reader), as long as the database answers; when it does not, nobody waits for it. What was begun goes on then by
/// itself: a database connection is not left in the middle of something.
async fn answered<B: MessageBody + 'static>(request: ServiceRequest, next: Next<B>) -> Answered<B> {
    let db = request.app_data::<Data<Context>>().map(|context| context.services.db().clone());
    let mut handling = Box::pin(AssertUnwindSafe(next.call(request)).catch_unwind());
    let Some(db) = db else { return Answered::In(handling.await) };
    loop {
        let silent = pin!(async {
            sleep(db.patience()).await;
            !db.answers(PULSE).await
        });
        match select(handling, silent).await {
            Either::Left((answer, _)) => return Answered::In(answer),
            Either::Right((false, still)) => handling = still,
            Either::Right((true, still)) => {
                actix_web::rt::spawn(async move { drop(still.await) });
                return Answered::Silence;
            }
        }
    }
}

/// Why nobody waits any longer.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer")]
struct Silent;

/// What is known of a request when it arrives.
struct About {
    id: String,
    method: String,
    path: String,
}

impl About {
    fn new(request: &ServiceRequest, id: &str) -> Self {
        let method = request.method().to_string();
        Self { id: id.to_owned(), method, path: request.path().to_owned() }
    }

    /// The shaped answer; a failure is logged here, once.
    fn answer(&self, problem: &Problem, started: Instant) -> HttpResponse {
        if let Some(cause) = problem.cause() {
            tracing::error!(
                request = self.id, method = self.method, path = ?self.path, status = problem.status.as_u16(),
                error = crate::chain(cause), "a request failed"
            );
        }
        self.finish(problem.status, started);
        let mut answer = problem.answer(&self.id);
        set_id(answer.headers_mut(), &self.id);
        answer
    }

    fn refusal(&self, problem: Problem, started: Instant) -> Refusal {
        // Answered here for its log line and figures; the answer itself is made again where it is sent.
        drop(self.answer(&problem, started));
        Refusal { problem, id: self.id.clone() }
    }

    fn finish(&self, status: StatusCode, started: Instant) {
        let class = ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(status.as_u16() / 100).clamp(1, 5) - 1];
        counter!("tidegate_http_requests_total", "status" => class).increment(1);
        histogram!("tidegate_http_request_seconds").record(started.elapsed().as_secs_f64());
        tracing::debug!(request = self.id, method = self.method, path = ?self.path, status = status.as_u16(), "request");
    }
}

/// A refusal that came as an error through all layers.
#[derive(Debug)]
struct Refusal {
    problem: Problem,
    id: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.problem.fmt(f)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.problem.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = self.problem.answer(&self.id);
        set_id(answer.headers_mut(), &self.id);
        answer
    }
}

/// The refusal that an answer stands for: ours, or a bare status of the HTTP server.
fn problem_in<B>(response: &ServiceResponse<B>) -> Option<Problem> {
    let inner = response.response();
    if let Some(error) = inner.error() {
        return Some(problem_of(error));
    }
    let status = response.status();
    let bare = status.as_u16() >= 400 && inner.extensions().get::<OwnShape>().is_none();
    bare.then(|| Problem::of_status(status))
}

fn problem_of(error: &Error) -> Problem {
    if let Some(problem) = error.as_error::<Problem>() {
        return problem.clone();
    }
    // Some of the library's errors know their status only when they are answered.
    let status = error.error_response().status();
    if status.is_server_error() { Problem::fault(error.to_string()) } else { Problem::of_status(status) }
}

/// The id a proxy gave, where it is plain, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    given.filter(plain).map_or_else(|| RequestId::new().to_string(), str::to_owned)
}

fn set_id(headers: &mut HeaderMap, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, value);
    }
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a handler panicked: {}", said.unwrap_or_default())
}
