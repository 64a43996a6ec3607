//! Who makes a request: one type, whatever the credential was.

use tidegate_model::{CredentialId, Scopes, SystemRole};
use tidegate_persistence::{Operator, OrgScope, Origin, UserScope};

use crate::{Error, Result};

/// A verified caller. Only [`crate::Logins::authenticate`] makes one, and whoever
/// sits at the machine is one.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(crate) user: UserScope,
    pub(crate) org: Option<OrgScope>,
    pub(crate) wanted: Option<String>,
}

impl Caller {
    /// Somebody with a shell on the machine and the database's password, which is proof enough: an admin of the platform,
    /// member of nothing. What they do inside an organization is entered by [`crate::Operators::enter`].
    pub fn console() -> Self {
        Self { user: UserScope::console(), org: None, wanted: None }
    }

    /// The user, across organizations.
    pub fn user(&self) -> &UserScope {
        &self.user
    }

    /// The organization of the request. Without one: not found, never forbidden.
    pub fn org(&self) -> Result<&OrgScope> {
        self.org.as_ref().ok_or_else(|| match &self.wanted {
            Some(wanted) => {
                Error::not_found(format_args!("organization {}", wanted.chars().take(64).collect::<String>()))
            }
            None => Error::not_found("an active organization of yours"),
        })
    }

    /// The caller as operator of the platform.
    pub fn operator(&self) -> Result<Operator> {
        self.user
            .operator()
            .ok_or_else(|| Error::Forbidden("this needs the system role operator or admin".into()))
    }

    /// The same for a request that came from there: what the caller changes is written down with it.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self {
            org: self.org.map(|org| org.with_origin(origin.clone())),
            user: self.user.with_origin(origin),
            wanted: self.wanted,
        }
    }

    /// Whether the same caller, looked at again, has the same rights in the same organization.
    pub(crate) fn has_the_rights_of(&self, now: &Self) -> bool {
        let of = |caller: &Self| caller.org.as_ref().map(|org| (org.org_id(), org.role()));
        (of(self), self.role(), self.scopes()) == (of(now), now.role(), now.scopes())
    }

    /// What was presented.
    pub fn credential(&self) -> CredentialId {
        self.user.credential()
    }

    /// What it may be used for, inside of what the caller's roles allow.
    pub fn scopes(&self) -> Scopes {
        self.user.scopes()
    }

    /// The system-wide role, as far as the credential brings it.
    pub fn role(&self) -> SystemRole {
        self.user.role()
    }
}
