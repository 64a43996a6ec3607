//! `tidegate-admin`: an operator's verbs, straight on the service crate. It has no rules of its own.

mod agent_commands;
mod agents;
mod args;
mod audit;
mod connect;
mod credentials;
mod doctor;
mod groups;
mod mail;
mod members;
mod nats;
mod organizations;
mod output;
mod pages;
mod plugins;
mod progress;
mod quotas;
mod repositories;
mod sessions;
mod settings;
mod users;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args = args::Args::parse();
    let filter = tracing_subscriber::EnvFilter::new(if args.verbose { "info" } else { "error" });
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match verbs::run(args).await {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(output::BROKEN_PIPE),
        Err(error) => {
            eprintln!("tidegate-admin: {error:#}");
            ExitCode::FAILURE
        }
    }
}
