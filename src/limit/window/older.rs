//! The entries of a [`SlidingWindow`](super::SlidingWindow) before its newest one, in little memory: most clients have
//! made a few requests, and a server remembers many of them.

use std::collections::VecDeque;

use super::{Entry, head::before};

/// Oldest first. Some stand in a word each; more, and those that need more words, in a block.
#[derive(Clone, Debug)]
pub(crate) enum Older {
    Few([Brief; FEW]),
    Many(Block),
}

/// As many as a store keeps beside the newest in a cache line.
pub(crate) const FEW: usize = 7;
/// A block has room for so many at the least.
const LEAST: usize = 16;

/// How much earlier than the newest entry those may be of which half an instant is kept.
pub(crate) const REACH: u64 = u32::MAX as u64;
/// The most that a [`Brief`] counts.
pub(crate) const BRIEF_COUNT: u32 = (1 << 24) - 1;

/// An entry of which nothing is on trial. A count of 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Brief {
    /// The lower half of its instant. The rest follows from the newest entry's.
    pub(crate) at_low: u32,
    pub(crate) count: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    entries: VecDeque<Entry>,
    /// Of their counts.
    sum: u32,
    /// What of the newest entry, which is not among these, is on trial.
    newest_held: u32,
    /// What of all is, that one included.
    held: u32,
}

impl Default for Older {
    fn default() -> Self {
        Self::Few([Brief::default(); FEW])
    }
}

impl Older {
    /// The instant of the first, or the newest's, where there is none.
    pub(super) fn oldest(&self, newest: u64) -> u64 {
        self.entry(0, newest).map_or(newest, |entry| entry.at)
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(entries) => entries.iter().filter(|entry| entry.count > 0).count(),
            Self::Many(block) => block.entries.len(),
        }
    }

    /// The sum of the counts.
    pub(super) fn sum(&self) -> u32 {
        match self {
            Self::Few(entries) => entries.iter().map(|entry| entry.count).sum(),
            Self::Many(block) => block.sum,
        }
    }

    /// How much of the newest entry is on trial.
    pub(super) fn newest_held(&self) -> u32 {
        match self {
            Self::Few(_) => 0,
            Self::Many(block) => block.newest_held,
        }
    }

    /// Whether any request is on trial, one of the newest entry included.
    pub(crate) fn is_on_trial(&self) -> bool {
        matches!(self, Self::Many(block) if block.held > 0)
    }

    /// All of them.
    pub(crate) fn entries(&self, newest: u64) -> impl Iterator<Item = Entry> {
        (0..).map_while(move |index| self.entry(index, newest))
    }

    fn entry(&self, index: usize, newest: u64) -> Option<Entry> {
        match self {
            Self::Few(entries) => {
                let brief = entries.get(index).filter(|entry| entry.count > 0)?;
                Some(Entry { at: brief.at(newest), count: brief.count, held: 0 })
            }
            Self::Many(block) => block.entries.get(index).copied(),
        }
    }

    /// Drops the first.
    pub(super) fn pop(&mut self, newest: u64) -> Option<Entry> {
        let first = self.entry(0, newest)?;
        match self {
            Self::Few(entries) => {
                entries[0] = Brief::default();
                entries.rotate_left(1);
            }
            Self::Many(block) => {
                block.entries.pop_front();
                block.sum -= first.count;
                block.held -= first.held;
                if block.entries.is_empty() && block.held == 0 {
                    *self = Self::default();
                }
            }
        }
        Some(first)
    }

    /// Appends what was the newest entry.
    pub(crate) fn push(&mut self, at: u64, count: u32) {
        if let Self::Few(entries) = self
            && count <= BRIEF_COUNT
            && let Some(free) = entries.iter_mut().find(|entry| entry.count == 0)
        {
            *free = Brief { at_low: at as u32, count };
            return;
        }
        self.in_block(at, |block| {
            block.sum = block.sum.saturating_add(count);
            let held = std::mem::take(&mut block.newest_held);
            if block.entries.len() == block.entries.capacity() {
                // At once what many need: limits up to the usual resolution take two steps.
                block.entries.reserve_exact(3 * block.entries.len().max(LEAST));
            }
            block.entries.push_back(Entry { at, count, held });
        });
    }

    /// Notes that so much of the newest entry, which is at that instant, is on trial.
    pub(super) fn hold(&mut self, newest: u64, cost: u32) {
        self.in_block(newest, |block| {
            block.newest_held = block.newest_held.saturating_add(cost);
            block.held = block.held.saturating_add(cost);
        });
    }

    /// Keeps whole instants from now on, as the newest entry may get out of [`REACH`].
    pub(super) fn spill(&mut self, newest: u64) {
        if self.len() > 0 {
            self.in_block(newest, |_| {});
        }
    }

    /// Changes the block, made where there is none.
    fn in_block(&mut self, newest: u64, change: impl FnOnce(&mut Block)) {
        match self {
            Self::Many(block) => change(block),
            Self::Few(_) => {
                let mut entries = VecDeque::with_capacity(if self.len() > 0 { LEAST } else { 0 });
                entries.extend(self.entries(newest));
                let mut block = Block { entries, sum: self.sum(), ..Block::default() };
                change(&mut block);
                *self = Self::Many(block);
            }
        }
    }
}

impl Brief {
    fn at(self, newest: u64) -> u64 {
        before(newest, self.at_low)
    }
}
