//! Who may come into an organization that the path names: its members. For anybody else it is not there.

use actix_web::{
    Error, HttpMessage,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};

use crate::http::{
    Problem,
    gate::{bearer_of, context},
};

/// Lets in members of the organization of the path; the header that names one is not asked.
pub(crate) async fn member_of_path(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let inner = request.request();
    let token = bearer_of(inner.headers())
        .ok_or_else(|| Problem::unauthenticated("log in first: the header Authorization is missing"))?;
    let wanted = inner.match_info().get("id").unwrap_or_default();
    let logins = &context(inner)?.services.logins;
    let caller = logins.authenticate(token, Some(wanted)).await.map_err(Problem::from)?;
    caller.org().map_err(Problem::from)?;
    request.extensions_mut().insert(caller);
    next.call(request).await
}
