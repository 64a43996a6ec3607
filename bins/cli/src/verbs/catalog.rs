//! `catalog`.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use serde_json::json;
use tidegate_client::{CatalogQuery, Client, PluginPage, TemplatePage};
use tidegate_model::{CatalogPlugin, CatalogPluginId, CatalogTemplate, CatalogTemplateId, RateRequest};

use crate::{
    args::{CatalogEntry, CatalogSearchArgs, CatalogVerb, RateArgs},
    context::Context,
    output::catalog as output,
};

/// Most entries that are listed at once.
const MOST: usize = 100_000;

pub(super) async fn catalog(context: &Context, verb: CatalogVerb) -> anyhow::Result<ExitCode> {
    match verb {
        CatalogVerb::Search(words) if words.plugins => plugins(context, words).await?,
        CatalogVerb::Search(words) => templates(context, words).await?,
        CatalogVerb::Show(what) => show(context, what).await?,
        CatalogVerb::Rate(words) => rate(context, words).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn query(words: &CatalogSearchArgs) -> CatalogQuery {
    let text = words.words.join(" ");
    CatalogQuery {
        search: (!text.is_empty()).then_some(text),
        category: words.category.clone(),
        tag: words.tag.clone(),
        sort: words.sort,
        ..CatalogQuery::default()
    }
}

async fn templates(context: &Context, words: CatalogSearchArgs) -> anyhow::Result<()> {
    let mut query = query(&words);
    let mut page = context.client.catalog_templates(&query, words.app_type).await?;
    while words.all && page.templates.len() < MOST {
        query.cursor = page.next_cursor.take();
        if query.cursor.is_none() {
            break;
        }
        let TemplatePage { templates, next_cursor, .. } =
            context.client.catalog_templates(&query, words.app_type).await?;
        // A cursor that leads nowhere must not be followed for ever.
        if templates.is_empty() {
            break;
        }
        page.templates.extend(templates);
        page.next_cursor = next_cursor;
    }
    context.output.answer(&page, || output::templates(&page.templates))?;
    note(context, page.next_cursor.is_some(), page.templates.len(), page.total);
    Ok(())
}

async fn plugins(context: &Context, words: CatalogSearchArgs) -> anyhow::Result<()> {
    let mut query = query(&words);
    let mut page = context.client.catalog_plugins(&query, words.plugin_type).await?;
    while words.all && page.plugins.len() < MOST {
        query.cursor = page.next_cursor.take();
        if query.cursor.is_none() {
            break;
        }
        let PluginPage { plugins, next_cursor, .. } =
            context.client.catalog_plugins(&query, words.plugin_type).await?;
        if plugins.is_empty() {
            break;
        }
        page.plugins.extend(plugins);
        page.next_cursor = next_cursor;
    }
    context.output.answer(&page, || output::plugins(&page.plugins))?;
    note(context, page.next_cursor.is_some(), page.plugins.len(), page.total);
    Ok(())
}

fn note(context: &Context, more: bool, shown: usize, total: u64) {
    if more {
        context.output.note(&format!("{shown} of {total}; --all shows all"));
    } else if shown == 0 {
        context.output.note("nothing fits");
    }
}

async fn show(context: &Context, what: CatalogEntry) -> anyhow::Result<()> {
    let client = &context.client;
    if what.plugin {
        let plugin = client.catalog_plugin(find_plugin(client, &what.entry).await?).await?;
        let ratings = client.plugin_ratings(plugin.id, None).await?;
        let versions = client.catalog_plugin_versions(plugin.id).await?.versions;
        let stats = client.catalog_plugin_stats(plugin.id).await?;
        let said: Vec<_> = ratings.ratings.iter().map(|rating| &rating.said).collect();
        let value =
            json!({"plugin": plugin, "versions": versions, "stats": stats, "ratings": ratings.ratings});
        return context.output.answer(&value, || output::plugin(&plugin, &versions, &stats, &said));
    }
    let template = client.catalog_template(find_template(client, &what.entry).await?).await?;
    let ratings = client.template_ratings(template.id, None).await?;
    let said: Vec<_> = ratings.ratings.iter().map(|rating| &rating.said).collect();
    let value = json!({"template": template, "ratings": ratings.ratings});
    context.output.answer(&value, || output::template(&template, &said))
}

async fn rate(context: &Context, words: RateArgs) -> anyhow::Result<()> {
    let (client, RateArgs { what, stars, review, remove }) = (&context.client, words);
    let entry = &what.entry;
    let gone = || format!("your rating of {entry} is taken back");
    let Some(rating) = stars.filter(|_| !remove) else {
        if what.plugin {
            client.unrate_plugin(find_plugin(client, entry).await?).await?;
        } else {
            client.unrate_template(find_template(client, entry).await?).await?;
        }
        return context.output.answer(&json!({"removed": true}), gone);
    };
    let request = RateRequest { rating, review: review.unwrap_or_default() };
    let rated = || format!("{entry} has {rating} of 5 stars from you");
    if what.plugin {
        let made = client.rate_plugin(find_plugin(client, entry).await?, &request).await?;
        return context.output.answer(&made, rated);
    }
    let made = client.rate_template(find_template(client, entry).await?, &request).await?;
    context.output.answer(&made, rated)
}

/// What of a kind is called so; its number is as good as its name.
pub(super) async fn find_template(client: &Client, entry: &str) -> anyhow::Result<CatalogTemplateId> {
    if let Ok(id) = entry.parse() {
        return Ok(id);
    }
    let query = CatalogQuery { search: Some(entry.to_owned()), ..CatalogQuery::default() };
    let found = client.catalog_templates(&query, None).await?.templates;
    let of = |one: &CatalogTemplate| (one.id.to_string(), one.repository.name.clone());
    let called: Vec<_> = found.iter().filter(|one| one.name == entry).collect();
    only(entry, "template", &called.iter().map(|one| of(one)).collect::<Vec<_>>())?;
    called.first().map(|one| one.id).ok_or_else(|| anyhow!("no template is called {entry}"))
}

pub(super) async fn find_plugin(client: &Client, entry: &str) -> anyhow::Result<CatalogPluginId> {
    if let Ok(id) = entry.parse() {
        return Ok(id);
    }
    let query = CatalogQuery { search: Some(entry.to_owned()), ..CatalogQuery::default() };
    let found = client.catalog_plugins(&query, None).await?.plugins;
    let of = |one: &CatalogPlugin| (one.id.to_string(), one.repository.name.clone());
    let called: Vec<_> = found.iter().filter(|one| one.name == entry).collect();
    only(entry, "plugin", &called.iter().map(|one| of(one)).collect::<Vec<_>>())?;
    called.first().map(|one| one.id).ok_or_else(|| anyhow!("no plugin is called {entry}"))
}

/// Two repositories may have one of the same name.
fn only(entry: &str, kind: &str, called: &[(String, String)]) -> anyhow::Result<()> {
    match called {
        [] => bail!(
            "no {kind} of the catalog is called {entry}: `tidegate catalog search {entry}` shows what is near"
        ),
        [_] => Ok(()),
        several => {
            let named: Vec<String> = several.iter().map(|(id, of)| format!("{id} (from {of})")).collect();
            bail!("{entry} is the name of several {kind}s, say the number: {}", named.join(", "))
        }
    }
}
