//! Ending the trial of requests, whatever becomes of who waits for it.

use std::mem;

use super::{
    Decision, LimiterName, RateLimitStore, charge::Counted, headers::Reports, store::Hold,
};
use crate::{Answer, StoreError};

type Settled = Result<Decision, StoreError>;

/// Settles these, and notes in the reports how their limits stand then; those of which only the
/// trailers will tell stay. A store that answers at once needs no future. What was begun is carried
/// through, though the answer be dropped.
pub(super) fn settle(
    store: &dyn RateLimitStore,
    holds: &mut Vec<Hold>,
    mut counts: impl FnMut(LimiterName) -> Counted,
    mut reports: Reports,
) -> Answer<Reports> {
    let mut waiting = Vec::new();
    for hold in mem::take(holds) {
        let limiter = hold.limiter;
        let keep = match counts(limiter) {
            Counted::Yes => true,
            Counted::No => false,
            Counted::Later => {
                holds.push(hold);
                continue;
            }
        };
        match carried_through(store.settle(hold, keep)) {
            Answer::Ready(answer) => note(&mut reports, limiter, answer),
            Answer::Pending(answer) => waiting.push((limiter, answer)),
        }
    }
    if waiting.is_empty() {
        return Answer::Ready(reports);
    }
    Answer::pending(async move {
        for (limiter, answer) in waiting {
            note(&mut reports, limiter, answer.await);
        }
        reports
    })
}

/// Settles these, and nobody waits for it.
pub(super) fn end(
    store: &dyn RateLimitStore,
    holds: &mut Vec<Hold>,
    keep: impl Fn(LimiterName) -> bool,
) {
    for hold in mem::take(holds) {
        let keep = keep(hold.limiter);
        drop(carried_through(store.settle(hold, keep)));
    }
}

fn note(reports: &mut Reports, limiter: LimiterName, answer: Settled) {
    match answer {
        Ok(decision) => {
            let report = reports.0.iter_mut().find(|report| report.limiter == limiter);
            if let Some(report) = report {
                report.decision = decision;
            }
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %limiter, "a request could not be settled");
        }
    }
}

/// Runs what settles a hold in a task of its own, where there is a runtime: it must be carried
/// through though the client hangs up meanwhile.
pub(super) fn carried_through(answer: Answer<Settled>) -> Answer<Settled> {
    match (answer, tokio::runtime::Handle::try_current()) {
        (Answer::Pending(answer), Ok(runtime)) => {
            let task = runtime.spawn(answer);
            Answer::pending(
                async move { task.await.unwrap_or_else(|e| Err(StoreError::internal(e))) },
            )
        }
        (answer, _) => answer,
    }
}
