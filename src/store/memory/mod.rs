//! Stores in this process: the reference implementations.

mod token;

pub use token::MemoryTokenStore;
