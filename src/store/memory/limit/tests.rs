use std::time::Duration;

use super::*;
use crate::{ManualClock, Quota};

fn name(text: &str) -> LimiterName {
    LimiterName::new(text).unwrap()
}

fn take(store: &MemoryRateLimitStore, key: &str, limit: u32) -> Result<bool, StoreError> {
    let take = Take::new(name("ip"), key, Quota::per_minute(limit));
    store.decide(&take).map(|taken| taken.decision.is_allowed())
}

#[test]
fn idle_clients_leave_as_new_ones_come() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
    for i in 0..1_000 {
        take(&store, &format!("early {i}"), 10).unwrap();
    }
    assert_eq!(store.len(), 1_000);
    clock.advance(Duration::from_secs(120));
    for i in 0..1_000 {
        take(&store, &format!("late {i}"), 10).unwrap();
    }
    assert!(store.len() < 1_300, "{} clients are remembered", store.len());
}

#[test]
fn a_flood_of_strangers_does_not_free_the_flooder() {
    let store = MemoryRateLimitStore::new().with_capacity(100);
    for _ in 0..9 {
        assert!(take(&store, "flooder", 10).unwrap());
    }
    for i in 0..10_000 {
        assert!(take(&store, &format!("made up {i}"), 10).unwrap());
    }
    assert_eq!(store.len(), 100);
    assert!(take(&store, "flooder", 10).unwrap(), "the tenth");
    for i in 0..10_000 {
        assert!(take(&store, &format!("made up again {i}"), 10).unwrap());
    }
    assert!(!take(&store, "flooder", 10).unwrap());
}

#[test]
fn a_store_full_of_clients_at_their_limit_says_that_it_cannot_decide() {
    let store = MemoryRateLimitStore::new().with_capacity(10);
    for i in 0..10 {
        assert!(take(&store, &format!("client {i}"), 1).unwrap());
    }
    assert!(take(&store, "stranger", 1).unwrap_err().is_unavailable());
    let of = |key| Take::new(name("ip"), key, Quota::per_minute(1));
    let error = store.decide_all(&[of("one stranger"), of("another")]).unwrap_err();
    assert!(error.is_unavailable());
    assert_eq!(store.len(), 10);
    assert!(!take(&store, "client 3", 1).unwrap());
    let refused = store.decide_all(&[of("stranger"), of("client 3")]).unwrap();
    assert!(!refused[1].decision.is_allowed(), "that is known, room or not");
}

#[test]
fn of_clients_at_their_limit_one_that_is_idle_makes_room() {
    for _ in 0..10 {
        let clock = ManualClock::new();
        let store =
            MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone())).with_capacity(30);
        assert!(take(&store, "early", 1).unwrap());
        clock.advance(Duration::from_secs(50));
        for i in 0..29 {
            assert!(take(&store, &format!("client {i}"), 1).unwrap());
        }
        clock.advance(Duration::from_secs(10));
        assert!(take(&store, "stranger", 1).unwrap());
        assert_eq!(store.len(), 30);
    }
}

#[test]
fn what_is_given_back_ends_a_refusal_that_was_remembered() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
    let guess = Take::new(name("login"), "client", Quota::per_minute(1)).on_trial();
    let hold = store.decide(&guess).unwrap().hold.unwrap();
    clock.advance(Duration::from_millis(59_500));
    for _ in 0..2 {
        let refused = store.decide(&guess).unwrap().decision;
        assert_eq!(refused.retry_after(), Some(Duration::from_millis(500)));
    }
    assert!(matches!(store.settle(*hold, false), Answer::Ready(Ok(_))));
    assert!(store.decide(&guess).unwrap().decision.is_allowed());
}

#[test]
fn a_refusal_that_is_remembered_ends_at_the_instant_it_named() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
    assert!(take(&store, "client", 1).unwrap());
    for _ in 0..2 {
        assert!(!take(&store, "client", 1).unwrap());
    }
    clock.advance(Duration::from_micros(59_999_999));
    assert!(!take(&store, "client", 1).unwrap());
    clock.advance(Duration::from_micros(1));
    assert!(take(&store, "client", 1).unwrap());
}

#[test]
fn who_only_looks_needs_no_room() {
    let store = MemoryRateLimitStore::new().with_capacity(10);
    for i in 0..9 {
        assert!(take(&store, &format!("client {i}"), 1).unwrap());
    }
    let counts = |key, cost| Take::new(name("ip"), key, Quota::per_minute(10)).with_cost(cost);
    store.decide(&counts("caller", 5)).unwrap();
    let decisions = store.decide_all(&[counts("caller", 1), counts("stranger", 0)]).unwrap();
    assert_eq!(decisions[0].decision.remaining(), 4);
}

