//! Sessions of every organization, for operators: they see them and end them. Each end stands in the platform's own log
//! and in the organization's.

use std::sync::Arc;

use serde_json::json;
use tidegate_model::{Operation, OrgId, Session, SessionFilter, SessionId};
use tidegate_persistence::{
    Operator, PlatformTx, audit, organization,
    session::{self, Ended, EveryPage},
};

use crate::{
    Caller, Core, Error, Listed, Nudge, Paging, Result, error::Named, options::Options, page::bad_cursor,
    permissions::require_platform,
};

/// Every session of the platform.
#[derive(Debug, Clone)]
pub struct AllSessions(pub(crate) Arc<Core>);

impl AllSessions {
    /// The caller as operator, who may see and end sessions of every organization.
    pub fn operator(&self, caller: &Caller) -> Result<Operator> {
        require_platform(Operation::ManageAllSessions, caller)
    }

    /// Sessions, the newest first; of one organization, by id or name, or of all.
    pub async fn list(
        &self,
        operator: &Operator,
        filter: SessionFilter,
        org: Option<&str>,
        paging: &Paging,
    ) -> Result<Listed<Session>> {
        let before = paging.after()?.map(|text| text.parse().map_err(|_| bad_cursor())).transpose()?;
        let (items, total) = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let org = match org {
                    Some(wanted) => Some(find_org_in(tx, wanted).await?),
                    None => None,
                };
                let page = EveryPage { filter, org, limit: paging.rows(), before };
                Ok::<_, Error>(session::list_all(tx, &page).await?)
            })
            .await?;
        Ok(paging.page(items, total, |session| session.id.to_string()))
    }

    /// One session.
    pub async fn get(&self, operator: &Operator, id: SessionId) -> Result<Session> {
        let found = self.0.db.in_platform(operator, async |tx| session::find_any(tx, id).await);
        found.await.named(format_args!("session {id}"))
    }

    /// Begins the end of a session, and says whether there was anything to begin. Where its agent does not come back to
    /// carry it out, the session fails at the deadline of its stop.
    pub async fn terminate(
        &self,
        operator: &Operator,
        id: SessionId,
        reason: Option<&str>,
    ) -> Result<(Session, bool)> {
        let core = &self.0;
        let now = core.clock.now();
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let reason = format!("ended by an operator of the platform{why}");
        let deadline = now + Options::seconds(core.options.stop_deadline_seconds);
        let (session, agent) = core
            .db
            .in_platform(operator, async |tx| {
                let before = session::find_any(tx, id).await.named(format_args!("session {id}"))?;
                let ended = Ended { id, reason: reason.clone(), deadline, now };
                let Some(agent) = session::terminate_any(tx, ended).await? else { return Ok((before, None)) };
                let detail = json!({"before": {"state": before.state}, "reason": reason});
                let resource = format!("session:{id}");
                let entry = audit::Entry { action: "session.stop", resource, address: None, detail, at: now };
                audit::insert_platform(tx, entry.clone()).await?;
                audit::insert_platform_about(tx, before.org_id, entry).await?;
                let session = session::find_any(tx, id).await?;
                Ok::<_, Error>((session, Some(agent)))
            })
            .await?;
        if let Some(agent) = agent {
            core.nudges.send(Nudge::Commands(agent));
        }
        Ok((session, agent.is_some()))
    }
}

/// The organization of this id or name.
pub(crate) async fn find_org_in(tx: &mut PlatformTx, wanted: &str) -> Result<OrgId> {
    let found = match wanted.parse::<OrgId>() {
        Ok(id) => organization::find_any(tx, id).await,
        Err(_) => organization::find_by_name(tx, wanted).await,
    };
    let shown: String = wanted.chars().filter(|c| !c.is_control()).take(64).collect();
    found.map(|org| org.id).named(format_args!("organization {shown}"))
}
