//! What the verbs about users do.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, bail};
use serde_json::json;
use tidegate_model::{FromFields, ImportedUser, PlatformUser, UpdateUserRequest};
use tidegate_service::{NewLocalUser, Operator, Paging, Services};

use crate::{args::UserVerb, output, verbs::password};

/// Longest line of an import.
const LINE: u64 = 64 * 1_024;
/// Refusals of an import that are told one by one.
const TOLD: usize = 100;

pub(crate) async fn users(
    services: &Services,
    operator: &Operator,
    verb: UserVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    let operators = &services.operators;
    match verb {
        UserVerb::List { search } => list(services, operator, search, as_json).await,
        UserVerb::Create { username, organization, org_role, role, email, full_name, password_file } => {
            let password = password(&password_file)?;
            let full_name = full_name.unwrap_or_else(|| username.clone());
            let new = NewLocalUser { username: username.clone(), email, full_name, password, role };
            let id = operators.create_user(operator, new, &organization, org_role).await?;
            let sentence =
                format!("user {username} is there; the password is in {}", password_file.display());
            output::said(as_json, &json!({"userId": id, "passwordFile": password_file}), &sentence)
        }
        UserVerb::Import { file } => import(services, operator, &file, as_json).await,
        UserVerb::Deactivate { username } => {
            let change = UpdateUserRequest { active: Some(false), ..Default::default() };
            let user = changed(services, operator, &username, change).await?;
            let sentence = format!("user {} is deactivated, and everything of theirs ends", user.username);
            output::said(as_json, &json!({"user": user}), &sentence)
        }
        UserVerb::Activate { username } => {
            let change = UpdateUserRequest { active: Some(true), ..Default::default() };
            let user = changed(services, operator, &username, change).await?;
            output::said(as_json, &json!({"user": user}), &format!("user {} may log in", user.username))
        }
        UserVerb::SetRole { username, role } => {
            let change = UpdateUserRequest { role: Some(role), ..Default::default() };
            let user = changed(services, operator, &username, change).await?;
            let sentence = format!("user {} has the role {}", user.username, user.role);
            output::said(as_json, &json!({"user": user}), &sentence)
        }
        UserVerb::Delete { username, confirm } => {
            if username != confirm {
                bail!("nothing was done: --confirm must be `{username}`");
            }
            let id = services.all_users.id_of(operator, &username).await?;
            services.all_users.delete(operator, id, None).await?;
            output::said(as_json, &json!({"deleted": id}), &format!("user {username} is deleted"))
        }
        UserVerb::SetPassword { username, password_file } => {
            operators.set_password(operator, &username, password(&password_file)?).await?;
            output::said(
                as_json,
                &json!({"username": username}),
                &format!("user {username} has a new password and is logged out everywhere"),
            )
        }
    }
}

async fn changed(
    services: &Services,
    operator: &Operator,
    username: &str,
    change: UpdateUserRequest,
) -> anyhow::Result<PlatformUser> {
    let id = services.all_users.id_of(operator, username).await?;
    Ok(services.all_users.update(operator, id, change, None).await?)
}

async fn list(
    services: &Services,
    operator: &Operator,
    search: Option<String>,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut found: Vec<PlatformUser> = Vec::new();
    let mut paging = Paging { limit: 100, cursor: None };
    loop {
        let page = services.all_users.list(operator, search.clone(), &paging).await?;
        found.extend(page.items);
        if page.next_cursor.is_none() {
            break;
        }
        paging.cursor = page.next_cursor;
    }
    let row = |user: &PlatformUser| {
        let last = user.last_login.map_or_else(|| "never".into(), |at| at.format("%F %T UTC").to_string());
        let active = if user.active { "yes" } else { "no" };
        let organizations = user.organizations.join(", ");
        vec![
            user.username.clone(),
            user.role.to_string(),
            user.provider.to_string(),
            active.into(),
            organizations,
            last,
        ]
    };
    let headings = ["USER", "ROLE", "PROVIDER", "ACTIVE", "ORGANIZATIONS", "LAST LOGIN"];
    let rows = found.iter().map(row).collect();
    output::list(as_json, &json!({"users": found, "total": found.len()}), &headings, rows)
}

/// Takes the lines of a file one by one. One that is refused is told with its number, without its hash; the others are
/// taken all the same, and the program says at its end that some were not.
async fn import(services: &Services, operator: &Operator, file: &Path, as_json: bool) -> anyhow::Result<()> {
    let open = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let mut reader = BufReader::new(open);
    let (mut number, mut taken, mut refused) = (0_usize, 0_usize, Vec::new());
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LINE {
            bail!("line {number} is longer than {LINE} bytes; {taken} users before it were taken");
        }
        match one(services, operator, &line).await {
            Ok(()) => taken += 1,
            Err(error) => refused.push(json!({"line": number, "reason": format!("{error:#}")})),
        }
    }
    let told: Vec<_> = refused.iter().take(TOLD).collect();
    let count = refused.len();
    let mut sentence = vec![format!("{taken} users were taken, {count} refused")];
    let line = |refusal: &&serde_json::Value| {
        format!("line {}: {}", refusal["line"], refusal["reason"].as_str().unwrap_or_default())
    };
    sentence.extend(told.iter().map(line));
    let sentence = sentence.join("\n");
    output::said(as_json, &json!({"imported": taken, "refused": count, "refusals": told}), &sentence)?;
    anyhow::ensure!(count == 0, "{count} lines were refused");
    Ok(())
}

async fn one(services: &Services, operator: &Operator, line: &[u8]) -> anyhow::Result<()> {
    // What the line says is not repeated: it holds a hash.
    let value = serde_json::from_slice(line)
        .map_err(|error| anyhow::anyhow!("is not JSON (column {})", error.column()))?;
    let user = ImportedUser::from_json(value).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    services.all_users.import(operator, user).await?;
    Ok(())
}
