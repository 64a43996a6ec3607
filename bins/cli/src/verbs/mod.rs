//! What each verb does, a file each.

mod apps;
mod attach;
mod audit;
mod catalog;
mod change;
mod device;
mod events;
mod follow;
mod groups;
mod homes;
mod keys;
mod lines;
mod list;
mod login;
mod logs;
mod messages;
mod nats;
mod people;
mod places;
mod plugins;
mod ports;
mod run;
mod sharing;
mod sources;
mod stop;
mod terminals;
mod tokens;
mod users;

use std::{io, process::ExitCode};

use clap::CommandFactory;

use crate::{
    args::{Args, RunApplication, RunWords, Verb},
    context::Context,
    lookup, output,
};

/// Does what the command line asks for.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let global = args.global;
    match args.verb {
        Verb::Login(words) => login::login(&global, words).await,
        Verb::Logout => login::logout(&global).await,
        Verb::Keys(words) => keys::keys(&Context::new(&global)?, words.verb).await,
        Verb::Catalog(verb) => catalog::catalog(&Context::new(&global)?, verb).await,
        Verb::Homes(verb) => homes::homes(&Context::new(&global)?, verb).await,
        Verb::Tokens(verb) => tokens::tokens(&Context::new(&global)?, verb).await,
        Verb::Whoami => people::whoami(&Context::new(&global)?).await,
        Verb::Org(verb) => people::org(&Context::new(&global)?, verb).await,
        Verb::Members(verb) => people::members(&Context::new(&global)?, verb).await,
        Verb::Invites(verb) => people::invites(&Context::new(&global)?, verb).await,
        Verb::Audit(verb) => audit::audit(&Context::new(&global)?, verb).await,
        Verb::Groups(verb) => groups::groups(&Context::new(&global)?, verb).await,
        Verb::Quota(verb) => groups::quota(&Context::new(&global)?, verb).await,
        Verb::Users(verb) => users::users(&Context::new(&global)?, verb).await,
        Verb::Passwd(words) => users::passwd(&Context::new(&global)?, words).await,
        Verb::Logins(verb) => users::logins(&Context::new(&global)?, verb).await,
        Verb::Source(verb) => sources::source(&Context::new(&global)?, verb).await,
        Verb::Pipe(verb) => sources::pipe(&Context::new(&global)?, verb).await,
        Verb::Send(words) => messages::send(&Context::new(&global)?, words).await,
        Verb::Read(words) => messages::read(&Context::new(&global)?, words).await,
        Verb::Receipts(words) => messages::receipts(&Context::new(&global)?, words).await,
        Verb::Subs => messages::subs(&Context::new(&global)?).await,
        Verb::Who(words) => messages::who(&Context::new(&global)?, words).await,
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "tidegate", &mut script);
            io::Write::write_all(&mut io::stdout().lock(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Apps(verb) => apps::apps(&Context::new(&global)?, verb).await,
        Verb::Plugins(verb) => plugins::plugins(&Context::new(&global)?, verb).await,
        Verb::Run(words) => match words.what {
            RunWords::BuiltIn(what) => run::run(&Context::new(&global)?, *what).await,
            RunWords::Application(words) => {
                let (application, global) = RunApplication::read(words, global);
                run::application(&Context::new(&global)?, application).await
            }
        },
        Verb::PortForward(words) => ports::forward(&Context::new(&global)?, words).await,
        Verb::Attach(words) => attach::attach(&Context::new(&global)?, words).await,
        Verb::Ls(words) => list::list(&Context::new(&global)?, words).await,
        Verb::Get(words) => {
            let context = Context::new(&global)?;
            let session = lookup::find(&context.client, &words.session).await?;
            context.output.answer(&session, || output::session(&session))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Stop(words) => stop::stop(&Context::new(&global)?, words).await,
        Verb::Hibernate(words) => change::hibernate(&Context::new(&global)?, words).await,
        Verb::Wake(words) => change::wake(&Context::new(&global)?, words).await,
        Verb::Share(words) => sharing::share(&Context::new(&global)?, words).await,
        Verb::View(words) => terminals::view(&Context::new(&global)?, words).await,
        Verb::Disconnect(words) => sharing::disconnect(&Context::new(&global)?, words).await,
        Verb::Record(words) => sharing::record(&Context::new(&global)?, words).await,
        Verb::Extend(words) => sharing::extend(&Context::new(&global)?, words).await,
        Verb::Activity(words) => sharing::activity(&Context::new(&global)?, words).await,
        Verb::Policy(words) => sharing::policy(&Context::new(&global)?, words).await,
        Verb::Logs(words) => logs::logs(&Context::new(&global)?, words).await,
        Verb::Events(words) => events::events(&Context::new(&global)?, words).await,
    }
}
