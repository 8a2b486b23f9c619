//! Stores: postgres.
