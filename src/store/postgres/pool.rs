//! Connections, and what PostgreSQL's errors mean.

use std::time::Duration;

use sqlx::{
    ConnectOptions, PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::super::sql::store_error;
use crate::StoreError;

/// Opens a pool of at most ten connections, each tested before it is used.
///
/// TLS is as the URL's `sslmode` says, and needs the feature `tls`. The server is told to give up
/// on statements after 3.5 s, on locks after 3 s, and on a transaction whose client has fallen
/// silent after 10 s, and to keep its notices; where the URL has `options` of its own, those win.
///
/// `?pgbouncer=true` is for a pooler in transaction mode (PgBouncer, Neon, Supavisor): nothing then
/// lasts longer than a transaction. No options are sent at the start, statements are not kept
/// prepared, settings are those of each transaction, and what others revoke is heard of by the poll
/// alone. A pool of your own whose statement cache has no room is taken to be of this kind.
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
    let (url, pooler) = without_pooler_flag(url)?;
    let options: PgConnectOptions = url.parse().map_err(store_error::<Postgres>)?;
    let options = match options.get_options() {
        _ if pooler => options.statement_cache_capacity(0).extra_float_digits(None),
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

/// Whether a pool leads to a pooler in transaction mode: one that [`connect`] made of a URL with
/// `?pgbouncer=true`, or any whose statement cache has no room.
#[must_use]
pub fn is_behind_pooler(pool: &PgPool) -> bool {
    let url = pool.connect_options().to_url_lossy();
    url.query_pairs().any(|(name, value)| name == "statement-cache-capacity" && value == "0")
}

/// The URL as sqlx knows it, and what ours said beyond it.
fn without_pooler_flag(url: &str) -> Result<(String, bool), StoreError> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), false)) };
    let mut pooler = false;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("pgbouncer", "true")) => pooler = true,
            Some(("pgbouncer", "false")) => pooler = false,
            Some(("pgbouncer", _)) => {
                return Err(StoreError::internal("pgbouncer is neither true nor false"));
            }
            _ => rest.push(pair),
        }
    }
    let query = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    Ok((format!("{base}{query}"), pooler))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_of_the_pooler_is_taken_out_of_the_url() {
        for (url, rest, pooler) in [
            ("postgres://h/d", "postgres://h/d", false),
            ("postgres://h/d?pgbouncer=true", "postgres://h/d", true),
            ("postgres://h/d?a=b&pgbouncer=true&c=d", "postgres://h/d?a=b&c=d", true),
            ("postgres://h/d?pgbouncer=false&a=b", "postgres://h/d?a=b", false),
        ] {
            assert_eq!(without_pooler_flag(url).unwrap(), (rest.to_owned(), pooler), "{url}");
        }
        assert!(without_pooler_flag("postgres://h/d?pgbouncer=yes").is_err());
    }
}
