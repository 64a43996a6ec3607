//! What the mail about an invite says. Its headers hold names alone that cannot be anything but names; what people call
//! themselves stands in the body, if it can be nothing but a name there, either.

use askama::Template;
use tidegate_model::{InviteId, OrgRole};
use tidegate_persistence::mail::DueMail;

use super::{Letter, MailError, Post, letter::Content};

#[derive(Template)]
#[template(path = "invitation.txt")]
struct Text<'a> {
    said: &'a Invitation<'a>,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct Html<'a> {
    said: &'a Invitation<'a>,
}

struct Invitation<'a> {
    inviter: String,
    invitee: &'a str,
    organization: String,
    role: OrgRole,
    until: String,
    link: String,
}

/// Where an invite is looked at.
fn link(base: &str, id: InviteId) -> String {
    format!("{base}/invites/{id}")
}

/// Writes the mail about an invite.
pub(super) fn letter(post: &Post, due: &DueMail, to: &str) -> Result<Letter, MailError> {
    let (organization, inviter) = (&due.organization, &due.inviter);
    let said = Invitation {
        inviter: shown(&inviter.1, &inviter.0),
        invitee: &due.invitee,
        organization: shown(&organization.1, &organization.0),
        role: due.role,
        until: due.expires_at.format("%Y-%m-%d %H:%M UTC").to_string(),
        link: link(&post.base, due.invite_id),
    };
    let unfit = |error: askama::Error| MailError::Final(format!("it cannot be written: {error}"));
    let content = Content {
        id: due.id,
        to,
        subject: format!("{} invites you to {}", inviter.0, organization.0),
        text: Text { said: &said }.render().map_err(unfit)?,
        html: Html { said: &said }.render().map_err(unfit)?,
        at: due.created_at,
    };
    Letter::new(&post.from, content)
}

/// Longest name that people chose which is shown, in characters.
const LONGEST: usize = 100;

/// A name that people chose, with the plain one behind it; the plain one alone where the other could be taken for a link,
/// a line or anything else that is no name. Mail programs make links of whatever looks like one.
fn shown(chosen: &str, plain: &str) -> String {
    let mut before = ' ';
    let fits = chosen.chars().count() <= LONGEST
        && chosen.chars().all(|c| {
            let dot = before == '.' && !" ),".contains(c);
            before = c;
            !dot && (c.is_alphanumeric() || " .-'&,()_+!".contains(c))
        });
    if fits && chosen != plain && !chosen.trim().is_empty() {
        format!("{chosen} ({plain})")
    } else {
        plain.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_name_is_shown_if_it_is_a_name_and_nothing_else() {
        for good in ["Ada Lovelace", "J. R. Ünal", "O'Neil & Söhne (Acme Inc.)", "张伟", "A+B!"] {
            assert_eq!(shown(good, "ada"), format!("{good} (ada)"));
        }
        for bad in [
            "evil.example",
            "go to https://evil.example",
            "www.evil.example now",
            "a@evil.example",
            "Ada\r\nBcc: x@evil.example",
            "=?utf-8?q?=0d=0aBcc:_x?=",
            "<b>Ada</b>",
            "Ada\u{202e}",
            "Ada\0",
            "a\u{2028}b",
            "",
            "  ",
            &"a".repeat(101),
        ] {
            assert_eq!(shown(bad, "ada"), "ada", "{bad:?}");
        }
        assert_eq!(shown("ada", "ada"), "ada");
    }
}
