//! `GET users/me`.

use actix_web::web::{Data, Json};
use tidegate_model::User;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified};

/// The caller's own user, with the role in the organization of the request.
#[utoipa::path(get, path = "/api/v1/users/me", tag = "users", responses(
    (status = 200, description = "the user", body = User),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn me(context: Data<Context>, caller: Identified) -> Result<Json<User>, Problem> {
    Ok(Json(context.services.logins.me(&caller.0).await?))
}
