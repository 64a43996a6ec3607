//! `tidegate`, the user's command line on the HTTP API. Flags and words live here; everything that a program would
//! want too lives in `tidegate-client`.

mod args;
mod context;
mod credentials;
mod exit;
mod lookup;
mod output;
mod progress;
mod signals;
mod terminal;
mod verbs;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let json = args.global.json;
    terminal::restore_on_panic();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error), json, exit::FAILURE),
    };
    let failure = args.verb.failure_code();
    let code = match runtime.block_on(verbs::run(args)) {
        Ok(code) => code,
        Err(error) => exit::report(&error, json, failure),
    };
    // A write to a terminal that takes nothing more must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}
