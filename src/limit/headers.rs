//! Decisions as response headers, and which limiter speaks where several do.
//!
//! - `X-RateLimit-Limit`, `-Remaining`, `-Reset`: of the limiter with the least remaining, or, on a
//!   refusal, of the one that refuses for longest. `Reset` is the Unix second, rounded up, at which
//!   the oldest counted request leaves the window.
//! - `RateLimit-Policy` and `RateLimit`: of all, in the lists of
//!   draft-ietf-httpapi-ratelimit-headers-11. `t` is the longer of the time until there is more and
//!   `r * w / q`: a client that spreads `r` over `t` keeps to the policy.
//! - `Retry-After`: on a refusal; a request sent then is admitted, if no other came first.
//!
//! Layers around one another speak with one voice: an outer one reads in the response what an inner
//! one wrote. Only the text tells that it was one of these layers: what a service writes that reads
//! alike is taken for it.

mod text;

use std::{
    ops::Range,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub(super) use self::text::number;
use self::text::{Buffer, header, is_list, names};
use super::{Decision, LimiterName, Quota, few::Few};
use crate::{SharedClock, grpc::Code};

/// What each limiter of a layer said of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports(pub(super) Few<Report>);

/// What one limiter said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) limiter: LimiterName,
    pub(super) decision: Decision,
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY_LIST: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT_LIST: HeaderName = HeaderName::from_static("ratelimit");

/// Which headers tell how limits stand.
///
/// ```
/// # use tower_warden::{Quota, RateLimitLayer, Rule, limit::LimitHeaders, store::memory::MemoryRateLimitStore};
/// # let (store, rule) = (MemoryRateLimitStore::new(), Rule::per_ip("ip", Quota::per_minute(100)));
/// let layer = RateLimitLayer::new(store, rule).with_headers(LimitHeaders::XRateLimit);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitHeaders {
    /// Both of the following.
    #[default]
    Both,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, which most client libraries
    /// know.
    XRateLimit,
    /// `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11, which tell of every
    /// limiter. Some client libraries know `RateLimit` in the form of an earlier draft, and can't read it.
    Draft,
    /// None. A refusal has its `Retry-After` all the same.
    None,
}

impl LimitHeaders {
    fn has_lists(self) -> bool {
        matches!(self, Self::Both | Self::Draft)
    }

    fn has_numbers(self) -> bool {
        matches!(self, Self::Both | Self::XRateLimit)
    }
}

/// Writes the headers of the families that were chosen.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer {
    families: LimitHeaders,
    /// Of those limiters and quotas that came first. Most layers have few, and know them before they
    /// see a request.
    policies: [OnceLock<Policy>; 8],
}

/// What is said of the quotas of some limiters: the same, however they stand.
#[derive(Clone, Debug)]
struct Policy {
    of: Few<(LimiterName, Quota)>,
    list: HeaderValue,
    /// Of each.
    limits: Few<HeaderValue>,
}

