//! `tokens`.

use std::process::ExitCode;

use tidegate_client::TokenPage;

use crate::{args::TokenVerb, context::Context, output};

/// Most tokens that are listed at once.
const MOST: usize = 100_000;

pub(super) async fn tokens(context: &Context, verb: TokenVerb) -> anyhow::Result<ExitCode> {
    match verb {
        TokenVerb::List { all } => list(context, all).await?,
        TokenVerb::Revoke { ids } => {
            for id in ids {
                let token = context.client.revoke_bearer_token(id).await?;
                let name = || format!("{id} {} is revoked", output::plain(&token.client_name));
                context.output.answer(&token, name)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context, all: bool) -> anyhow::Result<()> {
    let mut page = context.client.bearer_tokens(None).await?;
    while all && page.tokens.len() < MOST {
        let Some(cursor) = page.next_cursor.take() else { break };
        let TokenPage { tokens, next_cursor, .. } = context.client.bearer_tokens(Some(&cursor)).await?;
        // A cursor that leads nowhere must not be followed for ever.
        if tokens.is_empty() {
            break;
        }
        page.tokens.extend(tokens);
        page.next_cursor = next_cursor;
    }
    context.output.answer(&page, || output::tokens(&page.tokens))?;
    if page.next_cursor.is_some() {
        context.output.note(&format!("{} of {}; --all shows all", page.tokens.len(), page.total));
    }
    Ok(())
}
