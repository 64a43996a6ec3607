//! What `doctor` sees of NATS: whether it is there, what its servers are, whom they trust, and whether they follow.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use tidegate_engines::nats::find;
use tidegate_service::{NatsServer, NatsStanding, OLDEST_NATS, Services, check_nats_version};

use super::{Check, check};
use crate::{
    connect::Connected,
    nats::reach,
    settings::{NatsDurability, Settings},
};

/// The shortest longest line that carries a user's token.
const CONTROL_LINE: u64 = 32 * 1024;
/// Changes that wait for longer than this many seconds have nobody who makes them.
const LATE: i64 = 60;
/// What a server of one's own is told with.
const CONFIG: &str = "put what `tidegate-admin nats config` prints into its configuration and start it anew";

/// Looks at NATS; the database has to be `usable` for it.
pub(super) async fn look(connected: &Connected, settings: &Settings, usable: bool) -> Vec<Check> {
    if !settings.has_pipes() {
        let found = "not used: there are no pipes until `nats.url` names the servers that are to carry them";
        return vec![check("nats", true, found)];
    }
    let mut checks = Vec::new();
    if settings.nats.urls().is_empty() {
        checks.push(program(settings));
        checks.push(room(&settings.engine().data_dir, settings.nats.min_free_bytes));
        if !checks[0].ok {
            return checks;
        }
    }
    if !usable {
        checks.push(check("nats", false, "not looked at: whom it has to trust stands in the database"));
        return checks;
    }
    match connected.services_as_they_are(settings) {
        Ok(services) => checks.extend(with(&services, settings).await),
        Err(error) => checks.push(check("nats", false, format!("{error:#}"))),
    }
    checks
}

fn program(settings: &Settings) -> Check {
    match find(settings.nats.bin_dirs.as_deref()) {
        Ok(found) => {
            let place = found.path.display();
            check("nats program", true, format!("nats-server {} at {place}", found.version))
        }
        Err(error) => check("nats program", false, error.to_string()),
    }
}

/// The room on the disk of the private server, below which nothing is sent.
fn room(data_dir: &Path, least: u64) -> Check {
    let folder = data_dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(data_dir);
    match statvfs(folder) {
        Ok(room) => {
            let free = room.blocks_available() * room.fragment_size();
            let found = format!("{} MiB free, {} MiB are to stay free", free >> 20, least >> 20);
            if free >= least {
                return check("nats disk", true, found);
            }
            check("nats disk", false, format!("{found}: messages are refused with 507 until there is room"))
        }
        Err(error) => check("nats disk", false, format!("{} cannot be looked at: {error}", folder.display())),
    }
}

async fn with(services: &Services, settings: &Settings) -> Vec<Check> {
    match services.broker.is_set_up().await {
        Ok(true) => {}
        Ok(false) => {
            let found = "not used yet: the first start of a control plane makes its operator";
            return vec![check("nats", true, found)];
        }
        Err(error) => return vec![check("nats", false, format!("{:#}", reach::told(error)))],
    }
    let reached = match reach::open(services, settings).await {
        Ok(reached) => reached,
        Err(error) => return vec![check("nats", false, format!("{error:#}"))],
    };
    let mut checks = match services.broker.standing().await {
        Ok(standing) => {
            let mut checks = vec![check("nats", true, reached.what.clone())];
            checks.extend(judge(&standing, settings));
            checks.push(accounts(services).await);
            checks
        }
        Err(error) => {
            let (what, why) = (&reached.what, reach::told(error));
            let found = if settings.nats.urls().is_empty() {
                format!("{what} is away ({why:#}): nats.log in the data folder says why")
            } else {
                format!(
                    "{what}: it is away, or does not trust this platform ({why:#}). Start it; where it runs, {CONFIG}"
                )
            };
            vec![check("nats", false, found)]
        }
    };
    if let Err(error) = reached.close().await {
        checks.push(check("nats", false, format!("it did not stop: {error:#}")));
    }
    checks
}

