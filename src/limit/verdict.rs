//! From a request to what becomes of it: what to ask, and what the answers mean.

use std::{future::Future, mem, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Response, response::Parts};
use http_body::Body;

use super::{
    Decision, LimiterName, OnFailure, Rule,
    charge::Counted,
    few::Few,
    headers::{Report, Reports},
    holds,
    layer::{Shared, no_peer},
    question::Question,
    rule::{Asked, NotAsked, RoleOfRule},
    store::{Decisions, Hold, Take, Taken},
};
use crate::{Answer, RequestHead, ResponseBody, StoreError, origin, problem::Watch, signals};

pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What becomes of a request.
pub(super) enum Verdict {
    /// It passes, and that is all.
    Passes,
    /// It passes, and this is to be said and settled afterwards.
    Admitted(Pending),
    Refused(Response<Bytes>),
    /// That depends on this.
    Waiting(Awaited),
}

/// What is waited for: what to ask the store, or what the store answers to that.
pub(super) enum Awaited {
    Question(Boxed<Result<Question, NotAsked>>),
    Decisions(Question, Boxed<Result<Decisions, StoreError>>),
}

/// What an admitted request leaves to be done: headers, and holds to settle. Dropped before there
/// is a response (the client hung up, the handler panicked), the holds are kept.
pub(super) struct Pending {
    shared: Arc<Shared>,
    reports: Reports,
    holds: Vec<Hold>,
}

impl Shared {
    /// What becomes of a request, as far as that is known at once.
    pub(super) fn judge(self: &Arc<Self>, request: RequestHead<'_>) -> Verdict {
        match &*self.rules {
            // As most layers have it, and most stores answer it: without a list of anything.
            [rule] if rule.is_plain() && rule.role() == RoleOfRule::Enforces => {
                let asked = match rule.take(&request) {
                    Ok(Some(take)) => match self.store.take_now(&take) {
                        Some(answer) => return self.lone(request, &take, answer),
                        None => Ok(Some(take)),
                    },
                    asked => asked,
                };
                self.judge_all(request, [(rule.role(), Answer::Ready(asked))])
            }
            rules => {
                let asked = |rule: &Rule| (rule.role(), rule.ask(&request, &self.clock));
                self.judge_all(request, rules.iter().map(asked))
            }
        }
    }

    #[inline(never)]
    fn judge_all(
        self: &Arc<Self>,
        request: RequestHead<'_>,
        asked: impl IntoIterator<Item = (RoleOfRule, Answer<Asked>)>,
    ) -> Verdict {
        let mut question = Question::default();
        let mut waiting: Vec<(RoleOfRule, Boxed<Asked>)> = Vec::new();
        for (role, asked) in asked {
            match asked {
                Answer::Ready(asked) => {
                    if let Err(not_asked) = add(&mut question, role, asked) {
                        return Verdict::Refused(self.not_asked(request, &not_asked));
                    }
                }
                Answer::Pending(asked) => waiting.push((role, asked)),
            }
        }
        if waiting.is_empty() {
            return self.put(request, question);
        }
        Verdict::Waiting(Awaited::Question(Box::pin(async move {
            for (role, asked) in waiting {
                add(&mut question, role, asked.await)?;
            }
            Ok(question)
        })))
    }

    /// Asks the store, and says what its answer means where it is there at once.
    pub(super) fn put(self: &Arc<Self>, request: RequestHead<'_>, question: Question) -> Verdict {
        if question.is_empty() {
            return Verdict::Passes;
        }
        if let Some((take, answer)) = question.put_now(&*self.store) {
            return self.lone(request, take, answer);
        }
        match question.put(&self.store) {
            Answer::Ready(answer) => self.verdict(request, &question, answer),
            Answer::Pending(answer) => Verdict::Waiting(Awaited::Decisions(question, answer)),
        }
    }

    /// What the store's answer means.
    pub(super) fn verdict(
        self: &Arc<Self>,
        request: RequestHead<'_>,
        question: &Question,
        answer: Result<Decisions, StoreError>,
    ) -> Verdict {
        let taken = match answer {
            Ok(taken) => taken,
            Err(error) => return self.without_decision(request, &error),
        };
        let (mut reports, mut holds) = (Reports::default(), Vec::new());
        for ((role, take), Taken { decision, hold }) in question.takes().zip(taken) {
            holds.extend(hold.map(|hold| *hold));
            match role {
                RoleOfRule::Observes => {
                    observed(take.limiter, decision.is_allowed());
                    continue;
                }
                RoleOfRule::Guards if decision.is_allowed() => {}
                RoleOfRule::Guards | RoleOfRule::Enforces => {
                    decided(take.limiter, decision.is_allowed());
                }
            }
            let decision =
                if decision.is_allowed() { decision } else { self.punish(take, decision) };
            reports.0.push(Report { limiter: take.limiter, decision });
        }
        if let Some(&longest) = reports.refusal() {
            return Verdict::Refused(self.refuse(request, longest, &reports));
        }
        if holds.is_empty() && (self.headers.is_silent() || reports.0.is_empty()) {
            return Verdict::Passes;
        }
        Verdict::Admitted(Pending { shared: Arc::clone(self), reports, holds })
    }

