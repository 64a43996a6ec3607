//! Typed raw SQL that is prepared once per connection.
//!
//! `diesel::sql_query` prepares its text anew at each call, a round trip on every hot statement. This is the same
//! idea, a fixed text with typed binds, marked as what it is: safe to cache.

use std::marker::PhantomData;

use diesel::{
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    result::QueryResult,
    serialize::ToSql,
    sql_types::{HasSqlType, SingleValue},
};

/// One bound value.
trait Bind: Send + Sync {
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()>;
}

struct Bound<St, V>(V, PhantomData<fn() -> St>);

impl<St, V> Bind for Bound<St, V>
where
    V: ToSql<St, Pg> + Send + Sync,
    Pg: HasSqlType<St>,
    St: SingleValue,
{
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param::<St, V>(&self.0)
    }
}

/// A fixed text with a `?` for each bound value, in order. `St` is the tuple of its columns' types.
pub(crate) struct Statement<St> {
    sql: &'static str,
    binds: Vec<Box<dyn Bind>>,
    columns: PhantomData<fn() -> St>,
}

/// A statement whose rows have columns of the types `St`, `()` for none.
pub(crate) fn statement<St>(sql: &'static str) -> Statement<St> {
    Statement { sql, binds: Vec::new(), columns: PhantomData }
}

impl<St> Statement<St> {
    /// The value of the next `?`.
    pub(crate) fn bind<T, V>(mut self, value: V) -> Self
    where
        V: ToSql<T, Pg> + Send + Sync + 'static,
        Pg: HasSqlType<T>,
        T: SingleValue + 'static,
    {
        self.binds.push(Box::new(Bound::<T, V>(value, PhantomData)));
        self
    }
}

impl<St> QueryFragment<Pg> for Statement<St> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut binds = self.binds.iter();
        for (index, text) in self.sql.split('?').enumerate() {
            if index > 0
                && let Some(bind) = binds.next()
            {
                bind.push(&mut out)?;
            }
            out.push_sql(text);
        }
        Ok(())
    }
}

impl<St> QueryId for Statement<St> {
    type QueryId = ();
    // The text itself is the key of the statement cache.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<St> Query for Statement<St> {
    type SqlType = St;
}
