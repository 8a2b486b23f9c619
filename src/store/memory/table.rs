//! Who stands where: the lines of all clients, in one piece of memory.
//!
//! A client's [`Line`] is the first, from where its hash points to, that was free when it came. So it is
//! found with one look into memory, mostly. The lines are in segments, each with a lock for who comes
//! and goes; whoever asks for a client that is known takes none.
//!
//! Clients move. Where one leaves, those behind it that had to make way for it follow; and where a
//! segment fills up, all of them are looked for in more lines. Who looks for one meanwhile may miss it,
//! so only [`Held`] knows that somebody isn't there.
//!
//! Locks are taken in this order, so that no two wait for one another: segments, by number; lines, by
//! slot. Who moves clients locks their lines, so a request holds none of its own while room is made for it.

use std::{
    cmp::Reverse,
    iter,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    clients::{Client, Clients},
    codec::Note,
    line::{Contents, Guard, KEY, Line, Patience, State, WORDS},
    logs::{Logs, head_of},
    words::Words,
};
use crate::{
    Key, StoreError,
    limit::{LimiterName, store::SlidingWindow},
};

/// In cache lines of its own, so that what is written by different threads isn't in one.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

pub(super) struct Table {
    clients: Clients,
    lines: Words,
    /// In so many lines of a segment clients are looked for first. Grows, for all segments at once.
    length: AtomicUsize,
    longest: usize,
    /// The most clients of a segment.
    capacity: usize,
    segments: Box<[Apart<Mutex<Segment>>]>,
    /// What clients have beside their lines.
    logs: Box<[Apart<Logs>]>,
}

/// What is known of a segment, to who adds or removes a client.
#[derive(Default)]
struct Segment {
    /// By which [`Table::length`] its clients stand.
    length: usize,
    clients: usize,
    /// No line from this one on was ever in use since they stand so.
    end: usize,
    /// The line where the search for idle clients goes on.
    hand: usize,
}

/// The most clients of a segment: few, so that all are soon moved.
const MOST: usize = 3_200;
/// There are so many segments, unless that leaves them fewer clients than this: so many can come at once.
const SEGMENTS: usize = 16;
const FEW: usize = 256;
const SHORTEST: usize = 16;
/// Lines behind the longest length, for who finds none free before. As at most 4 of 5 lines are in use,
/// the chance that a segment needs so many is below 10^-50: that of a queue so long whose server, which
/// takes one each time, has nothing to do for a fifth of the time.
const SPARE: usize = 256;
/// So many lines of a segment stand beside one another; then come as many of each other segment, and then
/// the next of this one. So what is in use is in few pages of memory, however many there may come to be:
/// the line of a client whose page the processor doesn't know takes nearly twice as long.
const RUN: usize = 16;
/// Looked at for each new client, so that idle ones leave as fast as new ones come.
const SWEPT: usize = 10;
/// So many are looked at for one that makes room.
const SAMPLED: usize = 32;

/// A client, and where it is looked for.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) client: Client,
    hash: u64,
}

/// A line, by its number in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    segment: usize,
    index: usize,
}

/// A line that was found.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) slot: Slot,
    pub(super) line: Line<'a>,
    /// As which it was the client's.
    pub(super) state: State,
}

