//! The words of `keys`.

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args as ClapArgs, Subcommand};
use tidegate_model::{ApiKeyId, Clock, Scope, Scopes, SystemClock};

/// `keys`.
#[derive(Debug, ClapArgs)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) verb: KeyVerb,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// List the organization's keys
    #[command(visible_alias = "ls")]
    List(KeyListArgs),
    /// Make a key and show it this once
    Create(KeyCreateArgs),
    /// Revoke a key: from the next request on it opens nothing
    Revoke {
        /// Its id, as `keys list` shows it.
        id: ApiKeyId,
    },
    /// Put a new key in the place of one of your own and show it this once
    Rotate(KeyRotateArgs),
}

/// `keys list`.
#[derive(Debug, ClapArgs)]
pub(crate) struct KeyListArgs {
    /// All pages, not only the first hundred.
    #[arg(long)]
    pub(crate) all: bool,
}

/// `keys create`.
#[derive(Debug, ClapArgs)]
pub(crate) struct KeyCreateArgs {
    /// What it is for.
    pub(crate) label: String,
    /// What it may be used for, between commas: sessions:read, sessions:write, streams, keys, org:read, org:write,
    /// pipes:read, pipes:write, admin, or * for everything inside the organization.
    #[arg(long, value_name = "SCOPES", default_value_t = everything(), value_parser = scopes)]
    pub(crate) scopes: Scopes,
    /// Let it end after this time, for example 12h or 90d.
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) expires: Option<TimeDelta>,
}

/// `keys rotate`.
#[derive(Debug, ClapArgs)]
pub(crate) struct KeyRotateArgs {
    /// Its id, as `keys list` shows it.
    pub(crate) id: ApiKeyId,
    /// Let the new key end after this time; after as long as the old one where absent.
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) expires: Option<TimeDelta>,
}

fn everything() -> Scopes {
    [Scope::Everything].into_iter().collect()
}

fn scopes(text: &str) -> Result<Scopes, String> {
    let scopes: Scopes = text.parse().map_err(|error: tidegate_model::UnknownValue| error.to_string())?;
    if scopes.is_empty() { Err("name at least one scope".to_owned()) } else { Ok(scopes) }
}

fn lifetime(text: &str) -> Result<TimeDelta, String> {
    let complaint = || format!("`{text}` must be a number with a unit: 90m, 12h or 90d");
    let unit = text.chars().last().ok_or_else(complaint)?;
    let number: i64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| complaint())?;
    let time = match unit {
        'm' => TimeDelta::try_minutes(number),
        'h' => TimeDelta::try_hours(number),
        'd' => TimeDelta::try_days(number),
        _ => None,
    };
    time.filter(|time| (1..=36_500).contains(&number) && *time > TimeDelta::zero()).ok_or_else(complaint)
}

/// The moment so long from now.
pub(crate) fn from_now(time: TimeDelta) -> DateTime<Utc> {
    SystemClock::new().now() + time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_number_with_a_unit() {
        assert_eq!(lifetime("90d"), Ok(TimeDelta::days(90)));
        assert_eq!(lifetime("30m"), Ok(TimeDelta::minutes(30)));
        for bad in ["", "d", "10", "-1h", "0d", "1w", "99999d", "1.5h", "5ä"] {
            assert!(lifetime(bad).unwrap_err().contains("90d"), "{bad}");
        }
    }

    #[test]
    fn scopes_are_words_between_commas() {
        assert!(scopes("sessions:read,streams").unwrap().allow(Scope::Streams));
        assert!(scopes("").is_err() && scopes("root").is_err());
    }
}
