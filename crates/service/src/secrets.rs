//! Keys: everything derived from the master key, each for one purpose.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    constant_time,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    hmac, rand,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tidegate_model::Secret;

use crate::{Error, Result};

/// The version of the derivation; stored in front of everything sealed.
const VERSION: u8 = 1;
const NONCE: usize = 12;

/// What a digest is for: a secret of one kind never passes for one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    AgentKey,
    AgentClaim,
    Refresh,
    RefreshTag,
    Ticket,
    StreamGrant,
    ApiKey,
    BearerToken,
    DeviceCode,
    UserCode,
    Browser,
    Form,
    Visit,
    Body,
    SignInState,
    SignInBrowser,
    SignInNonce,
    SignInVerifier,
    PasswordReset,
    MessageKey,
}

/// Keys derived from the master key (HKDF-SHA-256, RFC 5869).
pub struct Vault {
    jwt: Secret<[u8; 32]>,
    digests: hmac::Key,
    seal: RandomizedNonceKey,
    nats_users: Secret<[u8; 32]>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault([redacted])")
    }
}

struct Length;
impl KeyType for Length {
    fn len(&self) -> usize {
        32
    }
}

fn derive(master: &[u8; 32], info: &str) -> Result<[u8; 32]> {
    let mut key = [0; 32];
    Salt::new(HKDF_SHA256, b"tidegate v1")
        .extract(master)
        .expand(&[info.as_bytes()], Length)
        .and_then(|okm| okm.fill(&mut key))
        .map_err(|_| Error::internal("a key could not be derived"))?;
    Ok(key)
}

impl Vault {
    /// Derives every key.
    pub fn new(master: &Secret<[u8; 32]>) -> Result<Self> {
        let master = master.expose();
        let seal = RandomizedNonceKey::new(&AES_256_GCM, &derive(master, "seal")?)
            .map_err(|_| Error::internal("the sealing key was refused"))?;
        Ok(Self {
            jwt: Secret::new(derive(master, "jwt")?),
            digests: hmac::Key::new(hmac::HMAC_SHA256, &derive(master, "digest")?),
            seal,
            nats_users: Secret::new(derive(master, "nats users")?),
        })
    }

    /// A short text that is the same for the same master key and gives nothing of it away: how `doctor` sees that the
    /// key is not the one the data was written with.
    pub fn fingerprint(&self) -> String {
        hex::encode(&hmac::sign(&self.digests, b"fingerprint").as_ref()[..8])
    }

    pub(crate) fn jwt(&self) -> &[u8; 32] {
        self.jwt.expose()
    }

    /// What the keys of credentials on NATS are made of.
    pub(crate) fn nats_users(&self) -> &[u8; 32] {
        self.nats_users.expose()
    }

    /// The keyed digest under which a random secret is stored.
    pub(crate) fn digest(&self, purpose: Purpose, secret: &str) -> Vec<u8> {
        self.digest_bytes(purpose, secret.as_bytes())
    }

    /// The same of something that may be no text.
    pub(crate) fn digest_bytes(&self, purpose: Purpose, secret: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.digests);
        let label: &[u8] = match purpose {
            Purpose::AgentKey => b"agent-key:",
            Purpose::AgentClaim => b"agent-claim:",
            Purpose::Refresh => b"refresh:",
            Purpose::RefreshTag => b"refresh-tag:",
            Purpose::Ticket => b"ticket:",
            Purpose::StreamGrant => b"stream-grant:",
            Purpose::ApiKey => b"api-key:",
            Purpose::BearerToken => b"bearer-token:",
            Purpose::DeviceCode => b"device-code:",
            Purpose::UserCode => b"user-code:",
            Purpose::Browser => b"browser:",
            Purpose::Form => b"form:",
            Purpose::Visit => b"visit:",
            Purpose::Body => b"body:",
            Purpose::SignInState => b"sign-in-state:",
            Purpose::SignInBrowser => b"sign-in-browser:",
            Purpose::SignInNonce => b"sign-in-nonce:",
            Purpose::SignInVerifier => b"sign-in-verifier:",
            Purpose::PasswordReset => b"password-reset:",
            Purpose::MessageKey => b"message-key:",
        };
        context.update(label);
        context.update(secret);
        context.sign().as_ref().to_vec()
    }

    /// Which pepper [`Vault::digest`] uses: a number that differs from master key to master key, so that digests made
    /// with another one are known as such.
    pub(crate) fn pepper_version(&self) -> i16 {
        let tag = hmac::sign(&self.digests, b"pepper version");
        i16::from_be_bytes([tag.as_ref()[0] & 0x7f, tag.as_ref()[1]])
    }

    /// Seals `plain` for one place: it opens only with the same `place`.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut data = plain.to_vec();
        let nonce = self
            .seal
            .seal_in_place_append_tag(Aad::from(place), &mut data)
            .map_err(|_| Error::internal("a secret could not be sealed"))?;
        Ok([&[VERSION], nonce.as_ref().as_slice(), &data].concat())
    }

    /// Opens what [`Vault::seal`] sealed.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let fault =
            || Error::internal("a sealed secret does not open: is this the master key it was sealed with?");
        let (head, data) = sealed.split_at_checked(1 + NONCE).ok_or_else(fault)?;
        if head[0] != VERSION {
            return Err(fault());
        }
        let nonce = Nonce::try_assume_unique_for_key(&head[1..]).map_err(|_| fault())?;
        let mut data = data.to_vec();
        let plain = self.seal.open_in_place(nonce, Aad::from(place), &mut data).map_err(|_| fault())?;
        Ok(plain.to_vec())
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Error::internal("the system has no randomness"))?;
    Ok(bytes)
}

/// A random secret of 256 bits, fit for URLs and headers.
pub(crate) fn random_token() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// Compares in a time that does not depend on where the first difference is.
pub(crate) fn same(left: &[u8], right: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(left, right).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(byte: u8) -> Vault {
        Vault::new(&Secret::new([byte; 32])).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_in_its_place_only() {
        let sealed = vault(1).seal(b"session-1", b"TOKEN=x").unwrap();
        assert_eq!(vault(1).open(b"session-1", &sealed).unwrap(), b"TOKEN=x");
        assert!(vault(1).open(b"session-2", &sealed).is_err());
        assert!(vault(2).open(b"session-1", &sealed).is_err());
        assert!(vault(1).open(b"session-1", &sealed[..5]).is_err());
    }

    #[test]
    fn a_digest_of_one_purpose_is_none_of_another() {
        let digest = |purpose| vault(1).digest(purpose, "same");
        assert_ne!(digest(Purpose::AgentKey), digest(Purpose::AgentClaim));
        assert_ne!(digest(Purpose::Refresh), digest(Purpose::Ticket));
        assert_ne!(digest(Purpose::Ticket), digest(Purpose::ApiKey));
        assert_ne!(digest(Purpose::Ticket), vault(2).digest(Purpose::Ticket, "same"));
        assert_ne!(vault(1).pepper_version(), vault(2).pepper_version());
    }
}
