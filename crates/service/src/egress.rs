//! Requests to addresses that strangers name: never to this machine or its network unless an operator allows it, never
//! sent on by a redirect, bounded in time and size. What is checked are the addresses that are dialled.

use std::{
    error::Error as StdError,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Client, Method, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::HeaderMap,
    redirect::Policy,
};

/// A network by its first bits, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: u128,
    mask: u128,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.base
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let complaint = "must be an address or a network such as 10.0.0.0/8";
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| complaint)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| complaint)?;
        let (whole, shift) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let length = length.unwrap_or(whole);
        if length > whole {
            return Err(complaint);
        }
        let mask = u128::MAX.checked_shl(128 - (length + shift)).unwrap_or(0);
        Ok(Self { base: bits(address) & mask, mask })
    }
}

impl<'de> serde::Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Networks that no server of the internet has.
const PRIVATE_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Whether an address may be a server's of the internet. One that carries an IPv4 address is as public as that.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !PRIVATE_V4
            .iter()
            .any(|(base, length)| (address.to_bits() ^ base.to_bits()).leading_zeros() >= *length),
        IpAddr::V6(address) => {
            if let Some(inner) = carried(address) {
                return is_public(IpAddr::V4(inner));
            }
            // 2000::/3, less Teredo, ORCHID, benchmarking (2001::/23) and documentation.
            let [first, second, ..] = address.segments();
            first & 0xe000 == 0x2000
                && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
                && !(first == 0x3fff && second < 0x1000)
        }
    }
}

/// The IPv4 address behind a translator (RFC 6052) or inside of 6to4 (RFC 3056).
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

/// What may be dialled.
#[derive(Debug, Clone)]
struct Guard(Arc<[Network]>);

impl Guard {
    fn check(&self, address: IpAddr) -> Result<(), String> {
        let allowed = self.0.iter().any(|network| network.contains(address.to_canonical()));
        if allowed || is_public(address) {
            return Ok(());
        }
        Err(format!(
            "{address} is an address of this machine or of its network, which is not dialled unless an operator allows it"
        ))
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One that is not to be dialled refuses them all: whoever names both means no good.
            for address in &found {
                guard.check(address.ip()).map_err(Box::<dyn StdError + Send + Sync>::from)?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Makes such requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Egress {
    guard: Guard,
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
    pub(crate) fn new(allowed: &[Network]) -> Result<Self, String> {
        let guard = Guard(allowed.into());
        let client = Client::builder()
            .tls_backend_preconfigured(tidegate_identity::tls()?)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(guard.clone()))
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
        let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        if let Some(address) = literal {
            self.guard.check(address)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_dialled() {
        let guard = Guard(Arc::new([]));
        for private in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "::127.0.0.1",
        ] {
            assert!(guard.check(private.parse().unwrap()).is_err(), "{private}");
        }
        for public in ["1.1.1.1", "140.82.112.3", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"] {
            assert_eq!(guard.check(public.parse().unwrap()), Ok(()), "{public}");
        }
    }

    #[test]
    fn an_allowed_network_is_dialled_however_its_address_is_written() {
        let guard = Guard(Arc::new(["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]));
        for allowed in ["10.9.9.9", "::ffff:10.9.9.9", "::1"] {
            assert_eq!(guard.check(allowed.parse().unwrap()), Ok(()), "{allowed}");
        }
        assert!(guard.check("192.168.0.1".parse().unwrap()).is_err());
        assert!(guard.check("::2".parse().unwrap()).is_err());
        for wrong in ["10.0.0.0/33", "10.0.0/8", "a", "::/129", ""] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
    }
}
