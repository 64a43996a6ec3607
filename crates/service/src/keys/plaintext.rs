//! The key itself: how it is made, hashed and told from others (seed B, `GeneratePlaintextKey` to `VerifyAPIKey`).

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tidegate_model::Secret;

use crate::{Error, Result, secrets::random};

/// What every key begins with.
const SENTINEL: &str = "ppz_";
/// Hexadecimal digits behind it: 104 random bits.
const DIGITS: usize = 26;
/// How many of them are shown to tell keys apart.
const PREFIX: usize = 8;

/// 64 MiB, one pass, four lanes: what every hash of a key is made with.
const MEMORY_KIB: u32 = 64 * 1_024;
const PASSES: u32 = 1;
const LANES: u32 = 4;
/// A stored hash that asks for more is refused, not computed.
const MOST_MEMORY_KIB: u32 = 128 * 1_024;
const MOST_PASSES: u32 = 4;
const MOST_LANES: u32 = 16;

/// A new key: `ppz_` and 26 hexadecimal digits out of 104 random bits.
pub fn generate_plaintext_key() -> Result<Secret<String>> {
    Ok(Secret::new(format!("{SENTINEL}{}", hex::encode(random::<13>()?))))
}

/// The hash of a key that describes itself, `$argon2id$v=19$m=65536,t=1,p=4$<salt>$<tag>`. Takes 64 MiB and a tenth of
/// a second of a core: never on the runtime, never in a transaction.
pub fn hash_api_key(plaintext: &str) -> Result<String> {
    let fault = |error: String| Error::internal(error);
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| fault(error.to_string()))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(plaintext.as_bytes(), &random::<16>()?)
        .map(|hash| hash.to_string())
        .map_err(|error| fault(error.to_string()))
}

/// The 8 characters after `ppz_`, for people: never good for letting anybody in. Of what is no key, as much as there is.
pub fn key_prefix(plaintext: &str) -> &str {
    let digits = plaintext.strip_prefix(SENTINEL).unwrap_or(plaintext);
    let end = digits.char_indices().nth(PREFIX).map_or(digits.len(), |(at, _)| at);
    &digits[..end]
}

/// Whether a key fits a stored hash, in a time that does not depend on where they differ. A hash that cannot be read, is
/// no argon2id, or asks for absurd amounts of memory or time fits nothing and is not computed.
pub fn verify_api_key(plaintext: &str, stored: &str) -> bool {
    let Ok(hash) = PasswordHash::new(stored) else { return false };
    let affordable = hash.algorithm.as_str() == "argon2id"
        && Params::try_from(&hash).is_ok_and(|params| {
            params.m_cost() <= MOST_MEMORY_KIB
                && params.t_cost() <= MOST_PASSES
                && params.p_cost() <= MOST_LANES
        });
    affordable && Argon2::default().verify_password(plaintext.as_bytes(), &hash).is_ok()
}

/// Whether a credential means to be a key; a bearer token of a device login begins alike and is none.
pub(crate) fn is_key(credential: &str) -> bool {
    credential.starts_with(SENTINEL) && !credential.starts_with("ppz_oauth_")
}

/// Whether it has the form of one.
pub(super) fn is_well_formed(credential: &str) -> bool {
    credential.strip_prefix(SENTINEL).is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_new_key_has_the_seeds_form_and_is_never_the_same() {
        let (one, two) = (generate_plaintext_key().unwrap(), generate_plaintext_key().unwrap());
        assert!(is_well_formed(one.expose()) && is_key(one.expose()), "{}", one.expose());
        assert_eq!(one.expose().len(), 30);
        assert_ne!(key_prefix(one.expose()), key_prefix(two.expose()));
    }

    #[test]
    fn a_prefix_is_the_eight_characters_after_the_sentinel() {
        assert_eq!(key_prefix("ppz_0123456789abcdef0123456789"), "01234567");
        for (short, prefix) in [("ppz_", ""), ("ppz_12", "12"), ("", ""), ("ppz_äöüäöüäöü", "äöüäöüäö")]
        {
            assert_eq!(key_prefix(short), prefix, "{short}");
        }
    }

    #[test]
    fn a_hash_describes_itself_and_fits_its_key_alone() {
        let key = "ppz_0123456789abcdef0123456789";
        let hash = hash_api_key(key).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=65536,t=1,p=4$"), "{hash}");
        assert!(verify_api_key(key, &hash));
        assert!(!verify_api_key("ppz_0123456789abcdef0123456780", &hash));
        assert!(!verify_api_key("", &hash));
    }

    #[test]
    fn an_absurd_or_broken_hash_fits_nothing_and_costs_nothing() {
        let tail = "c2FsdHNhbHRzYWx0$8SyfTuS5xrwXBgVZBvHrVbrKRNkLdcvFPEGvGRfdmOM";
        let absurd = [
            format!("$argon2id$v=19$m=4194304,t=1,p=4${tail}"),
            format!("$argon2id$v=19$m=65536,t=4000000,p=4${tail}"),
            format!("$argon2id$v=19$m=131072,t=1,p=4096${tail}"),
            format!("$argon2i$v=19$m=65536,t=1,p=4${tail}"),
            "$argon2id$v=19$m=65536,t=1,p=4$".to_owned(),
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW".to_owned(),
            String::new(),
        ];
        let since = Instant::now();
        for hash in absurd {
            assert!(!verify_api_key("ppz_0123456789abcdef0123456789", &hash), "{hash}");
        }
        assert!(since.elapsed() < Duration::from_millis(200), "{:?}", since.elapsed());
    }

    #[test]
    fn what_only_looks_like_a_key_is_none() {
        for bad in ["ppz_", "ppz_0123456789ABCDEF0123456789", "ppz_0123456789abcdef01234567890", "abc"] {
            assert!(!is_well_formed(bad), "{bad}");
        }
        assert!(!is_key("ppz_oauth_0123456789") && !is_key("eyJhbGciOi"));
    }
}
