//! A control plane whose certificate comes from an authority of its own.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer, server::WebPkiClientVerifier,
};
use serde_json::json;
use tidegate_model::StreamMode;
use tidegate_protocol::TunnelTarget;
use tokio::{io::copy_bidirectional, net::TcpListener, net::TcpStream, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    control_plane::ControlPlane,
    support::{Agent, Folder, soon},
};

/// TLS in front of a control plane, with a certificate for `localhost`.
struct Front {
    url: String,
    ca_file: PathBuf,
    /// Whether a handshake came to its end, for each that began.
    shaken: mpsc::UnboundedReceiver<bool>,
}

impl Front {
    async fn new(folder: &Folder, behind: SocketAddr) -> Self {
        Self::with(folder, behind, false).await
    }

    /// The same, and nobody comes in without a certificate of the authority: that of `client_cert` is in the folder.
    async fn asking(folder: &Folder, behind: SocketAddr) -> Self {
        Self::with(folder, behind, true).await
    }

    async fn with(folder: &Folder, behind: SocketAddr, asks: bool) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let ca_file = folder.path().join("ca.pem");
        fs::write(&ca_file, authority.pem()).unwrap();
        let (cert, own) = client_cert(folder);
        let client_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["agent-1".to_owned()]).unwrap();
        fs::write(cert, params.signed_by(&client_key, &authority).unwrap().pem()).unwrap();
        fs::write(own, client_key.serialize_pem()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let clients = if asks {
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap()
        } else {
            WebPkiClientVerifier::no_client_auth()
        };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (told, shaken) = mpsc::unbounded_channel();
        tokio::spawn(terminate(TlsAcceptor::from(Arc::new(config)), listener, behind, told));
        Self { url, ca_file, shaken }
    }
}

/// Where the agent's certificate and its key are.
fn client_cert(folder: &Folder) -> (PathBuf, PathBuf) {
    (folder.path().join("client.pem"), folder.path().join("client.key"))
}

/// Takes TLS off every connection, until the test ends.
async fn terminate(
    tls: TlsAcceptor,
    listener: TcpListener,
    behind: SocketAddr,
    told: mpsc::UnboundedSender<bool>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, told) = (tls.clone(), told.clone());
        tokio::spawn(async move {
            let shaken = tls.accept(stream).await;
            let _ = told.send(shaken.is_ok());
            if let (Ok(mut outside), Ok(mut inside)) = (shaken, TcpStream::connect(behind).await) {
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}

fn options(ca_file: Option<PathBuf>) -> impl FnOnce(&mut tidegate_agent::Options) {
    move |options| {
        options.ca_file = ca_file;
        options.bootstrap_key = Some(tidegate_model::Secret::new("boot".to_owned()));
    }
}

#[tokio::test]
async fn with_its_ca_file_registration_link_and_tunnel_reach_a_private_authoritys_server() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let front = Front::new(&folder, plane.address()).await;
    let agent = Agent::start_with(&folder, &front.url, options(Some(front.ca_file)));
    plane.answer(200, &json!({"apiKey": "ab".repeat(32)})).await;
    let mut link = plane.link().await;
    link.start("s-1", "echo in the open; sleep 86490.5").await;
    link.open_tunnel("s-1", TunnelTarget::Terminal, StreamMode::Control).await;
    let mut tunnel = plane.tunnel().await;
    tunnel.send(Message::binary(&b"\n"[..])).await;
    tunnel.read_until("in the open").await;
    drop((tunnel, link));
    agent.stop().await;
}

#[tokio::test]
async fn with_its_own_certificate_an_agent_comes_in_everywhere() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let front = Front::asking(&folder, plane.address()).await;
    let own = client_cert(&folder);
    let agent = Agent::start_with(&folder, &front.url, |with| {
        options(Some(front.ca_file))(with);
        with.client_cert = Some(own);
    });
    plane.answer(200, &json!({"apiKey": "ab".repeat(32)})).await;
    let mut link = plane.link().await;
    link.start("s-1", "echo in the open; sleep 86490.6").await;
    link.open_tunnel("s-1", TunnelTarget::Terminal, StreamMode::Control).await;
    let mut tunnel = plane.tunnel().await;
    tunnel.send(Message::binary(&b"\n"[..])).await;
    tunnel.read_until("in the open").await;
    drop((tunnel, link));
    agent.stop().await;
}

#[tokio::test]
async fn without_a_certificate_an_agent_is_not_heard_where_one_is_asked_for() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let mut front = Front::asking(&folder, plane.address()).await;
    let agent = Agent::start_with(&folder, &front.url, options(Some(front.ca_file.clone())));
    for _ in 0..2 {
        assert_eq!(soon("a handshake", front.shaken.recv()).await, Some(false));
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_client_key_that_does_not_fit_is_said_at_the_start() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let front = Front::asking(&folder, plane.address()).await;
    let (cert, _) = client_cert(&folder);
    let agent = Agent::start_with(&folder, &front.url, |with| with.client_cert = Some((cert.clone(), cert)));
    let error = agent.refused().await;
    assert!(error.contains("the client's certificate or its key cannot be used"), "{error}");
}

#[tokio::test]
async fn without_the_ca_file_neither_registration_nor_link_trusts_the_server() {
    for has_key in [false, true] {
        let (folder, plane) = (Folder::new(), ControlPlane::new().await);
        let mut front = Front::new(&folder, plane.address()).await;
        if has_key {
            fs::create_dir_all(folder.path().join("private")).unwrap();
            fs::write(folder.path().join("private/agent.key"), "ab".repeat(32)).unwrap();
        }
        let agent = Agent::start_with(&folder, &front.url, options(None));
        for _ in 0..2 {
            assert_eq!(soon("a handshake", front.shaken.recv()).await, Some(false));
        }
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_ca_file_that_is_no_certificate_is_said_at_the_start() {
    let folder = Folder::new();
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, "no certificate").unwrap();
    let agent = Agent::start_with(&folder, "https://localhost:1", options(Some(ca_file)));
    let error = agent.refused().await;
    assert!(error.contains("holds no certificate"), "{error}");
}
