//! Ratings: one a user and entry. Their sums are kept by triggers, in the same transaction.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, SmallInt, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use std::collections::BTreeMap;
use tidegate_model::{
    CatalogPluginId, CatalogTemplateId, PluginRating, PluginRatingId, RateRequest, Rating, TemplateRating,
    TemplateRatingId, UserId,
};

use crate::{Error, Result, UserTx, statement::statement};

/// A rating and its place in the list.
#[derive(Debug, Clone)]
pub struct PlacedRating<T> {
    /// The rating.
    pub rating: T,
    /// When it was changed last, and its number.
    pub place: (DateTime<Utc>, i64),
}

type Columns = (BigInt, BigInt, Uuid, SmallInt, Text, Timestamptz, Timestamptz);
type Row = (i64, i64, UserId, i16, String, DateTime<Utc>, DateTime<Utc>);

/// The statements of one kind of entry, whose table and column are named.
macro_rules! ratings {
    ($table:literal, $column:literal, $constraint:literal) => {
        Statements {
            put: concat!(
                "INSERT INTO ",
                $table,
                " (",
                $column,
                ", user_id, rating, review, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)
                 ON CONFLICT ON CONSTRAINT ",
                $constraint,
                " DO UPDATE SET rating = excluded.rating, review = excluded.review,
                    updated_at = excluded.updated_at
                 RETURNING id, ",
                $column,
                ", user_id, rating, review, created_at, updated_at"
            ),
            delete: concat!("DELETE FROM ", $table, " WHERE ", $column, " = ? AND user_id = ?"),
            list: concat!(
                "SELECT id, ",
                $column,
                ", user_id, rating, review, created_at, updated_at FROM ",
                $table,
                " WHERE ",
                $column,
                " = ? AND (? OR (updated_at, id) < (?, ?)) ORDER BY updated_at DESC, id DESC LIMIT ?"
            ),
            count: concat!(
                "SELECT count(*) FROM (SELECT 1 FROM ",
                $table,
                " WHERE ",
                $column,
                " = ? LIMIT 10001) r"
            ),
        }
    };
}

struct Statements {
    put: &'static str,
    delete: &'static str,
    list: &'static str,
    count: &'static str,
}

const OF_TEMPLATES: Statements = ratings!("template_ratings", "template_id", "template_ratings_user_key");
const OF_PLUGINS: Statements = ratings!("plugin_ratings", "plugin_id", "plugin_ratings_user_key");

impl Statements {
    async fn put(
        &self,
        tx: &mut UserTx,
        entry: i64,
        request: RateRequest,
        now: DateTime<Utc>,
    ) -> Result<Row> {
        let user = tx.user_id;
        let rows: Vec<Row> = statement::<Columns>(self.put)
            .bind::<BigInt, _>(entry)
            .bind::<Uuid, _>(user)
            .bind::<SmallInt, _>(i16::from(request.rating))
            .bind::<Text, _>(request.review)
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now)
            .load(tx.conn()?)
            .await?;
        rows.into_iter().next().ok_or_else(|| Error::Internal("an upsert returned no row".into()))
    }

    async fn delete(&self, tx: &mut UserTx, entry: i64) -> Result<bool> {
        let user = tx.user_id;
        let gone = statement::<()>(self.delete).bind::<BigInt, _>(entry).bind::<Uuid, _>(user);
        Ok(gone.execute(tx.conn()?).await? == 1)
    }

    async fn list(
        &self,
        tx: &mut UserTx,
        entry: i64,
        after: Option<(DateTime<Utc>, i64)>,
        limit: i64,
    ) -> Result<(Vec<Row>, BTreeMap<UserId, String>, i64)> {
        let (at, id) = after.unwrap_or((DateTime::UNIX_EPOCH, 0));
        let conn = tx.conn()?;
        let rows: Vec<Row> = statement::<Columns>(self.list)
            .bind::<BigInt, _>(entry)
            .bind::<Bool, _>(after.is_none())
            .bind::<Timestamptz, _>(at)
            .bind::<BigInt, _>(id)
            .bind::<BigInt, _>(limit)
            .load(conn)
            .await?;
        let total: Vec<i64> = statement::<BigInt>(self.count).bind::<BigInt, _>(entry).load(conn).await?;
        let wanted: Vec<UserId> = rows.iter().map(|row| row.2).collect();
        let names: Vec<(UserId, String)> =
            statement::<(Uuid, Text)>("SELECT user_id, username FROM catalog_raters(?)")
                .bind::<Array<Uuid>, _>(wanted)
                .load(conn)
                .await?;
        Ok((rows, names.into_iter().collect(), total.into_iter().next().unwrap_or(0)))
    }
}

