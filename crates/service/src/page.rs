//! Pages of lists, and the cursors between them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use tidegate_model::FieldErrors;

use crate::{Error, Result};

/// Totals are exact up to here.
const EXACT: i64 = 10_000;

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// How many there are on all pages, exact up to 10 000.
    pub total: i64,
    /// Whether `total` is exact.
    pub total_is_exact: bool,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

impl<T> Listed<T> {
    /// The same page of something else.
    pub(crate) fn map<U>(self, change: impl FnMut(T) -> U) -> Listed<U> {
        let Self { items, total, total_is_exact, next_cursor } = self;
        Listed { items: items.into_iter().map(change).collect(), total, total_is_exact, next_cursor }
    }
}

/// Which page of a list is asked for.
#[derive(Debug, Clone, Default)]
pub struct Paging {
    /// Entries at most, 1 to 100.
    pub limit: u32,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl Paging {
    /// One more than asked for: whether it comes says whether there is a next page.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit.clamp(1, 100)) + 1
    }

    /// What the cursor says, if there is one.
    pub(crate) fn after(&self) -> Result<Option<String>> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let plain = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // PostgreSQL has no text with this character in it.
        plain.filter(|text| !text.contains('\0')).map(Some).ok_or_else(bad_cursor)
    }

    /// A cursor of a moment and an id.
    pub(crate) fn after_moment<I: std::str::FromStr>(&self) -> Result<Option<(DateTime<Utc>, I)>> {
        let Some(text) = self.after()? else { return Ok(None) };
        let read = || {
            let (micros, id) = text.split_once(' ')?;
            Some((known_moment(micros.parse().ok()?)?, id.parse().ok()?))
        };
        read().map(Some).ok_or_else(bad_cursor)
    }

    /// The page of these rows.
    pub(crate) fn page<T>(
        &self,
        mut items: Vec<T>,
        total: i64,
        cursor: impl FnOnce(&T) -> String,
    ) -> Listed<T> {
        let wanted = usize::try_from(self.rows() - 1).unwrap_or(usize::MAX);
        let more = items.len() > wanted;
        items.truncate(wanted);
        let next_cursor = items.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(cursor(last)));
        Listed { items, total: total.min(EXACT), total_is_exact: total <= EXACT, next_cursor }
    }
}

/// A cursor's text for a moment and an id.
pub(crate) fn moment(at: DateTime<Utc>, id: impl std::fmt::Display) -> String {
    format!("{} {id}", at.timestamp_micros())
}

/// A moment that a cursor may hold: the database knows fewer of them than this program, and nothing was before 1970.
pub(crate) fn known_moment(micros: i64) -> Option<DateTime<Utc>> {
    // The end of the year 9999.
    const LAST: i64 = 253_402_300_799_999_999;
    (0..=LAST).contains(&micros).then(|| DateTime::from_timestamp_micros(micros)).flatten()
}

pub(crate) fn bad_cursor() -> Error {
    Error::Invalid(FieldErrors::one("cursor", "must be a nextCursor of an earlier answer"))
}
