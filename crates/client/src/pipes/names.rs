//! What NATS knows a sender's keys by: nothing that others can work out. They say any name there, and what is sent under a
//! name that somebody said before is not stored.

use std::fmt;

use aws_lc_rs::hmac;

use crate::NatsAccess;

/// Makes names of keys.
pub(super) struct Names(Option<hmac::Key>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names([redacted])")
    }
}

impl Names {
    /// With what the control plane gave; an older one knows keys by themselves.
    pub(super) fn new(access: &NatsAccess) -> Self {
        let given = access.message_key.as_ref();
        Self(given.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())))
    }

    /// The name of a key. The control plane makes the same one of what is sent over HTTP.
    pub(super) fn name(&self, key: &str) -> String {
        self.0.as_ref().map_or_else(|| key.to_owned(), |names| hex::encode(hmac::sign(names, key.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_as_the_control_plane_makes_it_and_an_older_one_has_none() {
        let access = |more: &str| -> NatsAccess {
            let body = r#"{"jwt": "j", "nats_url": "nats://a", "account_id": "01970000-0000-7000-8000-000000000001",
                "account_name": "acme", "expires_at": "2026-01-01T00:00:00Z", "nats_user_jwt": "t",
                "nats_user_seed": "s", "inbox_prefix": "_INBOX""#;
            serde_json::from_str(&format!("{body}{more}}}")).unwrap()
        };
        let names = Names::new(&access(r#", "message_key": "a secret""#));
        assert_eq!(
            names.name("nightly-17"),
            "214665468c25283725529a60684cae365fb24b2cf88a30149dcb689df205002e"
        );
        assert_eq!(Names::new(&access("")).name("nightly-17"), "nightly-17");
        assert!(!format!("{names:?}").contains("secret"));
    }
}
