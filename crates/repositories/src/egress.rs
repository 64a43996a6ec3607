//! The guard of what is dialled: addresses of the machine itself, of its network and of clouds' metadata services are
//! refused unless they are allowed. Whoever dials asks here for the addresses, and dials these and no others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Host;

/// Networks of IPv4 that no server of the internet has.
const V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];
/// Where servers of the internet are in IPv6.
const GLOBAL: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// Networks inside of it that none has: documentation, Teredo and ORCHID among them.
const V6: [Ipv6Net; 3] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

const fn v4(base: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(base[0], base[1], base[2], base[3]), bits)
}

const fn v6(s: [u16; 8], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), bits)
}

/// Why something is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name stands for no address.
    #[error("the name {0} stands for no address")]
    Unknown(String),
    /// The address is one that only this machine or its network has.
    #[error(
        "{0} is an address of this machine or of its network, which is not dialled unless an operator allows it"
    )]
    Private(IpAddr),
}

/// Which private networks may be dialled.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    /// One that lets through the internet and these networks.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether an address may be dialled.
    pub fn check(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.is_allowed_privately(address) || is_public(address) {
            Ok(())
        } else {
            Err(Refusal::Private(address))
        }
    }

    /// Whether it is in one of the networks that were allowed by name.
    pub fn is_allowed_privately(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|network| network.contains(&address))
    }

    /// The addresses of a host, every one of them checked: what is dialled must be one of these.
    pub async fn resolve(&self, host: &Host<String>, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
        let addresses: Vec<SocketAddr> = match host {
            Host::Ipv4(address) => vec![SocketAddr::from((*address, port))],
            Host::Ipv6(address) => vec![SocketAddr::from((*address, port))],
            Host::Domain(name) => tokio::net::lookup_host((name.as_str(), port))
                .await
                .map_err(|_| Refusal::Unknown(name.clone()))?
                .collect(),
        };
        if addresses.is_empty() {
            return Err(Refusal::Unknown(host.to_string()));
        }
        for address in &addresses {
            self.check(address.ip())?;
        }
        Ok(addresses)
    }
}

/// Whether an address may be a server's of the internet. One that carries an IPv4 address is as public as that.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => match carried(address) {
            Some(inner) => is_public(IpAddr::V4(inner)),
            None => GLOBAL.contains(&address) && !V6.iter().any(|network| network.contains(&address)),
        },
    }
}

/// The IPv4 address behind a translator (RFC 6052) or inside of 6to4 (RFC 3056).
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_dialled() {
        let guard = Guard::default();
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
            let address = private.parse().unwrap();
            assert_eq!(guard.check(address), Err(Refusal::Private(address)), "{private}");
        }
        for public in ["1.1.1.1", "140.82.112.3", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"] {
            assert_eq!(guard.check(public.parse().unwrap()), Ok(()), "{public}");
        }
    }

    #[test]
    fn an_allowed_network_is_dialled_however_its_address_is_written() {
        let guard = Guard::new(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for allowed in ["10.9.9.9", "::ffff:10.9.9.9", "::1"] {
            assert_eq!(guard.check(allowed.parse().unwrap()), Ok(()), "{allowed}");
        }
        assert!(guard.check("192.168.0.1".parse().unwrap()).is_err());
        assert!(guard.check("::2".parse().unwrap()).is_err());
        let all_of_ipv4 = Guard::new(vec!["0.0.0.0/0".parse().unwrap()]);
        assert!(all_of_ipv4.is_allowed_privately("1.2.3.4".parse().unwrap()));
        assert!(!all_of_ipv4.is_allowed_privately("::1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_name_is_refused_for_one_of_its_addresses() {
        let refused = Guard::default().resolve(&Host::Domain("localhost".into()), 443).await;
        assert!(matches!(refused, Err(Refusal::Private(_))), "{refused:?}");
        let unknown = Guard::default().resolve(&Host::Domain("no-such-host.invalid".into()), 443).await;
        assert_eq!(unknown, Err(Refusal::Unknown("no-such-host.invalid".into())));
    }
}
