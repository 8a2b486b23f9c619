//! What the protocol of a [`Line`](super::line::Line) is made of; its model check (`tests/models`) has
//! others in their place.

pub(super) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
    thread::yield_now,
};
