//! What the servers of NATS say of themselves: versions, stores, and whom they trust. Never what is stored.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::connect::Connection;
use crate::{Error, OperatorPublic, Result};

/// How long a server that did not answer yet is waited for, once another one has.
const PATIENCE: Duration = Duration::from_secs(1);

/// The servers that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    /// What they say, by name.
    pub answered: Vec<ServerState>,
    /// How many there are by what they know: those that keep streams together, one that is away included until it is taken
    /// out; where none do, those that are connected. None while one of a cluster does not know yet, as after its start.
    pub known: Option<usize>,
}

/// One server, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its cluster, where it is part of one.
    pub cluster: Option<String>,
    /// Keys that it believes accounts of when they are signed by them.
    pub trusted: Vec<String>,
    /// The longest line of the protocol that it reads, in bytes.
    pub max_control_line: u64,
    /// Its store; none where JetStream is off.
    pub store: Option<StoreState>,
}

/// The store of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreState {
    /// Its folder on the server's machine.
    pub folder: String,
    /// Whether messages are on disk before they are acknowledged.
    pub sync_always: bool,
    /// Bytes that its streams may promise to hold, together.
    pub promised_limit: u64,
    /// Bytes that they promise.
    pub promised: u64,
    /// Bytes that they hold.
    pub used: u64,
}

impl ServerState {
    /// Whether it believes accounts that this key signed.
    pub fn trusts(&self, key: &OperatorPublic) -> bool {
        self.trusted.iter().any(|trusted| trusted == key.as_str())
    }
}

/// Asks every server that the connected one knows of. One that was killed is known for a minute still: those that answer
/// count.
pub(crate) async fn ask(connection: &Connection) -> Result<Servers> {
    let doing = "say what every server is";
    let wanted = count(connection).await?;
    let _place = connection.place()?;
    let client = connection.client();
    let inbox = client.new_inbox();
    let mut answers =
        client.subscribe(inbox.clone()).await.map_err(|error| Error::unavailable(doing, error))?;
    let asked = client.publish_with_reply("$SYS.REQ.SERVER.PING.VARZ", inbox, Bytes::new()).await;
    asked.map_err(|error| Error::unavailable(doing, error))?;
    let (mut servers, mut peers) = (Vec::new(), Some(0));
    let mut deadline = Instant::now() + connection.timeout();
    while servers.len() < wanted {
        let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await else { break };
        let answer: Answer =
            serde_json::from_slice(&answer.payload).map_err(|error| Error::unavailable(doing, error))?;
        peers = peers.zip(answer.data.peers()).map(|(most, peers)| most.max(peers));
        servers.push(answer.data.state());
        deadline = deadline.min(Instant::now() + PATIENCE);
    }
    if servers.is_empty() {
        return Err(Error::late(doing));
    }
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    // Of those that are connected, one that was killed and started anew is two for a minute.
    let known = peers.map(|peers| if peers > 0 { peers } else { wanted }.max(servers.len()));
    Ok(Servers { answered: servers, known })
}

/// How many servers there are, as the connected one knows.
async fn count(connection: &Connection) -> Result<usize> {
    let doing = "count the servers";
    let info = connection.client().server_info();
    let subject = format!("$SYS.REQ.SERVER.{}.STATSZ", info.server_id);
    let answer = connection.request(doing, &subject, Bytes::new(), None, crate::Missing::Account).await?;
    let counted: Counted =
        serde_json::from_slice(&answer.payload).map_err(|error| Error::unavailable(doing, error))?;
    Ok(counted.statsz.or(counted.data).map_or(1, |statistics| statistics.active_servers.max(1)))
}

#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    statsz: Option<Statistics>,
    #[serde(default)]
    data: Option<Statistics>,
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    active_servers: usize,
}

#[derive(Deserialize)]
struct Answer {
    data: Vars,
}

#[derive(Deserialize)]
struct Vars {
    server_name: String,
    version: String,
    #[serde(default)]
    max_control_line: u64,
    #[serde(default)]
    cluster: ClusterVars,
    #[serde(default)]
    jetstream: StoreVars,
    #[serde(rename = "trusted_operators_jwt", default)]
    trusted_operators: Vec<String>,
}

#[derive(Default, Deserialize)]
struct ClusterVars {
    #[serde(default)]
    name: String,
    /// Where the others of the cluster reach it; 0 where it is alone, whatever its cluster is called.
    #[serde(rename = "cluster_port", default)]
    port: u16,
}

