//! Decisions as response headers, and which limiter speaks where several do.
//!
//! - `X-RateLimit-Limit`, `-Remaining`, `-Reset`: of the limiter with the least remaining, or, on a
//!   refusal, of the one that refuses for longest. `Reset` is the Unix second, rounded up, at which
//!   the oldest counted request leaves the window.
//! - `RateLimit-Policy` and `RateLimit`: of all, in the lists of
//!   draft-ietf-httpapi-ratelimit-headers-11. `t` is the longer of the time until there is more and
//!   `r * w / q`: a client that spreads `r` over `t` keeps to the policy.
//! - `Retry-After`: on a refusal; a request sent then is admitted, if no other came first.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::Decision;

/// What each limiter that applied to a request said, outer layers' first; in the extensions of the
/// response, so that layers around one another speak with one voice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(pub(crate) SmallVec<[Report; 2]>);

/// What one limiter said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) limiter: &'static str,
    pub(crate) decision: Decision,
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY_LIST: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT_LIST: HeaderName = HeaderName::from_static("ratelimit");

impl Reports {
    /// Writes the headers of all limiters, in place of any that are there.
    pub(crate) fn write(&self, headers: &mut HeaderMap, now: SystemTime) {
        let Some(speaker) = self.speaker() else { return };
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        headers.insert(LIMIT, speaker.quota().limit().into());
        headers.insert(REMAINING, speaker.remaining().into());
        headers.insert(RESET, seconds(since_epoch + speaker.reset_after()).into());

        let (mut policies, mut limits) = (String::new(), String::new());
        for Report { limiter, decision } in &self.0 {
            let (q, w) = (decision.quota().limit(), seconds(decision.quota().window()));
            let (r, t) = (decision.remaining(), until_more(decision));
            let comma = if policies.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(policies, "{comma}\"{limiter}\";q={q};w={w}");
            let _ = write!(limits, "{comma}\"{limiter}\";r={r};t={t}");
        }
        for (name, list) in [(POLICY_LIST, policies), (LIMIT_LIST, limits)] {
            if let Ok(value) = HeaderValue::try_from(list) {
                headers.insert(name, value);
            }
        }
    }

    /// The refusal that lasts longest, if there is one; as clients are told it, so that no limiter's
    /// `t` is later than `Retry-After`.
    pub(crate) fn refusal(&self) -> Option<&Report> {
        let refusals = self.0.iter().filter(|report| !report.decision.is_allowed());
        refusals.max_by_key(|report| retry_after(&report.decision).unwrap_or(u64::MAX))
    }

    fn speaker(&self) -> Option<&Decision> {
        let least = || self.0.iter().min_by_key(|report| report.decision.remaining());
        self.refusal().or_else(least).map(|report| &report.decision)
    }
}

/// `Retry-After` of a refusal, in seconds; `None` where waiting doesn't help.
pub(crate) fn retry_after(decision: &Decision) -> Option<u64> {
    decision.retry_after().map(|wait| seconds(wait).max(until_more(decision)).max(1))
}

/// `t` of a limiter, in seconds.
fn until_more(decision: &Decision) -> u64 {
    let more = decision.retry_after().unwrap_or(decision.reset_after());
    let window_us = u128::from(decision.quota().window_us());
    let fair = (u128::from(decision.remaining()) * window_us)
        .div_ceil(u128::from(decision.quota().limit()) * 1_000_000);
    seconds(more).max(u64::try_from(fair).unwrap_or(u64::MAX))
}

/// Rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Quota;

    fn decision(quota: Quota, remaining: u32, reset_ms: u64, retry_ms: Option<u64>) -> Decision {
        let reset_after = Duration::from_millis(reset_ms);
        match retry_ms {
            None => Decision::admitted(quota, remaining, reset_after),
            retry_ms => {
                let retry_after = retry_ms.map(Duration::from_millis);
                Decision::refused(quota, remaining, reset_after, retry_after)
            }
        }
    }

    fn written(reports: &[(&'static str, Decision)]) -> [String; 5] {
        let reports =
            reports.iter().map(|(limiter, decision)| Report { limiter, decision: *decision });
        let mut headers = HeaderMap::new();
        let now = UNIX_EPOCH + Duration::from_millis(1_000_500);
        Reports(reports.collect()).write(&mut headers, now);
        [LIMIT, REMAINING, RESET, POLICY_LIST, LIMIT_LIST]
            .map(|name| headers[name].to_str().unwrap().to_owned())
    }

    const IP: Quota = Quota::per_minute(100);
    const LOGIN: Quota = Quota::per_hour(5);

    #[test]
    fn the_lists_name_all_limiters_and_the_rest_tells_of_the_tightest() {
        assert_eq!(
            written(&[
                ("ip", decision(IP, 99, 60_000, None)),
                ("login", decision(LOGIN, 4, 3_599_001, None))
            ]),
            [
                "5",
                "4",
                "4600",
                r#""ip";q=100;w=60, "login";q=5;w=3600"#,
                r#""ip";r=99;t=60, "login";r=4;t=3600"#
            ]
        );
    }

    #[test]
    fn with_nothing_counted_reset_is_now() {
        assert_eq!(written(&[("ip", decision(IP, 100, 0, None))])[2], "1001");
    }

    #[test]
    fn t_is_the_longer_of_more_and_fair() {
        for (remaining, reset_ms, t) in
            [(50, 10_000, 30), (1, 10_000, 10), (0, 10_001, 11), (33, 0, 20)]
        {
            let list = &written(&[("ip", decision(IP, remaining, reset_ms, None))])[4];
            assert_eq!(*list, format!("\"ip\";r={remaining};t={t}"));
        }
    }

    #[test]
    fn the_longest_refusal_speaks_though_another_has_less() {
        let reports = [
            ("a", decision(IP, 3, 5_000, Some(40_000))),
            ("b", decision(LOGIN, 0, 1_000, Some(1_000))),
        ];
        assert_eq!(written(&reports)[..3], ["100", "3", "1006"]);
    }

    #[test]
    fn what_t_of_the_longest_refusal_is_no_other_exceeds() {
        let reports = [
            ("a", decision(IP, 60, 0, Some(10_000))),
            ("b", decision(LOGIN, 0, 20_000, Some(20_000))),
        ];
        let [limit, .., lists] = written(&reports);
        assert_eq!((&*limit, &*lists), ("100", r#""a";r=60;t=36, "b";r=0;t=20"#));
    }

    #[test]
    fn retry_after_is_never_before_t_and_at_least_a_second() {
        for (remaining, retry_ms, wait) in [(0, 1, 1), (0, 12_001, 13), (40, 3_000, 24)] {
            let refused = decision(IP, remaining, 0, Some(retry_ms));
            assert_eq!(retry_after(&refused), Some(wait));
        }
        let never = Decision::refused(IP, 100, Duration::ZERO, None);
        assert_eq!(retry_after(&never), None);
    }
}
