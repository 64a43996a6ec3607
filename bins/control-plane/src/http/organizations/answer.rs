//! What requests and answers about organizations look like.

use serde::Serialize;
use tidegate_model::{OrgRole, OrgStatus, Organization};
use utoipa::ToSchema;

/// An organization to make.
#[derive(Debug, ToSchema)]
#[schema(as = CreateOrganizationRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `CreateOrganizationRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// Unique across the platform: 3–50 of `a-z 0-9 -`, no `-` at either end.
    #[schema(example = "acme")]
    name: String,
    /// For people, 3–100 characters.
    #[schema(example = "ACME Corporation")]
    display_name: String,
    /// At most 500 characters.
    description: Option<String>,
    /// A DNS-1123 label, 3–63 characters. Default `tidegate-{name}`.
    k8s_namespace: Option<String>,
}

/// What changes; what is absent stays.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateOrganizationRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `UpdateOrganizationRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Change {
    /// For people, 3–100 characters.
    display_name: Option<String>,
    /// At most 500 characters; `null` clears it.
    description: Option<String>,
    /// A DNS-1123 label, 3–63 characters.
    k8s_namespace: Option<String>,
    /// For the platform's admins alone.
    status: Option<OrgStatus>,
}

/// An organization with the caller's role in it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mine {
    /// The organization.
    #[serde(flatten)]
    pub(crate) organization: Organization,
    /// The caller's role in it.
    pub(crate) org_role: OrgRole,
}
