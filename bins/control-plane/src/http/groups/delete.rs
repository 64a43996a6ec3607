//! `DELETE groups/{id}`.

use actix_web::{HttpResponse, web::Data};
use tidegate_model::{Fields, FromFields, GroupId};
use tidegate_service::ChildrenOf;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Query, Segment},
};

/// What the query says.
#[derive(Debug)]
pub(crate) struct Asked {
    children: ChildrenOf,
}

impl FromFields for Asked {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let children = match fields.optional::<String>("children").as_deref() {
            None => ChildrenOf::Keep,
            Some("lift") => ChildrenOf::Lift,
            Some(_) => {
                fields.errors().add("children", "must be `lift`, or be left out");
                ChildrenOf::Keep
            }
        };
        Some(Self { children })
    }
}

/// Ends a group with its memberships and its quota, never with the groups below it.
#[utoipa::path(delete, path = "/api/v1/groups/{id}", tag = "groups", params(
    ("id" = String, Path),
    ("children" = Option<String>, Query, description = "`lift` hangs groups below it under its own parent"),
), responses(
    (status = 204, description = "ended"),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an owner of the group nor an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such group", body = ErrorAnswer),
    (status = 409, description = "there are groups below it, which are named", body = ErrorAnswer),
))]
pub(crate) async fn delete(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
    query: Query<Asked>,
) -> Result<HttpResponse, Problem> {
    context.services.groups.delete(caller.org()?, id.0, query.0.children).await?;
    Ok(HttpResponse::NoContent().finish())
}
