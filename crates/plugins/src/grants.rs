//! What a plugin may do beyond computing.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// Something that an operator grants to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// See sessions of the organization it is asked in.
    SessionsRead,
    /// Replace the tags of such a session.
    SessionsTag,
    /// Keep such a session from starting, with a reason.
    SessionsVeto,
    /// A key-value store of its own.
    Kv,
    /// Lines in the log of the control plane.
    Log,
    /// Requests to the hosts that its manifest names.
    Http,
}

impl Permission {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::SessionsRead, Self::SessionsTag, Self::SessionsVeto, Self::Kv, Self::Log, Self::Http];

    /// As manifests write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionsRead => "sessions:read",
            Self::SessionsTag => "sessions:tag",
            Self::SessionsVeto => "sessions:veto",
            Self::Kv => "kv",
            Self::Log => "log",
            Self::Http => "http",
        }
    }

    /// What it lets a plugin do, for whoever is asked to grant it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::SessionsRead => "see sessions",
            Self::SessionsTag => "change the tags of sessions",
            Self::SessionsVeto => "keep sessions from starting",
            Self::Kv => "keep data of its own",
            Self::Log => "write into the control plane's log",
            Self::Http => "make HTTP requests to the hosts it names",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no permission: it is kept, shown, and grants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grants nothing here")]
pub struct UnknownPermission;

impl FromStr for Permission {
    type Err = UnknownPermission;

    /// `http:<host>` is the permission `http` for one host.
    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        if text.strip_prefix("http:").is_some_and(|host| !host.is_empty()) {
            return Ok(Self::Http);
        }
        Self::ALL.into_iter().find(|permission| permission.as_str() == text).ok_or(UnknownPermission)
    }
}

/// What was granted to one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    permissions: BTreeSet<Permission>,
    hosts: BTreeSet<String>,
}

impl Grants {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// What a manifest's list asks for: `sessions:read`, …, and `http:<host>` for each host. Words that mean nothing here
    /// grant nothing, and so does `http` without a host.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut grants = Self::none();
        for word in words {
            match (word.strip_prefix("http:"), word.parse()) {
                (Some(host), Ok(Permission::Http)) => {
                    grants.permissions.insert(Permission::Http);
                    grants.hosts.insert(host.to_ascii_lowercase());
                }
                (None, Ok(permission)) => {
                    grants.permissions.insert(permission);
                }
                (_, Ok(_) | Err(UnknownPermission)) => {}
            }
        }
        grants
    }

    /// Whether this was granted.
    pub fn allow(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }

    /// Whether requests to this host, `name` or `name:port` as it was declared, were granted.
    pub fn allow_host(&self, host: &str) -> bool {
        self.allow(Permission::Http) && self.hosts.contains(&host.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_mean_nothing_grant_nothing() {
        let grants =
            Grants::of(["sessions:read", "analytics:write", "http", "http:API.example.org", "http:"]);
        let granted: Vec<Permission> =
            Permission::ALL.into_iter().filter(|permission| grants.allow(*permission)).collect();
        assert_eq!(granted, [Permission::SessionsRead, Permission::Http]);
        assert!(grants.allow_host("api.example.org") && grants.allow_host("Api.Example.Org"));
        assert!(!grants.allow_host("example.org") && !grants.allow_host("api.example.org:8080"));
        assert!(!Grants::of(["http"]).allow_host(""));
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(permission));
        }
    }
}
