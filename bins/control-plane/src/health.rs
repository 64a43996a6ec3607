//! Whether this process can serve: the database and NATS answer, the schema is current, the clocks agree.

use std::time::Duration;

use chrono::TimeDelta;
use tidegate_model::{Clock, SystemClock};
use tidegate_service::{Broker, Services, health};
use tokio::{sync::Mutex, time::Instant};

/// How long an answer is good for, so that probes cannot load the database.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// How long NATS may be silent.
const SILENCE: Duration = Duration::from_secs(2);
/// How far the clocks may be apart.
const SKEW: TimeDelta = TimeDelta::seconds(5);

/// The answer of `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the shape of the answer: one word a check")]
pub(crate) struct Readiness {
    /// Whether requests should be sent here.
    pub ready: bool,
    /// Whether PostgreSQL answers.
    pub database: bool,
    /// Whether its schema is this program's.
    pub migrated: bool,
    /// Whether its clock and this machine's differ by 5 s at most.
    pub clock: bool,
    /// Whether NATS answers; `null` where this server has none.
    pub nats: Option<bool>,
    /// Whether this process is on its way out.
    pub stopping: bool,
}

/// Looks at most once a second; everybody who asks meanwhile gets the same answer.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    last: Mutex<Option<(Instant, Readiness)>>,
}

impl Probe {
    pub(crate) async fn look(&self, services: &Services, stopping: bool) -> Readiness {
        let mut last = self.last.lock().await;
        let readiness = match *last {
            Some((at, readiness)) if at.elapsed() < GOOD_FOR => readiness,
            _ => {
                let fresh = read(services).await;
                *last = Some((Instant::now(), fresh));
                fresh
            }
        };
        Readiness { stopping, ready: readiness.ready && !stopping, ..readiness }
    }
}

async fn read(services: &Services) -> Readiness {
    let db = services.db();
    let machine = SystemClock::new();
    let before = machine.now();
    let (database, clock) = match db.now().await {
        // A slow answer is no skew: the database's time must lie near the interval in which it was asked.
        Ok(now) => (true, now > before - SKEW && now < machine.now() + SKEW),
        Err(_) => (false, false),
    };
    let migrated = database && health(db).await.is_ok_and(|health| health.migrated);
    let nats = nats(&services.broker).await;
    let ready = database && migrated && clock && nats != Some(false);
    Readiness { ready, database, migrated, clock, nats, stopping: false }
}

async fn nats(broker: &Broker) -> Option<bool> {
    if !broker.is_open() {
        return None;
    }
    // Whatever it does, a probe wants to know soon.
    Some(tokio::time::timeout(SILENCE, broker.check()).await.is_ok_and(|checked| checked.is_ok()))
}
