//! Ports for servers that a test starts as programs of their own.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::{Ipv4Addr, TcpListener},
};

/// Below those that the kernel gives to whoever connects anywhere: one of those may be taken before the server listens, by
/// somebody else or by whoever tries to connect to it.
const OWN: std::ops::Range<u16> = 10_240..32_768;
/// Ports that are tried.
const TRIES: usize = 1_000;

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    let any = |_| {
        let number = RandomState::new().build_hasher().finish() % u64::from(OWN.end - OWN.start);
        OWN.start + u16::try_from(number).unwrap_or_default()
    };
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..TRIES).map(any).find(is_free).expect("a port of 127.0.0.1 is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_listened_on_and_is_none_that_whoever_connects_gets() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        assert!(OWN.contains(&listener.local_addr().unwrap().port()));
        assert_ne!(free_port(), listener.local_addr().unwrap().port());
    }
}
