//! What people think of what is in the catalog (seed A): one rating a user and entry, which they change or take back.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    CatalogPluginId, CatalogTemplateId, Fields, FromFields, PluginRatingId, TemplateRatingId, UserId,
};

/// A user's rating of a plugin (seed A, `PluginRating`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PluginRating {
    /// The rating's id.
    pub id: PluginRatingId,
    /// The plugin.
    pub plugin_id: CatalogPluginId,
    /// What was said.
    #[serde(flatten)]
    pub said: Rating,
}

/// A user's rating of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TemplateRating {
    /// The rating's id.
    pub id: TemplateRatingId,
    /// The template.
    pub template_id: CatalogTemplateId,
    /// What was said.
    #[serde(flatten)]
    pub said: Rating,
}

/// What a rating says and who said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Rating {
    /// Who; `null` of somebody who is not in the caller's organization: the catalog is everybody's, its people are not.
    pub user_id: Option<UserId>,
    /// Their username, where the id is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// 1–5.
    pub rating: u8,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub review: String,
    /// When it was given first.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
}

/// Body of `POST …/rate` (seed A, `RatePluginRequest`); a second one replaces the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateRequest {
    /// 1–5.
    pub rating: u8,
    /// At most 2000 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub review: String,
}

impl FromFields for RateRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let rating: Option<i64> = fields.required("rating");
        let review: String = fields.optional("review").unwrap_or_default();
        fields.check_length("review", &review, 0..=2_000);
        let rating = rating.map(|rating| u8::try_from(rating).ok().filter(|rating| (1..=5).contains(rating)));
        if rating == Some(None) {
            fields.errors().add("rating", "must be a whole number from 1 to 5");
        }
        Some(Self { rating: rating??, review })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rating_has_one_to_five_stars_and_a_bounded_review() {
        let read = RateRequest::from_json(json!({"rating": 5, "review": "é".repeat(2_000)})).unwrap();
        assert_eq!((read.rating, read.review.chars().count()), (5, 2_000));
        for rating in [json!(0), json!(6), json!(-1), json!(4.5), json!("5"), json!(null), json!(256)] {
            let errors = RateRequest::from_json(json!({"rating": rating})).unwrap_err();
            assert_eq!(errors.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["rating"], "{rating}");
        }
        let errors = RateRequest::from_json(json!({"review": "x".repeat(2_001), "stars": 5})).unwrap_err();
        assert_eq!(errors.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["rating", "review", "stars"]);
    }
}
