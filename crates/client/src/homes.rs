//! Persistent homes.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tidegate_model::{Home, HomeId};

use crate::{Client, Error, call::Call};

/// One page of homes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HomePage {
    /// The oldest first.
    pub homes: Vec<Home>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// A home that its agent was asked to delete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HomeLeaving {
    /// The home as it stands: it counts until its agent has deleted it.
    pub home: Home,
    /// The command; `None` where it was asked for before, or where the agent is gone and the home with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
}

impl Client {
    /// `GET homes`, one page: at most 100, from `cursor` on.
    pub async fn homes(&self, cursor: Option<&str>) -> Result<HomePage, Error> {
        self.fetch(Call::get(&["homes"]).query("limit", "100".to_owned()).query_if("cursor", cursor)).await
    }

    /// `DELETE homes/{id}`, with everything in it.
    pub async fn delete_home(&self, id: HomeId) -> Result<HomeLeaving, Error> {
        self.fetch(Call::new(Method::DELETE, &["homes", &id.to_string()])).await
    }
}
