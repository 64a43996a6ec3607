//! Requests to providers: bounded in time and size, and never sent on by a redirect.

use std::{sync::Arc, time::Duration};

use oauth2::{HttpRequest, HttpResponse};
use reqwest::{
    Client, Request, Response,
    header::{ACCEPT, HeaderMap, HeaderValue},
    redirect::Policy,
};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use rustls_platform_verifier::Verifier;
use serde::de::DeserializeOwned;
use tidegate_model::Secret;
use url::Url;

use crate::{Error, Result};

/// Bytes of one answer.
const LARGEST: usize = 256 * 1024;
const CONNECT: Duration = Duration::from_secs(3);
const WHOLE: Duration = Duration::from_secs(8);

/// Dials providers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Web(Client);

impl Web {
    pub(crate) fn new() -> Result<Self, String> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls()?)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            // A redirect would carry code and secret to wherever it points.
            .redirect(Policy::none())
            .build()
            .map_err(|error| format!("the HTTP client of sign-in cannot be set up: {error}"))?;
        Ok(Self(client))
    }

    /// A JSON document.
    pub(crate) async fn document<T: DeserializeOwned>(&self, url: &Url) -> Result<T> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        self.read(url, headers).await
    }

    /// A JSON document that is shown to the bearer of a token.
    pub(crate) async fn shown<T: DeserializeOwned>(
        &self,
        url: &Url,
        accept: &'static str,
        token: &Secret<String>,
    ) -> Result<T> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| Error::Refused("its token cannot be sent"))?;
        bearer.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static(accept)),
            (reqwest::header::AUTHORIZATION, bearer),
        ]);
        self.read(url, headers).await
    }

    async fn read<T: DeserializeOwned>(&self, url: &Url, headers: HeaderMap) -> Result<T> {
        let response = self.0.get(url.clone()).headers(headers).send().await.map_err(Error::unavailable)?;
        let response = sound(response)?;
        if !response.status().is_success() {
            return Err(Error::Refused("a document of its own was refused to us"));
        }
        let body = whole(response).await?;
        serde_json::from_slice(&body).map_err(|_| Error::Refused("a document of its own cannot be read"))
    }

    /// A request of the `oauth2` crate's.
    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let request = Request::try_from(request).map_err(Error::unavailable)?;
        let response = sound(self.0.execute(request).await.map_err(Error::unavailable)?)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut answer = HttpResponse::new(whole(response).await?);
        (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
        Ok(answer)
    }
}

/// Refuses what is no answer: a fault of the provider's, or a way to somewhere else.
fn sound(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_server_error() || status.as_u16() == 429 {
        return Err(Error::unavailable(format!("it answers {status}")));
    }
    if status.is_redirection() {
        return Err(Error::Refused("it sends us somewhere else"));
    }
    Ok(response)
}

async fn whole(mut response: Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::unavailable)? {
        if body.len() + chunk.len() > LARGEST {
            return Err(Error::Refused("its answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// How clients of ours speak TLS: trusts the machine's certificate authorities; on a machine without any, nobody, and loopback goes on working.
pub fn tls() -> Result<ClientConfig, String> {
    // Fails only when another part of the process was first, and then that one is used.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let provider = CryptoProvider::get_default()
        .map_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()), Arc::clone);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(match Verifier::new(provider) {
        Ok(verifier) => builder
            .dangerous() // Not so here: the verifier is the platform's own.
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "no certificate authority to trust: no provider can be reached by https");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    })
}
