//! Where the control plane is, whom to take for it, and how the agent shows who it is.

use std::{path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use tidegate_client::tls_config_as;
use tidegate_protocol::API_KEY_HEADER;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{self, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig},
};
use url::Url;

use crate::{
    Error, Options,
    files::{read_line, write_private},
};

/// A WebSocket to the control plane.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why a WebSocket could not be opened.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The answer was this status.
    Status(u16),
    /// There was no answer.
    Unreachable(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Unreachable(reason) => write!(f, "cannot be reached: {reason}"),
        }
    }
}

/// An address of the control plane's API.
pub(crate) fn address(server: &Url, path: &str, scheme: [&str; 2]) -> Result<Url, Error> {
    let mut url = server.clone();
    let wanted = match server.scheme() {
        "http" | "ws" => scheme[0],
        "https" | "wss" => scheme[1],
        other => {
            return Err(Error::Setting(format!(
                "the server's address begins with {other}, not http or https"
            )));
        }
    };
    // The url crate changes no scheme between special and others; these four are all special.
    let _ = url.set_scheme(wanted);
    url.set_path(&format!("{}/api/v1/{path}", server.path().trim_end_matches('/')));
    url.set_query(None);
    Ok(url)
}

/// What everything needs that dials the control plane: registration, link and tunnels trust the same certificates.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) options: Arc<Options>,
    pub(crate) keys: Keys,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Dial {
    /// Reads the CA file; what is wrong with it is said at the start.
    pub(crate) fn new(options: Arc<Options>, keys: Keys) -> Result<Self, Error> {
        let extra = match &options.ca_file {
            Some(path) => std::fs::read(path).map_err(Error::file("read", path))?,
            None => Vec::new(),
        };
        let own = match &options.client_cert {
            Some((cert, key)) => {
                let read = |path: &PathBuf| std::fs::read(path).map_err(Error::file("read", path));
                Some((read(cert)?, read(key)?))
            }
            None => None,
        };
        let own = own.as_ref().map(|(cert, key)| (cert.as_slice(), key.as_slice()));
        let secure = matches!(options.server.scheme(), "https" | "wss");
        // Without TLS nothing is to be trusted, and a machine without any certificate is good enough.
        let tls = if secure || options.ca_file.is_some() {
            tls_config_as(&extra, own).map_err(|error| Error::Setting(error.to_string()))?
        } else {
            trusts_nobody()?
        };
        Ok(Self { options, keys, tls })
    }

    /// Opens a WebSocket with the agent's own key. Small frames leave at once.
    pub(crate) async fn socket(
        &self,
        url: &Url,
        key: &str,
        config: WebSocketConfig,
    ) -> Result<Socket, Refusal> {
        let unreachable = |error: &dyn std::fmt::Display| Refusal::Unreachable(error.to_string());
        let mut request = url.as_str().into_client_request().map_err(|error| unreachable(&error))?;
        let mut value = HeaderValue::from_str(key).map_err(|error| unreachable(&error))?;
        value.set_sensitive(true);
        request.headers_mut().insert(API_KEY_HEADER, value);
        let connector = Connector::Rustls(Arc::clone(&self.tls));
        let secure = url.scheme() == "wss";
        let connector = if secure { connector } else { Connector::Plain };
        match connect_async_tls_with_config(request, Some(config), true, Some(connector)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => Err(Refusal::Status(response.status().as_u16())),
            Err(error) => Err(unreachable(&error)),
        }
    }
}

fn trusts_nobody() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setting(format!("TLS cannot be set up: {error}")))?;
    Ok(Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

/// The agent's own key and its claim to one, in files only the agent may read.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    folder: PathBuf,
}

impl Keys {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where an operator may put a key.
    pub(crate) fn key_path(&self) -> PathBuf {
        self.folder.join("agent.key")
    }

    /// The agent's own key, read anew: an operator may have put it there.
    pub(crate) fn key(&self) -> Result<Option<String>, Error> {
        let plain = |key: &String| {
            key.len() == 64 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let key = read_line(&self.key_path())?;
        if key.as_ref().is_some_and(|key| !plain(key)) {
            tracing::warn!(file = %self.key_path().display(), "the key is not 64 lower-case hexadecimal digits, so it is ignored");
        }
        Ok(key.filter(plain))
    }

    pub(crate) fn keep_key(&self, key: &str) -> Result<(), Error> {
        write_private(&self.key_path(), key.as_bytes())
    }

    pub(crate) fn claim(&self) -> Result<Option<String>, Error> {
        read_line(&self.folder.join("claim.token"))
    }

    pub(crate) fn keep_claim(&self, token: &str) -> Result<(), Error> {
        write_private(&self.folder.join("claim.token"), token.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_the_servers_path_and_follow_its_security() {
        let ws = |server: &str| {
            address(&server.parse().unwrap(), "agents/connect", ["ws", "wss"]).unwrap().to_string()
        };
        assert_eq!(ws("http://localhost:8080"), "ws://localhost:8080/api/v1/agents/connect");
        assert_eq!(ws("https://example.org/tide/?x=1"), "wss://example.org/tide/api/v1/agents/connect");
        assert!(address(&"ftp://x".parse().unwrap(), "", ["ws", "wss"]).is_err());
    }
}
