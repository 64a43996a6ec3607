//! `organizations/{id}/session-policy`.

use actix_web::web::{Data, Json};
use tidegate_model::{OrganizationSessionPolicy, SetSessionPolicyRequest};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Body};

/// What changes; what is absent stays, and `null` says nothing any more.
#[derive(Debug, ToSchema)]
#[schema(as = SetSessionPolicyRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `SetSessionPolicyRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Change {
    /// Hibernation of idle sessions.
    idle_timeout: Option<LimitChange>,
    /// The end of sessions.
    max_session_duration: Option<LimitChange>,
}

/// Default and maximum of one limit.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the shape of a part of `SetSessionPolicyRequest` for the OpenAPI document")]
pub(crate) struct LimitChange {
    /// What requests get that say nothing; `0` is never.
    #[schema(example = "30m")]
    default: Option<String>,
    /// What no request gets more than; `0` is no maximum.
    #[schema(example = "8h")]
    maximum: Option<String>,
}

/// What an organization says of its sessions' idle timeouts and longest durations, and what the platform leaves it.
#[utoipa::path(get, path = "/api/v1/organizations/{id}/session-policy", tag = "organizations",
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 200, description = "the policy", body = OrganizationSessionPolicy),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn get_session_policy(
    context: Data<Context>,
    caller: Identified,
) -> Result<Json<OrganizationSessionPolicy>, Problem> {
    Ok(Json(context.services.limits.of_organization(caller.org()?).await?))
}

/// Sets what the organization says, within what the platform allows. It holds for sessions that are asked for from then
/// on, and for how far those that run are extended.
#[utoipa::path(put, path = "/api/v1/organizations/{id}/session-policy", tag = "organizations", request_body = Change,
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 200, description = "the policy", body = OrganizationSessionPolicy),
    (status = 400, description = "bad fields, or more than the platform allows, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn set_session_policy(
    context: Data<Context>,
    caller: Identified,
    body: Body<SetSessionPolicyRequest>,
) -> Result<Json<OrganizationSessionPolicy>, Problem> {
    Ok(Json(context.services.limits.set_organization(caller.org()?, body.valid()?).await?))
}
