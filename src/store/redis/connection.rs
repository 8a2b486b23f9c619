//! Where the server is, and connections to it.

use std::{fmt, io, sync::Arc, time::Duration};

use deadpool_redis::{
    Connection, Manager, PoolError,
    cluster::{ClusterClient, ClusterClientBuilder, ClusterConnection},
    redis::{
        AsyncConnectionConfig, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
        aio::MultiplexedConnection,
    },
    sentinel,
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
        if urls.iter().any(|url| url.starts_with("rediss") || url.starts_with("valkeys")) {
            provide_cryptography();
        }
        let server = match urls[..] {
            [first, ..] if is_sentinel(first) => Self::sentinel(&urls.join(","), connections),
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
        let pool = deadpool_redis::Pool::builder(manager).max_size(connections).build();
        pool.map(Pool::Direct).map(Self::Single).map_err(|_| not_connected("no pool"))
    }

    /// `redis-sentinel://[user][:password@]host[:port][,host[:port]…][/database]#service`; user and
    /// password are those of the servers that the sentinels name.
    fn sentinel(url: &str, connections: usize) -> RedisResult<Self> {
        let malformed = || RedisError::from((ErrorKind::InvalidClientConfig, "no sentinel's URL"));
        let (scheme, rest) = url.split_once("-sentinel://").ok_or_else(malformed)?;
        let (rest, service) = rest.rsplit_once('#').ok_or_else(malformed)?;
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (format!("{credentials}@"), rest),
            None => (String::new(), rest),
        };
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let sentinels = hosts.split(',').map(|host| match host.contains(':') {
            true => format!("{scheme}://{host}"),
            false => format!("{scheme}://{host}:26379"),
        });
        // Read as the URL of any server is; the host is the sentinels' to say.
        let node =
            format!("{scheme}://{credentials}localhost/{database}").into_connection_info()?;
        let node = sentinel::SentinelNodeConnectionInfo {
            tls_mode: (scheme == "rediss").then_some(sentinel::TlsMode::Secure),
            redis_connection_info: Some(node.redis_settings().clone().into()),
        };
        let manager = sentinel::Manager::new(
            sentinels.collect(),
            service.to_owned(),
            Some(node),
            sentinel::SentinelServerType::Master,
        )?;
        let pool = sentinel::Pool::builder(manager).max_size(connections).build();
        pool.map(Pool::Sentinel).map(Self::Single).map_err(|_| not_connected("no pool"))
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

/// Connections to one server: always the same, or whichever the sentinels say is the master.
#[derive(Clone)]
pub(super) enum Pool {
    Direct(deadpool_redis::Pool),
    Sentinel(sentinel::Pool),
}

/// A connection of a [`Pool`].
pub(super) enum Lent {
    Direct(Connection),
    Sentinel(sentinel::Connection),
}

impl Lent {
    pub(super) fn connection(&mut self) -> &mut MultiplexedConnection {
        match self {
            Self::Direct(connection) => connection,
            Self::Sentinel(connection) => connection,
        }
    }

    /// Closes it, so that the pool makes another.
    pub(super) fn discard(self) {
        match self {
            Self::Direct(connection) => drop(Connection::take(connection)),
            Self::Sentinel(connection) => drop(sentinel::Connection::take(connection)),
        }
    }
}

/// A connection that the pool has looked at, or made.
pub(super) async fn connect(pool: &Pool, within: Duration) -> RedisResult<Lent> {
    let backend = |error| match error {
        PoolError::Backend(error) => error,
        _ => not_connected("no connection"),
    };
    in_time(within, async {
        match pool {
            Pool::Direct(pool) => pool.get().await.map(Lent::Direct).map_err(backend),
            Pool::Sentinel(pool) => pool.get().await.map(Lent::Sentinel).map_err(backend),
        }
    })
    .await
}

fn is_sentinel(url: &str) -> bool {
    url.starts_with("redis-sentinel://") || url.starts_with("rediss-sentinel://")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_need_a_host_and_a_service() {
        for (url, sound) in [
            ("redis-sentinel://a#main", true),
            ("redis-sentinel://:p%40ss@a:1,b:2,c/3#main", true),
            ("redis-sentinel://a", false),
            ("redis-sentinel://#main", false),
            ("redis-sentinel://a/x#main", false),
            ("redis-sentinel://a:port#main", false),
        ] {
            assert_eq!(Server::parse(url, 1).is_ok(), sound, "{url}");
        }
    }
}
