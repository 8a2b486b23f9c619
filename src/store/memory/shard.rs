//! A part of a store's clients: lines that never move, and an index of them.
//!
//! Whoever asks for a client that is known takes no lock of the shard's: the index is read as it
//! stands, and what it says is looked up in the [`Line`] itself. New clients come, and others go,
//! under the lock of the [`Table`]; only there a client that was not found is really not there.
//!
//! Locks are taken in this order, so that nobody waits for one another: tables, by shard; lines, by shard
//! and slot; blocks, one at a time. Who makes room for a client only tries lines.

use std::{
    iter,
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use super::{
    clients::{Client, Clients},
    codec::{self, Counted, Form, Note, Ones},
    line::{Body, Guard, KEY, Line, Patience, State},
    ring::{LONGEST, Rings},
};
use crate::{
    StoreError,
    limit::{
        store::{SlidingWindow, Take},
        window::{FEW, Head, Older, Past, REACH, Step, before},
    },
};

/// In cache lines of its own, so that what is written by different threads isn't in one.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

pub(super) struct Shard {
    /// Which of the indexes is in use.
    level: AtomicUsize,
    /// Each twice as long as the one before. An entry is a slot, from 1, and 16 bits of the client's hash.
    indexes: [OnceLock<Box<[AtomicU32]>>; LEVELS],
    chunks: Box<[OnceLock<Box<Chunk>>]>,
    capacity: usize,
    table: Apart<Mutex<Table>>,
    rings: Apart<Rings>,
    blocks: Apart<Mutex<Blocks>>,
}

type Chunk = [Line; CHUNK];

/// What is known of the slots, to who adds or removes a client.
#[derive(Default)]
pub(super) struct Table {
    /// So many slots have ever been in use.
    begun: usize,
    /// Those that are in use no more.
    free: Vec<usize>,
    /// The slot where the search for idle clients goes on.
    hand: usize,
}

/// Older entries that fit neither into a line nor into a ring, by number.
#[derive(Default)]
struct Blocks {
    older: Vec<Older>,
    free: Vec<u32>,
}

const CHUNK: usize = 256;
const LEVELS: usize = 12;
const SHORTEST_INDEX: usize = 64;
/// The most clients of a shard: they fill the longest index to three eighths.
pub(super) const MOST: usize = 3 << 14;
/// Looked at for each new client, so that idle ones leave as fast as new ones come.
const SWEPT: usize = 8;
/// So many are looked at for one that makes room.
const SAMPLED: usize = 32;

/// A client, and where it is looked for.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) client: Client,
    pub(super) hash: u64,
}

impl Place {
    /// From the middle of the hash: other bits than chose shard and place in the index.
    #[inline]
    fn tag(&self) -> u32 {
        (self.hash >> 16) as u32 & !SLOT
    }
}

/// The bits of an index's entry that are a slot.
const SLOT: u32 = 0xffff;

/// A line that was found.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) slot: usize,
    pub(super) line: &'a Line,
    /// As which it was the client's.
    pub(super) state: State,
}

/// A log whose newest entry is a request that has just begun it: what of its head is answered.
// In two registers.
pub(super) struct Begun {
    pub(super) used: NonZeroU32,
    pub(super) oldest: u64,
}

