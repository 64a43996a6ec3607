//! Where a request comes from: the peer, or what a trusted proxy says of it.

use std::{fmt, net::IpAddr, str::FromStr};

use actix_web::HttpRequest;

use super::Context;

/// An address or a range of addresses, `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyRange {
    base: IpAddr,
    bits: u8,
}

impl ProxyRange {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for ProxyRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let complaint = || format!("`{text}` must be an address or a range such as 10.0.0.0/8");
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| complaint())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| complaint())?;
        if bits <= most { Ok(Self { base, bits }) } else { Err(complaint()) }
    }
}

impl fmt::Display for ProxyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// The header in which the trusted proxies say for whom they ask. One alone is believed: a proxy passes the other one on
/// as its client wrote it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For: 203.0.113.9, 10.0.0.1`.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=203.0.113.9, for="[2001:db8::1]:4711"` (RFC 7239).
    Forwarded,
}

/// The address a request comes from.
pub(crate) fn source(request: &HttpRequest, context: &Context) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let name = match context.proxy_header {
        ProxyHeader::XForwardedFor => "X-Forwarded-For",
        ProxyHeader::Forwarded => "Forwarded",
    };
    let said: Vec<&str> =
        request.headers().get_all(name).map(|value| value.to_str().unwrap_or_default()).collect();
    Some(believed(peer, &said, context.proxy_header, &context.proxies))
}

/// Who asks: the peer, unless it is a proxy of ours; then whom it names, and so on. From the nearest hop on, the first
/// one that is no proxy of ours is as far as anybody can be believed.
fn believed(peer: IpAddr, said: &[&str], header: ProxyHeader, proxies: &[ProxyRange]) -> IpAddr {
    let trusted = |address: IpAddr| proxies.iter().any(|range| range.contains(address));
    let mut last = peer;
    if !trusted(peer) {
        return peer;
    }
    for hop in said.iter().rev().flat_map(|line| line.rsplit(',')) {
        let named = match header {
            ProxyHeader::XForwardedFor => Some(hop),
            ProxyHeader::Forwarded => named_in(hop),
        };
        let Some(address) = named.and_then(address_of) else { return last };
        last = address.to_canonical();
        if !trusted(last) {
            return last;
        }
    }
    last
}

/// The `for` of one element of `Forwarded`.
fn named_in(element: &str) -> Option<&str> {
    let named = |pair: &str| {
        let (name, _) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(())
    };
    let pair = element.split(';').find(|pair| named(pair).is_some())?;
    Some(pair.split_once('=')?.1.trim().trim_matches('"'))
}

/// An address, with or without its port.
fn address_of(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Some((inside, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside.parse().map(IpAddr::V6).ok();
    }
    text.parse().ok().or_else(|| text.parse().ok().map(|with_port: std::net::SocketAddr| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let range: ProxyRange = "10.1.0.0/16".parse().unwrap();
        assert!(range.contains("10.1.2.3".parse().unwrap()));
        assert!(range.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!range.contains("10.2.0.0".parse().unwrap()));
        let one: ProxyRange = "::1".parse().unwrap();
        assert!(one.contains("::1".parse().unwrap()) && !one.contains("::2".parse().unwrap()));
        let all: ProxyRange = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.9".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "::1/129", "host", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(text.parse::<ProxyRange>().is_err(), "{text}");
        }
    }

    fn seen(peer: &str, said: &[&str], header: ProxyHeader) -> String {
        let proxies: Vec<ProxyRange> =
            ["10.0.0.0/8", "2001:db8::/32"].iter().map(|range| range.parse().unwrap()).collect();
        believed(peer.parse().unwrap(), said, header, &proxies).to_string()
    }

    #[test]
    fn nobody_but_a_trusted_proxy_says_where_a_request_comes_from() {
        let xff = ProxyHeader::XForwardedFor;
        assert_eq!(seen("203.0.113.1", &["198.51.100.1"], xff), "203.0.113.1", "a stranger's header");
        assert_eq!(seen("10.0.0.1", &[], xff), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1"], xff), "198.51.100.1");
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.9"], xff),
            "198.51.100.1",
            "before it anybody writes"
        );
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1", "198.51.100.1"], xff),
            "198.51.100.1",
            "in lines of their own"
        );
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, nonsense"], xff), "10.0.0.1", "what cannot be read ends it");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1:4711"], xff), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["::ffff:198.51.100.1"], xff), "198.51.100.1", "one address, one limit");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let forwarded = ProxyHeader::Forwarded;
        let said = ["for=1.1.1.1", "proto=https;For=\"198.51.100.1:80\";by=10.0.0.1, for=10.0.0.9"];
        assert_eq!(seen("10.0.0.1", &said, forwarded), "198.51.100.1");
        assert_eq!(seen("2001:db8::1", &["for=\"[2001:470::9]:4711\""], forwarded), "2001:470::9");
        for hidden in ["for=unknown", "for=_secret", "proto=https", "198.51.100.1", ""] {
            assert_eq!(seen("10.0.0.1", &[hidden], forwarded), "10.0.0.1", "{hidden}");
        }
        assert_eq!(seen("203.0.113.1", &["for=198.51.100.1"], forwarded), "203.0.113.1");
    }
}
