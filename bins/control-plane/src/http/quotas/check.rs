//! `POST quotas/check`.

use actix_web::web::{Data, Json};
use tidegate_model::{QuotaCheck, QuotaVerdict};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Body};

/// The session that one would ask for.
#[derive(Debug, ToSchema)]
#[schema(as = QuotaCheck, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `QuotaCheck`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Asked {
    /// Template. Default `shell`.
    template: Option<String>,
    /// `cpu`, `memory` and `storage` as in a session request; what is absent comes from the template.
    resources: Option<std::collections::BTreeMap<String, String>>,
    /// Whether its home outlives it: storage counts then alone.
    persistent_home: Option<bool>,
    /// For which member, by username; the caller where absent.
    user: Option<String>,
}

/// Whether the quotas leave room for such a session at this moment, and which bound does not. Nothing is reserved.
#[utoipa::path(post, path = "/api/v1/quotas/check", tag = "quotas", request_body = Asked, responses(
    (status = 200, description = "the verdict", body = QuotaVerdict),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "for somebody else, and not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such template or member", body = ErrorAnswer),
))]
pub(crate) async fn check(
    context: Data<Context>,
    caller: Identified,
    body: Body<QuotaCheck>,
) -> Result<Json<QuotaVerdict>, Problem> {
    Ok(Json(context.services.quotas.check(caller.org()?, body.valid()?).await?))
}