impl Shard {
    /// At most so many clients, and at most [`MOST`].
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, MOST);
        // A request under several limits may add some beyond it.
        let chunks = capacity.div_ceil(CHUNK) + 1;
        Self {
            level: AtomicUsize::new(0),
            indexes: Default::default(),
            chunks: iter::repeat_with(OnceLock::new).take(chunks).collect(),
            capacity,
            table: Apart::default(),
            rings: Apart(Rings::new(capacity)),
            blocks: Apart::default(),
        }
    }

    /// The line of a client. `None` means that it isn't known only to who holds the [`Table`].
    #[inline(always)]
    pub(super) fn find(&self, place: &Place) -> Option<Found<'_>> {
        let index = self.indexes.get(self.level.load(Ordering::Acquire))?.get()?;
        let (mask, tag) = (index.len() - 1, place.tag());
        let mut at = place.hash as usize;
        // At least a quarter of the entries is empty.
        loop {
            let entry = index.get(at & mask)?.load(Ordering::Acquire);
            if entry & !SLOT == tag || entry == 0 {
                // Where there is none, so is no line of this number.
                let slot = ((entry & SLOT) as usize).wrapping_sub(1);
                let line = self.line(slot)?;
                let state = line.state();
                if Note(state.note()).whose() == place.client.whose
                    && line.word(KEY) == place.client.key
                {
                    return Some(Found { slot, line, state });
                }
            }
            at = at.wrapping_add(1);
        }
    }

    /// The line of a client, locked.
    pub(super) fn lock(&self, place: &Place) -> Option<(Found<'_>, Guard<'_>)> {
        let mut patience = Patience::default();
        loop {
            let found = self.find(place)?;
            if let Some(guard) = found.line.lock(found.state) {
                return Some((found, guard));
            }
            patience.wait();
        }
    }

    #[inline(always)]
    fn line(&self, slot: usize) -> Option<&Line> {
        Some(&self.chunks.get(slot / CHUNK)?.get()?[slot % CHUNK])
    }

    /// Counts a request as [`Head::begin`] does, where the line is still as it was in this state.
    #[inline(never)]
    pub(super) fn begin(
        &self,
        line: &Line,
        state: State,
        take: &Take,
        now: u64,
        resolution: u32,
    ) -> Option<Begun> {
        let mut guard = line.lock(state)?;
        let note = Note(state.note());
        let before = codec::head(note, |index| line.word(index));
        let mut head = before;
        let (now, quota, cost) = (now.max(head.at), &take.quota, take.cost);
        let (step, older, is_full) = match note.form() {
            Form::Ones(len) => {
                let mut ones = Ones::of(&guard, len);
                let step = head.begin(&mut ones, now, quota, cost, resolution);
                (step, ones.words(), len as usize == FEW)
            }
            Form::Counted => {
                let mut counted = Counted::of(&guard, &head);
                let step = head.begin(&mut counted, now, quota, cost, resolution);
                (step, counted.words(), false)
            }
            Form::Ring => {
                let ring = codec::ring(&guard);
                let mut entries = self.rings.0.at(ring)?;
                let step = head.begin(&mut entries, now, quota, cost, resolution);
                let is_full = !ring.has_room_for(ring.len as usize + 1);
                (step, (Form::Ring, codec::ring_words(&entries.ring)), is_full)
            }
            Form::Block => return None,
        };
        match step {
            Step::Counted => codec::write_begun(&mut guard, &head, older),
            _ if is_full => {
                head = before;
                self.begin_in_longer(&mut guard, &mut head, take, now, resolution)?;
            }
            _ => return None,
        }
        Some(Begun { used: NonZeroU32::new(head.used)?, oldest: head.oldest })
    }

    /// The same with a ring that is longer than what the log has.
    #[inline(never)]
    fn begin_in_longer(
        &self,
        guard: &mut Guard<'_>,
        head: &mut Head,
        take: &Take,
        now: u64,
        resolution: u32,
    ) -> Option<()> {
        let form = Note(guard.note()).form();
        let mut entries = match form {
            Form::Ring => {
                let own = codec::ring(guard);
                let mut entries = self.rings.0.at(self.rings.0.reserve(own.len as usize + 1)?)?;
                for (at, count) in self.rings.0.at(own)?.iter() {
                    entries.push(at, count);
                }
                entries
            }
            _ => {
                let older = codec::older(head, guard);
                let mut entries = self.rings.0.at(self.rings.0.reserve(older.len() + 1)?)?;
                for entry in older.entries(head.at) {
                    entries.push(entry.at as u32, entry.count);
                }
                entries
            }
        };
        if head.begin(&mut entries, now, &take.quota, take.cost, resolution) != Step::Counted {
            self.rings.0.release(entries.ring);
            return None;
        }
        self.release(guard, form);
        codec::write_begun(guard, head, (Form::Ring, codec::ring_words(&entries.ring)));
        Some(())
    }

    /// Changes a log. Nothing is written where it is as before.
    pub(super) fn change<T>(
        &self,
        guard: &mut Guard<'_>,
        change: impl FnOnce(&mut SlidingWindow) -> T,
    ) -> T {
        let note = Note(guard.note());
        let head = codec::head(note, |index| guard.word(index));
        let older = match note.form() {
            Form::Ones(_) | Form::Counted => codec::older(&head, guard),
            Form::Ring => self.in_ring(&head, guard),
            Form::Block => self.blocks().take(codec::block(guard)),
        };
        let mut log = SlidingWindow { head, older };
        let answer = change(&mut log);
        if log.head != head {
            self.write(guard, note.whose(), note.form(), log);
        } else if note.form() == Form::Block {
            self.blocks().put(codec::block(guard), log.older);
        }
        answer
    }

    fn in_ring(&self, head: &Head, guard: &Guard<'_>) -> Older {
        let mut older = Older::default();
        let Some(entries) = self.rings.0.at(codec::ring(guard)) else { return older };
        for (at_low, count) in entries.iter() {
            older.push(before(head.at, at_low), count);
        }
        older
    }

    /// Writes a log where one of this form stood.
    fn write(&self, guard: &mut Guard<'_>, whose: u16, form: Form, log: SlidingWindow) {
        let packed = match codec::in_line(whose, &log) {
            Some(packed) => packed,
            None => match self.to_ring(guard, whose, form, &log) {
                Some(packed) => return codec::write(guard, packed),
                None => return self.to_block(guard, whose, form, log),
            },
        };
        self.release(guard, form);
        codec::write(guard, packed);
    }

    /// A log whose older entries are in a ring, the one that it had, where they fit; `None` where no ring
    /// can hold them.
    fn to_ring(
        &self,
        guard: &Guard<'_>,
        whose: u16,
        form: Form,
        log: &SlidingWindow,
    ) -> Option<(Note, Body)> {
        let SlidingWindow { head, older } = log;
        if head.window > REACH || older.is_on_trial() || older.len() > LONGEST {
            return None;
        }
        let own = (form == Form::Ring).then(|| codec::ring(guard).emptied());
        let ring = match own.filter(|ring| ring.has_room_for(older.len())) {
            Some(ring) => ring,
            None => {
                let ring = self.rings.0.reserve(older.len())?;
                self.release(guard, form);
                ring
            }
        };
        let mut entries = self.rings.0.at(ring)?;
        for entry in older.entries(head.at) {
            entries.push(entry.at as u32, entry.count);
        }
        Some(codec::with_ring(whose, head, &entries.ring))
    }

    fn to_block(&self, guard: &mut Guard<'_>, whose: u16, form: Form, log: SlidingWindow) {
        let mut blocks = self.blocks();
        let number = if form == Form::Block { codec::block(guard) } else { blocks.reserve() };
        blocks.put(number, log.older);
        drop(blocks);
        if form != Form::Block {
            self.release(guard, form);
        }
        codec::write(guard, codec::with_block(whose, &log.head, number));
    }

    /// Gives back what a line of this form has besides its words.
    fn release(&self, guard: &Guard<'_>, form: Form) {
        match form {
            Form::Ones(_) | Form::Counted => {}
            Form::Ring => self.rings.0.release(codec::ring(guard)),
            Form::Block => self.blocks().release(codec::block(guard)),
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // No code that runs under these locks leaves anything half changed.
        self.table.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    /// How much beside the lines was ever in use at once: rings, in their units, and blocks.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.rings.0.begun() + self.blocks().older.len()
    }

    /// Adds a client, who is not there, with this log. Expects that [room was
    /// made](Self::make_room).
    pub(super) fn insert(
        &self,
        table: &mut Table,
        clients: &Clients,
        place: &Place,
        log: SlidingWindow,
    ) -> Result<(), StoreError> {
        let slot = table.free.pop().unwrap_or(table.begun);
        let chunk = self.chunks.get(slot / CHUNK).ok_or_else(full)?;
        let line =
            &chunk.get_or_init(|| Box::new(std::array::from_fn(|_| Line::default())))[slot % CHUNK];
        table.begun = table.begun.max(slot + 1);
        // Nobody else locks a line that is nobody's.
        let mut guard = line.lock(line.state()).ok_or_else(full)?;
        guard.set(KEY, place.client.key);
        self.write(&mut guard, place.client.whose, Form::Ones(0), log);
        drop(guard);
        self.enter(table, clients, place, slot);
        Ok(())
    }

    /// Lets idle clients go, and, where the shard is too full for so many, others.
    pub(super) fn make_room(
        &self,
        table: &mut Table,
        clients: &Clients,
        now: u64,
        newcomers: usize,
    ) -> Result<(), StoreError> {
        for _ in 0..(SWEPT * newcomers).min(table.begun) {
            let slot = table.next();
            let idle = |line: &Line, state: State| head_of(line, state).is_idle(now);
            self.remove_if(table, clients, slot, idle);
        }
        // Some may be in use just now.
        let mut tries = 4 * newcomers;
        while table.len() + newcomers > self.capacity.max(newcomers) {
            let sampled = (0..table.begun).filter_map(|_| {
                let slot = table.next();
                let line = self.line(slot)?;
                let state = line.state();
                let note = Note(state.note());
                if state.is_locked() || note.whose() == 0 {
                    return None;
                }
                let room = if head_of(line, state).is_idle(now) { u8::MAX } else { note.room() };
                Some((room, slot, state))
            });
            let best = sampled.take(SAMPLED).max_by_key(|(room, ..)| *room);
            let Some((_, slot, state)) = best.filter(|(room, ..)| *room > 0 && tries > 0) else {
                return Err(full());
            };
            tries -= 1;
            self.remove_if(table, clients, slot, |_, now| now == state);
        }
        Ok(())
    }

    /// Forgets a client.
    pub(super) fn forget(&self, clients: &Clients, place: &Place) {
        let mut table = self.table();
        if let Some((found, guard)) = self.lock(place) {
            self.remove(&mut table, clients, found.slot, guard);
        }
    }

    fn remove_if(
        &self,
        table: &mut Table,
        clients: &Clients,
        slot: usize,
        condition: impl FnOnce(&Line, State) -> bool,
    ) {
        let Some(line) = self.line(slot) else { return };
        let state = line.state();
        if Note(state.note()).whose() != 0
            && condition(line, state)
            && let Some(guard) = line.lock(state)
        {
            self.remove(table, clients, slot, guard);
        }
    }

    fn remove(&self, table: &mut Table, clients: &Clients, slot: usize, mut guard: Guard<'_>) {
        self.leave(clients, slot, &guard);
        self.release(&guard, Note(guard.note()).form());
        guard.set_note(Note::FREE.0);
        drop(guard);
        table.free.push(slot);
    }

    /// Puts a slot into the index, and makes that longer first, where it is three quarters full.
    fn enter(&self, table: &Table, clients: &Clients, place: &Place, slot: usize) {
        let level = self.level.load(Ordering::Relaxed);
        let length = SHORTEST_INDEX << level;
        if table.len() <= length / 4 * 3 || level + 1 == LEVELS {
            let index = self.indexes[level].get_or_init(|| new_index(length));
            put(index, place, slot);
            return;
        }
        // The old one stays, for who reads it just now.
        let index = self.indexes[level + 1].get_or_init(|| new_index(length * 2));
        for slot in 0..table.begun {
            if let Some(place) = self.place_of(clients, slot) {
                put(index, &place, slot);
            }
        }
        self.level.store(level + 1, Ordering::Release);
    }

    /// Takes a slot out of the index, and moves what stands behind it to where it is found.
    fn leave(&self, clients: &Clients, slot: usize, guard: &Guard<'_>) {
        let Some(index) = self.indexes[self.level.load(Ordering::Relaxed)].get() else { return };
        let mask = index.len() - 1;
        let client = Client { whose: Note(guard.note()).whose(), key: guard.word(KEY) };
        let mut hole = clients.place(client) as usize & mask;
        while index[hole].load(Ordering::Relaxed) & SLOT != slot as u32 + 1 {
            if index[hole].load(Ordering::Relaxed) == 0 {
                return;
            }
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = index[at].load(Ordering::Relaxed);
            let Some(slot) = ((entry & SLOT) as usize).checked_sub(1) else { break };
            let Some(place) = self.place_of(clients, slot) else { continue };
            // Whether its own place is not after the hole, as one goes round.
            let home = place.hash as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                index[hole].store(entry, Ordering::Release);
                hole = at;
            }
        }
        index[hole].store(0, Ordering::Release);
    }

    /// Who stands in this slot; only who holds the table may ask.
    fn place_of(&self, clients: &Clients, slot: usize) -> Option<Place> {
        let line = self.line(slot)?;
        let whose = Note(line.state().note()).whose();
        let client = Client { whose, key: line.word(KEY) };
        (whose != 0).then(|| Place { client, hash: clients.place(client) })
    }
}

