//! How long, and how much, a pipe keeps.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{FieldErrors, Fields, PatchField};

/// Seconds that a pipe may keep messages: one to a year's.
const TTL: RangeInclusive<i64> = 1..=365 * 86_400;
/// Messages that a pipe may keep.
const MESSAGES: RangeInclusive<i64> = 1..=10_000_000;
/// The fewest bytes that a pipe may keep.
const LEAST_BYTES: i64 = 1_024;

/// What a pipe keeps: whatever is older, or more, is gone, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// For how many seconds.
    pub ttl_seconds: i64,
    /// How many messages.
    pub max_msgs: i64,
    /// How many bytes.
    pub max_bytes: i64,
}

impl Default for Retention {
    /// A day, 5 000 messages, 16 MiB.
    fn default() -> Self {
        Self { ttl_seconds: 86_400, max_msgs: 5_000, max_bytes: 16 * 1_024 * 1_024 }
    }
}

impl Retention {
    /// Complains of what lies outside the bounds. `most_bytes` is what the organization may promise to one pipe.
    pub fn check(self, most_bytes: i64) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::new();
        let bytes = LEAST_BYTES..=most_bytes.max(LEAST_BYTES);
        for (field, value, bounds) in [
            ("ttlSeconds", self.ttl_seconds, TTL),
            ("maxMsgs", self.max_msgs, MESSAGES),
            ("maxBytes", self.max_bytes, bytes),
        ] {
            if !bounds.contains(&value) {
                errors.add(
                    field,
                    format!("must lie between {} and {}, is {value}", bounds.start(), bounds.end()),
                );
            }
        }
        errors.into_result()
    }
}

/// What somebody asked a pipe to keep; what they left open is the default's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RetentionChoice {
    /// For how many seconds.
    pub ttl_seconds: Option<i64>,
    /// How many messages.
    pub max_msgs: Option<i64>,
    /// How many bytes.
    pub max_bytes: Option<i64>,
}

impl RetentionChoice {
    /// The choice with the default where it is open.
    pub fn resolve(self) -> Retention {
        let default = Retention::default();
        Retention {
            ttl_seconds: self.ttl_seconds.unwrap_or(default.ttl_seconds),
            max_msgs: self.max_msgs.unwrap_or(default.max_msgs),
            max_bytes: self.max_bytes.unwrap_or(default.max_bytes),
        }
    }

    /// Reads the three fields of a new pipe.
    pub(crate) fn of_new(fields: &mut Fields) -> Self {
        Self {
            ttl_seconds: fields.optional("ttlSeconds"),
            max_msgs: fields.optional("maxMsgs"),
            max_bytes: fields.optional("maxBytes"),
        }
    }
}

/// A change of what a pipe keeps: what is absent stays, `null` is the default again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionChange {
    /// For how many seconds.
    pub ttl_seconds: PatchField<i64>,
    /// How many messages.
    pub max_msgs: PatchField<i64>,
    /// How many bytes.
    pub max_bytes: PatchField<i64>,
}

impl RetentionChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The choice after the change.
    #[must_use]
    pub fn applied_to(&self, choice: RetentionChoice) -> RetentionChoice {
        let one = |change: &PatchField<i64>, present| match change {
            PatchField::Absent => present,
            PatchField::Clear => None,
            PatchField::Set(value) => Some(*value),
        };
        RetentionChoice {
            ttl_seconds: one(&self.ttl_seconds, choice.ttl_seconds),
            max_msgs: one(&self.max_msgs, choice.max_msgs),
            max_bytes: one(&self.max_bytes, choice.max_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: i64 = 1 << 30;

    #[test]
    fn the_defaults_are_a_day_five_thousand_and_sixteen_mebibytes() {
        let default = RetentionChoice::default().resolve();
        assert_eq!(default, Retention { ttl_seconds: 86_400, max_msgs: 5_000, max_bytes: 16_777_216 });
        assert_eq!(default.check(MOST), Ok(()));
    }

    #[test]
    fn every_bound_holds_at_its_edge_and_every_bad_field_is_named() {
        let edge = |ttl_seconds, max_msgs, max_bytes| Retention { ttl_seconds, max_msgs, max_bytes };
        assert_eq!(edge(1, 1, 1_024).check(MOST), Ok(()));
        assert_eq!(edge(365 * 86_400, 10_000_000, MOST).check(MOST), Ok(()));
        for bad in [edge(0, 0, 1_023), edge(-1, -1, -1), edge(365 * 86_400 + 1, 10_000_001, MOST + 1)] {
            let errors = bad.check(MOST).unwrap_err();
            let named: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
            assert_eq!(named, ["maxBytes", "maxMsgs", "ttlSeconds"], "{bad:?}");
        }
    }

    #[test]
    fn an_organization_without_room_for_a_pipe_is_told_the_bound() {
        let errors = Retention::default().check(0).unwrap_err();
        assert_eq!(errors.to_string(), "maxBytes: must lie between 1024 and 1024, is 16777216");
    }

    proptest! {
        #[test]
        fn a_change_moves_what_it_names_and_nothing_else(ttl in proptest::option::of(1_i64..100), msgs in proptest::option::of(1_i64..100)) {
            let before = RetentionChoice { ttl_seconds: ttl, max_msgs: msgs, max_bytes: Some(2_048) };
            let change = RetentionChange { max_msgs: PatchField::Set(7), max_bytes: PatchField::Clear, ..Default::default() };
            let after = change.applied_to(before);
            prop_assert_eq!(after, RetentionChoice { ttl_seconds: ttl, max_msgs: Some(7), max_bytes: None });
            prop_assert_eq!(change.applied_to(after), after);
            prop_assert_eq!(RetentionChange::default().applied_to(before), before);
        }
    }
}
