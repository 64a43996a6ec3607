//! Three nats-servers of somebody else's as one cluster on loopback, configured by the text that operators are given.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tidegate_engines::nats::{Durability, Foreign, Trust, find};

use crate::free_port;

const SERVERS: usize = 3;

/// A cluster of three, which ends with this.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<Option<Child>>,
    ports: Vec<u16>,
    folder: TempDir,
}

impl NatsCluster {
    /// Starts it. It takes a moment until it has chosen who leads.
    pub fn start(trust: &Trust) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tg-nats-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .unwrap();
        let mut ports = Vec::new();
        while ports.len() < 2 * SERVERS {
            let port = free_port();
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let mut cluster = Self { servers: (0..SERVERS).map(|_| None).collect(), ports, folder };
        (0..SERVERS).for_each(|number| cluster.run(number, trust));
        cluster
    }

    /// How many servers there are.
    pub const fn len(&self) -> usize {
        SERVERS
    }

    /// Never.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Where each of them listens.
    pub fn urls(&self) -> Vec<String> {
        self.ports[..SERVERS].iter().map(|port| format!("nats://127.0.0.1:{port}")).collect()
    }

    /// Kills one of them.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut server) = self.servers[number].take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Starts one of them that was killed, on what it stored.
    pub fn run(&mut self, number: usize, trust: &Trust) {
        let own = self.folder.path().join(number.to_string());
        fs::create_dir_all(&own).unwrap();
        let config = own.join("nats.conf");
        fs::write(&config, self.config(number, trust, &own)).unwrap();
        let mut server = Command::new(find(None).unwrap().path);
        server.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.servers[number] = Some(server.spawn().unwrap());
    }

    fn config(&self, number: usize, trust: &Trust, own: &Path) -> String {
        let foreign = Foreign {
            trust: trust.clone(),
            folder: own.to_owned(),
            durability: Durability::Relaxed,
            max_promised_bytes: 1 << 50,
        };
        let routes: Vec<_> =
            self.ports[SERVERS..].iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        format!(
            "server_name: s{number}\nlisten: \"127.0.0.1:{}\"\n\
             cluster: {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}] }}\n{}",
            self.ports[number],
            self.ports[SERVERS + number],
            routes.join(", "),
            foreign.text().unwrap()
        )
    }
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        (0..SERVERS).for_each(|number| self.kill(number));
    }
}
