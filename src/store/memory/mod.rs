//! Stores in the memory of this process: the reference implementations, and what a single server
//! needs no other for.

mod limit;
mod token;

pub use limit::MemoryRateLimitStore;
pub use token::MemoryTokenStore;
