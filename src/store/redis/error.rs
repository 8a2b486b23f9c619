//! What Redis says no with, and what that means.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::StoreError;

/// The settings can't be right: waiting won't help. (A server that does not answer is no such
/// error.)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// No address, one that can't be read, or several that are no cluster's.
    #[error(
        "no address of a Redis server, such as redis://127.0.0.1:6379, or of a cluster's nodes"
    )]
    Address(#[source] Cause),
    /// The server turned us away: a wrong password, a database it doesn't have.
    #[error("Redis refuses the connection")]
    Refused(#[source] Cause),
    /// The server doesn't let us do what a limit needs, or doesn't know how.
    #[error(
        "Redis refuses the commands that limits need (GET, SET, SETRANGE, PTTL, PEXPIRE, DEL, TIME, EVAL, EVALSHA; on a cluster CLUSTER SLOTS)"
    )]
    Forbidden(#[source] Cause),
    /// The server is a node of a cluster, and the cluster can't be used: from here its nodes aren't
    /// where they say that they are, or it was asked for by a socket, or by Sentinels.
    #[error("the Redis at this address is a node of a cluster, and the cluster can't be reached")]
    Cluster(#[source] Cause),
}

/// What the client of Redis says, whichever it is.
type Cause = Box<dyn std::error::Error + Send + Sync>;

impl RedisConfigError {
    /// Tells a server that refuses us from one that is not available at the moment.
    pub(super) fn of(error: RedisError) -> Result<(), Self> {
        let detail = error.detail().unwrap_or_default();
        let says = |text: &str| detail.contains(text);
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
                Err(Self::Refused(error.into()))
            }
            ErrorKind::Server(ServerErrorKind::NoPerm) => Err(Self::Forbidden(error.into())),
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot) => {
                Err(Self::Cluster(error.into()))
            }
            _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => {
                Err(Self::Refused(error.into()))
            }
            // Several addresses, of which none leads to a cluster.
            _ if says("cluster support disabled") => Err(Self::Address(error.into())),
            // A cluster's client tells only in words why no node would have it.
            _ if says("AuthenticationFailed") => Err(Self::Refused(error.into())),
            // What Redis says in place of NOAUTH to a command as long as ours.
            _ if says("unauthenticated") || says("DB index") || says("SELECT is not") => {
                Err(Self::Refused(error.into()))
            }
            // Redis 6 has no code of its own for what the script may not do.
            _ if says("unknown command") || says("NOPERM") || says("can't run this command") => {
                Err(Self::Forbidden(error.into()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the connection is of no use after this error. An error that the server itself sent
/// leaves it sound, unless it is a server that we shouldn't be talking to any more: after a
/// failover the same address leads to another.
pub(super) fn breaks_connection(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => kind == ServerErrorKind::ReadOnly,
        ErrorKind::Extension => error.code() == Some("NOAUTH"),
        _ => true,
    }
}

/// Whatever isn't a decision may be one later.
pub(super) fn unavailable(error: RedisError) -> StoreError {
    StoreError::unavailable(error)
}
