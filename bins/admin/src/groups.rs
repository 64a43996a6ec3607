//! What the verbs about groups do.

use anyhow::Context;
use serde_json::{Map, Value, json};
use tidegate_model::{
    AddGroupMemberRequest, CreateGroupRequest, FromFields, Group, GroupId, GroupMembership,
    UpdateGroupRequest,
};
use tidegate_service::{ChildrenOf, GroupAdded, MadeGroup, OrgScope, Services};

use crate::{
    agents::time,
    args::{GroupArg, GroupVerb},
    members::member,
    output,
    pages::all,
    quotas::{headings, rows},
};

pub(crate) async fn groups(services: &Services, verb: GroupVerb, as_json: bool) -> anyhow::Result<()> {
    let groups = &services.groups;
    match verb {
        GroupVerb::List { inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            list(&all_groups(services, &scope).await?, as_json)
        }
        GroupVerb::Show { group } => {
            let (scope, id) = find(services, &group).await?;
            show(&groups.get(&scope, id).await?, as_json)
        }
        GroupVerb::Create { name, display_name, description, kind, parent, inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            let parent = parent_of(services, &scope, parent.as_deref()).await?;
            let body = json!({
                "name": name, "displayName": display_name.unwrap_or_else(|| name.clone()),
                "description": description.unwrap_or_default(), "type": kind, "parentId": parent,
            });
            let request =
                CreateGroupRequest::from_json(body).map_err(|errors| anyhow::anyhow!("{errors}"))?;
            match groups.create(&scope, request, None, |_| Value::Null).await? {
                MadeGroup::New(group) => {
                    output::said(as_json, &group, &format!("group {} is there", group.name))
                }
                MadeGroup::Replay(replay) => output::one(&replay.body),
            }
        }
        GroupVerb::Update { group, what } => {
            let (scope, id) = find(services, &group).await?;
            let mut body = Map::new();
            for (name, text) in [("displayName", what.display_name), ("description", what.description)] {
                body.extend(text.map(|text| (name.to_owned(), Value::from(text))));
            }
            body.extend(what.kind.map(|kind| ("type".to_owned(), json!(kind))));
            let parent = parent_of(services, &scope, what.parent.as_deref()).await?;
            body.extend(parent.map(|parent| ("parentId".to_owned(), json!(parent))));
            if what.top {
                body.insert("parentId".to_owned(), Value::Null);
            }
            let change =
                UpdateGroupRequest::from_json(body.into()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
            let after = groups.update(&scope, id, change).await?;
            output::said(as_json, &after, &format!("group {} is changed", after.name))
        }
        GroupVerb::Delete { group, lift } => {
            let (scope, id) = find(services, &group).await?;
            groups.delete(&scope, id, if lift { ChildrenOf::Lift } else { ChildrenOf::Keep }).await?;
            output::said(as_json, &json!({"deleted": id}), &format!("group {} has ended", group.group))
        }
        GroupVerb::Members { group } => {
            let (scope, id) = find(services, &group).await?;
            let found = all(async |paging| groups.members(&scope, id, paging).await).await?;
            let row = |member: &GroupMembership| {
                vec![member.username.clone(), member.role.to_string(), time(member.created_at)]
            };
            let rows = found.iter().map(row).collect();
            let json = json!({"members": found, "total": found.len()});
            output::list(as_json, &json, &["USER", "ROLE", "SINCE"], rows)
        }
        GroupVerb::Add { group, username, role } => {
            let (scope, id) = find(services, &group).await?;
            let user_id = member(services, &scope, &username).await?.user_id;
            match groups.add(&scope, id, AddGroupMemberRequest { user_id, role }).await? {
                GroupAdded::New(member) | GroupAdded::Changed(member) => {
                    let sentence =
                        format!("{} has the role {} in {}", member.username, member.role, member.group_name);
                    output::said(as_json, &member, &sentence)
                }
                GroupAdded::Replay(replay) => output::one(&replay.body),
            }
        }
        GroupVerb::Remove { group, username } => {
            let (scope, id) = find(services, &group).await?;
            let user = member(services, &scope, &username).await?;
            groups.remove(&scope, id, user.user_id).await?;
            let sentence = format!("{} is not in {} any more", user.username, group.group);
            output::said(as_json, &json!({"removed": user.user_id}), &sentence)
        }
    }
}

fn list(found: &[Group], as_json: bool) -> anyhow::Result<()> {
    let above = |group: &Group| {
        let parent = group.parent_id?;
        Some(found.iter().find(|other| other.id == parent)?.name.clone())
    };
    let row = |group: &Group| {
        vec![
            group.name.clone(),
            group.id.to_string(),
            group.kind.to_string(),
            above(group).unwrap_or_default(),
            group.member_count.to_string(),
            group.display_name.clone(),
        ]
    };
    let headings = ["GROUP", "ID", "TYPE", "BELOW", "MEMBERS", "CALLED"];
    let rows = found.iter().map(row).collect();
    output::list(as_json, &json!({"groups": found, "total": found.len()}), &headings, rows)
}

fn show(group: &Group, as_json: bool) -> anyhow::Result<()> {
    let lines = [
        ("group", group.name.clone()),
        ("id", group.id.to_string()),
        ("called", group.display_name.clone()),
        ("description", group.description.clone()),
        ("type", group.kind.to_string()),
        ("below", group.parent_id.map_or_else(|| "none".into(), |id| id.to_string())),
        ("members", group.member_count.to_string()),
        ("made", time(group.created_at)),
    ];
    let lines = lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output::list(as_json, group, &["", ""], lines)?;
    match &group.quota {
        Some(quota) if !as_json => {
            output::line("")?;
            output::list(false, &(), &headings(), rows(&quota.numbers))
        }
        _ => Ok(()),
    }
}

/// The organization of a group, entered, and the group.
async fn find(services: &Services, words: &GroupArg) -> anyhow::Result<(OrgScope, GroupId)> {
    let scope = services.operators.enter(&words.inside.organization).await?;
    let id = group(services, &scope, &words.group).await?;
    Ok((scope, id))
}

/// The group that is meant: names never have the form of an id.
pub(crate) async fn group(services: &Services, scope: &OrgScope, text: &str) -> anyhow::Result<GroupId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let found = all_groups(services, scope).await?.into_iter().find(|group| group.name == text);
    let found = found.map(|group| group.id);
    found.with_context(|| format!("no group is called `{text}`: see `tidegate-admin groups list`"))
}

async fn parent_of(
    services: &Services,
    scope: &OrgScope,
    text: Option<&str>,
) -> anyhow::Result<Option<GroupId>> {
    match text {
        Some(text) => group(services, scope, text).await.map(Some),
        None => Ok(None),
    }
}

async fn all_groups(services: &Services, scope: &OrgScope) -> anyhow::Result<Vec<Group>> {
    all(async |paging| services.groups.list(scope, paging).await).await
}
