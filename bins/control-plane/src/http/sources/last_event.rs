//! What a client of a pipe's events had last: the sequence, and the stream in which it means that message.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};

/// The id of an event, `<incarnation>-<sequence>`: the first is the stream's, in nanoseconds since 1970. A sequence alone is
/// read as well, and is a place in whatever stream there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastEvent {
    pub(super) incarnation: Option<DateTime<Utc>>,
    pub(super) sequence: u64,
}

impl fmt::Display for LastEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(nanoseconds) = self.incarnation.and_then(|at| at.timestamp_nanos_opt()) {
            write!(f, "{nanoseconds}-")?;
        }
        write!(f, "{}", self.sequence)
    }
}

impl FromStr for LastEvent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let complaint = "must be the id of an event that was seen";
        let (incarnation, sequence) = match text.split_once('-') {
            Some((nanoseconds, sequence)) => {
                let nanoseconds = nanoseconds.parse().map_err(|_| complaint)?;
                (Some(DateTime::from_timestamp_nanos(nanoseconds)), sequence)
            }
            None => (None, text),
        };
        Ok(Self { incarnation, sequence: sequence.parse().map_err(|_| complaint)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_to_the_nanosecond() {
        let incarnation = Some("2026-03-04T05:06:07.123456789Z".parse().unwrap());
        let last = LastEvent { incarnation, sequence: 500 };
        assert_eq!(last.to_string(), "1772600767123456789-500");
        assert_eq!(last.to_string().parse(), Ok(last));
        let bare = LastEvent { incarnation: None, sequence: 7 };
        assert_eq!((bare.to_string().as_str(), "7".parse()), ("7", Ok(bare)));
        for odd in ["", "-", "x", "1-", "-1", "1-2-3", "99999999999999999999-1", "1--2"] {
            assert!(odd.parse::<LastEvent>().is_err(), "{odd}");
        }
    }
}
