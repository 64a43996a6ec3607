//! What the verbs about organizations do.

use anyhow::bail;
use serde_json::{Map, Value, json};
use tidegate_model::{FromFields, OrgStatus, Organization, UpdateOrganizationRequest};
use tidegate_service::{Caller, Operator, OrgScope, Services};

use crate::{
    agents::time,
    args::OrganizationVerb,
    members::member,
    output,
    pages::all,
    quotas::{headings, rows},
};

pub(crate) async fn organizations(
    services: &Services,
    operator: &Operator,
    verb: OrganizationVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    let console = Caller::console();
    let every = &services.all_organizations;
    match verb {
        OrganizationVerb::List => list(services, &console, as_json).await,
        OrganizationVerb::Show { organization } => show(services, &console, &organization, as_json).await,
        OrganizationVerb::Create { name } => {
            let id = services.operators.create_organization(operator, &name).await?;
            output::said(as_json, &json!({"orgId": id}), &format!("organization {name} is there"))
        }
        OrganizationVerb::Update(words) => {
            let mut body = Map::new();
            let what = words.what;
            for (name, text) in [
                ("displayName", what.display_name),
                ("description", what.description),
                ("k8sNamespace", what.namespace),
            ] {
                body.extend(text.map(|text| (name.to_owned(), Value::from(text))));
            }
            let change = UpdateOrganizationRequest::from_json(body.into())
                .map_err(|errors| anyhow::anyhow!("{errors}"))?;
            let scope = services.operators.enter(&words.organization).await?;
            let after = every.update(&console, scope.org_id(), change).await?;
            output::said(as_json, &after, &format!("organization {} is changed", after.name))
        }
        OrganizationVerb::Suspend { organization } => {
            let after = set_status(services, &console, &organization, OrgStatus::Suspended).await?;
            let sentence =
                format!("organization {} is suspended: nobody gets in and no session starts", after.name);
            output::said(as_json, &after, &sentence)
        }
        OrganizationVerb::Activate { organization } => {
            let after = set_status(services, &console, &organization, OrgStatus::Active).await?;
            output::said(as_json, &after, &format!("organization {} goes on", after.name))
        }
        OrganizationVerb::Transfer { organization, username } => {
            let scope = services.operators.enter(&organization).await?;
            let to = member(services, &scope, &username).await?;
            let after = every.transfer(&console, scope.org_id(), to.user_id).await?;
            let sentence = format!("organization {} is {}'s", after.name, to.username);
            output::said(as_json, &after, &sentence)
        }
        OrganizationVerb::Delete { organization, confirm } => {
            let found = find(services, &console, &organization).await?.1;
            if found.name != confirm {
                bail!("nothing was done: --confirm must be `{}`", found.name);
            }
            every.delete(&console, found.id).await?;
            output::said(
                as_json,
                &json!({"deleted": found.id}),
                &format!("organization {} has ended", found.name),
            )
        }
    }
}

async fn find(
    services: &Services,
    console: &Caller,
    wanted: &str,
) -> anyhow::Result<(OrgScope, Organization)> {
    let scope = services.operators.enter(wanted).await?;
    let found = services.all_organizations.get(console, scope.org_id()).await?;
    Ok((scope, found))
}

async fn set_status(
    services: &Services,
    console: &Caller,
    wanted: &str,
    status: OrgStatus,
) -> anyhow::Result<Organization> {
    let scope = services.operators.enter(wanted).await?;
    let change = UpdateOrganizationRequest { status: Some(status), ..Default::default() };
    Ok(services.all_organizations.update(console, scope.org_id(), change).await?)
}

async fn list(services: &Services, console: &Caller, as_json: bool) -> anyhow::Result<()> {
    let found = all(async |paging| services.all_organizations.list(console, paging).await).await?;
    let row = |org: &Organization| {
        vec![
            org.name.clone(),
            org.id.to_string(),
            org.status.to_string(),
            org.display_name.clone(),
            org.owner_user_id.map_or_else(|| "nobody".into(), |id| id.to_string()),
            time(org.created_at),
        ]
    };
    let headings = ["ORGANIZATION", "ID", "STATUS", "CALLED", "OWNER", "MADE"];
    let rows = found.iter().map(row).collect();
    output::list(as_json, &json!({"organizations": found, "total": found.len()}), &headings, rows)
}

async fn show(services: &Services, console: &Caller, wanted: &str, as_json: bool) -> anyhow::Result<()> {
    let (scope, org) = find(services, console, wanted).await?;
    let usage = services.quotas.usage(&scope).await?;
    if as_json {
        return output::one(&json!({"organization": org, "usage": usage}));
    }
    let owner = match org.owner_user_id {
        None => "nobody".to_owned(),
        Some(id) => services.members.get(&scope, id).await?.username,
    };
    let states: Vec<String> =
        usage.sessions.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let lines = [
        ("organization", org.name.clone()),
        ("id", org.id.to_string()),
        ("status", org.status.to_string()),
        ("called", org.display_name.clone()),
        ("description", org.description.clone()),
        ("owner", owner),
        ("namespace", org.k8s_namespace.clone()),
        ("made", time(org.created_at)),
        ("members", usage.members.to_string()),
        ("groups", usage.groups.to_string()),
        ("sessions", if states.is_empty() { "none".into() } else { states.join(", ") }),
    ];
    let lines = lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output::list(false, &(), &["", ""], lines)?;
    output::line("")?;
    output::list(false, &(), &headings(), rows(&usage.numbers))
}
