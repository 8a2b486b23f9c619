//! What [`RateLimitLayer`](super::RateLimitLayer) makes of a service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use smallvec::SmallVec;
use tower_service::Service;

use super::{
    Charge, LimiterName, OnFailure, ResponseFuture,
    future::{Holds, Verdict},
    headers::{Report, Reports},
    layer::Shared,
    store::{Decisions, Take, Taken},
};
use crate::{Answer, NoPeerAddr, RequestHead, ResponseBody, StoreError, signals};

/// What [`RateLimitLayer`](super::RateLimitLayer) makes of a service.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> RateLimitService<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RateLimitService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let head = RequestHead::from(&request);
        let takes = match self.shared.takes(&head) {
            Ok(takes) => takes,
            Err(error) => return ResponseFuture::refused(self.shared.no_peer(head, &error)),
        };
        if takes.is_empty() {
            return ResponseFuture::admitted(self.inner.call(request), None);
        }
        let at_once = match &takes[..] {
            [take] => self.shared.store.take_now(take),
            _ => None,
        };
        let answer = match at_once {
            Some(answer) => Answer::Ready(answer.map(Decisions::from)),
            None => self.shared.store.take(&takes),
        };
        match answer {
            Answer::Ready(answer) => match self.shared.verdict(head, &takes, answer) {
                Verdict::Admitted(holds) => {
                    ResponseFuture::admitted(self.inner.call(request), holds)
                }
                Verdict::Refused(response) => ResponseFuture::refused(response),
            },
            Answer::Pending(answer) => {
                // The service that was polled ready is the one to call; a clone stays behind.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                ResponseFuture::asking(answer, takes, Arc::clone(&self.shared), inner, request)
            }
        }
    }
}

pub(super) type Takes = SmallVec<[Take; 1]>;

impl Shared {
    /// What to ask the store of this request.
    fn takes(&self, request: &RequestHead<'_>) -> Result<Takes, NoPeerAddr> {
        let mut takes = Takes::new();
        for rule in &self.rules {
            takes.extend(rule.take(request)?);
        }
        Ok(takes)
    }

    /// What the store's answer means.
    pub(super) fn verdict(
        self: &Arc<Self>,
        request: RequestHead<'_>,
        takes: &[Take],
        answer: Result<Decisions, StoreError>,
    ) -> Verdict {
        let taken = match answer {
            Ok(taken) => taken,
            Err(cause) => {
                let error = &cause as &dyn std::error::Error;
                // Not louder: an outage would write a line for every request. The counter tells, and
                // `FallbackStore` says once that it begins and once that it ends.
                tracing::debug!(error, policy = ?self.on_failure, "limits can't be decided");
                signals::limit_undecided(self.on_failure.as_str());
                return match self.on_failure {
                    OnFailure::Allow => Verdict::Admitted(None),
                    OnFailure::Deny => Verdict::Refused(self.undecided(request, &cause)),
                };
            }
        };
        let (mut reports, mut holds) = (Reports::default(), Vec::new());
        for (take, Taken { decision, hold }) in takes.iter().zip(taken) {
            signals::limit_decided(take.limiter.as_str(), decision.is_allowed());
            reports.0.push(Report { limiter: take.limiter, decision });
            holds.extend(hold.map(|hold| *hold));
        }
        if let Some(&longest) = reports.refusal() {
            return Verdict::Refused(self.refuse(request, longest, &reports));
        }
        let over = holds.is_empty() && !self.headers;
        Verdict::Admitted((!over).then(|| Holds::new(Arc::clone(self), reports, holds)))
    }

    /// What counts for this limiter: every request, where no rule says otherwise.
    pub(super) fn charge(&self, limiter: LimiterName) -> Charge {
        let rule = self.rules.iter().find(|rule| rule.name() == limiter);
        rule.map(|rule| rule.charge().clone()).unwrap_or_default()
    }
}
