//! Downloading an archive: every hop is looked at before it is dialled, what was checked is what is dialled, and what
//! one server is asked with is not told to another.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{
        AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
        LOCATION,
    },
    redirect::Policy,
};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use rustls_platform_verifier::Verifier;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use url::{Host, Url};

use crate::{Credential, Error, Options, Step, egress::Guard, fetch::Tell};

/// Servers that one download goes by at most.
const HOPS: usize = 5;
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);

/// What the server said of an archive, so that the same one is not sent twice.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Remembered {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// Whether there is something new.
pub(crate) enum Download {
    New(Remembered),
    Unchanged,
}

/// The host, port and checked addresses of a URL.
pub(crate) async fn dialled(guard: &Guard, url: &Url) -> Result<(Host<String>, u16, Vec<SocketAddr>), Error> {
    let host = url.host().ok_or_else(|| Error::refused("it names no host"))?.to_owned();
    let port = url.port_or_known_default().ok_or_else(|| Error::refused("it names no port"))?;
    let addresses = guard.resolve(&host, port).await.map_err(|it| Error::refused(it.to_string()))?;
    let in_clear = url.scheme() != "https";
    if in_clear && !addresses.iter().all(|address| guard.is_allowed_privately(address.ip())) {
        return Err(Error::refused(
            "http: is for private networks that are allowed; elsewhere it must be https:",
        ));
    }
    Ok((host, port, addresses))
}

/// Downloads into a file, unless it is what is remembered.
pub(crate) async fn download(
    from: &Url,
    credential: &Credential,
    guard: &Guard,
    options: &Options,
    remembered: Option<Remembered>,
    into: &Path,
    tell: &Tell,
) -> Result<Download, Error> {
    let known = remembered.filter(|known| known.url == from.as_str()).unwrap_or_default();
    let response = follow(from, credential, guard, &known).await?;
    match response.status() {
        StatusCode::NOT_MODIFIED if known.etag.is_some() || known.last_modified.is_some() => {
            return Ok(Download::Unchanged);
        }
        status if status.is_success() => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(Error::refused(
                "the server refused what it was asked with: check the secret, and whether it may read this archive",
            ));
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            return Err(Error::refused(
                "there is no archive at this address, or it may not be read with this secret",
            ));
        }
        status => return Err(Error::refused(format!("the server answers {status}"))),
    }
    let header =
        |name| response.headers().get(name).and_then(|it: &HeaderValue| it.to_str().ok()).map(str::to_owned);
    let next = Remembered { url: from.to_string(), etag: header(ETAG), last_modified: header(LAST_MODIFIED) };
    write(response, into, options, tell).await?;
    Ok(Download::New(next))
}

async fn follow(
    from: &Url,
    credential: &Credential,
    guard: &Guard,
    known: &Remembered,
) -> Result<Response, Error> {
    let mut url = from.clone();
    let tls = tls()?;
    for _ in 0..HOPS {
        let (host, _, addresses) = dialled(guard, &url).await?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .no_proxy()
            .redirect(Policy::none())
            .resolve_to_addrs(&host.to_string(), &addresses)
            .build()
            .map_err(|_| Error::refused("the HTTP client cannot be set up"))?;
        let headers = headers(from, &url, credential, known)?;
        let response =
            client.get(url.clone()).headers(headers).send().await.map_err(|it| unreachable(&it))?;
        if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let nowhere = || Error::refused("the server sends on to no address");
        let location =
            response.headers().get(LOCATION).and_then(|it| it.to_str().ok()).ok_or_else(nowhere)?;
        let next = url.join(location).map_err(|_| nowhere())?;
        if !matches!(next.scheme(), "https" | "http") || (url.scheme() == "https" && next.scheme() == "http")
        {
            return Err(Error::refused("the server sends on to an address that is not https:"));
        }
        url = next;
    }
    Err(Error::refused(format!("the server sends on more than {HOPS} times")))
}

fn headers(from: &Url, to: &Url, credential: &Credential, known: &Remembered) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    if from.origin() == to.origin()
        && let Some(authorization) = credential.for_http()
    {
        let mut value = HeaderValue::from_str(authorization.expose())
            .map_err(|_| Error::refused("the secret holds characters that cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for (name, text) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)] {
        if let Some(value) = text.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

async fn write(mut response: Response, into: &Path, options: &Options, tell: &Tell) -> Result<(), Error> {
    let mut file = tokio::fs::File::create(into).await?;
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.map_err(|it| unreachable(&it))? {
        bytes += chunk.len() as u64;
        if bytes > options.bytes() {
            let most = options.max_mebibytes;
            return Err(Error::refused(format!(
                "it has more than the {most} MiB that are fetched of one repository"
            )));
        }
        file.write_all(&chunk).await?;
        tell(Step::Fetching { bytes });
    }
    Ok(file.flush().await?)
}

fn unreachable(error: &reqwest::Error) -> Error {
    Error::refused(if error.is_timeout() {
        "the server did not answer in time"
    } else if error.is_connect() {
        "the server cannot be reached, or its certificate is not trusted"
    } else {
        "the server ended the connection"
    })
}

/// Trusts the machine's certificate authorities; on a machine without any, nobody.
fn tls() -> Result<ClientConfig, Error> {
    // Fails only when another part of the process was first, and then that one is used.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let provider = CryptoProvider::get_default()
        .map_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()), Arc::clone);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::refused("TLS cannot be set up"))?;
    Ok(match Verifier::new(provider) {
        Ok(verifier) => builder
            .dangerous() // Not so here: the verifier is the platform's own.
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
        Err(_) => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
    })
}
