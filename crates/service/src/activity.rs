//! What keeps sessions alive: what their viewers type, and what programs declare. What they see, and looking at a session
//! from outside, is none of it.

use std::{collections::BTreeMap, sync::Arc};

use chrono::TimeDelta;
use tidegate_model::{ActivityKind, Session, SessionActivity, SessionId, StreamMode, UserId};
use tidegate_persistence::{
    OrgScope, OrgTx, SystemScope,
    activity::{self, Seen},
    session,
};

use crate::{Core, Error, Result, options::Options, sessions::seen_in, streams::may_stream};

/// What keeps sessions alive.
#[derive(Debug, Clone)]
pub struct Activity(pub(crate) Arc<Core>);

/// Sessions looked up by one statement at most.
const BATCH: usize = 1_000;

impl Activity {
    /// The last reasons why a session stayed alive, the newest first; at most 20. For whoever may see the session.
    pub async fn list(&self, scope: &OrgScope, id: SessionId) -> Result<Vec<SessionActivity>> {
        self.0
            .db
            .in_org(scope, async |tx| {
                seen_in(&self.0, tx, scope, id).await?;
                Ok(activity::list(tx, id).await?)
            })
            .await
    }

    /// A program says that the session is in use. For its owner, and for whoever it is shared with to control.
    pub async fn heartbeat(&self, scope: &OrgScope, id: SessionId) -> Result<Session> {
        let core = &self.0;
        core.db
            .in_org(scope, async |tx| {
                let (session, _) = seen_in(core, tx, scope, id).await?;
                may_stream(scope, &session, StreamMode::Control)?;
                if session.state.is_final() {
                    return Err(Error::WrongState { id, state: session.state });
                }
                core.declared_in(tx, id, scope.user_id(), ActivityKind::Heartbeat).await?;
                let shared = session.shared;
                Ok(Session { shared, ..session::find(tx, id).await? })
            })
            .await
    }

    /// Writes down in which sessions somebody typed since the last call, with who it was: one line a session. Called
    /// every few seconds by whoever carries the streams; after an error everything may be given again.
    pub async fn note_input(&self, typed: &BTreeMap<SessionId, UserId>) -> Result<usize> {
        let (core, now, mut noted) = (&self.0, self.0.clock.now(), 0);
        let ids: Vec<SessionId> = typed.keys().copied().collect();
        for some in ids.chunks(BATCH) {
            let mut of: BTreeMap<SystemScope, Vec<(SessionId, UserId)>> = BTreeMap::new();
            for (scope, id) in core.db.organizations_of(some.to_vec()).await? {
                of.entry(scope).or_default().extend(typed.get(&id).map(|user| (id, *user)));
            }
            for (scope, who) in of {
                let seen = Seen { who, kind: ActivityKind::Input, unless_within: TimeDelta::zero(), now };
                noted += core.db.in_org_as_system(&scope, async |tx| activity::note(tx, seen).await).await?;
            }
        }
        Ok(noted)
    }
}

impl Core {
    /// Notes what somebody did by a request; at most once a session and period, however often it is done.
    pub(crate) async fn declared_in(
        &self,
        tx: &mut OrgTx,
        id: SessionId,
        user: UserId,
        kind: ActivityKind,
    ) -> Result<()> {
        let unless_within = match kind {
            // Rare, and worth knowing.
            ActivityKind::Extend => TimeDelta::zero(),
            ActivityKind::Input | ActivityKind::Connect | ActivityKind::Heartbeat => {
                Options::seconds(self.options.activity_seconds)
            }
        };
        let seen = Seen { who: vec![(id, user)], kind, unless_within, now: self.clock.now() };
        activity::note(tx, seen).await?;
        Ok(())
    }
}
