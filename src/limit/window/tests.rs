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
                    log.advance(now);
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
            prop_assert!(log.entries().count() as u64 <= u64::from(resolution.min(quota.limit())) + 1);
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

/// The same as [`SlidingWindow`], from its rules, without any of its economies.
#[derive(Clone, Debug, Default)]
struct Plain {
    entries: Vec<Entry>,
    opened: u64,
    window: u64,
}

impl Plain {
    fn advance(&mut self, now: u64) {
        self.entries.retain(|entry| entry.at + self.window > now);
        if self.entries.is_empty() {
            *self = Self::default();
        }
        let later = self.entries.partition_point(|entry| entry.at <= now);
        if later < self.entries.len() {
            let from = self.entries.partition_point(|entry| entry.at < now);
            let merged = self.entries.split_off(from);
            let sum = |part: fn(&Entry) -> u32| merged.iter().map(part).sum();
            let (count, held) = (sum(|entry| entry.count), sum(|entry| entry.held));
            self.entries.push(Entry { at: now, count, held });
            self.opened = self.opened.min(now);
        }
    }

    fn decide(&self, now: u64, quota: &Quota, cost: u32) -> Decision {
        let (window, limit) = (quota.window_us(), quota.limit());
        let live: Vec<_> = self.entries.iter().filter(|entry| entry.at + window > now).collect();
        let used: u32 = live.iter().map(|entry| entry.count).sum();
        let reset = live.first().map_or(0, |first| first.at + window - now);
        let stands = Decision::in_micros(*quota, limit.saturating_sub(used), reset);
        if cost == 0 || used + cost <= limit {
            return stands;
        }
        if cost > limit {
            return stands.refused_for(u64::MAX);
        }
        let mut left = used;
        let leaver = live.iter().find(|entry| {
            left -= entry.count;
            left + cost <= limit
        });
        let wait = leaver.unwrap().at + window - now;
        let recent = live.iter().filter(|entry| entry.at + 60_000_000 > now);
        let in_flight: u32 = recent.map(|entry| entry.held).sum();
        let due_to_those = used - in_flight.min(used) + cost <= limit;
        stands.refused_for(if due_to_those { wait.min(1_000_000) } else { wait })
    }

    fn admit(&mut self, now: u64, quota: &Quota, cost: u32, resolution: u32, hold: bool) {
        if cost == 0 {
            return;
        }
        let span = quota.window_us().div_ceil(resolution.into());
        let span = if quota.limit() > resolution { span } else { 0 };
        self.window = self.window.max(quota.window_us());
        let held = if hold { cost } else { 0 };
        match self.entries.last_mut() {
            Some(newest) if newest.at == now || now - self.opened < span => {
                newest.at = now;
                newest.count += cost;
                newest.held += held;
            }
            _ => {
                self.entries.push(Entry { at: now, count: cost, held });
                self.opened = now;
            }
        }
    }

    fn settle(&mut self, now: u64, hold: &(Mark, Quota, u32), resolution: u32, keep: bool) {
        let (mark, quota, cost) = hold;
        self.advance(now);
        let span = quota.window_us().div_ceil(resolution.into());
        let reach = if quota.limit() > resolution { span - 1 } else { 0 };
        if mark.0 + quota.window_us() <= now {
            return;
        }
        let Some(index) = self.entries.iter().position(|entry| entry.at >= mark.0) else { return };
        let entry = &mut self.entries[index];
        if entry.at > mark.0 + reach || entry.held < *cost {
            return;
        }
        entry.held -= cost;
        if !keep {
            entry.count -= cost;
            if entry.count == 0 {
                self.entries.remove(index);
                // Far enough away.
                self.opened = 0;
            }
        }
        if self.entries.is_empty() {
            *self = Self::default();
        }
    }
}

/// Which of some quotas asks, and what.
fn asked() -> impl Strategy<Value = (usize, Step)> {
    let wait = prop_oneof![
        4 => 0..3_000_000u64,
        3 => 0..40_000_000u64,
        1 => 0..900_000_000u64,
        1 => Just(60_000_000),
        1 => 0..8_000_000_000u64
    ];
    let step = prop_oneof![
        3 => wait.prop_map(Step::Wait),
        6 => (prop_oneof![5 => Just(1u32), 1 => 0..5u32], any::<bool>())
            .prop_map(|(cost, hold)| Step::Take { cost, hold }),
        3 => (any::<usize>(), any::<bool>())
            .prop_map(|(which, keep)| Step::Settle { which, keep }),
    ];
    (0..8usize, step)
}

