//! Which port of 127.0.0.1 the server listens on: the same after each start, so that clients find it again.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::layout::Layout;
use crate::error::Context;
use crate::{Error, Result, secrets};

/// How long a server of this machine may take to say who it is.
const GREETING_TIME: Duration = Duration::from_secs(2);
/// The greatest length of a greeting that is looked at.
const GREETING_BYTES: u64 = 16 * 1024;

/// The lowest port for servers of our own, which go up to those that the kernel gives to whoever asks for any.
const LOWEST: u16 = 10_240;
const USUALLY_GIVEN: u16 = 32_768;
/// Where the kernel says which it gives.
const GIVEN: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Ports that are tried.
const TRIES: usize = 100;

pub(super) fn url(port: u16) -> String {
    format!("nats://127.0.0.1:{port}")
}

/// Where the server of a data directory listens that another process of this machine runs: what
/// [`super::Nats::start`] refuses with [`Error::Owned`]. Fails when none answers.
pub fn running_url(data_dir: &Path) -> Result<String> {
    let layout = Layout::new(data_dir)?;
    let port = remembered(&layout)?.filter(|port| greeting(*port).is_some());
    port.map(url).ok_or_else(|| {
        Error::Setting(format!("no nats-server answers for {}; start it first", layout.data_dir.display()))
    })
}

/// The port that was asked for, else that of the last start where it is free, else a free one, remembered.
pub(super) fn choose(layout: &Layout, asked: Option<u16>) -> Result<u16> {
    let port = match (asked, remembered(layout)?) {
        (Some(port), _) => port,
        (None, Some(port)) if is_free(port) => port,
        (None, _) => free_port(layout)?,
    };
    secrets::replace(&layout.port, format!("{port}\n").as_bytes())?;
    Ok(port)
}

fn remembered(layout: &Layout) -> Result<Option<u16>> {
    match fs::read_to_string(&layout.port) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read", &layout.port),
    }
}

/// Whether nobody listens there; leftovers of our own have been cleared away.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A free port that the kernel gives nobody by itself: otherwise whoever connects anywhere could take it while the server is
/// down, which could not come back then.
fn free_port(layout: &Layout) -> Result<u16> {
    let given = fs::read_to_string(GIVEN).ok().and_then(|range| lowest(&range)).unwrap_or(USUALLY_GIVEN);
    let own = LOWEST..given.max(LOWEST + 1);
    if let Some(port) = (0..TRIES).map(|_| rand::random_range(own.clone())).find(|port| is_free(*port)) {
        return Ok(port);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.context("find a free port for", &layout.folder)?.port())
}

/// The lowest port of a range as the kernel writes it.
fn lowest(range: &str) -> Option<u16> {
    range.split_whitespace().next()?.parse().ok()
}

/// The first line that a nats-server says to whoever connects.
pub(super) fn greeting(port: u16) -> Option<String> {
    let stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), GREETING_TIME).ok()?;
    stream.set_read_timeout(Some(GREETING_TIME)).ok()?;
    let mut text = Vec::new();
    for byte in std::io::BufReader::new(stream).take(GREETING_BYTES).bytes() {
        match byte {
            Ok(b'\n') => break,
            Ok(byte) => text.push(byte),
            Err(_) => return None,
        }
    }
    String::from_utf8(text).ok().filter(|text| text.starts_with("INFO "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_range_is_read_as_it_writes_it() {
        assert_eq!(lowest("32768\t60999\n"), Some(32_768));
        assert_eq!(lowest(""), None);
    }

    #[test]
    fn a_free_port_is_none_that_the_kernel_gives_to_whoever_connects() {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port(&Layout::new(folder.path()).unwrap()).unwrap();
        let given = fs::read_to_string(GIVEN).ok().and_then(|range| lowest(&range)).unwrap_or(USUALLY_GIVEN);
        assert!((LOWEST..given.max(LOWEST + 1)).contains(&port), "{port}");
    }
}
