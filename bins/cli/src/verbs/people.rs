//! `whoami`, `org`, `members` and `invites`.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;
use tidegate_client::{
    Client, InviteList, MemberPage, NewInvite, NewOrganization, OrganizationChange, OrganizationPage,
};
use tidegate_model::Member;

use crate::{
    args::{InviteVerb, MemberVerb, OrgChanges, OrgVerb},
    context::Context,
    output::{self, plain},
};

/// Most entries that are listed at once.
pub(super) const MOST: usize = 10_000;

pub(super) async fn whoami(context: &Context) -> anyhow::Result<ExitCode> {
    let (user, may) = (context.client.me().await?, context.client.permissions().await?);
    context.output.answer(&json!({"user": user, "permissions": may}), || output::who(&user, &may))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn org(context: &Context, verb: OrgVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        OrgVerb::List => {
            let page = all_organizations(client).await?;
            out.answer(&page, || output::organizations(&page.organizations))?;
        }
        OrgVerb::Create(words) => {
            let display_name = words.display_name.unwrap_or_else(|| words.name.clone());
            let (description, k8s_namespace) = (words.description, words.namespace);
            let new = NewOrganization { name: words.name, display_name, description, k8s_namespace };
            let made = client.create_organization(&new).await?;
            out.answer(&made, || output::organization(&made))?;
        }
        OrgVerb::Show(words) => {
            let found = client.organization(&chosen(client, words.organization).await?).await?;
            out.answer(&found, || output::organization(&found))?;
        }
        OrgVerb::Update(words) => {
            let OrgChanges { display_name, description, namespace } = words.changes;
            let change = OrganizationChange { display_name, description, k8s_namespace: namespace };
            let organization = chosen(client, words.organization.organization).await?;
            let changed = client.update_organization(&organization, &change).await?;
            out.answer(&changed, || output::organization(&changed))?;
        }
        OrgVerb::Delete { organization, confirm } => {
            let found = client.organization(&organization).await?;
            if found.name != confirm {
                bail!("nothing was done: --confirm must be `{}`, the name of the organization", found.name);
            }
            client.delete_organization(&found.id.to_string()).await?;
            out.answer(&json!({"deleted": found.id}), || format!("{} has ended", plain(&found.name)))?;
        }
        OrgVerb::Policy(words) => super::sharing::org_policy(context, words).await?,
        OrgVerb::Switch { organization } => {
            let now = client.switch_organization(&organization).await?;
            let text = || format!("{}, with the role {}", plain(&now.organization.name), now.org_role);
            out.answer(&now, text)?;
        }
        OrgVerb::Transfer { username, org } => {
            let organization = chosen(client, org.org).await?;
            let heir = member(client, &organization, &username).await?;
            let given = client.transfer_organization(&organization, heir.user_id).await?;
            let text = || format!("{} belongs to {}", plain(&given.name), plain(&heir.username));
            out.answer(&given, text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn members(context: &Context, verb: MemberVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    let line = |member: &Member| format!("{} has the role {}", plain(&member.username), member.role);
    match verb {
        MemberVerb::List { org } => {
            let page = all_members(client, &chosen(client, org.org).await?).await?;
            out.answer(&page, || output::members(&page.members))?;
        }
        MemberVerb::Add(words) => {
            let organization = chosen(client, words.org.org).await?;
            let added = client.add_member(&organization, &words.username, words.role).await?;
            out.answer(&added, || line(&added))?;
        }
        MemberVerb::SetRole(words) => {
            let organization = chosen(client, words.org.org).await?;
            let id = member(client, &organization, &words.username).await?.user_id;
            let changed = client.set_member_role(&organization, id, words.role).await?;
            out.answer(&changed, || line(&changed))?;
        }
        MemberVerb::Remove { username, org } => {
            let organization = chosen(client, org.org).await?;
            let gone = member(client, &organization, &username).await?;
            client.remove_member(&organization, gone.user_id).await?;
            let text = || format!("{} is no member any more", plain(&gone.username));
            out.answer(&json!({"removed": gone.user_id}), text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn invites(context: &Context, verb: InviteVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        InviteVerb::List { org } => {
            let list = match org {
                Some(org) => all_invites(client, &org).await?,
                None => client.my_invites().await?,
            };
            out.answer(&list, || output::invites(&list.invites))?;
        }
        InviteVerb::Create { who, expires_in } => {
            let organization = chosen(client, who.org.org).await?;
            let new = NewInvite { username: who.username, role: who.role, expires_in };
            let made = client.create_invite(&organization, &new).await?;
            let text = || format!("{} invites {}", made.id, plain(&made.invitee_username));
            out.answer(&made, text)?;
        }
        InviteVerb::Accept(words) => {
            let joined = client.accept_invite(words.invite).await?;
            let text = || format!("member of {} with the role {}", joined.org_id, joined.role);
            out.answer(&joined, text)?;
        }
        InviteVerb::Decline(words) => {
            client.decline_invite(words.invite).await?;
            out.answer(&json!({"declined": words.invite}), || format!("{} is declined", words.invite))?;
        }
        InviteVerb::Revoke { invite, org } => {
            let organization = chosen(client, org.org).await?;
            let revoked = client.revoke_invite(&organization, invite.invite).await?;
            out.answer(&revoked, || format!("{} is revoked", revoked.id))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The organization that is meant: the one that is named, else the chosen one.
pub(super) async fn chosen(client: &Client, named: Option<String>) -> anyhow::Result<String> {
    if let Some(named) = named {
        return Ok(named);
    }
    match client.permissions().await?.org_id {
        Some(id) => Ok(id.to_string()),
        None => bail!("you are in no organization: make one with `tidegate org create`, or accept an invite"),
    }
}

/// The member of this name, in any case.
pub(super) async fn member(client: &Client, organization: &str, username: &str) -> anyhow::Result<Member> {
    let all = all_members(client, organization).await?.members;
    let found = all.into_iter().find(|member| member.username.eq_ignore_ascii_case(username));
    found.ok_or_else(|| anyhow::anyhow!("no member is called `{username}`: see `tidegate members list`"))
}

async fn all_organizations(client: &Client) -> anyhow::Result<OrganizationPage> {
    let mut page = client.organizations(None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.organizations.len() < MOST) {
        let next = client.organizations(Some(&cursor)).await?;
        page.organizations.extend(next.organizations);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}

async fn all_members(client: &Client, organization: &str) -> anyhow::Result<MemberPage> {
    let mut page = client.members(organization, None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.members.len() < MOST) {
        let next = client.members(organization, Some(&cursor)).await?;
        page.members.extend(next.members);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}

async fn all_invites(client: &Client, organization: &str) -> anyhow::Result<InviteList> {
    let mut page = client.invites_of(organization, None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.invites.len() < MOST) {
        let next = client.invites_of(organization, Some(&cursor)).await?;
        page.invites.extend(next.invites);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}
