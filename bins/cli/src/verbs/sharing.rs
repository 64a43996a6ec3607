//! `share`, `disconnect`, `record`, `extend`, `activity`, `policy` and `org policy`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;
use tidegate_client::{LimitChange, NewShare, SessionPolicyChange, ShareWith};
use tidegate_model::{SessionId, ShareId};

use super::{people::chosen, terminals};
use crate::{
    args::{
        DisconnectArgs, ExtendArgs, OrgPolicy, RecordArgs, Said, SessionArg, ShareArgs, ShareVerb, Which,
        With,
    },
    context::Context,
    lookup,
    output::{self, plain},
};

pub(super) async fn share(context: &Context, words: ShareArgs) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match words.verb {
        Some(ShareVerb::Ls(words)) => {
            let session = lookup::find(client, &words.session).await?;
            let list = client.session_shares(session.id).await?;
            out.answer(&list, || output::shares(&list.shares))?;
        }
        Some(ShareVerb::Rm { session, which }) => {
            let session = lookup::find(client, &session.session).await?;
            let share = meant(context, session.id, which).await?;
            client.revoke_share(session.id, share).await?;
            out.answer(&json!({"revoked": share}), || format!("share {share} has ended"))?;
        }
        None if words.is_terminal() => {
            let name = words.what.unwrap_or_default();
            return terminals::share(context, &name, words.command).await;
        }
        None => {
            let name = words.what.unwrap_or_default();
            let session = lookup::find(client, &name).await?;
            let new = NewShare { with: with(words.with)?, mode: words.mode, expires_in: words.time };
            let made = client.share_session(session.id, &new).await?;
            out.answer(&made, || output::share(&session, &made))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn disconnect(context: &Context, words: DisconnectArgs) -> anyhow::Result<ExitCode> {
    let session = lookup::find(&context.client, &words.session.session).await?;
    context.client.disconnect_session(session.id, words.user.as_deref()).await?;
    let said = || {
        let who = words
            .user
            .as_deref()
            .map_or_else(|| "you have".to_owned(), |user| format!("{} has", plain(user)));
        format!("nothing that {who} opened of {} before is open any more", plain(&session.name))
    };
    context.output.answer(&json!({"disconnected": session.id, "user": words.user}), said)?;
    Ok(ExitCode::SUCCESS)
}

/// Has a session's terminal recorded, or no more.
pub(super) async fn record(context: &Context, words: RecordArgs) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    let session = lookup::find(client, &words.session.session).await?;
    if let Some(handle) = words.handle {
        let recorded = client.record_session(session.id, &handle).await?;
        out.answer(&recorded, || {
            format!("{} is recorded: tidegate read {handle}/stdout", plain(&session.name))
        })?;
    } else {
        client.unrecord_session(session.id).await?;
        out.answer(&json!({"unrecorded": session.id}), || {
            format!("{} is recorded no more", plain(&session.name))
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn extend(context: &Context, words: ExtendArgs) -> anyhow::Result<ExitCode> {
    let session = lookup::find(&context.client, &words.session.session).await?;
    let extended = context.client.extend_session(session.id, words.by).await?;
    context.output.answer(&extended, || output::moments(&extended))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn activity(context: &Context, words: SessionArg) -> anyhow::Result<ExitCode> {
    let session = lookup::find(&context.client, &words.session).await?;
    let list = context.client.session_activity(session.id).await?;
    context.output.answer(&list, || output::activity(&list.activity))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn policy(context: &Context, words: SessionArg) -> anyhow::Result<ExitCode> {
    let session = lookup::find(&context.client, &words.session).await?;
    let policy = context.client.session_policy(session.id).await?;
    context.output.answer(&policy, || output::policy(&policy))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what the organization says, after it was set where something is given.
pub(super) async fn org_policy(context: &Context, words: OrgPolicy) -> anyhow::Result<()> {
    let client = &context.client;
    let organization = chosen(client, words.organization.organization).await?;
    let rule = |default: Option<Said>, maximum: Option<Said>| LimitChange {
        default: default.map(|said| said.0),
        maximum: maximum.map(|said| said.0),
    };
    let given = [words.idle_default, words.idle_maximum, words.duration_default, words.duration_maximum];
    let policy = if given.iter().any(Option::is_some) {
        let change = SessionPolicyChange {
            idle_timeout: rule(words.idle_default, words.idle_maximum),
            max_session_duration: rule(words.duration_default, words.duration_maximum),
        };
        client.set_organization_session_policy(&organization, &change).await?
    } else {
        client.organization_session_policy(&organization).await?
    };
    context.output.answer(&policy, || output::organization_policy(&policy))
}

/// Names never have the form of an id.
fn with(words: With) -> anyhow::Result<ShareWith> {
    Ok(match words {
        With { with: Some(name), .. } => ShareWith::Username(name),
        With { group: Some(text), .. } => match text.parse() {
            Ok(id) => ShareWith::GroupId(id),
            Err(_) => ShareWith::Group(text),
        },
        With { with: None, group: None } => bail!("say with whom: --with USERNAME or --group GROUP"),
    })
}

/// The share that is meant.
async fn meant(context: &Context, session: SessionId, which: Which) -> anyhow::Result<ShareId> {
    if let Some(text) = which.share {
        return text.parse().with_context(|| {
            format!(
                "`{}` is no id of a share: see `tidegate share ls`, or say --with or --group",
                plain(&text)
            )
        });
    }
    let shares = context.client.session_shares(session).await?.shares;
    let found = shares.into_iter().find(|share| {
        let user = share.user.as_deref().zip(which.with.as_deref());
        let group = share.group.as_deref().zip(which.group.as_deref());
        let id = share.group_id.zip(which.group.as_ref().and_then(|text| text.parse().ok()));
        user.is_some_and(|(user, name)| user.eq_ignore_ascii_case(name))
            || group.is_some_and(|(group, name)| group == name)
            || id.is_some_and(|(id, wanted)| id == wanted)
    });
    match found {
        Some(share) => Ok(share.id),
        None => bail!("the session is not shared with them: see `tidegate share ls`"),
    }
}
