//! Stores in the memory of this process: the reference implementations, and what a single server
//! needs no other for.

mod clients;
mod limit;
mod refusals;
mod token;
mod user;

pub use limit::MemoryRateLimitStore;
pub use token::MemoryTokenStore;
pub use user::MemoryUserStore;
