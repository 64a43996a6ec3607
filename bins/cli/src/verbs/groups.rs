//! `groups` and `quota`.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;
use tidegate_client::{
    Client, GroupChange, GroupMemberPage, GroupPage, NewGroup, QuotaChange, QuotaQuestion,
};
use tidegate_model::{GroupId, GroupMembership, ResourceRequest, UserId};

use super::people::{MOST, chosen, member};
use crate::{
    args::{GroupVerb, Limits, QuotaVerb, Whose},
    context::Context,
    output::{self, plain},
};

pub(super) async fn groups(context: &Context, verb: GroupVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        GroupVerb::List => {
            let page = all_groups(client).await?;
            out.answer(&page, || output::groups(&page.groups))?;
        }
        GroupVerb::Create(words) => {
            let parent_id = optional_group(client, words.parent.as_deref()).await?;
            let display_name = words.display_name.unwrap_or_else(|| words.name.clone());
            let (name, description, kind) = (words.name, words.description, words.kind);
            let new = NewGroup { name, display_name, description, kind, parent_id };
            let made = client.create_group(&new).await?;
            out.answer(&made, || output::group(&made))?;
        }
        GroupVerb::Show(words) => {
            let found = client.group(group(client, &words.group).await?).await?;
            out.answer(&found, || output::group(&found))?;
        }
        GroupVerb::Update(words) => {
            let id = group(client, &words.group.group).await?;
            let parent = optional_group(client, words.what.parent.as_deref()).await?;
            let change = GroupChange {
                display_name: words.what.display_name,
                description: words.what.description,
                kind: words.what.kind,
                parent_id: if words.what.top { Some(None) } else { parent.map(Some) },
            };
            let changed = client.update_group(id, &change).await?;
            out.answer(&changed, || output::group(&changed))?;
        }
        GroupVerb::Delete { group: words, lift } => {
            let id = group(client, &words.group).await?;
            client.delete_group(id, lift).await?;
            out.answer(&json!({"deleted": id}), || format!("{} has ended", plain(&words.group)))?;
        }
        GroupVerb::Members(words) => {
            let page = all_members(client, group(client, &words.group).await?).await?;
            out.answer(&page, || output::group_members(&page.members))?;
        }
        GroupVerb::Add { group: words, username, role } => {
            let (id, user) = (group(client, &words.group).await?, user(client, &username).await?);
            let added = client.add_group_member(id, user, role).await?;
            out.answer(&added, || line(&added))?;
        }
        GroupVerb::Remove { group: words, username } => {
            let (id, user) = (group(client, &words.group).await?, user(client, &username).await?);
            client.remove_group_member(id, user).await?;
            let text = || format!("{} is not in {} any more", plain(&username), plain(&words.group));
            out.answer(&json!({"removed": user}), text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn quota(context: &Context, verb: QuotaVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        QuotaVerb::Show(whose) => match target(client, whose).await? {
            Target::User(id) => {
                let quota = client.user_quota(id).await?;
                out.answer(&quota, || output::quota(&quota.numbers))?;
            }
            Target::Group(id) => {
                let quota = client.group_quota(id).await?;
                out.answer(&quota, || output::quota(&quota.numbers))?;
            }
            Target::Organization(id) => {
                let quota = client.organization_quota(&id).await?;
                out.answer(&quota, || output::quota(&quota.numbers))?;
            }
        },
        QuotaVerb::Set { whose, limits } => {
            let change = change(&limits);
            match target(client, whose).await? {
                Target::User(id) => {
                    let quota = client.set_user_quota(id, &change).await?;
                    out.answer(&quota, || output::quota(&quota.numbers))?;
                }
                Target::Group(id) => {
                    let quota = client.set_group_quota(id, &change).await?;
                    out.answer(&quota, || output::quota(&quota.numbers))?;
                }
                Target::Organization(id) => {
                    let quota = client.set_organization_quota(&id, &change).await?;
                    out.answer(&quota, || output::quota(&quota.numbers))?;
                }
            }
        }
        QuotaVerb::Reset(whose) => {
            match target(client, whose).await? {
                Target::User(id) => client.reset_user_quota(id).await?,
                Target::Group(id) => client.reset_group_quota(id).await?,
                Target::Organization(id) => client.reset_organization_quota(&id).await?,
            }
            out.answer(&json!({"reset": true}), || "the default holds again".to_owned())?;
        }
        QuotaVerb::Check { cpu, memory, storage, home, user } => {
            let resources = ResourceRequest { cpu, memory, storage };
            let question = QuotaQuestion { resources, persistent_home: home || storage.is_some(), user };
            let verdict = client.check_quota(&question).await?;
            let text = || match &verdict.bound {
                Some(bound) => plain(&bound.to_string()),
                None => "there is room".to_owned(),
            };
            out.answer(&verdict, text)?;
            // For scripts: as `test` says it.
            return Ok(if verdict.allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        QuotaVerb::Usage => {
            let usage = client.organization_usage(&chosen(client, None).await?).await?;
            out.answer(&usage, || output::usage(&usage))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(member: &GroupMembership) -> String {
    let (name, group) = (plain(&member.username), plain(&member.group_name));
    format!("{name} has the role {} in {group}", member.role)
}

enum Target {
    User(UserId),
    Group(GroupId),
    Organization(String),
}

async fn target(client: &Client, whose: Whose) -> anyhow::Result<Target> {
    Ok(match whose {
        Whose { organization: true, .. } => Target::Organization(chosen(client, None).await?),
        Whose { group: Some(name), .. } => Target::Group(group(client, &name).await?),
        Whose { user: Some(name), .. } => Target::User(user(client, &name).await?),
        Whose { .. } => Target::User(client.me().await?.id),
    })
}

fn change(limits: &Limits) -> QuotaChange {
    QuotaChange {
        max_sessions: limits.sessions.map(|bound| bound.0),
        max_cpu: limits.cpu.map(|bound| bound.0.map(|cpu| cpu.to_string())),
        max_memory: limits.memory.map(|bound| bound.0.map(|memory| memory.to_string())),
        max_storage: limits.storage.map(|bound| bound.0.map(|storage| storage.to_string())),
    }
}

async fn user(client: &Client, username: &str) -> anyhow::Result<UserId> {
    Ok(member(client, &chosen(client, None).await?, username).await?.user_id)
}

async fn optional_group(client: &Client, text: Option<&str>) -> anyhow::Result<Option<GroupId>> {
    match text {
        Some(text) => group(client, text).await.map(Some),
        None => Ok(None),
    }
}

/// The group that is meant: names never have the form of an id.
pub(super) async fn group(client: &Client, text: &str) -> anyhow::Result<GroupId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    match all_groups(client).await?.groups.into_iter().find(|group| group.name == text) {
        Some(group) => Ok(group.id),
        None => bail!("no group is called `{text}`: see `tidegate groups list`"),
    }
}

async fn all_groups(client: &Client) -> anyhow::Result<GroupPage> {
    let mut page = client.groups(None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.groups.len() < MOST) {
        let next = client.groups(Some(&cursor)).await?;
        page.groups.extend(next.groups);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}

async fn all_members(client: &Client, id: GroupId) -> anyhow::Result<GroupMemberPage> {
    let mut page = client.group_members(id, None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.members.len() < MOST) {
        let next = client.group_members(id, Some(&cursor)).await?;
        page.members.extend(next.members);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}
