//! `keys`.

use std::process::ExitCode;

use serde_json::json;
use tidegate_client::{KeyPage, MadeKey};
use tidegate_model::{NewApiKey, OrgId};

use crate::{
    args::{KeyCreateArgs, KeyListArgs, KeyRotateArgs, KeyVerb, from_now},
    context::Context,
    output,
};

/// Most keys that are listed at once.
const MOST: usize = 100_000;

pub(super) async fn keys(context: &Context, verb: KeyVerb) -> anyhow::Result<ExitCode> {
    match verb {
        KeyVerb::List(words) => list(context, words).await?,
        KeyVerb::Create(words) => create(context, words).await?,
        KeyVerb::Rotate(words) => rotate(context, words).await?,
        KeyVerb::Revoke { id } => {
            let key = context.client.revoke_key(id).await?;
            context.output.answer(&key, || format!("{id} {} is revoked", output::plain(&key.label)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context, words: KeyListArgs) -> anyhow::Result<()> {
    let org = organization(context).await?;
    let mut page = context.client.keys(org, 100, None).await?;
    while words.all && page.keys.len() < MOST {
        let Some(cursor) = page.next_cursor.take() else { break };
        let KeyPage { keys, next_cursor, .. } = context.client.keys(org, 100, Some(&cursor)).await?;
        // A cursor that leads nowhere must not be followed for ever.
        if keys.is_empty() {
            break;
        }
        page.keys.extend(keys);
        page.next_cursor = next_cursor;
    }
    context.output.answer(&page, || output::keys(&page.keys))?;
    if page.next_cursor.is_some() {
        let about = if page.total_is_exact { "" } else { "more than " };
        context.output.note(&format!("{} of {about}{}; --all shows all", page.keys.len(), page.total));
    }
    Ok(())
}

async fn create(context: &Context, words: KeyCreateArgs) -> anyhow::Result<()> {
    let org = organization(context).await?;
    let new = NewApiKey { label: words.label, scopes: words.scopes, expires_at: words.expires.map(from_now) };
    show(context, &context.client.create_key(org, &new).await?)
}

async fn rotate(context: &Context, words: KeyRotateArgs) -> anyhow::Result<()> {
    show(context, &context.client.rotate_key(words.id, words.expires.map(from_now)).await?)
}

/// Shows the secret, alone on standard output so that it can be kept in a file.
fn show(context: &Context, made: &MadeKey) -> anyhow::Result<()> {
    let id = made.key.id;
    let Some(plaintext) = &made.plaintext else {
        anyhow::bail!(
            "key {id} was made and its secret was lost on the way: revoke it with `tidegate keys revoke {id}` and make another"
        );
    };
    context.output.note(&format!("key {id}; it is shown this once:"));
    let answer = json!({"key": made.key, "plaintext": plaintext.expose()});
    context.output.answer(&answer, || output::plain(plaintext.expose()))
}

async fn organization(context: &Context) -> anyhow::Result<OrgId> {
    Ok(context.client.me().await?.org_id)
}
