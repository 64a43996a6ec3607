//! Bringing events to plugins: webhooks by HTTP, signed as Standard Webhooks say; extensions by a call of their module.
//!
//! An event is handed out from the streams that its own transaction wrote, with the place in the stream in one transaction:
//! once for each plugin. Each delivery is claimed with a lease; after a crash it is tried again with the same id.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use metrics::counter;
use reqwest::{
    Method, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::json;
use tidegate_model::{InstalledPluginId, PluginType};
use tidegate_persistence::{
    Operator, PlatformTx,
    plugin_delivery::{self, Due, Outcome},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Plugins, check,
    runtime::{self, Failed},
};
use crate::{Core, Error, Result};

/// What signing secrets are sealed for.
pub(super) const PLACE: &[u8] = b"plugin signing secret";
/// How long a delivery is tried.
const AGE: TimeDelta = TimeDelta::hours(24);
/// How long whoever claimed one has for it; longer than a try can take.
const LEASE: TimeDelta = TimeDelta::seconds(90);
/// Deliveries under way at one time: to one plugin, and to all of them. One that hangs leaves room for the others.
const EACH: usize = 4;
const ALL: usize = 64;
/// Bytes of a receiver's answer that are read.
const ANSWER: usize = 64 * 1024;
/// How often it looks without a nudge.
const PERIOD: Duration = Duration::from_secs(1);
/// The least time between two rounds.
const PAUSE: Duration = Duration::from_millis(50);

/// A secret as receivers write it down.
pub(super) fn secret_text(core: &Arc<Core>, sealed: &[u8]) -> Result<String> {
    let plain = core.vault.open(PLACE, sealed)?;
    Ok(format!("whsec_{}", STANDARD.encode(plain)))
}

impl Plugins {
    /// Hands out what happened and brings it to the plugins, until `shutdown`. What is under way then has its time.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut nudges = self.0.nudges.subscribe();
        let mut under_way: JoinSet<InstalledPluginId> = JoinSet::new();
        let mut busy: BTreeMap<InstalledPluginId, usize> = BTreeMap::new();
        while !shutdown.is_cancelled() {
            match self.round(&mut under_way, &mut busy).await {
                // There may be more at once.
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "events for plugins wait, tried again later"),
            }
            tokio::select! {
                Some(ended) = under_way.join_next() => settle(&mut busy, ended.ok()),
                _ = nudges.recv() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = shutdown.cancelled() => {}
            }
            // Under load every moment brings a nudge: many of them are one round.
            tokio::time::sleep(PAUSE).await;
        }
        // Each has a time limit of its own.
        while under_way.join_next().await.is_some() {}
    }

    async fn round(
        &self,
        under_way: &mut JoinSet<InstalledPluginId>,
        busy: &mut BTreeMap<InstalledPluginId, usize>,
    ) -> Result<bool> {
        let full = self.hand_out().await?;
        while let Some(ended) = under_way.try_join_next() {
            settle(busy, ended.ok());
        }
        let free = ALL.saturating_sub(under_way.len());
        if free == 0 {
            return Ok(false);
        }
        let busy_with = busy.iter().flat_map(|(id, count)| std::iter::repeat_n(*id, *count)).collect();
        let claimed = self.claim(busy_with, free).await?;
        let any = !claimed.is_empty();
        for due in claimed {
            let (plugins, id) = (self.clone(), due.plugin.id);
            *busy.entry(id).or_default() += 1;
            under_way.spawn(async move {
                if let Err(error) = plugins.deliver(due).await {
                    tracing::debug!(%error, plugin = %id, "what became of a delivery was not written: it is tried again");
                }
                id
            });
        }
        Ok(full || any)
    }

    /// Hands out what was committed since the last time; whether there is more.
    pub async fn hand_out(&self) -> Result<bool> {
        let now = self.0.clock.now();
        let handed = async |tx: &mut PlatformTx| {
            let handed = plugin_delivery::hand_out(tx, now).await?;
            plugin_delivery::expire(tx, now - AGE, now).await?;
            Ok::<_, Error>(handed)
        };
        Ok(self.0.db.in_platform(&Operator::system(), handed).await?.full)
    }

    async fn claim(&self, under_way: Vec<InstalledPluginId>, free: usize) -> Result<Vec<Due>> {
        let now = self.0.clock.now();
        let many = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let claim = async |tx: &mut PlatformTx| {
            plugin_delivery::claim(tx, under_way, (many(EACH), many(free.min(ALL))), now, now + LEASE).await
        };
        Ok(self.0.db.in_platform(&Operator::system(), claim).await?)
    }

    /// One round: hands out, brings what is due, and gives how much that was.
    pub async fn deliver_due(&self) -> Result<usize> {
        while self.hand_out().await? {}
        let claimed = self.claim(Vec::new(), ALL).await?;
        let count = claimed.len();
        for delivered in join_all(claimed.into_iter().map(|due| self.deliver(due))).await {
            delivered?;
        }
        Ok(count)
    }

    /// Claims what is due and does nothing with it: what a crash in the middle leaves behind.
    pub async fn claim_and_forget(&self) -> Result<usize> {
        while self.hand_out().await? {}
        Ok(self.claim(Vec::new(), ALL).await?.len())
    }

    async fn deliver(&self, due: Due) -> Result<()> {
        let (now, id, attempt, since) = (self.0.clock.now(), due.id, due.attempt, due.since);
        let tried = match due.plugin.kind {
            PluginType::Webhook => self.send(&due, now).await,
            PluginType::Extension => self.tell(&due).await,
            PluginType::Api | PluginType::Ui | PluginType::Theme => {
                Err(Tried { answer: None, reason: "it hears of no events".to_owned(), again: false })
            }
        };
        let now = self.0.clock.now();
        let (outcome, label) = match tried {
            Ok(answer) => (Outcome::Delivered(answer), "delivered"),
            Err(Tried { answer, reason, again }) => {
                let at = now + wait(attempt);
                if again && at - since <= AGE {
                    (Outcome::Again(at, answer, reason), "put_off")
                } else {
                    tracing::warn!(delivery = %id, plugin = due.plugin.name, reason, "an event was given up");
                    (Outcome::Failed(answer, reason), "failed")
                }
            }
        };
        counter!("tidegate_plugin_deliveries_total", "outcome" => label).increment(1);
        let finish =
            async |tx: &mut PlatformTx| plugin_delivery::finish(tx, (id, attempt), outcome, now).await;
        if !self.0.db.in_platform(&Operator::system(), finish).await? {
            tracing::debug!(delivery = %id, "a try ended after its lease");
        }
        Ok(())
    }

    async fn send(&self, due: &Due, now: DateTime<Utc>) -> Tries {
        let url = check::endpoint(&due.plugin.manifest, &due.plugin.config);
        let url = url
            .and_then(|url| url.parse::<Url>().ok())
            .ok_or_else(|| never("it has no address to send to"))?;
        let body = serde_json::to_vec(&due.payload).map_err(|_| never("the event cannot be written"))?;
        let sealed = due.secret.as_deref().ok_or_else(|| never("it has no signing secret"))?;
        let secret =
            self.0.vault.open(PLACE, sealed).map_err(|_| later("its signing secret does not open"))?;
        let id = format!("msg_{}", due.id);
        let headers = signed(&secret, &id, now, &body).ok_or_else(|| never("the event cannot be signed"))?;
        let time = Duration::from_secs(u64::from(self.0.options.plugins.webhook_seconds.clamp(1, 60)));
        let answer = self.0.plugins.egress.send((Method::POST, url), headers, body, (ANSWER, time)).await;
        let answer = answer.map_err(|reason| later(&reason))?;
        let status = i32::from(answer.status);
        match answer.status {
            200..=299 => Ok(Some(status)),
            // It says that nobody is there any more.
            410 => Err(Tried {
                answer: Some(status),
                reason: "it answered 410: it is gone".to_owned(),
                again: false,
            }),
            300..=399 => {
                let reason = format!("it answered {status}: nobody follows it elsewhere");
                Err(Tried { answer: Some(status), reason, again: true })
            }
            _ => Err(Tried { answer: Some(status), reason: format!("it answered {status}"), again: true }),
        }
    }

    async fn tell(&self, due: &Due) -> Tries {
        let input = json!({"kind": "event", "id": due.id, "event": due.payload, "config": due.plugin.config});
        match runtime::call(&self.0, &due.plugin, input).await {
            Ok(_) => Ok(None),
            Err(Failed::Fault(fault)) => Err(later(&fault.to_string())),
            Err(Failed::Told(most)) => {
                Err(never(&format!("it has more than the {most} bytes that a module is told")))
            }
            Err(Failed::Busy) => Err(later("too many plugins run at this moment")),
            Err(Failed::Ours(error)) => {
                tracing::debug!(%error, plugin = due.plugin.name, "a plugin could not be called");
                Err(later("the platform could not call it"))
            }
        }
    }
}

