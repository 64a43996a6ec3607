//! The request that sets a quota, as the OpenAPI document shows it.

use utoipa::ToSchema;

/// A quota to set: what is absent stays, `null` is unlimited, 0 is none.
#[derive(Debug, ToSchema)]
#[schema(as = SetQuotaRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `SetQuotaRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Limits {
    /// Whose: on `POST admin/quotas` alone, where it is required.
    username: Option<String>,
    /// Active sessions at most.
    max_sessions: Option<i64>,
    /// CPU of active sessions, whole millicores.
    #[schema(example = "4000m")]
    max_cpu: Option<String>,
    /// Memory of active sessions, whole bytes.
    #[schema(example = "8Gi")]
    max_memory: Option<String>,
    /// Persistent homes, whole bytes.
    #[schema(example = "50Gi")]
    max_storage: Option<String>,
}
