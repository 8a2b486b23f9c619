//! What every [`RateLimitStore`] does. The cases are functions of a fresh store of which they move
//! the time; [`limit_contract!`] makes tests of them for a wing.

use std::{sync::Arc, time::Duration};

use tower_warden::{
    ClientIp, Key, ManualClock, Quota, UserId,
    limit::{
        Decision, LimiterName, RateLimitStore,
        store::{Decisions, Hold, Take, Taken},
    },
    store::memory::MemoryRateLimitStore,
};

/// A store, and its time.
pub(crate) struct Wing {
    pub(crate) store: Arc<dyn RateLimitStore>,
    pub(crate) clock: ManualClock,
}

impl Wing {
    async fn take(&self, takes: &[Take]) -> Decisions {
        let decisions = self.store.take(takes).await.unwrap();
        assert_eq!(decisions.len(), takes.len());
        decisions
    }

    async fn decide(&self, take: Take) -> Decision {
        self.take(&[take]).await[0].decision
    }

    async fn hold(&self, take: Take) -> Hold {
        *self.take(&[take.on_trial()]).await[0].hold.take().expect("it was admitted")
    }

    async fn remaining(&self, take: Take) -> u32 {
        self.decide(take.with_cost(0)).await.remaining()
    }

    fn wait(&self, time: Duration) {
        self.clock.advance(time);
    }
}

/// A request that costs 1, of the client `a`, where so many are allowed in a minute.
fn of(limit: u32) -> Take {
    Take::new(name("ip"), "a", Quota::per_minute(limit))
}

fn name(text: &str) -> LimiterName {
    LimiterName::new(text).unwrap()
}

fn login(limit: u32) -> Take {
    let quota = Quota::new(limit, Duration::from_secs(900)).unwrap();
    Take::new(name("login"), "a", quota)
}

const MINUTE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_micros(1);

