//! The entries of a [`SlidingWindow`](super::SlidingWindow) before its newest one, in little memory: most clients have
//! made a request or two, and a server remembers many of them.

use std::collections::VecDeque;

use super::{Entries, Entry};

/// Oldest first. Two stand in place; more, and those that need a word more, in a block of their own.
#[derive(Clone, Debug)]
pub(super) enum Older {
    Few([Brief; 2]),
    Many {
        /// The instant of the first, here so that whether it is over costs no look at the block;
        /// `u64::MAX` where there is none.
        oldest: u64,
        block: Box<Block>,
    },
}

/// An entry of which nothing is on trial. A count of 0 is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brief {
    /// The lower half of its instant. The rest follows from the newest entry's.
    at_low: u32,
    count: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Block {
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
        Self::Few([Brief::default(); 2])
    }
}

impl Older {
    /// How much earlier than the newest entry those may be of which half an instant is kept.
    pub(super) const REACH: u64 = u32::MAX as u64;

    /// The instant of the first, or, where there is none, something not before the newest's.
    #[inline]
    pub(super) fn oldest(&self, newest: u64) -> u64 {
        match self {
            Self::Few([first, _]) if first.count > 0 => first.at(newest),
            Self::Few(_) => newest,
            Self::Many { oldest, .. } => *oldest,
        }
    }

    /// The sum of the counts.
    #[inline]
    pub(super) fn sum(&self) -> u32 {
        match self {
            Self::Few(entries) => entries.iter().map(|entry| entry.count).sum(),
            Self::Many { block, .. } => block.sum,
        }
    }

    /// How much of the newest entry is on trial.
    pub(super) fn newest_held(&self) -> u32 {
        match self {
            Self::Few(_) => 0,
            Self::Many { block, .. } => block.newest_held,
        }
    }

    /// Whether any request is on trial, one of the newest entry included.
    #[inline]
    pub(super) fn is_on_trial(&self) -> bool {
        matches!(self, Self::Many { block, .. } if block.held > 0)
    }

    /// All of them.
    pub(super) fn entries(&self, newest: u64) -> Entries {
        match self {
            Self::Few(entries) => {
                let there = entries.iter().filter(|entry| entry.count > 0);
                there
                    .map(|entry| Entry { at: entry.at(newest), count: entry.count, held: 0 })
                    .collect()
            }
            Self::Many { block, .. } => block.entries.iter().copied().collect(),
        }
    }

    /// Drops the first, whose count this is.
    pub(super) fn pop(&mut self) -> Option<u32> {
        match self {
            Self::Few([first, second]) => {
                let count = first.count;
                (*first, *second) = (*second, Brief::default());
                (count > 0).then_some(count)
            }
            Self::Many { oldest, block } => {
                let Entry { count, held, .. } = block.entries.pop_front()?;
                block.sum -= count;
                block.held -= held;
                *oldest = block.entries.front().map_or(u64::MAX, |entry| entry.at);
                if block.entries.is_empty() && block.newest_held == 0 {
                    *self = Self::default();
                }
                Some(count)
            }
        }
    }

    /// Appends what was the newest entry.
    pub(super) fn push(&mut self, at: u64, count: u32) {
        let brief = Brief { at_low: at as u32, count };
        match self {
            Self::Few([first, _]) if first.count == 0 => *first = brief,
            Self::Few([_, second]) if second.count == 0 => *second = brief,
            _ => self.in_block(at, |oldest, block| {
                *oldest = (*oldest).min(at);
                block.sum = block.sum.saturating_add(count);
                let held = std::mem::take(&mut block.newest_held);
                block.entries.push_back(Entry { at, count, held });
            }),
        }
    }

    /// Notes that so much of the newest entry, which is at that instant, is on trial.
    pub(super) fn hold(&mut self, newest: u64, cost: u32) {
        self.in_block(newest, |_, block| {
            block.newest_held = block.newest_held.saturating_add(cost);
            block.held = block.held.saturating_add(cost);
        });
    }

    /// Keeps whole instants from now on, as the newest entry may get out of [`Self::REACH`].
    pub(super) fn spill(&mut self, newest: u64) {
        if let Self::Few([first, _]) = self
            && first.count > 0
        {
            self.in_block(newest, |_, _| {});
        }
    }

    /// Changes the block, made where there is none.
    fn in_block(&mut self, newest: u64, change: impl FnOnce(&mut u64, &mut Block)) {
        match self {
            Self::Many { oldest, block } => change(oldest, block),
            Self::Few([first, _]) => {
                let mut oldest = if first.count > 0 { first.at(newest) } else { u64::MAX };
                let entries = self.entries(newest).into_iter().collect();
                let mut block = Box::new(Block { entries, sum: self.sum(), ..Block::default() });
                change(&mut oldest, &mut block);
                *self = Self::Many { oldest, block };
            }
        }
    }
}

impl Brief {
    fn at(self, newest: u64) -> u64 {
        newest - u64::from((newest as u32).wrapping_sub(self.at_low))
    }
}
