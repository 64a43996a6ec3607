//! Requests to addresses that strangers name: never to this machine or its network unless an operator allows it, never
//! sent on by a redirect, bounded in time and size. What is checked are the addresses that are dialled.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use ipnet::IpNet;

use reqwest::{
    Client, Method, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::HeaderMap,
    redirect::Policy,
};
use tidegate_repositories::Guard;
use url::Host;

/// [`Guard`], asked by the HTTP client for every name it dials.
#[derive(Debug, Clone)]
struct Resolver(Arc<Guard>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            // The client puts its own port beside each address.
            let found = guard.resolve(&Host::Domain(name.as_str().to_owned()), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Makes such requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Egress {
    guard: Arc<Guard>,
    client: Client,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Egress {
    /// Lets through the internet and these networks.
    pub(crate) fn new(allowed: &[IpNet]) -> Result<Self, String> {
        let guard = Arc::new(Guard::new(allowed.to_vec()));
        let client = Client::builder()
            .tls_backend_preconfigured(tidegate_identity::tls()?)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Resolver(Arc::clone(&guard))))
            .pool_max_idle_per_host(2)
            .build()
            .map_err(|error| format!("the HTTP client of plugins cannot be set up: {error}"))?;
        Ok(Self { guard, client })
    }

    /// One request and its answer, of at most `most` bytes, within `time`.
    pub(crate) async fn send(
        &self,
        (method, url): (Method, Url),
        headers: HeaderMap,
        body: Vec<u8>,
        (most, time): (usize, Duration),
    ) -> Result<Answer, String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the address must begin with http:// or https://".to_owned());
        }
        // The resolver is not asked for what is an address already.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if let Some(address) = literal {
            self.guard.check(address).map_err(|refusal| refusal.to_string())?;
        }
        let sending = self.client.request(method, url).headers(headers).body(body).timeout(time).send();
        let mut response = sending.await.map_err(|error| plain(&error))?;
        let content_type = response.headers().get("content-type").and_then(|it| it.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        let (status, mut body) = (response.status().as_u16(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| plain(&error))? {
            if body.len() + chunk.len() > most {
                return Err(format!("the answer has more than {most} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, content_type, body })
    }
}

/// What went wrong, without the address, which may hold secrets.
fn plain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut said: &dyn StdError = error;
    while let Some(source) = said.source() {
        said = source;
    }
    let what = if error.is_connect() { "it cannot be reached" } else { "the request failed" };
    let said: String = said.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
    format!("{what}: {said}")
}
