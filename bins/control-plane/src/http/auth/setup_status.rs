//! `GET auth/setup/status`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::{Context, Problem};

/// Whether somebody has to set the platform up.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetupStatus {
    /// There is no admin yet: `POST auth/setup`, or run `tidegate-admin bootstrap`.
    setup_required: bool,
}

/// Whether there is an admin yet.
#[utoipa::path(get, path = "/api/v1/auth/setup/status", tag = "auth", security(()), responses(
    (status = 200, description = "the status", body = SetupStatus),
))]
pub(crate) async fn setup_status(context: Data<Context>) -> Result<Json<SetupStatus>, Problem> {
    let setup_required = !context.services.operators.is_set_up().await?;
    Ok(Json(SetupStatus { setup_required }))
}