    /// The same of one limit that is enforced.
    #[inline(always)]
    fn lone(
        self: &Arc<Self>,
        request: RequestHead<'_>,
        take: &Take,
        answer: Result<Taken, StoreError>,
    ) -> Verdict {
        let Taken { decision, hold } = match answer {
            Ok(taken) => taken,
            Err(error) => return self.without_decision(request, &error),
        };
        let limiter = take.limiter;
        decided(limiter, decision.is_allowed());
        if !decision.is_allowed() {
            let report = Report { limiter, decision: self.punish(take, decision) };
            return Verdict::Refused(self.refuse(request, report, &Reports(Few::One(report))));
        }
        let holds = match hold {
            None if self.headers.is_silent() => return Verdict::Passes,
            None => Vec::new(),
            Some(hold) => vec![*hold],
        };
        let reports = Reports(Few::One(Report { limiter, decision }));
        Verdict::Admitted(Pending { shared: Arc::clone(self), reports, holds })
    }

    #[cold]
    fn without_decision(&self, request: RequestHead<'_>, cause: &StoreError) -> Verdict {
        let error = cause as &dyn std::error::Error;
        // Not louder: an outage would write a line for every request. The counter tells, and
        // `FallbackStore` says once that it begins and once that it ends.
        tracing::debug!(error, policy = ?self.on_failure, "limits can't be decided");
        signals::limit_undecided(self.on_failure.as_str());
        match self.on_failure {
            OnFailure::Allow => Verdict::Passes,
            OnFailure::Deny => Verdict::Refused(self.undecided(request, cause)),
        }
    }

    /// The refusal, made longer where its rule says so.
    #[cold]
    fn punish(&self, take: &Take, decision: Decision) -> Decision {
        let penalty = self.rule(take.limiter).and_then(Rule::penalty);
        let wait = penalty.and_then(|penalty| penalty.strike(&take.key, self.clock.monotonic()));
        match (wait, decision.retry_after()) {
            (Some(wait), Some(retry)) if wait > retry => {
                let reset = decision.reset_after();
                Decision::refused(decision.quota(), decision.remaining(), reset, Some(wait))
            }
            _ => decision,
        }
    }

    /// Whether a request counts for this limiter of which this came; `ended` where nothing follows.
    fn counts(&self, limiter: LimiterName, response: &Parts, ended: bool) -> Counted {
        self.rule(limiter).map_or(Counted::Yes, |rule| rule.charge().counts(response, ended))
    }

    fn rule(&self, limiter: LimiterName) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name() == limiter)
    }
}

impl Pending {
    /// Settles what was taken on trial, but for what only the trailers will tell, and writes the headers.
    /// A store that answers at once needs no future.
    pub(super) fn finish<B: Body>(self, response: Response<B>) -> Finished<B> {
        if self.holds.is_empty() {
            return Finished::Done(self.write(response));
        }
        self.settle(response)
    }

    #[inline(never)]
    fn settle<B: Body>(mut self, response: Response<B>) -> Finished<B> {
        let (parts, body) = response.into_parts();
        let ended = body.is_end_stream();
        let counts = |limiter| self.shared.counts(limiter, &parts, ended);
        let reports = mem::take(&mut self.reports);
        let answer = holds::settle(&*self.shared.store, &mut self.holds, counts, reports);
        let response = Response::from_parts(parts, body);
        match answer {
            Answer::Ready(reports) => {
                self.reports = reports;
                Finished::Done(self.write(response))
            }
            Answer::Pending(reports) => {
                let settling = Box::pin(async move {
                    self.reports = reports.await;
                    self
                });
                Finished::Settling { settling, response }
            }
        }
    }

    pub(super) fn write<B>(self, mut response: Response<B>) -> Response<ResponseBody<B>> {
        self.shared.write_headers(&self.reports, &mut response);
        if self.holds.is_empty() {
            return ResponseBody::inner(response);
        }
        ResponseBody::watched(response, Watch(Box::new(move |trailers| self.end(trailers))))
    }

    /// Settles what was left, once the response has ended.
    fn end(mut self, trailers: Option<&HeaderMap>) {
        let shared = Arc::clone(&self.shared);
        holds::end(&*shared.store, &mut self.holds, |limiter| {
            shared.rule(limiter).is_none_or(|rule| rule.charge().counts_in_the_end(trailers))
        });
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.holds.is_empty() {
            holds::end(&*self.shared.store, &mut self.holds, |_| true);
        }
    }
}

/// A response that has its headers, or has to wait for them.
pub(super) enum Finished<B> {
    Done(Response<ResponseBody<B>>),
    Settling { settling: Boxed<Pending>, response: Response<B> },
}

/// Adds what a rule asks. One that observes refuses nobody: where it asks nothing, only that is told.
fn add(question: &mut Question, role: RoleOfRule, asked: Asked) -> Result<(), NotAsked> {
    match asked {
        Ok(Some(take)) => question.add(role, take),
        Ok(None) => {}
        Err(not_asked) if role == RoleOfRule::Observes => match not_asked {
            NotAsked::NoPeer(error) => no_peer(error),
            NotAsked::NoKey(limiter) | NotAsked::Denied(limiter) | NotAsked::Waits(limiter, _) => {
                observed(limiter, false);
            }
        },
        Err(not_asked) => return Err(not_asked),
    }
    Ok(())
}

/// Said to all who ask how limits decide.
#[inline(always)]
pub(super) fn decided(limiter: LimiterName, allowed: bool) {
    signals::limit_decided(limiter.as_str(), allowed);
    origin::is_decided(limiter.as_str(), if allowed { "allowed" } else { origin::REFUSED });
}

fn observed(limiter: LimiterName, allowed: bool) {
    if allowed {
        decided(limiter, true);
    } else {
        signals::limit_would_refuse(limiter.as_str());
        origin::is_decided(limiter.as_str(), "would_refuse");
        tracing::debug!(%limiter, "a limit that only observes would have refused");
    }
}
