//! Keys that really sign.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::Value;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// RSA with SHA-256.
    Rs256,
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Signature {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// A key with its name.
#[derive(Debug, Clone)]
pub(super) struct SigningKey {
    name: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

/// Bytes of PKCS #8 before the RSA key itself, for 2048 bits.
const WRAPPING: usize = 26;

impl SigningKey {
    pub(super) fn new(name: &str, signature: Signature) -> Self {
        let key = match signature {
            Signature::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                EncodingKey::from_rsa_der(&der.as_ref()[WRAPPING..])
            }
            Signature::Es256 => {
                let der =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                        .unwrap();
                EncodingKey::from_ec_der(der.as_ref())
            }
            Signature::EdDsa => {
                let der = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
                EncodingKey::from_ed_der(der.as_ref())
            }
        };
        Self { name: name.to_owned(), algorithm: signature.algorithm(), key }
    }

    /// The same key under another's name.
    pub(super) fn named_as(&self, other: &Self) -> Self {
        Self { name: other.name.clone(), ..self.clone() }
    }

    /// What everybody may know of it.
    pub(super) fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.name.clone());
        serde_json::to_value(jwk).unwrap()
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.name.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// A token "signed" with the public key as a shared secret, under this key's name.
    pub(super) fn sign_with_public(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.name.clone()), ..Header::new(Algorithm::HS256) };
        let secret = self.public().to_string();
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }
}
