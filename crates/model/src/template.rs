//! Templates that are always there; those of catalogs come beside them.

use crate::{Platform, Quantity, ResourceRequest, Resources, text_enum::text_enum};

text_enum! {
    /// A template built into the platform.
    BuiltInTemplate, "template" {
        /// The login shell of the session's user.
        Shell = "shell",
        /// The program and arguments of the request's `command`.
        Command = "command",
    }
}

impl BuiltInTemplate {
    /// The platform whose agents run it.
    pub const fn platform(self) -> Platform {
        match self {
            Self::Shell | Self::Command => Platform::Vm,
        }
    }

    /// The resources granted for `request`: 500m, 512Mi and, with a persistent home, 10Gi where it is silent.
    pub fn resources(self, request: ResourceRequest, persistent_home: bool) -> Resources {
        let storage = request.storage.unwrap_or(Quantity::from_bytes(10 << 30));
        Resources {
            cpu: request.cpu.unwrap_or(Quantity::from_millis(500)),
            memory: request.memory.unwrap_or(Quantity::from_bytes(512 << 20)),
            storage: if persistent_home { storage } else { Quantity::ZERO },
        }
    }
}
