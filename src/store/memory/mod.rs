//! Stores in the memory of this process: the reference implementations, and what a single server
//! needs no other for.

mod limit;

pub use limit::MemoryRateLimitStore;
