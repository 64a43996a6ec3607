//! The settings of mail.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use lettre::message::Mailbox;
use tidegate_model::{FieldErrors, Secret, validate_mailable};

use super::{FileOutbox, Mailer, Post, smtp::Smtp};

/// How mails go out. Without `smtp.host` each is written to a file of the folder `outbox` in the data folder.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailOptions {
    /// Who mails are from, for example `Tidegate <tidegate@example.org>`. Default, for files alone: `tidegate@localhost`.
    pub from: Option<String>,
    /// The mail server.
    pub smtp: SmtpOptions,
}

/// The mail server that takes mails.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmtpOptions {
    /// Its name; its certificate must be for it. Empty, the default, for no server.
    pub host: String,
    /// Default 465 with TLS `required`, 587 with `starttls`, 25 with `none`.
    pub port: Option<u16>,
    /// Whom to log in as. Without it nobody logs in.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret<String>>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// How the connection is encrypted. Default `required`.
    pub tls: SmtpTls,
    /// PEM certificate of the CA that the server has its certificate from, instead of the machine's CAs.
    pub ca_file: Option<PathBuf>,
    /// Longest time that one mail may take, 1 to 300. Default 30.
    pub timeout_seconds: u64,
}

impl Default for SmtpOptions {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: None,
            username: None,
            password: None,
            password_file: None,
            tls: SmtpTls::default(),
            ca_file: None,
            timeout_seconds: 30,
        }
    }
}

/// How the connection to a mail server is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// From the first byte on.
    #[default]
    Required,
    /// From `STARTTLS` on; a server that has none gets no mail.
    Starttls,
    /// Not at all: to a server on this very machine alone.
    None,
}

impl SmtpTls {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Starttls => "starttls",
            Self::None => "none",
        }
    }
}

impl SmtpOptions {
    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            SmtpTls::Required => 465,
            SmtpTls::Starttls => 587,
            SmtpTls::None => 25,
        })
    }

    fn is_set(&self) -> bool {
        !self.host.is_empty()
    }

    fn check(&self, errors: &mut FieldErrors) {
        let nothing = self.username.is_none() && self.password.is_none() && self.password_file.is_none();
        if !self.is_set() {
            if !nothing || self.port.is_some() || self.ca_file.is_some() {
                errors.add("mail.smtp.host", "must be set, the other settings of the mail server are");
            }
            return;
        }
        if !self.host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte)) {
            errors.add("mail.smtp.host", "must be a name or an address, without a port");
        }
        if self.tls == SmtpTls::None && !is_this_machine(&self.host) {
            errors.add(
                "mail.smtp.tls",
                "must be `required` or `starttls` unless the server is this very machine",
            );
        }
        let problem = match (&self.username, &self.password, &self.password_file) {
            (_, Some(_), Some(_)) => Some(("mail.smtp.password", "must not stand beside `password_file`")),
            (Some(_), None, None) => Some(("mail.smtp.password_file", "must be set beside `username`")),
            (None, Some(_), None) | (None, None, Some(_)) => {
                Some(("mail.smtp.username", "must be set beside the password"))
            }
            (Some(_), _, _) | (None, None, None) => None,
        };
        if let Some((name, what)) = problem {
            errors.add(name, what);
        }
        if !(1..=300).contains(&self.timeout_seconds) {
            errors.add("mail.smtp.timeout_seconds", "must be 1 to 300");
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl MailOptions {
    /// Complains about every setting that makes no sense. `public_url` is what the control plane says of itself.
    pub fn check(&self, public_url: Option<&str>) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::new();
        self.smtp.check(&mut errors);
        if let Err(complaint) = self.sender() {
            errors.add("mail.from", complaint);
        }
        if self.smtp.is_set() && public_url.is_none() {
            errors.add("public_url", "must be set beside `mail.smtp.host`: mails name it in their links");
        }
        errors.into_result()
    }

    /// Who mails are from.
    fn sender(&self) -> Result<Mailbox, &'static str> {
        const UNFIT: &str = "must be an address such as `Tidegate <tidegate@example.org>`";
        let text = match &self.from {
            Some(from) => from.as_str(),
            None if self.smtp.is_set() => return Err("must be set beside `mail.smtp.host`"),
            None => "Tidegate <tidegate@localhost>",
        };
        let plain = !text.chars().any(char::is_control);
        let from: Mailbox = text.parse().map_err(|_| UNFIT)?;
        let fits = plain && validate_mailable(from.email.as_ref()).is_ok();
        if fits { Ok(from) } else { Err(UNFIT) }
    }

    /// Gets everything ready that mails need. Links begin with `base`; files go to `data_dir`.
    pub fn open(&self, data_dir: &Path, base: &str) -> Result<Post, FieldErrors> {
        let from = self.sender().map_err(|complaint| FieldErrors::one("mail.from", complaint))?;
        let mailer: Arc<dyn Mailer> = if self.smtp.is_set() {
            Arc::new(Smtp::new(&self.smtp, from.email.domain())?)
        } else {
            Arc::new(FileOutbox::new(data_dir.join("outbox")))
        };
        Ok(Post {
            mailer,
            from,
            base: base.trim_end_matches('/').to_owned(),
            patience: self.smtp.timeout_seconds,
        })
    }
}
