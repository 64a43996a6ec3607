//! The mailer with a mail server: one connection a mail, encrypted unless the server is this very machine.

use std::{path::Path, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    transport::smtp::{
        Error as SmtpError,
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
        extension::ClientId,
    },
};
use tidegate_model::{FieldErrors, Secret};

use super::{Letter, MailError, Mailer, Sending, SmtpOptions, SmtpTls};

/// Hands mails to a server.
pub(super) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    what: String,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Smtp {
    /// Reads what the options name. `domain` is how we call ourselves to the server.
    pub(super) fn new(options: &SmtpOptions, domain: &str) -> Result<Self, FieldErrors> {
        let port = options.port();
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(options.host.as_str())
            .port(port)
            .hello_name(ClientId::Domain(domain.to_owned()))
            .timeout(Some(Duration::from_secs(options.timeout_seconds)))
            .tls(tls(options)?);
        if let Some(username) = &options.username {
            let password = password(options)?;
            builder = builder.credentials(Credentials::new(username.clone(), password.into_inner()));
        }
        let (host, tls) = (&options.host, options.tls.as_str());
        Ok(Self {
            transport: builder.build(),
            what: format!("the mail server {host}, port {port}, TLS {tls}"),
        })
    }
}

fn tls(options: &SmtpOptions) -> Result<Tls, FieldErrors> {
    let wrap = match options.tls {
        SmtpTls::None => return Ok(Tls::None),
        SmtpTls::Required => Tls::Wrapper,
        // Never `Tls::Opportunistic`: whoever sits in between would say that the server has no STARTTLS.
        SmtpTls::Starttls => Tls::Required,
    };
    let mut builder = TlsParameters::builder(options.host.clone());
    if let Some(file) = &options.ca_file {
        let bad = |error: &dyn std::fmt::Display| {
            FieldErrors::one("mail.smtp.ca_file", format!("{} cannot be used: {error}", file.display()))
        };
        let pem = std::fs::read(file).map_err(|error| bad(&error))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| bad(&error))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    let parameters = builder.build_rustls();
    parameters
        .map(wrap)
        .map_err(|error| FieldErrors::one("mail.smtp.tls", format!("cannot be set up: {error}")))
}

fn password(options: &SmtpOptions) -> Result<Secret<String>, FieldErrors> {
    match (&options.password, &options.password_file) {
        (Some(password), _) => Ok(password.clone()),
        (None, Some(file)) => read(file),
        (None, None) => {
            Err(FieldErrors::one("mail.smtp.password_file", "must be set beside `mail.smtp.username`"))
        }
    }
}

fn read(file: &Path) -> Result<Secret<String>, FieldErrors> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        FieldErrors::one("mail.smtp.password_file", format!("{} cannot be read: {error}", file.display()))
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

impl Mailer for Smtp {
    fn describe(&self) -> String {
        self.what.clone()
    }

    fn check(&self) -> Sending<'_> {
        Box::pin(async {
            match self.transport.test_connection().await {
                Ok(true) => Ok(()),
                Ok(false) => Err(MailError::Passing("the mail server hung up".into())),
                Err(error) => Err(told(&error)),
            }
        })
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        Box::pin(async move {
            let (envelope, text) = (letter.message.envelope(), letter.message.formatted());
            self.transport.send_raw(envelope, &text).await.map(drop).map_err(|error| told(&error))
        })
    }
}

/// Refusals that are about us and not about the mail: a wrong password or a closed relay is set right by somebody.
const OURS: [&str; 6] = ["454", "502", "503", "530", "534", "535"];

/// What a server said is told by its code alone: its words may hold an address.
fn told(error: &SmtpError) -> MailError {
    match error.status().map(|code| code.to_string()) {
        Some(code) if error.is_permanent() && !OURS.contains(&code.as_str()) => {
            MailError::Final(format!("the mail server refused it with {code}"))
        }
        Some(code) => MailError::Passing(format!("the mail server cannot take it now: {code}")),
        None => MailError::Passing(format!("the mail server cannot be spoken to: {error}")),
    }
}
