//! The use cases on a real database, as the plain login role.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

mod agent_commands;
mod applications;
mod attempts;
mod audit;
mod broker;
mod catalog;
mod deadlocks;
mod devices;
mod disconnects;
mod events;
mod force;
mod groups;
mod homes;
mod identities;
mod key_lookups;
mod key_rights;
mod keys;
mod leaving;
mod limits;
mod logins;
mod mail;
mod mail_server;
mod nats_cluster;
mod nats_rotation;
mod orders;
mod password_resets;
mod passwords;
mod placement;
mod plugins;
mod quotas;
mod registration;
mod reports;
mod repositories;
mod retention;
mod seed_b;
mod sessions;
mod shares;
mod sources;
mod streams;
mod sweeps;
mod tenancy;
mod users;

use tidegate_model::{Session, SessionId, SessionState};
use tidegate_service::{Caller, Changed};
use tidegate_test_support::TestDb;

/// Where a session stands.
async fn state(test: &TestDb, caller: &Caller, id: SessionId) -> SessionState {
    get(test, caller, id).await.state
}

async fn get(test: &TestDb, caller: &Caller, id: SessionId) -> Session {
    test.services().sessions.get(caller.org().unwrap(), id).await.unwrap()
}

/// What a request queued.
fn queued(changed: Changed) -> Session {
    match changed {
        Changed::Queued(session, _) => session,
        other => panic!("{other:?} queued nothing"),
    }
}
