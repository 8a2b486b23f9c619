//! What counts: every request, or only those of which something came.

use std::{fmt, sync::Arc};

use http::{StatusCode, response::Parts};

/// Which requests a rule counts.
///
/// Whether a request failed is known only after it was handled; by then a thousand others could
/// have started. So one is taken from the limit *before*, on trial, and given back after, where it
/// doesn't count. It stays taken where no response comes: the client hung up, the handler panicked.
#[derive(Clone, Default)]
pub struct Charge(Option<Arc<Counts>>);

type Counts = dyn Fn(&Parts) -> bool + Send + Sync;

impl Charge {
    /// Every request that is admitted.
    #[must_use]
    pub fn every() -> Self {
        Self(None)
    }

    /// Requests whose response has this status, such as 401 for logins with a wrong password.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_warden::{Quota, Rule, limit::Charge};
    /// let quota = Quota::new(5, std::time::Duration::from_secs(15 * 60)).unwrap();
    /// let rule = Rule::per_ip("login", quota).charging(Charge::status(StatusCode::UNAUTHORIZED));
    /// ```
    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        Self::when(move |response| response.status == status)
    }

    /// Requests whose response is like this.
    pub fn when(counts: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(counts)))
    }

    /// Whether a request is taken on trial.
    pub(crate) fn on_trial(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a request counts of which this came.
    pub(crate) fn counts(&self, response: &Parts) -> bool {
        self.0.as_ref().is_none_or(|counts| counts(response))
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.on_trial() { "Charge::when(…)" } else { "Charge::every()" })
    }
}
