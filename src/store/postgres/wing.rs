//! How a connection to PostgreSQL does what the algorithms ask.

use std::{sync::Arc, time::Duration};

use sqlx::{
    Column, Encode, PgConnection, PgPool, Postgres, Row as _, Type, TypeInfo, ValueRef,
    encode::IsNull,
    error::{BoxDynError, DatabaseError},
    postgres::{
        PgArgumentBuffer, PgArguments, PgConnectOptions, PgListener, PgPoolOptions, PgRow,
        PgTypeInfo, types::Oid,
    },
    query, raw_sql,
};
use tokio::{sync::Notify, task::AbortHandle, time::sleep};

use super::super::sql::{CHANNEL, Meaning, Primitives, Row, Statement, Value, Wing, Work};

/// After a connection that listened broke.
const RECONNECT: Duration = Duration::from_secs(1);

impl Wing for Postgres {
    // The answer may never come, and who takes the connection next would wait for it.
    const CLOSE_WHEN_LATE: bool = true;

    // Whatever the database's defaults are: a statement that waited for a lock sees what its holder
    // wrote.
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

    const BEGIN_BEHIND_POOLER: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
         SET LOCAL statement_timeout = '3500ms';
         SET LOCAL lock_timeout = '3s';
         SET LOCAL idle_in_transaction_session_timeout = '10s'";

    const NOTIFY: Option<Statement> = Some(Statement {
        sqlite: "",
        postgres: "SELECT pg_notify('tower_warden_revocations', '')",
    });

    fn meaning(error: &dyn DatabaseError) -> Meaning {
        let Some(code) = error.code() else { return Meaning::Fault };
        match &*code {
            // serialization_failure, deadlock_detected
            "40001" | "40P01" => Meaning::Collision,
            // read_only_sql_transaction, feature_not_supported: BEGIN READ WRITE on a standby
            "25006" | "0A000" => Meaning::Demoted,
            // lock_not_available, idle_in_transaction_session_timeout
            "55P03" | "25P03" => Meaning::Unavailable,
            // connection_exception, insufficient_resources, operator_intervention (shut down,
            // starting up, statement_timeout), system_error
            code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                Meaning::Unavailable
            }
            _ => Meaning::Fault,
        }
    }

    fn is_behind_pooler(pool: &PgPool) -> bool {
        super::is_behind_pooler(pool)
    }

    /// On a connection of its own, so that none of the pool's is taken for good; made anew where it
    /// breaks. What was missed meanwhile is read by the poll.
    fn listen(pool: &PgPool, changed: Arc<Notify>) -> Option<AbortHandle> {
        if Self::is_behind_pooler(pool) {
            return None;
        }
        let options = pool.connect_options();
        let listen = async move {
            loop {
                let heard = listen_once(&options, &changed).await;
                tracing::debug!(error = ?heard.err(), "listening for revocations again");
                sleep(RECONNECT).await;
            }
        };
        Some(tokio::spawn(listen).abort_handle())
    }
}

async fn listen_once(options: &PgConnectOptions, changed: &Notify) -> sqlx::Result<()> {
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    while listener.try_recv().await?.is_some() {
        changed.notify_one();
    }
    Ok(())
}

impl Primitives for PgConnection {
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
) -> sqlx::query::Query<'static, Postgres, PgArguments> {
    let query = query(statement.postgres).persistent(prepare);
    values.into_iter().fold(query, |query, value| match value {
        Value::Null => query.bind(Null),
        Value::Bool(truth) => query.bind(truth),
        Value::Integer(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
    })
}

fn row(row: &PgRow) -> sqlx::Result<Row> {
    let columns = row.columns().iter().map(|column| {
        let index = column.ordinal();
        if row.try_get_raw(index)?.is_null() {
            return Ok(Value::Null);
        }
        Ok(match column.type_info().name() {
            "BOOL" => Value::Bool(row.try_get(index)?),
            "INT8" => Value::Integer(row.try_get(index)?),
            "BYTEA" => Value::Bytes(row.try_get(index)?),
            _ => Value::Text(row.try_get(index)?),
        })
    });
    columns.collect::<sqlx::Result<_>>().map(Row::new)
}

/// Nothing, of whatever type is expected: object identifier 0 leaves it to the server.
struct Null;

impl Type<Postgres> for Null {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Null {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}
