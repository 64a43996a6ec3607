//! What the verbs about NATS do.

pub(crate) mod reach;

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tidegate_engines::nats::{Durability, Foreign, Trust};
use tidegate_service::{
    Drift, NatsServer, Operator, OperatorStanding, PipeLimitsChange, Rotation, RotationBegun, Services,
};
use tokio::time::{Instant, sleep};

use self::reach::Reached;
use crate::{
    args::{ConfigArgs, DurabilityArg, LimitsArgs, NatsVerb},
    output, progress,
    settings::Settings,
};

/// How often servers are asked whether they trust the new key.
const POLL: Duration = Duration::from_millis(500);

/// Does what was asked about NATS.
pub(crate) async fn nats(
    services: &Services,
    settings: &Settings,
    verb: NatsVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    match verb {
        NatsVerb::Show => show(services, settings, as_json).await,
        NatsVerb::Config(wanted) => config(services, wanted, as_json).await,
        NatsVerb::Rotate { wait } => rotate(services, settings, Duration::from_secs(wait), as_json).await,
        NatsVerb::Reconcile => reconcile(services, settings, as_json).await,
        NatsVerb::Limits(wanted) => limits(services, wanted, as_json).await,
    }
}

async fn show(services: &Services, settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    let reached = reach::open(services, settings).await?;
    let standing = services.broker.standing().await.map_err(reach::told);
    reached.close().await?;
    let standing = standing?;
    let servers: Vec<_> = standing.servers.iter().map(server_json).collect();
    if as_json {
        return output::one(&json!({
            "operator": standing.operator, "servers": servers, "behind": standing.behind, "lenient": standing.lenient,
        }));
    }
    for (what, value) in operator_lines(&standing.operator) {
        output::line(&format!("{what:<20} {value}"))?;
    }
    output::line("")?;
    let rows = standing.servers.iter().map(|server| server_row(server, &standing.behind)).collect();
    output::list(
        false,
        &(),
        &["server", "version", "cluster", "trusts us", "store", "holds", "promises"],
        rows,
    )
}

fn operator_lines(operator: &OperatorStanding) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("operator", operator.operator.clone()),
        ("signing key", operator.signing_key.clone()),
        ("system account", operator.system_account.clone()),
    ];
    if let Some(next) = &operator.next_key {
        lines.push(("next signing key", format!("{next}: waits for servers, see `nats rotate`")));
    }
    for key in &operator.retired_keys {
        lines.push(("still trusted", format!("{key}: repeat `nats rotate` to end it")));
    }
    lines.push(("accounts", format!("{}, of which {} wait", operator.accounts, operator.accounts_waiting)));
    let oldest =
        operator.oldest_operation_seconds.map_or(String::new(), |age| format!(", the oldest {age} s"));
    lines.push(("changes that wait", format!("{}{oldest}", operator.operations_waiting)));
    lines
}

fn server_row(server: &NatsServer, behind: &[String]) -> Vec<String> {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let (store, holds, promises) = match &server.store {
        Some(store) => {
            let sync = if store.sync_always { "synced always" } else { "synced now and then" };
            let of = format!("{} of {}", mib(store.promised), mib(store.promised_limit));
            (format!("{} ({sync})", store.folder), mib(store.used), of)
        }
        None => ("JetStream is off".to_owned(), "-".to_owned(), "-".to_owned()),
    };
    vec![
        server.name.clone(),
        server.version.clone(),
        server.cluster.clone().unwrap_or_else(|| "-".to_owned()),
        if behind.contains(&server.name) { "not all keys" } else { "yes" }.to_owned(),
        store,
        holds,
        promises,
    ]
}

fn server_json(server: &NatsServer) -> serde_json::Value {
    let store = server.store.as_ref().map(|store| {
        json!({
            "folder": store.folder, "syncAlways": store.sync_always, "usedBytes": store.used,
            "promisedBytes": store.promised, "promisedLimitBytes": store.promised_limit,
        })
    });
    json!({
        "name": server.name, "version": server.version, "cluster": server.cluster, "trustedKeys": server.trusted,
        "maxControlLine": server.max_control_line, "store": store,
    })
}

async fn config(services: &Services, wanted: ConfigArgs, as_json: bool) -> anyhow::Result<()> {
    let trust = services.broker.trust().await?;
    let foreign = Foreign {
        trust: Trust {
            operator: trust.operator,
            system_account: trust.system_account,
            system_token: trust.system_token,
        },
        folder: wanted.folder,
        durability: match wanted.durability {
            DurabilityArg::Full => Durability::Full,
            DurabilityArg::Relaxed => Durability::Relaxed,
        },
        max_promised_bytes: wanted.promise.checked_mul(1 << 30).context("--promise is too large")?,
    };
    let text = foreign.text()?;
    if as_json {
        let Trust { operator, system_account, system_token } = foreign.trust;
        return output::one(&json!({
            "operator": operator, "systemAccount": system_account, "systemToken": system_token, "config": text,
        }));
    }
    Ok(output::text(&text)?)
}

