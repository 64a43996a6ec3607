//! Streams of containers: the terminal of what they run, a shell beside it, and their ports.

use std::{net::SocketAddr, time::Duration};

use bollard::plugin::{ContainerInspectResponse, HealthStatusEnum};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{Inner, Role, container::Labels};
use crate::{Error, SessionKey, SessionStream, StreamRequest, raw};

/// How often a stream that is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// How long a container may take to accept a connection.
const ACCEPT: Duration = Duration::from_secs(5);

/// The name under which the shim of the shell beside a session's own program is kept.
pub(super) fn shell_key(key: &SessionKey) -> SessionKey {
    SessionKey { session_id: format!("{}+shell", key.session_id), generation: key.generation }
}

impl Inner {
    pub(super) async fn open(
        &self,
        key: &SessionKey,
        request: StreamRequest,
    ) -> Result<SessionStream, Error> {
        match request {
            StreamRequest::Terminal(_) if self.is_watched_otherwise(key).await? => {
                let shell = shell_key(key);
                {
                    // Of viewers that come at once, one starts it.
                    let _starting = self.shells.lock().await;
                    if !self.shims.runs(&shell).await? {
                        self.spawn_bridge(&shell, key, Role::Shell, Duration::ZERO).await?;
                    }
                }
                self.shims.open_stream(&shell, request).await
            }
            StreamRequest::Terminal(_) | StreamRequest::Logs { .. } => {
                self.shims.open_stream(key, request).await
            }
            StreamRequest::Stream => {
                let found = self.running(key).await?;
                let port = Labels::of(&found).and_then(|labels| labels.port);
                let port = port.ok_or_else(|| {
                    Error::Refused(format!("session {} has no stream but its terminal", key.session_id))
                })?;
                connect(&found, port).await
            }
            StreamRequest::Port(port) => connect(&self.running(key).await?, port).await,
        }
    }

    /// Whether the terminal is not what the session is about: then it is a shell of its own. One that ended has none.
    async fn is_watched_otherwise(&self, key: &SessionKey) -> Result<bool, Error> {
        let found = self.inspect(key).await?;
        Ok(found.as_ref().and_then(Labels::of).is_some_and(|labels| labels.port.is_some()))
    }

    async fn running(&self, key: &SessionKey) -> Result<ContainerInspectResponse, Error> {
        let found = self.inspect(key).await?;
        found.ok_or_else(|| Error::Refused(format!("session {} has no container any more", key.session_id)))
    }

    /// Waits until the session's stream can be watched: until it is healthy, where its image says what that is, else
    /// until its port takes connections.
    pub(super) async fn ready(&self, key: &SessionKey) -> Option<u16> {
        loop {
            if let Ok(Some(found)) = self.inspect(key).await {
                let port = Labels::of(&found)?.port?;
                if is_healthy(&found, port).await {
                    return Some(port);
                }
            }
            sleep(LOOK).await;
        }
    }
}

async fn is_healthy(found: &ContainerInspectResponse, port: u16) -> bool {
    let health =
        found.state.as_ref().and_then(|state| state.health.as_ref()).and_then(|health| health.status);
    match health {
        None | Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) => match inside(found, port) {
            // The engine's own listener takes connections before the container does.
            Some(address) => matches!(timeout(ACCEPT, TcpStream::connect(address)).await, Ok(Ok(_))),
            None => published(found, port).is_some(),
        },
        Some(status) => status == HealthStatusEnum::HEALTHY,
    }
}

/// A port of the container in its own network.
fn inside(found: &ContainerInspectResponse, port: u16) -> Option<SocketAddr> {
    let networks = found.network_settings.as_ref()?.networks.as_ref()?;
    let address = networks.values().find_map(|network| network.ip_address.as_deref()?.parse().ok())?;
    Some(SocketAddr::new(address, port))
}

/// The same where the engine publishes it on this machine.
fn published(found: &ContainerInspectResponse, port: u16) -> Option<SocketAddr> {
    let ports = found.network_settings.as_ref()?.ports.as_ref()?;
    let bindings = ports.get(&format!("{port}/tcp"))?.as_ref()?;
    let host = bindings.iter().find_map(|binding| binding.host_port.as_deref()?.parse().ok())?;
    Some(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), host))
}

/// Connects to a container's port: straight where its network is this machine's, else where it is published.
async fn connect(found: &ContainerInspectResponse, port: u16) -> Result<SessionStream, Error> {
    let mut why = "it has no address".to_owned();
    for address in [inside(found, port), published(found, port)].into_iter().flatten() {
        match timeout(ACCEPT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small frames must not wait for more.
                let _ = stream.set_nodelay(true);
                let (reader, writer) = stream.into_split();
                return Ok(raw::stream(reader, writer));
            }
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => "it does not answer".clone_into(&mut why),
        }
    }
    Err(Error::Refused(format!("nothing in the container listens on port {port}: {why}")))
}
