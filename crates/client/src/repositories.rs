//! Repositories that templates and plugins come from, for operators.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_model::{Repository, RepositoryId, RepositoryProblem, SyncRequested};

use crate::{Client, Error, call::Call};

/// One page of repositories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryPage {
    /// In the order they were added.
    pub repositories: Vec<Repository>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// What is wrong with files of a repository's last sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryProblems {
    /// Path, line and reason of each.
    pub problems: Vec<RepositoryProblem>,
    /// How many there are.
    pub total: u64,
}

impl Client {
    /// `GET catalog/repositories`, one page: at most 100, from `cursor` on.
    pub async fn repositories(&self, cursor: Option<&str>) -> Result<RepositoryPage, Error> {
        let call = Call::get(&["catalog", "repositories"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST catalog/repositories`: `body` is what the API's document calls `AddRepositoryRequest`.
    pub async fn add_repository(&self, body: &Value) -> Result<Repository, Error> {
        self.fetch(Call::new(Method::POST, &["catalog", "repositories"]).json(body)?).await
    }

    /// `GET catalog/repositories/{id}`.
    pub async fn repository(&self, id: RepositoryId) -> Result<Repository, Error> {
        self.fetch(Call::get(&["catalog", "repositories", &id.to_string()])).await
    }

    /// `PATCH catalog/repositories/{id}`: `body` is what the API's document calls `UpdateRepositoryRequest`.
    pub async fn change_repository(&self, id: RepositoryId, body: &Value) -> Result<Repository, Error> {
        self.fetch(Call::new(Method::PATCH, &["catalog", "repositories", &id.to_string()]).json(body)?).await
    }

    /// `DELETE catalog/repositories/{id}`.
    pub async fn remove_repository(&self, id: RepositoryId) -> Result<(), Error> {
        self.send(&Call::new(Method::DELETE, &["catalog", "repositories", &id.to_string()])).await.map(drop)
    }

    /// `POST catalog/repositories/{id}/sync`.
    pub async fn sync_repository(&self, id: RepositoryId) -> Result<SyncRequested, Error> {
        self.fetch(Call::new(Method::POST, &["catalog", "repositories", &id.to_string(), "sync"])).await
    }

    /// `GET catalog/repositories/{id}/problems`.
    pub async fn repository_problems(&self, id: RepositoryId) -> Result<RepositoryProblems, Error> {
        self.fetch(Call::get(&["catalog", "repositories", &id.to_string(), "problems"])).await
    }
}
