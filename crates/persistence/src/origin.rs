//! Where a request came from. It travels inside of the scopes, so that every line of the audit log has it without being
//! told.

use std::{net::IpAddr, sync::Arc};

/// Where a request came from, as far as that is known. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Origin(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    address: Option<IpAddr>,
    request_id: Option<String>,
}

impl Origin {
    /// A request from `address` that its answer names `request_id`.
    pub fn new(address: Option<IpAddr>, request_id: Option<String>) -> Self {
        Self(Some(Arc::new(Known { address, request_id })))
    }

    /// The address.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.as_ref()?.address
    }

    /// The request's id.
    pub fn request_id(&self) -> Option<&str> {
        self.0.as_ref()?.request_id.as_deref()
    }
}
