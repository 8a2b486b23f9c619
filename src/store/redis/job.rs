//! A question on its way to Redis, and what all who carry one know.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use redis::{RedisResult, aio::ConnectionLike};
use tokio::sync::oneshot;

use super::script::{Request, Verb, Verdict, Window};
use crate::{SharedClock, limit::Calls, signals};

/// A question, and where its answer goes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    reply: oneshot::Sender<RedisResult<Verdict>>,
}

impl Job {
    pub(super) fn new(request: Request) -> (Self, oneshot::Receiver<RedisResult<Verdict>>) {
        let (reply, answer) = oneshot::channel();
        (Self { request, reply }, answer)
    }

    /// Whether nobody waits for it any more: then it need not count. A hold is settled even so.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed() && self.request.verb == Verb::Take
    }

    /// Hands out the answer. Who has gone meanwhile is not missed.
    pub(super) fn answer(self, answer: RedisResult<Verdict>) {
        _ = self.reply.send(answer);
    }
}

/// What is known of the way.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) window: Arc<Window>,
    /// The longest for a call, connecting included.
    pub(super) patience: Duration,
    /// In place of the server's time, in tests.
    pub(super) clock: Option<SharedClock>,
    /// How many values at our keys were not ours.
    pub(super) replaced: Arc<AtomicU64>,
    pub(super) calls: Calls,
}

impl Route {
    pub(super) async fn ask(
        &self,
        connection: &mut impl ConnectionLike,
        requests: &[&Request],
    ) -> RedisResult<Vec<Verdict>> {
        let since_epoch = |clock: &SharedClock| {
            clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
        };
        let now = self.clock.as_ref().map(since_epoch);
        let answer = self.window.ask(connection, requests, now).await?;
        if answer.replaced > 0 {
            self.replaced.fetch_add(answer.replaced, Ordering::Relaxed);
            signals::limit_values_replaced(answer.replaced);
            tracing::warn!(values = answer.replaced, "replaced what was not a limit's state");
        }
        Ok(answer.verdicts)
    }

    /// Gives a call its time. `late` is told when that is more than a request waits.
    pub(super) async fn time<T>(
        &self,
        call: impl Future<Output = RedisResult<T>>,
        late: impl FnOnce(),
    ) -> RedisResult<T> {
        match self.calls.time(self.patience, call, late).await {
            Some(result) => result,
            None => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}