/// Runs every case over a wing: a module name, the test attributes, and a fresh [`Wing`].
macro_rules! limit_contract {
    ($wing:ident, $attributes:tt, $fresh:expr) => {
        mod $wing {
            use super::*;

            limit_contract! { @each $attributes $fresh,
                limit_is_admitted_and_no_more
                request_leaves_exactly_a_window_after_it_came
                refusal_counts_nothing_and_names_when_it_would_be_admitted
                one_refusal_of_several_counts_under_none
                all_that_refuse_say_so
                cost_is_counted_whole_or_not_at_all
                cost_of_nothing_only_looks
                cost_above_the_limit_is_never_admitted
                changed_limit_applies_at_once
                hold_counts_until_it_is_given_back
                kept_hold_counts_like_any_request
                refusal_due_to_holds_in_flight_is_for_a_second
                hold_that_left_the_window_takes_nothing_from_later_requests
                hold_is_given_back_under_each_limit_apart
                no_hold_comes_back_from_a_refusal
                parallel_requests_never_exceed_a_limit
                parallel_guesses_never_exceed_a_limit
                clones_and_limiters_and_keys
                no_key_reaches_another
                changed_window_forgets_nothing_that_a_longer_one_needs
            }
        }
    };
    (@each $attributes:tt $fresh:expr, $($case:ident)+) => {
        $(limit_contract! { @one $attributes $fresh, $case })+
    };
    (@one { $(#[$attribute:meta])+ } $fresh:expr, $case:ident) => {
        $(#[$attribute])+
        async fn $case() {
            super::$case(&$fresh).await;
        }
    };
}
#[cfg(feature = "redis")]
pub(crate) use limit_contract;

limit_contract!(memory, { #[tokio::test(flavor = "multi_thread")] }, {
    let clock = ManualClock::new();
    let store = MemoryRateLimitStore::new().with_clock(Arc::new(clock.clone()));
    Wing { store: Arc::new(store), clock }
});

pub(crate) async fn limit_is_admitted_and_no_more(wing: &Wing) {
    for left in [2, 1, 0] {
        let decision = wing.decide(of(3)).await;
        let expected = Decision::admitted(Quota::per_minute(3), left, MINUTE);
        assert_eq!(decision, expected);
    }
    assert!(!wing.decide(of(3)).await.is_allowed());
}

pub(crate) async fn request_leaves_exactly_a_window_after_it_came(wing: &Wing) {
    wing.decide(of(2)).await;
    wing.wait(MINUTE / 2);
    wing.decide(of(2)).await;
    wing.wait(MINUTE / 2 - TICK);
    assert!(!wing.decide(of(2)).await.is_allowed());
    wing.wait(TICK);
    assert_eq!(wing.remaining(of(2)).await, 1);
    assert!(wing.decide(of(2)).await.is_allowed());
    assert!(!wing.decide(of(2)).await.is_allowed());
}

pub(crate) async fn refusal_counts_nothing_and_names_when_it_would_be_admitted(wing: &Wing) {
    wing.decide(of(2)).await;
    wing.wait(Duration::from_secs(10));
    wing.decide(of(2)).await;
    for _ in 0..5 {
        let refused = wing.decide(of(2)).await;
        let retry_after = Some(Duration::from_secs(50));
        let reset_after = Duration::from_secs(50);
        let quota = Quota::per_minute(2);
        let expected = Decision::refused(quota, 0, reset_after, retry_after);
        assert_eq!(refused, expected);
    }
    wing.wait(Duration::from_secs(50) - TICK);
    assert!(!wing.decide(of(2)).await.is_allowed());
    wing.wait(TICK);
    assert!(wing.decide(of(2)).await.is_allowed());
}

pub(crate) async fn one_refusal_of_several_counts_under_none(wing: &Wing) {
    wing.decide(login(1)).await;
    for _ in 0..3 {
        let decisions = wing.take(&[of(5), login(1)]).await;
        assert!(decisions[0].decision.is_allowed() && !decisions[1].decision.is_allowed());
        assert_eq!(decisions[0].decision.remaining(), 5);
    }
    assert_eq!(wing.remaining(of(5)).await, 5);
    let decisions = wing.take(&[of(5), login(2)]).await;
    assert!(decisions.iter().all(|taken| taken.decision.is_allowed()));
    assert_eq!((wing.remaining(of(5)).await, wing.remaining(login(2)).await), (4, 0));
}

pub(crate) async fn all_that_refuse_say_so(wing: &Wing) {
    wing.take(&[of(1), login(1)]).await;
    let waits: Vec<_> = wing.take(&[of(1), login(1)]).await.iter().map(wait_of).collect();
    assert_eq!(waits, [Some(MINUTE), Some(15 * MINUTE)]);
}

fn wait_of(taken: &Taken) -> Option<Duration> {
    taken.decision.retry_after()
}

pub(crate) async fn cost_is_counted_whole_or_not_at_all(wing: &Wing) {
    let three = || of(5).with_cost(3);
    assert_eq!(wing.decide(three()).await.remaining(), 2);
    wing.wait(TICK);
    assert!(!wing.decide(three()).await.is_allowed());
    assert_eq!(wing.decide(of(5).with_cost(2)).await.remaining(), 0);
}

pub(crate) async fn cost_of_nothing_only_looks(wing: &Wing) {
    let look = || of(1).with_cost(0);
    for remaining in [1, 1] {
        let seen = wing.decide(look()).await;
        assert_eq!(
            (seen.is_allowed(), seen.remaining(), seen.reset_after()),
            (true, remaining, Duration::ZERO)
        );
    }
    wing.decide(of(1)).await;
    let seen = wing.decide(look()).await;
    assert_eq!((seen.is_allowed(), seen.remaining(), seen.reset_after()), (true, 0, MINUTE));
}

pub(crate) async fn cost_above_the_limit_is_never_admitted(wing: &Wing) {
    let refused = wing.decide(of(3).with_cost(4)).await;
    assert_eq!(
        (refused.is_allowed(), refused.retry_after(), refused.remaining()),
        (false, None, 3)
    );
}

pub(crate) async fn changed_limit_applies_at_once(wing: &Wing) {
    for _ in 0..10 {
        wing.decide(of(10)).await;
    }
    let lowered = wing.decide(of(5)).await;
    assert_eq!((lowered.is_allowed(), lowered.remaining()), (false, 0));
    assert_eq!(wing.decide(of(100_000)).await.remaining(), 99_989);
    let longer = Take::new(name("ip"), "a", Quota::per_hour(12));
    assert_eq!(wing.decide(longer).await.remaining(), 0);
}

pub(crate) async fn hold_counts_until_it_is_given_back(wing: &Wing) {
    let hold = wing.hold(login(1)).await;
    assert!(!wing.decide(login(1)).await.is_allowed());
    let after = wing.store.settle(hold, false).await.unwrap();
    assert_eq!(
        (after.is_allowed(), after.remaining(), after.reset_after()),
        (true, 1, Duration::ZERO)
    );
    assert!(wing.decide(login(1)).await.is_allowed());
}

pub(crate) async fn kept_hold_counts_like_any_request(wing: &Wing) {
    let hold = wing.hold(login(2)).await;
    wing.wait(MINUTE);
    let after = wing.store.settle(hold, true).await.unwrap();
    assert_eq!((after.remaining(), after.reset_after()), (1, 14 * MINUTE));
    wing.decide(login(2)).await;
    assert_eq!(wing.decide(login(2)).await.retry_after(), Some(14 * MINUTE));
}

pub(crate) async fn refusal_due_to_holds_in_flight_is_for_a_second(wing: &Wing) {
    let second = Some(Duration::from_secs(1));
    wing.decide(login(3)).await;
    wing.wait(TICK);
    let (first, second_hold) = (wing.hold(login(3)).await, wing.hold(login(3)).await);
    assert_eq!(wing.decide(login(3)).await.retry_after(), second);
    wing.store.settle(first, true).await.unwrap();
    assert_eq!(wing.decide(login(3)).await.retry_after(), second);
    wing.store.settle(second_hold, true).await.unwrap();
    assert_eq!(wing.decide(login(3)).await.retry_after(), Some(15 * MINUTE - TICK));
}

pub(crate) async fn hold_that_left_the_window_takes_nothing_from_later_requests(wing: &Wing) {
    let hold = wing.hold(of(2)).await;
    wing.wait(MINUTE);
    let later = wing.hold(of(2)).await;
    assert_eq!(wing.store.settle(hold, false).await.unwrap().remaining(), 1);
    assert_eq!(wing.store.settle(later, false).await.unwrap().remaining(), 2);
}

pub(crate) async fn hold_is_given_back_under_each_limit_apart(wing: &Wing) {
    let held = login(5).on_trial();
    let mut decisions = wing.take(&[of(5), held]).await;
    assert!(decisions[0].hold.is_none());
    let hold = *decisions[1].hold.take().unwrap();
    assert_eq!((hold.limiter, hold.cost), (name("login"), 1));
    wing.store.settle(hold, false).await.unwrap();
    assert_eq!((wing.remaining(of(5)).await, wing.remaining(login(5)).await), (4, 5));
}

pub(crate) async fn no_hold_comes_back_from_a_refusal(wing: &Wing) {
    wing.decide(of(1)).await;
    let held = login(5).on_trial();
    assert!(wing.take(&[of(1), held]).await.iter().all(|taken| taken.hold.is_none()));
}

pub(crate) async fn parallel_requests_never_exceed_a_limit(wing: &Wing) {
    assert_eq!(admitted(wing, 100, |_| vec![of(30)]).await, 30);
    assert_eq!(admitted(wing, 100, |_| vec![login(100), of(50)]).await, 20);
    assert_eq!(wing.remaining(login(100)).await, 80);
}

pub(crate) async fn parallel_guesses_never_exceed_a_limit(wing: &Wing) {
    assert_eq!(admitted(wing, 100, |_| vec![login(5).on_trial()]).await, 5);
}

/// How many of so many requests at the same time are admitted.
async fn admitted(wing: &Wing, requests: usize, takes: impl Fn(usize) -> Vec<Take>) -> usize {
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..requests {
        let (store, takes) = (Arc::clone(&wing.store), takes(i));
        tasks.spawn(async move { store.take(&takes).await.unwrap() });
    }
    let answers = tasks.join_all().await;
    answers.iter().filter(|taken| taken.iter().all(|taken| taken.decision.is_allowed())).count()
}

pub(crate) async fn clones_and_limiters_and_keys(wing: &Wing) {
    wing.decide(of(3)).await;
    let clone = Arc::clone(&wing.store);
    assert_eq!(clone.take(&[of(3)]).await.unwrap()[0].decision.remaining(), 1);
    assert_eq!(wing.decide(Take::new(name("other"), "a", of(3).quota)).await.remaining(), 2);
    assert_eq!(wing.decide(Take::new(name("ip"), "b", of(3).quota)).await.remaining(), 2);
}

pub(crate) async fn no_key_reaches_another(wing: &Wing) {
    let long = "x".repeat(10_000);
    let longer = "x".repeat(10_001);
    let texts = [
        "",
        "a",
        "A",
        "a:b",
        "a%3Ab",
        "{a}",
        "{a}b",
        "=a",
        "#a",
        "*",
        "203.0.113.9",
        "a\0",
        "a\r\nb",
        "é",
        &long,
        &longer,
    ];
    let ip = |text: &str| ClientIp::from(text.parse::<std::net::IpAddr>().unwrap());
    let ips = ["203.0.113.9", "2001:db8::1", "2001:db8:0:1::1"].map(|text| Key::from(ip(text)));
    let mut keys = Vec::from(ips);
    let nets = [48, 49, 63].map(|prefix| Key::from(ip("2001:db8::1").with_ipv6_prefix(prefix)));
    keys.extend(nets);
    keys.extend(texts.map(Key::from));
    keys.extend(texts.map(|text| Key::from(&UserId::from(text))));
    keys.extend([Key::from(0_u64), Key::from(42_u64), Key::from("42"), Key::from("+42")]);
    for key in keys {
        for limiter in ["ip", "a"] {
            let take = Take::new(name(limiter), key.clone(), of(1).quota);
            assert!(wing.decide(take).await.is_allowed(), "{limiter} {key:?} was counted before");
        }
    }
}

/// One limiter and key under quotas that change, as the plans of a user do: every decision is one
/// that the contract allows. What was counted less than the window of the question ago, and less than
/// the longest window by which anything still kept was counted, must count; what is older than that
/// may; nothing else does.
pub(crate) async fn changed_window_forgets_nothing_that_a_longer_one_needs(wing: &Wing) {
    let minutes = |n| n * MINUTE;
    let quotas = [(5, minutes(60)), (3, minutes(1)), (4, minutes(10)), (5, minutes(1))]
        .map(|(limit, window)| Quota::new(limit, window).unwrap());
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |n: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    for history in 0..100 {
        let (key, mut known, mut now) =
            (format!("changed {history}"), Known::default(), minutes(100));
        for _ in 0..30 {
            let longest_wait = [1, 30, 90, 700, 4_000][below(5) as usize];
            let wait = Duration::from_secs(below(longest_wait));
            wing.wait(wait);
            now += wait;
            known.forget(now);
            let quota = quotas[below(4) as usize];
            let cost = [0, 1, 1, 2][below(4) as usize];
            let take = Take::new(name("user"), key.as_str(), quota).with_cost(cost);
            known.check(now, cost, wing.decide(take).await);
        }
    }
}

/// What was counted, and what of it a store must still know.
#[derive(Default)]
struct Known {
    counted: Vec<(Duration, u32)>,
    kept: Vec<(Duration, u32)>,
    longest: Duration,
}

impl Known {
    fn forget(&mut self, now: Duration) {
        self.kept.retain(|(at, _)| *at + self.longest > now);
        if self.kept.is_empty() {
            self.longest = Duration::ZERO;
        }
    }

    fn check(&mut self, now: Duration, cost: u32, decision: Decision) {
        let (limit, window) = (decision.quota().limit(), decision.quota().window());
        let within = |counted: &[(Duration, u32)]| -> u32 {
            counted.iter().filter(|(at, _)| *at + window > now).map(|(_, cost)| cost).sum()
        };
        if decision.is_allowed() && cost > 0 {
            let used = within(&self.kept);
            assert!(
                used + cost <= limit,
                "{used} and {cost} more were admitted of {limit} in {window:?}"
            );
            self.counted.push((now, cost));
            self.kept.push((now, cost));
            self.longest = self.longest.max(window);
        } else if cost > 0 {
            let used = within(&self.counted);
            assert!(used + cost > limit, "{cost} beside {used} refused of {limit} in {window:?}");
        }
        let (least, most) = (within(&self.kept), within(&self.counted));
        let remaining = limit.saturating_sub(most)..=limit.saturating_sub(least);
        assert!(remaining.contains(&decision.remaining()), "{decision:?}: {remaining:?} remain");
    }
}
