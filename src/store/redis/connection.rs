//! Where the server is, and connections to it.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    RedisResult,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};

use super::error::{RedisConfigError, breaks_connection};

/// The longest that it takes to connect to one node of a cluster: a node that hangs must not keep
/// us from the others.
const NODE: Duration = Duration::from_millis(150);

/// A connection that has not been used for so long may have been closed at the other end.
const IDLE: Duration = Duration::from_secs(1);

/// The address of a server, or those of some nodes of a cluster. Clones learn from one another.
#[derive(Clone)]
pub(super) struct Server {
    source: Option<Source>,
    cluster: Option<Arc<ClusterClient>>,
    /// Whether the cluster is what there is.
    is_cluster: Arc<AtomicBool>,
}

/// Whom to ask.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    Single(&'a Source),
    Cluster(&'a Arc<ClusterClient>),
}

impl Server {
    /// Reads one URL, or the comma-separated URLs of a cluster's nodes. Connects to nothing.
    pub(super) fn parse(urls: &str) -> Result<Self, RedisConfigError> {
        let urls: Vec<_> = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
        if urls.iter().any(|url| url.starts_with("rediss") || url.starts_with("valkeys")) {
            provide_cryptography();
        }
        let server = match urls[..] {
            [first, ..] if is_sentinel(first) => {
                sentinel(&urls.join(",")).map(|source| Self::of(Some(source), None))
            }
            // It may be a node of a cluster. (What can't be, such as a socket, is none.)
            [url] => single(url).map(|source| Self::of(Some(source), cluster(&urls).ok())),
            _ => cluster(&urls).map(|cluster| Self::of(None, Some(cluster))),
        };
        server.map_err(|error| RedisConfigError::Address(error.into()))
    }

    fn of(source: Option<Source>, cluster: Option<Arc<ClusterClient>>) -> Self {
        let is_cluster = Arc::new(AtomicBool::new(source.is_none()));
        Self { source, cluster, is_cluster }
    }

    pub(super) fn way(&self) -> Way<'_> {
        match (&self.source, &self.cluster) {
            (Some(source), None) => Way::Single(source),
            (Some(source), _) if !self.is_cluster.load(Ordering::Relaxed) => Way::Single(source),
            (_, Some(cluster)) => Way::Cluster(cluster),
            (None, None) => unreachable!("`parse` makes no such server"),
        }
    }

    /// The server says that it is a node of a cluster: is there one to be asked?
    pub(super) async fn becomes_cluster(&self, within: Duration) -> RedisResult<()> {
        let none = || {
            RedisError::from((
                ErrorKind::InvalidClientConfig,
                "a socket or a Sentinel leads to no cluster",
            ))
        };
        let client = self.cluster.as_ref().ok_or_else(none)?;
        let connecting = tokio::time::timeout(within, connect_cluster(client));
        connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if !self.is_cluster.swap(true, Ordering::Relaxed) {
            tracing::info!("the address of Redis is one of a cluster's, which is used");
        }
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.way() {
            Way::Single(_) => "Server::Single",
            Way::Cluster(_) => "Server::Cluster",
        })
    }
}

/// Where connections to one server come from: always the same, or whichever the sentinels say is
/// the master.
#[derive(Clone)]
pub(super) enum Source {
    Direct(Box<Client>),
    Sentinel(Arc<tokio::sync::Mutex<SentinelClient>>),
}

impl Source {
    pub(super) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        // Who calls sets the time; one clock is enough.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        match self {
            Self::Direct(client) => {
                client.get_multiplexed_async_connection_with_config(&config).await
            }
            Self::Sentinel(client) => {
                client.lock().await.get_async_connection_with_config(&config).await
            }
        }
    }
}

fn single(url: &str) -> RedisResult<Source> {
    Client::open(plain(url)?).map(Box::new).map(Source::Direct)
}

