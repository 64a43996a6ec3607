//! Device codes (RFC 8628, and seed B, `DeviceCode`): a device shows a short code, somebody lets it in by browser.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{DeviceCodeId, OrgId};

/// The letters of user codes: 20 consonants, so that no code is a word and none is read as a digit (RFC 8628, 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of a code: 34.5 random bits.
const LENGTH: usize = 8;
/// Longest name that a device may call itself by.
const NAME: usize = 100;

/// What somebody types to let a device in, `XXXX-XXXX`: read in any case, with or without the dash and spaces.
#[derive(Clone, PartialEq, Eq)]
pub struct UserCode([u8; LENGTH]);

/// A text that is no user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a code has the form XXXX-XXXX, eight letters without vowels")]
pub struct NoUserCode;

impl UserCode {
    /// The code that random bytes stand for; none where there are too few that stand for a letter. Bytes past the last
    /// whole round of the letters are left out, so that every letter is as likely as every other.
    pub fn of_random(bytes: &[u8]) -> Option<Self> {
        let fair = u8::try_from(usize::from(u8::MAX) / LETTERS.len() * LETTERS.len()).unwrap_or(u8::MAX);
        let mut letters =
            bytes.iter().filter(|byte| **byte < fair).map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()]);
        let mut code = [0; LENGTH];
        for place in &mut code {
            *place = letters.next()?;
        }
        Some(Self(code))
    }
}

impl FromStr for UserCode {
    type Err = NoUserCode;

    fn from_str(text: &str) -> Result<Self, NoUserCode> {
        let mut code = [0; LENGTH];
        let mut places = code.iter_mut();
        for letter in text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')) {
            let letter = letter.to_ascii_uppercase();
            if !LETTERS.contains(&letter) {
                return Err(NoUserCode);
            }
            *places.next().ok_or(NoUserCode)? = letter;
        }
        if places.next().is_some() { Err(NoUserCode) } else { Ok(Self(code)) }
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, letter) in self.0.iter().enumerate() {
            let dash = if index == LENGTH / 2 { "-" } else { "" };
            write!(f, "{dash}{}", char::from(*letter))?;
        }
        Ok(())
    }
}

impl fmt::Debug for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserCode([redacted])")
    }
}

/// A name that a device gives itself, as it is shown to people: nothing in it hides or turns around what stands beside
/// it. None where it is too long.
pub fn client_name(text: &str) -> Option<String> {
    let shown: String =
        text.chars().filter(|letter| !letter.is_control() && !is_invisible(*letter)).collect();
    let shown = shown.trim().to_owned();
    (shown.chars().count() <= NAME).then_some(shown)
}

/// Marks that change the direction of text, and letters without a width.
const fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}')
}

/// What somebody decided about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceDecision {
    /// It may act for them.
    Approved,
    /// It may not.
    Denied,
}

/// A device that waits to be let in, as whoever has its code sees it (seed B, `DeviceCode`). Both codes are kept as
/// digests and are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCode {
    /// Its row.
    pub id: DeviceCodeId,
    /// What it calls itself; may be empty.
    pub client_name: String,
    /// Where it asked from.
    pub address: Option<String>,
    /// What was decided.
    pub decision: Option<DeviceDecision>,
    /// Whether the caller decided it.
    pub mine: bool,
    /// The organization that the caller chose for it.
    pub org_id: Option<OrgId>,
    /// When it was decided (`VerifiedAt`).
    pub decided_at: Option<DateTime<Utc>>,
    /// When it got its token.
    pub consumed_at: Option<DateTime<Utc>>,
    /// When it asked.
    pub created_at: DateTime<Utc>,
    /// Until when it can be let in.
    pub expires_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code: UserCode = "WDJB-MJHT".parse().unwrap();
        for typed in ["wdjbmjht", " WDJB MJHT ", "W-D-J-B-M-J-H-T", "wdjb-mjht"] {
            assert_eq!(typed.parse(), Ok(code.clone()), "{typed}");
        }
        assert_eq!(code.to_string(), "WDJB-MJHT");
        for bad in ["", "WDJB-MJH", "WDJB-MJHTT", "WDJA-MJHT", "WDJ0-MJHT", "WDJB_MJHT", "WDJB-MJHÄ", "\0"] {
            assert_eq!(bad.parse::<UserCode>(), Err(NoUserCode), "{bad}");
        }
        assert!(!format!("{code:?}").contains("WDJB"));
    }

    #[test]
    fn a_code_has_at_least_34_random_bits_and_every_letter_is_as_likely() {
        assert!(20_u64.pow(8) > 1 << 34);
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let mut counts = std::collections::BTreeMap::new();
        for eight in all.chunks(LENGTH).filter_map(UserCode::of_random) {
            eight.0.iter().for_each(|letter| *counts.entry(*letter).or_insert(0) += 1);
        }
        assert_eq!(counts.len(), LETTERS.len());
        assert!(counts.values().all(|count| *count == 12), "{counts:?}");
        assert_eq!(UserCode::of_random(&[240, 255, 1, 2, 3]), None);
    }

    #[test]
    fn a_clients_name_hides_nothing() {
        assert_eq!(client_name(" tidegate \u{202e}1.0\u{7}\u{200b} ").unwrap(), "tidegate 1.0");
        assert_eq!(client_name(&"ä".repeat(100)).unwrap().chars().count(), 100);
        assert_eq!(client_name(&"ä".repeat(101)), None);
    }

    proptest! {
        #[test]
        fn every_code_is_read_as_it_was_written(bytes in proptest::collection::vec(any::<u8>(), 24)) {
            if let Some(code) = UserCode::of_random(&bytes) {
                prop_assert_eq!(code.to_string().parse::<UserCode>(), Ok(code));
            }
        }
    }
}
