//! Stores in the memory of this process: the reference implementations, and what a single server
//! needs no other for.

mod account;
mod api_key;
mod audit;
mod clients;
mod codec;
mod limit;
mod line;
mod logs;
mod ring;
mod second_factor;
mod sync;
mod table;
mod token;
mod user;
mod words;

pub use account::MemoryStore;
pub use limit::MemoryRateLimitStore;
