//! What a request has to ask the store, and how the answers are got.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    RateLimitStore,
    rule::RoleOfRule,
    store::{Decisions, Take, Taken},
};
use crate::{Answer, StoreError};

/// The limits that a request has to pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    /// Counted together, all or nothing.
    enforced: SmallVec<[Take; 1]>,
    /// Few layers have any.
    apart: Option<Box<Apart>>,
}

/// What is asked in calls of its own.
#[derive(Clone, Debug, Default)]
struct Apart {
    /// Of which something must be left.
    guarded: Vec<Take>,
    /// Counted once the others admit the request, and heard by nobody.
    observed: Vec<Take>,
}

impl Question {
    pub(super) fn add(&mut self, role: RoleOfRule, take: Take) {
        match role {
            RoleOfRule::Enforces => self.enforced.push(take),
            RoleOfRule::Guards => self.apart.get_or_insert_default().guarded.push(take),
            RoleOfRule::Observes => self.apart.get_or_insert_default().observed.push(take),
        }
    }

    fn guarded(&self) -> &[Take] {
        self.apart.as_ref().map_or(&[], |apart| &apart.guarded)
    }

    fn observed(&self) -> &[Take] {
        self.apart.as_ref().map_or(&[], |apart| &apart.observed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.enforced.is_empty() && self.apart.is_none()
    }

    /// What each decision is about, in the order of the answer.
    pub(super) fn takes(&self) -> impl Iterator<Item = (RoleOfRule, &Take)> {
        let of = |role| move |take| (role, take);
        let enforced = self.enforced.iter().map(of(RoleOfRule::Enforces));
        let guarded = self.guarded().iter().map(of(RoleOfRule::Guards));
        enforced.chain(guarded).chain(self.observed().iter().map(of(RoleOfRule::Observes)))
    }

    /// The store's decisions: of all that are enforced and guarded, and, where these admit the request,
    /// of those observed that could be decided.
    pub(super) fn put(
        &self,
        store: &Arc<dyn RateLimitStore>,
    ) -> Answer<Result<Decisions, StoreError>> {
        if self.apart.is_some() {
            let (store, this) = (Arc::clone(store), self.clone());
            return Answer::pending(async move { this.put_in_turn(&*store).await });
        }
        let at_once = match &self.enforced[..] {
            [take] => store.take_now(take),
            _ => None,
        };
        match at_once {
            Some(answer) => Answer::Ready(answer.map(Decisions::from)),
            None => store.take(&self.enforced),
        }
    }

    async fn put_in_turn(self, store: &dyn RateLimitStore) -> Result<Decisions, StoreError> {
        let mut decisions = self.put_guarded(store).await?;
        if decisions.iter().all(|taken| taken.decision.is_allowed()) {
            for take in self.observed() {
                match store.take(std::slice::from_ref(take)).await {
                    Ok(taken) => taken.into_iter().for_each(|taken| decisions.push(taken)),
                    Err(_) => break,
                }
            }
        }
        Ok(decisions)
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
        let mut decisions = match &self.enforced[..] {
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
        let takes: Vec<Take> = self.enforced.iter().cloned().chain(guarded).collect();
        let mut decisions = store.take(&takes).await?;
        for taken in decisions.iter_mut().skip(self.enforced.len()) {
            if let Some(hold) = taken.hold.take() {
                *taken = Taken::new(store.settle(*hold, false).await?);
            }
        }
        Ok(decisions)
    }
}