/// What the servers say, beside what they should.
fn judge(standing: &NatsStanding, settings: &Settings) -> Vec<Check> {
    let private = settings.nats.urls().is_empty();
    let mut checks = vec![versions(&standing.servers), stores(&standing.servers, settings, private)];
    if standing.servers.len() < settings.nats.replicas {
        let (servers, wanted) = (standing.servers.len(), settings.nats.replicas);
        let found = format!(
            "`nats.replicas` is {wanted} and there are {servers} servers: no stream can be made. Start the others, or lower it"
        );
        checks.push(check("nats replicas", false, found));
    }
    checks.push(trust(standing));
    checks.push(waiting(standing));
    checks
}

fn versions(servers: &[NatsServer]) -> Check {
    let old: Vec<String> = servers
        .iter()
        .filter_map(|server| Some(format!("{}: {}", server.name, check_nats_version(&server.version).err()?)))
        .collect();
    if !old.is_empty() {
        return check("nats version", false, old.join("; "));
    }
    let mut found: Vec<&str> = servers.iter().map(|server| server.version.as_str()).collect();
    found.sort_unstable();
    found.dedup();
    check("nats version", true, format!("{} ({OLDEST_NATS} or newer is needed)", found.join(", ")))
}

fn stores(servers: &[NatsServer], settings: &Settings, private: bool) -> Check {
    let named = |which: &dyn Fn(&NatsServer) -> bool| -> String {
        let names: Vec<&str> =
            servers.iter().filter(|server| which(server)).map(|server| server.name.as_str()).collect();
        names.join(", ")
    };
    let off = named(&|server| server.store.is_none());
    if !off.is_empty() {
        return check("nats store", false, format!("JetStream is off on {off}: {CONFIG}"));
    }
    let short = named(&|server| server.max_control_line < CONTROL_LINE);
    if !short.is_empty() {
        let found = format!(
            "{short}: `max_control_line` is below 32 KiB, which a user's token may be longer than: {CONFIG}"
        );
        return check("nats store", false, found);
    }
    let stores = servers.iter().filter_map(|server| server.store.as_ref());
    let (used, promised) =
        stores.fold((0, 0), |(used, promised), store| (used + store.used, promised + store.promised));
    let found = format!("{} MiB held, {} MiB promised", used >> 20, promised >> 20);
    let lax = named(&|server| server.store.as_ref().is_some_and(|store| !store.sync_always));
    if lax.is_empty() {
        return check("nats store", true, format!("{found}, synced before it is acknowledged"));
    }
    let meant = !private || settings.nats.durability == NatsDurability::Relaxed;
    let found =
        format!("{found}; {lax} acknowledges before it syncs: a power cut may lose what was acknowledged");
    let advice = if private { "set `nats.durability` to full" } else { "set `sync_interval: always`" };
    check("nats store", meant, format!("{found}. To have it otherwise, {advice} and start it anew"))
}

fn trust(standing: &NatsStanding) -> Check {
    let operator = &standing.operator;
    if !standing.behind.is_empty() {
        let servers = standing.behind.join(", ");
        return check(
            "nats trust",
            false,
            format!("not every key of the operator is trusted by {servers}: {CONFIG}"),
        );
    }
    if operator.next_key.is_some() || !operator.retired_keys.is_empty() {
        let found = "another signing key is on its way: `tidegate-admin nats rotate` goes on with it";
        return check("nats trust", false, found);
    }
    if !standing.lenient.is_empty() {
        let servers = standing.lenient.join(", ");
        let found = format!("keys besides the operator's are trusted by {servers}; to end that, {CONFIG}");
        return check("nats trust", true, found);
    }
    check("nats trust", true, format!("every server trusts operator {}", operator.operator))
}

fn waiting(standing: &NatsStanding) -> Check {
    let (waiting, oldest) =
        (standing.operator.operations_waiting, standing.operator.oldest_operation_seconds.unwrap_or(0));
    if waiting > 0 && oldest > LATE {
        let found = format!(
            "{waiting} changes wait for NATS, the oldest for {oldest} s: start a control plane, or see why in its log"
        );
        return check("nats changes", false, found);
    }
    check("nats changes", true, format!("{waiting} wait"))
}

