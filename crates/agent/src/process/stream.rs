//! Where a session's desktop or web application is reached on this machine, and that it is really the session's: other
//! users of the machine may listen on its ports, too.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    time::sleep,
};

use super::Inner;
use crate::{
    Error, SessionKey, SessionStream,
    files::{read_json, write_json},
    raw,
};

/// How often a stream that is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Whose a session's sockets are, and where its stream is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// The user that its processes run as; `None` where they run as the agent's own.
    pub(super) uid: Option<u32>,
    /// Its stream, where it has one.
    pub(super) at: Option<At>,
}

/// Where a stream is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum At {
    /// A Unix socket that nobody but the session's user and root can open.
    Unix(PathBuf),
    /// A port of the loopback interface.
    Port(u16),
}

fn path(folder: &Path) -> PathBuf {
    folder.join("endpoint.json")
}

impl Endpoint {
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        write_json(&path(folder), self)
    }
}

/// A port of the loopback interface that nobody uses at this moment.
pub(super) async fn free_port() -> Result<u16, Error> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("find a free port"))?;
    listener.local_addr().map(|address| address.port()).map_err(Error::system("find a free port"))
}

impl Inner {
    fn endpoint(&self, key: &SessionKey) -> Result<Endpoint, Error> {
        let found: Option<Endpoint> = read_json(&path(&self.shims.folder(key)))?;
        found.ok_or_else(|| {
            Error::Refused(format!("session {} has no stream but its terminal", key.session_id))
        })
    }

    /// Waits until the session's stream takes connections. A session without one is ready at once.
    pub(super) async fn ready(&self, key: &SessionKey) -> Option<u16> {
        let Ok(Endpoint { uid, at: Some(at) }) = self.endpoint(key) else { return None };
        loop {
            match &at {
                At::Unix(path) if UnixStream::connect(path).await.is_ok() => return None,
                At::Port(port) if is_heard_by(*port, uid) => return Some(*port),
                At::Unix(_) | At::Port(_) => sleep(LOOK).await,
            }
        }
    }

    pub(super) async fn open_endpoint(&self, key: &SessionKey) -> Result<SessionStream, Error> {
        match self.endpoint(key)? {
            Endpoint { at: Some(At::Unix(path)), .. } => {
                let stream = UnixStream::connect(&path).await.map_err(not_there("the desktop"))?;
                let (reader, writer) = stream.into_split();
                Ok(raw::stream(reader, writer))
            }
            Endpoint { at: Some(At::Port(port)), uid } => connect(port, uid).await,
            Endpoint { at: None, .. } => {
                Err(Error::Refused(format!("session {} has no stream but its terminal", key.session_id)))
            }
        }
    }

    pub(super) async fn open_port(&self, key: &SessionKey, port: u16) -> Result<SessionStream, Error> {
        let Endpoint { uid, .. } = self.endpoint(key)?;
        connect(port, uid).await
    }
}

fn not_there(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Refused(format!("{what} does not answer: {error}"))
}

async fn connect(port: u16, uid: Option<u32>) -> Result<SessionStream, Error> {
    if !is_heard_by(port, uid) {
        return Err(Error::Refused(format!("nothing of this session listens on port {port}")));
    }
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(not_there("the port"))?;
    // Small frames must not wait for more.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    Ok(raw::stream(reader, writer))
}

/// Whether what listens on a port of the loopback interface is this user's; the agent's own where none is named.
fn is_heard_by(port: u16, uid: Option<u32>) -> bool {
    let uid = uid.unwrap_or_else(|| nix::unistd::Uid::effective().as_raw());
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut listeners = listeners(&read("/proc/net/tcp"), port);
    listeners.extend(self::listeners(&read("/proc/net/tcp6"), port));
    // Another user's listener on the same port, on another address, might be the one that answers.
    !listeners.is_empty() && listeners.iter().all(|owner| *owner == uid)
}

/// The users who listen on a port, of a table as the kernel shows it.
fn listeners(table: &str, port: u16) -> Vec<u32> {
    const LISTEN: &str = "0A";
    let wanted = format!("{port:04X}");
    let lines = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    lines
        .filter(|words| words.get(3) == Some(&LISTEN))
        .filter(|words| {
            words.get(1).and_then(|local| local.split_once(':')).is_some_and(|(_, at)| at == wanted)
        })
        .filter_map(|words| words.get(7)?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 210003        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 100 0 0 10 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
";

    #[test]
    fn those_who_listen_are_told_from_those_who_are_connected() {
        assert_eq!(listeners(TABLE, 8080), [210_003]);
        assert_eq!(listeners(TABLE, 80), [0]);
        assert_eq!(listeners(TABLE, 443), [0; 0]);
    }

    #[tokio::test]
    async fn a_port_of_ones_own_is_told_from_anothers() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_heard_by(port, None));
        assert!(!is_heard_by(port, Some(u32::MAX - 7)), "another user's port is none of the session's");
    }
}
