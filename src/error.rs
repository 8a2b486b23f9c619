//! "The backend failed": the one error that every store may answer.

use std::error::Error;

/// A store could not do what was asked of it.
///
/// Opaque, so that a new backend breaks nobody: what a caller may want to know is whether trying
/// again later can help ([`is_unavailable`](Self::is_unavailable)). The cause is kept as
/// [`source`](Error::source), for logs; it never goes to a client.
#[derive(Debug, thiserror::Error)]
#[error("{}", match .kind {
    Kind::Unavailable => "the store is not available",
    Kind::Internal => "the store failed",
})]
pub struct StoreError {
    kind: Kind,
    source: Box<dyn Error + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unavailable,
    Internal,
}

impl StoreError {
    /// The backend is out of reach, overloaded or restarting; the same call may work later.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Unavailable, source: source.into() }
    }

    /// The backend answered with something that should not happen.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Internal, source: source.into() }
    }

    /// Whether trying again later can help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }
}
