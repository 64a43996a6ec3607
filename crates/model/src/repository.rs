//! Repositories: where templates and plugins come from (seed A), and how the last sync with one went.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{RepositoryId, text_enum::text_enum};

text_enum! {
    /// What a repository is fetched as.
    RepositoryType, "repository type" {
        /// A Git repository.
        Git = "git",
        /// A zip or tar archive behind a URL.
        Http = "http",
    }
}

text_enum! {
    /// What a repository wants to see before it is fetched.
    RepositoryAuth, "repository authentication" {
        /// Nothing.
        None = "none",
        /// A token.
        Token = "token",
        /// A username and a password.
        Basic = "basic",
        /// A private key.
        Ssh = "ssh",
    }
}

text_enum! {
    /// Where the syncing of a repository stands.
    RepositorySyncStatus, "sync status" {
        /// It was never synced.
        Never = "never",
        /// A sync is under way.
        Syncing = "syncing",
        /// The last sync went well.
        Synced = "synced",
        /// The last sync failed; the catalog is that of the last one that went well.
        Failed = "failed",
    }
}

/// A repository as everybody sees it beside what came from it (seed A, `Repository`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CatalogRepository {
    /// The repository's id.
    pub id: RepositoryId,
    /// For people; unique among those that are not removed.
    pub name: String,
    /// Where it is fetched from; never holds a secret.
    pub url: String,
    /// Git or archive.
    #[serde(rename = "type")]
    pub kind: RepositoryType,
    /// What it holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether it is synced, and what came from it is shown.
    pub enabled: bool,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// Last change of the repository itself; a sync is none.
    pub updated_at: DateTime<Utc>,
}

/// A repository as operators see it. Its secrets are never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// What everybody sees of it.
    #[serde(flatten)]
    pub public: CatalogRepository,
    /// The branch or tag that is fetched; the remote's own default without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// What it wants to see.
    pub auth_type: RepositoryAuth,
    /// Whether a webhook's signature can be checked.
    pub has_webhook_secret: bool,
    /// Where syncing stands.
    pub sync_status: RepositorySyncStatus,
    /// What failed, in plain words and without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_error: Option<String>,
    /// When the last sync began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_started_at: Option<DateTime<Utc>>,
    /// When the last sync that went well ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced_at: Option<DateTime<Utc>>,
    /// When it is synced next by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_at: Option<DateTime<Utc>>,
    /// What the catalog shows: a commit, or an archive's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Templates it has in the catalog.
    pub templates: u32,
    /// Plugins it has in the catalog.
    pub plugins: u32,
    /// Files of the last sync that were passed over.
    pub problems: u32,
}

/// A file of a repository that is not in the catalog, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RepositoryProblem {
    /// The file, from the repository's root.
    pub path: String,
    /// The line, from 1, where one can be blamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What is wrong with it.
    pub reason: String,
}
