//! The permission matrix, asked for scopes and callers.

use tidegate_model::{Operation, OrgRole, Standing};
use tidegate_persistence::{Operator, OrgScope};

use crate::{Caller, Error, Result};

/// Where a member stands whose role is `role` at this moment, ownership left aside.
pub(crate) fn standing(scope: &OrgScope, role: OrgRole) -> Standing {
    Standing { system: scope.as_user().role(), org: Some(role), owner: false }
}

/// Whether a member may do it.
pub(crate) fn may(scope: &OrgScope, operation: Operation) -> bool {
    operation.allows(standing(scope, scope.role()))
}

/// Refuses what the matrix does not allow.
pub(crate) fn require(operation: Operation, standing: Standing) -> Result<()> {
    if operation.allows(standing) {
        return Ok(());
    }
    Err(Error::Forbidden(format!("this needs {}", operation.who())))
}

/// Refuses what the caller's role on the platform does not allow.
pub(crate) fn require_platform(operation: Operation, caller: &Caller) -> Result<Operator> {
    require(operation, Standing { system: caller.role(), org: None, owner: false })?;
    caller.operator()
}
