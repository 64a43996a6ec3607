//! What each verb does: one call into the services.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, process::ExitCode};

use anyhow::{Context, bail};
use clap::CommandFactory;
use rand::{RngExt, distr::Alphanumeric};
use serde_json::json;
use tidegate_model::{Secret, SystemRole};
use tidegate_service::{NewLocalUser, Operator, Services, roles};

use crate::{
    agents,
    args::{Args, Verb},
    audit, connect, credentials, doctor, groups, mail, members, nats, organizations, output, plugins, quotas,
    repositories, sessions,
    settings::Settings,
    users,
};

/// Runs one verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let as_json = args.json;
    if let Verb::Roles { .. } = args.verb {
        output::text(roles::SQL)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Verb::Completions { shell } = args.verb {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "tidegate-admin", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::load(args.config.as_deref())?;
    if let Verb::Doctor = args.verb {
        return doctor::run(&settings, as_json).await;
    }
    if let Verb::Mail(verb) = args.verb {
        return mail::run(&settings, verb, as_json).await;
    }
    let connected = connect::connect(&settings).await?;
    let done = if let Verb::Migrate = args.verb {
        let applied = connected.migrate().await;
        applied.and_then(|applied| {
            let sentence = if applied.is_empty() {
                "the schema is current".into()
            } else {
                format!("applied {}", applied.join(", "))
            };
            output::said(as_json, &json!({"applied": applied}), &sentence)
        })
    } else {
        let services = connected.services(&settings).await;
        match services {
            Ok(services) => act(&services, &settings, args.verb, as_json).await,
            Err(error) => Err(error),
        }
    };
    // What was started is stopped, whatever the verb came to.
    connected.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn act(services: &Services, settings: &Settings, verb: Verb, as_json: bool) -> anyhow::Result<()> {
    let operator = Operator::console();
    match verb {
        Verb::Bootstrap { organization, username, email, password_file, if_needed } => {
            if if_needed && services.operators.is_set_up().await? {
                return output::said(
                    as_json,
                    &json!({"done": false}),
                    "there is an admin already: nothing to do",
                );
            }
            let password = password(&password_file)?;
            let admin = NewLocalUser {
                full_name: username.clone(),
                username,
                email,
                password,
                role: SystemRole::Admin,
            };
            let name = admin.username.clone();
            let made = services.operators.bootstrap(&operator, &organization, admin).await?;
            let file = password_file.display();
            let sentence =
                format!("organization {organization} and admin {name} are there; the password is in {file}");
            output::said(
                as_json,
                &json!({"done": true, "orgId": made.org_id, "userId": made.user_id, "passwordFile": password_file}),
                &sentence,
            )
        }
        Verb::Agents(verb) => agents::agents(services, &operator, verb, as_json).await,
        Verb::Sessions(verb) => sessions::sessions(services, &operator, verb, as_json).await,
        Verb::Commands(verb) => sessions::commands(services, &operator, verb, as_json).await,
        Verb::Users(verb) => users::users(services, &operator, verb, as_json).await,
        Verb::Organizations(verb) => organizations::organizations(services, &operator, verb, as_json).await,
        Verb::Members(verb) => members::members(services, verb, as_json).await,
        Verb::Invites(verb) => members::invites(services, verb, as_json).await,
        Verb::Keys(verb) => credentials::keys(services, verb, as_json).await,
        Verb::Tokens(verb) => credentials::tokens(services, &operator, verb, as_json).await,
        Verb::Groups(verb) => groups::groups(services, verb, as_json).await,
        Verb::Quota(verb) => quotas::quotas(services, verb, as_json).await,
        Verb::Plugins(verb) => Box::pin(plugins::plugins(services, verb, as_json)).await,
        Verb::Audit(verb) => audit::audit(services, verb, as_json).await,
        Verb::Repositories(verb) => repositories::repositories(services, verb, as_json).await,
        Verb::Nats(verb) => Box::pin(nats::nats(services, settings, verb, as_json)).await,
        Verb::Migrate | Verb::Roles { .. } | Verb::Mail(_) | Verb::Doctor | Verb::Completions { .. } => {
            Ok(())
        }
    }
}

/// The password in a file, or a new one written to it where there is none. It is never printed.
pub(crate) fn password(file: &Path) -> anyhow::Result<Secret<String>> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let password = text.lines().next().unwrap_or_default().to_owned();
            if password.is_empty() {
                bail!("{} is empty: put the password on its first line", file.display());
            }
            Ok(Secret::new(password))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let password: String = rand::rng().sample_iter(Alphanumeric).take(24).map(char::from).collect();
            let mut options = fs::OpenOptions::new();
            let mut new = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(file)
                .with_context(|| format!("{} cannot be made", file.display()))?;
            writeln!(new, "{password}")?;
            new.sync_all()?;
            Ok(Secret::new(password))
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", file.display())),
    }
}
