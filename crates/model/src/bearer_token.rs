//! Bearer tokens (seed B, `OAuthToken`): what a device proves itself with once somebody let it in.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{BearerTokenId, OrgId, UserId};

/// A token as answers show it. Its digest stays in the database, and the token itself is shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BearerToken {
    /// The token's id; good for nothing but naming it.
    pub id: BearerTokenId,
    /// As whom it acts.
    pub user_id: UserId,
    /// The organization of requests that name none; `null` for the user's default.
    pub org_id: Option<OrgId>,
    /// The 8 characters after `ppz_oauth_`, to tell tokens apart.
    pub prefix: String,
    /// What the device called itself.
    pub client_name: String,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked; `null` for a token that stands.
    pub revoked_at: Option<DateTime<Utc>>,
}
