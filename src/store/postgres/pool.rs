//! Connections, and what PostgreSQL's errors mean.

use std::time::Duration;

use sqlx::{
    Connection, PgConnection, PgPool, Postgres, Transaction,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::super::sql::{Meaning, Wing, store_error};
use crate::StoreError;

/// Opens a pool of at most ten connections, each tested before it is used.
///
/// TLS is as the URL's `sslmode` says, and needs the feature `tls`. The server is told to give up
/// on statements after 3.5 s, on locks after 3 s, and on a transaction whose client has fallen
/// silent after 10 s, and to keep its notices; where the URL has `options` of its own, those win. Behind a pooler that
/// refuses such options, build a pool of your own: the stores take any.
///
/// # Errors
/// Where the URL makes no sense, or PostgreSQL does not answer within three seconds.
pub async fn connect(url: &str) -> Result<PgPool, StoreError> {
    let settings = [
        // "… already exists, skipping" at each start is no news.
        ("client_min_messages", "warning"),
        ("statement_timeout", "3500ms"),
        ("lock_timeout", "3s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ];
    let options: PgConnectOptions = url.parse().map_err(store_error::<Postgres>)?;
    let options = match options.get_options() {
        None => options.options(settings),
        Some(_) => options,
    };
    PgPoolOptions::new()
        .max_connections(10)
        .acquire_timeout(Duration::from_secs(3))
        .test_before_acquire(true)
        .connect_with(options)
        .await
        .map_err(store_error::<Postgres>)
}

/// Begins a transaction as the stores need it, whatever the database's defaults are: a statement
/// that waited for a lock sees what its holder wrote.
pub(super) async fn begin(
    connection: &mut PgConnection,
) -> sqlx::Result<Transaction<'_, Postgres>> {
    connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await
}

impl Wing for Postgres {
    // The answer may never come, and who takes the connection next would wait for it.
    const CLOSE_WHEN_LATE: bool = true;

    fn meaning(error: &dyn DatabaseError) -> Meaning {
        let Some(code) = error.code() else { return Meaning::Fault };
        match &*code {
            // serialization_failure, deadlock_detected
            "40001" | "40P01" => Meaning::Collision,
            // read_only_sql_transaction (a server that was demoted), lock_not_available,
            // idle_in_transaction_session_timeout
            "25006" | "55P03" | "25P03" => Meaning::Unavailable,
            // connection_exception, insufficient_resources, operator_intervention (shut down,
            // starting up, statement_timeout), system_error
            code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                Meaning::Unavailable
            }
            _ => Meaning::Fault,
        }
    }
}
