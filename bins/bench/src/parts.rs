//! The run: what is measured, in which order, beside what.

use std::{sync::Arc, time::Duration};

use crate::{
    age,
    args::{Args, Part},
    baseline::{PgBench, tcp_copy},
    catalog, credentials, dispatch,
    figures::Figures,
    fleet::{self, Arrivals, Ears, Fleet, Member},
    heartbeats, lifecycles, memory, parallel, pipes, placement,
    progress::during,
    stage::{FED, SIMULATED, Stage},
    streams, sync, terminal, tunnel,
};

/// Requests before anything is counted: connections, plans and caches are filled.
const WARM_UP: Duration = Duration::from_secs(2);
/// Entries of the catalog.
const CATALOG: u32 = 50_000;
/// Agents of the placement that has few.
const FEW: usize = 16;

/// Who is there in every part.
struct Cast {
    /// A token of each organization.
    tokens: Vec<String>,
    /// Simulated agents that take sessions.
    members: Vec<Member>,
    /// The one whose tunnel is fed from memory.
    fed: Member,
    /// Simulated agents that are merely connected; made when they are needed first.
    idle: Vec<Member>,
    pgbench: PgBench,
}

impl Cast {
    async fn idle(&mut self, args: &Args, stage: &Stage) -> anyhow::Result<&[Member]> {
        if self.idle.is_empty() {
            self.idle = fleet::enlist(stage, "idle", SIMULATED, args.idle_agents()).await?;
        }
        Ok(&self.idle)
    }
}

/// Measures everything that is asked for.
pub(crate) async fn run(args: &Args, stage: &mut Stage, figures: &mut Figures) -> anyhow::Result<()> {
    figures.aged = args.aged();
    figures.agents = args.agents;
    figures.connections = args.connections;
    let tokens = stage.people(args.organizations).await?;
    let members = fleet::enlist(stage, "sim", SIMULATED, args.agents).await?;
    let fed = fleet::enlist(stage, "fed", FED, 1).await?.remove(0);
    age::age(stage, args.aged()).await?;
    let pgbench = PgBench::prepare(stage).await?;
    let mut cast = Cast { tokens, members, fed, idle: Vec::new(), pgbench };
    load(args, stage, figures, &cast).await?;
    bytes(args, stage, figures, &cast).await?;
    watched(args, stage, figures, &cast).await?;
    people(args, stage, figures, &cast).await?;
    if args.wants(Part::Pipes) {
        let load = (args.connections, args.length());
        pipes::run(stage, figures, &cast.tokens, load, args.quick).await?;
    }
    if args.wants(Part::Placement) {
        placed(args, stage, figures, &mut cast).await?;
    }
    idle(args, stage, figures, &mut cast).await?;
    if let Some(times) = args.grown {
        let mut again = Figures {
            aged: args.aged() * times,
            agents: args.agents + args.idle_agents(),
            connections: args.connections,
            ..Figures::default()
        };
        age::age(stage, args.aged() * (times - 1)).await?;
        let measured = grown(args, stage, &mut again, &mut cast).await;
        figures.grown = Some(Box::new(again));
        measured?;
    }
    Ok(())
}

/// The foundation's parts where there are many rows, and many agents that are connected and take sessions, too.
async fn grown(args: &Args, stage: &mut Stage, figures: &mut Figures, cast: &mut Cast) -> anyhow::Result<()> {
    cast.idle(args, stage).await?;
    // Those that only stand by while the others are measured go on with their heartbeats.
    let crowd = Fleet::work(fleet::connect(stage, &cast.idle).await?, &Ears::default());
    bytes(args, stage, figures, cast).await?;
    crowd.leave().await?;
    idle(args, stage, figures, cast).await?;
    let few = std::mem::take(&mut cast.members);
    cast.members = few.into_iter().chain(cast.idle.iter().cloned()).collect();
    load(args, stage, figures, cast).await
}

/// Sessions in many organizations, in one, and the way of a command at half of what was reached.
async fn load(args: &Args, stage: &Stage, figures: &mut Figures, cast: &Cast) -> anyhow::Result<()> {
    if !args.wants(Part::Lifecycles) && !args.wants(Part::Dispatch) {
        return Ok(());
    }
    figures.pgbench.push(cast.pgbench.simple_update(args.length()).await?);
    let arrivals = Arc::new(Arrivals::default());
    let ears = Ears { arrivals: Some(Arc::clone(&arrivals)), tunnels: None };
    let fleet = Fleet::work(fleet::connect(stage, &cast.members).await?, &ears);
    let (tokens, connections) = (&cast.tokens, args.connections);
    lifecycles::run(stage, tokens, connections, WARM_UP).await?;
    lifecycles::clear(stage).await?;
    let spread = lifecycles::run(stage, tokens, connections, args.length()).await?;
    lifecycles::clear(stage).await?;
    if args.wants(Part::Lifecycles) {
        figures.single = Some(lifecycles::run(stage, &tokens[..1], connections, args.length()).await?);
        lifecycles::clear(stage).await?;
    }
    if args.wants(Part::Dispatch) {
        let load = (connections, spread.started_per_second / 2.0);
        figures.dispatch = Some(dispatch::run(stage, tokens, &arrivals, load, args.length()).await?);
        lifecycles::clear(stage).await?;
    }
    figures.spread = Some(spread);
    fleet.leave().await?;
    figures.pgbench.push(cast.pgbench.simple_update(args.length()).await?);
    Ok(())
}

