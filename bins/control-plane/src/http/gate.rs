//! Who may come in: middlewares of a scope that prove the caller before anything of the request is read.

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::{AUTHORIZATION, HeaderMap},
    middleware::Next,
    web::Data,
};
use std::{
    future::{Ready, ready},
    net::IpAddr,
};
use tidegate_service::{Caller, Operator, OrgScope, Origin};

use super::{Context, Problem, envelope::Named, scopes, source::source};

/// The header that names the organization of a request, by id or name.
const ORGANIZATION: &str = "X-Tidegate-Org";
/// The header for programs that cannot set `Authorization`.
const API_KEY: &str = "X-API-Key";
/// What a name or key that cannot be one is looked up as: nothing is called so.
const UNREADABLE: &str = "\u{fffd}";

/// Lets in who has a bearer token or an API key.
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

/// Lets in members of the organization that the path begins with, by id or name.
pub(crate) async fn organization(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let wanted = request.match_info().iter().next().map(|(_, wanted)| wanted.to_owned()).unwrap_or_default();
    let caller = caller_in(request.request(), Some(&wanted)).await?;
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

/// Who makes the request, by its bearer token or API key.
pub(crate) async fn caller(request: &HttpRequest) -> Result<Caller, Problem> {
    let wanted = request.headers().get(ORGANIZATION).map(|value| value.to_str().unwrap_or(UNREADABLE));
    caller_in(request, wanted).await
}

async fn caller_in(request: &HttpRequest, wanted: Option<&str>) -> Result<Caller, Problem> {
    let context = context(request)?;
    let credential = credential_of(request.headers()).ok_or_else(|| {
        Problem::unauthenticated("log in first: neither the header Authorization nor X-API-Key is there")
    })?;
    let from = source(request, context);
    // The database refuses to look for NUL; no organization has it in its name.
    let wanted = wanted.map(|wanted| if wanted.contains('\0') { UNREADABLE } else { wanted });
    let caller = context.services.logins.authenticate_from(credential, wanted, from).await?;
    scopes::check(request, &caller)?;
    Ok(caller.with_origin(origin_of(request, from)))
}

/// Where a request came from, and what its answer calls it.
pub(crate) fn origin_of(request: &HttpRequest, from: Option<IpAddr>) -> Origin {
    let named = request.extensions().get::<Named>().map(|named| named.0.clone());
    Origin::new(from, named)
}

/// The credential of a request. A header that is there and cannot be read counts as a wrong one.
fn credential_of(headers: &HeaderMap) -> Option<&str> {
    let key = || headers.get(API_KEY).map(|key| key.to_str().unwrap_or(UNREADABLE).trim());
    bearer_of(headers).or_else(key)
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
