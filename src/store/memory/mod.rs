//! Stores in memory: the reference implementations.

mod user;

pub use user::MemoryUserStore;
