//! "The backend failed": the one error that every store may answer.

use std::error::Error;

/// A store could not do what was asked of it.
///
/// Opaque, so that a new backend breaks nobody: what a caller may want to know is whether trying
/// again later can help ([`is_unavailable`](Self::is_unavailable)). The cause is kept as
/// [`source`](Error::source), for logs; it never goes to a client.
///
/// ```
/// use tower_warden::StoreError;
/// let gone = StoreError::unavailable("connection refused");
/// assert!(gone.is_unavailable());
/// assert_eq!(gone.to_string(), "the store is not available"); // the cause is for logs
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{}", match .kind {
    Kind::Unavailable => "the store is not available",
    Kind::Internal => "the store failed",
    Kind::Overloaded => "the store has too much to do",
    Kind::NotOffered => "the store does not offer this",
})]
pub struct StoreError {
    kind: Kind,
    source: Box<dyn Error + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unavailable,
    Overloaded,
    Internal,
    NotOffered,
}

impl StoreError {
    /// The backend is out of reach, overloaded or restarting; the same call may work later.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Unavailable, source: source.into() }
    }

    /// The backend is well, but more is asked of it here than it can do.
    pub fn overloaded(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Overloaded, source: source.into() }
    }

    /// The backend answered with something that should not happen.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Internal, source: source.into() }
    }

    /// The backend has no such verb. It is what the default of a verb answers that was added to a
    /// store's trait after its first release, so that the stores of others go on working.
    #[must_use]
    pub fn not_offered(verb: &'static str) -> Self {
        Self { kind: Kind::NotOffered, source: verb.into() }
    }

    /// Whether the backend lacks the verb ([`not_offered`](Self::not_offered)).
    #[must_use]
    pub fn is_not_offered(&self) -> bool {
        self.kind == Kind::NotOffered
    }

    /// Whether trying again later can help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Overloaded)
    }

    /// Whether the backend is well ([`overloaded`](Self::overloaded)).
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.kind == Kind::Overloaded
    }
}
