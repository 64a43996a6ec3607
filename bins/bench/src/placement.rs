//! What a placement costs where there are many agents: creates with a few connected, and with a thousand.

use std::time::Duration;

use serde::Serialize;

use crate::{
    fleet::{self, Ears, Fleet, Member},
    lifecycles::{self, Lives},
    stage::Stage,
};

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Placed {
    /// Agents that were connected.
    pub(crate) agents: usize,
    pub(crate) lives: Lives,
}

/// Sessions in many organizations on these agents alone.
pub(crate) async fn run(
    stage: &Stage,
    tokens: &[String],
    members: &[Member],
    connections: u32,
    length: Duration,
) -> anyhow::Result<Placed> {
    let fleet = Fleet::work(fleet::connect(stage, members).await?, &Ears::default());
    let lives = lifecycles::run(stage, tokens, connections, length).await?;
    fleet.leave().await?;
    lifecycles::clear(stage).await?;
    Ok(Placed { agents: members.len(), lives })
}