/// Limits below and above the resolution; windows short, long, and longer than half an instant
/// reaches. Most histories have one of them, some several.
fn quotas() -> impl Strategy<Value = (Vec<Quota>, u32)> {
    let window = prop_oneof![
        4 => Just(60_000_000u64),
        2 => 1_000..100_000_000u64,
        1 => 4_000_000_000..4_600_000_000u64,
        1 => 10_000_000_000..100_000_000_000u64,
    ];
    let limit = prop_oneof![1..12u32, 1..90u32, Just(100_000)];
    let quota = (limit, window)
        .prop_map(|(limit, window)| Quota::new(limit, Duration::from_micros(window)).unwrap());
    let resolution = prop_oneof![Just(2u32), Just(8), Just(RESOLUTION)];
    (prop_oneof![3 => vec(quota.clone(), 1), 1 => vec(quota, 2..4)], resolution).prop_map(
        // Of several windows at a low resolution entries are merged, which `Plain` doesn't do.
        |(quotas, resolution)| match quotas.len() {
            1 => (quotas, resolution),
            _ => (quotas, RESOLUTION),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_answer_is_that_of_the_rules(
        (quotas, resolution) in quotas(),
        steps in vec(asked(), 1..200),
        back in prop_oneof![3 => Just(0u64), 1 => 0..20_000_000u64],
    ) {
        let (mut log, mut plain, mut holds) =
            (SlidingWindow::default(), Plain::default(), Vec::<(Mark, Quota, u32)>::new());
        let mut now = 1 << 40;
        for (number, (which, step)) in steps.into_iter().enumerate() {
            let quota = quotas[which % quotas.len()];
            if number % 16 == 15 {
                now -= back;
            }
            match step {
                Step::Wait(time) => now += time,
                Step::Take { cost, hold } => {
                    let mut whole = log.clone();
                    whole.advance(now);
                    plain.advance(now);
                    let decision = plain.decide(now, &quota, cost);
                    prop_assert_eq!(whole.decide(now, &quota, cost), decision);
                    if hold && decision.is_allowed() {
                        let mark = whole.admit(now, &quota, cost, resolution, true);
                        plain.admit(now, &quota, cost, resolution, true);
                        log = whole;
                        holds.push((mark, quota, cost));
                    } else {
                        if decision.is_allowed() {
                            plain.admit(now, &quota, cost, resolution, false);
                        }
                        let taken = log.take(now, &quota, cost, resolution);
                        prop_assert_eq!(taken.is_allowed(), decision.is_allowed());
                        prop_assert_eq!(taken.retry_after(), decision.retry_after());
                    }
                }
                Step::Settle { which, keep } if !holds.is_empty() => {
                    let which = which % holds.len();
                    // Some are settled twice.
                    let hold = if which % 4 == 0 { holds[which] } else { holds.remove(which) };
                    log.settle(now, &hold.1, hold.2, resolution, hold.0, keep);
                    plain.settle(now, &hold, resolution, keep);
                }
                Step::Settle { .. } => {}
            }
            let (mut later, mut plainly) = (log.clone(), plain.clone());
            later.advance(now);
            plainly.advance(now);
            let entries: Vec<_> = later.entries().collect();
            prop_assert_eq!(&entries, &plainly.entries);
            prop_assert_eq!(later.is_idle(now), plainly.entries.is_empty());
            prop_assert_eq!(later.decide(now, &quota, 0), plainly.decide(now, &quota, 0));
            prop_assert_eq!(later.head.held, entries.iter().any(|entry| entry.held > 0));
        }
    }

    #[test]
    fn a_head_takes_steps_as_the_whole_does((quota, resolution, steps) in history()) {
        let (mut log, mut now) = (SlidingWindow::default(), 10 * quota.window_us());
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::Take { cost, hold } => {
                    let (mut head, mut whole) = (log.head, log.clone());
                    let step = head.step(now, &quota, cost, resolution);
                    whole.advance(now);
                    let decision = whole.decide(now, &quota, cost);
                    if decision.is_allowed() {
                        whole.admit(now, &quota, cost, resolution, false);
                    }
                    match step {
                        super::Step::Stands => prop_assert!(cost == 0 && head == whole.head),
                        super::Step::Counted => prop_assert!(cost > 0 && head == whole.head),
                        super::Step::Refused(wait) => {
                            let wait = Some(Duration::from_micros(wait));
                            prop_assert_eq!(decision.retry_after(), wait);
                            prop_assert_eq!(head.standing(now, &quota).remaining(), decision.remaining());
                        }
                        super::Step::Whole => {}
                    }
                    if hold {
                        log.advance(now);
                        if log.decide(now, &quota, cost).is_allowed() {
                            log.admit(now, &quota, cost, resolution, true);
                        }
                    } else {
                        log = whole;
                    }
                }
                Step::Settle { .. } => {}
            }
        }
    }

    #[test]
    fn what_was_read_while_it_was_changed_panics_nowhere(
        words in any::<[u64; 4]>(), used: u32, room: u8, held: bool,
        now: u64, limit in 1..u32::MAX, cost: u32, resolution: u32,
    ) {
        let [at, opened, oldest, window] = words;
        let mut head = Head { at, opened, oldest, window, used, room, held };
        let quota = Quota::new(limit, Duration::from_micros(window.clamp(1_000, 1 << 44))).unwrap();
        head.step(now.max(at), &quota, cost, resolution);
        head.standing(now, &quota);
        head.is_idle(now);
    }

    #[test]
    fn quotas_of_several_windows_keep_each_its_promise_in_bounded_memory(
        steps in vec((0..3usize, 0..40_000_000u64, 1..3u32), 1..900),
        resolution in prop_oneof![Just(1u32), Just(4), Just(16)],
    ) {
        let of = |limit, seconds| Quota::new(limit, Duration::from_secs(seconds)).unwrap();
        let quotas = [of(4, 1), of(60, 60), of(500, 3_600)];
        let (mut log, mut oracle, mut now) = (SlidingWindow::default(), Oracle::default(), 1 << 40);
        let late = 2 * quotas[2].window_us().div_ceil(resolution.into());
        log.take(now, &quotas[2], 1, resolution);
        oracle.0.push((now, 1));
        for (which, wait, cost) in steps {
            now += wait;
            let quota = quotas[which];
            let decision = log.take(now, &quota, cost, resolution);
            let exact = oracle.counted(now - quota.window_us(), now);
            if decision.is_allowed() {
                prop_assert!(exact + u64::from(cost) <= quota.limit().into(), "over the limit");
                oracle.0.push((now, cost));
            } else {
                let lenient = oracle.counted(now - quota.window_us() - late, now);
                prop_assert!(lenient + u64::from(cost) > quota.limit().into(), "room came too late");
            }
            let entries = log.entries().count() as u32;
            prop_assert!(entries <= 6 * resolution + 8, "{} entries", entries);
        }
    }
}

