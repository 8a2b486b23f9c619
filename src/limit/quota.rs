//! How many in how long: never zero, never empty.

use std::{fmt, num::NonZeroU32, time::Duration};

/// So many requests in any window of so long.
///
/// ```
/// use tower_warden::Quota;
/// use std::time::Duration;
/// const PUBLIC: Quota = Quota::per_minute(100);
/// assert_eq!(PUBLIC, Quota::new(100, Duration::from_secs(60))?);
/// # Ok::<(), tower_warden::limit::InvalidQuota>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    limit: NonZeroU32,
    window_us: u64,
}

/// A quota of nothing, or of a window that can't be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQuota {
    /// The limit is 0.
    #[error("a limit is at least 1")]
    Zero,
    /// The window is shorter than a millisecond or longer than a year.
    #[error("a window lasts from 1 ms to 366 days")]
    Window,
}

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Quota {
    /// `limit` requests in any `window`.
    ///
    /// # Errors
    /// [`InvalidQuota`] where the limit is 0, or the window shorter than a millisecond or longer
    /// than 366 days.
    pub const fn new(limit: u32, window: Duration) -> Result<Self, InvalidQuota> {
        let Some(limit) = NonZeroU32::new(limit) else { return Err(InvalidQuota::Zero) };
        if window.as_nanos() < SHORTEST.as_nanos() || window.as_nanos() > LONGEST.as_nanos() {
            return Err(InvalidQuota::Window);
        }
        Ok(Self { limit, window_us: window.as_micros() as u64 })
    }

    /// `limit` requests in any second.
    ///
    /// # Panics
    /// Where the limit is 0; in a constant, when it is compiled.
    #[must_use]
    pub const fn per_second(limit: u32) -> Self {
        Self::of(limit, 1)
    }

    /// `limit` requests in any 60 seconds.
    ///
    /// # Panics
    /// Where the limit is 0; in a constant, when it is compiled.
    #[must_use]
    pub const fn per_minute(limit: u32) -> Self {
        Self::of(limit, 60)
    }

    /// `limit` requests in any 60 minutes.
    ///
    /// # Panics
    /// Where the limit is 0; in a constant, when it is compiled.
    #[must_use]
    pub const fn per_hour(limit: u32) -> Self {
        Self::of(limit, 3600)
    }

    /// `limit` requests in any 24 hours.
    ///
    /// # Panics
    /// Where the limit is 0; in a constant, when it is compiled.
    #[must_use]
    pub const fn per_day(limit: u32) -> Self {
        Self::of(limit, 86_400)
    }

    /// How many, at least 1.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// In how long, to the microsecond.
    #[must_use]
    pub const fn window(&self) -> Duration {
        Duration::from_micros(self.window_us)
    }

    /// The window in microseconds, the unit of the arithmetic.
    pub(crate) const fn window_us(&self) -> u64 {
        self.window_us
    }

    const fn of(limit: u32, seconds: u64) -> Self {
        match Self::new(limit, Duration::from_secs(seconds)) {
            Ok(quota) => quota,
            Err(_) => panic!("a limit is at least 1"),
        }
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quota({} per {:?})", self.limit, self.window())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_never_are_no_quotas() {
        let hour = Duration::from_secs(3600);
        assert_eq!(Quota::new(0, hour), Err(InvalidQuota::Zero));
        assert_eq!(Quota::new(1, Duration::ZERO), Err(InvalidQuota::Window));
        assert_eq!(Quota::new(1, Duration::MAX), Err(InvalidQuota::Window));
        assert_eq!(Quota::new(9, hour), Ok(Quota::per_hour(9)));
    }
}