/// The terminal, and one tunnel fed from memory.
async fn bytes(args: &Args, stage: &mut Stage, figures: &mut Figures, cast: &Cast) -> anyhow::Result<()> {
    if args.wants(Part::Terminal) {
        during("the agent", stage.start_agent()).await?;
        let measured = terminal::run(stage, &cast.tokens[0], args.terminal_bytes(), args.keystrokes()).await;
        stage.stop_agent().await?;
        figures.terminal = Some(measured?);
    }
    if args.wants(Part::Tunnel) {
        let short = args.length() / 2;
        figures.tcp_copy.push(tcp_copy(short).await?);
        figures.tunnel = Some(tunnel::run(stage, &cast.tokens[0], &cast.fed, args.length()).await?);
        figures.tcp_copy.push(tcp_copy(short).await?);
        lifecycles::clear(stage).await?;
    }
    Ok(())
}

/// Web applications and desktops on the real agent, one and many.
async fn watched(args: &Args, stage: &mut Stage, figures: &mut Figures, cast: &Cast) -> anyhow::Result<()> {
    if args.wants(Part::Streams) {
        during("the agent", stage.start_agent()).await?;
        let measured = streams::run(stage, &cast.tokens[0], args.length(), args.keystrokes()).await;
        stage.stop_agent().await?;
        figures.streams = Some(measured?);
    }
    if args.wants(Part::Parallel) {
        during("the agent", stage.start_agent()).await?;
        let measured = parallel::run(stage, &cast.tokens[0], args.length()).await;
        stage.stop_agent().await?;
        figures.parallel = Some(measured?);
    }
    Ok(())
}

/// One group with a quota, API keys, logins, and the list of users.
async fn people(args: &Args, stage: &Stage, figures: &mut Figures, cast: &Cast) -> anyhow::Result<()> {
    let tokens = &cast.tokens;
    if args.wants(Part::Lifecycles) {
        let fleet = Fleet::work(fleet::connect(stage, &cast.members).await?, &Ears::default());
        // The last organization's: what is measured in the first one again and again stays as it is.
        let last = &tokens[tokens.len() - 1..];
        lifecycles::group(stage, &last[0]).await?;
        figures.grouped = Some(lifecycles::run(stage, last, args.connections, args.length()).await?);
        lifecycles::clear(stage).await?;
        fleet.leave().await?;
    }
    if args.wants(Part::Keys) {
        figures.select_only = Some(cast.pgbench.select_only(args.length()).await?);
        figures.keys = Some(credentials::keys(stage, tokens, args.connections, args.length()).await?);
    }
    if args.wants(Part::Logins) {
        figures.logins = Some(credentials::logins(stage, tokens, args.length()).await?);
    }
    if args.wants(Part::Users) {
        let count = if args.quick { 10_000 } else { 100_000 };
        figures.users = Some(credentials::users(stage, count, args.length()).await?);
    }
    if args.wants(Part::Catalog) && figures.catalog.is_none() {
        figures.catalog = Some(catalog::run(stage, tokens, CATALOG, args.length()).await?);
    }
    // After the catalog, whose counts are those of the one plugin that it makes.
    if args.wants(Part::Sync) && figures.sync.is_none() {
        figures.sync = Some(sync::run(stage).await?);
    }
    Ok(())
}

/// Creates with a few agents and with many: the same rows in both, most of them of agents that are away in the first.
async fn placed(args: &Args, stage: &Stage, figures: &mut Figures, cast: &mut Cast) -> anyhow::Result<()> {
    let count = args.placed_agents() as usize;
    cast.idle(args, stage).await?;
    let tokens = &cast.tokens;
    let few = &cast.members[..FEW.min(cast.members.len())];
    let few = placement::run(stage, tokens, few, args.connections, args.length()).await?;
    let many = placement::run(stage, tokens, &cast.idle[..count], args.connections, args.length()).await?;
    figures.placement = Some([few, many]);
    Ok(())
}

/// Agents that are merely connected: to a control plane that was just started, so that nothing before them is counted.
async fn idle(args: &Args, stage: &mut Stage, figures: &mut Figures, cast: &mut Cast) -> anyhow::Result<()> {
    if !args.wants(Part::Memory) && !args.wants(Part::Heartbeats) {
        return Ok(());
    }
    cast.idle(args, stage).await?;
    stage.restart().await?;
    if args.wants(Part::Memory) {
        figures.memory = Some(memory::run(stage, &cast.idle).await?);
    }
    if args.wants(Part::Heartbeats) {
        figures.pgbench.push(cast.pgbench.simple_update(args.length()).await?);
        let sockets = fleet::connect(stage, &cast.idle).await?;
        figures.heartbeats = Some(heartbeats::run(stage, sockets, args.length()).await?);
    }
    Ok(())
}
