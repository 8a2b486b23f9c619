//! Accounts, sessions, API keys and second factors in SQLite.
//!
//! 1. Every table's name begins with `tower_warden_`, that of the book-keeping of [`migrate`] too: a
//!    host's own tables and its `_sqlx_migrations` don't matter.
//! 2. Verbs that write run in a task of their own, in a transaction that is the only one to write
//!    from its first statement on (`BEGIN IMMEDIATE`).
//! 3. A verb answers within four seconds. Where others hold the database, or the file is out of
//!    reach, for longer than that, it is [unavailable](crate::StoreError::is_unavailable).
//! 4. One machine: several processes may share the file, but not over a network file system, where
//!    its locks and its write-ahead log don't work.
//! 5. Migrations only add: a process of the last release and one of this work on one file. A column
//!    is dropped one release after the last code that reads it. The files are in
//!    `migrations/sqlite`.
//! 6. Nothing is cleaned up unasked: call
//!    [`TokenService::delete_expired`](crate::TokenService::delete_expired),
//!    [`UserService::delete_expired`](crate::UserService::delete_expired),
//!    [`ApiKeyService::delete_revoked`](crate::ApiKeyService::delete_revoked) and
//!    [`LoginSteps::delete_expired`](crate::second_factor::LoginSteps::delete_expired) now and then.
//!
//! ```
//! use tower_warden::{
//!     Role, UserId,
//!     store::sqlite::{self, SqliteStore},
//!     user::{CreateUserError, Email, NewUser, PasswordHash, UserStore},
//! };
//! # use std::time::SystemTime;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = sqlite::connect("sqlite::memory:").await?;
//! sqlite::migrate(&pool).await?;
//! let users = SqliteStore::new(pool);
//!
//! let hash = PasswordHash::from("$2b$12$…".to_owned());
//! let ada = NewUser::new(Email::parse("ada@example.com")?, hash, SystemTime::now());
//! assert_eq!(users.create(ada.clone()).await?.email, ada.email);
//!
//! let again = ada.with_id(UserId::random());
//! assert!(matches!(users.create(again).await, Err(CreateUserError::EmailTaken)));
//! # Ok(())
//! # }
//! ```

mod migrate;
mod pool;
mod wing;

pub use migrate::migrate;
pub use pool::connect;

/// Accounts, sessions, API keys and second factors in SQLite, in one database. See the [module's docs](self).
///
/// ```
/// use tower_warden::{Identity, Role, TokenService, UserId, store::sqlite::{self, SqliteStore}};
/// use tower_warden::token::{KeySet, SigningKey};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = sqlite::connect("sqlite::memory:").await?; // or sqlite:data/api.db
/// sqlite::migrate(&pool).await?;
/// let store = SqliteStore::new(pool); // clones share it: one for users, sessions and keys
/// let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// let tokens = TokenService::new(keys, "https://id.example", "api", store);
/// let ada = Identity::new(UserId::random(), Role::EDITOR);
/// tokens.issue(&ada).await?;
/// assert_eq!(tokens.sessions(ada.user_id()).await?.len(), 1);
/// # Ok(())
/// # }
/// ```
pub type SqliteStore = super::sql::SqlStore<sqlx::Sqlite>;
