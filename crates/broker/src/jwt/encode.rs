//! The encoding itself: header, claims, signature.

use aws_lc_rs::digest::{SHA512_256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;
use serde::Serialize;

use crate::{Error, Result};

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
/// The version of all claims here.
pub(super) const VERSION: u8 = 2;

/// What every token says besides its own claims. Times are seconds since 1970.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Envelope<'a> {
    #[serde(rename = "exp", skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<i64>,
    #[serde(rename = "jti", skip_serializing_if = "str::is_empty")]
    pub(super) id: String,
    #[serde(rename = "iat")]
    pub(super) issued_at: i64,
    #[serde(rename = "iss")]
    pub(super) issuer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) name: &'a str,
    #[serde(rename = "sub")]
    pub(super) subject: &'a str,
}

#[derive(Serialize)]
struct Body<'a, C> {
    #[serde(flatten)]
    envelope: Envelope<'a>,
    nats: &'a C,
}

/// Encodes and signs. The id is a hash of the envelope, as the reference implementation makes it.
pub(super) fn encode<C: Serialize>(
    mut envelope: Envelope<'_>,
    claims: &C,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
) -> Result<String> {
    envelope.id = BASE32_NOPAD.encode(digest(&SHA512_256, &json(&envelope)?).as_ref());
    let body = json(&Body { envelope, nats: claims })?;
    let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(body));
    let signature = sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::invalid("the token", format!("cannot be written: {error}")))
}
