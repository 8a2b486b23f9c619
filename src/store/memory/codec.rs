//! A client's log in the words of a [`Line`](super::line::Line).
//!
//! | word | four older entries at most | more, or a window over 71 minutes |
//! | --- | --- | --- |
//! | 0 | the key | the key |
//! | 1, the note | 0, held, room, whose | 1, held, room, whose |
//! | 2 | the newest instant | the newest instant |
//! | 3 | used, lower half of the oldest instant | used, number of the block |
//! | 4 | window, lower half of the moment of opening | window |
//! | 5 | an instant's lower half, a count, a third of the first count | the oldest instant |
//! | 6 | the same | the moment of opening |
//! | 7 | the same | – |

use super::line::{BODY, Guard, WORDS};
use crate::limit::{
    store::SlidingWindow,
    window::{BRIEF_COUNT, Brief, Head, Older, REACH},
};

/// What stands in the note of a line's state, beside its lock and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note(pub(super) u64);

const IN_BLOCK: u64 = 1;
const HELD: u64 = 2;
const ROOM_SHIFT: u32 = 2;
const ROOM: u64 = 63;
const WHOSE_SHIFT: u32 = 8;

impl Note {
    /// That of a line which is nobody's.
    pub(super) const FREE: Self = Self(0);

    /// Whose the line is: a limiter and a kind of key. 0: nobody's.
    #[inline]
    pub(super) fn whose(self) -> u16 {
        (self.0 >> WHOSE_SHIFT) as u16
    }

    #[inline]
    pub(super) fn room(self) -> u8 {
        ((self.0 >> ROOM_SHIFT) & ROOM) as u8
    }

    #[inline]
    pub(super) fn is_in_block(self) -> bool {
        self.0 & IN_BLOCK != 0
    }

    #[inline]
    fn of(whose: u16, head: &Head, in_block: bool) -> Self {
        let held = if head.held { HELD } else { 0 };
        let room = u64::from(head.room) << ROOM_SHIFT;
        Self(u64::from(whose) << WHOSE_SHIFT | room | held | u64::from(in_block))
    }
}

/// The words after key and state.
type Body = [u64; WORDS - BODY];

/// What most requests need. `word` reads one of the line.
#[inline(always)]
pub(super) fn head(note: Note, word: impl Fn(usize) -> u64) -> Head {
    let (at, third, fourth) = (word(2), word(3), word(4));
    let used = upper(third);
    let (room, held) = (note.room(), note.0 & HELD != 0);
    if note.is_in_block() {
        return Head { at, opened: word(6), oldest: word(5), window: fourth, used, room, held };
    }
    let (opened, oldest) = (before(at, fourth as u32), before(at, third as u32));
    Head { at, opened, oldest, window: upper(fourth).into(), used, room, held }
}

/// Writes a head that [stepped](Head::step). What the step can't have changed stays.
#[inline(always)]
pub(super) fn set_head(guard: &mut Guard<'_>, head: &Head) {
    let note = Note(guard.note());
    guard.set(2, head.at);
    if note.is_in_block() {
        let number = guard.word(3) as u32;
        guard.set(3, pair(head.used, number));
        guard.set(5, head.oldest);
    } else {
        guard.set(3, pair(head.used, head.oldest as u32));
    }
    guard.set_note(Note::of(note.whose(), head, note.is_in_block()).0);
}

/// Number of the block of older entries.
pub(super) fn block(note: Note, word: impl Fn(usize) -> u64) -> Option<u32> {
    note.is_in_block().then(|| word(3) as u32)
}

/// The older entries that stand in the line.
#[inline]
pub(super) fn older(head: &Head, word: impl Fn(usize) -> u64) -> Older {
    let rest = [word(5), word(6), word(7)];
    let mut briefs = [Brief::default(); 4];
    let mut first = 0;
    for (index, packed) in rest.into_iter().enumerate() {
        let count = upper(packed) & BRIEF_COUNT;
        briefs[index + 1] = Brief { at_low: packed as u32, count };
        first |= (upper(packed) >> 24) << (8 * index);
    }
    briefs[0] = Brief { at_low: head.oldest as u32, count: first };
    Older::Few(briefs)
}

/// A log as it stands in a line; `None` where it doesn't fit.
#[inline]
pub(super) fn in_line(whose: u16, log: &SlidingWindow) -> Option<(Note, Body)> {
    let SlidingWindow { head, older: Older::Few([first, rest @ ..]) } = log else { return None };
    if head.window > REACH {
        return None;
    }
    let word = |index: usize| {
        let Brief { at_low, count } = rest[index];
        let third = (first.count >> (8 * index)) & 0xff;
        pair(third << 24 | count, at_low)
    };
    let used = pair(head.used, head.oldest as u32);
    let window = pair(head.window as u32, opened_low(head));
    Some((Note::of(whose, head, false), [head.at, used, window, word(0), word(1), word(2)]))
}

/// The head of a log whose block is of this number.
pub(super) fn with_block(whose: u16, head: &Head, number: u32) -> (Note, Body) {
    let used = pair(head.used, number);
    (Note::of(whose, head, true), [head.at, used, head.window, head.oldest, head.opened, 0])
}

/// Lower half of the moment of opening, which is at most a window before the newest instant; or, where
/// nothing may join the entry any more, some moment that is further away.
fn opened_low(head: &Head) -> u32 {
    let apart = head.at.saturating_sub(head.opened).min(REACH);
    (head.at as u32).wrapping_sub(apart as u32)
}

/// The last instant before this one that has this lower half.
#[inline]
fn before(at: u64, low: u32) -> u64 {
    at.wrapping_sub(u64::from((at as u32).wrapping_sub(low)))
}

#[inline]
fn pair(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

#[inline]
fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}
