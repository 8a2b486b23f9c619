//! What a limiter found: admitted or not, how much is left, when there is more.

use std::time::Duration;

use super::Quota;

/// The answer to one [`Take`](super::Take).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether this limiter has room for the request.
    pub allowed: bool,
    /// The quota that was applied.
    pub quota: Quota,
    /// How many more would be admitted at this moment: never more than the limit.
    pub remaining: u32,
    /// Time until the oldest counted request leaves the window, so that there is more; zero where
    /// none is counted.
    pub reset_after: Duration,
    /// Refused: time until the same request is admitted, if no other comes first. `None` where
    /// `allowed`, and where the cost is above the limit, so that waiting doesn't help.
    pub retry_after: Option<Duration>,
}
