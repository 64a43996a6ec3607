//! `GET invites`.

use actix_web::web::{Data, Json};

use super::list::Found;
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified};

/// The pending invites for the caller, the newest hundred.
#[utoipa::path(get, path = "/api/v1/invites", tag = "invites", responses(
    (status = 200, description = "the invites", body = Found),
    (status = 401, description = "not logged in", body = ErrorAnswer),
))]
pub(crate) async fn mine(context: Data<Context>, caller: Identified) -> Result<Json<Found>, Problem> {
    let invites = context.services.invites.mine(&caller.0).await?;
    let total = i64::try_from(invites.len()).unwrap_or(i64::MAX);
    Ok(Json(Found { invites, total, next_cursor: None }))
}