impl Table {
    /// At most about so many clients.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, usize::MAX >> 10);
        let few = (capacity / FEW).clamp(1, SEGMENTS);
        let segments = capacity.div_ceil(MOST).max(few);
        let capacity = capacity.div_ceil(segments);
        let longest = (capacity * 5 / 4).max(SHORTEST);
        let logs = segments.min(SEGMENTS);
        let lines_of_logs = (capacity * segments).div_ceil(logs);
        Self {
            clients: Clients::default(),
            lines: Words::zeroed(segments * (longest + SPARE).next_multiple_of(RUN) * WORDS),
            length: AtomicUsize::new(SHORTEST),
            longest,
            capacity,
            segments: iter::repeat_with(Apart::default).take(segments).collect(),
            logs: iter::repeat_with(|| Apart(Logs::new(lines_of_logs))).take(logs).collect(),
        }
    }

    #[inline]
    pub(super) fn place(&self, limiter: LimiterName, key: &Key) -> Place {
        self.place_of(self.clients.client(limiter, key))
    }

    #[inline]
    fn place_of(&self, client: Client) -> Place {
        Place { client, hash: self.clients.place(client) }
    }

    /// The number of the segment where a client is, or would be: by the upper half of the hash.
    #[inline]
    pub(super) fn segment_of(&self, place: &Place) -> usize {
        scaled(place.hash >> 32, self.segments.len())
    }

    /// Where a client's line is looked for first: by the segment, and the lower half of the hash.
    #[inline]
    fn home(&self, place: &Place, length: usize) -> Slot {
        Slot { segment: self.segment_of(place), index: scaled(place.hash & LOWER, length) }
    }

    #[inline(always)]
    fn line(&self, Slot { segment, index }: Slot) -> Option<Line<'_>> {
        let run = index / RUN * self.segments.len() + segment;
        self.lines.from((run * RUN + index % RUN) * WORDS)?.first_chunk().map(Line)
    }

    /// What the client has beside its line.
    #[inline]
    pub(super) fn logs(&self, place: &Place) -> &Logs {
        &self.logs[scaled(place.hash >> 32, self.logs.len())].0
    }

    /// The line of a client. `None` means that it isn't known only to who [holds](Self::hold) the segment.
    #[inline(always)]
    pub(super) fn find(&self, place: &Place) -> Option<Found<'_>> {
        // As it was a moment ago: who misses somebody by that holds the segment next.
        self.find_from(place, self.home(place, self.length.load(Ordering::Relaxed)))
    }

    #[inline(always)]
    fn find_from(&self, place: &Place, mut slot: Slot) -> Option<Found<'_>> {
        loop {
            let line = self.line(slot)?;
            let state = line.state();
            let whose = Note(state.note()).whose();
            if line.word(KEY) == place.client.key && whose == place.client.whose {
                return Some(Found { slot, line, state });
            }
            if whose == 0 {
                return None;
            }
            slot.index += 1;
        }
    }

    /// The line of a client, locked; `None` as [`find`](Self::find) says it.
    pub(super) fn lock(&self, place: &Place) -> Option<(Slot, Guard<'_>)> {
        locked(|| self.find(place))
    }

    /// The segment where this client is, or would be.
    pub(super) fn hold(&self, place: &Place) -> Held<'_> {
        let number = self.segment_of(place);
        let mut held = Held { table: self, number, segment: self.lock_segment(number) };
        held.follow();
        held
    }

    /// Who stands in a slot, for who holds its segment.
    fn client(&self, slot: Slot) -> Option<Client> {
        let line = self.line(slot)?;
        let whose = Note(line.state().note()).whose();
        (whose != 0).then(|| Client { whose, key: line.word(KEY) })
    }

    /// The line of whoever stands in a slot, for who holds its segment.
    fn lock_slot(&self, slot: Slot) -> Option<Guard<'_>> {
        let found = || {
            let line = self.line(slot)?;
            self.client(slot).map(|_| Found { slot, line, state: line.state() })
        };
        locked(found).map(|(_, guard)| guard)
    }

    fn lock_segment(&self, number: usize) -> MutexGuard<'_, Segment> {
        // No code that runs under these locks leaves anything half changed.
        self.segments[number].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        (0..self.segments.len()).map(|number| self.lock_segment(number).clients).sum()
    }

    /// How much beside the lines was ever in use at once.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.logs.iter().map(|logs| logs.0.in_use()).sum()
    }
}

/// A segment whose clients come and go only through this.
pub(super) struct Held<'a> {
    table: &'a Table,
    number: usize,
    segment: MutexGuard<'a, Segment>,
}

impl<'a> Held<'a> {
    /// Whether it is this client's.
    pub(super) fn is_of(&self, place: &Place) -> bool {
        self.table.segment_of(place) == self.number
    }

