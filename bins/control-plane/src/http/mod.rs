//! HTTP in: what a request must be and what its answer looks like. One folder a noun, one file a verb; what is allowed
//! is decided in `tidegate-service`.

mod admin;
mod agents;
mod applications;
mod audit;
mod auth;
mod browser;
mod catalog;
mod content;
mod context;
mod envelope;
mod error;
mod events;
mod form;
mod gate;
mod groups;
mod homes;
mod idempotency;
mod invites;
mod keys;
mod members;
mod oauth;
mod openapi;
mod organizations;
mod origin;
mod page;
mod pages;
mod plugins;
mod quotas;
mod routes;
mod scopes;
mod sessions;
mod socket;
mod source;
mod tokens;
mod users;
mod valid;

pub(crate) use content::Pool;
pub use context::Context;
pub use envelope::envelope;
pub use error::{ErrorAnswer, ErrorBody, Problem};
pub use openapi::document;
pub use origin::Origin;
pub use routes::configure;
pub use scopes::{KEY_NEEDS, Needs, needs};
pub use source::{ProxyHeader, ProxyRange};
