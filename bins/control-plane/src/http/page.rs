//! Pages of lists: how they are asked for.

use tidegate_model::{Fields, FromFields};
use tidegate_service::Paging;

use super::valid::parsed;

/// The page of a list that a query asks for.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) Paging);

impl FromFields for Page {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let limit = parsed(fields, "limit", "must be a number from 1 to 100").unwrap_or(50);
        if !(1..=100).contains(&limit) {
            fields.errors().add("limit", "must be a number from 1 to 100");
        }
        Some(Self(Paging { limit, cursor: fields.optional("cursor") }))
    }
}
