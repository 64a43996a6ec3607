//! The catalog: what was read from repositories. It belongs to the platform; people and organizations read it, what is synced
//! is written by the platform alone.
//!
//! Which repositories somebody sees is decided by the policy of their role: without its repository an entry is not found.

mod blob;
mod entry;
mod rating;
mod search;
mod stats;
mod sync;

pub use blob::{Blob, NewBlob, blob, put_blobs};
pub use entry::{
    StoredPlugin, StoredTemplate, StoredVersion, plugin, plugin_version, plugin_versions, template,
};
pub use rating::{
    PlacedRating, plugin_ratings, rate_plugin, rate_template, template_ratings, unrate_plugin,
    unrate_template,
};
pub use search::{Found, Key, Query, search_plugins, search_templates};
pub use stats::{PluginViews, count_plugin_install, count_template_install, count_views, plugin_stats};
pub use sync::{Known, NewPlugin, NewTemplate, known, upsert_plugins, upsert_templates, withdraw};

use diesel_async::AsyncPgConnection;

use crate::{OrgTx, PlatformTx, Result, UserTx};

/// A transaction that may read the catalog: an organization's, a user's or the platform's.
pub trait CatalogTx: sealed::Connected {}

impl CatalogTx for OrgTx {}
impl CatalogTx for UserTx {}
impl CatalogTx for PlatformTx {}

mod sealed {
    use super::{AsyncPgConnection, OrgTx, PlatformTx, Result, UserTx};

    /// Whatever has a connection inside a transaction. Nobody outside can name it, so nobody gets the connection.
    pub trait Connected: Send {
        fn connected(&mut self) -> Result<&mut AsyncPgConnection>;
    }

    macro_rules! connected {
        ($($tx:ty),+) => { $(
            impl Connected for $tx {
                fn connected(&mut self) -> Result<&mut AsyncPgConnection> { self.conn() }
            }
        )+ };
    }
    connected!(OrgTx, UserTx, PlatformTx);
}
