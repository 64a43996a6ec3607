//! Who may come in: middlewares of a scope that prove the caller before anything of the request is read.

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::{AUTHORIZATION, HeaderMap},
    middleware::Next,
    web::Data,
};
use std::future::{Ready, ready};
use tidegate_service::{Caller, Operator, OrgScope};

use super::{Context, Problem};

/// The header that names the organization of a request, by id or name.
const ORGANIZATION: &str = "X-Tidegate-Org";

/// Lets in who has a bearer token.
pub(crate) async fn bearer(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let caller = caller(request.request()).await?;
    request.extensions_mut().insert(caller);
    next.call(request).await
}

/// Lets in members of the organization of the request; for anybody else it is not found.
pub(crate) async fn member(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let caller = caller(request.request()).await?;
    caller.org().map_err(Problem::from)?;
    request.extensions_mut().insert(caller);
    next.call(request).await
}

/// Lets in operators of the platform.
pub(crate) async fn operator(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let caller = caller(request.request()).await?;
    caller.operator().map_err(Problem::from)?;
    request.extensions_mut().insert(caller);
    next.call(request).await
}

/// Who makes the request, by its bearer token.
pub(crate) async fn caller(request: &HttpRequest) -> Result<Caller, Problem> {
    let context = context(request)?;
    let token = bearer_of(request.headers())
        .ok_or_else(|| Problem::unauthenticated("log in first: the header Authorization is missing"))?;
    let wanted = request.headers().get(ORGANIZATION).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    Ok(context.services.logins.authenticate(token, wanted).await?)
}

/// The bearer token of a request.
pub(crate) fn bearer_of(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// What every handler can reach.
pub(crate) fn context(request: &HttpRequest) -> Result<&Data<Context>, Problem> {
    request.app_data::<Data<Context>>().ok_or_else(|| Problem::fault("the server is not wired"))
}

/// The caller whom a middleware let in.
#[derive(Debug, Clone)]
pub(crate) struct Identified(pub(crate) Caller);

impl Identified {
    /// The organization of the request.
    pub(crate) fn org(&self) -> Result<&OrgScope, Problem> {
        Ok(self.0.org()?)
    }

    /// The caller as operator.
    pub(crate) fn operator(&self) -> Result<Operator, Problem> {
        Ok(self.0.operator()?)
    }
}

impl FromRequest for Identified {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Caller>().cloned();
        ready(caller.map(Self).ok_or_else(|| Problem::fault("a route without its gate asked for the caller")))
    }
}