/// Some histories of a few clients by the store, and by plain logs.
mod twins {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::limit::store::Mark;

    const LIMITS: [(u32, u64); 7] = [
        (5, 60_000),
        (8, 60_000),
        (50, 60_000),
        (70, 400_000),
        (100_000, 60_000),
        (3, 9_000_000),
        (9, 1_000),
    ];

    /// What the store has of a client, as the arithmetic sees it.
    fn kept(store: &MemoryRateLimitStore, who: usize) -> SlidingWindow {
        let place = store.table().place(name("twins"), &Key::from(who as u64));
        store.table().hold(&place).lock(&place).map_or_else(Default::default, |(_, mut guard)| {
            store.table().logs(&place).change(&mut guard, |log| log.clone())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_store_answers_as_a_log_does(
            steps in vec((0..4usize, 0..40u32, 0..3u32, 0..8u8, 0..20_000u64), 1..300),
            kind in 0..LIMITS.len(),
            // Waits are so many times shorter: so that clients are at their limit, or seldom come.
            haste in prop_oneof![Just(1), Just(8), Just(100)],
            // Few is on trial, as those are all kept in one way.
            trials in any::<bool>(),
        ) {
            let clock = ManualClock::new();
            let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
            let (limit, window) = LIMITS[kind];
            let quota = Quota::new(limit, Duration::from_millis(window)).unwrap();
            let mut logs: [SlidingWindow; 4] = Default::default();
            let mut holds = Vec::new();
            for (who, which, cost, action, wait) in steps {
                let (wait, action) = (wait / haste, if action == 3 && !trials { 7 } else { action });
                let log = &mut logs[who];
                let now = store.now();
                let take = Take::new(name("twins"), who as u64, quota).with_cost(cost);
                match action {
                    0 => clock.advance(Duration::from_millis(wait)),
                    1 => clock.advance(Duration::from_micros(wait)),
                    2 if !holds.is_empty() => {
                        let (who, hold): (usize, Box<Hold>) = holds.remove(which as usize % holds.len());
                        let (mark, keep): (Mark, bool) = (hold.mark, which % 2 == 0);
                        let log = &mut logs[who];
                        log.settle(now, &quota, hold.cost, RESOLUTION, mark, keep);
                        let Answer::Ready(Ok(stands)) = store.settle(*hold, keep) else {
                            panic!("it is in this process")
                        };
                        prop_assert_eq!(stands, log.decide(now, &quota, 0));
                    }
                    3 => {
                        log.advance(now);
                        let decision = log.decide(now, &quota, cost);
                        let taken = store.decide(&take.on_trial()).unwrap();
                        prop_assert_eq!(taken.decision.is_allowed(), decision.is_allowed());
                        prop_assert_eq!(taken.decision.retry_after(), decision.retry_after());
                        if decision.is_allowed() && cost > 0 {
                            let mark = log.admit(now, &quota, cost, RESOLUTION, true);
                            let hold = taken.hold.unwrap();
                            prop_assert_eq!(hold.mark, mark);
                            holds.push((who, hold));
                        }
                    }
                    4 => {
                        let other = (who + 1) % 4;
                        let takes = [take.clone(), Take::new(name("twins"), other as u64, quota)];
                        let taken = store.decide_all(&takes).unwrap();
                        let costs = [(who, cost), (other, 1)];
                        let room = costs.map(|(who, cost)| {
                            logs[who].advance(now);
                            logs[who].decide(now, &quota, cost).is_allowed()
                        });
                        prop_assert_eq!([0, 1].map(|i| taken[i].decision.is_allowed()), room);
                        if room == [true, true] {
                            for (who, cost) in costs {
                                logs[who].admit(now, &quota, cost, RESOLUTION, false);
                            }
                        }
                    }
                    _ => {
                        let decision = log.take(now, &quota, cost, RESOLUTION);
                        prop_assert_eq!(store.decide(&take).unwrap().decision, decision);
                    }
                }
                // Whatever way the store took to it: the words are those of the log.
                let (mut kept, mut log) = (kept(&store, who), logs[who].clone());
                for log in [&mut kept, &mut log] {
                    log.advance(store.now());
                }
                prop_assert_eq!(kept.whole(), log.whole());
            }
            for (who, log) in logs.iter_mut().enumerate() {
                let look = Take::new(name("twins"), who as u64, quota).with_cost(0);
                log.advance(store.now());
                let expected = log.decide(store.now(), &quota, 0);
                prop_assert_eq!(store.decide(&look).unwrap().decision, expected);
            }
        }
    }

    /// Waits that fall on the moments that matter, of a client whose log begins and ends again and again.
    #[derive(Clone, Copy, Debug)]
    enum Wait {
        None,
        Some(u64),
        /// Until the oldest entry leaves, and so many microseconds more or less.
        OldestLeaves(i64),
        NewestLeaves(i64),
    }

    fn wait() -> impl Strategy<Value = Wait> {
        prop_oneof![
            3 => Just(Wait::None),
            4 => (1..5_000_000u64).prop_map(Wait::Some),
            3 => (1..80u64).prop_map(|part| Wait::Some(60_000_000 / 64 * part / 8)),
            3 => (-1..2i64).prop_map(Wait::OldestLeaves),
            1 => (-1..2i64).prop_map(Wait::NewestLeaves),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn the_words_of_a_line_are_those_of_the_log_at_each_step(
            limit in prop_oneof![Just(3u32), Just(7), Just(8), Just(9), Just(40), Just(64), Just(90), Just(4_000_000_000)],
            steps in vec((wait(), prop_oneof![12 => Just(1u32), 2 => 2..4u32, 1 => 0..200_000_000u32]), 1..200),
            rare_costs in any::<bool>(),
        ) {
            let clock = ManualClock::new();
            let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
            let quota = Quota::per_minute(limit);
            let mut log = SlidingWindow::default();
            for (wait, cost) in steps {
                let until = |instant: u64, more: i64| {
                    (instant + quota.window_us()).saturating_add_signed(more).saturating_sub(store.now())
                };
                clock.advance(Duration::from_micros(match wait {
                    Wait::None => 0,
                    Wait::Some(wait) => wait,
                    Wait::OldestLeaves(more) if log.head.used > 0 => until(log.head.oldest, more),
                    Wait::NewestLeaves(more) if log.head.used > 0 => until(log.head.at, more),
                    Wait::OldestLeaves(_) | Wait::NewestLeaves(_) => 0,
                }));
                let (now, cost) = (store.now(), if rare_costs { cost } else { cost.min(1) });
                // By the plain way, without the steps that a head takes.
                log.advance(now);
                let mut decision = log.decide(now, &quota, cost);
                if decision.is_allowed() {
                    log.admit(now, &quota, cost, RESOLUTION, false);
                    decision = log.decide(now, &quota, 0);
                }
                let take = Take::new(name("twins"), 0_u64, quota).with_cost(cost);
                prop_assert_eq!(store.decide(&take).unwrap().decision, decision);
                let (mut kept, mut log) = (kept(&store, 0), log.clone());
                for log in [&mut kept, &mut log] {
                    log.advance(now);
                }
                prop_assert_eq!(kept.whole(), log.whole());
            }
        }
    }
}

/// Threads at once, and how often `ask` said yes.
fn yeses(threads: usize, ask: impl Fn(usize) -> usize + Sync) -> usize {
    std::thread::scope(|scope| {
        let ask = &ask;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || ask(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn a_limit_holds_whoever_asks_at_once_while_strangers_come_and_go() {
    // Limits that are counted in a line, in a block, and as one entry.
    for limit in [4, 40, 400] {
        let clock = Arc::new(ManualClock::new());
        let store = MemoryRateLimitStore::new().with_clock(clock).with_capacity(2_000);
        // Of whom no more is known than of a stranger might make room for one: clients come first.
        let begun = (limit / 10).max(1);
        for i in 0..7 * begun {
            assert!(take(&store, &format!("client {limit} {}", i % 7), limit).unwrap());
        }
        let admitted = yeses(6, |thread| {
            let mut admitted = 0;
            for i in 0..20_000 {
                let stranger = format!("stranger {limit} {thread} {}", i % 5_000);
                if i % 3 == 0 && !take(&store, &stranger, 100).unwrap() {
                    assert!(i >= 5_000, "{stranger} was refused");
                }
                let client = format!("client {limit} {}", i % 7);
                admitted += usize::from(take(&store, &client, limit).unwrap());
            }
            admitted
        });
        assert_eq!(admitted, 7 * (limit - begun) as usize);
        assert!(store.len() <= 2_010, "each segment rounds up");
    }
}

#[test]
fn two_limits_hold_together_whoever_asks_at_once_and_nobody_waits_for_ever() {
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(ManualClock::new()));
    let of = |key: String, limit| Take::new(name("both"), key, Quota::per_minute(limit));
    let admitted = yeses(6, |thread| {
        let mut admitted = 0;
        for i in 0..3_000 {
            // In both orders, of clients that are known and that are not.
            let mut takes = [of(format!("a{}", i % 50), 3), of(format!("b{}", i % 60), 5)];
            if thread % 2 == 0 {
                takes.reverse();
            }
            let taken = store.decide_all(&takes).unwrap();
            admitted += usize::from(taken.iter().all(|taken| taken.decision.is_allowed()));
        }
        admitted
    });
    let left = |key, limit| {
        let look = of(key, limit).with_cost(0);
        store.decide(&look).unwrap().decision.remaining() as usize
    };
    let of_a: usize = (0..50).map(|i| 3 - left(format!("a{i}"), 3)).sum();
    let of_b: usize = (0..60).map(|i| 5 - left(format!("b{i}"), 5)).sum();
    assert_eq!((of_a, of_b), (admitted, admitted));
}

#[test]
fn holds_are_given_back_whoever_asks_at_once() {
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(ManualClock::new()));
    let guess = || Take::new(name("guess"), "client", Quota::per_minute(3)).on_trial();
    let failed = yeses(4, |thread| {
        let mut failed = 0;
        for i in 0..5_000 {
            let Some(hold) = store.decide(&guess()).unwrap().hold else { continue };
            let keep = thread == 0 && i % 1_000 == 999;
            failed += usize::from(keep);
            assert!(matches!(store.settle(*hold, keep), Answer::Ready(Ok(_))));
        }
        failed
    });
    let stands = store.decide(&guess().with_cost(0)).unwrap().decision;
    assert_eq!(stands.remaining() as usize, 3 - failed.min(3));
}

#[test]
fn clients_come_and_go_and_the_rest_are_found() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone())).with_capacity(300);
    let mut random = 7_u64;
    for round in 0..40 {
        for _ in 0..200 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = format!("client {}", (random >> 33) % 400);
            take(&store, &key, 1_000).unwrap();
            if random >> 60 == 0 {
                let Answer::Ready(Ok(())) = store.reset(name("ip"), &Key::from(key.as_str()))
                else {
                    panic!("it is in this process")
                };
            }
            // Once for each that is there: were one lost from the index, it would be there twice.
            assert!(store.len() <= 300);
        }
        clock.advance(Duration::from_secs(round % 3 * 25));
    }
    for i in 0..400 {
        let Answer::Ready(Ok(())) = store.reset(name("ip"), &Key::from(format!("client {i}")))
        else {
            panic!("it is in this process")
        };
    }
    assert_eq!(store.len(), 0);
}

#[test]
fn a_log_that_needs_its_block_no_more_leaves_it_to_others() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone())).with_capacity(16);
    let guess = || Take::new(name("ip"), "client", Quota::per_minute(64));
    let mut units = Vec::new();
    for _ in 0..20 {
        // As one is on trial, all are in a block; once none is, they are too many for a line.
        let hold = store.decide(&guess().on_trial()).unwrap().hold.unwrap();
        for _ in 0..12 {
            clock.advance(Duration::from_secs(1));
            store.decide(&guess()).unwrap();
        }
        assert!(matches!(store.settle(*hold, true), Answer::Ready(Ok(_))));
        clock.advance(Duration::from_secs(60));
        units.push(store.table().in_use());
    }
    assert!(units.iter().all(|used| *used == units[0]), "{units:?}");
}

