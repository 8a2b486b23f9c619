//! Limits in Redis: the contract, one server and a cluster; that the script and `SlidingWindow` are twins;
//! and what is left in Redis.

use std::{
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use ::redis::{aio::MultiplexedConnection, cmd};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use tower_warden::{
    Answer, Clock, ManualClock, Quota,
    limit::{
        Decision, LimiterName, RateLimitStore,
        store::{Hold, RESOLUTION, SlidingWindow, Take},
    },
    store::redis::{RedisConfigError, RedisRateLimitStore},
};

use super::limit::{Wing, limit_contract, *};
use support::prefix;

#[path = "../support/redis.rs"]
mod support;

fn wing(urls: &str) -> Wing {
    let clock = ManualClock::new();
    let store = RedisRateLimitStore::new(urls).unwrap().with_prefix(&prefix());
    let store = Arc::new(store.with_clock_for_tests(Arc::new(clock.clone())));
    Wing { store, clock }
}

limit_contract!(
    server,
    { #[tokio::test] #[ignore = "needs Redis: run tests/run"] },
    wing(&support::url())
);
limit_contract!(
    cluster,
    { #[tokio::test] #[ignore = "needs a Redis Cluster: run tests/run"] },
    wing(&support::cluster_urls())
);

/// A store on the server's own time, its prefix, and a connection beside it.
async fn store() -> (RedisRateLimitStore, String, MultiplexedConnection) {
    let (url, prefix) = (support::url(), prefix());
    let store = RedisRateLimitStore::connect(&url).await.unwrap().with_prefix(&prefix);
    (store, prefix, support::connection(&url).await)
}

fn keyed(key: &str, mut take: Take) -> Take {
    take.key = key.into();
    take
}

fn take(limit: u32, window: Duration) -> Take {
    let quota = Quota::new(limit, window).unwrap();
    Take::new(LimiterName::new("ip").unwrap(), "a", quota)
}

/// A request by a client of a limiter, where so many are allowed in a minute.
fn of(limiter: &str, client: &str, limit: u32) -> Take {
    Take::new(LimiterName::new(limiter).unwrap(), client, Quota::per_minute(limit))
}

async fn decide(store: &RedisRateLimitStore, take: Take) -> Decision {
    store.take(&[take]).await.unwrap()[0].decision
}

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    SetBack(u64),
    Take {
        cost: u32,
        hold: bool,
    },
    Settle {
        which: usize,
        keep: bool,
    },
    Limit(u32),
    /// The window becomes so many tenths of what it was at first.
    Window(u64),
}

fn step(window: u64) -> impl Strategy<Value = Step> {
    let wait = prop_oneof![Just(0), 0..=window / 100, 0..=window / 3, Just(window), 0..=3 * window];
    let limit = prop_oneof![1..9u32, 1..300u32, 1..100_000u32];
    prop_oneof![
        8 => wait.prop_map(Step::Wait),
        1 => (0..=window).prop_map(Step::SetBack),
        20 => (prop_oneof![1 => Just(0u32), 8 => Just(1), 2 => 2..400u32], prop::bool::weighted(0.3))
            .prop_map(|(cost, hold)| Step::Take { cost, hold }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, keep)| Step::Settle { which, keep }),
        1 => limit.prop_map(Step::Limit),
        1 => prop_oneof![Just(1u64), Just(10), Just(20)].prop_map(Step::Window),
    ]
}

/// A window (a minute at least: Redis drops keys by a time of its own), a limit, a resolution,
/// steps.
fn history() -> impl Strategy<Value = (u64, u32, u32, Vec<Step>)> {
    let window = prop_oneof![60_000_000..2_000_000_000u64, 60_000_000..31_622_400_000_000u64];
    (window, 1..200u32, prop_oneof![Just(1u32), Just(8), Just(RESOLUTION)]).prop_flat_map(
        |(window, limit, resolution)| {
            (Just(window), Just(limit), Just(resolution), vec(step(window), 1..250))
        },
    )
}

#[test]
#[ignore = "needs Redis: run tests/run"]
fn script_and_log_are_twins() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = RedisRateLimitStore::new(&support::url()).unwrap();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() };
    let twins = |(window, limit, resolution, steps): (u64, u32, u32, Vec<Step>)| {
        let clock = ManualClock::new();
        let store = base.clone().with_prefix(&prefix()).with_resolution(resolution);
        let store = store.with_remembered_refusals(0);
        let store = store.with_clock_for_tests(Arc::new(clock.clone()));
        let first = window;
        let mut window = Duration::from_micros(window);
        let mut request = take(limit, window);
        let (mut log, mut holds) = (SlidingWindow::default(), Vec::<Hold>::new());
        for step in steps {
            let now = clock.now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
            match step {
                Step::Wait(time) => clock.set(clock.now() + Duration::from_micros(time)),
                Step::SetBack(time) => {
                    // Counted first, so that both have forgotten what left the window: Redis isn't
                    // written to by who only looks, and would know it again.
                    let quota = Quota::new(u32::MAX, window).unwrap();
                    let mut request = request.clone();
                    request.quota = quota;
                    runtime.block_on(store.take(&[request]).into_future()).unwrap();
                    log.take(now, &quota, 1, resolution);
                    clock.set(clock.now() - Duration::from_micros(time));
                }
                // With fewer entries, what has left the shorter window is merged at another moment.
                Step::Window(tenths)
                    if resolution == RESOLUTION && tenths * first / 10 >= 60_000_000 =>
                {
                    window = Duration::from_micros((tenths * first / 10).min(31_622_400_000_000));
                    request.quota = Quota::new(request.quota.limit(), window).unwrap();
                }
                Step::Window(_) => {}
                Step::Limit(limit) => request.quota = Quota::new(limit, window).unwrap(),
                Step::Take { cost, hold } => {
                    let mut request = request.clone().with_cost(cost);
                    request.hold = hold;
                    let mut answer =
                        runtime.block_on(store.take(slice::from_ref(&request)).into_future());
                    let taken = &mut answer.as_mut().unwrap()[0];
                    let quota = &request.quota;
                    log.advance(now);
                    let mut expected = log.decide(now, quota, cost);
                    if expected.is_allowed() {
                        let mark = log.admit(now, quota, cost, resolution, hold);
                        expected = log.decide(now, quota, 0);
                        prop_assert_eq!(taken.hold.is_some(), hold && cost > 0);
                        prop_assert!(taken.hold.as_ref().is_none_or(|hold| hold.mark == mark));
                        holds.extend(taken.hold.take().map(|hold| *hold));
                    }
                    prop_assert_eq!(taken.decision, expected);
                }
                Step::Settle { which, keep } if !holds.is_empty() => {
                    let hold = holds.swap_remove(which % holds.len());
                    let (quota, mark) = (hold.quota, hold.mark);
                    log.settle(now, &quota, hold.cost, resolution, mark, keep);
                    let answer = runtime.block_on(store.settle(hold, keep).into_future());
                    prop_assert_eq!(answer.unwrap(), log.decide(now, &quota, 0));
                }
                Step::Settle { .. } => {}
            }
        }
        Ok(())
    };
    TestRunner::new(config).run(&history(), twins).unwrap();
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn requests_that_travel_together_are_decided_as_one_after_the_other() {
    let clock = ManualClock::new();
    let store = RedisRateLimitStore::new(&support::url()).unwrap().with_prefix(&prefix());
    let store = store.with_clock_for_tests(Arc::new(clock.clone()));
    let now = clock.now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let (mut narrow, mut wide) = (SlidingWindow::default(), SlidingWindow::default());
    for limit in [3, 40, 500] {
        let both = [
            take(limit, MINUTE),
            Take::new(LimiterName::new("user").unwrap(), "a", Quota::per_minute(70)),
        ];
        let (one, two) = (both[0].quota, both[1].quota);
        // In a runtime of one thread they all wait before any is carried.
        let single = (0..20).map(|_| store.take(&both[..1]).into_future());
        let double = (0..20).map(|_| store.take(&both).into_future());
        let tasks: Vec<_> = single.chain(double).map(tokio::spawn).collect();
        for (i, task) in tasks.into_iter().enumerate() {
            let taken = task.await.unwrap().unwrap();
            let expected = if i < 20 {
                vec![narrow.take(now, &one, 1, RESOLUTION)]
            } else {
                narrow.advance(now);
                wide.advance(now);
                let before = [narrow.decide(now, &one, 1), wide.decide(now, &two, 1)];
                if before.iter().all(|decision| decision.is_allowed()) {
                    narrow.admit(now, &one, 1, RESOLUTION, false);
                    wide.admit(now, &two, 1, RESOLUTION, false);
                    vec![narrow.decide(now, &one, 0), wide.decide(now, &two, 0)]
                } else {
                    before.to_vec()
                }
            };
            let found: Vec<_> = taken.iter().map(|taken| taken.decision).collect();
            assert_eq!(found, expected, "request {i} of a limit of {limit}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn one_refused_of_many_alike_waits_for_what_its_own_window_counts() {
    let clock = ManualClock::new();
    let store = RedisRateLimitStore::new(&support::url()).unwrap().with_prefix(&prefix());
    let store = store.with_clock_for_tests(Arc::new(clock.clone()));
    decide(&store, take(5, 60 * MINUTE).with_cost(5)).await;
    clock.advance(2 * MINUTE);
    // In a runtime of one thread they all wait before any is carried.
    let asked = (0..3).map(|_| store.take(&[take(2, MINUTE)]).into_future());
    let mut found = Vec::new();
    for task in asked.map(tokio::spawn).collect::<Vec<_>>() {
        found.push(task.await.unwrap().unwrap()[0].decision.retry_after());
    }
    assert_eq!(found, [None, None, Some(MINUTE)]);
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn key_lives_a_window_after_its_last_request() {
    let (store, prefix, mut redis) = store().await;
    let key = format!("{prefix}:ip:=a");
    decide(&store, take(9, MINUTE)).await;
    let mut lives = support::pttl(&mut redis, &key).await;
    assert!((59_000..=60_000).contains(&lives), "{lives}");

    cmd("PEXPIRE").arg(&key).arg(30_000).exec_async(&mut redis).await.unwrap();
    decide(&store, take(9, MINUTE).with_cost(0)).await;
    decide(&store, take(9, MINUTE).with_cost(9)).await;
    lives = support::pttl(&mut redis, &key).await;
    assert!(lives <= 30_000, "a request that was not counted prolonged it to {lives}");
    decide(&store, take(9, MINUTE)).await;
    lives = support::pttl(&mut redis, &key).await;
    assert!((59_000..=60_000).contains(&lives), "{lives}");
}

/// Where requests share entries, too.
#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn key_lives_no_longer_than_a_window_after_a_request_that_joined_others() {
    let (store, prefix, mut redis) = store().await;
    let key = format!("{prefix}:ip:=a");
    for expires in [30_000, 90_000] {
        decide(&store, take(1_000, MINUTE)).await;
        cmd("PEXPIRE").arg(&key).arg(expires).exec_async(&mut redis).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        decide(&store, take(1_000, MINUTE)).await;
        let lives = support::pttl(&mut redis, &key).await;
        assert!((59_000..=60_000).contains(&lives), "{lives}");
    }
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn settled_hold_prolongs_nothing_and_what_is_empty_is_gone() {
    let (store, prefix, mut redis) = store().await;
    let key = format!("{prefix}:ip:=a");
    let hold = async || {
        let request = take(9, MINUTE).on_trial();
        *store.take(&[request]).await.unwrap()[0].hold.take().unwrap()
    };
    let (kept, given_back) = (hold().await, hold().await);
    store.settle(kept, true).await.unwrap();
    assert!((1..=60_000).contains(&support::pttl(&mut redis, &key).await));
    store.settle(given_back, false).await.unwrap();
    assert!((1..=60_000).contains(&support::pttl(&mut redis, &key).await));

    cmd("DEL").arg(&key).exec_async(&mut redis).await.unwrap();
    let only = hold().await;
    store.settle(only, false).await.unwrap();
    assert!(support::keys(&mut redis, &prefix).await.is_empty());
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn refusal_writes_nothing() {
    let (store, prefix, mut redis) = store().await;
    decide(&store, take(1, MINUTE)).await;
    let writes = async |redis: &mut MultiplexedConnection| -> String {
        cmd("GET").arg(format!("{prefix}:ip:=a")).query_async::<Vec<u8>>(redis).await.unwrap();
        let dump: Vec<u8> =
            cmd("DUMP").arg(format!("{prefix}:ip:=a")).query_async(redis).await.unwrap();
        format!("{dump:?}")
    };
    let before = writes(&mut redis).await;
    let stranger = keyed("b", take(9, MINUTE));
    for _ in 0..3 {
        store.take(&[take(1, MINUTE), stranger.clone()]).await.unwrap();
    }
    decide(&store, take(1, MINUTE)).await;
    assert_eq!(writes(&mut redis).await, before);
    assert_eq!(support::keys(&mut redis, &prefix).await, [format!("{prefix}:ip:=a")]);
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn who_is_refused_again_costs_no_call() {
    let (store, prefix, mut redis) = store().await;
    decide(&store, take(1, MINUTE)).await;
    let refused = decide(&store, take(1, MINUTE)).await;
    cmd("DEL").arg(format!("{prefix}:ip:=a")).exec_async(&mut redis).await.unwrap();
    let again = decide(&store, take(1, MINUTE)).await;
    assert!(!again.is_allowed() && again.retry_after() <= refused.retry_after());
    assert!(
        decide(&store, take(2, MINUTE)).await.is_allowed(),
        "another quota is another question"
    );
    assert!(decide(&store, keyed("b", take(1, MINUTE))).await.is_allowed());
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn what_is_not_ours_is_replaced_and_counted() {
    let (store, prefix, mut redis) = store().await;
    let foreign: [&[&str]; 6] = [
        &["SET", "?", "hello"],
        &["SET", "?", ""],
        &["SET", "?", "a text that is longer than the header of a log"],
        &["LPUSH", "?", "1"],
        &["HSET", "?", "a", "1"],
        &["SADD", "?", "1"],
    ];
    for (i, words) in foreign.iter().enumerate() {
        let name = format!("k{i}");
        let key = format!("{prefix}:ip:={name}");
        let mut command = cmd(words[0]);
        command.arg(&key).arg(&words[2..]).exec_async(&mut redis).await.unwrap();
        let request = keyed(name.as_str(), take(3, MINUTE));
        assert_eq!(decide(&store, request.clone().with_cost(0)).await.remaining(), 3);
        assert_eq!(store.replaced(), i as u64, "looking replaces nothing");
        assert_eq!(decide(&store, request.clone()).await.remaining(), 2);
        assert_eq!(store.replaced(), i as u64 + 1);
        assert_eq!(decide(&store, request).await.remaining(), 1);
        assert!(support::pttl(&mut redis, &key).await > 0);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn state_is_small() {
    let (store, prefix, mut redis) = store().await;
    let name = "k".repeat(44 - prefix.len() - ":ip:=".len());
    for (limit, requests, most) in [(100, 5, 152), (64, 64, 536), (300, 300, 536), (5, 5, 152)] {
        let request = keyed(name.as_str(), take(limit, MINUTE));
        for _ in 0..requests {
            assert!(decide(&store, request.clone()).await.is_allowed());
        }
        let key = format!("{prefix}:ip:={name}");
        let bytes: usize =
            cmd("MEMORY").arg("USAGE").arg(&key).query_async(&mut redis).await.unwrap();
        assert!(bytes <= most, "{bytes} bytes for {requests} of {limit}");
        cmd("DEL").arg(&key).exec_async(&mut redis).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn server_that_refuses_us_is_a_wrong_setting_and_one_that_is_gone_is_none() {
    let url = support::url();
    let (_, _, mut redis) = store().await;
    let user = prefix();
    let mut allow = async |but: &str| {
        let rules = [">secret", "on", "~*", "+@all", but];
        cmd("ACL").arg("SETUSER").arg(&user).arg(&rules).exec_async(&mut redis).await.unwrap();
    };
    let with = |credentials: &str| url.replace("redis://", &format!("redis://{credentials}@"));
    let probe = async |url: &str| RedisRateLimitStore::connect(url).await.err();

    for but in ["-set", "-setrange", "-pexpire", "-time"] {
        allow(but).await;
        let refused = probe(&with(&format!("{user}:wrong"))).await;
        assert!(matches!(refused, Some(RedisConfigError::Refused(_))));
        let forbidden = probe(&with(&format!("{user}:secret"))).await;
        assert!(matches!(forbidden, Some(RedisConfigError::Forbidden(_))), "{but}: {forbidden:?}");
    }
    assert!(matches!(probe(&format!("{url}/99")).await, Some(RedisConfigError::Refused(_))));
    for urls in ["", ",", "http://localhost", "redis://a:b:c", "redis://localhost/x"] {
        assert!(matches!(probe(urls).await, Some(RedisConfigError::Address(_))), "{urls}");
    }
    let several = format!("{url},{}", url.replace("127.0.0.1", "localhost"));
    let no_cluster = probe(&several).await;
    assert!(matches!(no_cluster, Some(RedisConfigError::Address(_))), "{no_cluster:?}");
    assert!(probe("redis://127.0.0.1:1").await.is_none());
    assert!(probe("unix:///nowhere/redis.sock").await.is_none());
    assert!(probe(&format!("{url}/3")).await.is_none());
    let no_tls_there = url.replace("redis://", "rediss://");
    assert_eq!(probe(&no_tls_there).await.is_some(), cfg!(not(feature = "tls")));
    cmd("ACL").arg("DELUSER").arg(&user).exec_async(&mut redis).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn nothing_tells_a_password() {
    let store = RedisRateLimitStore::new("redis://:hunter2@127.0.0.1:1").unwrap();
    let error = store.take(&[take(1, MINUTE)]).await.unwrap_err();
    assert!(!format!("{store:?} {error:?}").contains("hunter2"));
}

#[test]
#[ignore = "needs Redis: run tests/run"]
fn store_outlives_the_runtime_that_first_used_it() {
    let store = RedisRateLimitStore::new(&support::url()).unwrap().with_prefix(&prefix());
    for left in [2, 1, 0] {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let decision = runtime.block_on(decide(&store, take(3, MINUTE)));
        assert_eq!((decision.is_allowed(), decision.remaining()), (true, left));
        // Drops the tasks of the store, and its connections.
        drop(runtime);
    }
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn who_is_refused_again_by_one_of_two_limits_costs_no_call() {
    let (store, prefix, mut redis) = store().await;
    let both = [take(9, MINUTE), of("user", "a", 1)];
    store.take(&both).await.unwrap();
    let refused = store.take(&both).await.unwrap();
    cmd("DEL").arg(format!("{prefix}:user:=a")).exec_async(&mut redis).await.unwrap();
    let again = store.take(&both).await.unwrap();
    assert!(again[0].decision.is_allowed() && !again[1].decision.is_allowed());
    assert_eq!(again[0].decision.remaining(), refused[0].decision.remaining());
    assert!(!decide(&store, both[1].clone()).await.is_allowed());
    assert!(decide(&store, both[0].clone()).await.is_allowed());
}

#[tokio::test]
#[ignore = "needs a Redis Cluster: run tests/run"]
async fn one_address_of_a_cluster_is_found_to_be_one() {
    for url in support::cluster_urls().split(',') {
        for at_the_start in [true, false] {
            let store = match at_the_start {
                true => RedisRateLimitStore::connect(url).await.unwrap(),
                false => RedisRateLimitStore::new(url).unwrap(),
            };
            // On a busy machine each new connection takes its time.
            let store = store.with_prefix(&prefix()).with_patience(Duration::from_secs(5));
            for i in 0..40 {
                let key = format!("client-{i}");
                let take = of("ip", &key, 3);
                assert_eq!(decide(&store, take.clone()).await.remaining(), 2);
                assert_eq!(decide(&store, take).await.remaining(), 1);
            }
        }
    }
}

/// What the documentation says that a user needs.
const PERMISSIONS: &str = "+eval +evalsha +get +set +setrange +pttl +pexpire +del +time +ping";

#[tokio::test]
#[ignore = "needs Redis and a Redis Cluster: run tests/run"]
async fn documented_permissions_are_enough_and_none_is_too_many() {
    let needed: Vec<_> = PERMISSIONS.split(' ').collect();
    let nodes = support::cluster_urls();
    let with = |url: &str, user: &str| url.replace("redis://", &format!("redis://{user}:secret@"));
    let user = prefix();
    let set = async |url: &str, permissions: &[&str]| {
        let mut redis = support::connection(url).await;
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg(&user).arg(&["reset", "on", ">secret", "~rl:*"]);
        command.arg(permissions).exec_async(&mut redis).await.unwrap();
    };
    let url = support::url();
    set(&url, &needed).await;
    let store = RedisRateLimitStore::connect(&with(&url, &user)).await.unwrap();
    let key = prefix();
    let of = |limit| of("ip", &key, limit);
    for _ in 0..2 {
        assert!(decide(&store, of(2)).await.is_allowed());
    }
    assert!(!decide(&store, of(2)).await.is_allowed());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(decide(&store, of(300)).await.is_allowed(), "an idle connection is tried");
    let mut redis = support::connection(&url).await;
    let denied: Vec<::redis::Value> = cmd("ACL").arg("LOG").query_async(&mut redis).await.unwrap();
    assert!(!format!("{denied:?}").contains(&user), "{denied:?}");
    // A script that is there already needs no EVAL, and a new connection no PING.
    for without in needed.iter().filter(|command| !["+eval", "+ping"].contains(command)) {
        let most: Vec<_> = needed.iter().filter(|command| *command != without).copied().collect();
        set(&url, &most).await;
        let refused = RedisRateLimitStore::connect(&with(&url, &user)).await.err();
        let forbidden = matches!(refused, Some(RedisConfigError::Forbidden(_)));
        assert!(forbidden, "{without}: {refused:?}");
    }
    cmd("ACL").arg("DELUSER").arg(&user).exec_async(&mut redis).await.unwrap();

    let on_cluster: Vec<_> = needed.iter().copied().chain(["+cluster|slots"]).collect();
    for (permissions, enough) in [(&on_cluster, true), (&needed, false)] {
        for node in nodes.split(',') {
            set(node, permissions).await;
        }
        for urls in [nodes.as_str(), nodes.split(',').next().unwrap()] {
            let answer = RedisRateLimitStore::connect(&with(urls, &user)).await;
            if enough {
                decide(&answer.unwrap(), of(3)).await;
            } else {
                let refused = answer.err();
                assert!(matches!(refused, Some(RedisConfigError::Forbidden(_))), "{refused:?}");
            }
        }
    }
    for node in nodes.split(',') {
        let mut redis = support::connection(node).await;
        cmd("ACL").arg("DELUSER").arg(&user).exec_async(&mut redis).await.unwrap();
    }
}

/// A value in the form of a log: fields that may be anything, and entries.
fn crafted() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![Just(0u64), Just(1), 0..200_000_000u64, any::<u64>()];
    let near = prop_oneof![
        4 => (-200_000_000..200_000_000i64).prop_map(|by| NOW.saturating_add_signed(by)),
        1 => any::<u64>(),
    ];
    let widths = prop_oneof![
        4 => (4..=6u8, prop_oneof![Just(1u8), Just(2), Just(4)], 0..=1u8)
            .prop_map(|(at, count, held)| at * 32 + count * 4 + held),
        1 => any::<u8>(),
    ];
    let header = (168..=171u8, widths, near, vec(small.clone(), 4));
    (header, vec(small, 0..200), any::<bool>(), 0..3_000usize).prop_map(
        |((tag, widths, base, fields), entries, whole, many)| {
            let mut bytes = vec![tag, widths];
            bytes.extend_from_slice(&base.to_le_bytes()[..7]);
            for field in fields {
                bytes.extend_from_slice(&field.to_le_bytes()[..6]);
            }
            let (at, count, held) = (widths / 32, widths / 4 % 8, widths % 4);
            let size = usize::from(at + count + held * count).max(1);
            let entry = |number: &u64| number.to_le_bytes().into_iter().cycle().take(size);
            bytes.extend(entries.iter().flat_map(entry));
            if whole {
                let more = entries.first().copied().unwrap_or(7);
                bytes.extend((0..many as u64).flat_map(|i| {
                    (more.wrapping_add(i)).to_le_bytes().into_iter().cycle().take(size)
                }));
            }
            bytes
        },
    )
}

/// Of the test's clock, in microseconds.
const NOW: u64 = 1_700_000_000_000_000;

#[test]
#[ignore = "needs Redis: run tests/run"]
fn no_value_at_a_key_costs_much_or_stays() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(support::OwnServer::start_with(&[
        "--save",
        "",
        "--slowlog-log-slower-than",
        "50000",
        "--lua-time-limit",
        "500",
    ]));
    let clock = ManualClock::new();
    clock.set(UNIX_EPOCH + Duration::from_micros(NOW));
    let base = RedisRateLimitStore::new(&server.url()).unwrap().with_remembered_refusals(0);
    let base = base.with_clock_for_tests(Arc::new(clock.clone()));
    let mut connection = runtime.block_on(support::connection(&server.url()));
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() };
    let limits = prop_oneof![Just(5u32), Just(100), Just(u32::MAX)];
    let windows = prop_oneof![Just(MINUTE), Just(90 * MINUTE)];
    let input = (crafted(), limits, windows, 0..4u32, any::<bool>());
    let sane = |(bytes, limit, window, cost, hold): (Vec<u8>, u32, Duration, u32, bool)| {
        let prefix = prefix();
        let store = base.clone().with_prefix(&prefix);
        let key = format!("{prefix}:ip:=a");
        let mut redis = connection.clone();
        runtime.block_on(async {
            cmd("SET").arg(&key).arg(&bytes).exec_async(&mut redis).await.unwrap();
            let question = take(limit, window).with_cost(cost);
            let question = if hold { question.on_trial() } else { question };
            for _ in 0..3 {
                let mut answer = store.take(slice::from_ref(&question)).await.unwrap();
                let decision = answer[0].decision;
                prop_assert!(decision.remaining() <= limit);
                let longest = 2 * window;
                prop_assert!(decision.retry_after().is_none_or(|wait| wait <= longest));
                prop_assert!(decision.reset_after() <= longest, "{decision:?}");
                if let Some(hold) = answer[0].hold.take() {
                    store.settle(*hold, false).await.unwrap();
                }
            }
            let lives = support::pttl(&mut redis, &key).await;
            let is_ours = cost > 0 || (169..=170).contains(&bytes[0]);
            prop_assert!(lives != -1 || !is_ours || cost == 0, "it stays for ever");
            cmd("DEL").arg(&key).exec_async(&mut redis).await.unwrap();
            Ok(())
        })
    };
    TestRunner::new(config).run(&input, sane).unwrap();
    let slow: Vec<::redis::Value> =
        runtime.block_on(cmd("SLOWLOG").arg("GET").query_async(&mut connection)).unwrap();
    assert!(slow.is_empty(), "{slow:?}");
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn value_of_ours_that_would_live_for_ever_does_not() {
    let (store, prefix, mut redis) = store().await;
    for (i, (limit, cost)) in [(5, 1), (100, 1), (1, 1), (100, 0)].into_iter().enumerate() {
        let question = of("ip", &format!("k{i}"), limit);
        let key = format!("{prefix}:ip:=k{i}");
        decide(&store, question.clone()).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        cmd("PERSIST").arg(&key).exec_async(&mut redis).await.unwrap();
        decide(&store, question.with_cost(cost)).await;
        let lives = support::pttl(&mut redis, &key).await;
        assert!((1..=61_000).contains(&lives), "{limit}: {lives}");
    }
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn what_a_longer_window_needs_is_kept() {
    let hour = Duration::from_secs(3_600);
    let clock = ManualClock::new();
    let store = RedisRateLimitStore::new(&support::url()).unwrap().with_prefix(&prefix());
    let store = store.with_clock_for_tests(Arc::new(clock.clone()));
    for _ in 0..5 {
        assert!(decide(&store, take(5, hour)).await.is_allowed());
    }
    clock.advance(2 * MINUTE);
    assert_eq!(decide(&store, take(5, MINUTE).with_cost(0)).await.remaining(), 5);
    for left in (0..5).rev() {
        assert_eq!(decide(&store, take(5, MINUTE)).await.remaining(), left);
    }
    assert_eq!(decide(&store, take(5, MINUTE)).await.retry_after(), Some(MINUTE));
    let refused = decide(&store, take(10, hour)).await;
    assert_eq!((refused.is_allowed(), refused.retry_after()), (false, Some(hour - 2 * MINUTE)));
    clock.advance(hour - 2 * MINUTE);
    assert_eq!(decide(&store, take(10, hour)).await.remaining(), 4);
}

/// The true time, as one clock shows it: from a beginning of its own, and a little fast or slow. To
/// look at it takes time.
#[derive(Clone, Debug)]
struct Skewed {
    truth: Arc<AtomicU64>,
    beginning: u64,
    /// In thousandths.
    fast: i64,
    /// How long a look takes at most.
    look: u64,
}

impl Skewed {
    fn micros(&self) -> u64 {
        let passed = self.truth.load(Ordering::Relaxed);
        let took = passed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let passed = self.truth.fetch_add(took % (self.look + 1), Ordering::Relaxed);
        self.beginning + passed.saturating_add_signed(passed as i64 / 1_000 * self.fast)
    }
}

impl Clock for Skewed {
    fn now(&self) -> std::time::SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.micros())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros())
    }
}

/// The most that were admitted in any window.
fn busiest(window: u64, admitted: &[u64]) -> usize {
    let in_window =
        |(i, end): (usize, &u64)| i + 1 - admitted.partition_point(|at| at + window <= *end);
    admitted.iter().enumerate().map(in_window).max().unwrap_or(0)
}

#[test]
#[ignore = "needs Redis: run tests/run"]
fn several_servers_with_leases_keep_the_promise_whatever_their_clocks_show() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = RedisRateLimitStore::new(&support::url()).unwrap();
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() };
    let servers = vec((0..1_000_000_000u64, -9..=9i64, any::<bool>()), 2..5);
    // Many requests in a row, and then so long none: about a lease, so that the next are spent at its
    // end; or about a window, so that what was counted leaves.
    let pause = prop_oneof![2 => 600_000..1_000_000u64, 2 => 62_500_000..64_000_000u64];
    let spell = (20..300usize, prop_oneof![0..500u64, 0..20_000u64], pause);
    let spells = vec(spell, 3..9);
    let input = (servers, spells, 60..300u32, prop_oneof![3 => Just(0u64), 1 => 0..50_000u64]);
    let leased = AtomicU64::new(0);
    type Servers = Vec<(u64, i64, bool)>;
    type Spells = Vec<(usize, u64, u64)>;
    let keeps = |(servers, spells, limit, look): (Servers, Spells, u32, u64)| {
        let truth = Arc::new(AtomicU64::new(0));
        let clock =
            |beginning, fast| Arc::new(Skewed { truth: Arc::clone(&truth), beginning, fast, look });
        // Each instant is an entry of its own.
        let base = base.clone().with_resolution(1024).with_prefix(&prefix());
        let base = base.with_clock_for_tests(clock(NOW, 0));
        let stores: Vec<_> = servers
            .iter()
            .map(|&(beginning, fast, leases)| {
                let store = base.clone().with_remembered_refusals(100);
                let store = store.with_own_clock_for_tests(clock(beginning, fast));
                if leases { store.with_leases() } else { store }
            })
            .collect();
        let (window, mut admitted) = (64_000_000, Vec::new());
        let question = [take(limit, Duration::from_micros(window))];
        runtime.block_on(async {
            for (requests, apart, pause) in spells {
                for i in 0..requests {
                    truth.fetch_add(apart, Ordering::Relaxed);
                    // In turns, and for a while each.
                    let answer = stores[i / 5 % stores.len()].take(&question);
                    let at_once = matches!(&answer, Answer::Ready(_));
                    if answer.await.unwrap()[0].decision.is_allowed() {
                        admitted.push(truth.load(Ordering::Relaxed));
                        leased.fetch_add(u64::from(at_once), Ordering::Relaxed);
                    }
                }
                truth.fetch_add(pause, Ordering::Relaxed);
            }
        });
        let busiest = busiest(window, &admitted);
        prop_assert!(busiest <= limit as usize, "{busiest} of {limit}");
        Ok(())
    };
    TestRunner::new(config).run(&input, keeps).unwrap();
    assert!(leased.load(Ordering::Relaxed) > 1_000, "it wasn't leases that were tested");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn many_servers_with_leases_on_one_key_keep_the_promise() {
    let (url, prefix) = (support::url(), prefix());
    let (limit, window) = (3_000, Duration::from_secs(3));
    let mut tasks = tokio::task::JoinSet::new();
    let begun = std::time::Instant::now();
    for _ in 0..12 {
        let store = RedisRateLimitStore::new(&url).unwrap().with_prefix(&prefix).with_leases();
        for _ in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                let (mut admitted, mut at_once) = (Vec::new(), 0);
                while begun.elapsed() < Duration::from_secs(7) {
                    let before = begun.elapsed();
                    let answer = store.take(&[take(limit, window)]);
                    let leased = matches!(&answer, Answer::Ready(_));
                    if answer.await.unwrap()[0].decision.is_allowed() {
                        admitted.push((before, begun.elapsed()));
                        at_once += usize::from(leased);
                    }
                    tokio::task::yield_now().await;
                }
                (admitted, at_once)
            });
        }
    }
    let (mut admitted, mut at_once) = (Vec::new(), 0);
    for (some, leased) in tasks.join_all().await {
        admitted.extend(some);
        at_once += leased;
    }
    // Those surely within a window, as each was admitted at some moment between two that are known.
    admitted.sort_by_key(|(_, after)| *after);
    for (i, &(begin, _)) in admitted.iter().enumerate().step_by(17) {
        let until = admitted.partition_point(|(_, after)| *after < begin + window);
        let surely = admitted[..until].iter().filter(|(before, _)| *before >= begin).count();
        assert!(surely <= limit as usize, "{surely} of {limit}, from {begin:?}, the {i}th");
    }
    assert!(admitted.len() > limit as usize, "{} admitted", admitted.len());
    assert!(at_once > 10, "{at_once} by leases");
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn what_is_left_of_a_lease_is_given_back() {
    let (store, prefix, mut redis) = store().await;
    let store = store.with_leases();
    // Leases of a second: longer than the machine may take for all that is asked here.
    let question = take(10_000, Duration::from_secs(64));
    let mut calls = 0;
    for _ in 0..200 {
        let answer = store.take(slice::from_ref(&question));
        calls += usize::from(matches!(&answer, Answer::Pending(_)));
        assert!(answer.await.unwrap()[0].decision.is_allowed());
    }
    assert!(calls < 60, "{calls} calls for 200 decisions");
    let lives = support::pttl(&mut redis, &format!("{prefix}:ip:=a")).await;
    assert!((1..=65_100).contains(&lives), "{lives}");
    let other = RedisRateLimitStore::new(&support::url()).unwrap().with_prefix(&prefix);
    let look = question.with_cost(0);
    let left = async || decide(&other, look.clone()).await.remaining();
    assert!(left().await < 10_000 - 200, "some of a lease is left");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while left().await != 10_000 - 200 {
        assert!(std::time::Instant::now() < deadline, "{} remain", left().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs Redis: run tests/run"]
async fn what_is_reset_is_forgotten() {
    let (store, prefix, mut redis) = store().await;
    let question = take(1, MINUTE);
    decide(&store, question.clone()).await;
    assert!(!decide(&store, question.clone()).await.is_allowed());
    store.reset(question.limiter, &question.key).await.unwrap();
    assert!(support::keys(&mut redis, &prefix).await.is_empty());
    assert!(decide(&store, question).await.is_allowed());
}
