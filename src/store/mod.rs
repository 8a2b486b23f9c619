//! Stores: where accounts, sessions, keys and limits are kept.
//!
//! | | accounts, sessions, keys | limits | for |
//! | --- | --- | --- | --- |
//! | [`memory`] | [`MemoryStore`](memory::MemoryStore) | [`MemoryRateLimitStore`](memory::MemoryRateLimitStore) | tests; limits in one process |
//! | `sqlite` | `SqliteStore` | | one machine |
//! | `postgres` | `PostgresStore` | | any number of servers |
//! | `redis` | | `RedisRateLimitStore` | any number of servers |
//!
//! All stores of a kind pass the same tests. What each promises is told by the guide to [sessions and
//! revocation](crate::guide::sessions_and_revocation), how to write one of your own by [writing a
//! store](crate::guide::writing_a_store).
//!
//! ```
//! use tower_warden::{TokenService, token::{KeySet, SigningKey}};
//! use tower_warden::store::memory::{MemoryRateLimitStore, MemoryStore};
//! # let keys = KeySet::new(SigningKey::generate_ed25519()?);
//! let accounts = MemoryStore::new(); // users, sessions, keys, second factors
//! let limits = MemoryRateLimitStore::new(); // counts
//! let tokens = TokenService::new(keys, "https://id.example", "api", accounts.clone());
//! # Ok::<(), tower_warden::token::KeyError>(())
//! ```

pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
