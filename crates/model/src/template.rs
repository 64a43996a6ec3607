//! Templates that are always there; those of catalogs come beside them.

use crate::{Platform, Quantity, ResourceRequest, Resources, StreamKind, text_enum::text_enum};

text_enum! {
    /// A template built into the platform.
    BuiltInTemplate, "template" {
        /// The login shell of the session's user.
        Shell = "shell",
        /// The program and arguments of the request's `command`.
        Command = "command",
        /// A desktop, watched by RFB.
        Desktop = "desktop",
        /// A program that serves a web application on one port.
        Web = "web",
    }
}

impl BuiltInTemplate {
    /// The platform whose agents run it where the request names none: containers need an image, which only those of
    /// Docker are sure to take.
    pub const fn platform(self, has_image: bool) -> Platform {
        if has_image { Platform::Docker } else { Platform::Vm }
    }

    /// How it is watched.
    pub const fn protocol(self) -> StreamKind {
        match self {
            Self::Shell | Self::Command => StreamKind::Terminal,
            Self::Desktop => StreamKind::Vnc,
            Self::Web => StreamKind::Http,
        }
    }

    /// Whether a request has to name what is run.
    pub const fn needs_command(self, has_image: bool) -> bool {
        match self {
            Self::Command => true,
            // An image knows what it serves; a machine does not.
            Self::Web => !has_image,
            Self::Shell | Self::Desktop => false,
        }
    }

    /// Whether a request may name what is run.
    pub const fn takes_command(self) -> bool {
        match self {
            Self::Command | Self::Desktop | Self::Web => true,
            Self::Shell => false,
        }
    }

    /// The resources granted for `request`: 500m, 512Mi and, with a persistent home, 10Gi where it is silent; a desktop
    /// gets twice as much.
    pub fn resources(self, request: ResourceRequest, persistent_home: bool) -> Resources {
        let storage = request.storage.unwrap_or(Quantity::from_bytes(10 << 30));
        let size = match self {
            Self::Shell | Self::Command | Self::Web => 1,
            Self::Desktop => 2,
        };
        Resources {
            cpu: request.cpu.unwrap_or(Quantity::from_millis(500 * size)),
            memory: request.memory.unwrap_or(Quantity::from_bytes((512 << 20) * size)),
            storage: if persistent_home { storage } else { Quantity::ZERO },
        }
    }
}