/// A try that was none: with what status, why, and whether another one may go better.
struct Tried {
    answer: Option<i32>,
    reason: String,
    again: bool,
}

type Tries = std::result::Result<Option<i32>, Tried>;

fn never(reason: &str) -> Tried {
    Tried { answer: None, reason: reason.to_owned(), again: false }
}

fn later(reason: &str) -> Tried {
    Tried { answer: None, reason: reason.to_owned(), again: true }
}

fn settle(busy: &mut BTreeMap<InstalledPluginId, usize>, ended: Option<InstalledPluginId>) {
    match ended {
        Some(id) => {
            if let Some(count) = busy.get_mut(&id) {
                *count = count.saturating_sub(1);
            }
            busy.retain(|_, count| *count > 0);
        }
        // One that panicked said no name: who seems busy is asked about anew.
        None => busy.clear(),
    }
}

/// The headers of Standard Webhooks: id, time, and a signature of both with the body.
fn signed(secret: &[u8], id: &str, now: DateTime<Utc>, body: &[u8]) -> Option<HeaderMap> {
    let timestamp = now.timestamp().to_string();
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    let signature = format!("v1,{}", STANDARD.encode(context.sign()));
    Some(HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ("webhook-id".parse().ok()?, id.parse().ok()?),
        ("webhook-timestamp".parse().ok()?, timestamp.parse().ok()?),
        ("webhook-signature".parse().ok()?, signature.parse().ok()?),
    ]))
}

/// How long to wait after a try: five seconds, then three times as long each time, four hours at most; a fifth more or
/// less, so that what failed together is not tried together.
fn wait(attempt: i32) -> TimeDelta {
    let power = u32::try_from(attempt - 1).unwrap_or(0).min(8);
    let seconds = (5 * 3_i64.pow(power)).min(4 * 3_600);
    TimeDelta::milliseconds(seconds * rand::random_range(800..=1_200))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn a_signature_is_what_standard_webhooks_say() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let now = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let headers =
            signed(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", now, br#"{"test": 2432232314}"#).unwrap();
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
    }

    #[test]
    fn tries_come_less_and_less_often_within_a_day() {
        let mut total = TimeDelta::zero();
        for attempt in 1..=9 {
            let waited = wait(attempt);
            assert!(waited >= TimeDelta::seconds(4) && waited <= TimeDelta::seconds(17_280), "{attempt}");
            total += waited;
        }
        assert!(total < AGE, "nine tries and more in a day: {total}");
    }
}
