//! What an agent costs that is merely connected: resident memory of the control plane, with and without them.

use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    fleet::{self, Ears, Fleet, Member, Socket},
    progress::during,
    stage::Stage,
    stats::real,
};

/// Agents that come and go first, so that what is made once is not counted.
const WARM_UP: usize = 50;
/// How long everything may settle before it is looked at: heartbeats go on meanwhile.
const SETTLE: Duration = Duration::from_secs(12);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    /// Agents that are connected.
    pub(crate) agents: usize,
    /// KiB without them.
    pub(crate) before: u64,
    /// KiB with them.
    pub(crate) after: u64,
    /// KiB for each.
    pub(crate) each: f64,
}

/// Connects `members` to a control plane that was just started.
pub(crate) async fn run(stage: &Stage, members: &[Member]) -> anyhow::Result<Memory> {
    let warm: Vec<Socket> = fleet::connect(stage, &members[..WARM_UP.min(members.len())]).await?;
    drop(warm);
    settle("memory before").await?;
    let before = stage.server_memory()?;
    let fleet = Fleet::work(fleet::connect(stage, members).await?, &Ears::default());
    settle("memory of idle agents").await?;
    let after = stage.server_memory()?;
    fleet.leave().await?;
    let agents = members.len();
    Ok(Memory { agents, before, after, each: real(after.saturating_sub(before)) / real(agents as u64) })
}

async fn settle(what: &str) -> anyhow::Result<()> {
    during(what, async {
        sleep(SETTLE).await;
        Ok(())
    })
    .await
}