impl Writer {
    pub(super) fn new(families: LimitHeaders) -> Self {
        Self { families, ..Self::default() }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_silent(&self) -> bool {
        self.families == LimitHeaders::None
    }

    /// How many headers are written.
    pub(super) fn count(&self) -> usize {
        let Self { families, .. } = self;
        2 * usize::from(families.has_lists()) + 3 * usize::from(families.has_numbers())
    }

    /// Writes the headers of all limiters to a response of this status. Where layers further in, or the
    /// handler, have written theirs, the lists are joined, and the tightest speaks; of a limiter that they
    /// name they know more. What anybody else wrote there is replaced.
    pub(super) fn write(
        &self,
        reports: &Reports,
        headers: &mut HeaderMap,
        status: StatusCode,
        clock: &SharedClock,
    ) {
        if !self.is_silent() {
            // With one (`Content-Length`) that a server writes after them: a map that grows for it would
            // put all of them in place again.
            headers.reserve(self.count() + 1);
            self.write_beside(None, reports, headers, status, clock);
        }
    }

    fn write_beside(
        &self,
        inner: Option<&Lists>,
        reports: &Reports,
        headers: &mut HeaderMap,
        status: StatusCode,
        clock: &SharedClock,
    ) {
        let Some(speaker) = reports.speaker() else { return };
        let decision = &reports.0[speaker].decision;
        let Text { bytes, limits, remaining, reset } = self.text(reports, speaker, clock);
        let part = |range: Range<usize>| header(bytes.slice(range));
        let new;
        let policy = match self.policy(reports) {
            Some(known) => known,
            None => {
                new = Policy::new(reports);
                &new
            }
        };
        if self.families.has_lists() {
            let mut lists =
                Lists { policies: Some(policy.list.clone()), limits: Some(part(limits)) };
            if let Some(inner) = inner {
                lists.join(inner);
            }
            let before = lists.insert(headers);
            if inner.is_none() && before.are_ours() {
                return self.write_unnamed(before, reports, headers, status, clock);
            }
        }
        if self.families.has_numbers() {
            let limit = headers.insert(LIMIT, policy.limits[speaker].clone());
            let remaining = headers.insert(REMAINING, part(remaining));
            let joins = inner.is_some() || !self.families.has_lists();
            if joins && speaks(remaining.as_ref(), decision, status, headers) {
                put_back(headers, LIMIT, limit);
                put_back(headers, REMAINING, remaining);
            } else {
                headers.insert(RESET, part(reset));
            }
        }
    }

    /// Writes what the lists that were there before don't say.
    #[cold]
    fn write_unnamed(
        &self,
        before: Lists,
        reports: &Reports,
        headers: &mut HeaderMap,
        status: StatusCode,
        clock: &SharedClock,
    ) {
        let unnamed = reports.not_in(&before);
        self.write_beside(Some(&before), &unnamed, headers, status, clock);
        if unnamed.0.is_empty() {
            before.insert(headers);
        }
    }

    /// What differs from request to request.
    fn text(&self, reports: &Reports, speaker: usize, clock: &SharedClock) -> Text {
        let mut text = Buffer::with_room_for(reports);
        let mut remaining = 0..0;
        let speaking = &reports.0[speaker].decision;
        if self.families.has_lists() {
            for (at, Report { limiter, decision }) in reports.0.iter().enumerate() {
                let (r, t) = (decision.remaining(), until_more(decision));
                let digits = text.item(*limiter, b"\";r=", r, b";t=", t);
                if at == speaker {
                    remaining = digits;
                }
            }
        } else {
            remaining = text.number(speaking.remaining().into());
        }
        let limits = 0..text.len;
        if self.families.has_numbers() {
            text.number(reset(clock.now(), speaking));
        }
        let reset = limits.end..text.len;
        Text { bytes: Bytes::from_owner(text), limits, remaining, reset }
    }

    fn policy(&self, reports: &Reports) -> Option<&Policy> {
        let mut known =
            self.policies.iter().map(|known| known.get_or_init(|| Policy::new(reports)));
        known.find(|policy| policy.is_of(reports))
    }
}

impl Policy {
    fn new(reports: &Reports) -> Self {
        let mut text = Buffer::with_room_for(reports);
        let digits = reports.0.iter().map(|Report { limiter, decision }| {
            let (q, w) = (decision.quota().limit(), seconds(decision.quota().window_us()));
            text.item(*limiter, b"\";q=", q, b";w=", w)
        });
        let digits: Vec<_> = digits.collect();
        let list = Bytes::from_owner(text);
        Self {
            of: reports.0.iter().map(|report| (report.limiter, report.decision.quota())).collect(),
            limits: digits.into_iter().map(|range| header(list.slice(range))).collect(),
            list: header(list),
        }
    }

    fn is_of(&self, reports: &Reports) -> bool {
        let same = |(of, report): (&(LimiterName, Quota), &Report)| {
            *of == (report.limiter, report.decision.quota())
        };
        self.of.len() == reports.0.len() && self.of.iter().zip(&*reports.0).all(same)
    }
}

impl Reports {
    /// Those whose limiters these lists don't name.
    fn not_in(&self, lists: &Lists) -> Self {
        let named = lists.limits.as_ref().map(names).unwrap_or_default();
        let unnamed = |report: &&Report| !named.contains(&report.limiter.as_str());
        Self(self.0.iter().filter(unnamed).copied().collect())
    }

    /// The refusal that lasts longest, if there is one; as clients are told it, so that no limiter's
    /// `t` is later than `Retry-After`.
    #[inline]
    pub(super) fn refusal(&self) -> Option<&Report> {
        self.longest().map(|at| &self.0[at])
    }

    #[inline]
    fn longest(&self) -> Option<usize> {
        let refusals = (0..self.0.len()).filter(|at| !self.0[*at].decision.is_allowed());
        refusals.max_by_key(|at| retry_after(&self.0[*at].decision).unwrap_or(u64::MAX))
    }

    /// Whose numbers the headers tell that tell of one.
    fn speaker(&self) -> Option<usize> {
        let least = || (0..self.0.len()).min_by_key(|at| self.0[*at].decision.remaining());
        self.longest().or_else(least)
    }
}

/// The headers that name all limiters.
struct Lists {
    policies: Option<HeaderValue>,
    limits: Option<HeaderValue>,
}

impl Lists {
    /// Writes them, and says what was there before.
    fn insert(self, headers: &mut HeaderMap) -> Self {
        Self {
            policies: put_back(headers, POLICY_LIST, self.policies),
            limits: put_back(headers, LIMIT_LIST, self.limits),
        }
    }

