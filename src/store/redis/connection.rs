//! Where the server is, and connections to it.

use std::{fmt, io, sync::Arc, time::Duration};

use deadpool_redis::{
    Connection, Manager, Pool, PoolError,
    cluster::{ClusterClient, ClusterClientBuilder, ClusterConnection},
    redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult},
};

use super::error::RedisConfigError;

/// The longest that it takes to connect to one node of a cluster: a node that hangs must not keep
/// us from the others.
const NODE: Duration = Duration::from_millis(150);

/// The address of a server, or those of some nodes of a cluster.
#[derive(Clone)]
pub(super) enum Server {
    Single(Pool),
    Cluster(Arc<ClusterClient>),
}

impl Server {
    /// Reads one URL, or the comma-separated URLs of a cluster's nodes. Connects to nothing.
    pub(super) fn parse(urls: &str, connections: usize) -> Result<Self, RedisConfigError> {
        let urls: Vec<_> = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
        if urls.iter().any(|url| url.starts_with("rediss:") || url.starts_with("valkeys:")) {
            provide_cryptography();
        }
        let server = match urls[..] {
            [url] => Self::single(url, connections),
            _ => Self::cluster(&urls),
        };
        server.map_err(RedisConfigError::Address)
    }

    fn single(url: &str, connections: usize) -> RedisResult<Self> {
        // Who calls sets the time; one clock is enough.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let manager = Manager::new_with_config(url, config)?;
        let pool = Pool::builder(manager).max_size(connections).build();
        pool.map(Self::Single).map_err(|_| not_connected("no pool"))
    }

    fn cluster(urls: &[&str]) -> RedisResult<Self> {
        // The client of redis and not deadpool's: that one can't be told to leave alone what may
        // have run, and repeats it 16 times.
        let client = ClusterClientBuilder::new(urls.iter().copied());
        let client = client.retries(0).connection_timeout(NODE).build()?;
        Ok(Self::Cluster(Arc::new(client)))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Server::Single",
            Self::Cluster(_) => "Server::Cluster",
        })
    }
}

/// A connection that the pool has looked at, or made.
pub(super) async fn connect(pool: &Pool, within: Duration) -> RedisResult<Connection> {
    in_time(within, async {
        pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            _ => not_connected("no connection"),
        })
    })
    .await
}

/// Connections to the nodes of a cluster that answer.
pub(super) async fn connect_cluster(
    client: &ClusterClient,
    within: Duration,
) -> RedisResult<ClusterConnection> {
    in_time(within, client.get_async_connection()).await
}

/// Gives a call to Redis so much time.
pub(super) async fn in_time<T>(
    within: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    match tokio::time::timeout(within, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

fn not_connected(why: &'static str) -> RedisError {
    (ErrorKind::Io, why).into()
}

/// The client of redis takes its cryptography from the process, and panics where there is none or
/// where it can't choose between two. What the application has installed is left alone.
#[cfg(feature = "tls")]
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails where another thread was faster: then there is one.
        _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(not(feature = "tls"))]
fn provide_cryptography() {}
