//! Mails that go out: where each stands, and which addresses they may go to.

use crate::text_enum::text_enum;

text_enum! {
    /// Where a mail stands; all but pending are final.
    MailStatus, "mail status" {
        /// Waits for its first try or the next one.
        Pending = "pending",
        /// Taken by the mail server.
        Sent = "sent",
        /// Not needed any more, or for nobody who has an address.
        Dropped = "dropped",
        /// Given up.
        Failed = "failed",
    }
}

const NOT_MAILABLE: &str = "must be a plain address of ASCII characters, for example alice@example.com";

/// Whether a mail may go to an address. Narrower than what a user may have: no quoted names, no comments, no literals,
/// nothing that ends a line or a command.
pub fn validate_mailable(address: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&byte);
    let dotted = |text: &str, fits: &dyn Fn(u8) -> bool| {
        text.split('.').all(|part| (1..=63).contains(&part.len()) && part.bytes().all(fits))
    };
    let label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = address.split_once('@').is_some_and(|(name, domain)| {
        name.len() <= 64 && address.len() <= 254 && dotted(name, &word) && dotted(domain, &label)
    });
    if fits { Ok(()) } else { Err(NOT_MAILABLE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_addresses_are_mailed_to_and_nothing_that_could_end_a_line() {
        for good in
            ["a@b", "alice@example.com", "a.b+c_d@mail.example.co", "o'neil@x-y.example", "x@localhost"]
        {
            assert_eq!(validate_mailable(good), Ok(()), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a@b\r\nBcc: c@d",
            "a\n@b",
            "a\0@b",
            "a b@c",
            "<a@b>",
            "A <a@b>",
            "\"a\"@b",
            "a@[127.0.0.1]",
            "a@b..c",
            ".a@b",
            "a@b.",
            "ä@b",
            "a@ä",
            "a,c@b",
            "a(c)@b",
            "a@b>c",
            "a@b SIZE=1",
            &long,
        ] {
            assert!(validate_mailable(bad).is_err(), "{bad:?}");
        }
    }
}