#[test]
fn room_is_how_often_the_limit_was_halved() {
    let mut head = Head::default();
    let mut room = |limit, used| {
        head.used = used;
        head.note(&Quota::per_minute(limit));
        head.room
    };
    let cases = [(100, 0, 32), (100, 36, 32), (100, 37, 31), (100, 68, 31), (100, 69, 30)];
    for (limit, used, expected) in cases {
        assert_eq!(room(limit, used), expected, "{used} of {limit}");
    }
    assert_eq!((room(100, 99), room(100, 100), room(100, 101), room(1, 0)), (26, 0, 0, 32));
}

#[test]
fn a_clock_that_steps_back_onto_an_entry_merges_it_with_what_is_later() {
    let (quota, mut log) = (Quota::per_minute(9), SlidingWindow::default());
    for at in [10, 20, 30] {
        log.take(at, &quota, 1, RESOLUTION);
    }
    log.advance(20);
    let entries: Vec<_> = log.entries().collect();
    let entry = |at, count| Entry { at, count, held: 0 };
    assert_eq!(entries, [entry(10, 1), entry(20, 2)]);
}

#[test]
fn what_is_given_back_is_room_again() {
    let (quota, mut log) = (Quota::per_minute(2), SlidingWindow::default());
    log.take(0, &quota, 1, RESOLUTION);
    let mark = log.admit(1, &quota, 1, RESOLUTION, true);
    assert_eq!(log.room(), 0);
    log.settle(2, &quota, 1, RESOLUTION, mark, false);
    assert_eq!(log.room(), 31);
}

#[test]
fn what_is_on_trial_is_found_again_whatever_is_merged_beside_it() {
    let quota = |limit, millis| Quota::new(limit, Duration::from_millis(millis)).unwrap();
    // At a resolution of 2 only the second lets requests share an entry.
    let (rare, often) = (quota(2, 1_000), quota(100, 10));
    let mut log = SlidingWindow::default();
    let mark = log.admit(0, &rare, 1, 2, true);
    for request in 1..=40 {
        log.advance(6_000 * request);
        log.admit(6_000 * request, &often, 1, 2, false);
    }
    assert!(log.entries().count() < 20, "some were merged");
    let used = log.head.used;
    log.settle(240_000, &rare, 1, 2, mark, false);
    assert_eq!(log.head.used, used - 1);
}

#[test]
fn a_clock_that_steps_back_leaves_a_log_as_far_from_its_limit() {
    let (quota, mut log) = (Quota::per_minute(10), SlidingWindow::default());
    assert!(log.take(1_000, &quota, 9, 64).is_allowed());
    let room = log.room();
    assert!(room > 0 && room < 32, "{room}");
    log.advance(500);
    assert_eq!((log.head.at, log.room()), (500, room));
}
