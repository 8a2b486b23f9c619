//! Stores: redis.
