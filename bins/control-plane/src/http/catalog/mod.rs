//! The catalog: templates and plugins that can be installed, what people think of them, and their icons.

pub(crate) mod icons;
pub(crate) mod plugin_ratings;
pub(crate) mod plugins;
pub(crate) mod repositories;
pub(crate) mod template_ratings;
pub(crate) mod templates;

pub(crate) use icons::icon;
pub(crate) use plugin_ratings::{plugin_ratings, rate_plugin, unrate_plugin};
pub(crate) use plugins::{plugin, plugins, stats, versions};
pub(crate) use template_ratings::{rate_template, template_ratings, unrate_template};
pub(crate) use templates::{template, templates};

use tidegate_model::{CatalogSort, Fields, FromFields};
use tidegate_service::{CatalogSearch, Paging};
use utoipa::ToSchema;

use super::{page::Page, valid::parsed};

/// Which page of what is asked for; `K` is the kind that is named in `kind`.
#[derive(Debug)]
struct Wanted<K> {
    search: CatalogSearch,
    kind: Option<K>,
    paging: Paging,
}

impl<K: std::str::FromStr> Wanted<K> {
    fn read(fields: &mut Fields, kind: &str, kinds: &'static str) -> Option<Self> {
        let search = CatalogSearch {
            text: fields.optional("search"),
            category: fields.optional("category"),
            tag: fields.optional("tag"),
            sort: parsed::<CatalogSort>(fields, "sort", "must be relevance, popular, rating, newest or name"),
        };
        let kind = parsed(fields, kind, kinds);
        Some(Self { search, kind, paging: Page::from_fields(fields)?.0 })
    }
}

/// A rating to give.
#[derive(Debug, ToSchema)]
#[schema(as = RateRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `RateRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct NewRating {
    /// 1–5.
    rating: u8,
    /// At most 2000 characters.
    review: Option<String>,
}
