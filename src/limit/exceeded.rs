//! What is told of a request that is one too many.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::{
    LimiterName,
    headers::{Report, Reports, retry_after},
};
use crate::{Problem, problem};

/// A request that is one too many: by which limiters, and for how long.
///
/// ```
/// use tower_warden::{Problem, RefusalHook, RefusalReason};
///
/// let hook = RefusalHook::new(|refusal, problem: Problem| match refusal.reason {
///     RefusalReason::Exceeded(exceeded) if exceeded.limiter.as_str() == "day" => {
///         problem.with_detail("That was all for today. More is to be had at https://example.com/plans")
///     }
///     _ => problem,
/// });
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exceeded {
    /// The limiter with the longest wait.
    pub limiter: LimiterName,
    /// All limiters that refused.
    pub violated: Vec<LimiterName>,
    /// `Retry-After` in seconds, at least 1; `None` where the request weighs more than the limit, so
    /// that waiting doesn't help.
    pub retry_after: Option<u64>,
}

impl Exceeded {
    /// Of these reports, of which this refuses for longest.
    pub(super) fn new(longest: Report, reports: &Reports) -> Self {
        let violated = reports.0.iter().filter(|report| !report.decision.is_allowed());
        Self {
            limiter: longest.limiter,
            violated: violated.map(|report| report.limiter).collect(),
            retry_after: retry_after(&longest.decision),
        }
    }

    /// The 429 of it. `Retry-After` is a header of the layer's, and is not in it.
    pub(super) fn to_problem(&self) -> Problem {
        let violated: Vec<_> = self.violated.iter().map(|name| name.as_str()).collect();
        let detail = detail(self.retry_after, &mut itoa::Buffer::new()).concat();
        Problem::new(StatusCode::TOO_MANY_REQUESTS, CODE, detail)
            .with_type("https://iana.org/assignments/http-problem-types#quota-exceeded")
            .with_member("violated-policies", violated)
    }
}

const CODE: &str = "rate_limited";

/// The response of that problem, where nobody needs the problem itself: byte for byte the same, for a
/// fifth of what it costs to put one together.
pub(super) fn response(
    retry_after: Option<u64>,
    reports: &Reports,
    headers: HeaderMap,
) -> Response<Bytes> {
    let mut body = Vec::with_capacity(320);
    body.extend_from_slice(
        br#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,"detail":""#,
    );
    let mut digits = itoa::Buffer::new();
    for part in detail(retry_after, &mut digits) {
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(br#"","code":"rate_limited","violated-policies":"#);
    let mut before = b'[';
    for report in reports.0.iter().filter(|report| !report.decision.is_allowed()) {
        // A limiter's name needs no escapes.
        body.extend_from_slice(&[before, b'"']);
        body.extend_from_slice(report.limiter.as_str().as_bytes());
        body.push(b'"');
        before = b',';
    }
    body.extend_from_slice(b"]}");
    problem::response(StatusCode::TOO_MANY_REQUESTS, CODE, headers, body)
}

fn detail(retry_after: Option<u64>, digits: &mut itoa::Buffer) -> [&str; 3] {
    match retry_after {
        Some(1) => ["Too many requests. Try again in 1 second.", "", ""],
        Some(wait) => ["Too many requests. Try again in ", digits.format(wait), " seconds."],
        None => ["The request weighs more than the limit.", "", ""],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Quota, limit::Decision};

    #[test]
    fn with_and_without_a_problem_the_response_is_the_same() {
        let report = |limiter, wait: Option<u64>| {
            let (quota, wait) = (Quota::per_minute(7), wait.map(Duration::from_secs));
            let decision = Decision::refused(quota, 0, wait.unwrap_or_default(), wait);
            Report { limiter: LimiterName::new(limiter).unwrap(), decision }
        };
        let admitted = Report {
            decision: Decision::admitted(Quota::per_minute(7), 3, Duration::ZERO),
            ..report("c", None)
        };
        for reports in [
            vec![report("a", Some(1))],
            vec![admitted, report("a", Some(50)), report("b-2", Some(9))],
            vec![report("a", None)],
        ] {
            let reports = Reports(reports.into_iter().collect());
            let exceeded = Exceeded::new(*reports.refusal().unwrap(), &reports);
            let told = exceeded.to_problem().into_http();
            let same = response(exceeded.retry_after, &reports, HeaderMap::new());
            assert_eq!(same.body(), told.body());
            assert_eq!((same.status(), same.headers()), (told.status(), told.headers()));
            serde_json::from_slice::<serde_json::Value>(same.body()).unwrap();
        }
    }
}
