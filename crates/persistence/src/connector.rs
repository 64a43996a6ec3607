//! How a connection to PostgreSQL is made: the one way for the pool, the migrator and every tool.
//!
//! What is never done here: falling back to a plain connection where the address asks for an encrypted one.

use std::{error::Error as StdError, io, path::PathBuf, time::Duration};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::AsyncPgConnection;
use percent_encoding::percent_decode_str;
use rustls::CertificateError;
use tidegate_model::Secret;
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    Error, Result,
    certificates::{Check, client_config},
};

/// The parameters of an address that speak of TLS; the driver knows only half of the first one's values.
const MODE: &str = "sslmode";
const CA_FILE: &str = "sslrootcert";

/// Until a connection is made.
const CONNECT: Duration = Duration::from_secs(10);
/// Until what was sent has arrived.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// Silence before the other side is asked whether it is there, how often, and how many times in vain.
const IDLE: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// Makes connections to one address. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    /// What certificates are held against, for sentences.
    ca_file: Option<PathBuf>,
}

impl Connector {
    /// Reads an address, `postgres://user:password@host/database?sslmode=verify-full&sslrootcert=/path`, and the file
    /// of its certificate authority.
    pub(crate) fn new(url: &Secret<String>) -> Result<Self> {
        let Address { rest, mode, ca_file } = Address::read(url.expose())?;
        let mut config: Config = rest.parse().map_err(Error::unavailable)?;
        let mode = mode_of(mode.as_deref(), ca_file.is_some(), is_local(&config))?;
        config.ssl_mode(mode.asks_driver_for());
        notice_silence(&mut config);
        let tls = client_config(mode.check(), ca_file.as_deref()).map_err(Error::unavailable)?;
        Ok(Self { config, tls: MakeRustlsConnect::new(tls), ca_file })
    }

    /// One new connection.
    pub(crate) async fn connect(&self) -> ConnectionResult<AsyncPgConnection> {
        let connected = self.config.connect(self.tls.clone()).await;
        let (client, connection) =
            connected.map_err(|error| ConnectionError::BadConnection(self.sentence(&error)))?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await
    }

    /// What went wrong, and where TLS did what to do about it.
    fn sentence(&self, error: &tokio_postgres::Error) -> String {
        let whole = chain(error);
        let host = self.host();
        if let Some(rustls::Error::InvalidCertificate(why)) = tls_error(error) {
            return self.refused(&host, why);
        }
        if whole.contains("does not support TLS") {
            return format!(
                "PostgreSQL at {host} does not offer TLS, which sslmode asks for: set `ssl = on` and a certificate there"
            );
        }
        whole
    }

    fn refused(&self, host: &str, why: &CertificateError) -> String {
        let refused = format!("the certificate of PostgreSQL at {host} is refused");
        match (why, &self.ca_file) {
            (CertificateError::UnknownIssuer | CertificateError::BadSignature, Some(file)) => {
                let file = file.display();
                format!(
                    "{refused}: it was not issued by the CA in {file}; name the right file in `database.ca_file` or sslrootcert"
                )
            }
            (CertificateError::UnknownIssuer | CertificateError::BadSignature, None) => format!(
                "{refused}: no CA this machine trusts has issued it; name its CA's file in `database.ca_file` or sslrootcert"
            ),
            (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }, _) => {
                format!(
                    "{refused}: it is for another name ({why}); write a name it is for as the address's host, or use sslmode=verify-ca"
                )
            }
            _ => format!("{refused}: {why}"),
        }
    }

    fn host(&self) -> String {
        let name = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        self.config.get_hosts().iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

/// A machine that is gone is noticed, and not only when the operating system gives up: after hours. What the address
/// says itself holds.
fn notice_silence(config: &mut Config) {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED);
    }
    if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
        config.keepalives_idle(IDLE).keepalives_interval(INTERVAL).keepalives_retries(RETRIES);
    }
}

/// An address without what the driver does not understand.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    rest: String,
    mode: Option<String>,
    ca_file: Option<PathBuf>,
}

impl Address {
    fn read(url: &str) -> Result<Self> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(Error::unavailable(
                "its address must have the form postgres://user:password@host/database",
            ));
        }
        // As the driver reads it: credentials up to the first @, then no question mark but the query's.
        let credentials = url.find('@').map_or(0, |at| at + 1);
        let Some(query) = url[credentials..].find('?').map(|at| credentials + at) else {
            return Ok(Self { rest: url.to_owned(), mode: None, ca_file: None });
        };
        let (mut kept, mut mode, mut ca_file) = (Vec::new(), None, None);
        for parameter in url[query + 1..].split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = || percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                MODE => mode = Some(value()),
                CA_FILE => ca_file = Some(PathBuf::from(value())),
                _ => kept.push(parameter),
            }
        }
        let mut rest = url[..query].to_owned();
        if !kept.is_empty() {
            rest.push('?');
            rest.push_str(&kept.join("&"));
        }
        Ok(Self { rest, mode, ca_file })
    }
}

/// How much is asked of the connection, as libpq names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    fn asks_driver_for(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }

    fn check(self) -> Check {
        match self {
            Self::Disable | Self::Prefer | Self::Require => Check::Nothing,
            Self::VerifyCa => Check::Issuer,
            Self::VerifyFull => Check::IssuerAndName,
        }
    }
}

