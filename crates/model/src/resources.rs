//! What a session asks for and gets: CPU, memory, storage.

use serde::{Deserialize, Serialize};

use crate::{Fields, FromFields, Quantity};

/// Granted resources, whole millicores and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resources {
    /// CPU, for example `1000m`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1000m"))]
    pub cpu: Quantity,
    /// Memory, for example `2Gi`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "2Gi"))]
    pub memory: Quantity,
    /// Storage of the persistent home, `0` without one.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10Gi"))]
    pub storage: Quantity,
}

impl Serialize for Resources {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Resources", 3)?;
        out.serialize_field("cpu", &self.cpu.to_cpu_string())?;
        out.serialize_field("memory", &self.memory)?;
        out.serialize_field("storage", &self.storage)?;
        out.end()
    }
}

/// The `resources` of a session request; what is absent comes from the template.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ResourceRequest {
    /// 100m to 64000m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// 128Mi to 512Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// 1Mi to 64Ti; of the persistent home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Quantity>,
}

const MI: u64 = 1 << 20;
const GI: u64 = 1 << 30;

impl FromFields for ResourceRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let request = Self {
            cpu: fields.optional("cpu"),
            memory: fields.optional("memory"),
            storage: fields.optional("storage"),
        };
        if request.cpu.is_some_and(|cpu| !matches!(cpu.as_millis(), Some(100..=64_000))) {
            fields.errors().add("cpu", "must be whole millicores between 100m and 64000m");
        }
        if request.memory.is_some_and(|memory| {
            memory.as_units().is_none_or(|bytes| !(128 * MI..=512 * GI).contains(&bytes))
        }) {
            fields.errors().add("memory", "must be whole bytes between 128Mi and 512Gi");
        }
        if request.storage.is_some_and(|storage| {
            storage.as_units().is_none_or(|bytes| !(MI..=65_536 * GI).contains(&bytes))
        }) {
            fields.errors().add("storage", "must be whole bytes between 1Mi and 64Ti");
        }
        Some(request)
    }
}
