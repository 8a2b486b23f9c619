//! The protocol of a client's line (`src/store/memory/line.rs`), the very file, under loom: every order
//! in which threads can do its steps, and every value that the memory model lets a load return.
//!
//! A line stands here for a log of the simplest kind: a limit, how many are used, and twice that number
//! again in another word, so that a reader who mixes two moments shows.

#![cfg(test)]

// What the models have no use for.
#[allow(dead_code)]
#[path = "../../../src/store/memory/line.rs"]
mod line;

mod sync {
    pub(super) use loom::{
        hint::spin_loop,
        sync::atomic::{AtomicU64, Ordering, fence},
        thread::yield_now,
    };
}

use line::{Guard, KEY, Line, State, WORDS};
use loom::{sync::Arc, thread};
use sync::AtomicU64;

const USED: usize = 2;
const TWICE: usize = 7;

/// The words of a line.
type Words = [AtomicU64; WORDS];

/// What a reader has seen of a line.
#[derive(Clone, Copy)]
struct Seen {
    state: State,
    key: u64,
    used: u64,
    twice: u64,
}

fn look(words: &Words) -> Seen {
    let line = Line(words);
    let state = line.state();
    Seen { state, key: line.word(KEY), used: line.word(USED), twice: line.word(TWICE) }
}

fn set(guard: &mut Guard<'_>, used: u64) {
    guard.set(USED, used);
    guard.set(TWICE, 2 * used);
}

/// As `decide_by_head` does: decided by what was read, and counted under the lock of that very state;
/// `None` where somebody was here meanwhile, or it is another's.
fn decide(words: &Words, key: u64, limit: u64) -> Option<bool> {
    let (line, seen) = (Line(words), look(words));
    if seen.key != key || seen.state.note() == 0 {
        return None;
    }
    if seen.used >= limit {
        return line.is_still(seen.state).then(|| {
            assert_eq!(seen.twice, 2 * seen.used, "two moments were mixed");
            false
        });
    }
    let mut guard = line.lock(seen.state)?;
    assert_eq!(seen.twice, 2 * seen.used, "two moments were mixed");
    assert_eq!(guard.word(USED), seen.used, "it was decided by what is no more");
    set(&mut guard, seen.used + 1);
    Some(true)
}

/// The line of a client of this key, who has used so many.
fn line(key: u64, used: u64) -> Arc<Words> {
    let words = free();
    give(&words, key, used);
    words
}

/// A line that is nobody's.
fn free() -> Arc<Words> {
    Arc::new(std::array::from_fn(|_| AtomicU64::new(0)))
}

fn give(words: &Words, key: u64, used: u64) {
    let line = Line(words);
    let mut guard = line.lock(line.state()).expect("nobody else locks it");
    guard.set(KEY, key);
    set(&mut guard, used);
    guard.set_note(1);
}

fn used(words: &Words) -> u64 {
    look(words).used
}

/// Both ask twice at most: so that loom comes to an end.
fn ask(line: &Words, key: u64, limit: u64) -> Option<bool> {
    decide(line, key, limit).or_else(|| decide(line, key, limit))
}

fn locked(words: &Words) -> Guard<'_> {
    loop {
        let line = Line(words);
        match line.lock(line.state()) {
            Some(guard) => return guard,
            None => thread::yield_now(),
        }
    }
}

#[test]
fn the_last_of_a_limit_is_admitted_once() {
    loom::model(|| {
        let line = line(7, 0);
        let other = {
            let line = Arc::clone(&line);
            thread::spawn(move || ask(&line, 7, 1))
        };
        let answers = [ask(&line, 7, 1), other.join().expect("no panic")];
        let admitted = answers.iter().filter(|answer| **answer == Some(true)).count();
        assert!(admitted <= 1, "{answers:?}");
        assert_eq!(used(&line), admitted as u64, "{answers:?}");
        assert!(admitted == 1, "somebody always gets on: {answers:?}");
    });
}

#[test]
fn no_admission_is_lost() {
    loom::model(|| {
        let line = line(7, 0);
        let other = {
            let line = Arc::clone(&line);
            thread::spawn(move || ask(&line, 7, 9))
        };
        let answers = [ask(&line, 7, 9), other.join().expect("no panic")];
        let admitted = answers.iter().filter(|answer| **answer == Some(true)).count();
        assert_eq!(used(&line), admitted as u64, "{answers:?}");
        assert_eq!(look(&line).twice, 2 * used(&line));
    });
}

