//! Stores: memory.
