//! What clients' logs are made of beside their lines: the rings and blocks that some need, and how a
//! log is read from all of it, changed, and written again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    codec::{self, Counted, Form, Note, Ones},
    line::{Body, Guard, Line, State},
    ring::{LONGEST, Rings},
};
use crate::limit::{
    store::{SlidingWindow, Take},
    window::{FEW, Head, Older, Past, REACH, Step, before},
};

/// Rings and blocks of some clients.
///
/// Locks are taken in this order: that of a line; that of the blocks, one at a time.
pub(super) struct Logs {
    rings: Rings,
    blocks: Mutex<Blocks>,
}

/// Older entries that fit neither into a line nor into a ring, by number.
#[derive(Default)]
struct Blocks {
    older: Vec<Older>,
    free: Vec<u32>,
}

impl Logs {
    /// For so many lines.
    pub(super) fn new(lines: usize) -> Self {
        Self { rings: Rings::new(lines), blocks: Mutex::default() }
    }

    /// Counts a request as [`Head::begin`] does, where the line is still as it was in this state, when
    /// its head was this. `None` where it isn't, or more is needed; what the head is then, means nothing.
    #[inline(never)]
    pub(super) fn begin(
        &self,
        (line, state): (Line<'_>, State),
        head: &mut Head,
        take: &Take,
        now: u64,
        resolution: u32,
    ) -> Option<()> {
        let mut guard = line.lock(state)?;
        let (before, quota, cost) = (*head, &take.quota, take.cost);
        let (step, older, is_full) = match Note(state.note()).form() {
            Form::Ones(len) => {
                let mut ones = Ones::of(&guard, len);
                let step = head.begin(&mut ones, now, quota, cost, resolution);
                (step, ones.words(), len as usize == FEW)
            }
            Form::Counted => {
                let mut counted = Counted::of(&guard, head);
                let step = head.begin(&mut counted, now, quota, cost, resolution);
                (step, counted.words(), false)
            }
            Form::Ring => {
                let ring = codec::ring(&guard);
                let mut entries = self.rings.at(ring)?;
                let step = head.begin(&mut entries, now, quota, cost, resolution);
                let is_full = !ring.has_room_for(ring.len as usize + 1);
                (step, (Form::Ring, codec::ring_words(&entries.ring)), is_full)
            }
            Form::Block => return None,
        };
        match step {
            Step::Counted => codec::write_begun(&mut guard, head, older),
            _ if is_full => {
                *head = before;
                self.begin_in_longer(&mut guard, head, take, now, resolution)?;
            }
            _ => return None,
        }
        Some(())
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
                let mut entries = self.rings.at(self.rings.reserve(own.len as usize + 1)?)?;
                for (at, count) in self.rings.at(own)?.iter() {
                    entries.push(at, count);
                }
                entries
            }
            _ => {
                let older = codec::older(head, guard);
                let mut entries = self.rings.at(self.rings.reserve(older.len() + 1)?)?;
                for entry in older.entries(head.at) {
                    entries.push(entry.at as u32, entry.count);
                }
                entries
            }
        };
        if head.begin(&mut entries, now, &take.quota, take.cost, resolution) != Step::Counted {
            self.rings.release(entries.ring);
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
        let Some(entries) = self.rings.at(codec::ring(guard)) else { return older };
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
                let ring = self.rings.reserve(older.len())?;
                self.release(guard, form);
                ring
            }
        };
        let mut entries = self.rings.at(ring)?;
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
            Form::Ring => self.rings.release(codec::ring(guard)),
            Form::Block => self.blocks().release(codec::block(guard)),
        }
    }

    /// The log of a client who is new.
    pub(super) fn begin_with(&self, guard: &mut Guard<'_>, whose: u16, log: SlidingWindow) {
        self.write(guard, whose, Form::Ones(0), log);
    }

    /// Forgets what stands in a line, which is nobody's from then on.
    pub(super) fn forget(&self, guard: &mut Guard<'_>) {
        self.release(guard, Note(guard.note()).form());
        guard.set_note(Note::FREE.0);
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        // No code that runs under this lock leaves anything half changed.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much beside the lines was ever in use at once: rings, in their units, and blocks.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.rings.begun() + self.blocks().older.len()
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
pub(super) fn head_of(line: Line<'_>, state: State) -> Head {
    codec::head(Note(state.note()), |index| line.word(index))
}