async fn rotate(
    services: &Services,
    settings: &Settings,
    wait: Duration,
    as_json: bool,
) -> anyhow::Result<()> {
    reach::wanted(settings)?;
    // A server that is started for this command alone is told of the new key at its start.
    let begun = services.broker.begin_rotation(&Operator::console()).await?;
    let reached = reach::open(services, settings).await?;
    let rotated = rotated(services, &reached, begun, wait, as_json).await;
    reached.close().await?;
    rotated
}

async fn rotated(
    services: &Services,
    reached: &Reached,
    begun: RotationBegun,
    wait: Duration,
    as_json: bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + wait;
    let waiting = progress::line(as_json, "waiting for every server to trust the new key");
    let ended = loop {
        match services.broker.continue_rotation(&Operator::console()).await {
            Ok(Rotation::Done { accounts }) => break Ok(accounts),
            // A server that is started anew is away for a moment.
            waits @ (Ok(Rotation::Waits(_)) | Err(_)) if Instant::now() >= deadline => break Err(waits),
            Ok(Rotation::Waits(_)) | Err(_) => sleep(POLL).await,
        }
    };
    waiting.finish_and_clear();
    match ended {
        Ok(accounts) => {
            let key = services.broker.operator().await?.signing_key;
            let next = if reached.is_private() {
                "the private server is started anew without the old key by its control plane, or at its next start"
            } else {
                "the old key signs nothing any more; servers forget it once they are started anew with what `tidegate-admin nats config` prints"
            };
            let sentence = format!("{key} signs now, and signed {accounts} accounts anew; {next}");
            let gone_on = begun == RotationBegun::UnderWay;
            output::said(
                as_json,
                &json!({"done": true, "signingKey": key, "accounts": accounts, "goneOn": gone_on}),
                &sentence,
            )
        }
        Err(Ok(Rotation::Waits(_))) if reached.is_private() => bail!(
            "the private server does not trust the new key yet: its control plane starts it anew within seconds, and its log says why where it does not. Repeat this command: it goes on from here"
        ),
        Err(Ok(Rotation::Waits(servers))) => bail!(
            "these servers do not trust the new key yet: {}. Put what `tidegate-admin nats config` prints into their configuration, start them anew one after the other, and repeat this command: it goes on from here",
            servers.join(", ")
        ),
        Err(Ok(Rotation::Done { .. })) => Ok(()),
        Err(Err(error)) => Err(reach::told(error))
            .context("the rotation is not over: repeat this command, it goes on from here"),
    }
}

async fn reconcile(services: &Services, settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    let reached = reach::open(services, settings).await?;
    let compared = compared(services).await;
    reached.close().await?;
    let (drift, repaired) = compared.map_err(reach::told)?;
    let json = json!({
        "organizations": drift.organizations, "notCompared": drift.failed, "accounts": drift.accounts,
        "missing": drift.missing, "extra": drift.extra, "different": drift.different, "readers": drift.readers,
        "foreign": drift.foreign, "behind": drift.behind, "repaired": repaired,
    });
    if as_json {
        return output::one(&json);
    }
    output::list(false, &json, &["what", "how many"], rows(drift, repaired))
}

fn rows(drift: Drift, repaired: usize) -> Vec<Vec<String>> {
    let row = |what: &str, found: usize| vec![what.to_owned(), found.to_string()];
    vec![
        row("organizations compared", drift.organizations),
        row("organizations that could not be compared", drift.failed),
        row("accounts pushed anew", drift.accounts),
        row("streams that were missing", drift.missing),
        row("streams that no pipe has", drift.extra),
        row("streams that were different", drift.different),
        row("readers of somebody who may not read", drift.readers),
        row("streams of others, left alone", drift.foreign),
        row("streams that too few servers have all of", drift.behind),
        row("changes that NATS followed", repaired),
    ]
}

async fn compared(services: &Services) -> tidegate_service::Result<(Drift, usize)> {
    let drift = services.broker.reconcile().await?;
    let mut repaired = 0;
    loop {
        match services.broker.apply_pending().await? {
            0 => return Ok((drift, repaired)),
            done => repaired += done,
        }
    }
}

async fn limits(services: &Services, wanted: LimitsArgs, as_json: bool) -> anyhow::Result<()> {
    let scope = services.operators.enter(&wanted.organization).await?;
    let change = PipeLimitsChange {
        disk_bytes: wanted.promise.map(|gib| gib.saturating_mul(1 << 30)),
        streams: wanted.pipes,
        consumers: wanted.readers,
        connections: wanted.connections,
    };
    let limits = services.broker.limits(&Operator::console(), &scope, change).await?;
    let sentence = format!(
        "organization {} may promise {} MiB in {} pipes, with {} readers and {} connections",
        wanted.organization,
        limits.disk_bytes >> 20,
        limits.streams,
        limits.consumers,
        limits.connections
    );
    output::said(as_json, &limits, &sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organizations_that_could_not_be_compared_are_none_of_those_that_were() {
        let drift = Drift { organizations: 2, failed: 3, ..Drift::default() };
        let shown: Vec<String> = rows(drift, 0).into_iter().take(2).map(|row| row[1].clone()).collect();
        assert_eq!(shown, ["2", "3"]);
    }
}
