//! What GitHub and OpenID Connect providers say of a person: where to send a browser, and whom its code stands for.
//!
//! What is never kept here: users, rows, cookies, and whether somebody may come in. This crate dials providers and
//! believes what is signed for us, now, in answer to this very attempt; everything else it refuses.
//!
//! The authorization code flow with PKCE is the `oauth2` crate's, signatures and key sets are `jsonwebtoken`'s on
//! aws-lc, the one cryptography library of this workspace; `openidconnect` would bring a second one beside it.
//!
//! ```
//! use tidegate_identity::{Options, Providers};
//!
//! // Without settings there is nobody to ask.
//! let providers = Providers::new(&Options::default())?;
//! assert_eq!(providers.all().len(), 0);
//! # Ok::<(), String>(())
//! ```

mod claims;
mod discovery;
mod error;
mod github;
mod keys;
mod oidc;
mod options;
mod person;
mod providers;
mod web;

pub use error::Error;
pub use options::{GithubOptions, OidcOptions, Options};
pub use person::{Departure, Person, Return};
pub use providers::{Provider, Providers};
pub use web::tls;

/// What asking a provider gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
