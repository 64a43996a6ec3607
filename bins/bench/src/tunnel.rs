//! One tunnel fed from memory: an agent that pushes frames of 64 KiB, a viewer that reads them, the control plane
//! between them.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::{
    fleet::{self, Ears, Fleet, Member},
    progress::during,
    stage::{FED, Stage},
    stats::mebibytes,
    viewer,
};

/// Bytes of a frame.
const CHUNK: usize = 64 * 1024;

/// MiB a second from `member` to a viewer.
pub(crate) async fn run(
    stage: &Stage,
    token: &str,
    member: &Member,
    length: Duration,
) -> anyhow::Result<f64> {
    during("tunnel fed from memory", measure(stage, token, member, length)).await
}

async fn measure(stage: &Stage, token: &str, member: &Member, length: Duration) -> anyhow::Result<f64> {
    let (tunnels, mut opened) = mpsc::channel(1);
    let ears = Ears { arrivals: None, tunnels: Some(tunnels) };
    let fleet = Fleet::work(fleet::connect(stage, std::slice::from_ref(member)).await?, &ears);
    let session = viewer::session(stage, token, &viewer::command(FED, &["anything"])).await?;
    let (address, key) = (stage.address, member.key.clone());
    let mut feeding = JoinSet::new();
    feeding.spawn(async move {
        let id = opened.recv().await.context("nobody asked for a tunnel")?;
        let mut socket =
            fleet::dial(address, &format!("/api/v1/agents/tunnels/{id}"), &key, 4 * 1024).await?;
        let chunk = Bytes::from(vec![b'x'; CHUNK]);
        // Ends when the viewer leaves: then the socket takes nothing more.
        while socket.send(Message::Binary(chunk.clone())).await.is_ok() {}
        anyhow::Ok(())
    });
    let mut socket = viewer::attach(stage, token, &session).await?;
    let (mut started, mut bytes) = (None::<Instant>, 0);
    let rate = loop {
        match socket.next().await.context("the tunnel was cut")?? {
            Message::Binary(chunk) => {
                // The first one brings the time it took to begin.
                if let Some(started) = started {
                    bytes += chunk.len() as u64;
                    if started.elapsed() >= length {
                        break mebibytes(bytes, started.elapsed());
                    }
                } else {
                    started = Some(Instant::now());
                }
            }
            Message::Close(why) => bail!("the tunnel was closed: {why:?}"),
            _ => {}
        }
    };
    drop(socket);
    feeding.shutdown().await;
    fleet.leave().await?;
    Ok(rate)
}
