//! The store in this process that decides what the shared one doesn't.

use std::{num::NonZeroU32, sync::Arc};

use smallvec::SmallVec;

use crate::{
    Answer, StoreError,
    limit::{
        Decision, Quota, RateLimitStore,
        store::{Decisions, Hold, Mark, Take},
    },
};

/// What tells a hold of the local store. Instants in microseconds never reach it.
const LOCAL: u64 = 1 << 63;

/// Kept warm: what the shared store admits is counted here, too.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) store: Arc<dyn RateLimitStore>,
    /// How many servers share each limit.
    pub(super) replicas: NonZeroU32,
}

impl Local {
    /// Decides by this server's share of each limit.
    pub(super) fn take(&self, takes: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        let takes: SmallVec<[Take; 2]> = takes.iter().map(|take| self.share(take)).collect();
        match self.store.take(&takes) {
            Answer::Ready(answer) => Answer::Ready(answer.map(marked)),
            Answer::Pending(answer) => Answer::pending(async { answer.await.map(marked) }),
        }
    }

    /// Whether it was here that this was taken.
    pub(super) fn holds(hold: &Hold) -> bool {
        hold.mark.0 & LOCAL != 0
    }

    pub(super) fn settle(&self, hold: Hold, keep: bool) -> Answer<Result<Decision, StoreError>> {
        let mark = Mark(hold.mark.0 & !LOCAL);
        self.store.settle(Hold { mark, ..hold }, keep)
    }

    /// Counts what the shared store admitted. What it took on trial is counted when it is kept.
    ///
    /// Each is counted as far as there is room: a share that is used up stays used up.
    pub(super) fn warm(&self, takes: &[Take]) -> Option<impl Future<Output = ()> + use<>> {
        let counted = takes.iter().filter(|take| !take.hold && take.cost > 0);
        // A local store that can't count now will say so when it is asked to decide.
        let waiting: SmallVec<[_; 2]> = counted
            .filter_map(|take| match self.store.take(&[self.share(take)]) {
                Answer::Ready(_) => None,
                Answer::Pending(answer) => Some(answer),
            })
            .collect();
        (!waiting.is_empty()).then_some(async {
            for answer in waiting {
                _ = answer.await;
            }
        })
    }

    /// The part of a limit that this server grants. A request that weighs more than that takes all
    /// of it, where it would have been admitted by the whole.
    fn share(&self, take: &Take) -> Take {
        let limit = (take.quota.limit() / self.replicas).max(1);
        let quota = Quota::new(limit, take.quota.window()).unwrap_or(take.quota);
        let cost = if take.cost <= take.quota.limit() { take.cost.min(limit) } else { take.cost };
        Take { quota, cost, ..take.clone() }
    }
}

fn marked(mut decisions: Decisions) -> Decisions {
    for hold in decisions.iter_mut().filter_map(|taken| taken.hold.as_mut()) {
        hold.mark.0 |= LOCAL;
    }
    decisions
}
