//! What operators ask of agents.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use crate::{Fields, FromFields, PatchField};

/// When a drain is over: at a time, or so long from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DrainDeadline {
    /// At this time.
    At(DateTime<Utc>),
    /// So long from now.
    In(TimeDelta),
}

impl DrainDeadline {
    /// Longest drain, in days.
    pub const LONGEST_DAYS: i64 = 30;

    /// The time that is meant, seen from `now`; it lies between now and [`DrainDeadline::LONGEST_DAYS`] later.
    pub fn resolve(self, now: DateTime<Utc>) -> Result<DateTime<Utc>, &'static str> {
        let at = match self {
            Self::At(at) => at,
            Self::In(length) => now + length,
        };
        if at < now {
            return Err("must not be in the past");
        }
        if at > now + TimeDelta::days(Self::LONGEST_DAYS) {
            return Err("must not be more than 30 days from now");
        }
        Ok(at)
    }
}

impl FromStr for DrainDeadline {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SYNTAX: &str =
            "must be a time such as 2026-12-24T18:00:00Z or a duration such as 90s, 30m, 8h or 2d";
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(at.to_utc()));
        }
        let unit = text.chars().next_back().ok_or(SYNTAX)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(SYNTAX),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SYNTAX);
        }
        let number: i64 = digits.parse().map_err(|_| SYNTAX)?;
        Ok(Self::In(TimeDelta::seconds(number * factor)))
    }
}

impl TryFrom<String> for DrainDeadline {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Body of `POST admin/agents/{agentId}/drain`. It says the whole wish: without a deadline there is none any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainRequest {
    /// When what still runs is hibernated or ended; never without it.
    pub deadline: Option<DrainDeadline>,
    /// Why, for people; at most 500 characters.
    pub reason: Option<String>,
}

impl FromFields for DrainRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let deadline = fields.optional("deadline");
        let reason: Option<String> = fields.optional("reason");
        if let Some(reason) = &reason {
            fields.check_length("reason", reason, 1..=500);
            if reason.chars().any(char::is_control) {
                fields.errors().add("reason", "must be one line of text");
            }
        }
        Some(Self { deadline, reason })
    }
}

/// Body of `PATCH admin/agents/{agentId}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateAgentRequest {
    /// Where it stands, 2–50 characters; `null` for nowhere in particular.
    pub region: PatchField<String>,
    /// The organization it serves alone, by id or name; `null` for all.
    pub organization: PatchField<String>,
}

impl FromFields for UpdateAgentRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (region, organization) =
            (fields.patch::<String>("region"), fields.patch::<String>("organization"));
        if let PatchField::Set(region) = &region {
            fields.check_length("region", region, 2..=50);
        }
        if let PatchField::Set(organization) = &organization {
            fields.check_length("organization", organization, 1..=100);
        }
        Some(Self { region, organization })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deadline_is_a_time_or_a_duration_within_a_month() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let resolve = |text: &str| text.parse::<DrainDeadline>()?.resolve(now);
        assert_eq!(resolve("90s"), Ok(now + TimeDelta::seconds(90)));
        assert_eq!(resolve("0s"), Ok(now));
        assert_eq!(resolve("2d"), Ok(now + TimeDelta::days(2)));
        assert_eq!(resolve("2027-01-15T10:00:00+02:00"), Ok(now));
        assert_eq!(resolve("2027-01-15T07:59:59Z"), Err("must not be in the past"));
        assert_eq!(resolve("31d"), Err("must not be more than 30 days from now"));
        for odd in ["", "s", "1", "-1h", "1.5h", "1w", "tomorrow", "9999999999s", "é"] {
            assert!(resolve(odd).is_err_and(|error| error.starts_with("must be a time")), "{odd}");
        }
    }

    #[test]
    fn every_bad_field_is_named() {
        let errors =
            DrainRequest::from_json(json!({"deadline": "soon", "reason": "a\nb", "odd": 1})).unwrap_err();
        assert_eq!(errors.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["deadline", "odd", "reason"]);
        let errors = UpdateAgentRequest::from_json(json!({"region": "x", "organization": ""})).unwrap_err();
        assert_eq!(errors.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["organization", "region"]);
        let cleared = UpdateAgentRequest::from_json(json!({"organization": null})).unwrap();
        assert_eq!((cleared.region, cleared.organization), (PatchField::Absent, PatchField::Clear));
    }
}