#[test]
fn who_is_forgotten_leaves_what_it_had_to_others() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone())).with_capacity(16);
    let mut units = Vec::new();
    for _ in 0..20 {
        for _ in 0..40 {
            clock.advance(Duration::from_secs(1));
            assert!(take(&store, "client", 64).unwrap());
        }
        assert!(matches!(store.reset(name("ip"), &Key::from("client")), Answer::Ready(Ok(()))));
        units.push(store.table().in_use());
    }
    assert!(units.iter().all(|used| *used == units[0]), "{units:?}");
}

#[test]
fn who_was_not_looked_for_since_the_table_grew_is_known_by_every_way() {
    let of = |key: u64| Take::new(name("ip"), key, Quota::per_minute(1));
    // A client at its limit who was looked for in other lines when it came. The first look puts all in
    // their places, so each way has a store of its own.
    let grown = || {
        let clock = ManualClock::new();
        let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock)).with_capacity(10_000);
        let place = |key| store.table().place(name("ip"), &Key::from(key));
        let in_first = |key: &u64| store.table().segment_of(&place(*key)) == 0;
        let known = (0..10_000).filter(in_first).take(30);
        let known: Vec<(u64, Box<Hold>)> = known
            .map(|key| (key, store.decide(&of(key).on_trial()).unwrap().hold.unwrap()))
            .collect();
        for key in (0..10_000).filter(|key| !in_first(key)).take(5_000) {
            assert!(store.decide(&of(key)).unwrap().decision.is_allowed());
        }
        let missed = known.into_iter().find(|(key, _)| store.table().find(&place(*key)).is_none());
        let (key, hold) = missed.expect("the table has grown");
        (store, key, hold)
    };
    let (store, key, _) = grown();
    assert!(!store.decide(&of(key)).unwrap().decision.is_allowed());
    let (store, key, _) = grown();
    let looks = [of(key).with_cost(0), of(20_000).with_cost(0)];
    assert_eq!(store.decide_all(&looks).unwrap()[0].decision.remaining(), 0);
    let (store, key, hold) = grown();
    assert!(matches!(store.settle(*hold, false), Answer::Ready(Ok(_))));
    assert!(store.decide(&of(key)).unwrap().decision.is_allowed());
    let (store, key, _) = grown();
    assert!(matches!(store.reset(name("ip"), &Key::from(key)), Answer::Ready(Ok(()))));
    assert!(store.decide(&of(key)).unwrap().decision.is_allowed());
}