async fn accounts(services: &Services) -> Check {
    match services.broker.compare_accounts().await {
        Ok((all, differ)) if differ.is_empty() => {
            check("nats accounts", true, format!("{all}, all as the database has them"))
        }
        Ok((all, differ)) => {
            let some: Vec<String> = differ.iter().take(5).map(ToString::to_string).collect();
            let found = format!(
                "{} of {all} are not as the database has them ({}): `tidegate-admin nats reconcile` pushes them",
                differ.len(),
                some.join(", ")
            );
            check("nats accounts", false, found)
        }
        Err(error) => check("nats accounts", false, format!("{:#}", reach::told(error))),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_service::{NatsStore, OperatorStanding};

    use super::*;

    fn server(name: &str) -> NatsServer {
        let store = NatsStore {
            folder: "/s".into(),
            sync_always: true,
            promised_limit: 1 << 50,
            promised: 3 << 20,
            used: 1 << 20,
        };
        NatsServer {
            name: name.into(),
            version: "2.15.1".into(),
            cluster: None,
            trusted: vec!["O".into(), "A".into()],
            max_control_line: 65_536,
            store: Some(store),
        }
    }

    fn standing() -> NatsStanding {
        let operator = OperatorStanding {
            operator: "O".into(),
            signing_key: "A".into(),
            next_key: None,
            retired_keys: Vec::new(),
            system_account: "S".into(),
            accounts: 1,
            accounts_waiting: 0,
            operations_waiting: 0,
            oldest_operation_seconds: None,
        };
        NatsStanding { operator, servers: vec![server("a"), server("b")], behind: vec![], lenient: vec![] }
    }

    /// What fails, with what is said of it.
    fn failing(standing: &NatsStanding, settings: &Settings) -> Vec<(&'static str, String)> {
        let failing = judge(standing, settings).into_iter().filter(|check| !check.ok);
        failing.map(|check| (check.what, check.found)).collect()
    }

    #[test]
    fn what_is_well_is_not_complained_of() {
        let (well, settings) = (standing(), Settings::default());
        assert_eq!(failing(&well, &settings), []);
        assert!(
            judge(&well, &settings).iter().any(|check| check.found.contains("2 MiB held, 6 MiB promised"))
        );
    }

    #[test]
    fn each_fault_of_a_server_is_named_with_what_to_do() {
        let fault = |change: &dyn Fn(&mut NatsStanding)| {
            let mut bad = standing();
            change(&mut bad);
            let found = failing(&bad, &Settings::default());
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].clone()
        };
        let (what, found) = fault(&|bad| bad.servers[1].version = "2.10.29".into());
        assert_eq!(what, "nats version");
        assert!(found.contains("b: nats-server 2.10.29 is too old"), "{found}");
        let (what, found) = fault(&|bad| bad.servers[0].store = None);
        assert!(what == "nats store" && found.contains("JetStream is off on a"), "{found}");
        let (_, found) = fault(&|bad| bad.servers[0].max_control_line = 4_096);
        assert!(found.contains("max_control_line") && found.contains("nats config"), "{found}");
        let lax = |bad: &mut NatsStanding| {
            bad.servers[0].store.as_mut().unwrap().sync_always = false;
        };
        let (_, found) = fault(&lax);
        assert!(found.contains("nats.durability"), "{found}");
        let (what, found) = fault(&|bad| bad.behind = vec!["b".into()]);
        assert!(what == "nats trust" && found.contains("trusted by b:"), "{found}");
        let (_, found) = fault(&|bad| bad.operator.retired_keys = vec!["X".into()]);
        assert!(found.contains("nats rotate"), "{found}");
        let late = |bad: &mut NatsStanding| {
            bad.operator.operations_waiting = 3;
            bad.operator.oldest_operation_seconds = Some(90);
        };
        let (what, found) = fault(&late);
        assert!(
            what == "nats changes" && found.contains("3 changes wait") && found.contains("90 s"),
            "{found}"
        );
    }

    #[test]
    fn more_copies_than_servers_cannot_be_kept() {
        let mut settings = Settings::default();
        settings.nats.replicas = 3;
        let found = failing(&standing(), &settings);
        assert!(found[0].0 == "nats replicas" && found[0].1.contains("there are 2 servers"), "{found:?}");
    }
}
