//! What each verb does: one call into the services.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, process::ExitCode};

use anyhow::{Context, bail};
use rand::{RngExt, distr::Alphanumeric};
use serde_json::json;
use tidegate_model::{Secret, SystemRole};
use tidegate_service::{AgentFilter, Decision, NewLocalUser, Operator, Services, roles};

use crate::{
    agent_commands,
    args::{AgentVerb, Args, OrganizationVerb, Verb},
    connect, doctor, mail, output,
    settings::Settings,
    users,
};

/// Runs one verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let as_json = args.json;
    if let Verb::Roles { .. } = args.verb {
        print!("{}", roles::SQL);
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
            Ok(services) => act(&services, args.verb, as_json).await,
            Err(error) => Err(error),
        }
    };
    // What was started is stopped, whatever the verb came to.
    connected.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn act(services: &Services, verb: Verb, as_json: bool) -> anyhow::Result<()> {
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
        Verb::Agents(verb) => agents(services, &operator, verb, as_json).await,
        Verb::Users(verb) => users::users(services, &operator, verb, as_json).await,
        Verb::Organizations(OrganizationVerb::Create { name }) => {
            let id = services.operators.create_organization(&operator, &name).await?;
            output::said(as_json, &json!({"orgId": id}), &format!("organization {name} is there"))
        }
        Verb::Migrate | Verb::Roles { .. } | Verb::Mail(_) | Verb::Doctor => Ok(()),
    }
}

async fn agents(
    services: &Services,
    operator: &Operator,
    verb: AgentVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    let agents = &services.agents;
    match verb {
        AgentVerb::List => {
            let list = agents.list(operator, AgentFilter::default()).await?;
            let row = |agent: &tidegate_model::Agent| {
                let capacity = agent.capacity.as_ref().map_or(0, |capacity| capacity.max_sessions);
                vec![
                    agent.agent_id.to_string(),
                    agent.platform.to_string(),
                    agent.region.clone().unwrap_or_default(),
                    agent.approval_status.to_string(),
                    agent.status.to_string(),
                    format!("{} of {capacity}", agent.active_sessions),
                    agent
                        .last_heartbeat
                        .map_or_else(|| "never".into(), |at| at.format("%F %T UTC").to_string()),
                ]
            };
            let headings = ["AGENT", "PLATFORM", "REGION", "APPROVAL", "STATUS", "SESSIONS", "LAST HEARD"];
            output::list(
                as_json,
                &json!({"agents": list, "total": list.len()}),
                &headings,
                list.iter().map(row).collect(),
            )
        }
        AgentVerb::Approve { agent, show_key } => {
            let (row, key) = agents.decide(operator, &agent, Decision::Approve, show_key).await?;
            let key = key.map(Secret::into_inner);
            let shown =
                key.as_ref().map(|key| format!("; its key, shown this once: {key}")).unwrap_or_default();
            output::said(
                as_json,
                &json!({"agent": row, "apiKey": key}),
                &format!("agent {agent} may connect{shown}"),
            )
        }
        AgentVerb::Reject { agent } => {
            let (row, _) = agents.decide(operator, &agent, Decision::Reject, false).await?;
            output::said(as_json, &json!({"agent": row}), &format!("agent {agent} may not connect"))
        }
        AgentVerb::RotateKey { agent } => {
            let key = agents.rotate_key(operator, &agent).await?.into_inner();
            output::said(
                as_json,
                &json!({"apiKey": key}),
                &format!("the new key of agent {agent}, shown this once: {key}"),
            )
        }
        AgentVerb::Drain { agent } => {
            let row = agents.drain(operator, &agent, true).await?;
            output::said(as_json, &json!({"agent": row}), &format!("agent {agent} gets no new sessions"))
        }
        AgentVerb::Undrain { agent } => {
            let row = agents.drain(operator, &agent, false).await?;
            output::said(as_json, &json!({"agent": row}), &format!("agent {agent} gets new sessions again"))
        }
        AgentVerb::Command { agent, action, session, payload } => {
            agent_commands::order(services, operator, &agent, (action, session, payload), as_json).await
        }
        AgentVerb::Quarantine { verb } => agent_commands::quarantine(services, operator, verb, as_json).await,
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
