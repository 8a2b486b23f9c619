//! Connections: accepted within bounds, served over HTTP/1 and HTTP/2, and closed when nothing
//! comes of them. `axum::serve` has no such bounds.

mod connection;
mod door;
mod exchange;
mod socket;
mod watch;

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch as signal,
    time::{sleep, timeout},
};
use tower_warden::TrustedProxies;

use self::{connection::Connection, door::Door};
use crate::app::Hardening;

/// What a connection may take.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// From the first byte of a head to its last; for a new connection, from its beginning.
    pub header: Duration,
    /// From the head of a request to the end of its body.
    pub body: Duration,
    /// Between two requests; also without the client taking any of an answer.
    pub idle: Duration,
    /// All connections together; 0: any number.
    pub connections: usize,
    /// Those of one client; 0: any number. IPv6 clients count by /64.
    pub per_ip: usize,
    /// Their connections are of many clients.
    pub proxies: TrustedProxies,
}

/// So many descriptors are kept for databases, mail and logs.
const KEPT: u64 = 128;

impl Bounds {
    /// No more connections than the system has descriptors for, of which it is asked for as many as
    /// it gives: whatever comes beyond is closed at once, and databases can still be reached.
    #[must_use]
    pub fn within_descriptors(mut self) -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current < limit.maximum || limit.maximum.is_none() {
            let raised = Rlimit { current: limit.maximum, ..limit };
            if setrlimit(Resource::Nofile, raised).is_ok() {
                limit = raised;
            }
        }
        let Some(descriptors) = limit.current else { return self };
        let most = descriptors.saturating_sub(KEPT).max(descriptors / 2);
        if self.connections as u64 > most {
            tracing::warn!(descriptors, most, "MAX_CONNECTIONS is more than there are descriptors");
            self.connections = usize::try_from(most).unwrap_or(usize::MAX);
        }
        self
    }
}

/// The largest head, in bytes: 32 KiB, as much as nginx takes. A connection holds no more than this
/// of what was not asked for.
const LARGEST_HEAD: usize = 32 * 1024;
/// The largest list of headers that HTTP/2 unpacks; clients are told. More is answered by h2 itself, with
/// 431 and no body: there is no place in it for a problem document, and to unpack more for the sake of
/// one would be to hold what this bounds.
const LARGEST_HEADER_LIST: u32 = 32 * 1024;
/// Requests that one HTTP/2 connection may have in flight.
const STREAMS: u32 = 100;
/// What one HTTP/2 stream, and one connection of them, may send before it is read.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// So long requests in flight have at the end.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Serves until `end`, and then 10 s more at most, for requests in flight.
///
/// `hardening` is for what is answered in place of the app, to heads that can't be read.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    hardening: Hardening,
    bounds: Bounds,
    end: impl Future,
) {
    let (ending, ended) = signal::channel(());
    let builder = Arc::new(builder());
    let door = Door::new(&bounds);
    let bounds = Arc::new(bounds);
    let accept = async {
        let mut complained = false;
        loop {
            let (socket, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    wait_after(&error, &mut complained).await;
                    continue;
                }
            };
            complained = false;
            // Who is not let in is closed at once, by being dropped.
            let Some(place) = door.enter(peer.ip()) else { continue };
            let _ = TcpStream::set_nodelay(&socket, true);
            let connection = Connection {
                socket,
                peer,
                app: app.clone(),
                hardening,
                bounds: Arc::clone(&bounds),
            };
            let (builder, ended) = (Arc::clone(&builder), ended.clone());
            tokio::spawn(async move {
                connection.serve(&builder, ended).await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        _ = end => {}
    }
    drop((listener, ended));
    ending.send_replace(());
    let _ = timeout(LAST_REQUESTS, ending.closed()).await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(LARGEST_HEAD);
    builder
        .http2()
        .max_header_list_size(LARGEST_HEADER_LIST)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// A client that has gone already is no reason to wait. Where the system has no descriptors or
/// memory left, asking again at once would only keep a processor busy.
async fn wait_after(error: &io::Error, complained: &mut bool) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    if !std::mem::replace(complained, true) {
        tracing::error!(%error, "no connection can be accepted; it is tried again");
    }
    sleep(Duration::from_millis(50)).await;
}
