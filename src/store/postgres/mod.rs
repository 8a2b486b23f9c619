//! Accounts, sessions, API keys and second factors in PostgreSQL (13 or newer).
//!
//! 1. Everything is in the schema `tower_warden`, the book-keeping of [`migrate`] too: a host's own
//!    tables, its `_sqlx_migrations` and its `search_path` don't matter. The role that connects
//!    needs to own that schema, or the right to create it.
//! 2. Verbs that write run in a task of their own, in a `READ COMMITTED` transaction that takes its
//!    row locks in the order user, family, token. Where it collides with another it runs again.
//! 3. A verb answers within four seconds. What PostgreSQL does not answer by then is
//!    [unavailable](crate::StoreError::is_unavailable), as is one that restarts, has no connection
//!    left or can't be reached.
//! 4. Migrations only add: servers of the last release and of this one work on one schema, so that
//!    a roll-out needs no pause. A column is dropped one release after the last code that reads it.
//!    Who may not run them from the server finds them as files in `migrations/postgres`.
//! 5. Nothing is cleaned up unasked: call
//!    [`TokenService::delete_expired`](crate::TokenService::delete_expired),
//!    [`UserService::delete_expired`](crate::UserService::delete_expired),
//!    [`ApiKeyService::delete_revoked`](crate::ApiKeyService::delete_revoked) and
//!    [`LoginSteps::delete_expired`](crate::second_factor::LoginSteps::delete_expired) now and then,
//!    from as many servers as you like.
//!
//! ```no_run
//! use tower_warden::store::postgres::{self, PostgresStore};
//!
//! # async fn start() -> Result<(), tower_warden::StoreError> {
//! let pool = postgres::connect("postgres://api@localhost/app?sslmode=prefer").await?;
//! postgres::migrate(&pool).await?;
//! let accounts = PostgresStore::new(pool); // for `UserService` and `TokenService`: clones share it
//! # Ok(())
//! # }
//! ```

mod migrate;
mod pool;
mod wing;

pub use migrate::migrate;
pub use pool::{connect, is_behind_pooler};

/// Accounts, sessions, API keys and second factors in PostgreSQL, in one database. See the [module's docs](self).
///
/// ```no_run
/// use tower_warden::{TokenService, store::postgres::{self, PostgresStore}};
/// use tower_warden::token::{KeySet, SigningKey};
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = postgres::connect("postgres://api:secret@db/app?sslmode=verify-full").await?;
/// postgres::migrate(&pool).await?; // from as many servers at once as you like
/// let keys = KeySet::new(SigningKey::load_or_generate("private.pem", "public.pem")?);
/// let tokens = TokenService::new(keys, "https://id.example", "api", PostgresStore::new(pool));
/// let _following = tokens.follow_revocations().await?; // what other servers end, ends here
/// # Ok(())
/// # }
/// ```
pub type PostgresStore = super::sql::SqlStore<sqlx::Postgres>;
