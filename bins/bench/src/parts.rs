//! The run: what is measured, in which order, beside what.

use std::{sync::Arc, time::Duration};

use crate::{
    age,
    args::{Args, Part},
    baseline::{PgBench, tcp_copy},
    credentials, dispatch,
    figures::Figures,
    fleet::{self, Arrivals, Ears, Fleet},
    heartbeats, lifecycles, memory,
    progress::during,
    stage::Stage,
    terminal, tunnel,
};

/// Requests before anything is counted: connections, plans and caches are filled.
const WARM_UP: Duration = Duration::from_secs(2);

/// Measures everything that is asked for.
pub(crate) async fn run(args: &Args, stage: &mut Stage, figures: &mut Figures) -> anyhow::Result<()> {
    figures.aged = args.aged();
    figures.agents = args.agents;
    figures.connections = args.connections;
    let tokens = stage.people(args.organizations).await?;
    let members = fleet::enlist(stage, "sim", args.agents).await?;
    age::age(stage, args.aged()).await?;
    let pgbench = PgBench::prepare(stage).await?;
    if args.wants(Part::Lifecycles) || args.wants(Part::Dispatch) {
        figures.pgbench.push(pgbench.simple_update(args.length()).await?);
        let arrivals = Arc::new(Arrivals::default());
        let ears = Ears { arrivals: Some(Arc::clone(&arrivals)), tunnels: None };
        let fleet = Fleet::work(fleet::connect(stage, &members).await?, &ears);
        load(args, stage, figures, &tokens, &arrivals).await?;
        fleet.leave().await?;
        figures.pgbench.push(pgbench.simple_update(args.length()).await?);
    }
    if args.wants(Part::Terminal) {
        during("the agent", stage.start_agent()).await?;
        let measured = terminal::run(stage, &tokens[0], args.terminal_bytes(), args.keystrokes()).await;
        stage.stop_agent().await?;
        figures.terminal = Some(measured?);
    }
    if args.wants(Part::Tunnel) {
        let short = args.length() / 2;
        figures.tcp_copy.push(tcp_copy(short).await?);
        figures.tunnel = Some(tunnel::run(stage, &tokens[0], &members[0], args.length()).await?);
        figures.tcp_copy.push(tcp_copy(short).await?);
        lifecycles::clear(stage).await?;
    }
    if args.wants(Part::Keys) {
        figures.select_only = Some(pgbench.select_only(args.length()).await?);
        figures.keys = Some(credentials::keys(stage, &tokens, args.connections, args.length()).await?);
    }
    if args.wants(Part::Logins) {
        figures.logins = Some(credentials::logins(stage, &tokens, args.length()).await?);
    }
    if args.wants(Part::Users) {
        let count = if args.quick { 10_000 } else { 100_000 };
        figures.users = Some(credentials::users(stage, count, args.length()).await?);
    }
    if args.wants(Part::Memory) || args.wants(Part::Heartbeats) {
        idle(args, stage, figures, &pgbench).await?;
    }
    Ok(())
}

/// Sessions in many organizations, in one, and the way of a command at half of what was reached.
async fn load(
    args: &Args,
    stage: &Stage,
    figures: &mut Figures,
    tokens: &[String],
    arrivals: &Arrivals,
) -> anyhow::Result<()> {
    lifecycles::run(stage, tokens, args.connections, WARM_UP).await?;
    lifecycles::clear(stage).await?;
    let spread = lifecycles::run(stage, tokens, args.connections, args.length()).await?;
    lifecycles::clear(stage).await?;
    if args.wants(Part::Lifecycles) {
        figures.single = Some(lifecycles::run(stage, &tokens[..1], args.connections, args.length()).await?);
        lifecycles::clear(stage).await?;
        lifecycles::group(stage, &tokens[0]).await?;
        figures.grouped = Some(lifecycles::run(stage, &tokens[..1], args.connections, args.length()).await?);
        lifecycles::clear(stage).await?;
    }
    if args.wants(Part::Dispatch) {
        let load = (args.connections, spread.started_per_second / 2.0);
        figures.dispatch = Some(dispatch::run(stage, tokens, arrivals, load, args.length()).await?);
        lifecycles::clear(stage).await?;
    }
    figures.spread = Some(spread);
    Ok(())
}

/// Agents that are merely connected: to a control plane that was just started, so that nothing before them is counted.
async fn idle(
    args: &Args,
    stage: &mut Stage,
    figures: &mut Figures,
    pgbench: &PgBench,
) -> anyhow::Result<()> {
    let members = fleet::enlist(stage, "idle", args.idle_agents()).await?;
    stage.restart().await?;
    if args.wants(Part::Memory) {
        figures.memory = Some(memory::run(stage, &members).await?);
    }
    if args.wants(Part::Heartbeats) {
        figures.pgbench.push(pgbench.simple_update(args.length()).await?);
        let sockets = fleet::connect(stage, &members).await?;
        figures.heartbeats = Some(heartbeats::run(stage, sockets, args.length()).await?);
    }
    Ok(())
}
