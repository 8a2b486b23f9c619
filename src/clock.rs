//! Where time comes from.
//!
//! Everything here that expires or slides asks a [`Clock`], so that tests move time instead of
//! sleeping through it. There are two times: what the calendar says ([`Clock::now`]; token
//! lifetimes, headers), which an operator may set back, and what a stopwatch says
//! ([`Clock::monotonic`]; limits counted in this process), which only ever goes forward.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The longest that is added to a date: a hundred years, which take none out of any calendar.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// A time so much later, [at most](LONGEST).
pub(crate) fn later(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by.min(LONGEST)).unwrap_or(time)
}

/// A source of time.
///
/// ```
/// use std::{sync::Arc, time::{Duration, SystemTime}};
/// use tower_warden::{Clock, SystemClock, store::memory::MemoryStore};
///
/// /// A machine whose time of day is wrong by so much, and known to be.
/// #[derive(Debug)]
/// struct Corrected(SystemClock, Duration);
///
/// impl Clock for Corrected {
///     fn now(&self) -> SystemTime {
///         self.0.now() - self.1
///     }
///
///     fn monotonic(&self) -> Duration {
///         self.0.monotonic()
///     }
/// }
/// let store = MemoryStore::new().with_clock(Arc::new(Corrected(SystemClock::new(), Duration::from_secs(90))));
/// assert!(store.clock().now() < SystemTime::now());
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> SystemTime;

    /// Time since some fixed moment in the past; never goes back.
    fn monotonic(&self) -> Duration;

    /// The same in whole microseconds, which is how limits count.
    fn monotonic_micros(&self) -> u64 {
        u64::try_from(self.monotonic().as_micros()).unwrap_or(u64::MAX / 2)
    }
}

/// A clock as it is handed around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
///
/// ```
/// use tower_warden::{Clock, SystemClock};
/// let clock = SystemClock::new();
/// let before = clock.monotonic();
/// assert!(clock.monotonic() >= before);
/// ```
#[derive(Clone, Debug)]
pub struct SystemClock {
    // Reads the time stamp counter where that is sound, at less than half the cost of `Instant`.
    stopwatch: quanta::Clock,
    origin: u64,
    /// Microseconds of a tick of the stopwatch, in 2^-64.
    micros: u64,
}

/// So many ticks are measured by: some days.
const MANY_TICKS: u32 = 50;

impl SystemClock {
    /// A clock whose monotonic time starts at zero.
    #[must_use]
    pub fn new() -> Self {
        let stopwatch = quanta::Clock::new();
        let nanos = stopwatch.delta_as_nanos(0, 1 << MANY_TICKS);
        let micros = (u128::from(nanos) << (64 - MANY_TICKS)) / 1_000;
        Self { origin: stopwatch.raw(), stopwatch, micros: micros.try_into().unwrap_or(u64::MAX) }
    }

    /// The same, ready to be handed around.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.stopwatch.delta(self.origin, self.stopwatch.raw())
    }

    // Asked for every request that is limited in this process: one multiplication.
    #[inline]
    fn monotonic_micros(&self) -> u64 {
        let ticks = self.stopwatch.raw().saturating_sub(self.origin);
        ((u128::from(ticks) * u128::from(self.micros)) >> 64) as u64
    }
}

/// A clock that stands still until a test moves it; clones move together.
///
/// ```
/// use tower_warden::{Clock, ManualClock};
/// use std::time::Duration;
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(900));
/// assert_eq!(clock.now(), before + Duration::from_secs(900));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    time: Arc<Mutex<(SystemTime, Duration)>>,
}

impl ManualClock {
    /// A clock that shows 2026-01-01T00:00:00Z.
    #[must_use]
    pub fn new() -> Self {
        Self::at(UNIX_EPOCH + Duration::from_secs(1_767_225_600))
    }

    /// A clock that shows the given time of day.
    #[must_use]
    pub fn at(now: SystemTime) -> Self {
        Self { time: Arc::new(Mutex::new((now, Duration::from_secs(1_000_000)))) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.0 += by;
        time.1 += by;
    }

    /// Sets the time of day, forward or back; the monotonic time stays as it is.
    pub fn set(&self, now: SystemTime) {
        self.time.lock().unwrap_or_else(PoisonError::into_inner).0 = now;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.time.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn monotonic(&self) -> Duration {
        self.time.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_microseconds_are_those_of_its_durations() {
        let clock = SystemClock::new();
        // As if it had run for three days and more.
        let clock = SystemClock { origin: clock.origin.saturating_sub(1 << 50), ..clock };
        let [before, micros, after] =
            [clock.monotonic(), Duration::from_micros(clock.monotonic_micros()), clock.monotonic()];
        let micro = Duration::from_micros(1);
        assert!(
            before <= micros + micro && micros <= after + micro,
            "{before:?} {micros:?} {after:?}"
        );
    }
}
