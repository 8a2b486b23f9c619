//! Connections, and what PostgreSQL's errors mean.

use std::time::Duration;

use sqlx::{
    PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::super::sql::store_error;
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
