//! Looking through the catalog: words and parts of words, what is nearly the same, filters, orders, pages.
//!
//! Each order is a statement of its own, so that it can be answered from its index; the key of the last row is where the next
//! page begins. How well something fits is worked out for the 2 000 most popular ones that fit at all, and for what is called
//! exactly so: whoever looks for a word that everything has learns nothing from what comes after those.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz};
use diesel_async::RunQueryDsl;
use tidegate_model::CatalogSort;

use super::{
    CatalogTx, StoredPlugin, StoredTemplate,
    entry::{
        PluginColumns, PluginRow, TemplateColumns, TemplateRow, entry_columns, repository_columns,
        stored_plugin, stored_template,
    },
};
use crate::{
    Result,
    statement::{Statement, statement},
};

/// Entries that are counted exactly.
const MANY: i64 = 10_000;

/// What is looked for. Without anything, everything that is listed.
#[derive(Debug, Clone)]
pub struct Query {
    /// Words, or parts of them.
    pub text: Option<String>,
    /// In this category, in any case.
    pub category: Option<String>,
    /// With this tag, in any case.
    pub tag: Option<String>,
    /// A template's application type, or a plugin's type.
    pub kind: Option<&'static str>,
    /// In which order; relevance needs a text.
    pub sort: CatalogSort,
    /// After the entry of this key.
    pub after: Option<Key>,
    /// Entries at most.
    pub limit: i64,
}

/// Where an entry stands in an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key {
    /// How well it fits, how often it was installed, its mean rating, or when it came, by order.
    pub first: i64,
    /// How often it was installed, or rated, by order.
    pub second: i64,
    /// What it is called, by name alone.
    pub name: String,
    /// Its id.
    pub id: i64,
}

/// Entries in order with their keys, and how many there are on all pages.
#[derive(Debug, Clone)]
pub struct Found<T> {
    /// The entries.
    pub entries: Vec<(T, Key)>,
    /// How many there are, counted up to 10 001.
    pub total: i64,
}

