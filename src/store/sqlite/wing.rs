//! How a connection to SQLite does what the algorithms ask.

use std::sync::Arc;

use sqlx::{
    Column, Row as _, Sqlite, SqliteConnection, SqlitePool, TypeInfo, ValueRef,
    error::DatabaseError,
    query, raw_sql,
    sqlite::{SqliteArguments, SqliteRow},
};
use tokio::{sync::Notify, task::AbortHandle};

use super::super::sql::{Meaning, Primitives, Row, Statement, Value, Wing, Work};

impl Wing for Sqlite {
    // A database in memory ends with its connection, and no answer comes from afar.
    const CLOSE_WHEN_LATE: bool = false;

    // One that only asks for the lock when it first writes fails where another has written since it
    // first read.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";

    const NOTIFY: Option<Statement> = None;

    fn meaning(error: &dyn DatabaseError) -> Meaning {
        let code = error.code().and_then(|code| code.parse::<u32>().ok());
        // The low byte is the primary result code: https://www.sqlite.org/rescode.html
        match code.map(|extended| extended & 0xff) {
            // BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN
            Some(5 | 6 | 7 | 8 | 10 | 13 | 14) => Meaning::Unavailable,
            _ => Meaning::Fault,
        }
    }

    fn listen(_: &SqlitePool, _: Arc<Notify>) -> Option<AbortHandle> {
        None
    }
}

impl Primitives for SqliteConnection {
    fn execute<'c>(
        &'c mut self,
        statement: &'c Statement,
        values: Vec<Value>,
        prepare: bool,
    ) -> Work<'c, u64> {
        Box::pin(async move {
            Ok(bound(statement, values, prepare).execute(self).await?.rows_affected())
        })
    }

    fn fetch<'c>(
        &'c mut self,
        statement: &'c Statement,
        values: Vec<Value>,
        prepare: bool,
    ) -> Work<'c, Vec<Row>> {
        Box::pin(async move {
            let rows = bound(statement, values, prepare).fetch_all(self).await?;
            rows.iter().map(row).collect()
        })
    }

    fn script(&mut self, text: &'static str) -> Work<'_, ()> {
        Box::pin(async move { raw_sql(text).execute(self).await.map(drop) })
    }
}

fn bound(
    statement: &Statement,
    values: Vec<Value>,
    prepare: bool,
) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
    let query = query(statement.sqlite).persistent(prepare);
    values.into_iter().fold(query, |query, value| match value {
        Value::Null => query.bind(None::<i64>),
        Value::Bool(truth) => query.bind(truth),
        Value::Integer(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
    })
}

fn row(row: &SqliteRow) -> sqlx::Result<Row> {
    let columns = row.columns().iter().map(|column| {
        let index = column.ordinal();
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        let kind = raw.type_info();
        Ok(match kind.name() {
            "INTEGER" => Value::Integer(row.try_get(index)?),
            "BLOB" => Value::Bytes(row.try_get(index)?),
            _ => Value::Text(row.try_get(index)?),
        })
    });
    columns.collect::<sqlx::Result<_>>().map(Row::new)
}