    /// Whether they are the work of one of these layers.
    fn are_ours(&self) -> bool {
        self.limits.as_ref().is_some_and(is_list)
    }

    /// Adds what was there before.
    fn join(&mut self, inner: &Self) {
        let Some(policies) = &inner.policies else { return };
        for (list, inner) in
            [(&mut self.policies, Some(policies)), (&mut self.limits, inner.limits.as_ref())]
        {
            if let (Some(list), Some(inner)) = (list, inner) {
                *list = header([list.as_bytes(), inner.as_bytes()].join(&b", "[..]).into());
            }
        }
    }
}

/// Whether the number of remaining requests that was there before stands: they have less, or refused.
fn speaks(
    theirs: Option<&HeaderValue>,
    ours: &Decision,
    status: StatusCode,
    headers: &HeaderMap,
) -> bool {
    let left = theirs.and_then(|left| left.to_str().ok()?.parse::<u32>().ok());
    let refused = || {
        status == StatusCode::TOO_MANY_REQUESTS
            || Code::read(headers) == Some(Code::RESOURCE_EXHAUSTED)
    };
    left.is_some_and(|left| left < ours.remaining() || ours.is_allowed() && refused())
}

/// Writes a header, or takes it away, and says what was there before.
fn put_back(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: Option<HeaderValue>,
) -> Option<HeaderValue> {
    match value {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    }
}

/// `Retry-After` of a refusal, in seconds; `None` where waiting doesn't help.
pub(super) fn retry_after(decision: &Decision) -> Option<u64> {
    decision.retry_us().map(|wait| seconds(wait).max(until_more(decision)).max(1))
}

/// `t` of a limiter, in seconds.
fn until_more(decision: &Decision) -> u64 {
    let more = decision.retry_us().unwrap_or(decision.reset_us());
    let (remaining, window_us) = (u64::from(decision.remaining()), decision.quota().window_us());
    let limit = u64::from(decision.quota().limit());
    let fair = match remaining.checked_mul(window_us) {
        Some(product) => product.div_ceil(limit * 1_000_000),
        // Slow to divide, and rare: a limit of hundreds of thousands in a year.
        None => (u128::from(remaining) * u128::from(window_us))
            .div_ceil(u128::from(limit) * 1_000_000) as u64,
    };
    seconds(more).max(fair)
}

/// Rounded up.
fn seconds(micros: u64) -> u64 {
    micros.div_ceil(1_000_000)
}

/// `X-RateLimit-Reset`.
fn reset(now: SystemTime, decision: &Decision) -> u64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = now.as_secs().saturating_mul(1_000_000) + u64::from(now.subsec_micros());
    seconds(now_us.saturating_add(decision.reset_us()))
}

/// What headers are made of that differ from request to request: it shares one allocation.
struct Text {
    bytes: Bytes,
    /// Where each stands.
    limits: Range<usize>,
    remaining: Range<usize>,
    reset: Range<usize>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ManualClock, Quota};

    fn at(now: SystemTime) -> SharedClock {
        std::sync::Arc::new(ManualClock::at(now))
    }

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
        let reports = reports.iter().map(|(limiter, decision)| Report {
            limiter: LimiterName::new(limiter).unwrap(),
            decision: *decision,
        });
        let mut headers = HeaderMap::new();
        let clock = at(UNIX_EPOCH + Duration::from_millis(1_000_500));
        let writer = Writer::new(LimitHeaders::Both);
        writer.write(&Reports(reports.collect()), &mut headers, StatusCode::OK, &clock);
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
    fn each_family_alone_and_what_is_said_further_in_stands() {
        let report = |limiter, left| Report {
            limiter: LimiterName::new(limiter).unwrap(),
            decision: decision(IP, left, 60_000, None),
        };
        let names = |headers: &HeaderMap| -> Vec<String> {
            headers.keys().map(|name| name.as_str().to_owned()).collect()
        };
        for (families, written) in [
            (LimitHeaders::None, &[][..]),
            (LimitHeaders::Draft, &["ratelimit-policy", "ratelimit"]),
            (
                LimitHeaders::XRateLimit,
                &["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
            ),
        ] {
            let mut headers = HeaderMap::new();
            let write = |left, headers: &mut HeaderMap| {
                let reports = Reports([report("ip", left)].into_iter().collect());
                Writer::new(families).write(&reports, headers, StatusCode::OK, &at(UNIX_EPOCH));
            };
            write(7, &mut headers);
            assert_eq!(names(&headers), written);
            write(9, &mut headers);
            let remaining = headers.get(REMAINING).map(|left| left.to_str().unwrap());
            assert!(remaining.is_none_or(|left| left == "7"));
            let list = headers.get(LIMIT_LIST).map(|list| list.to_str().unwrap());
            assert!(list.is_none_or(|list| list == r#""ip";r=7;t=60"#));
        }
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
