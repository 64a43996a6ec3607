//! Refresh tokens: each says which login it is of, and proves that we made it. So every one that was ever given out is
//! known again, however many came after it, without a row for each.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tidegate_model::{LoginSessionId, Secret};
use uuid::Uuid;

use crate::{
    Result,
    secrets::{Purpose, Vault, random, same},
};

/// The login's id, what makes each token another one, and the proof over both.
const ID: usize = 16;
const NONCE: usize = 16;
const TAG: usize = 32;

/// A fresh token of a login. It is random and no count: a guess is as good as none, even for whoever has seen others.
pub(crate) fn make(vault: &Vault, login: LoginSessionId) -> Result<String> {
    let claim = [login.as_uuid().as_bytes().as_slice(), &random::<NONCE>()?].concat();
    let tag = vault.digest_bytes(Purpose::RefreshTag, &claim);
    Ok(URL_SAFE_NO_PAD.encode([claim, tag].concat()))
}

/// Which login a token was made for; none for one that we did not make. Whether it is good is said by the login's row:
/// tokens of versions before this one carry no login, and are known by their digest alone.
pub(crate) fn login_of(vault: &Vault, token: &Secret<String>) -> Option<LoginSessionId> {
    let bytes = URL_SAFE_NO_PAD.decode(token.expose()).ok()?;
    if bytes.len() != ID + NONCE + TAG {
        return None;
    }
    let (claim, tag) = bytes.split_at(ID + NONCE);
    if !same(&vault.digest_bytes(Purpose::RefreshTag, claim), tag) {
        return None;
    }
    Uuid::from_slice(&claim[..ID]).ok().map(LoginSessionId::from_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(byte: u8) -> Vault {
        Vault::new(&Secret::new([byte; 32])).unwrap()
    }

    #[test]
    fn a_token_names_its_login_to_whoever_made_it() {
        let login = LoginSessionId::new();
        let (one, two) = (make(&vault(1), login).unwrap(), make(&vault(1), login).unwrap());
        assert_ne!(one, two);
        assert_eq!(login_of(&vault(1), &Secret::new(one.clone())), Some(login));
        assert_eq!(login_of(&vault(2), &Secret::new(one.clone())), None);
        let mut forged = URL_SAFE_NO_PAD.decode(one).unwrap();
        forged[..ID].copy_from_slice(LoginSessionId::new().as_uuid().as_bytes());
        assert_eq!(login_of(&vault(1), &Secret::new(URL_SAFE_NO_PAD.encode(forged))), None);
        for odd in ["", "made up", "AAAA"] {
            assert_eq!(login_of(&vault(1), &Secret::new(odd.into())), None);
        }
    }
}
