//! What the verbs about members and invites do.

use anyhow::Context;
use serde_json::{Map, Value, json};
use tidegate_model::{CreateInviteRequest, FromFields, Invite, Member};
use tidegate_service::{Added, Invited, OrgScope, Person, Services};

use crate::{
    agents::time,
    args::{InviteVerb, MemberVerb},
    output,
    pages::all,
};

pub(crate) async fn members(services: &Services, verb: MemberVerb, as_json: bool) -> anyhow::Result<()> {
    match verb {
        MemberVerb::List { inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            let found = all(async |paging| services.members.list(&scope, paging).await).await?;
            let row = |member: &Member| {
                let role = if member.owner { "owner".to_owned() } else { member.role.to_string() };
                let active = if member.active { "yes" } else { "no" };
                let name = member.full_name.clone();
                vec![member.username.clone(), role, active.to_owned(), name, time(member.joined_at)]
            };
            let rows = found.iter().map(row).collect();
            let headings = ["USER", "ROLE", "ACTIVE", "NAME", "SINCE"];
            output::list(as_json, &json!({"members": found, "total": found.len()}), &headings, rows)
        }
        MemberVerb::Add { username, role, inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            match services.members.add(&scope, Person::Named(username), role).await? {
                Added::New(member) | Added::Changed(member) => said(&member, as_json),
                Added::Replay(replay) => output::one(&replay.body),
            }
        }
        MemberVerb::SetRole { username, role, inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            let before = member(services, &scope, &username).await?;
            said(&services.members.set_role(&scope, before.user_id, role).await?, as_json)
        }
        MemberVerb::Remove { username, inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            let before = member(services, &scope, &username).await?;
            services.members.remove(&scope, before.user_id).await?;
            let sentence = format!("{} is no member any more", before.username);
            output::said(as_json, &json!({"removed": before.user_id}), &sentence)
        }
    }
}

fn said(member: &Member, as_json: bool) -> anyhow::Result<()> {
    output::said(as_json, member, &format!("{} is a member with the role {}", member.username, member.role))
}

/// The member of this name, in any case.
pub(crate) async fn member(services: &Services, scope: &OrgScope, name: &str) -> anyhow::Result<Member> {
    let members = all(async |paging| services.members.list(scope, paging).await).await?;
    let found = members.into_iter().find(|member| member.username.eq_ignore_ascii_case(name));
    found.with_context(|| format!("no member is called `{name}`: see `tidegate-admin members list`"))
}

pub(crate) async fn invites(services: &Services, verb: InviteVerb, as_json: bool) -> anyhow::Result<()> {
    match verb {
        InviteVerb::List { inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            let found = all(async |paging| services.invites.list(&scope, paging).await).await?;
            let row = |invite: &Invite| {
                vec![
                    invite.id.to_string(),
                    invite.invitee_username.clone(),
                    invite.role.to_string(),
                    invite.status.to_string(),
                    invite.inviter_username.clone(),
                    time(invite.expires_at),
                ]
            };
            let rows = found.iter().map(row).collect();
            let headings = ["INVITE", "USER", "ROLE", "STATUS", "BY", "UNTIL"];
            output::list(as_json, &json!({"invites": found, "total": found.len()}), &headings, rows)
        }
        InviteVerb::Create { username, role, expires_in, inside } => {
            let mut body = Map::from_iter([
                ("username".to_owned(), Value::from(username)),
                ("role".to_owned(), json!(role)),
            ]);
            body.extend(expires_in.map(|time| ("expiresIn".to_owned(), Value::from(time))));
            let request =
                CreateInviteRequest::from_json(body.into()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
            let scope = services.operators.enter(&inside.organization).await?;
            match services.invites.create(&scope, request, None, |_| Value::Null).await? {
                Invited::New(invite) => {
                    let sentence = format!(
                        "{} is invited with the role {} until {}",
                        invite.invitee_username,
                        invite.role,
                        time(invite.expires_at)
                    );
                    output::said(as_json, &invite, &sentence)
                }
                Invited::Replay(replay) => output::one(&replay.body),
            }
        }
        InviteVerb::Revoke { invite, inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            let revoked = services.invites.revoke(&scope, invite).await?;
            let sentence = format!("the invite of {} is taken back", revoked.invitee_username);
            output::said(as_json, &revoked, &sentence)
        }
    }
}
