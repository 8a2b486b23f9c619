//! The window against a plain list of instants.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Every request that was admitted and not given back: instant, cost.
#[derive(Default)]
struct Oracle(Vec<(u64, u32)>);

impl Oracle {
    fn counted(&self, after: u64, until: u64) -> u64 {
        let within = self.0.iter().filter(|(at, _)| *at > after && *at <= until);
        within.map(|(_, cost)| u64::from(*cost)).sum()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Take { cost: u32, hold: bool },
    Settle { which: usize, keep: bool },
}

fn step(window: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop_oneof![0..=window / 100, 0..=window / 3, Just(window)].prop_map(Step::Wait),
        5 => (prop_oneof![5 => Just(1u32), 1 => 2..5u32], any::<bool>())
            .prop_map(|(cost, hold)| Step::Take { cost, hold }),
        1 => (any::<usize>(), any::<bool>())
            .prop_map(|(which, keep)| Step::Settle { which, keep }),
    ]
}

fn history() -> impl Strategy<Value = (Quota, u32, Vec<Step>)> {
    let window = prop_oneof![3 => 1_000..5_000_000u64, 1 => 1_000..30_000_000_000_000u64];
    (1..200u32, window, prop_oneof![Just(1u32), Just(8), Just(64)]).prop_flat_map(
        |(limit, window, resolution)| {
            let quota = Quota::new(limit, Duration::from_micros(window)).unwrap();
            (Just(quota), Just(resolution), vec(step(window), 1..400))
        },
    )
}

proptest! {
    #[test]
    fn a_limit_holds_in_every_window_and_room_comes_back_in_time(
        (quota, resolution, steps) in history()
    ) {
        let (window, limit) = (quota.window_us(), u64::from(quota.limit()));
        let coalesces = quota.limit() > resolution;
        let late = if coalesces { window.div_ceil(resolution.into()) } else { 0 };
        let (mut log, mut oracle, mut held) = (SlidingWindow::default(), Oracle::default(), Vec::new());
        let mut now = 10 * window;
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::Take { cost, hold } => {
                    log.advance(now, &quota);
                    let decision = log.decide(now, &quota, cost);
                    let exact = oracle.counted(now - window, now);
                    if decision.is_allowed() {
                        prop_assert!(exact + u64::from(cost) <= limit, "more than the limit");
                        let mark = log.admit(now, &quota, cost, resolution, hold);
                        oracle.0.push((now, cost));
                        if hold {
                            held.push((mark, (now, cost)));
                        }
                    } else {
                        let lenient = oracle.counted((now - window).saturating_sub(late), now);
                        prop_assert!(lenient + u64::from(cost) > limit, "room came back too late");
                    }
                }
                Step::Settle { which, keep } if !held.is_empty() => {
                    let (mark, request) = held.swap_remove(which % held.len());
                    log.settle(now, &quota, request.1, resolution, mark, keep);
                    if !keep && request.0 + window > now {
                        let index = oracle.0.iter().position(|other| *other == request).unwrap();
                        oracle.0.remove(index);
                    }
                }
                Step::Settle { .. } => {}
            }
            prop_assert!(log.entries().len() as u64 <= u64::from(resolution.min(quota.limit())) + 1);
        }
    }

    #[test]
    fn a_refusal_names_the_first_moment_that_admits((quota, resolution, steps) in history()) {
        let (mut log, mut now) = (SlidingWindow::default(), 10 * quota.window_us());
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::Take { cost, .. } => {
                    let before = log.clone();
                    let decision = log.take(now, &quota, cost, resolution);
                    let Some(retry) = decision.retry_after() else { continue };
                    let then = now + retry.as_micros() as u64;
                    let at = |then| before.clone().take(then, &quota, cost, resolution).is_allowed();
                    prop_assert!(!at(then - 1));
                    prop_assert!(at(then));
                }
                Step::Settle { .. } => {}
            }
        }
    }

    #[test]
    fn remaining_means_exactly_so_many_more((quota, resolution, steps) in history()) {
        let (mut log, mut now) = (SlidingWindow::default(), 10 * quota.window_us());
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::Take { cost, .. } => {
                    log.take(now, &quota, cost, resolution);
                }
                Step::Settle { .. } => {}
            }
        }
        let remaining = log.take(now, &quota, 0, resolution).remaining();
        for left in (0..remaining).rev() {
            let decision = log.take(now, &quota, 1, resolution);
            prop_assert_eq!((decision.is_allowed(), decision.remaining()), (true, left));
        }
        prop_assert!(!log.take(now, &quota, 1, resolution).is_allowed());
    }

    #[test]
    fn a_clock_that_steps_back_frees_nothing_and_locks_out_no_longer_than_a_window(
        limit in 1..100u32, back in 0..3_600_000_000u64, later in 0..60_000_000u64,
    ) {
        let quota = Quota::per_minute(limit);
        let (mut log, now) = (SlidingWindow::default(), 7_200_000_000);
        for _ in 0..limit {
            prop_assert!(log.take(now, &quota, 1, RESOLUTION).is_allowed());
        }
        let stepped = now - back;
        prop_assert!(!log.take(stepped, &quota, 1, RESOLUTION).is_allowed());
        prop_assert!(!log.take(stepped + later.min(59_999_999), &quota, 1, RESOLUTION).is_allowed());
        prop_assert!(log.take(stepped + quota.window_us(), &quota, 1, RESOLUTION).is_allowed());
    }
}

