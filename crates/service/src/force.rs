//! Ending a session whose agent cannot be asked: it is ended in the books, and the agent is told when it returns.

use serde_json::json;
use tidegate_model::{AgentStatus, SessionId, SessionState};
use tidegate_persistence::{OrgScope, OrgTx, agent, audit, session, session_end};

use crate::{Changed, Error, Nudge, Result, Sessions, sessions::visible_in};

impl Sessions {
    /// Ends a session like [`Sessions::terminate`]; where its agent is offline, removed or no longer approved, the
    /// session is terminated at once. Its stop waits for the agent all the same, and what still runs there is stopped
    /// when the agent tells of it.
    pub async fn terminate_by_force(&self, scope: &OrgScope, id: SessionId) -> Result<Changed> {
        // Two transactions, each of them whole: after the first one the session is being terminated, and a repeat of
        // this request finds it so.
        let asked = self.terminate(scope, id).await?;
        let (Changed::Queued(session, _) | Changed::Already(session)) = &asked else { return Ok(asked) };
        if session.state != SessionState::Terminating {
            return Ok(asked);
        }
        let core = &self.0;
        let ended = core.db.in_org(scope, async |tx| self.end_in(tx, scope, id).await).await?;
        if !ended {
            return Ok(asked);
        }
        core.nudges.send(Nudge::SessionEnded(id));
        let session = self.get(scope, id).await?;
        Ok(match asked {
            Changed::Queued(_, command) => Changed::Queued(session, command),
            Changed::Already(_) | Changed::Replay(_) => Changed::Already(session),
        })
    }

    /// Ends a session that is being terminated, if nobody is there to do it.
    async fn end_in(&self, tx: &mut OrgTx, scope: &OrgScope, id: SessionId) -> Result<bool> {
        let now = self.0.clock.now();
        match visible_in(&self.0, tx, scope, id).await {
            Ok(session) if session.state == SessionState::Terminating => {}
            // Somebody was faster: it has ended, and may be cleaned up already.
            Ok(_) | Err(Error::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        // Locked, so that an agent that returns meanwhile does so before or after, not in between.
        let agent = match session::placement(tx, id).await? {
            Some(agent) => agent::lock(tx, agent).await?,
            None => None,
        };
        let why = match agent {
            Some(agent) if agent.status != AgentStatus::Offline => return Ok(false),
            Some(agent) => format!("while agent {} was offline", agent.handle),
            None => "and its agent is gone".to_owned(),
        };
        let reason = format!("ended by force by {}, {why}", scope.username());
        if !session_end::end(tx, id, &reason, now).await? {
            return Ok(false);
        }
        let detail = json!({
            "before": {"state": SessionState::Terminating}, "after": {"state": SessionState::Terminated}, "reason": reason,
        });
        let resource = format!("session:{id}");
        let entry = audit::Entry { action: "session.force", resource, address: None, detail, at: now };
        audit::insert_org(tx, entry).await?;
        Ok::<_, Error>(true)
    }
}
