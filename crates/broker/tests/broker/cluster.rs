//! Three servers as one cluster, every stream three times: one of them is killed while messages are sent.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use tidegate_broker::{
    AccountAuthority, Authority, Limits, Options, OrgAccount, OrgBroker, Outgoing, PipeSubject, Position,
    StreamName, StreamSpec, System,
};
use tidegate_engines::nats::find;
use tidegate_model::SystemClock;
use tidegate_test_support::{eventually, eventually_some, nats::trust};
use uuid::Uuid;

use crate::support::{RETENTION, now};

struct Cluster {
    servers: Vec<Child>,
    urls: Vec<String>,
    _folder: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill().ok();
            server.wait().ok();
        }
    }
}

impl Cluster {
    fn start(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listeners: Vec<_> =
            (0..6).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        drop(listeners);
        let servers = (0..3).map(|number| spawn(folder.path(), authority, &ports, number)).collect();
        let urls = ports[..3].iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        Self { servers, urls, _folder: folder }
    }
}

fn spawn(folder: &Path, authority: &Authority, ports: &[u16], number: usize) -> Child {
    let trust = trust(authority);
    let own = folder.join(number.to_string());
    fs::create_dir(&own).unwrap();
    let routes: Vec<_> = ports[3..].iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    let config = format!(
        "listen: \"127.0.0.1:{}\"\nserver_name: s{number}\nmax_control_line: 65536\noperator: \"{}\"\n\
         system_account: \"{}\"\nresolver_preload: {{ {}: \"{}\" }}\n\
         resolver: {{ type: full, dir: \"{}\", allow_delete: true }}\n\
         jetstream: {{ store_dir: \"{}\" }}\n\
         cluster: {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
        ports[number],
        trust.operator,
        trust.system_account,
        trust.system_account,
        trust.system_token,
        own.join("accounts").display(),
        own.join("streams").display(),
        ports[3 + number],
        routes.join(", ")
    );
    fs::write(own.join("nats.conf"), config).unwrap();
    Command::new(find(None).unwrap().path)
        .arg("--config")
        .arg(own.join("nats.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn every_acknowledged_message_is_there_once_after_one_of_three_servers_was_killed() {
    let authority = Arc::new(Authority::generate());
    let mut cluster = Cluster::start(&authority);
    let clock = Arc::new(SystemClock::new());
    let options = Options { replicas: 3, ..Options::new(cluster.urls.clone()) };
    let system = eventually_some("the cluster is there", async || {
        System::connect(&options, Arc::clone(&authority), clock.clone()).await.ok()
    })
    .await;
    let account = OrgAccount { organization: Uuid::new_v4(), authority: AccountAuthority::generate() };
    let claims = account.authority.claims(account.organization, Limits::default());
    system.push(&authority.sign_account(&claims, now()).unwrap()).await.unwrap();
    let broker = eventually_some("the account is known", async || {
        OrgBroker::connect(&options, account.clone(), clock.clone()).await.ok()
    })
    .await;
    let me = Uuid::new_v4();
    let spec = StreamSpec {
        name: StreamName::of_pipe(Uuid::new_v4(), "inbox").unwrap(),
        subject: PipeSubject::new(account.organization, me, "mine", "inbox").unwrap(),
        retention: RETENTION,
    };
    // the cluster needs a moment to choose who leads it
    eventually("the stream is made", async || broker.ensure_stream(&spec).await.is_ok()).await;
    broker.ensure_reader(&spec.name, "reader", Position::Oldest).await.unwrap();

    // through each of the servers, the stream being led by one of them
    for (number, url) in cluster.urls.iter().enumerate() {
        let one = Options { replicas: 3, ..Options::new([url.clone()]) };
        let broker = OrgBroker::connect(&one, account.clone(), clock.clone()).await.unwrap();
        send(&broker, &spec, me, number).await;
    }
    for number in 3..200 {
        if number == 60 {
            cluster.servers[0].kill().unwrap();
            cluster.servers[0].wait().unwrap();
        }
        send(&broker, &spec, me, number).await;
    }
    let mut read = Vec::new();
    while read.len() < 200 {
        // whoever led the reader may be the one that was killed
        let fetched = eventually_some("messages come", async || {
            broker.fetch(&spec.name, "reader", 100, None).await.ok().filter(|found| !found.is_empty())
        })
        .await;
        for one in fetched {
            broker.acknowledge(&one.ack).await.unwrap();
            if one.deliveries == 1 || !read.contains(&one.message.payload) {
                read.push(one.message.payload);
            }
        }
    }
    let wanted: Vec<_> = (0..200).map(|number: usize| number.to_string()).collect();
    assert_eq!(read, wanted, "each once and in order");
    println!("200 acknowledged messages, one of three servers killed: {} read", read.len());
}

async fn send(broker: &OrgBroker, spec: &StreamSpec, me: Uuid, number: usize) {
    let text = number.to_string();
    let message = Outgoing {
        pipe: spec.subject.clone(),
        sender: me,
        id: text.clone(),
        headers: Vec::new(),
        payload: text.into(),
    };
    let sent = async || broker.publish(message.clone()).await.is_ok();
    eventually("the message is acknowledged", sent).await;
}