#[derive(Default, Deserialize)]
struct StoreVars {
    config: Option<StoreConfig>,
    stats: Option<StoreStats>,
    meta: Option<StoreCluster>,
}

/// The servers that keep streams together.
#[derive(Deserialize)]
struct StoreCluster {
    #[serde(default)]
    leader: String,
    #[serde(default)]
    cluster_size: usize,
}

#[derive(Deserialize)]
struct StoreConfig {
    #[serde(default)]
    max_storage: i64,
    #[serde(default)]
    store_dir: String,
    #[serde(default)]
    sync_always: bool,
}

#[derive(Deserialize)]
struct StoreStats {
    #[serde(default)]
    storage: u64,
    #[serde(default)]
    reserved_storage: u64,
}

impl Vars {
    /// How many servers keep streams together with this one: 0 where it keeps them alone or not at all, none while nobody
    /// leads them, since they may not have met.
    fn peers(&self) -> Option<usize> {
        let StoreVars { config, meta, .. } = &self.jetstream;
        match meta {
            Some(meta) if !meta.leader.is_empty() && meta.cluster_size > 0 => Some(meta.cluster_size),
            None if config.is_none() || self.cluster.port == 0 => Some(0),
            _ => None,
        }
    }

    fn state(self) -> ServerState {
        let stats = self.jetstream.stats;
        let (promised, used) = stats.map_or((0, 0), |stats| (stats.reserved_storage, stats.storage));
        let store = self.jetstream.config.map(|config| StoreState {
            folder: config.store_dir,
            sync_always: config.sync_always,
            promised_limit: config.max_storage.max(0).unsigned_abs(),
            promised,
            used,
        });
        ServerState {
            name: self.server_name,
            version: self.version,
            cluster: Some(self.cluster.name).filter(|name| !name.is_empty()),
            trusted: self.trusted_operators.iter().flat_map(|token| trusted(token)).collect(),
            max_control_line: self.max_control_line,
            store,
        }
    }
}

/// The keys that an operator's token names: its own and those that sign for it.
fn trusted(token: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
        nats: Keys,
    }
    #[derive(Deserialize)]
    struct Keys {
        #[serde(default)]
        signing_keys: Vec<String>,
    }
    let claims = token.split('.').nth(1).unwrap_or_default();
    let claims = URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
    let Ok(Claims { sub, nats }) = serde_json::from_slice(&claims) else { return Vec::new() };
    std::iter::once(sub).chain(nats.signing_keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, OperatorKey};

    #[test]
    fn an_operators_token_names_every_key_that_signs_for_it() {
        let next = OperatorKey::generate();
        let authority = Authority::generate().also_trusting([next.public().clone()]);
        let token = authority.trust(chrono::DateTime::UNIX_EPOCH).unwrap().operator;
        let found = trusted(&token);
        let wanted = [authority.identity().public(), authority.signing().public(), next.public()];
        assert_eq!(found, wanted.map(ToString::to_string));
        assert!(trusted("no token").is_empty());
    }

    #[test]
    fn a_server_of_a_cluster_knows_how_many_there_are_once_somebody_leads_them() {
        let peers = |port: u16, jetstream: serde_json::Value| {
            let vars = serde_json::json!({
                "server_name": "a", "version": "2.15.1", "jetstream": jetstream,
                "cluster": {"name": "c", "cluster_port": port},
            });
            serde_json::from_value::<Vars>(vars).unwrap().peers()
        };
        let store = |meta| serde_json::json!({"config": {"max_storage": 1}, "meta": meta});
        assert_eq!(peers(6_222, store(serde_json::json!({"leader": "b", "cluster_size": 3}))), Some(3));
        assert_eq!(peers(6_222, store(serde_json::json!({"cluster_size": 3}))), None, "nobody leads");
        assert_eq!(peers(6_222, store(serde_json::json!({"leader": "b"}))), None, "no size");
        assert_eq!(peers(6_222, store(serde_json::json!(null))), None, "it has just begun");
        assert_eq!(
            peers(0, store(serde_json::json!(null))),
            Some(0),
            "it is alone, and has a name for a cluster"
        );
        assert_eq!(peers(6_222, serde_json::json!({})), Some(0), "it keeps no streams");
    }

    #[test]
    fn a_server_without_jetstream_has_no_store() {
        let vars: Vars = serde_json::from_str(
            r#"{"server_name":"a","version":"2.15.1","jetstream":{},"max_control_line":4096}"#,
        )
        .unwrap();
        let state = vars.state();
        assert_eq!((state.store, state.cluster, state.max_control_line), (None, None, 4_096));
    }
}
