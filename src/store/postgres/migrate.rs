//! The schema, and how it comes about.

use sqlx::{Connection, PgConnection, PgPool, Postgres, query, query_scalar};

use super::super::sql::{MigrationFile, run_missing, store_error};
use crate::StoreError;

const FILES: &[MigrationFile] = &[
    (
        1,
        "users and refresh tokens",
        include_str!("../../../migrations/postgres/0001_users_and_refresh_tokens.sql"),
    ),
    (3, "accounts", include_str!("../../../migrations/postgres/0003_accounts.sql")),
    (
        2,
        "sessions and revocations",
        include_str!("../../../migrations/postgres/0002_sessions_and_revocations.sql"),
    ),
    (
        4,
        "API keys and second factors",
        include_str!("../../../migrations/postgres/0004_api_keys_and_second_factors.sql"),
    ),
];

/// Under this lock servers that start together migrate one after the other. Not sqlx's own lock: a
/// host may hold that one while it calls us.
const LOCK: i64 = i64::from_be_bytes(*b"portcull");

/// Creates the schema `tower_warden`, or brings it up to date. Servers may call it at the same time,
/// and older ones after newer ones.
///
/// # Errors
/// Where the database can't be reached, or the role may neither create the schema nor owns it.
pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    let run = async {
        // A connection that ends here: so do its settings, and its lock whatever happens.
        let mut connection = pool.acquire().await?.detach();
        locked(&mut connection).await?;
        connection.close().await
    };
    run.await.map_err(store_error::<Postgres>)
}

async fn locked(connection: &mut PgConnection) -> sqlx::Result<()> {
    query("SET statement_timeout = 0").execute(&mut *connection).await?;
    query("SET lock_timeout = 0").execute(&mut *connection).await?;
    query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut *connection).await?;

    // Not CREATE SCHEMA IF NOT EXISTS, which asks for the right to create even where it exists.
    let exists: bool =
        query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'tower_warden')")
            .fetch_one(&mut *connection)
            .await?;
    if !exists {
        query("CREATE SCHEMA tower_warden").execute(&mut *connection).await?;
    }
    run_missing(connection, "tower_warden.migrations", FILES).await
}
