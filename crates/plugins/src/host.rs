//! What a module may ask for.

use std::{fmt, time::Instant};

use serde_json::Value;

use crate::Permission;

/// A function that modules import from `tidegate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// `{"level": "info", "message": "…"}`: a line in the control plane's log.
    Log,
    /// `{"op": "get" | "set" | "delete" | "list", "key": "…", "value": …, "prefix": "…"}`: its own store.
    Kv,
    /// `{"id": "…"}` for one session, `{"state": "…", "limit": n}` for some.
    SessionsRead,
    /// `{"id": "…", "tags": […]}`: replaces a session's tags.
    SessionsTag,
    /// `{"method", "url", "headers", "body"}`: a request to a host that was declared.
    Http,
}

impl Function {
    pub(crate) const ALL: [Self; 5] =
        [Self::Log, Self::Kv, Self::SessionsRead, Self::SessionsTag, Self::Http];

    /// Its name in the module `tidegate`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Kv => "kv",
            Self::SessionsRead => "sessions_read",
            Self::SessionsTag => "sessions_tag",
            Self::Http => "http",
        }
    }

    /// What it needs.
    pub const fn needs(self) -> Permission {
        match self {
            Self::Log => Permission::Log,
            Self::Kv => Permission::Kv,
            Self::SessionsRead => Permission::SessionsRead,
            Self::SessionsTag => Permission::SessionsTag,
            Self::Http => Permission::Http,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Answers what one call asks for. Only asked for what was granted.
pub trait Host: Send {
    /// Carries out a request, until `deadline` at the latest; the complaint is told to the module.
    fn answer(&mut self, function: Function, request: Value, deadline: Instant) -> Result<Value, String>;
}

/// A host that has nothing to give.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Host for Nothing {
    fn answer(&mut self, function: Function, _: Value, _: Instant) -> Result<Value, String> {
        Err(format!("there is no `{function}` here"))
    }
}
