//! Memory for lines and rings.

use std::{
    alloc::{Layout, handle_alloc_error},
    sync::atomic::AtomicU64,
};

use zerocopy::FromZeros;

use super::line::WORDS;

/// Words in one piece, from the beginning of a cache line on. All are 0 at first: pages that the system
/// gives when they are first written.
pub(super) struct Words {
    words: Box<[AtomicU64]>,
    first: usize,
}

impl Words {
    pub(super) fn zeroed(count: usize) -> Self {
        let count = count + WORDS;
        let words = <[AtomicU64]>::new_box_zeroed_with_elems(count).unwrap_or_else(|_| {
            let layout = Layout::array::<AtomicU64>(count);
            handle_alloc_error(layout.unwrap_or(Layout::new::<AtomicU64>()))
        });
        let first = words.as_ptr().align_offset(WORDS * size_of::<u64>());
        Self { words, first: first.min(WORDS) }
    }

    /// All from this one on.
    #[inline(always)]
    pub(super) fn from(&self, index: usize) -> Option<&[AtomicU64]> {
        self.words.get(self.first + index..)
    }
}