impl Table {
    fn len(&self) -> usize {
        self.begun - self.free.len()
    }

    fn next(&mut self) -> usize {
        self.hand = if self.hand + 1 < self.begun { self.hand + 1 } else { 0 };
        self.hand
    }
}

impl Blocks {
    fn take(&mut self, number: u32) -> Older {
        self.older.get_mut(number as usize).map(std::mem::take).unwrap_or_default()
    }

    fn reserve(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.older.push(Older::default());
            self.older.len() as u32 - 1
        })
    }

    fn release(&mut self, number: u32) {
        self.take(number);
        self.free.push(number);
    }

    fn put(&mut self, number: u32, older: Older) {
        if let Some(block) = self.older.get_mut(number as usize) {
            *block = older;
        }
    }
}

/// As it stands in a line.
#[inline]
pub(super) fn head_of(line: &Line, state: State) -> Head {
    codec::head(Note(state.note()), |index| line.word(index))
}

fn new_index(length: usize) -> Box<[AtomicU32]> {
    iter::repeat_with(AtomicU32::default).take(length).collect()
}

fn put(index: &[AtomicU32], place: &Place, slot: usize) {
    let mask = index.len() - 1;
    let mut at = place.hash as usize & mask;
    while index[at].load(Ordering::Relaxed) != 0 {
        at = (at + 1) & mask;
    }
    index[at].store(place.tag() | (slot as u32 + 1), Ordering::Release);
}

#[cold]
fn full() -> StoreError {
    StoreError::unavailable("every client remembered is at its limit")
}
