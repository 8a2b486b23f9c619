//! What can go wrong in the mint, a variant per thing that a caller would do differently.

use std::{fmt, io, path::PathBuf};

use crate::StoreError;

/// Why there is no identity for a token, or no token for an identity.
///
/// ```
/// use tower_warden::{Problem, token::TokenError};
/// let problem = Problem::from(TokenError::Revoked); // what `?` answers in a handler
/// assert_eq!((problem.status().as_u16(), problem.code()), (401, "token_revoked"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Genuine, and past its `exp`: its owner may refresh it.
    #[error("the token is expired")]
    Expired,
    /// Genuine, and revoked before its `exp`: its session has ended.
    #[error("the token is revoked")]
    Revoked,
    /// Anything else that was presented as a token. The reason is one of a few fixed words, for
    /// logs and metrics; it is not for who presented it.
    #[error("the token is invalid: {0}")]
    Invalid(&'static str),
    /// No token can say this of a caller: its id or role is empty, or a further claim has the name
    /// of one that the service itself sets. Tells which.
    #[error("no token can say this identity: {0}")]
    InvalidIdentity(&'static str),
    /// The key didn't sign, or the token would be longer than 8 KiB.
    #[error("the token could not be signed")]
    Signing,
    /// Since the login began all sessions of the user were ended: what was proved then, by the old
    /// password, say, opens none.
    #[error("the login was overtaken by the end of all sessions")]
    Overtaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a refresh token brought no new pair.
///
/// ```
/// use tower_warden::{Problem, token::{InvalidRefresh, RefreshError}};
/// // Whatever is wrong with a refresh token, its client is told the same.
/// let problem = Problem::from(RefreshError::Invalid(InvalidRefresh::Reused));
/// assert_eq!((problem.status().as_u16(), problem.code()), (401, "invalid_refresh_token"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// It is worth nothing. The reason is for logs and metrics; who presented it need not know.
    #[error("the refresh token is invalid: {0}")]
    Invalid(InvalidRefresh),
    /// No token can say what was read of the user, as for [`TokenError::InvalidIdentity`], or it is
    /// another user than the session's; the refresh token is as good as before.
    #[error("no token can say this identity: {0}")]
    InvalidIdentity(&'static str),
    /// The new access token could not be signed, or would be longer than 8 KiB; the refresh token is
    /// as good as before.
    #[error("the token could not be signed")]
    Signing,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsigned {
    Identity(&'static str),
    /// The key didn't sign, or the token would be too long.
    Failed,
}

impl From<Unsigned> for TokenError {
    fn from(reason: Unsigned) -> Self {
        match reason {
            Unsigned::Identity(what) => Self::InvalidIdentity(what),
            Unsigned::Failed => Self::Signing,
        }
    }
}

impl From<Unsigned> for RefreshError {
    fn from(reason: Unsigned) -> Self {
        match reason {
            Unsigned::Identity(what) => Self::InvalidIdentity(what),
            Unsigned::Failed => Self::Signing,
        }
    }
}

/// Why a refresh token is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidRefresh {
    /// No token of ours, or one that was forgotten.
    Unknown,
    /// It, or its family, is past its time.
    Expired,
    /// Its family had been revoked before.
    Revoked,
    /// It had been replaced before, so its family is revoked now.
    Reused,
    /// Its user is gone, or may no longer come in; its family is revoked now.
    NoUser,
}

impl InvalidRefresh {
    /// One word, for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Reused => "reused",
            Self::NoUser => "no_user",
        }
    }
}

impl fmt::Display for InvalidRefresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there is no key. Never repeats any of the text it was to be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no PEM section in it of a kind that is read here.
    #[error("no PEM section with a key of the expected kind")]
    NotFound,
    /// A key of an algorithm other than RSA, ECDSA on P-256, and Ed25519.
    #[error("the key's algorithm is not supported; use RSA, P-256 or Ed25519")]
    Unsupported,
    /// An RSA key that is too short to be safe.
    #[error("an RSA key needs at least 2048 bits; this one has {bits}")]
    WeakRsa {
        /// How long its modulus is.
        bits: usize,
    },
    /// The key is damaged, or larger than can be used.
    #[error("the key is damaged, or larger than can be used")]
    Malformed,
    /// No key could be made, because the system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

/// Why two files gave no key pair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A file could not be read or written.
    #[error("can't use {}", path.display())]
    Io {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no usable key.
    #[error("no usable key in {}", path.display())]
    Key {
        /// The file as it was named.
        path: PathBuf,
        /// What is wrong with what it holds.
        source: KeyError,
    },
    /// One of the two is there, and this one isn't.
    #[error("{} is missing, while the other half of its key pair is there", path.display())]
    Missing {
        /// The file that should be there.
        path: PathBuf,
    },
    /// The public key is not that of the private key.
    #[error("{} and {} are no pair", private.display(), public.display())]
    Unpaired {
        /// Where the private key is.
        private: PathBuf,
        /// Where the public key is.
        public: PathBuf,
    },
}
