//! The catalog for people.

use serde_json::{Map, Value};
use tidegate_model::{CatalogPlugin, CatalogTemplate, PluginStats, PluginVersion, Rating, declared_options};

use super::{plain, table, time};

/// One line of a text, and not too much of it.
fn short(text: &str) -> String {
    let line: String = plain(text).lines().next().unwrap_or_default().chars().take(61).collect();
    if line.chars().count() > 60 { format!("{}…", line.chars().take(59).collect::<String>()) } else { line }
}

fn stars(mean: f64, count: i64) -> String {
    if count == 0 { "-".to_owned() } else { format!("{mean:.1} ({count})") }
}

/// A table of templates.
pub(crate) fn templates(templates: &[CatalogTemplate]) -> String {
    let mut table = table(["ID", "NAME", "KIND", "CATEGORY", "RATING", "INSTALLED", "DESCRIPTION"]);
    for one in templates {
        table.add_row([
            one.id.to_string(),
            plain(&one.name),
            one.app_type.to_string(),
            short(&one.category),
            stars(one.avg_rating, one.rating_count),
            one.install_count.to_string(),
            short(&one.description),
        ]);
    }
    table.trim_fmt()
}

/// A table of plugins.
pub(crate) fn plugins(plugins: &[CatalogPlugin]) -> String {
    let mut table =
        table(["ID", "NAME", "VERSION", "KIND", "CATEGORY", "RATING", "INSTALLED", "DESCRIPTION"]);
    for one in plugins {
        table.add_row([
            one.id.to_string(),
            plain(&one.name),
            one.version.to_string(),
            one.plugin_type.to_string(),
            short(&one.category),
            stars(one.avg_rating, one.rating_count),
            one.install_count.to_string(),
            short(&one.description),
        ]);
    }
    table.trim_fmt()
}

/// Names with what stands behind them; what is empty is left out.
fn lines(pairs: &[(&str, String)]) -> String {
    let filled: Vec<String> = pairs
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| format!("{name:<12}{text}"))
        .collect();
    filled.join("\n")
}

/// A template, and what people think of it.
pub(crate) fn template(one: &CatalogTemplate, ratings: &[&Rating]) -> String {
    let platforms: Vec<&str> = one.platforms.iter().map(|platform| platform.as_str()).collect();
    let head = lines(&[
        ("template", format!("{} ({})", plain(&one.name), one.id)),
        ("called", short(&one.display_name)),
        ("kind", one.app_type.to_string()),
        ("category", short(&one.category)),
        ("tags", short(&one.tags.join(", "))),
        ("runs on", platforms.join(", ")),
        ("image", one.manifest.image.as_deref().map(plain).unwrap_or_default()),
        ("from", short(&one.repository.name)),
        ("rating", stars(one.avg_rating, one.rating_count)),
        ("installed", one.install_count.to_string()),
        ("changed", time(one.updated_at)),
    ]);
    let options = options(&one.manifest.options);
    let head = if options.is_empty() { head } else { format!("{head}\n{options}") };
    whole(head, &one.description, ratings)
}

/// What an application of a template may set, a line each: its kind, what it is without, and what it is for.
fn options(schema: &Map<String, Value>) -> String {
    let properties = declared_options(schema);
    let required = schema.get("required").and_then(Value::as_array);
    let line = |(name, option): (&String, &Value)| {
        let text = |key: &str| option.get(key).and_then(Value::as_str).map(short).unwrap_or_default();
        let needed = required.is_some_and(|names| names.iter().any(|one| one.as_str() == Some(name)));
        let without = match option.get("default") {
            Some(default) => format!(" [{}]", short(&default.to_string())),
            None if needed => " (needed)".to_owned(),
            None => String::new(),
        };
        let said = if text("title").is_empty() { text("description") } else { text("title") };
        format!("option      {} {}{without}  {said}", short(name), text("type")).trim_end().to_owned()
    };
    properties.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A plugin with its versions, and what people think of it.
pub(crate) fn plugin(
    one: &CatalogPlugin,
    versions: &[PluginVersion],
    stats: &PluginStats,
    ratings: &[&Rating],
) -> String {
    let older: Vec<String> = versions.iter().map(|one| one.version.to_string()).collect();
    let head = lines(&[
        ("plugin", format!("{} ({})", plain(&one.name), one.id)),
        ("called", short(&one.display_name)),
        ("kind", one.plugin_type.to_string()),
        ("version", one.version.to_string()),
        ("versions", older.join(", ")),
        ("category", short(&one.category)),
        ("tags", short(&one.tags.join(", "))),
        ("by", short(&one.manifest.author)),
        ("asks for", short(&one.manifest.permissions.join(", "))),
        ("from", short(&one.repository.name)),
        ("rating", stars(one.avg_rating, one.rating_count)),
        ("installed", one.install_count.to_string()),
        ("looked at", stats.view_count.to_string()),
        ("changed", time(one.updated_at)),
    ]);
    let mut text = whole(head, &one.description, ratings);
    let changes = changes(versions);
    if !changes.is_empty() {
        text.push_str("\n\n");
        text.push_str(&changes);
    }
    text
}

/// What versions say that they changed, those that say something.
pub(crate) fn changes<'a>(versions: impl IntoIterator<Item = &'a PluginVersion>) -> String {
    let said = versions.into_iter().filter(|one| !one.changelog.trim().is_empty());
    said.map(|one| format!("{}\n{}", one.version, plain(one.changelog.trim())))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn whole(mut text: String, description: &str, ratings: &[&Rating]) -> String {
    if !description.is_empty() {
        text.push_str("\n\n");
        text.push_str(&plain(description));
    }
    if !ratings.is_empty() {
        let mut table = table(["STARS", "WHO", "AT", "REVIEW"]);
        for rating in ratings {
            table.add_row([
                rating.rating.to_string(),
                rating.user.as_deref().map_or_else(|| "-".to_owned(), plain),
                time(rating.updated_at),
                short(&rating.review),
            ]);
        }
        text.push_str("\n\n");
        text.push_str(&table.trim_fmt());
    }
    text
}
