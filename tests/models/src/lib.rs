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

use line::{Guard, KEY, Line, State};
use loom::{sync::Arc, thread};

const USED: usize = 2;
const TWICE: usize = 7;

/// What a reader has seen of a line.
#[derive(Clone, Copy)]
struct Seen {
    state: State,
    key: u64,
    used: u64,
    twice: u64,
}

fn look(line: &Line) -> Seen {
    let state = line.state();
    Seen { state, key: line.word(KEY), used: line.word(USED), twice: line.word(TWICE) }
}

fn set(guard: &mut Guard<'_>, used: u64) {
    guard.set(USED, used);
    guard.set(TWICE, 2 * used);
}

/// As `decide_by_head` does: decided by what was read, and counted under the lock of that very state;
/// `None` where somebody was here meanwhile, or it is another's.
fn decide(line: &Line, key: u64, limit: u64) -> Option<bool> {
    let seen = look(line);
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
fn line(key: u64, used: u64) -> Arc<Line> {
    let line = Line::default();
    give(&line, key, used);
    Arc::new(line)
}

fn give(line: &Line, key: u64, used: u64) {
    let mut guard = line.lock(line.state()).expect("nobody else locks it");
    guard.set(KEY, key);
    set(&mut guard, used);
    guard.set_note(1);
}

fn used(line: &Line) -> u64 {
    look(line).used
}

/// Both ask twice at most: so that loom comes to an end.
fn ask(line: &Line, key: u64, limit: u64) -> Option<bool> {
    decide(line, key, limit).or_else(|| decide(line, key, limit))
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
                let mut guard = line.lock(line.state()).expect("the reader never locks");
                set(&mut guard, 1);
                drop(guard);
                let mut guard = line.lock(line.state()).expect("the reader never locks");
                set(&mut guard, 3);
            })
        };
        let seen = look(&line);
        if line.is_still(seen.state) {
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
                // As a shard does that makes room: only tried.
                let seen = look(&line);
                let Some(mut guard) = line.lock(seen.state) else { return false };
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
        let both = |lines: &[Arc<Line>; 2]| {
            let mut guards = Vec::new();
            for line in lines {
                loop {
                    if let Some(guard) = line.lock(line.state()) {
                        guards.push(guard);
                        break;
                    }
                    thread::yield_now();
                }
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
