//! `source` and `pipe`.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;
use tidegate_client::{Client, GrantTo, NewPipe, PipeChange, SourcePage};
use tidegate_model::{Handle, SourceGrant, SourceGrantId, SourceRight};

use super::people::MOST;
use crate::{
    args::{At, PipeVerb, RevokeArgs, SourceVerb, Whom},
    context::Context,
    output::{self, plain},
};

pub(super) async fn source(context: &Context, verb: SourceVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        SourceVerb::Ls { all } => {
            let page = if all { self::all(client).await? } else { client.sources(None).await? };
            out.answer(&page, || output::sources(&page.sources))?;
            if page.next_cursor.is_some() {
                out.note(&format!("{} of {}; --all shows all", page.sources.len(), page.total));
            }
        }
        SourceVerb::Create { source, kind } => {
            let made = client.create_source(&source.handle, kind).await?;
            out.answer(&made, || format!("{} is yours, for anybody to send to", made.handle))?;
        }
        SourceVerb::Show(words) => {
            let (found, list) = (client.source(&words.handle).await?, client.pipes(&words.handle).await?);
            let shown = json!({"source": found, "pipes": list.pipes});
            out.answer(&shown, || output::source(&found, &list.pipes))?;
        }
        SourceVerb::Rm(words) => {
            client.delete_source(&words.handle).await?;
            out.answer(&json!({"deleted": words.handle}), || format!("{} has ended", words.handle))?;
        }
        SourceVerb::Grant(words) => {
            let (handle, to) = (words.source.handle, to(words.to)?);
            let given = client.grant_source(&handle, &to, words.right).await?;
            out.answer(&given, || output::grant(handle.as_str(), &given))?;
        }
        SourceVerb::Revoke(words) => {
            let id = meant(client, &words).await?;
            client.revoke_source_grant(&words.source.handle, id).await?;
            out.answer(&json!({"revoked": id}), || format!("grant {id} has ended"))?;
        }
        SourceVerb::Grants(words) => {
            let list = client.source_grants(&words.handle).await?;
            out.answer(&list, || output::grants(&list.grants))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn pipe(context: &Context, verb: PipeVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        PipeVerb::Ls(words) => {
            let list = client.pipes(&words.handle).await?;
            out.answer(&list, || output::pipes(&list.pipes))?;
        }
        PipeVerb::Create(words) => {
            let At { handle, name } = words.pipe;
            let new = NewPipe {
                name,
                ttl_seconds: words.ttl,
                max_msgs: words.max_msgs,
                max_bytes: words.max_bytes,
            };
            let made = client.create_pipe(&handle, &new).await?;
            out.answer(&made, || output::pipe(handle.as_str(), &made))?;
        }
        PipeVerb::Set(words) => {
            let At { handle, name } = words.pipe;
            let change = PipeChange {
                ttl_seconds: words.what.ttl.map(|kept| kept.0),
                max_msgs: words.what.max_msgs.map(|kept| kept.0),
                max_bytes: words.what.max_bytes.map(|kept| kept.0),
            };
            let changed = client.update_pipe(&handle, &name, &change).await?;
            out.answer(&changed, || output::pipe(handle.as_str(), &changed))?;
        }
        PipeVerb::Rm { pipe: At { handle, name } } => {
            client.delete_pipe(&handle, &name).await?;
            let text = || format!("{handle}/{} has ended", plain(&name));
            out.answer(&json!({"deleted": {"handle": handle, "pipe": name}}), text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Names of groups never have the form of an id.
fn to(words: Whom) -> anyhow::Result<GrantTo> {
    Ok(match words {
        Whom { everyone: true, .. } => GrantTo::Everyone,
        Whom { user: Some(name), .. } => GrantTo::Username(name),
        Whom { group: Some(text), .. } => match text.parse() {
            Ok(id) => GrantTo::GroupId(id),
            Err(_) => GrantTo::Group(text),
        },
        Whom { .. } => bail!("say to whom: --user USERNAME, --group GROUP or --everyone"),
    })
}

/// The grant that is meant.
async fn meant(client: &Client, words: &RevokeArgs) -> anyhow::Result<SourceGrantId> {
    let Whom { user, group, everyone } = &words.of;
    let named = user.is_some() || group.is_some() || *everyone;
    let Ok(right) = words.grant.parse::<SourceRight>() else {
        return match words.grant.parse() {
            Ok(id) if !named => Ok(id),
            Ok(_) => bail!("a grant's id says whose it is: leave --user, --group and --everyone out"),
            Err(_) => bail!(
                "`{}` is neither read, write or type nor a grant's id: see `tidegate source grants {}`",
                plain(&words.grant),
                words.source.handle
            ),
        };
    };
    if !named {
        bail!("say whose right it is: --user USERNAME, --group GROUP or --everyone");
    }
    let fits = |grant: &SourceGrant| {
        let same = |name: &Option<String>, wanted: &Option<String>| {
            name.as_ref().zip(wanted.as_ref()).is_some_and(|(name, wanted)| name.eq_ignore_ascii_case(wanted))
        };
        let id = group.as_ref().and_then(|text| text.parse().ok());
        grant.right == right
            && (grant.everyone == *everyone)
            && (*everyone
                || same(&grant.user, user)
                || same(&grant.group, group)
                || (id.is_some() && grant.group_id == id))
    };
    let handle: &Handle = &words.source.handle;
    match client.source_grants(handle).await?.grants.iter().find(|grant| fits(grant)) {
        Some(grant) => Ok(grant.id),
        None => bail!("nobody like that may {right} {handle}: see `tidegate source grants {handle}`"),
    }
}

async fn all(client: &Client) -> anyhow::Result<SourcePage> {
    let mut page = client.sources(None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.sources.len() < MOST) {
        let next = client.sources(Some(&cursor)).await?;
        page.sources.extend(next.sources);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}