fn mode_of(named: Option<&str>, has_ca_file: bool, local: bool) -> Result<Mode> {
    let mode = match named {
        // Nobody names a CA to have its certificates passed over.
        None if has_ca_file && !local => Mode::VerifyFull,
        None if local => Mode::Disable,
        None | Some("prefer") => Mode::Prefer,
        Some("disable") => Mode::Disable,
        // As libpq does it: with a CA at hand, its word is asked for.
        Some("require") if has_ca_file => Mode::VerifyCa,
        Some("require") => Mode::Require,
        Some("verify-ca") => Mode::VerifyCa,
        Some("verify-full") => Mode::VerifyFull,
        Some(other) => {
            return Err(Error::unavailable(format!(
                "sslmode={other} is not known: use disable, prefer, require, verify-ca or verify-full"
            )));
        }
    };
    match mode {
        Mode::Disable | Mode::Prefer if has_ca_file && !local => Err(Error::unavailable(
            "a CA is named, and sslmode=disable or prefer would not ask it: use verify-full, or name no CA",
        )),
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull if local => Err(Error::unavailable(
            "its address is a Unix socket, which has no TLS: leave sslmode out, or write a host name",
        )),
        mode => Ok(mode),
    }
}

fn is_local(config: &Config) -> bool {
    let hosts = config.get_hosts();
    !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_)))
}

/// `url` with `ca_file` as the CA's file, unless it names one itself: what the setting `database.ca_file` means.
#[must_use]
pub fn with_ca_file(url: &Secret<String>, ca_file: &std::path::Path) -> Secret<String> {
    let text = url.expose();
    match Address::read(text) {
        Ok(Address { ca_file: None, .. }) => {
            let encoded = percent_encoding::utf8_percent_encode(
                &ca_file.to_string_lossy(),
                percent_encoding::NON_ALPHANUMERIC,
            )
            .to_string();
            let credentials = text.find('@').map_or(0, |at| at + 1);
            let separator = if text[credentials..].contains('?') { '&' } else { '?' };
            Secret::new(format!("{text}{separator}{CA_FILE}={encoded}"))
        }
        // What is wrong with an address is said where it is used.
        _ => url.clone(),
    }
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The TLS library's error in a driver's; an `io::Error` shows its inside in a way of its own.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inside) => Some(inside),
            None => cause.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Address {
        Address::read(url).unwrap()
    }

    #[test]
    fn an_address_gives_up_what_the_driver_does_not_know_and_nothing_else() {
        let address = read(
            "postgres://a:b%3Fc?@h/d?sslmode=verify-full&application_name=x&sslrootcert=%2Fetc%2Fca+1.pem",
        );
        assert_eq!(address.rest, "postgres://a:b%3Fc?@h/d?application_name=x");
        assert_eq!(address.mode.as_deref(), Some("verify-full"));
        assert_eq!(address.ca_file, Some(PathBuf::from("/etc/ca+1.pem")));
        assert_eq!(read("postgres://h/d?sslmode=require").rest, "postgres://h/d");
        assert_eq!(read("postgres://h/d").rest, "postgres://h/d");
        Address::read("host=h sslmode=require").unwrap_err();
    }

    #[test]
    fn a_ca_file_is_added_to_an_address_that_names_none() {
        let ca = std::path::Path::new("/etc/pki/ca & co.pem");
        let added = |url: &str| with_ca_file(&Secret::new(url.to_owned()), ca).expose().clone();
        for url in ["postgres://a:b@h/d", "postgres://a:b@h/d?sslmode=require"] {
            assert_eq!(read(&added(url)).ca_file.as_deref(), Some(ca), "{url}");
        }
        let own = "postgres://h/d?sslrootcert=/mine";
        assert_eq!(added(own), own);
    }

    #[test]
    fn silence_is_noticed_unless_the_address_says_otherwise() {
        let config = |url: &str| Connector::new(&Secret::new(url.to_owned())).unwrap().config;
        let plain = config("postgres://h/d?sslmode=disable");
        assert_eq!(plain.get_tcp_user_timeout(), Some(&UNACKNOWLEDGED));
        assert_eq!((plain.get_keepalives_idle(), plain.get_connect_timeout()), (IDLE, Some(&CONNECT)));
        let own = config(
            "postgres://h/d?sslmode=disable&tcp_user_timeout=9000&keepalives_idle=60&connect_timeout=3",
        );
        assert_eq!(own.get_keepalives_idle(), Duration::from_mins(1));
        assert_eq!(own.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_ne!(own.get_tcp_user_timeout(), Some(&UNACKNOWLEDGED));
    }

    #[test]
    fn no_mode_is_weaker_than_what_was_asked_for() {
        let mode = |named, ca, local| mode_of(named, ca, local).ok();
        assert_eq!(mode(None, false, false), Some(Mode::Prefer));
        assert_eq!(mode(None, true, false), Some(Mode::VerifyFull));
        assert_eq!(mode(None, true, true), Some(Mode::Disable));
        assert_eq!(mode(Some("require"), false, false), Some(Mode::Require));
        assert_eq!(mode(Some("require"), true, false), Some(Mode::VerifyCa));
        assert_eq!(mode(Some("prefer"), true, false), None);
        assert_eq!(mode(Some("disable"), true, false), None);
        assert_eq!(mode(Some("verify-full"), true, true), None);
        assert_eq!(mode(Some("allow"), false, false), None);
        for strict in ["require", "verify-ca", "verify-full"] {
            assert_eq!(mode(Some(strict), true, false).unwrap().asks_driver_for(), SslMode::Require);
        }
    }
}
