//! One connection, from its first byte to its last.

use std::{
    error::Error, future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    sync::watch as signal,
    time::{Instant, sleep_until},
};

use super::{
    Bounds,
    exchange::Exchanges,
    socket::Socket,
    watch::{Due, Watch},
};
use crate::app::Hardening;

/// So long an HTTP/2 client has to close what it was asked to close.
const FAREWELL: Duration = Duration::from_secs(1);

pub struct Connection {
    pub socket: TcpStream,
    pub peer: SocketAddr,
    pub app: Router,
    pub hardening: Hardening,
    pub bounds: Arc<Bounds>,
}

impl Connection {
    /// Serves it until one of the two sides ends it, or nothing comes of it, or until the end of all.
    pub async fn serve(
        self,
        builder: &auto::Builder<TokioExecutor>,
        mut ended: signal::Receiver<()>,
    ) {
        let Self { socket, peer, app, hardening, bounds } = self;
        let watch = Watch::new();
        let body_timeout = bounds.body;
        let exchanges = Exchanges { app, peer, watch: watch.clone(), hardening, body_timeout };
        let socket = TokioIo::new(Socket::new(socket, watch.clone(), hardening));
        let mut connection = pin!(builder.serve_connection(socket, exchanges));
        let mut timer = pin!(sleep_until(watch.due(&bounds).at()));
        let mut closing = false;
        let mut farewell = None;
        loop {
            let step = poll_fn(|cx| {
                if let Poll::Ready(served) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Step::Served(served));
                }
                if watch.is_closing() && !closing {
                    return Poll::Ready(Step::Close);
                }
                // What it waits for now may be due earlier than what it waited for before.
                let due = farewell.unwrap_or_else(|| watch.due(&bounds).at());
                if due < timer.deadline() {
                    timer.as_mut().reset(due);
                }
                timer.as_mut().poll(cx).map(|()| Step::Late)
            });
            let step = tokio::select! {
                step = step => step,
                _ = ended.changed(), if !closing => Step::Close,
            };
            match step {
                Step::Served(Ok(())) => return,
                Step::Served(Err(error)) => {
                    return tracing::debug!(error, %peer, "a connection failed");
                }
                Step::Close => {}
                Step::Late if farewell.take().is_some() => {
                    if watch.is_quiet() {
                        return;
                    }
                    timer.as_mut().reset(watch.due(&bounds).at());
                    continue;
                }
                Step::Late => match watch.due(&bounds) {
                    // HTTP/2 has words for it; in HTTP/1 closing is the word.
                    Due::Close(at) if at <= Instant::now() => {
                        if closing || !watch.is_multiplexed() || !watch.is_quiet() {
                            return;
                        }
                    }
                    due => {
                        timer.as_mut().reset(due.at());
                        continue;
                    }
                },
            }
            closing = true;
            connection.as_mut().graceful_shutdown();
            if watch.is_quiet() {
                let until = Instant::now() + FAREWELL;
                farewell = Some(until);
                timer.as_mut().reset(until);
            }
        }
    }
}

/// What has happened to a connection.
enum Step {
    Served(Result<(), Box<dyn Error + Send + Sync>>),
    /// It is to take no further request.
    Close,
    /// Something may have waited for too long.
    Late,
}
