//! Durations as the wire writes them: `90s`, `30m`, `8h`, `7d`; `0` is never.

use std::{fmt, str::FromStr};

/// How long something may last. One minute to thirty days, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeLimit {
    /// No limit; written `0`.
    Never,
    /// So many seconds, 60 to 2 592 000.
    Seconds(u32),
}

/// Why a text is no [`TimeLimit`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeLimitError {
    /// Not a whole number with a unit.
    #[error("must be a whole number with a unit, for example 90s, 30m, 8h or 7d, or 0 for never")]
    Syntax,
    /// Outside one minute to thirty days.
    #[error("must lie between 1m and 30d, or be 0 for never")]
    Range,
}

impl TimeLimit {
    const MIN: u64 = 60;
    const MAX: u64 = 30 * 86_400;

    /// The limit of so many seconds; 0 is never.
    pub fn from_seconds(seconds: u64) -> Result<Self, TimeLimitError> {
        match seconds {
            0 => Ok(Self::Never),
            Self::MIN..=Self::MAX => {
                u32::try_from(seconds).map(Self::Seconds).map_err(|_| TimeLimitError::Range)
            }
            _ => Err(TimeLimitError::Range),
        }
    }

    /// Seconds, 0 for never.
    pub const fn as_seconds(self) -> u32 {
        match self {
            Self::Never => 0,
            Self::Seconds(seconds) => seconds,
        }
    }
}

impl FromStr for TimeLimit {
    type Err = TimeLimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self::Never);
        }
        let unit = text.chars().last().ok_or(TimeLimitError::Syntax)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(TimeLimitError::Syntax),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(TimeLimitError::Syntax);
        }
        let number: u64 = digits.parse().map_err(|_| TimeLimitError::Syntax)?;
        Self::from_seconds(number * factor)
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.as_seconds();
        match seconds {
            0 => f.write_str("0"),
            _ if seconds.is_multiple_of(86_400) => write!(f, "{}d", seconds / 86_400),
            _ if seconds.is_multiple_of(3_600) => write!(f, "{}h", seconds / 3_600),
            _ if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{seconds}s"),
        }
    }
}

impl serde::Serialize for TimeLimit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for TimeLimit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_and_written_in_its_largest_whole_unit() {
        for (text, seconds, written) in [
            ("90s", 90, "90s"),
            ("120s", 120, "2m"),
            ("30m", 1_800, "30m"),
            ("8h", 28_800, "8h"),
            ("30d", 2_592_000, "30d"),
            ("0", 0, "0"),
        ] {
            let limit: TimeLimit = text.parse().unwrap();
            assert_eq!((limit.as_seconds(), limit.to_string().as_str()), (seconds, written));
        }
    }

    #[test]
    fn a_limit_outside_its_bounds_or_grammar_is_refused() {
        for text in ["59s", "31d", "999999999d"] {
            assert_eq!(text.parse::<TimeLimit>(), Err(TimeLimitError::Range), "{text}");
        }
        for text in ["", "m", "1.5h", "-1m", "10", "1w", " 1m", "1m ", "1é"] {
            assert_eq!(text.parse::<TimeLimit>(), Err(TimeLimitError::Syntax), "{text}");
        }
    }
}
