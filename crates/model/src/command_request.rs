//! What an operator asks of an agent.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{CommandAction, Fields, FromFields, SessionId};

/// Largest payload in bytes of JSON.
const PAYLOAD: usize = 16 * 1_024;

/// Body of `POST admin/agents/{agentId}/command`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentCommandRequest {
    /// What to do.
    pub action: CommandAction,
    /// The session it is about, which must be placed on that agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// With what, at most 16 KiB of JSON; it is shown in the history, so never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Map<String, Value>>,
}

impl FromFields for AgentCommandRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let action = fields.required("action");
        let session_id = fields.optional("sessionId");
        let payload: Option<Map<String, Value>> = fields.optional("payload");
        if payload.as_ref().is_some_and(|payload| Value::from(payload.clone()).to_string().len() > PAYLOAD) {
            fields.errors().add("payload", "must not be more than 16 KiB of JSON");
        }
        Some(Self { action: action?, session_id, payload })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_names_every_bad_field_at_once() {
        let body =
            json!({"action": "dance", "sessionId": "x", "payload": {"a": "x".repeat(20_000)}, "more": 1});
        let errors = AgentCommandRequest::from_json(body).unwrap_err();
        let names: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(names, ["action", "more", "payload", "sessionId"]);
    }
}
