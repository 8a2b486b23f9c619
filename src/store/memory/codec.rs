//! A client's log in the words of a [`Line`](super::line::Line).
//!
//! | word | in line, or in a ring | a block: a window over 71 minutes, requests on trial, or very many |
//! | --- | --- | --- |
//! | 0 | the key | the key |
//! | 1, the note | form, held, room, whose | the same |
//! | 2 | the newest instant | the newest instant |
//! | 3 | used, lower half of the oldest instant | used, number of the block |
//! | 4 | window, lower half of the moment of opening | window |
//! | 5 to 7 | what the [`Form`] says | the oldest instant; the moment of opening; – |

use super::{
    line::{Body, Guard},
    ring::Ring,
};
use crate::limit::{
    store::SlidingWindow,
    window::{BRIEF_COUNT, Brief, FEW, Head, Older, Past, REACH, before},
};

/// What stands in the note of a line's state, beside its lock and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note(pub(super) u64);

/// Where the entries before the newest are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the line, so many, at most [`FEW`]; each counts one. The oldest's instant stands in word 3, and
    /// the lower halves of the others' follow one another from the lower half of word 5 on.
    Ones(u32),
    /// In the line, at most four, with their counts. In words 5 to 7 an instant's lower half, a count, and
    /// a third of the oldest's count.
    Counted,
    /// In a [`Ring`], of which words 5 and 6 tell.
    Ring,
    /// In a block.
    Block,
}

const FORM: u64 = 15;
const COUNTED: u64 = 8;
const RING: u64 = 9;
const BLOCK: u64 = 10;
const HELD: u64 = 1 << 4;
const ROOM_SHIFT: u32 = 5;
const ROOM: u64 = 63;
const WHOSE_SHIFT: u32 = 11;

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
    pub(super) fn form(self) -> Form {
        match self.0 & FORM {
            COUNTED => Form::Counted,
            RING => Form::Ring,
            BLOCK.. => Form::Block,
            ones => Form::Ones(ones as u32),
        }
    }

    #[inline]
    fn is_in_block(self) -> bool {
        self.0 & FORM == BLOCK
    }

    #[inline]
    fn of(whose: u16, head: &Head, form: Form) -> Self {
        let form = match form {
            Form::Ones(ones) => ones.into(),
            Form::Counted => COUNTED,
            Form::Ring => RING,
            Form::Block => BLOCK,
        };
        let held = if head.held { HELD } else { 0 };
        let room = u64::from(head.room) << ROOM_SHIFT;
        Self(u64::from(whose) << WHOSE_SHIFT | room | held | form)
    }
}

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
    guard.set_note(Note::of(note.whose(), head, note.form()).0);
}

/// Number of the block, where the line says that there is one.
#[inline]
pub(super) fn block(guard: &Guard<'_>) -> u32 {
    guard.word(3) as u32
}

/// The ring, where the line says that there is one.
#[inline]
pub(super) fn ring(guard: &Guard<'_>) -> Ring {
    let (place, sums) = (guard.word(5), guard.word(6));
    Ring { number: upper(place), first: place as u32, len: sums as u32, sum: upper(sums) }
}

/// The older entries that stand in the line; none, where it says that they are elsewhere.
#[inline]
pub(super) fn older(head: &Head, guard: &Guard<'_>) -> Older {
    let mut briefs = [Brief::default(); FEW];
    match Note(guard.note()).form() {
        Form::Ones(ones) => {
            let others = Ones::of(guard, ones).others;
            let lows = others.into_iter().flat_map(|pair| [pair as u32, upper(pair)]);
            let lows = [head.oldest as u32].into_iter().chain(lows);
            for (brief, at_low) in briefs.iter_mut().zip(lows).take(ones as usize) {
                *brief = Brief { at_low, count: 1 };
            }
        }
        Form::Counted => {
            let Counted { entries, .. } = Counted::of(guard, head);
            briefs[..entries.len()].copy_from_slice(&entries);
        }
        Form::Ring | Form::Block => {}
    }
    Older::Few(briefs)
}

/// A log as it stands in a line; `None` where it doesn't fit.
#[inline]
pub(super) fn in_line(whose: u16, log: &SlidingWindow) -> Option<(Note, Body)> {
    let SlidingWindow { head, older: Older::Few(briefs) } = log else { return None };
    if head.window > REACH {
        return None;
    }
    let packed = |(form, words)| body(whose, head, form, words);
    let len = log.older.len();
    if briefs[..len].iter().all(|brief| brief.count == 1) {
        let mut ones = Ones { others: [0; 3], len: 0 };
        briefs[..len].iter().for_each(|brief| _ = ones.push(brief.at_low, 1));
        return Some(packed(ones.words()));
    }
    let entries = *briefs.first_chunk()?;
    (len <= entries.len()).then(|| packed(Counted { entries }.words()))
}

/// The head of a log whose older entries are in this ring.
pub(super) fn with_ring(whose: u16, head: &Head, ring: &Ring) -> (Note, Body) {
    body(whose, head, Form::Ring, ring_words(ring))
}

