//! Stores in the memory of this process: the reference implementations, and what a single server
//! needs no other for.

mod limit;
mod token;
mod user;

pub use limit::MemoryRateLimitStore;
pub use token::MemoryTokenStore;
pub use user::MemoryUserStore;
