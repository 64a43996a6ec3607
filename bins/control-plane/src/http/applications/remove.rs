//! `DELETE applications/{id}`.

use actix_web::{HttpResponse, web::Data};
use tidegate_model::ApplicationId;
use tidegate_service::Removal;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Force, Query, Segment},
};

/// Removes an application with everybody's access to it. Refused while sessions of it run, unless forced: then they are
/// ended, and those that sleep too.
#[utoipa::path(delete, path = "/api/v1/applications/{id}", tag = "applications", params(
    ("id" = String, Path),
    ("force" = Option<bool>, Query, description = "ends its sessions"),
), responses(
    (status = 204, description = "removed"),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer", body = ErrorAnswer),
    (status = 404, description = "no such application, or not for the caller", body = ErrorAnswer),
    (status = 409, description = "sessions of it are running", body = ErrorAnswer),
))]
pub(crate) async fn remove(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
    query: Query<Force>,
) -> Result<HttpResponse, Problem> {
    let removal = if query.0.force { Removal::Forced } else { Removal::Refused };
    context.services.applications.remove(caller.org()?, id.0, removal).await?;
    Ok(HttpResponse::NoContent().finish())
}
