//! One client's place: a cache line of eight words, read without a write and changed under a lock of
//! its own. The protocol only; what the words mean is [`codec`](super::codec)'s.

use super::sync::{AtomicU64, Ordering, fence, spin_loop, yield_now};

/// Eight words. The second, its [`State`], has a lock and a version.
///
/// 1. A reader loads the state, then other words, then asks [`Line::is_still`]. If so, all that it
///    read was there at one moment, and it has written nothing.
/// 2. A writer [locks](Line::lock) the very state that it has read from: by the same argument what it
///    decided upon is still so, and from then on nobody else writes. It writes, and its [`Guard`]
///    unlocks: with another version where anything was written, else as it was.
/// 3. Whose line it is changes under the lock too, so that a reader or writer who found it as
///    another's fails as by any other change. What moves to another line is there before it is gone
///    here, and both are locked meanwhile.
///
/// Why it holds: a writer's words come after its swap of the state (`fence(Release)`), a reader's
/// second look after its words (`fence(Acquire)`). Who has read a word of a writer's therefore sees
/// the swap, or what followed it. A lock needs no such fence: who swaps later has seen this one's
/// unlocking, and no load sees what is written after it. `tests/models` tries all interleavings of
/// small cases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a>(pub(super) &'a [AtomicU64; WORDS]);

/// As many as a cache line holds.
pub(super) const WORDS: usize = 8;
/// Whose line it is.
pub(super) const KEY: usize = 0;
const STATE: usize = 1;
/// The first of the words that nothing here looks into.
const BODY: usize = 2;
pub(super) type Body = [u64; WORDS - BODY];

const LOCK: u64 = 1;
/// So many bits above the lock are the user's; the rest is the version. 2^36 changes take a quarter of an
/// hour at the least: for so long no thread stands between two looks.
pub(super) const NOTE_BITS: u32 = 27;
const VERSION: u64 = 1 << (NOTE_BITS + 1);
const NOTE: u64 = VERSION - 2;

/// The state of a line: a lock, a version, and a note that is the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(u64);

impl State {
    #[inline]
    pub(super) fn note(self) -> u64 {
        (self.0 & NOTE) >> 1
    }

    #[inline]
    pub(super) fn is_locked(self) -> bool {
        self.0 & LOCK != 0
    }
}

impl<'a> Line<'a> {
    #[inline]
    pub(super) fn state(self) -> State {
        State(self.0[STATE].load(Ordering::Acquire))
    }

    /// A word, for who asks [`is_still`](Self::is_still) or [`lock`](Self::lock) afterwards.
    #[inline]
    pub(super) fn word(self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    /// Whether what was read since this state is from one moment.
    #[inline]
    pub(super) fn is_still(self, state: State) -> bool {
        fence(Ordering::Acquire);
        !state.is_locked() && self.0[STATE].load(Ordering::Relaxed) == state.0
    }

    /// The line as it was in this state, for writing; `None` where it is so no more.
    #[inline]
    pub(super) fn lock(self, state: State) -> Option<Guard<'a>> {
        if state.is_locked() {
            return None;
        }
        let (unlocked, locked) = (state.0, state.0 | LOCK);
        self.0[STATE]
            .compare_exchange(unlocked, locked, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        fence(Ordering::Release);
        Some(Guard { line: self, state, unlocked })
    }
}

/// What stands in a line, while it moves to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents {
    pub(super) key: u64,
    pub(super) note: u64,
    body: Body,
}

/// A line that is locked, until this is dropped.
#[derive(Debug)]
pub(super) struct Guard<'a> {
    line: Line<'a>,
    state: State,
    /// What the state will be.
    unlocked: u64,
}

impl Guard<'_> {
    /// The state in which it stands now, as far as its holder is concerned.
    #[inline]
    pub(super) fn note(&self) -> u64 {
        State(self.unlocked).note()
    }

    #[inline]
    pub(super) fn word(&self, index: usize) -> u64 {
        self.line.word(index)
    }

    #[inline]
    pub(super) fn set(&mut self, index: usize, word: u64) {
        self.line.0[index].store(word, Ordering::Relaxed);
        self.change();
    }

    /// All that stands here.
    pub(super) fn contents(&self) -> Contents {
        let body = std::array::from_fn(|index| self.word(BODY + index));
        Contents { key: self.word(KEY), note: self.note(), body }
    }

    /// Lets that stand here instead.
    pub(super) fn put(&mut self, Contents { key, note, body }: Contents) {
        self.set(KEY, key);
        self.set_all(body, note);
    }

    /// All but the key.
    #[inline]
    pub(super) fn set_all(&mut self, body: Body, note: u64) {
        for (word, new) in self.line.0[BODY..].iter().zip(body) {
            word.store(new, Ordering::Relaxed);
        }
        self.set_note(note);
    }

    #[inline]
    pub(super) fn set_note(&mut self, note: u64) {
        self.change();
        self.unlocked = self.unlocked & !NOTE | (note << 1) & NOTE;
    }

    #[inline]
    fn change(&mut self) {
        let note = self.unlocked & NOTE;
        self.unlocked = (self.state.0 & !NOTE).wrapping_add(VERSION) | note;
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.line.0[STATE].store(self.unlocked, Ordering::Release);
    }
}

/// Waits for who holds a lock: a little while by itself, then by letting others run, as he may be one
/// who waits for this core.
#[derive(Debug, Default)]
pub(super) struct Patience(u32);

impl Patience {
    pub(super) fn wait(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(16) {
            yield_now();
        } else {
            spin_loop();
        }
    }
}
