//! What the mail for a forgotten password says. The name in it is a username: it can be nothing but a name.

use askama::Template;
use chrono::{DateTime, Utc};
use tidegate_model::MailId;

use super::{Letter, MailError, Post, letter::Content};
use crate::password_resets::Armed;

#[derive(Template)]
#[template(path = "password_reset.txt")]
struct Text<'a> {
    said: &'a Forgotten<'a>,
}

#[derive(Template)]
#[template(path = "password_reset.html")]
struct Html<'a> {
    said: &'a Forgotten<'a>,
}

struct Forgotten<'a> {
    username: &'a str,
    until: String,
    link: String,
}

/// Writes the mail. Each try brings a link of its own, so each is a mail of its own.
pub(super) fn letter(post: &Post, armed: &Armed, at: DateTime<Utc>) -> Result<Letter, MailError> {
    let said = Forgotten {
        username: &armed.owner.username,
        until: armed.expires_at.format("%Y-%m-%d %H:%M UTC").to_string(),
        link: format!("{}/password/new?token={}", post.base, armed.token),
    };
    let unfit = |error: askama::Error| MailError::Final(format!("it cannot be written: {error}"));
    let content = Content {
        id: MailId::new(),
        to: &armed.owner.email,
        subject: "A new password for Tidegate".into(),
        text: Text { said: &said }.render().map_err(unfit)?,
        html: Html { said: &said }.render().map_err(unfit)?,
        at,
    };
    Letter::new(&post.from, content)
}
