//! What is sent under a key is known to NATS by a name that its sender alone can work out. Everybody's own client says any
//! name there, and whoever guessed one beforehand would swallow what is sent under it.

use aws_lc_rs::hmac;
use tidegate_model::{OrgId, UserId};

use crate::{Core, secrets::Purpose};

/// What a member's clients make those names with: the same for all their credentials, so that a repeat is known whichever of
/// them brings it, over HTTP or not.
pub(super) fn secret(core: &Core, org: OrgId, sender: UserId) -> String {
    let of = [org.as_uuid().into_bytes(), sender.as_uuid().into_bytes()].concat();
    hex::encode(core.vault.digest_bytes(Purpose::MessageKey, &of))
}

/// The name of a key. The client crate makes the same one.
pub(super) fn name(secret: &str, key: &str) -> String {
    let made_with = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(hmac::sign(&made_with, key.as_bytes()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_made_as_clients_make_it() {
        let name = super::name("a secret", "nightly-17");
        assert_eq!(name, "214665468c25283725529a60684cae365fb24b2cf88a30149dcb689df205002e");
    }
}
