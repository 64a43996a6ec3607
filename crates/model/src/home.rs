//! Persistent homes: one a user and agent, there until it is deleted, whatever becomes of the sessions it was made for.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{AgentHandle, HomeId, Quantity, UserId};

/// A persistent home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Home {
    /// The home's id.
    pub id: HomeId,
    /// Whose it is.
    pub user_id: UserId,
    /// Their name, as far as the organization still knows it.
    pub username: Option<String>,
    /// Where it is; `null` where the agent is gone.
    pub agent_id: Option<AgentHandle>,
    /// What counts against the quota: the most that a session on it asked for.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10Gi"))]
    pub storage: Quantity,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Since when its agent is asked to delete it. It counts until the agent has.
    pub deleting_at: Option<DateTime<Utc>>,
    /// Why the last attempt to delete it came to nothing.
    pub delete_error: Option<String>,
}