#[test]
fn no_burst_around_a_boundary_doubles_a_limit() {
    let (quota, mut log) = (Quota::per_minute(100), SlidingWindow::default());
    let minute = quota.window_us();
    let mut admitted = Vec::new();
    for now in (0..100).map(|i| minute - 100 + i).chain((minute..3 * minute).step_by(1_000)) {
        if log.take(now, &quota, 1, RESOLUTION).is_allowed() {
            admitted.push(now);
        }
    }
    let most = admitted
        .iter()
        .map(|start| admitted.iter().filter(|at| (*start..start + minute).contains(at)).count());
    assert_eq!(most.max(), Some(100));
}

#[test]
fn what_is_in_flight_refuses_for_a_second_only() {
    let (quota, mut log) =
        (Quota::new(2, Duration::from_secs(900)).unwrap(), SlidingWindow::default());
    log.take(0, &quota, 1, RESOLUTION);
    let mark = log.admit(1_000, &quota, 1, RESOLUTION, true);
    assert_eq!(log.decide(2_000, &quota, 1).retry_after(), Some(Duration::from_secs(1)));
    log.settle(2_000, &quota, 1, RESOLUTION, mark, true);
    assert_eq!(
        log.decide(2_000, &quota, 1).retry_after(),
        Some(Duration::from_micros(899_998_000))
    );
}

#[test]
fn a_hold_whose_server_died_is_one_that_counts() {
    let (quota, mut log) =
        (Quota::new(1, Duration::from_secs(900)).unwrap(), SlidingWindow::default());
    log.admit(0, &quota, 1, RESOLUTION, true);
    let later = IN_FLIGHT.as_micros() as u64;
    assert_eq!(log.decide(later, &quota, 1).retry_after(), Some(Duration::from_secs(840)));
}

#[test]
fn what_is_given_back_is_given_back_once_and_only_while_it_counts() {
    let (quota, mut log) = (Quota::per_minute(3), SlidingWindow::default());
    let early = log.admit(0, &quota, 1, RESOLUTION, true);
    let late = log.admit(30_000_000, &quota, 1, RESOLUTION, true);
    log.settle(60_000_000, &quota, 1, RESOLUTION, early, false);
    assert_eq!(log.decide(60_000_000, &quota, 0).remaining(), 2, "it had left the window");
    for _ in 0..2 {
        log.settle(60_000_000, &quota, 1, RESOLUTION, late, false);
        assert_eq!(log.decide(60_000_000, &quota, 0).remaining(), 3);
    }
    log.take(61_000_000, &quota, 1, RESOLUTION);
    log.settle(61_000_000, &quota, 1, RESOLUTION, late, false);
    assert_eq!(log.decide(61_000_000, &quota, 0).remaining(), 2, "another's request was taken");
}

#[test]
fn what_comes_at_the_instant_of_a_give_back_can_be_given_back_too() {
    let (quota, mut log) = (Quota::per_minute(3), SlidingWindow::default());
    let first = log.admit(0, &quota, 1, RESOLUTION, true);
    let second = log.admit(1, &quota, 1, RESOLUTION, true);
    log.settle(1, &quota, 1, RESOLUTION, first, false);
    let third = log.admit(1, &quota, 1, RESOLUTION, true);
    log.settle(1, &quota, 1, RESOLUTION, second, true);
    log.settle(1, &quota, 1, RESOLUTION, third, false);
    assert_eq!(log.decide(1, &quota, 0).remaining(), 2);
}

#[test]
fn what_has_left_the_window_takes_nothing_from_the_next_entry() {
    let (quota, mut log) =
        (Quota::new(13, Duration::from_micros(8_000)).unwrap(), SlidingWindow::default());
    log.take(0, &quota, 1, 8);
    let late = log.admit(900, &quota, 1, 8, true);
    log.admit(1_000, &quota, 1, 8, true);
    log.settle(8_900, &quota, 1, 8, late, false);
    assert_eq!(log.decide(8_900, &quota, 0).remaining(), 12);
}

#[test]
fn a_changed_limit_applies_at_once() {
    let mut log = SlidingWindow::default();
    for _ in 0..10 {
        log.take(0, &Quota::per_minute(10), 1, RESOLUTION);
    }
    assert_eq!(log.decide(1, &Quota::per_minute(5), 1).remaining(), 0);
    assert_eq!(log.decide(1, &Quota::per_minute(600), 1).remaining(), 590);
}

#[test]
fn a_cost_above_the_limit_never_fits_and_names_no_time() {
    let decision = SlidingWindow::default().take(0, &Quota::per_minute(3), 4, RESOLUTION);
    assert_eq!((decision.is_allowed(), decision.retry_after()), (false, None));
}

#[test]
fn an_entry_hours_before_the_newest_keeps_its_instant() {
    const HOUR: u64 = 3_600_000_000;
    let (quota, mut log) =
        (Quota::new(9, Duration::from_secs(864_000)).unwrap(), SlidingWindow::default());
    log.admit(HOUR, &quota, 1, RESOLUTION, false);
    let mark = log.admit(5 * HOUR, &quota, 1, RESOLUTION, true);
    log.settle(5 * HOUR, &quota, 1, RESOLUTION, mark, true);
    let until_left = Duration::from_secs(864_000 - 4 * 3_600);
    assert_eq!(log.decide(5 * HOUR, &quota, 0).reset_after(), until_left);
}
