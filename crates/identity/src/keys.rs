//! A provider's public keys, and which of them a token may be signed with.

use jsonwebtoken::{
    Algorithm, DecodingKey, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{Result, web::Web};

/// Keys of one provider that are looked at.
const MOST: usize = 64;

/// The signatures that are believed. `none` has no name at all here, and a shared secret signs nothing: whoever knows
/// it could say anything about anybody.
pub(crate) const SIGNATURES: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// A provider's public keys.
#[derive(Debug, Clone)]
pub(crate) struct Keys(Vec<Jwk>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads them; those of a kind that is not known here are left aside.
    pub(crate) async fn read(web: &Web, url: &Url) -> Result<Self> {
        let document: Document = web.document(url).await?;
        Ok(Self::of(document))
    }

    fn of(document: Document) -> Self {
        let keys = document.keys.into_iter().take(MOST);
        Self(keys.filter_map(|key| serde_json::from_value(key).ok()).collect())
    }

    /// The key that a token of this header must be signed with; none where it is not known, or not clear.
    pub(crate) fn fitting(&self, header: &Header) -> Option<DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| fits(key, header));
        let key = fitting.next()?;
        // Without a name there must be no choice.
        if header.kid.is_none() && fitting.next().is_some() {
            return None;
        }
        DecodingKey::from_jwk(key).ok()
    }
}

/// The kind of key decides what may be signed with it, never the token's header alone.
fn fits(key: &Jwk, header: &Header) -> bool {
    let kind = match &key.algorithm {
        AlgorithmParameters::RSA(_) => header.alg == Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) => {
            header.alg == Algorithm::ES256 && key.curve == EllipticCurve::P256
        }
        AlgorithmParameters::OctetKeyPair(key) => {
            header.alg == Algorithm::EdDSA && key.curve == EllipticCurve::Ed25519
        }
        // Shared secrets, and kinds that are not known here.
        _ => false,
    };
    let common = &key.common;
    let signs = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
    let meant = common.key_algorithm.is_none_or(|meant| meant == KeyAlgorithm::from(header.alg));
    let named = header.kid.is_none() || common.key_id == header.kid;
    kind && signs && meant && named
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(keys: &[Value]) -> Keys {
        Keys::of(Document { keys: keys.to_vec() })
    }

    fn header(alg: Algorithm, kid: Option<&str>) -> Header {
        Header { kid: kid.map(str::to_owned), ..Header::new(alg) }
    }

    #[test]
    fn a_key_signs_what_its_kind_signs_and_nothing_else() {
        let rsa = json!({"kty": "RSA", "kid": "a", "n": "sXch", "e": "AQAB"});
        let shared = json!({"kty": "oct", "kid": "b", "k": "c2VjcmV0"});
        let sealing = json!({"kty": "RSA", "kid": "c", "use": "enc", "n": "sXch", "e": "AQAB"});
        let odd = json!({"kty": "new", "kid": "d"});
        let keys = keys(&[rsa, shared, sealing, odd]);
        assert!(keys.fitting(&header(Algorithm::RS256, Some("a"))).is_some());
        for (alg, kid) in [
            (Algorithm::HS256, "a"),
            (Algorithm::ES256, "a"),
            (Algorithm::HS256, "b"),
            (Algorithm::RS256, "c"),
            (Algorithm::RS256, "d"),
        ] {
            assert!(keys.fitting(&header(alg, Some(kid))).is_none(), "{alg:?} {kid}");
        }
    }

    #[test]
    fn a_token_that_names_no_key_has_one_to_choose_from_or_none() {
        let one = json!({"kty": "RSA", "kid": "a", "n": "sXch", "e": "AQAB"});
        let two = json!({"kty": "RSA", "kid": "b", "n": "sXch", "e": "AQAB"});
        let nameless = header(Algorithm::RS256, None);
        assert!(keys(std::slice::from_ref(&one)).fitting(&nameless).is_some());
        assert!(keys(&[one, two]).fitting(&nameless).is_none());
    }
}
