//! The engine's API, as far as sessions need it. Everything may be repeated: what is so already is no error.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, ClientVersion, Docker,
    errors::Error as ApiError,
    plugin::{
        ContainerCreateBody, ContainerInspectResponse, ExecInspectResponse, ImageInspect,
        NetworkCreateRequest, NetworkDisconnectRequest, VolumeCreateRequest,
    },
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
        InspectNetworkOptions, ListContainersOptionsBuilder, ListVolumesOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
        StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::UnixStream, time::sleep};

use super::container::{AGENT, Labels, Standing, standing};
use crate::Error;

/// Seconds that a call may take; streams have no bound.
const PATIENCE: u64 = 120;
/// The network of all sessions' containers. They do not reach each other in it.
pub(super) const NETWORK: &str = "tidegate-sessions";
/// How often the network is looked for that another agent makes at this moment.
const MADE_SOON: u32 = 40;
/// How often a removal is asked for again that the engine broke off.
const REMOVED_SOON: u32 = 40;
/// How often a container is looked for that is being removed.
const GONE_SOON: u32 = 200;
const LOOK: Duration = Duration::from_millis(50);
/// A refusal's text is cut here.
const REFUSAL: usize = 4 * 1024;

/// A version of the engine's API: major, minor.
pub(super) type Version = (usize, usize);

/// The bytes of a container's terminal.
pub(super) type Terminal = TokioIo<hyper::upgrade::Upgraded>;

/// One engine.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    docker: Docker,
    socket: PathBuf,
}

/// What an API call came to, where "not there" and "so already" are answers.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn failed(what: &'static str) -> impl Fn(ApiError) -> Error {
    move |error| match error {
        ApiError::DockerResponseServerError { message, .. } if !is_away(&message) => {
            Error::Refused(format!("cannot {what}: {}", message.trim()))
        }
        other => Error::Away { what, source: io::Error::other(other) },
    }
}

/// Whether an engine says that what it has behind it, its containerd, does not answer: that is started again, too.
fn is_away(message: &str) -> bool {
    message.trim_end().ends_with(": unavailable")
}

/// Takes what is so already, or gone already, for done.
fn done(what: &'static str, result: Result<(), ApiError>, so_already: &[u16]) -> Result<(), Error> {
    match result {
        Err(error) if status(&error).is_some_and(|status| so_already.contains(&status)) => Ok(()),
        other => other.map_err(failed(what)),
    }
}

impl Engine {
    /// Reaches an engine and agrees with it on a version of its API.
    pub(super) async fn negotiate(socket: &Path) -> Result<Self, Error> {
        let newest = (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version);
        let Self { docker, socket } = Self::open(socket, newest)?;
        let docker =
            docker.negotiate_version().await.map_err(failed("agree with the engine on a version"))?;
        Ok(Self { docker, socket })
    }

