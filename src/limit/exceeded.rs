//! What is told of a request that is one too many.

use http::StatusCode;

use super::{
    LimiterName,
    headers::{Report, Reports, retry_after},
};
use crate::Problem;

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
        let detail = match self.retry_after {
            Some(1) => "Too many requests. Try again in 1 second.".into(),
            Some(wait) => format!("Too many requests. Try again in {wait} seconds."),
            None => "The request weighs more than the limit.".into(),
        };
        let violated: Vec<_> = self.violated.iter().map(|name| name.as_str()).collect();
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
            .with_type("https://iana.org/assignments/http-problem-types#quota-exceeded")
            .with_member("violated-policies", violated)
    }
}
