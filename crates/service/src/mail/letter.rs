//! A mail as it goes out: one address, one subject of our own words, plain text and HTML.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
};
use tidegate_model::{MailId, validate_mailable};

use super::MailError;

/// A whole mail, ready for a [`super::Mailer`].
#[derive(Debug, Clone)]
pub struct Letter {
    pub(super) id: MailId,
    pub(super) message: Message,
}

/// What is said to whom.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) id: MailId,
    pub(super) to: &'a str,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
    pub(super) at: DateTime<Utc>,
}

/// Asks programs that answer mails by themselves not to (RFC 3834).
#[derive(Debug, Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".into())
    }
}

impl Letter {
    /// Puts it together. The Message-ID is made from the mail's own id, so that one that was sent twice is seen once.
    pub(super) fn new(from: &Mailbox, content: Content<'_>) -> Result<Self, MailError> {
        validate_mailable(content.to)
            .map_err(|_| MailError::Final("the address cannot be mailed to".into()))?;
        let unfit =
            |error: &dyn std::fmt::Display| MailError::Final(format!("it cannot be written: {error}"));
        let to: Address = content.to.parse().map_err(|error: lettre::address::AddressError| unfit(&error))?;
        let id = format!("<{}@{}>", content.id, from.email.domain());
        let message = Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, to))
            .subject(content.subject)
            .message_id(Some(id))
            .date(SystemTime::from(content.at))
            .header(AutoSubmitted)
            .multipart(MultiPart::alternative_plain_html(content.text, content.html))
            .map_err(|error| unfit(&error))?;
        Ok(Self { id: content.id, message })
    }

    /// Who it is for.
    pub fn to(&self) -> impl Iterator<Item = &str> {
        self.message.envelope().to().iter().map(AsRef::as_ref)
    }

    /// The whole text, headers first, as it goes over the wire.
    pub fn formatted(&self) -> Vec<u8> {
        self.message.formatted()
    }
}