    /// The same where the version was agreed on before; nothing is sent yet.
    pub(super) fn open(socket: &Path, (major_version, minor_version): Version) -> Result<Self, Error> {
        let version = ClientVersion { major_version, minor_version };
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), PATIENCE, &version);
        Ok(Self { docker: docker.map_err(failed("reach the engine"))?, socket: socket.to_owned() })
    }

    /// The version that is spoken.
    pub(super) fn api_version(&self) -> Version {
        let ClientVersion { major_version, minor_version } = self.docker.client_version();
        (major_version, minor_version)
    }

    pub(super) const fn api(&self) -> &Docker {
        &self.docker
    }

    pub(super) async fn version(&self) -> Result<String, Error> {
        let version = self.docker.version().await.map_err(failed("ask the engine for its version"))?;
        Ok(version.version.unwrap_or_else(|| "unknown".into()))
    }

    /// The network in which containers reach the world and not each other.
    pub(super) async fn make_network(&self) -> Result<(), Error> {
        if self.has_network().await {
            return Ok(());
        }
        let info = self.docker.info().await.map_err(failed("ask the engine who it is"))?;
        // Names of networks may stand twice and those of bridges may not: of two agents that come at once, one makes it.
        // An interface's name has at most 15 bytes, and another engine of this machine has a bridge of its own: some of
        // them share their id, and none the folder of their data.
        let name = bridge_name(&info.id.unwrap_or_default(), &info.docker_root_dir.unwrap_or_default());
        let options = HashMap::from([
            ("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned()),
            ("com.docker.network.bridge.name".to_owned(), name),
        ]);
        let network = NetworkCreateRequest {
            name: NETWORK.to_owned(),
            driver: Some("bridge".to_owned()),
            options: Some(options),
            ..NetworkCreateRequest::default()
        };
        let Err(error) = self.docker.create_network(network).await else { return Ok(()) };
        // Another agent's is only just being made.
        for _ in 0..MADE_SOON {
            if self.has_network().await {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(failed("make the sessions' network")(error))
    }

    async fn has_network(&self) -> bool {
        self.docker.inspect_network(NETWORK, None::<InspectNetworkOptions>).await.is_ok()
    }

    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, Error> {
        match self.docker.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("look at the container")(error)),
        }
    }

    pub(super) async fn inspect_image(&self, name: &str) -> Result<Option<ImageInspect>, Error> {
        match self.docker.inspect_image(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("look at the image")(error)),
        }
    }

    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), Error> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.docker
            .create_container(Some(options), body)
            .await
            .map(drop)
            .map_err(failed("make the container"))
    }

    pub(super) async fn start(&self, name: &str) -> Result<(), Error> {
        let begin = async || self.docker.start_container(name, None::<StartContainerOptions>).await;
        let mut started = begin().await;
        // Nothing of it was begun where its place in the network cannot be had.
        if let Err(ApiError::DockerResponseServerError { message, .. }) = &started
            && self.mend_network(name, message).await?
        {
            started = begin().await;
        }
        done("start the container", started, &[304])
    }

    /// Puts right what keeps containers out of the network, if that is why this one was refused. Networks that nobody is in
    /// are pruned by people, and an engine that was killed may believe that an earlier container of this name is in it.
    async fn mend_network(&self, name: &str, refusal: &str) -> Result<bool, Error> {
        if refusal.contains(&format!("network {NETWORK} not found")) {
            self.make_network().await?;
            return Ok(true);
        }
        let taken =
            refusal.contains("endpoint with name") && refusal.contains(&format!("in network {NETWORK}"));
        if taken {
            let out = NetworkDisconnectRequest { container: name.to_owned(), force: Some(true) };
            let taken_out = self.docker.disconnect_network(NETWORK, out).await;
            if let Err(error) = &taken_out {
                tracing::warn!(container = name, %error, "its place in the network is not given back");
            }
        }
        Ok(taken)
    }

    pub(super) async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error> {
        // What is paused hears no signal. What is not paused is what was wanted; an engine that is away is not.
        match self.docker.unpause_container(name).await {
            Err(error) if status(&error).is_none() => return Err(failed("stop the container")(error)),
            Ok(()) | Err(_) => {}
        }
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        done("stop the container", self.docker.stop_container(name, Some(options)).await, &[304, 404])
    }

    pub(super) async fn pause(&self, name: &str) -> Result<(), Error> {
        done("pause the container", self.docker.pause_container(name).await, &[])
    }

    pub(super) async fn unpause(&self, name: &str) -> Result<(), Error> {
        done("wake the container", self.docker.unpause_container(name).await, &[])
    }

    /// Removes a container with what is its own; 409 is a removal that is under way.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let mut removed = self.docker.remove_container(name, Some(options.clone())).await;
        for _ in 0..REMOVED_SOON {
            // Something still writes into its folder. What is left of it is removed by asking again.
            if !removed.as_ref().is_err_and(|error| status(error) == Some(500)) {
                break;
            }
            sleep(LOOK).await;
            removed = self.docker.remove_container(name, Some(options.clone())).await;
        }
        let under_way = removed.as_ref().is_err_and(|error| status(error) == Some(409));
        done("remove the container", removed, &[404, 409])?;
        // Until then its name is taken.
        for _ in 0..GONE_SOON {
            if !under_way || self.inspect(name).await?.is_none() {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        let what = "remove the container";
        Err(Error::Away { what, source: io::Error::other("it is still at it") })
    }

    /// Where the engine keeps a volume; nothing where there is none.
    pub(super) async fn find_volume(&self, name: &str) -> Result<Option<String>, Error> {
        match self.docker.inspect_volume(name).await {
            Ok(found) => Ok(Some(found.mountpoint)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("look at the home")(error)),
        }
    }

    /// Makes a volume, and says where.
    pub(super) async fn make_volume(
        &self,
        name: &str,
        labels: HashMap<String, String>,
    ) -> Result<String, Error> {
        let volume = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        let made = self.docker.create_volume(volume).await;
        made.map(|made| made.mountpoint).map_err(failed("make the home"))
    }

    pub(super) async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let removed = self.docker.remove_volume(name, None::<RemoveVolumeOptions>).await;
        done("remove the home", removed, &[404])
    }

    pub(super) async fn upload(&self, container: &str, archive: Vec<u8>) -> Result<(), Error> {
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let body = bollard::body_full(Bytes::from(archive));
        let uploaded = self.docker.upload_to_container(container, Some(options), body).await;
        uploaded.map_err(failed("give the home to the session's user"))
    }

    /// Whether a container has a file, whatever it does.
    pub(super) async fn has_path(&self, container: &str, path: &str) -> Result<bool, Error> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.docker.get_container_archive_info(container, Some(options)).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(failed("look into the container")(error)),
        }
    }

    pub(super) async fn resize(&self, what: &Resized, cols: u16, rows: u16) {
        use bollard::{exec::ResizeExecOptions, query_parameters::ResizeContainerTTYOptionsBuilder};
        // One that has just ended has no size any more.
        let _ = match what {
            Resized::Container(name) => {
                let size = ResizeContainerTTYOptionsBuilder::default().w(cols.into()).h(rows.into()).build();
                self.docker.resize_container_tty(name, size).await
            }
            Resized::Exec(id) => {
                self.docker.resize_exec(id, ResizeExecOptions { width: cols, height: rows }).await
            }
        };
    }

    pub(super) async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse, Error> {
        self.docker.inspect_exec(id).await.map_err(failed("look at the shell"))
    }

    /// This agent's containers.
    pub(super) async fn of_agent(&self, agent: &str) -> Result<Vec<(Labels, Standing)>, Error> {
        let filters = HashMap::from([("label", vec![format!("{AGENT}={agent}")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found =
            self.docker.list_containers(Some(options)).await.map_err(failed("list the containers"))?;
        let mut containers = Vec::new();
        for id in found.into_iter().filter_map(|container| container.id) {
            if let Some(found) = self.inspect(&id).await?
                && let Some(labels) = Labels::of(&found)
            {
                containers.push((labels, standing(&found)));
            }
        }
        Ok(containers)
    }

    /// The volumes whose names begin so. By their names: an engine that is killed while it makes one forgets its labels.
    pub(super) async fn volumes_named(&self, prefix: &str) -> Result<Vec<String>, Error> {
        // The engine's own filter takes the words anywhere in a name.
        let filters = HashMap::from([("name", vec![prefix.to_owned()])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let found = self.docker.list_volumes(Some(options)).await.map_err(failed("list the homes"))?;
        let names = found.volumes.unwrap_or_default().into_iter().map(|volume| volume.name);
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    /// Attaches to a container's terminal, after what it printed so far where that is wanted.
    pub(super) async fn attach(&self, name: &str, history: bool) -> io::Result<Terminal> {
        // Keys that nobody types: the engine would take its own detach keys out of what is typed.
        let keys = ["ctrl-@"; 8].join(",");
        let history = u8::from(history);
        let path = format!(
            "/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1&logs={history}&detachKeys={keys}"
        );
        self.upgrade(&path, Value::Null).await
    }

    /// Runs a prepared program in a container.
    pub(super) async fn start_exec(&self, id: &str) -> io::Result<Terminal> {
        self.upgrade(&format!("/exec/{id}/start"), json!({"Detach": false, "Tty": true})).await
    }

    /// The raw bytes of a terminal. The client library would look for frames in them, which terminals do not have: a
    /// program that prints a zero byte could make it wait for gigabytes.
    async fn upgrade(&self, path: &str, body: Value) -> io::Result<Terminal> {
        let stream = TokioIo::new(UnixStream::connect(&self.socket).await?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "docker")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let kind = if response.status() == StatusCode::NOT_FOUND {
                io::ErrorKind::NotFound
            } else {
                io::ErrorKind::Other
            };
            let text = http_body_util::Limited::new(response.into_body(), REFUSAL).collect().await;
            let text =
                text.map(|text| String::from_utf8_lossy(&text.to_bytes()).into_owned()).unwrap_or_default();
            return Err(io::Error::new(kind, message(&text)));
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(io::Error::other)
    }
}

/// The name of the sessions' bridge on one engine of this machine, the same whoever asks (FNV-1a).
fn bridge_name(id: &str, folder: &str) -> String {
    let hash = id.bytes().chain(folder.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("tdg-{:011x}", hash & 0xfff_ffff_ffff)
}

/// What is resized.
#[derive(Debug, Clone)]
pub(super) enum Resized {
    Container(String),
    Exec(String),
}

/// The sentence of an engine's refusal.
fn message(text: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let message = parsed.as_ref().and_then(|value| value.get("message")).and_then(Value::as_str);
    message.unwrap_or(text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_whose_containerd_is_away_is_away_itself() {
        let refused = |message: &str| {
            failed("start it")(ApiError::DockerResponseServerError {
                status_code: 500,
                message: message.to_owned(),
            })
        };
        for message in
            ["connection error: desc = \"refused\": unavailable", "transport is closing: unavailable\n"]
        {
            assert!(matches!(refused(message), Error::Away { .. }), "{message}");
        }
        for message in ["no such image", "unavailable: see below", "exec: \"x\": not found"] {
            assert!(matches!(refused(message), Error::Refused(_)), "{message}");
        }
    }

    #[test]
    fn engines_that_share_an_id_have_bridges_of_their_own() {
        let (one, other) =
            (bridge_name("ZNGF:BHQA", "/var/lib/docker"), bridge_name("ZNGF:BHQA", "/srv/docker"));
        assert_ne!(one, other);
        for name in [one, other] {
            assert_eq!(name.len(), 15, "{name} fits an interface");
        }
    }
}