#[test]
fn a_reader_sees_one_moment_while_another_gives_back() {
    loom::model(|| {
        let line = line(7, 2);
        let other = {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                let line = Line(&line);
                let mut guard = line.lock(line.state()).expect("the reader never locks");
                set(&mut guard, 1);
                drop(guard);
                let mut guard = line.lock(line.state()).expect("the reader never locks");
                set(&mut guard, 3);
            })
        };
        let seen = look(&line);
        if Line(&line).is_still(seen.state) {
            assert_eq!(seen.twice, 2 * seen.used);
        }
        other.join().expect("no panic");
    });
}

#[test]
fn who_finds_a_line_that_is_given_to_another_counts_nothing_there() {
    loom::model(|| {
        let line = line(7, 0);
        let other = {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                // As a segment does that makes room: only tried.
                let seen = look(&line);
                let Some(mut guard) = Line(&line).lock(seen.state) else { return false };
                guard.set_note(0);
                drop(guard);
                give(&line, 8, 0);
                true
            })
        };
        let answer = decide(&line, 7, 9);
        let given = other.join().expect("no panic");
        let seen = look(&line);
        if given {
            assert_eq!((seen.key, seen.used), (8, 0), "{answer:?}");
        } else {
            assert_eq!((seen.key, seen.used, answer), (7, 1, Some(true)));
        }
    });
}

#[test]
fn two_limits_are_counted_together_or_not_at_all_and_nobody_waits_for_ever() {
    loom::model(|| {
        let lines = [line(7, 0), line(8, 0)];
        // As `decide_all` does: both locked in one order, decided, counted.
        let both = |lines: &[Arc<Words>; 2]| {
            let mut guards = Vec::new();
            for line in lines {
                guards.push(locked(line));
            }
            let room = guards.iter().all(|guard| guard.word(USED) < 1);
            if room {
                for guard in &mut guards {
                    let used = guard.word(USED);
                    set(guard, used + 1);
                }
            }
            room
        };
        let other = {
            let lines = lines.clone();
            thread::spawn(move || both(&lines))
        };
        let answers = [both(&lines), other.join().expect("no panic")];
        assert_eq!(answers.iter().filter(|answer| **answer).count(), 1);
        assert_eq!(lines.each_ref().map(|line| used(line)), [1, 1]);
    });
}

/// As `Held::remove` does: the client of the first line goes, and the second's follows into it.
fn remove_first([first, second]: &[Arc<Words>; 2]) {
    let mut hole = locked(first);
    hole.set_note(0);
    let mut other = locked(second);
    hole.put(other.contents());
    other.set_note(0);
    drop(hole);
    drop(other);
}

/// As a table is searched from the first line on. `None` where it says nothing: not found, or changed meanwhile.
fn find_and_ask(lines: &[Arc<Words>; 2], key: u64, limit: u64) -> Option<bool> {
    for line in lines {
        let seen = look(line);
        if seen.key == key && seen.state.note() != 0 {
            return decide(line, key, limit);
        }
        if seen.state.note() == 0 {
            return None;
        }
    }
    None
}

#[test]
fn who_moves_meanwhile_is_counted_where_he_is_then_or_not_at_all() {
    loom::model(|| {
        let lines = [line(8, 0), line(7, 1)];
        let other = {
            let lines = lines.clone();
            thread::spawn(move || find_and_ask(&lines, 7, 2))
        };
        remove_first(&lines);
        let answer = other.join().expect("no panic");
        let [first, second] = lines.each_ref().map(|line| look(line));
        assert_eq!((first.key, first.state.note() != 0), (7, true));
        assert_eq!(second.state.note(), 0, "he is in one place");
        assert_eq!(first.used, 1 + u64::from(answer == Some(true)), "{answer:?}");
        assert_eq!(first.twice, 2 * first.used);
    });
}

#[test]
fn who_is_refused_is_refused_wherever_he_moves() {
    loom::model(|| {
        let lines = [line(8, 0), line(7, 2)];
        let other = {
            let lines = lines.clone();
            thread::spawn(move || find_and_ask(&lines, 7, 2))
        };
        remove_first(&lines);
        assert_ne!(other.join().expect("no panic"), Some(true));
        // The line that he left is another's soon.
        give(&lines[1], 9, 0);
        assert_eq!(find_and_ask(&lines, 7, 2), Some(false));
    });
}