/// What a row says, with who said it where that may be known.
fn said(row: Row, user: Option<(UserId, String)>) -> Result<Rating> {
    let (_, _, _, rating, review, created_at, updated_at) = row;
    let (user_id, user) = user.unzip();
    let rating = u8::try_from(rating).map_err(|error| Error::corrupt("rating", error))?;
    Ok(Rating { user_id, user, rating, review, created_at, updated_at })
}

fn placed<T>(
    rows: Vec<Row>,
    names: &BTreeMap<UserId, String>,
    make: impl Fn(i64, i64, Rating) -> T,
) -> Result<Vec<PlacedRating<T>>> {
    let place = |row: Row| {
        let (id, entry, writer, at) = (row.0, row.1, row.2, row.6);
        let known = names.get(&writer).map(|name| (writer, name.clone()));
        Ok(PlacedRating { rating: make(id, entry, said(row, known)?), place: (at, id) })
    };
    rows.into_iter().map(place).collect()
}

fn of_template(id: i64, template: i64, said: Rating) -> TemplateRating {
    let (id, template_id) = (TemplateRatingId::from_number(id), CatalogTemplateId::from_number(template));
    TemplateRating { id, template_id, said }
}

fn of_plugin(id: i64, plugin: i64, said: Rating) -> PluginRating {
    let (id, plugin_id) = (PluginRatingId::from_number(id), CatalogPluginId::from_number(plugin));
    PluginRating { id, plugin_id, said }
}

/// One's own row is known to be one's own.
fn mine<T>(row: Row, name: &str, make: impl Fn(i64, i64, Rating) -> T) -> Result<T> {
    let (id, entry, writer) = (row.0, row.1, row.2);
    Ok(make(id, entry, said(row, Some((writer, name.to_owned())))?))
}

/// Rates a template, or says something else of it than before.
pub async fn rate_template(
    tx: &mut UserTx,
    (template, name): (CatalogTemplateId, &str),
    request: RateRequest,
    now: DateTime<Utc>,
) -> Result<TemplateRating> {
    mine(OF_TEMPLATES.put(tx, template.as_number(), request, now).await?, name, of_template)
}

/// Rates a plugin, or says something else of it than before.
pub async fn rate_plugin(
    tx: &mut UserTx,
    (plugin, name): (CatalogPluginId, &str),
    request: RateRequest,
    now: DateTime<Utc>,
) -> Result<PluginRating> {
    mine(OF_PLUGINS.put(tx, plugin.as_number(), request, now).await?, name, of_plugin)
}

/// Takes one's rating of a template back; false where there was none.
pub async fn unrate_template(tx: &mut UserTx, template: CatalogTemplateId) -> Result<bool> {
    OF_TEMPLATES.delete(tx, template.as_number()).await
}

/// Takes one's rating of a plugin back; false where there was none.
pub async fn unrate_plugin(tx: &mut UserTx, plugin: CatalogPluginId) -> Result<bool> {
    OF_PLUGINS.delete(tx, plugin.as_number()).await
}

/// Ratings of a template, the last change first, after the one of that place; with how many there are. Who wrote them is
/// known of people one shares an organization with.
pub async fn template_ratings(
    tx: &mut UserTx,
    template: CatalogTemplateId,
    after: Option<(DateTime<Utc>, i64)>,
    limit: i64,
) -> Result<(Vec<PlacedRating<TemplateRating>>, i64)> {
    let (rows, names, total) = OF_TEMPLATES.list(tx, template.as_number(), after, limit).await?;
    Ok((placed(rows, &names, of_template)?, total))
}

/// Ratings of a plugin, the last change first, after the one of that place; with how many there are. Who wrote them is
/// known of people one shares an organization with.
pub async fn plugin_ratings(
    tx: &mut UserTx,
    plugin: CatalogPluginId,
    after: Option<(DateTime<Utc>, i64)>,
    limit: i64,
) -> Result<(Vec<PlacedRating<PluginRating>>, i64)> {
    let (rows, names, total) = OF_PLUGINS.list(tx, plugin.as_number(), after, limit).await?;
    Ok((placed(rows, &names, of_plugin)?, total))
}
