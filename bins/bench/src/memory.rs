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
/// How often memory is looked at while something goes on.
const LOOK: Duration = Duration::from_millis(20);
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

/// Resident memory at one time, in KiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Resident {
    /// Of the control plane.
    pub(crate) server: u64,
    /// Of the real agent.
    pub(crate) agent: u64,
}

impl Resident {
    /// At this moment.
    pub(crate) fn now(stage: &Stage) -> anyhow::Result<Self> {
        Ok(Self { server: stage.server_memory()?, agent: stage.agent_memory()? })
    }

    fn most(self, other: Self) -> Self {
        Self { server: self.server.max(other.server), agent: self.agent.max(other.agent) }
    }

    /// KiB of each that came on top of `before`.
    pub(crate) fn beyond(self, before: Self) -> Self {
        Self {
            server: self.server.saturating_sub(before.server),
            agent: self.agent.saturating_sub(before.agent),
        }
    }
}

/// What some work did to the memory of control plane and agent.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Course {
    /// Before it.
    pub(crate) before: Resident,
    /// The most that was seen.
    pub(crate) peak: Resident,
    /// After it.
    pub(crate) after: Resident,
}

/// Does `work` and looks at the memory all the while.
pub(crate) async fn watched<T>(
    stage: &Stage,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Course)> {
    let mut work = std::pin::pin!(work);
    let before = Resident::now(stage)?;
    let mut peak = before;
    let done = loop {
        tokio::select! {
            done = &mut work => break done?,
            () = sleep(LOOK) => peak = peak.most(Resident::now(stage)?),
        }
    };
    let after = Resident::now(stage)?;
    Ok((done, Course { before, peak: peak.most(after), after }))
}