/// What is listed, and what was asked for. Binds: those of `filtered`.
macro_rules! listed {
    ($kind:literal) => {
        concat!(
            "e.withdrawn_at IS NULL AND r.enabled AND r.synced_at IS NOT NULL AND r.removed_at IS NULL
             AND (?::text IS NULL OR lower(e.category) = lower(?)) AND (?::text IS NULL OR e.tags @> ARRAY[lower(?)])
             AND (?::text IS NULL OR e.",
            $kind,
            " = ?)
             AND (?::text IS NULL OR e.search @@ (to_tsquery('simple', ?) || plainto_tsquery('english', ?)) OR ? <% e.title)"
        )
    };
}

/// The page: of each entry its id and key, then what there is to see of it.
macro_rules! page {
    ($table:literal, $stats:literal, $stat:literal, $columns:expr, $inner:expr, $order:literal, $again:literal) => {
        concat!(
            "SELECT ",
            entry_columns!(),
            ", ",
            $columns,
            ", ",
            repository_columns!(),
            ", x.k1, x.k2, x.name FROM (",
            $inner,
            " ORDER BY ",
            $order,
            " LIMIT ?) x JOIN ",
            $table,
            " e ON e.id = x.id JOIN ",
            $stats,
            " s ON s.",
            $stat,
            " = x.id JOIN repositories r ON r.id = e.repository_id ORDER BY ",
            $again
        )
    };
}

/// All orders of one kind of entry.
macro_rules! statements {
    ($table:literal, $stats:literal, $stat:literal, $kind:literal, $columns:expr) => {
        Statements {
            relevance: page!($table, $stats, $stat, $columns, concat!(
                "SELECT * FROM (SELECT e.id, s.install_count AS k2, '' AS name,
                    (1000000 * (COALESCE(ts_rank(e.search, to_tsquery('simple', ?) || plainto_tsquery('english', ?)), 0) + word_similarity(?, e.title))
                     + CASE WHEN e.name = lower(?) OR e.sort_name = lower(?) THEN 3000000
                            WHEN starts_with(e.title, lower(?)) OR starts_with(e.sort_name, lower(?)) THEN 1000000 ELSE 0 END)::bigint AS k1
                 FROM (SELECT DISTINCT id FROM (
                    (SELECT e.id FROM ", $stats, " s JOIN ", $table, " e ON e.id = s.", $stat, " JOIN repositories r ON r.id = e.repository_id WHERE ",
                listed!($kind), " ORDER BY s.install_count DESC, s.", $stat, " DESC LIMIT 2000)
                    UNION ALL
                    (SELECT e.id FROM ", $table, " e JOIN repositories r ON r.id = e.repository_id WHERE ",
                listed!($kind), " AND (e.name = lower(?) OR e.sort_name = lower(?)) LIMIT 100)) either) c
                 JOIN ", $table, " e ON e.id = c.id JOIN ", $stats, " s ON s.", $stat, " = c.id OFFSET 0) y WHERE ? OR (k1, k2, id) < (?, ?, ?)"
            ), "k1 DESC, k2 DESC, id DESC", "x.k1 DESC, x.k2 DESC, x.id DESC"),
            popular: page!($table, $stats, $stat, $columns, concat!(
                "SELECT s.", $stat, " AS id, s.install_count AS k1, 0::bigint AS k2, '' AS name
                 FROM ", $stats, " s JOIN ", $table, " e ON e.id = s.", $stat, " JOIN repositories r ON r.id = e.repository_id WHERE ",
                listed!($kind), " AND (? OR (s.install_count, s.", $stat, ") < (?, ?))"
            ), "k1 DESC, id DESC", "x.k1 DESC, x.id DESC"),
            rating: page!($table, $stats, $stat, $columns, concat!(
                "SELECT s.", $stat, " AS id, s.rating_mean AS k1, s.rating_count AS k2, '' AS name
                 FROM ", $stats, " s JOIN ", $table, " e ON e.id = s.", $stat, " JOIN repositories r ON r.id = e.repository_id WHERE ",
                listed!($kind), " AND (? OR (s.rating_mean, s.rating_count, s.", $stat, ") < (?, ?, ?))"
            ), "k1 DESC, k2 DESC, id DESC", "x.k1 DESC, x.k2 DESC, x.id DESC"),
            newest: page!($table, $stats, $stat, $columns, concat!(
                "SELECT e.id, e.created_at, (extract(epoch FROM e.created_at) * 1000000)::bigint AS k1, 0::bigint AS k2, '' AS name
                 FROM ", $table, " e JOIN repositories r ON r.id = e.repository_id WHERE ",
                listed!($kind), " AND (? OR (e.created_at, e.id) < (?, ?))"
            ), "created_at DESC, id DESC", "x.created_at DESC, x.id DESC"),
            name: page!($table, $stats, $stat, $columns, concat!(
                "SELECT e.id, 0::bigint AS k1, 0::bigint AS k2, e.sort_name AS name
                 FROM ", $table, " e JOIN repositories r ON r.id = e.repository_id WHERE ",
                listed!($kind), " AND (? OR (e.sort_name, e.id) > (?, ?))"
            ), "name, id", "x.name, x.id"),
            count: concat!(
                "SELECT count(*) FROM (SELECT 1 FROM ", $table, " e JOIN repositories r ON r.id = e.repository_id WHERE ",
                listed!($kind), " LIMIT 10001) c"
            ),
        }
    };
}

struct Statements {
    relevance: &'static str,
    popular: &'static str,
    rating: &'static str,
    newest: &'static str,
    name: &'static str,
    count: &'static str,
}

const OF_TEMPLATES: Statements =
    statements!("catalog_templates", "template_stats", "template_id", "app_type", "e.app_type, e.platforms");
const OF_PLUGINS: Statements = statements!(
    "catalog_plugins",
    "plugin_stats",
    "plugin_id",
    "plugin_type",
    "e.version, e.plugin_type, e.package"
);

impl Query {
    /// The words that an entry has to have all of, each at least the beginning of one of its own. Letters and digits alone
    /// come through, so that nothing in it means anything to PostgreSQL.
    fn words(&self) -> Option<String> {
        let text = self.text.as_ref()?;
        let words = text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
        let words: Vec<String> = words.take(16).map(|word| format!("'{word}':*")).collect();
        (!words.is_empty()).then(|| words.join(" & "))
    }

    /// Binds what `listed` compares with.
    fn filtered<St>(&self, statement: Statement<St>) -> Statement<St> {
        let kind = self.kind.map(str::to_owned);
        statement
            .bind::<Nullable<Text>, _>(self.category.clone())
            .bind::<Nullable<Text>, _>(self.category.clone())
            .bind::<Nullable<Text>, _>(self.tag.clone())
            .bind::<Nullable<Text>, _>(self.tag.clone())
            .bind::<Nullable<Text>, _>(kind.clone())
            .bind::<Nullable<Text>, _>(kind)
            .bind::<Nullable<Text>, _>(self.text.clone())
            .bind::<Nullable<Text>, _>(self.words())
            .bind::<Nullable<Text>, _>(self.text.clone())
            .bind::<Nullable<Text>, _>(self.text.clone())
    }

    /// The page in the order that was asked for, with its binds.
    fn page<St>(&self, of: &Statements) -> Statement<St> {
        let first = self.after.is_none();
        let Key { first: one, second: two, name, id } = self.after.clone().unwrap_or_default();
        let bound = match self.sort {
            CatalogSort::Relevance => {
                let text = &self.text;
                let ranked = statement::<St>(of.relevance)
                    .bind::<Nullable<Text>, _>(self.words())
                    .bind::<Nullable<Text>, _>(text.clone())
                    .bind::<Nullable<Text>, _>(text.clone())
                    .bind::<Nullable<Text>, _>(text.clone())
                    .bind::<Nullable<Text>, _>(text.clone())
                    .bind::<Nullable<Text>, _>(text.clone())
                    .bind::<Nullable<Text>, _>(text.clone());
                self.filtered(self.filtered(ranked))
                    .bind::<Nullable<Text>, _>(text.clone())
                    .bind::<Nullable<Text>, _>(text.clone())
                    .bind::<Bool, _>(first)
                    .bind::<BigInt, _>(one)
                    .bind::<BigInt, _>(two)
                    .bind::<BigInt, _>(id)
            }
            CatalogSort::Popular => self
                .filtered(statement::<St>(of.popular))
                .bind::<Bool, _>(first)
                .bind::<BigInt, _>(one)
                .bind::<BigInt, _>(id),
            CatalogSort::Rating => self
                .filtered(statement::<St>(of.rating))
                .bind::<Bool, _>(first)
                .bind::<BigInt, _>(one)
                .bind::<BigInt, _>(two)
                .bind::<BigInt, _>(id),
            CatalogSort::Newest => self
                .filtered(statement::<St>(of.newest))
                .bind::<Bool, _>(first)
                .bind::<Timestamptz, _>(DateTime::<Utc>::from_timestamp_micros(one).unwrap_or_default())
                .bind::<BigInt, _>(id),
            CatalogSort::Name => self
                .filtered(statement::<St>(of.name))
                .bind::<Bool, _>(first)
                .bind::<Text, _>(name)
                .bind::<BigInt, _>(id),
        };
        bound.bind::<BigInt, _>(self.limit)
    }
}

/// Each look is planned for what it looks for: a plan for everything would read everything. And a word with a slip in it
/// shares about half of its parts with the right one.
async fn plan_each(conn: &mut diesel_async::AsyncPgConnection) -> Result<()> {
    statement::<(Text, Text)>(
        "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('pg_trgm.word_similarity_threshold', '0.45', true)",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What most entries have is found by walking from the most popular one down, which ends soon. The planner, who takes a word
/// for rarer than it is, would read and sort all of them; and it is told so only where many were counted.
async fn plan_walk(conn: &mut diesel_async::AsyncPgConnection, query: &Query, total: i64) -> Result<()> {
    if query.sort != CatalogSort::Relevance || total <= MANY {
        return Ok(());
    }
    statement::<(Text, Text, Text, Text)>(
        "SELECT set_config('enable_sort', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('jit', 'off', true),
                set_config('max_parallel_workers_per_gather', '0', true)",
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn count(conn: &mut diesel_async::AsyncPgConnection, query: &Query, of: &Statements) -> Result<i64> {
    let total: Vec<i64> = query.filtered(statement::<BigInt>(of.count)).load(conn).await?;
    Ok(total.into_iter().next().unwrap_or(0))
}

/// Templates that are listed and fit.
pub async fn search_templates(tx: &mut impl CatalogTx, query: &Query) -> Result<Found<StoredTemplate>> {
    let conn = tx.connected()?;
    plan_each(conn).await?;
    let total = count(conn, query, &OF_TEMPLATES).await?;
    plan_walk(conn, query, total).await?;
    let page = query.page::<(TemplateColumns, BigInt, BigInt, Text)>(&OF_TEMPLATES);
    let rows: Vec<(TemplateRow, i64, i64, String)> = page.load(conn).await?;
    let keyed = |(row, first, second, name): (TemplateRow, i64, i64, String)| {
        let id = row.0.0;
        Ok((stored_template(row)?, Key { first, second, name, id }))
    };
    let entries = rows.into_iter().map(keyed).collect::<Result<Vec<_>>>()?;
    Ok(Found { entries, total })
}

/// Plugins that are listed and fit.
pub async fn search_plugins(tx: &mut impl CatalogTx, query: &Query) -> Result<Found<StoredPlugin>> {
    let conn = tx.connected()?;
    plan_each(conn).await?;
    let total = count(conn, query, &OF_PLUGINS).await?;
    plan_walk(conn, query, total).await?;
    let page = query.page::<(PluginColumns, BigInt, BigInt, Text)>(&OF_PLUGINS);
    let rows: Vec<(PluginRow, i64, i64, String)> = page.load(conn).await?;
    let keyed = |(row, first, second, name): (PluginRow, i64, i64, String)| {
        let id = row.0.0;
        Ok((stored_plugin(row)?, Key { first, second, name, id }))
    };
    let entries = rows.into_iter().map(keyed).collect::<Result<Vec<_>>>()?;
    Ok(Found { entries, total })
}
