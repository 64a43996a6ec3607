//! `port-forward`.

use std::{net::Ipv4Addr, process::ExitCode};

use anyhow::Context as _;
use tidegate_client::Client;
use tidegate_model::SessionId;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{args::PortForwardArgs, context::Context, exit, lookup, output::plain, signals::Signals};

/// Listens on loopback and carries each connection to the session, until a signal.
pub(super) async fn forward(context: &Context, words: PortForwardArgs) -> anyhow::Result<ExitCode> {
    let session = lookup::find(&context.client, &words.session.session).await?;
    let mut signals = Signals::new()?;
    let (mut listening, mut told) = (JoinSet::new(), Vec::new());
    for (local, remote) in words.ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local))
            .await
            .with_context(|| format!("port {local} of this machine cannot be listened on"))?;
        let local = listener.local_addr()?.port();
        told.push(serde_json::json!({"local": local, "remote": remote}));
        context.output.note(&format!("127.0.0.1:{local} is port {remote} of {}", plain(&session.name)));
        listening.spawn(accept(context.client.clone(), session.id, listener, remote, context.output));
    }
    if context.output.json {
        context.output.answer(&serde_json::json!({"session": session.id, "ports": told}), String::new)?;
    }
    tokio::select! {
        signal = signals.next() => Ok(exit::of_signal(signal)),
        Some(ended) = listening.join_next() => ended?.map(|()| ExitCode::SUCCESS),
    }
}

async fn accept(
    client: Client,
    id: SessionId,
    listener: TcpListener,
    remote: u16,
    output: crate::output::Output,
) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (local, _) = listener.accept().await?;
        let _ = local.set_nodelay(true);
        let client = client.clone();
        connections.spawn(async move {
            if let Err(error) = client.forward_port(id, remote, local).await {
                output.note(&format!("a connection to port {remote} ended: {error}"));
            }
        });
        // Those that ended are let go.
        while connections.try_join_next().is_some() {}
    }
}
