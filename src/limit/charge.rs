//! What counts: every request, or only those of which something came.

use std::{fmt, sync::Arc};

use http::{HeaderMap, StatusCode, response::Parts};

use crate::grpc::{self, Code};

/// Which requests a rule counts.
///
/// Whether a request failed is known only after it was handled; by then a thousand others could
/// have started. So one is taken from the limit *before*, on trial, and given back after, where it
/// doesn't count. It stays taken where no response comes: the client hung up, the handler panicked.
///
/// ```
/// use http::StatusCode;
/// use tower_warden::{Quota, Rule, limit::Charge};
///
/// // Guesses: a wrong password, and what isn't even one.
/// let failed = Charge::status(StatusCode::UNAUTHORIZED).or(Charge::status(StatusCode::BAD_REQUEST));
/// let logins = Rule::per_ip("login", Quota::per_hour(20)).charging(failed);
/// ```
#[derive(Clone, Default)]
pub struct Charge(Option<Arc<[Counts]>>);

#[derive(Clone)]
enum Counts {
    Response(Arc<dyn Fn(&Parts) -> bool + Send + Sync>),
    Grpc(Code),
}

/// Whether a request counts, as far as can be told from the head of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Yes,
    No,
    /// The trailers will tell ([`Charge::counts_in_the_end`]).
    Later,
}

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
        Self(Some([Counts::Response(Arc::new(counts))].into()))
    }

    /// Calls of gRPC that end with this status, whether it is in the headers of the response or, after
    /// messages, in its trailers. What the call took is taken until then. A call whose response is not
    /// read to its end counts.
    ///
    /// See [`Code`] for an example.
    #[must_use]
    pub fn grpc_status(code: Code) -> Self {
        Self(Some([Counts::Grpc(code)].into()))
    }

    /// Requests that count by this or by the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(other)) => Self(Some(one.iter().chain(&*other).cloned().collect())),
            _ => Self::every(),
        }
    }

    /// Whether a request is taken on trial.
    pub(crate) fn on_trial(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a request counts of which this came; `ended` where nothing follows.
    pub(crate) fn counts(&self, response: &Parts, ended: bool) -> Counted {
        let Some(any) = &self.0 else { return Counted::Yes };
        let grpc = |code| {
            if grpc::content_type(&response.headers).is_none() {
                return Counted::No;
            }
            match Code::read(&response.headers) {
                Some(found) if found == code => Counted::Yes,
                Some(_) => Counted::No,
                None if ended => Counted::No,
                None => Counted::Later,
            }
        };
        let each = any.iter().map(|counts| match counts {
            Counts::Response(counts) if counts(response) => Counted::Yes,
            Counts::Response(_) => Counted::No,
            Counts::Grpc(code) => grpc(*code),
        });
        each.fold(Counted::No, |counted, next| match (counted, next) {
            (Counted::Yes, _) | (_, Counted::Yes) => Counted::Yes,
            (Counted::Later, _) | (_, Counted::Later) => Counted::Later,
            _ => Counted::No,
        })
    }

    /// Whether a request counts whose response ended with these trailers.
    pub(crate) fn counts_in_the_end(&self, trailers: Option<&HeaderMap>) -> bool {
        let ended = trailers.and_then(Code::read).unwrap_or(Code::UNKNOWN);
        let counts = |counts: &Counts| matches!(counts, Counts::Grpc(code) if *code == ended);
        self.0.as_ref().is_none_or(|any| any.iter().any(counts))
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.on_trial() { "Charge::when(…)" } else { "Charge::every()" })
    }
}
