//! Carrying installations out: a lease says who is at one, so that any replica goes on where another one died, and none
//! installs twice. What is brought from the catalog is a copy: nothing that becomes of the catalog later changes it.

use serde_json::json;
use tidegate_model::ApplicationId;
use tidegate_persistence::{
    Error as DbError, OrgTx, SystemScope,
    application::{self, Brought, Claimed, Icon, Offered},
};

use super::{Applications, audit_in, settled};
use crate::{Error, Result, launch, options::Options};

/// Installations that are looked at together.
const BITE: i32 = 50;
/// How long somebody is at one before others may take it over.
const LEASE_SECONDS: u32 = 60;
/// Tries of one installation at most: what kills whoever is at it does not kill everybody for ever.
const TRIES: i32 = 5;
/// Characters of a message at most.
const MESSAGE: usize = 1_000;

/// What came of looking.
enum Outcome {
    Brought(Box<Brought>),
    Nothing(String),
}

impl Applications {
    /// Carries out what is to be installed, and says how many installations came to an end.
    pub async fn install_due(&self) -> Result<usize> {
        let core = &self.0;
        let mut ended = 0;
        for (scope, id) in core.db.due_installations(core.clock.now(), BITE).await? {
            ended += usize::from(self.install_one(&scope, id).await?);
        }
        Ok(ended)
    }

    /// Three transactions: each leaves a state that the next one, of whomever, goes on from.
    async fn install_one(&self, scope: &SystemScope, id: ApplicationId) -> Result<bool> {
        let core = &self.0;
        let now = core.clock.now();
        let lease = now + Options::seconds(LEASE_SECONDS);
        let claimed =
            core.db.in_org_as_system(scope, async |tx| application::claim(tx, id, now, lease).await).await?;
        let Some(claimed) = claimed else { return Ok(false) };
        let outcome = if claimed.attempt > TRIES {
            Outcome::Nothing(format!(
                "it was begun {TRIES} times and never ended: the server's log may say more"
            ))
        } else {
            self.bring(scope, &claimed).await?
        };
        let now = core.clock.now();
        core.db
            .in_org_as_system(scope, async |tx| match outcome {
                Outcome::Brought(brought) => {
                    if !application::finish(tx, &claimed, *brought, now).await? {
                        return Ok(false);
                    }
                    let detail = json!({"after": {"installStatus": "installed"}, "name": claimed.name});
                    audit_in(tx, "application.installed", id, detail, now).await?;
                    Ok(true)
                }
                Outcome::Nothing(why) => {
                    let why: String = why.chars().take(MESSAGE).collect();
                    if !application::fail(tx, &claimed, &why, now).await? {
                        return Ok(false);
                    }
                    let after = json!({"installStatus": "failed", "installMessage": why});
                    let detail = json!({"after": after, "name": claimed.name});
                    audit_in(tx, "application.failed", id, detail, now).await?;
                    Ok::<_, Error>(true)
                }
            })
            .await
    }

    /// Looks at catalog and agents as they are now.
    async fn bring(&self, scope: &SystemScope, claimed: &Claimed) -> Result<Outcome> {
        let platform = claimed.platform;
        let found = self
            .0
            .db
            .in_org_as_system(scope, async |tx| {
                let offered = match application::offered(tx, claimed.template).await {
                    Err(DbError::NotFound) => return Ok(None),
                    offered => offered?,
                };
                let served = application::first_served(tx, &[platform]).await?.is_some();
                let icon = picture_in(tx, &offered).await?;
                Ok::<_, Error>(Some((offered, served, icon)))
            })
            .await?;
        let Some((offered, served, icon)) = found else {
            return Ok(Outcome::Nothing(
                "the template was withdrawn from the catalog, or its repository is disabled".to_owned(),
            ));
        };
        let manifest = offered.manifest;
        if let Some(complaint) = launch::why_not(&manifest, platform) {
            return Ok(Outcome::Nothing(format!("the platform {platform} {complaint}")));
        }
        if !served {
            let agents = platform.agents();
            return Ok(Outcome::Nothing(format!(
                "no approved agent of platform {agents} serves the organization: have an operator approve one, then change the application or install it again"
            )));
        }
        match settled(&manifest, &claimed.configuration, platform) {
            Ok(configuration) => Ok(Outcome::Brought(Box::new(Brought { manifest, configuration, icon }))),
            Err(Error::Invalid(errors)) => Ok(Outcome::Nothing(format!(
                "the template has changed, and its options do not fit any more: {errors}"
            ))),
            Err(error @ Error::Conflict { .. }) => Ok(Outcome::Nothing(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

async fn picture_in(tx: &mut OrgTx, offered: &Offered) -> Result<Option<Icon>> {
    match &offered.icon {
        Some(digest) => Ok(application::picture(tx, digest.clone()).await?),
        None => Ok(None),
    }
}
