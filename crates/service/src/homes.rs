//! Persistent homes: seen and deleted by whose they are, and by those who manage everybody's sessions. Only the agent can
//! say that one is gone, and until then it counts.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_model::{CommandId, CommandStatus, Home, HomeId, Operation, SessionId};
use tidegate_persistence::{
    AgentTx, OrgScope, audit,
    command::Finished,
    home::{self, Deletion},
};

use crate::{
    Core, Error, Listed, Nudge, Paging, Result,
    error::Named,
    options::Options,
    organizations::conflict,
    page,
    permissions::{may, require, standing},
};

/// Persistent homes of an organization.
#[derive(Debug, Clone)]
pub struct Homes(pub(crate) Arc<Core>);

/// What is said of agents that carry the command out and know nothing of homes.
const UNKNOWN: &str =
    "the agent deletes no homes: bring it up to date and try again, or remove it and its folder";

impl Homes {
    /// Homes that the caller may see, the oldest first.
    pub async fn list(&self, scope: &OrgScope, paging: &Paging) -> Result<Listed<Home>> {
        require(Operation::OwnSessions, standing(scope, scope.role()))?;
        let (after, rows) = (paging.after_moment()?, paging.rows());
        let of = (!may(scope, Operation::ManageSessions)).then(|| scope.user_id());
        let listed = self.0.db.in_org(scope, async |tx| home::list(tx, of, after, rows).await);
        let (items, total) = listed.await?;
        Ok(paging.page(items, total, |home| page::moment(home.created_at, home.id)))
    }

    /// Asks the agent of a home to delete it. Gives the home as it stands, and the command; none where it is asked for
    /// already, or where the agent is gone and the home with it.
    pub async fn delete(&self, scope: &OrgScope, id: HomeId) -> Result<(Home, Option<CommandId>)> {
        let (core, now) = (&self.0, self.0.clock.now());
        let mut asked = None;
        let nudge = &mut asked;
        let deleted = core
            .db
            .in_org_locked(scope, async |tx, locked| {
                // Under the lock that starts of sessions hold: none begins in it meanwhile.
                locked.named("organization")?;
                let what = || format!("home {id}");
                let (found, agent) = home::find(tx, id).await.named(what())?;
                if found.user_id != scope.user_id() && !may(scope, Operation::ManageSessions) {
                    return Err(Error::not_found(what()));
                }
                if found.deleting_at.is_some() {
                    return Ok((found, None));
                }
                if home::in_use(tx, found.user_id, agent).await? {
                    return Err(conflict(
                        "E_HOME_IN_USE",
                        "a session that has not ended is at home there, asleep or not: end it first",
                    ));
                }
                let detail = json!({"before": shown(&found)});
                let resource = format!("home:{id}");
                let line = audit::Entry { action: "home.delete", resource, address: None, detail, at: now };
                audit::insert_org(tx, line).await?;
                let Some(handle) = found.agent_id.clone() else {
                    home::forget(tx, id).await?;
                    return Ok((found, None));
                };
                // An agent that knows nothing of homes stops a session that has ended, and says no more than that.
                let last = home::last_session(tx, found.user_id, agent).await?;
                let payload = json!({
                    "sessionId": last.unwrap_or_else(SessionId::new), "deleteHome": true,
                    "orgId": scope.org_id(), "userId": found.user_id, "user": found.username,
                });
                let command = CommandId::new();
                let deadline = now + Options::seconds(core.options.stop_deadline_seconds);
                let handle = handle.to_string();
                home::ask(tx, Deletion { id, agent, handle, command, payload, deadline, now }).await?;
                *nudge = Some(agent);
                Ok((home::find(tx, id).await?.0, Some(command)))
            })
            .await?;
        if let Some(agent) = asked {
            core.nudges.send(Nudge::Commands(agent));
        }
        Ok(deleted)
    }
}

/// What final commands say of homes. A stop that is about no session is about a home.
pub(crate) async fn settle_in(tx: &mut AgentTx, finished: &[Finished]) -> Result<()> {
    let about_homes =
        |it: &&Finished| it.session_id.is_none() && it.action == tidegate_model::CommandAction::StopSession;
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for command in finished.iter().filter(about_homes) {
        let said = command.result.as_ref().and_then(|result| result.get("homeDeleted"));
        match (&command.error, said) {
            (None, Some(Value::Bool(true))) if command.status == CommandStatus::Completed => {
                gone.push(command.id);
            }
            (Some(error), _) => kept.push((command.id, error.clone())),
            (None, _) => kept.push((command.id, UNKNOWN.to_owned())),
        }
    }
    if !gone.is_empty() {
        home::gone(tx, gone).await?;
    }
    if !kept.is_empty() {
        home::kept(tx, kept).await?;
    }
    Ok(())
}

fn shown(home: &Home) -> Value {
    json!({
        "userId": home.user_id, "username": home.username, "agentId": home.agent_id, "storage": home.storage,
    })
}
