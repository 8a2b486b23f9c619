//! Rings of older entries, for lines that have no room for them: words that are read and written under
//! the lock of the line that they belong to, so that they need none.

use std::{
    iter,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::words::Words;
use crate::limit::window::Past;

/// What a line knows of its ring, whose entries are consecutive, as one goes round.
///
/// An entry is a word: the lower half of an instant, and above it a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// Unit and size, as [`Rings`] gave it.
    pub(super) number: u32,
    /// Where the oldest is, counted on as one goes round.
    pub(super) first: u32,
    pub(super) len: u32,
    /// Of the counts.
    pub(super) sum: u32,
}

type Chunks = Box<[OnceLock<Words>]>;

/// The rings of some clients. Each is some consecutive units long.
pub(super) struct Rings {
    most_chunks: usize,
    /// Made with the first ring.
    chunks: OnceLock<Chunks>,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// So many units have ever been in use.
    begun: usize,
    /// Rings that are in use no more, by size.
    rings: [Vec<u32>; SIZES],
}

/// Two cache lines of entries.
const UNIT: usize = 16;
/// In units.
const CHUNK: usize = 256;
/// 16, 32 and 64 entries.
const SIZES: usize = 3;
pub(super) const LONGEST: usize = UNIT << (SIZES - 1);
/// The bits of a number that are a size. Above them: the first unit.
const SIZE: u32 = 3;
const SIZE_BITS: u32 = 2;

impl Ring {
    #[inline(always)]
    fn capacity(self) -> u32 {
        (UNIT as u32) << (self.number & SIZE)
    }

    pub(super) fn has_room_for(self, entries: usize) -> bool {
        entries <= self.capacity() as usize
    }

    /// The same ring with nothing in it.
    pub(super) fn emptied(self) -> Self {
        Self { number: self.number, first: 0, len: 0, sum: 0 }
    }
}

impl Rings {
    /// One for each of so many lines.
    pub(super) fn new(lines: usize) -> Self {
        // Each may have left behind one of each size.
        let units = lines * ((1 << SIZES) - 1);
        let most_chunks = units.div_ceil(CHUNK);
        Self { most_chunks, chunks: OnceLock::new(), free: Mutex::default() }
    }

    /// A ring with room for so many; `None` for more than [`LONGEST`].
    pub(super) fn reserve(&self, entries: usize) -> Option<Ring> {
        let size = (0..SIZES).find(|size| entries <= UNIT << size)?;
        let mut free = self.free();
        let number = match free.rings[size].pop() {
            Some(number) => number,
            None => self.begin(&mut free, size)?,
        };
        Some(Ring { number, first: 0, len: 0, sum: 0 })
    }

    /// One of those that were never in use.
    fn begin(&self, free: &mut Free, size: usize) -> Option<u32> {
        let (units, number) = (1 << size, |unit, size| (unit as u32) << SIZE_BITS | size as u32);
        // So that no ring lies across two chunks.
        while !free.begun.is_multiple_of(units) {
            free.rings[0].push(number(free.begun, 0));
            free.begun += 1;
        }
        let unit = free.begun;
        let chunks = || iter::repeat_with(OnceLock::new).take(self.most_chunks).collect();
        let chunk = self.chunks.get_or_init(chunks).get(unit / CHUNK)?;
        chunk.get_or_init(|| Words::zeroed(CHUNK * UNIT));
        free.begun += units;
        Some(number(unit, size))
    }

    #[cfg(test)]
    pub(super) fn begun(&self) -> usize {
        self.free().begun
    }

    pub(super) fn release(&self, ring: Ring) {
        self.free().rings[(ring.number & SIZE) as usize].push(ring.number);
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries of a ring, for who has locked the line that it belongs to.
    #[inline(always)]
    pub(super) fn at(&self, ring: Ring) -> Option<Entries<'_>> {
        let unit = (ring.number >> SIZE_BITS) as usize;
        let chunk = self.chunks.get()?.get(unit / CHUNK)?.get()?;
        let words = chunk.from(unit % CHUNK * UNIT)?;
        Some(Entries { words: words.get(..ring.capacity() as usize)?, ring })
    }
}

/// The entries of a [`Ring`].
pub(super) struct Entries<'a> {
    /// As many as the ring has room for: a power of two.
    words: &'a [AtomicU64],
    pub(super) ring: Ring,
}

impl Entries<'_> {
    #[inline(always)]
    fn word(&self, index: u32) -> Option<&AtomicU64> {
        let index = self.ring.first.wrapping_add(index) as usize;
        self.words.get(index & self.words.len().wrapping_sub(1))
    }

    /// All of them, oldest first: lower half of the instant, count.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.ring.len).map_while(|index| self.get(index))
    }

    #[inline(always)]
    fn get(&self, index: u32) -> Option<(u32, u32)> {
        let word = self.word(index)?.load(Ordering::Relaxed);
        Some((word as u32, (word >> 32) as u32))
    }
}

impl Past for Entries<'_> {
    #[inline(always)]
    fn sum(&self) -> u32 {
        self.ring.sum
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<(u32, Option<u32>)> {
        let left = self.ring.len.checked_sub(1)?;
        let (_, count) = self.get(0)?;
        let next = if left > 0 { Some(self.get(1)?.0) } else { None };
        let Ring { number, first, sum, .. } = self.ring;
        self.ring =
            Ring { number, first: first.wrapping_add(1), len: left, sum: sum.wrapping_sub(count) };
        Some((count, next))
    }

    #[inline(always)]
    fn push(&mut self, at: u32, count: u32) -> bool {
        if self.ring.len as usize >= self.words.len() {
            return false;
        }
        let Some(word) = self.word(self.ring.len) else { return false };
        word.store(u64::from(count) << 32 | u64::from(at), Ordering::Relaxed);
        self.ring.len += 1;
        self.ring.sum = self.ring.sum.saturating_add(count);
        true
    }

    /// Nobody who begins anew needs a ring, and somebody else may.
    #[inline(always)]
    fn clear(&mut self) -> bool {
        false
    }
}