/// The head of a log whose block is of this number.
pub(super) fn with_block(whose: u16, head: &Head, number: u32) -> (Note, Body) {
    let used = pair(head.used, number);
    let note = Note::of(whose, head, Form::Block);
    (note, [head.at, used, head.window, head.oldest, head.opened, 0])
}

#[inline]
fn body(whose: u16, head: &Head, form: Form, [a, b, c]: [u64; 3]) -> (Note, Body) {
    let used = pair(head.used, head.oldest as u32);
    let window = pair(head.window as u32, opened_low(head));
    (Note::of(whose, head, form), [head.at, used, window, a, b, c])
}

/// Writes all of a line but its key.
#[inline]
pub(super) fn write(guard: &mut Guard<'_>, (note, body): (Note, Body)) {
    guard.set_all(body, note.0);
}

/// Writes a log that [began an entry](Head::begin), and whose older entries are now these.
#[inline(always)]
pub(super) fn write_begun(guard: &mut Guard<'_>, head: &Head, (form, words): (Form, [u64; 3])) {
    let whose = Note(guard.note()).whose();
    write(guard, body(whose, head, form, words));
}

/// As [`Form::Ones`] says.
pub(super) struct Ones {
    /// The lower halves of all instants but the oldest's. Nothing stands behind the last.
    others: [u64; 3],
    len: u32,
}

impl Ones {
    #[inline(always)]
    pub(super) fn of(guard: &Guard<'_>, len: u32) -> Self {
        Self { others: [guard.word(5), guard.word(6), guard.word(7)], len }
    }

    #[inline(always)]
    pub(super) fn words(&self) -> (Form, [u64; 3]) {
        (Form::Ones(self.len), self.others)
    }
}

impl Past for Ones {
    #[inline(always)]
    fn sum(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<(u32, Option<u32>)> {
        self.len = self.len.checked_sub(1)?;
        let [a, b, c] = self.others;
        self.others = [a >> 32 | b << 32, b >> 32 | c << 32, c >> 32];
        Some((1, (self.len > 0).then_some(a as u32)))
    }

    #[inline(always)]
    fn push(&mut self, at: u32, count: u32) -> bool {
        if count != 1 || self.len as usize >= FEW {
            return false;
        }
        // The first is the oldest, which stands elsewhere.
        if let Some(index) = self.len.checked_sub(1) {
            self.others[index as usize / 2] |= u64::from(at) << (32 * (index % 2));
        }
        self.len += 1;
        true
    }

    #[inline(always)]
    fn clear(&mut self) -> bool {
        *self = Self { others: [0; 3], len: 0 };
        true
    }
}

/// As [`Form::Counted`] says. A count of 0 is none.
pub(super) struct Counted {
    entries: [Brief; 4],
}

impl Counted {
    #[inline(always)]
    pub(super) fn of(guard: &Guard<'_>, head: &Head) -> Self {
        let mut entries = [Brief { at_low: head.oldest as u32, count: 0 }; 4];
        for index in 0..3 {
            let word = guard.word(5 + index);
            entries[0].count |= (upper(word) >> 24) << (8 * index);
            entries[index + 1] = Brief { at_low: word as u32, count: upper(word) & BRIEF_COUNT };
        }
        Self { entries }
    }

    #[inline(always)]
    pub(super) fn words(&self) -> (Form, [u64; 3]) {
        let [first, others @ ..] = self.entries;
        let word = |index: usize, Brief { at_low, count }: Brief| {
            let third = (first.count >> (8 * index)) & 0xff;
            pair(third << 24 | count, at_low)
        };
        (Form::Counted, [word(0, others[0]), word(1, others[1]), word(2, others[2])])
    }
}

impl Past for Counted {
    #[inline(always)]
    fn sum(&self) -> u32 {
        self.entries.iter().map(|entry| entry.count).sum()
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<(u32, Option<u32>)> {
        let [first, second, third, fourth] = self.entries;
        self.entries = [second, third, fourth, Brief::default()];
        let next = (second.count > 0).then_some(second.at_low);
        (first.count > 0).then_some((first.count, next))
    }

    #[inline(always)]
    fn push(&mut self, at_low: u32, count: u32) -> bool {
        let free = self.entries.iter_mut().find(|entry| entry.count == 0);
        let Some(free) = free.filter(|_| count <= BRIEF_COUNT) else { return false };
        *free = Brief { at_low, count };
        true
    }

    #[inline(always)]
    fn clear(&mut self) -> bool {
        self.entries = Default::default();
        true
    }
}

/// What a line says of a ring.
#[inline]
pub(super) fn ring_words(ring: &Ring) -> [u64; 3] {
    [pair(ring.number, ring.first), pair(ring.sum, ring.len), 0]
}

/// Lower half of the moment of opening, which is at most a window before the newest instant; or, where
/// nothing may join the entry any more, some moment that is further away.
fn opened_low(head: &Head) -> u32 {
    let apart = head.at.saturating_sub(head.opened).min(REACH);
    (head.at as u32).wrapping_sub(apart as u32)
}

#[inline]
fn pair(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

#[inline]
fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}