#[test]
fn who_is_known_stays_so_while_the_table_grows_for_another_of_the_same_request() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock)).with_capacity(10_000);
    let of = |key: u64| Take::new(name("ip"), key, Quota::per_minute(1_000));
    let segment = |key| store.table().segment_of(&store.table().place(name("ip"), &Key::from(key)));
    let known: Vec<u64> = (0..10_000).filter(|key| segment(*key) == 0).take(5).collect();
    let strangers = (0..20_000).filter(|key| segment(*key) == 15).take(600);
    for (i, stranger) in strangers.enumerate() {
        let taken = store.decide_all(&[of(known[i % 5]), of(stranger)]).unwrap();
        let remaining = [0, 1].map(|which| taken[which].decision.remaining());
        assert_eq!(remaining, [999 - i as u32 / 5, 999]);
    }
}

#[test]
fn clients_are_found_and_their_limits_hold_while_there_are_more_and_more_others() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock)).with_capacity(40_000);
    // By one limit and by two at once.
    let known = |i: usize| Take::new(name("known"), i as u64, Quota::per_minute(1_500));
    for i in 0..40 {
        assert!(store.decide(&known(i)).unwrap().decision.is_allowed());
    }
    let admitted = yeses(4, |thread| {
        let mut admitted = 0;
        for i in 0..16_000 {
            if thread < 2 {
                let stranger =
                    Take::new(name("new"), (2 * i + thread) as u64, Quota::per_minute(9));
                assert!(store.decide(&stranger).unwrap().decision.is_allowed());
            }
            let (one, other) = (known(i % 40), known((i + 7) % 40));
            if i % 7 == 0 {
                let taken = store.decide_all(&[one, other]).unwrap();
                let both = taken.iter().all(|taken| taken.decision.is_allowed());
                admitted += 2 * usize::from(both);
            } else {
                admitted += usize::from(store.decide(&one).unwrap().decision.is_allowed());
            }
        }
        admitted
    });
    let left = |i| store.decide(&known(i).with_cost(0)).unwrap().decision.remaining() as usize;
    assert_eq!(admitted, (0..40).map(|i| 1_499 - left(i)).sum::<usize>());
    assert!(admitted > 55_000, "{admitted}: nearly all that there was room for");
    assert_eq!(store.len(), 32_040, "nobody is there twice");
}

#[test]
fn what_a_log_no_longer_needs_is_another_clients() {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone())).with_capacity(16);
    let mut units = Vec::new();
    for _ in 0..20 {
        // Through rings of all lengths and a block, and all of it left behind by the next round.
        for request in 0..80 {
            clock.advance(Duration::from_micros(900_000));
            let take = Take::new(name("ip"), "client", Quota::per_minute(64));
            let take = if request == 70 { take.on_trial() } else { take };
            store.decide(&take).unwrap();
        }
        clock.advance(Duration::from_secs(60));
        take(&store, "client", 64).unwrap();
        units.push(store.table().in_use());
    }
    assert!(units.iter().all(|used| *used == units[0]), "{units:?}");
}
