//! What a limiter found: admitted or not, how much is left, when there is more.

use std::{fmt, time::Duration};

use super::Quota;

/// The answer to one [`Take`](super::store::Take).
///
/// ```
/// use tower_warden::{Quota, limit::Decision};
/// use std::time::Duration;
/// let (quota, minute) = (Quota::per_minute(100), Duration::from_secs(60));
/// let admitted = Decision::admitted(quota, 99, minute);
/// assert!(admitted.is_allowed());
/// let refused = Decision::refused(quota, 0, minute, Some(minute));
/// assert_eq!(refused.retry_after(), Some(minute));
/// ```
// Made for every request: as few words as can be, each written at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    quota: Quota,
    remaining: u32,
    reset_us: u64,
    /// 0: allowed.
    retry_us: u64,
}

/// Waiting doesn't help.
const NEVER: u64 = u64::MAX;

impl Decision {
    /// There is room for the request, for `remaining` more, and again for more `reset_after` that.
    #[must_use]
    pub fn admitted(quota: Quota, remaining: u32, reset_after: Duration) -> Self {
        Self::in_micros(quota, remaining, micros(reset_after))
    }

    /// There is no room for the request before `retry_after`; ever, where that is `None`.
    #[must_use]
    pub fn refused(
        quota: Quota,
        remaining: u32,
        reset_after: Duration,
        retry_after: Option<Duration>,
    ) -> Self {
        Self::admitted(quota, remaining, reset_after).refused_for(retry_after.map_or(NEVER, micros))
    }

    /// Admitted.
    #[inline]
    pub(crate) fn in_micros(quota: Quota, remaining: u32, reset_us: u64) -> Self {
        Self { quota, remaining, reset_us, retry_us: 0 }
    }

    /// The same, refused for so many microseconds, unless that is 0.
    // Without a branch, so that it is written once, where it is wanted.
    #[inline(always)]
    pub(crate) fn waiting_for(self, retry_us: u64) -> Self {
        Self { retry_us, ..self }
    }

    /// The same, but refused for so many microseconds; `u64::MAX` for ever.
    #[inline]
    pub(crate) fn refused_for(self, retry_us: u64) -> Self {
        Self { retry_us: retry_us.max(1), ..self }
    }

    /// Whether this limiter has room for the request.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.retry_us == 0
    }

    /// The quota that was applied.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// How many more would be admitted at this moment: never more than the limit.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Time until the oldest counted request leaves the window, so that there is more; zero where
    /// none is counted.
    #[must_use]
    pub fn reset_after(&self) -> Duration {
        Duration::from_micros(self.reset_us)
    }

    /// Refused: time until the same request is admitted, if no other comes first. `None` where it
    /// is allowed, and where the cost is above the limit, so that waiting doesn't help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_us().map(Duration::from_micros)
    }

    /// [`reset_after`](Self::reset_after) in microseconds.
    pub(crate) fn reset_us(&self) -> u64 {
        self.reset_us
    }

    /// [`retry_after`](Self::retry_after) in microseconds.
    pub(crate) fn retry_us(&self) -> Option<u64> {
        (!matches!(self.retry_us, 0 | NEVER)).then_some(self.retry_us)
    }

    /// The same, when so many more would be admitted.
    #[cfg(feature = "redis")]
    pub(crate) fn with_remaining(self, remaining: u32) -> Self {
        Self { remaining, ..self }
    }

    /// How a refusal stands when so much time has passed, where nothing else has happened.
    #[cfg(feature = "redis")]
    pub(crate) fn later(self, passed: Duration) -> Self {
        let passed = micros(passed);
        let retry_us = match self.retry_us {
            0 | NEVER => self.retry_us,
            wait => wait.saturating_sub(passed).max(1),
        };
        Self { reset_us: self.reset_us.saturating_sub(passed), retry_us, ..self }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(NEVER - 1)
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("allowed", &self.is_allowed())
            .field("quota", &self.quota)
            .field("remaining", &self.remaining)
            .field("reset_after", &self.reset_after())
            .field("retry_after", &self.retry_after())
            .finish()
    }
}
