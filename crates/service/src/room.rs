//! Whether quotas leave room for one more session: asked under the organization's lock when one is made or woken, and
//! without it for a dry run. One rule for both.

use tidegate_model::{AgentId, Bounded, QuotaLimits, QuotaOwner, Session, Usage, UserId, binding};
use tidegate_persistence::{
    OrgTx,
    quota::{self, Bound, UNLIMITED},
};

use crate::{Core, Error, Result};

/// Where there is room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Room {
    /// On every agent.
    Anywhere,
    /// On these alone: a home is there already, and a new one anywhere else would be too much.
    At(Vec<AgentId>),
}

/// Whether members without a quota of their own are bounded.
pub(crate) fn default_bounds(core: &Core) -> bool {
    !core.options.default_quota.0.is_unlimited()
}

/// The bounds as they hold: with the default where a member's quota says nothing.
pub(crate) fn resolve(core: &Core, bounds: Vec<Bound>) -> Vec<Bounded> {
    let default = core.options.default_quota.0;
    let bounded = |Bound { owner, name, unlimited, set, used }| {
        let limits = match owner {
            QuotaOwner::User => of_member(set, if unlimited { QuotaLimits::UNLIMITED } else { default }),
            QuotaOwner::Group | QuotaOwner::Organization => QuotaLimits(set),
        };
        Bounded { owner, name, limits, used }
    };
    bounds.into_iter().map(bounded).collect()
}

/// A member's limits: what was set, and the default where nothing was.
pub(crate) fn of_member(set: [Option<i64>; 4], default: QuotaLimits) -> QuotaLimits {
    let mut limits = default;
    for (limit, set) in limits.0.iter_mut().zip(set) {
        match set {
            None => {}
            Some(UNLIMITED) => *limit = None,
            Some(set) => *limit = Some(set),
        }
    }
    limits
}

/// Where a session that needs `wanted` fits under every bound; the bound that holds it back where it fits nowhere.
pub(crate) async fn find_in(
    tx: &mut OrgTx,
    bounds: &[Bounded],
    owner: UserId,
    wanted: Usage,
) -> Result<Room> {
    if let Some(bound) = binding(bounds, wanted.without_storage()) {
        return Err(Error::QuotaExceeded(Box::new(bound)));
    }
    let Some(bound) = binding(bounds, wanted) else { return Ok(Room::Anywhere) };
    let homes = quota::homes(tx, owner).await?;
    let fits = |(_, there): &(AgentId, i64)| {
        let Usage([sessions, cpu, memory, storage]) = wanted;
        binding(bounds, Usage([sessions, cpu, memory, (storage - there).max(0)])).is_none()
    };
    let at: Vec<AgentId> = homes.into_iter().filter(fits).map(|(agent, _)| agent).collect();
    if at.is_empty() { Err(Error::QuotaExceeded(Box::new(bound))) } else { Ok(Room::At(at)) }
}

/// Whether its owner may have this session awake; its home is counted already.
pub(crate) async fn to_wake_in(core: &Core, tx: &mut OrgTx, session: &Session) -> Result<()> {
    let bounds = resolve(core, quota::bounds(tx, session.user_id, default_bounds(core)).await?);
    match binding(&bounds, Usage::of_session(session.resources).without_storage()) {
        Some(bound) => Err(Error::QuotaExceeded(Box::new(bound))),
        None => Ok(()),
    }
}
