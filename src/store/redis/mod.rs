//! Limits in Redis, Redis Cluster, or behind Sentinel: counted once for all servers of an
//! application.
//!
//! 1. A decision is one script and one round trip, whatever the number of limits: all of them count
//!    the request, or none. The script is the twin of [`SlidingWindow`](crate::limit::store::SlidingWindow), so that Redis and
//!    memory decide alike.
//! 2. Time is the Redis server's.
//! 3. Decisions that wait at the same moment travel in one call, and those that are alike are asked
//!    about once, with their number. An idle store adds no delay.
//! 4. A refusal is remembered in this process until the instant that it named (ten seconds at
//!    most): who hammers at a limit costs Redis next to nothing.
//! 5. A call is never repeated after a timeout or a broken connection: it may have run, and to
//!    charge twice is worse than once too few. A call that certainly did not run (`NOSCRIPT`,
//!    `MOVED`) is.
//! 6. State is at `rl:{limiter}:{key}`, a string of some 50 bytes (25 and 5 or 6 for each entry;
//!    [`RESOLUTION`](crate::limit::store::RESOLUTION) entries at most, about). Redis drops it a window
//!    after the last request that was counted; where entries are shared, up to a window divided by
//!    the resolution later. What a client chooses is escaped or hashed: see
//!    [`RedisRateLimitStore`].
//! 7. What fails answers [`StoreError`](crate::StoreError), soon. How soon, and what then becomes
//!    of the request, is [`FallbackStore`](crate::limit::FallbackStore)'s part; use them together.
//!    It hears of the time of calls, not of what waits for them here: who asks much of a healthy
//!    Redis makes it late, not gone.
//!
//! **Leases.** A client of whom many servers ask much makes a call to Redis by each of them for each
//! batch. With [leases](RedisRateLimitStore::with_leases) a server takes a handful of admissions at
//! once and spends them by itself. Redis counts them at the *end* of the lease, so that none is ever
//! older there than it really is: in any window as few are admitted as without.
//!
//! **Cluster.** Keys of different slots can't be in one call. There a request that must pass two
//! limits takes one after the other, and gives the first back where the second refuses: for that
//! moment the first counts a request that was not admitted. Nor do its decisions travel together.
//!
//! One address of a cluster is found to be one, and the others are learnt.
//!
//! **Deployment.** Redis 6 or later (tested with 7.0; Valkey has the same commands, and was not at
//! hand to be tested). Give Redis memory: with an eviction policy such as `allkeys-lru` it forgets
//! limits where memory is short; with `noeviction` it refuses to decide. What the user needs, and
//! nothing else (on a cluster `+cluster|slots`, too; before Redis 7 that is `+cluster`):
//!
//! ```text
//! ACL SETUSER limits on >secret ~rl:* +eval +evalsha +get +set +setrange +pttl +pexpire +del +time +ping
//! ```
//!
//! A connection that was idle is tried by `PING`, and one with a database in its URL begins by
//! `SELECT` (`+select`). `CLIENT SETINFO` is not sent but by a cluster's client, which doesn't mind
//! being refused it.
//!
//! ```no_run
//! use tower_warden::{
//!     limit::FallbackStore,
//!     store::{memory::MemoryRateLimitStore, redis::RedisRateLimitStore},
//! };
//! # async fn example() -> Result<(), tower_warden::store::redis::RedisConfigError> {
//! let redis = RedisRateLimitStore::connect("redis://:secret@127.0.0.1:6379/0").await?;
//! let store = FallbackStore::new(redis, MemoryRateLimitStore::new());
//! # Ok(()) }
//! ```

mod cluster;
mod connection;
mod error;
mod job;
mod key;
mod leases;
mod limit;
mod probe;
mod queue;
mod refusals;
mod script;
mod single;

pub use error::RedisConfigError;
pub use limit::RedisRateLimitStore;
