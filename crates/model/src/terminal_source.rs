//! Sessions whose terminals are recorded at a source.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Fields, FromFields, Handle, SourceId};

/// The source that a session's terminal is recorded at: what it prints is in the pipe `stdout`, its sizes, beginnings and
/// ends are in `stdctrl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TerminalSource {
    /// The source's handle.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub handle: Handle,
    /// The source.
    pub source_id: SourceId,
    /// When that was asked for.
    pub since: DateTime<Utc>,
}

/// Body of `PUT sessions/{id}/terminal-source`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecordTerminalRequest {
    /// A source of kind `pty` that the session's owner made, or a handle that is free: then it is made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "build"))]
    pub handle: Handle,
}

impl FromFields for RecordTerminalRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { handle: fields.required("handle")? })
    }
}
