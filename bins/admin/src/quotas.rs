//! What the verbs about quotas do.

use serde::Serialize;
use serde_json::{Map, json};
use tidegate_model::{
    FromFields, GroupId, ListedQuota, OrganizationQuota, QuotaNumbers, SetQuotaRequest, UserId,
};
use tidegate_service::{Caller, OrgScope, Services};

use crate::{
    args::{Limits, QuotaVerb, Whose},
    groups::group,
    members::member,
    output,
    pages::all,
};

/// Whose quota is meant.
enum Of {
    Organization,
    Ceiling,
    User(UserId),
    Group(GroupId),
}

pub(crate) async fn quotas(services: &Services, verb: QuotaVerb, as_json: bool) -> anyhow::Result<()> {
    match verb {
        QuotaVerb::List => list(services, as_json).await,
        QuotaVerb::Show { whose } => {
            let (scope, of) = find(services, &whose).await?;
            show(services, &scope, &of, as_json).await
        }
        QuotaVerb::Set { whose, limits } => {
            let request = request(limits)?;
            let (scope, of) = find(services, &whose).await?;
            set(services, &scope, &of, request).await?;
            show(services, &scope, &of, as_json).await
        }
        QuotaVerb::Reset { whose } => {
            let (scope, of) = find(services, &whose).await?;
            reset(services, &scope, &of).await?;
            output::said(as_json, &json!({"reset": true}), "the default holds again")
        }
    }
}

async fn find(services: &Services, whose: &Whose) -> anyhow::Result<(OrgScope, Of)> {
    let scope = services.operators.enter(&whose.organization).await?;
    let of = match whose {
        Whose { user: Some(name), .. } => Of::User(member(services, &scope, name).await?.user_id),
        Whose { group: Some(text), .. } => Of::Group(group(services, &scope, text).await?),
        Whose { ceiling: true, .. } => Of::Ceiling,
        Whose { .. } => Of::Organization,
    };
    Ok((scope, of))
}

fn request(limits: Limits) -> anyhow::Result<SetQuotaRequest> {
    let mut body = Map::new();
    for (name, limit) in [
        ("maxSessions", limits.sessions),
        ("maxCpu", limits.cpu),
        ("maxMemory", limits.memory),
        ("maxStorage", limits.storage),
    ] {
        body.extend(limit.map(|limit| (name.to_owned(), limit)));
    }
    SetQuotaRequest::from_json(body.into()).map_err(|errors| anyhow::anyhow!("{errors}"))
}

async fn set(
    services: &Services,
    scope: &OrgScope,
    of: &Of,
    request: SetQuotaRequest,
) -> tidegate_service::Result<()> {
    let quotas = &services.quotas;
    match of {
        Of::Organization => quotas.set_organization(scope, request).await.map(drop),
        Of::User(id) => quotas.set_user(scope, *id, request).await.map(drop),
        Of::Group(id) => quotas.set_group(scope, *id, request).await.map(drop),
        Of::Ceiling => {
            let platform = &services.platform_quotas;
            platform.set_ceiling(&Caller::console(), scope.org_id(), request).await.map(drop)
        }
    }
}

async fn reset(services: &Services, scope: &OrgScope, of: &Of) -> tidegate_service::Result<()> {
    let quotas = &services.quotas;
    match of {
        Of::Organization => quotas.reset_organization(scope).await,
        Of::User(id) => quotas.reset_user(scope, *id).await,
        Of::Group(id) => quotas.reset_group(scope, *id).await,
        Of::Ceiling => services.platform_quotas.reset_ceiling(&Caller::console(), scope.org_id()).await,
    }
}

async fn show(services: &Services, scope: &OrgScope, of: &Of, as_json: bool) -> anyhow::Result<()> {
    let quotas = &services.quotas;
    match of {
        Of::User(id) => {
            let quota = quotas.of_user(scope, *id).await?;
            table(&quota, &quota.numbers, as_json)
        }
        Of::Group(id) => {
            let quota = quotas.of_group(scope, *id).await?;
            table(&quota, &quota.numbers, as_json)
        }
        Of::Organization | Of::Ceiling => of_organization(&quotas.of_organization(scope).await?, as_json),
    }
}

fn of_organization(quota: &OrganizationQuota, as_json: bool) -> anyhow::Result<()> {
    table(quota, &quota.numbers, as_json)?;
    let ceiling = serde_json::to_value(&quota.ceiling)?;
    let bound = |(name, limit): (&String, &serde_json::Value)| {
        (!limit.is_null()).then(|| format!("{name} {}", limit.to_string().trim_matches('"')))
    };
    let bounds: Vec<String> = ceiling.as_object().into_iter().flatten().filter_map(bound).collect();
    if !as_json && !bounds.is_empty() {
        output::line(&format!("\nthe platform allows it {}", bounds.join(", ")))?;
    }
    Ok(())
}

fn table(json: &impl Serialize, numbers: &QuotaNumbers, as_json: bool) -> anyhow::Result<()> {
    output::list(as_json, json, &headings(), rows(numbers))
}

/// The headings over [`rows`].
pub(crate) const fn headings() -> [&'static str; 3] {
    ["OF", "USED", "ALLOWED"]
}

/// What is used and what may be.
pub(crate) fn rows(numbers: &QuotaNumbers) -> Vec<Vec<String>> {
    let sessions = numbers.max_sessions.map(|most| most.to_string());
    let rows = [
        ("sessions", numbers.used_sessions.to_string(), sessions),
        ("cpu", numbers.used_cpu.clone(), numbers.max_cpu.clone()),
        ("memory", numbers.used_memory.clone(), numbers.max_memory.clone()),
        ("storage", numbers.used_storage.clone(), numbers.max_storage.clone()),
    ];
    let row = |(of, used, most): (&str, String, Option<String>)| {
        vec![of.to_owned(), used, most.unwrap_or_else(|| "unlimited".into())]
    };
    rows.into_iter().map(row).collect()
}

async fn list(services: &Services, as_json: bool) -> anyhow::Result<()> {
    let console = Caller::console();
    let found = all(async |paging| services.platform_quotas.list(&console, paging).await).await?;
    let row = |it: &ListedQuota| {
        let numbers = &it.quota.numbers;
        let of = |used: &dyn std::fmt::Display, most: Option<String>| {
            format!("{used} of {}", most.unwrap_or_else(|| "unlimited".into()))
        };
        vec![
            it.quota.username.clone(),
            it.organization.clone(),
            of(&numbers.used_sessions, numbers.max_sessions.map(|most| most.to_string())),
            of(&numbers.used_cpu, numbers.max_cpu.clone()),
            of(&numbers.used_memory, numbers.max_memory.clone()),
            of(&numbers.used_storage, numbers.max_storage.clone()),
        ]
    };
    let headings = ["USER", "ORGANIZATION", "SESSIONS", "CPU", "MEMORY", "STORAGE"];
    let rows = found.iter().map(row).collect();
    output::list(as_json, &json!({"quotas": found, "total": found.len()}), &headings, rows)
}
