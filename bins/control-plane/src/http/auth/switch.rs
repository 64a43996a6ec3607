//! `POST auth/switch`.

use actix_web::web::{Data, Json};
use tidegate_model::{Fields, FromFields};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem, gate::Identified, organizations::answer::Mine, valid::Body,
};

/// The organization of later requests.
#[derive(Debug, ToSchema)]
pub(crate) struct Switch {
    /// Id or name.
    organization: String,
}

impl FromFields for Switch {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { organization: fields.required("organization")? })
    }
}

/// Chooses the organization of all later requests of this login that name none.
#[utoipa::path(post, path = "/api/v1/auth/switch", tag = "auth", request_body = Switch, responses(
    (status = 200, description = "the organization, with the role in it", body = Mine),
    (status = 400, description = "a field is missing", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn switch(
    context: Data<Context>,
    caller: Identified,
    body: Body<Switch>,
) -> Result<Json<Mine>, Problem> {
    let wanted = body.valid()?.organization;
    let (organization, org_role) = context.services.organizations.switch(&caller.0, &wanted).await?;
    Ok(Json(Mine { organization, org_role }))
}
