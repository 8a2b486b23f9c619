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

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use super::{Decision, LimiterName};
use crate::grpc::Code;

/// What each limiter of a layer said of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports(pub(super) SmallVec<[Report; 1]>);

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

impl Reports {
    /// Writes the headers of all limiters to a response of this status. Where layers further in, or the
    /// handler, have written theirs, the lists are joined, and the tightest speaks; of a limiter that they
    /// name they know more. What anybody else wrote there is replaced.
    pub(super) fn write(
        &self,
        headers: &mut HeaderMap,
        status: StatusCode,
        now: SystemTime,
        families: LimitHeaders,
    ) {
        if families == LimitHeaders::None || self.0.is_empty() {
            return;
        }
        match headers.get(LIMIT_LIST).filter(|list| is_list(list)).cloned() {
            Some(list) if families.has_lists() => {
                let named = names(&list);
                let unnamed = |report: &&Report| !named.contains(&report.limiter.as_str());
                let own = Self(self.0.iter().filter(unnamed).copied().collect());
                own.write_beside(Some(&list), headers, status, now, families);
            }
            _ => self.write_beside(None, headers, status, now, families),
        }
    }

    fn write_beside(
        &self,
        inner: Option<&HeaderValue>,
        headers: &mut HeaderMap,
        status: StatusCode,
        now: SystemTime,
        families: LimitHeaders,
    ) {
        let Some(speaker) = self.speaker() else { return };
        let Values { policies, limits, limit, remaining, reset } =
            self.values(speaker, now, families);
        if families.has_lists() {
            let inner_policies = headers.insert(POLICY_LIST, policies);
            headers.insert(LIMIT_LIST, limits);
            if let (Some(inner), Some(inner_policies)) = (inner, inner_policies) {
                join(headers, &LIMIT_LIST, inner);
                join(headers, &POLICY_LIST, &inner_policies);
            }
        }
        if families.has_numbers() {
            let ours = inner.is_some() || families == LimitHeaders::XRateLimit;
            let theirs = headers.get(REMAINING).filter(|_| ours);
            let theirs = theirs.and_then(|left| left.to_str().ok()?.parse().ok());
            let refused = status == StatusCode::TOO_MANY_REQUESTS
                || Code::read(headers) == Some(Code::RESOURCE_EXHAUSTED);
            let refused = refused && speaker.is_allowed();
            if theirs.is_some_and(|theirs: u32| refused || theirs < speaker.remaining()) {
                return;
            }
            headers.insert(LIMIT, limit);
            headers.insert(REMAINING, remaining);
            headers.insert(RESET, reset);
        }
    }

    /// What each header says; empty where the families lack it. All share one allocation.
    fn values(&self, speaker: &Decision, now: SystemTime, families: LimitHeaders) -> Values {
        let mut text = Vec::with_capacity(128);
        let mut ends = [0; 5];
        if families.has_lists() {
            for Report { limiter, decision } in &self.0 {
                let (q, w) = (decision.quota().limit(), seconds(decision.quota().window_us()));
                write_item(&mut text, 0, limiter.as_str(), b"\";q=", q, b";w=", w);
            }
            ends[0] = text.len();
            for Report { limiter, decision } in &self.0 {
                let (r, t) = (decision.remaining(), until_more(decision));
                write_item(&mut text, ends[0], limiter.as_str(), b"\";r=", r, b";t=", t);
            }
            ends[1] = text.len();
        }
        if families.has_numbers() {
            let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_us = u64::try_from(since_epoch.as_micros()).unwrap_or_default();
            let reset = seconds(now_us.saturating_add(speaker.reset_us()));
            let numbers = [speaker.quota().limit().into(), speaker.remaining().into(), reset];
            for (end, number) in ends[2..].iter_mut().zip(numbers) {
                text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                *end = text.len();
            }
        }
        let (text, mut start) = (Bytes::from(text), 0);
        let [policies, limits, limit, remaining, reset] = ends.map(|end| {
            let part = text.slice(start..end.max(start));
            start = end.max(start);
            header(part)
        });
        Values { policies, limits, limit, remaining, reset }
    }

    /// The refusal that lasts longest, if there is one; as clients are told it, so that no limiter's
    /// `t` is later than `Retry-After`.
    pub(super) fn refusal(&self) -> Option<&Report> {
        let refusals = self.0.iter().filter(|report| !report.decision.is_allowed());
        refusals.max_by_key(|report| retry_after(&report.decision).unwrap_or(u64::MAX))
    }

    fn speaker(&self) -> Option<&Decision> {
        let least = || self.0.iter().min_by_key(|report| report.decision.remaining());
        self.refusal().or_else(least).map(|report| &report.decision)
    }
}

/// What the five headers say.
struct Values {
    policies: HeaderValue,
    limits: HeaderValue,
    limit: HeaderValue,
    remaining: HeaderValue,
    reset: HeaderValue,
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

/// Appends `"limiter";q=100;w=60` to the list that begins there.
#[inline]
fn write_item(
    text: &mut Vec<u8>,
    begin: usize,
    limiter: &str,
    one: &[u8; 4],
    n: u32,
    other: &[u8; 3],
    m: u64,
) {
    if text.len() > begin {
        text.extend_from_slice(b", ");
    }
    text.push(b'"');
    text.extend_from_slice(limiter.as_bytes());
    text.extend_from_slice(one);
    text.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    text.extend_from_slice(other);
    text.extend_from_slice(itoa::Buffer::new().format(m).as_bytes());
}

/// Appends what an inner layer wrote.
fn join(headers: &mut HeaderMap, name: &HeaderName, inner: &HeaderValue) {
    if let Some(list) = headers.get_mut(name) {
        *list = header([list.as_bytes(), inner.as_bytes()].join(&b", "[..]).into());
    }
}

fn header(text: Bytes) -> HeaderValue {
    // Names of limiters, numbers, and what was a header already: always a header.
    HeaderValue::from_maybe_shared(text).unwrap_or(const { HeaderValue::from_static("") })
}

/// Whether this is what [`write_item`] writes for [`LIMIT_LIST`]: the work of one of these layers.
fn is_list(value: &HeaderValue) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_item = |item: &str| {
        let (name, rest) = item.strip_prefix('"')?.split_once("\";r=")?;
        let (remaining, more) = rest.split_once(";t=")?;
        Some(!name.contains('"') && is_number(remaining) && is_number(more))
    };
    value.to_str().is_ok_and(|list| list.split(", ").all(|item| is_item(item) == Some(true)))
}

/// The limiters that such a list names.
fn names(list: &HeaderValue) -> SmallVec<[&str; 4]> {
    let items = list.to_str().unwrap_or_default().split(", ");
    items.filter_map(|item| Some(item.strip_prefix('"')?.split_once('"')?.0)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let reports = reports.iter().map(|(limiter, decision)| Report {
            limiter: LimiterName::new(limiter).unwrap(),
            decision: *decision,
        });
        let mut headers = HeaderMap::new();
        let now = UNIX_EPOCH + Duration::from_millis(1_000_500);
        Reports(reports.collect()).write(&mut headers, StatusCode::OK, now, LimitHeaders::Both);
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
                reports.write(headers, StatusCode::OK, UNIX_EPOCH, families);
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
