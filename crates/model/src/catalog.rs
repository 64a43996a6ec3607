//! What templates and plugins of the catalog have in common: how they are sorted, and what their files are called by.

use std::fmt::Write;

use crate::text_enum::text_enum;

text_enum! {
    /// In which order the catalog is listed.
    CatalogSort, "order" {
        /// What fits what was searched for best first; what is most popular where nothing was.
        Relevance = "relevance",
        /// What was installed most often first.
        Popular = "popular",
        /// What is rated best first; of two alike the one with more ratings.
        Rating = "rating",
        /// What came into the catalog last first.
        Newest = "newest",
        /// By what people call it.
        Name = "name",
    }
}

/// The SHA-256 of a file's content: what it is kept and asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobDigest([u8; 32]);

/// A text or bytes that are no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hexadecimal digits")]
pub struct NoDigest;

impl BlobDigest {
    /// The digest of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Where this server serves a picture of this digest.
    pub fn icon_url(&self) -> String {
        format!("/api/v1/catalog/icons/{self}")
    }
}

impl TryFrom<Vec<u8>> for BlobDigest {
    type Error = NoDigest;

    fn try_from(bytes: Vec<u8>) -> Result<Self, NoDigest> {
        bytes.try_into().map(Self).map_err(|_| NoDigest)
    }
}

impl std::fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            write!(hex, "{byte:02x}")?;
        }
        f.pad(&hex)
    }
}

impl std::str::FromStr for BlobDigest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NoDigest);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            // One spelling alone: what is cached by its address is cached once.
            let digit = |digit: u8| match digit {
                b'0'..=b'9' => Ok(digit - b'0'),
                b'a'..=b'f' => Ok(digit - b'a' + 10),
                _ => Err(NoDigest),
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_and_read_in_one_spelling() {
        let digest =
            BlobDigest::from_bytes(std::array::from_fn(|index| u8::try_from(index * 8).unwrap_or(255)));
        let text = digest.to_string();
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(BlobDigest::try_from(digest.as_bytes().to_vec()), Ok(digest));
        let short = text[1..].to_owned();
        for bad in ["", &short, &text.to_uppercase(), &text.replace('0', "g"), &"é".repeat(32)] {
            assert_eq!(bad.parse::<BlobDigest>(), Err(NoDigest), "{bad}");
        }
    }
}