    /// The line of a client; `None` where it isn't known.
    pub(super) fn find(&self, place: &Place) -> Option<Found<'a>> {
        self.table.find_from(place, self.home(place))
    }

    /// The same, locked.
    pub(super) fn lock(&self, place: &Place) -> Option<(Slot, Guard<'a>)> {
        locked(|| self.find(place))
    }

    /// Adds a client, who is not there, with this log. Expects that [room was made](Self::make_room).
    pub(super) fn insert(&mut self, place: &Place, log: SlidingWindow) -> Result<(), StoreError> {
        let mut guard = self.free(place).ok_or_else(full)?;
        self.segment.clients += 1;
        guard.set(KEY, place.client.key);
        self.table.logs(place).begin_with(&mut guard, place.client.whose, log);
        Ok(())
    }

    /// Lets idle clients go, and, where the segment is too full for so many, others; but none of those
    /// whose request it is.
    pub(super) fn make_room(
        &mut self,
        now: u64,
        newcomers: usize,
        own: &[Place],
    ) -> Result<(), StoreError> {
        for _ in 0..(SWEPT * newcomers).min(self.segment.end) {
            let slot = self.next();
            if let Some((line, state)) = self.candidate(slot, own)
                && head_of(line, state).is_idle(now)
            {
                self.remove_from(slot, state);
            }
        }
        // Some may be in use just now.
        let mut tries = 4 * newcomers;
        while self.segment.clients + newcomers > self.table.capacity.max(newcomers) {
            let sampled = (0..self.segment.end).filter_map(|_| {
                let slot = self.next();
                let (line, state) = self.candidate(slot, own)?;
                let head = head_of(line, state);
                let room = if head.is_idle(now) { u8::MAX } else { head.room };
                Some(((room, Reverse(head.used)), slot, state))
            });
            // Of those that are as far from their limit: whoever it matters least for.
            let best = sampled.take(SAMPLED).max_by_key(|(room, ..)| *room);
            let Some((_, slot, state)) = best.filter(|((room, _), ..)| *room > 0 && tries > 0)
            else {
                return Err(full());
            };
            tries -= 1;
            self.remove_from(slot, state);
        }
        while self.is_full_with(newcomers) && self.lengthen() {}
        Ok(())
    }

    /// Forgets a client.
    pub(super) fn forget(&mut self, place: &Place) {
        if let Some((slot, guard)) = self.lock(place) {
            self.remove(slot, guard);
        }
    }

    fn home(&self, place: &Place) -> Slot {
        self.table.home(place, self.segment.length)
    }

    fn slot(&self, index: usize) -> Slot {
        Slot { segment: self.number, index }
    }

    /// The next slot that is looked at for who might leave.
    fn next(&mut self) -> Slot {
        let segment = &mut *self.segment;
        segment.hand = if segment.hand + 1 < segment.end { segment.hand + 1 } else { 0 };
        let hand = segment.hand;
        self.slot(hand)
    }

    /// The first line for this client that is free, locked.
    fn free(&mut self, place: &Place) -> Option<Guard<'a>> {
        let mut indices = self.home(place).index..self.table.longest + SPARE;
        let index = indices.find(|index| self.table.client(self.slot(*index)).is_none())?;
        self.segment.end = self.segment.end.max(index + 1);
        // Nobody else locks a line that is nobody's.
        let line = self.table.line(self.slot(index))?;
        line.lock(line.state())
    }

    /// A line of somebody who may have to leave.
    fn candidate(&self, slot: Slot, own: &[Place]) -> Option<(Line<'a>, State)> {
        let line = self.table.line(slot)?;
        let (state, client) = (line.state(), self.table.client(slot)?);
        let free = !state.is_locked() && own.iter().all(|place| place.client != client);
        free.then_some((line, state))
    }

    /// Removes who stands there, unless the line was changed since it was in this state.
    fn remove_from(&mut self, slot: Slot, state: State) {
        if let Some(guard) = self.table.line(slot).and_then(|line| line.lock(state)) {
            self.remove(slot, guard);
        }
    }

    /// Removes who stands there, and moves whoever had to make way for it: no line between a client's home
    /// and its own is free.
    fn remove(&mut self, slot: Slot, mut guard: Guard<'a>) {
        let Some(place) = self.table.client(slot).map(|client| self.table.place_of(client)) else {
            return;
        };
        self.table.logs(&place).forget(&mut guard);
        self.segment.clients -= 1;
        let mut hole = slot;
        for slot in (slot.index + 1..self.segment.end).map(|index| self.slot(index)) {
            let Some(client) = self.table.client(slot) else { break };
            if self.home(&self.table.place_of(client)) > hole {
                continue;
            }
            let Some(mut other) = self.table.lock_slot(slot) else { break };
            guard.put(other.contents());
            other.set_note(Note::FREE.0);
            // Now it is there; and here it is no more, before anybody gets to this line.
            (guard, hole) = (other, slot);
        }
    }

    fn is_full_with(&self, newcomers: usize) -> bool {
        (self.segment.clients + newcomers) * 5 > self.segment.length * 4
    }

    /// Lets all segments have more lines, from this one on. `false` where they have all.
    fn lengthen(&mut self) -> bool {
        let length = self.segment.length;
        let longer = (length + length / 6).min(self.table.longest);
        self.table.length.fetch_max(longer, Ordering::Relaxed);
        self.follow();
        longer > length
    }

    /// Moves all clients to where they are looked for by now.
    fn follow(&mut self) {
        let length = self.table.length.load(Ordering::Relaxed);
        if self.segment.length == length {
            return;
        }
        let mut moving: Vec<Contents> = Vec::with_capacity(self.segment.clients);
        let slots = (0..self.segment.end).map(|index| self.slot(index));
        for mut guard in slots.filter_map(|slot| self.table.lock_slot(slot)) {
            moving.push(guard.contents());
            guard.set_note(Note::FREE.0);
        }
        *self.segment = Segment { length, ..Segment::default() };
        for contents in moving {
            let client = Client { whose: Note(contents.note).whose(), key: contents.key };
            // Where there is none, see `SPARE`, it is as if it had made room.
            if let Some(mut guard) = self.free(&self.table.place_of(client)) {
                guard.put(contents);
                self.segment.clients += 1;
            }
        }
    }
}

/// Locks a line once whoever is at it is done: that of which it is said each time.
fn locked<'a>(find: impl Fn() -> Option<Found<'a>>) -> Option<(Slot, Guard<'a>)> {
    let mut patience = Patience::default();
    loop {
        let found = find()?;
        if let Some(guard) = found.line.lock(found.state) {
            return Some((found.slot, guard));
        }
        patience.wait();
    }
}

const LOWER: u64 = u32::MAX as u64;

/// A number of 32 bits, as a part of so many.
#[inline]
fn scaled(part: u64, of: usize) -> usize {
    ((part * of as u64) >> 32) as usize
}

#[cold]
fn full() -> StoreError {
    StoreError::unavailable("every client remembered is at its limit")
}
