//! What a request has to ask the store, and how the answers are got.

use std::{mem, sync::Arc};

use super::{
    RateLimitStore,
    few::Few,
    holds,
    rule::RoleOfRule,
    store::{Decisions, Take, Taken},
};
use crate::{Answer, StoreError};

/// The limits that a request has to pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    /// Those enforced first, which are counted together, all or nothing; then those guarded, of which
    /// something must be left; then those observed, which are counted once the others admit the
    /// request, and heard by nobody.
    takes: Few<Take>,
    enforced: usize,
    guarded: usize,
}

impl Question {
    #[inline]
    pub(super) fn add(&mut self, role: RoleOfRule, take: Take) {
        let at = match role {
            RoleOfRule::Enforces => self.enforced,
            RoleOfRule::Guards => self.enforced + self.guarded,
            RoleOfRule::Observes => self.takes.len(),
        };
        self.enforced += usize::from(role == RoleOfRule::Enforces);
        self.guarded += usize::from(role == RoleOfRule::Guards);
        self.takes.insert(at, take);
    }

    fn enforced(&self) -> &[Take] {
        &self.takes[..self.enforced]
    }

    fn guarded(&self) -> &[Take] {
        &self.takes[self.enforced..][..self.guarded]
    }

    fn observed(&self) -> &[Take] {
        &self.takes[self.enforced + self.guarded..]
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.takes.is_empty()
    }

    /// What each decision is about, in the order of the answer.
    #[inline]
    pub(super) fn takes(&self) -> impl Iterator<Item = (RoleOfRule, &Take)> {
        let role = |at| {
            if at < self.enforced {
                RoleOfRule::Enforces
            } else if at < self.enforced + self.guarded {
                RoleOfRule::Guards
            } else {
                RoleOfRule::Observes
            }
        };
        self.takes.iter().enumerate().map(move |(at, take)| (role(at), take))
    }

    /// The store's decision of the one limit, where there is no other, as mostly, and it is there at once.
    #[inline]
    pub(super) fn put_now(
        &self,
        store: &dyn RateLimitStore,
    ) -> Option<(&Take, Result<Taken, StoreError>)> {
        match &self.takes {
            Few::One(take) if self.enforced == 1 => Some((take, store.take_now(take)?)),
            _ => None,
        }
    }

    /// The store's decisions: of all that are enforced and guarded, and, where these admit the request,
    /// of those observed that could be decided.
    pub(super) fn put(
        &self,
        store: &Arc<dyn RateLimitStore>,
    ) -> Answer<Result<Decisions, StoreError>> {
        if self.takes.len() > self.enforced {
            let (store, this) = (Arc::clone(store), self.clone());
            return Answer::pending(async move { this.put_in_turn(&*store).await });
        }
        store.take(&self.takes)
    }

    async fn put_in_turn(self, store: &dyn RateLimitStore) -> Result<Decisions, StoreError> {
        let mut so_far = SoFar { store, decisions: self.put_guarded(store).await? };
        if so_far.decisions.iter().all(|taken| taken.decision.is_allowed()) {
            for take in self.observed() {
                match store.take(std::slice::from_ref(take)).await {
                    Ok(taken) => taken.into_iter().for_each(|taken| so_far.decisions.push(taken)),
                    Err(_) => break,
                }
            }
        }
        Ok(so_far.end())
    }

    async fn put_guarded(&self, store: &dyn RateLimitStore) -> Result<Decisions, StoreError> {
        let looks: Vec<Take> =
            self.guarded().iter().map(|take| take.clone().with_cost(0)).collect();
        let guarded = match &looks[..] {
            [] => Decisions::new(),
            looks => store.take(looks).await?,
        };
        if guarded.iter().any(|taken| taken.decision.remaining() == 0) {
            return self.put_all(store).await;
        }
        let mut decisions = match self.enforced() {
            [] => Decisions::new(),
            enforced => store.take(enforced).await?,
        };
        guarded.into_iter().for_each(|taken| decisions.push(taken));
        Ok(decisions)
    }

    /// Asked as if the guarded limits counted it, so that they say for how long they refuse. Where there
    /// is room again meanwhile, what they counted is given back.
    async fn put_all(&self, store: &dyn RateLimitStore) -> Result<Decisions, StoreError> {
        let guarded = self.guarded().iter().map(|take| take.clone().with_cost(1).on_trial());
        let takes: Vec<Take> = self.enforced().iter().cloned().chain(guarded).collect();
        let mut so_far = SoFar { store, decisions: store.take(&takes).await? };
        let guarded = so_far.decisions.iter_mut().skip(self.enforced);
        let given_back: Vec<_> = guarded
            .map(|taken| {
                taken.hold.take().map(|hold| holds::carried_through(store.settle(*hold, false)))
            })
            .collect();
        for (at, settled) in (self.enforced..).zip(given_back) {
            if let Some(settled) = settled {
                so_far.decisions[at] = Taken::new(settled.await?);
            }
        }
        Ok(so_far.end())
    }
}

/// What was taken while more is asked. Dropped before the end (the client hung up, a store failed),
/// what is on trial is kept.
struct SoFar<'s> {
    store: &'s dyn RateLimitStore,
    decisions: Decisions,
}

impl SoFar<'_> {
    fn end(mut self) -> Decisions {
        mem::take(&mut self.decisions)
    }
}

impl Drop for SoFar<'_> {
    fn drop(&mut self) {
        let held = self.decisions.iter_mut().filter_map(|taken| taken.hold.take());
        let mut holds: Vec<_> = held.map(|hold| *hold).collect();
        holds::end(self.store, &mut holds, |_| true);
    }
}