/// `redis-sentinel://[user][:password@]host[:port][,host[:port]…][/database]#service`; user and
/// password are those of the servers that the sentinels name.
fn sentinel(url: &str) -> RedisResult<Source> {
    let malformed = || RedisError::from((ErrorKind::InvalidClientConfig, "no sentinel's URL"));
    let (scheme, rest) = url.split_once("-sentinel://").ok_or_else(malformed)?;
    let (rest, service) = rest.rsplit_once('#').ok_or_else(malformed)?;
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (format!("{credentials}@"), rest),
        None => (String::new(), rest),
    };
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    let sentinels = hosts.split(',').map(|host| match host.contains(':') {
        true => plain(&format!("{scheme}://{host}")),
        false => plain(&format!("{scheme}://{host}:26379")),
    });
    // Read as the URL of any server is; the host is the sentinels' to say.
    let node = plain(&format!("{scheme}://{credentials}localhost/{database}"))?;
    let mut servers = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(node.redis_settings().clone())
        .set_tcp_settings(node.tcp_settings().clone());
    if scheme == "rediss" {
        servers = servers.set_tls_mode(redis::TlsMode::Secure);
    }
    let sentinels: Vec<_> = sentinels.collect::<RedisResult<_>>()?;
    // With TLS it takes any text, without only its own.
    let client = SentinelClient::build(
        sentinels,
        String::from(service),
        Some(servers),
        SentinelServerType::Master,
    )?;
    Ok(Source::Sentinel(Arc::new(tokio::sync::Mutex::new(client))))
}

fn cluster(urls: &[&str]) -> RedisResult<Arc<ClusterClient>> {
    // What may have run isn't repeated.
    let client = ClusterClientBuilder::new(urls.iter().copied()).retries(0);
    client.connection_timeout(NODE).tcp_settings(at_once()).build().map(Arc::new)
}

/// What a URL says. Connecting doesn't need `CLIENT SETINFO`, at which some proxies hang up.
fn plain(url: &str) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(info.set_redis_settings(settings).set_tcp_settings(at_once()))
}

/// A call longer than a packet doesn't wait for its beginning to be acknowledged.
fn at_once() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn is_sentinel(url: &str) -> bool {
    url.starts_with("redis-sentinel://") || url.starts_with("rediss-sentinel://")
}

/// Connections to the nodes of a cluster that answer.
pub(super) async fn connect_cluster(client: &ClusterClient) -> RedisResult<ClusterConnection> {
    client.get_async_connection().await
}

/// Connections to one server, kept from one call to the next.
pub(super) struct Connections {
    source: Source,
    free: Mutex<Vec<Kept>>,
    /// How many have broken. One that is older than the last break is not trusted: it leads to the
    /// same server, and may be as dead without knowing.
    breaks: AtomicU64,
}

/// A connection that is kept.
pub(super) struct Kept {
    connection: MultiplexedConnection,
    /// How many had broken when it was made.
    breaks: u64,
    used: Instant,
}

impl Kept {
    pub(super) fn server(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }
}

impl Connections {
    pub(super) fn new(source: Source) -> Self {
        Self { source, free: Mutex::default(), breaks: AtomicU64::new(0) }
    }

    /// One that is free, or another.
    pub(super) async fn get(&self) -> RedisResult<Kept> {
        let breaks = self.breaks.load(Ordering::Relaxed);
        loop {
            let free = self.free().pop();
            match free {
                Some(kept) if kept.breaks != breaks => {}
                Some(mut kept) if kept.used.elapsed() > IDLE => {
                    // Servers and firewalls close what is idle. Whatever it answers, it is there.
                    let answer = redis::cmd("PING").exec_async(&mut kept.connection).await;
                    if !answer.is_err_and(|error| breaks_connection(&error)) {
                        return Ok(kept);
                    }
                }
                Some(kept) => return Ok(kept),
                None => break,
            }
        }
        let connection = self.source.connect().await?;
        Ok(Kept { connection, breaks, used: Instant::now() })
    }

    /// Keeps one after a call that failed with this, or didn't.
    pub(super) fn give_back(&self, kept: Kept, failure: Option<&RedisError>) {
        if failure.is_some_and(breaks_connection) {
            self.distrust();
        } else {
            self.free().push(Kept { used: Instant::now(), ..kept });
        }
    }

    /// One has broken.
    pub(super) fn distrust(&self) {
        self.breaks.fetch_add(1, Ordering::Relaxed);
    }

    fn free(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            assert_eq!(Server::parse(url).is_ok(), sound, "{url}");
        }
    }
}
