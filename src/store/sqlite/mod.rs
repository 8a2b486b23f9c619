//! Stores: sqlite.
