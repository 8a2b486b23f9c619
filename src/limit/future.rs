//! The response of [`RateLimitService`](super::RateLimitService): ask, pass on or refuse, settle.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    layer::Shared,
    question::Question,
    rule::NotAsked,
    store::Decisions,
    verdict::{Boxed, Finished, Pending, Verdict},
};
use crate::{ResponseBody, StoreError};

pin_project! {
    /// The response of [`RateLimitService`](super::RateLimitService).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Waiting {
            request: Option<Box<Waiting<S, B>>>,
        },
        Admitted {
            #[pin]
            future: S::Future,
            pending: Option<Pending>,
        },
        Settling {
            settling: Boxed<Pending>,
            response: Option<S::Response>,
        },
        Refused {
            response: Option<Response<Bytes>>,
        },
    }
}

/// A request that can't be passed on or refused at once.
// In a box, so that the others, which can, are moved about in fewer bytes.
pub(super) struct Waiting<S, B> {
    pub(super) awaited: Awaited,
    pub(super) shared: Arc<Shared>,
    pub(super) inner: S,
    pub(super) request: Request<B>,
}

/// For what it waits: for what to ask the store, or for what the store answers to that.
pub(super) enum Awaited {
    Question(Boxed<Result<Question, NotAsked>>),
    Decisions(Question, Boxed<Result<Decisions, StoreError>>),
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn admitted(future: S::Future, pending: Option<Pending>) -> Self {
        Self { state: State::Admitted { future, pending } }
    }

    pub(super) fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::refused(response) }
    }

    pub(super) fn waiting(request: Waiting<S, B>) -> Self {
        Self { state: State::Waiting { request: Some(Box::new(request)) } }
    }
}

impl<S, B> Waiting<S, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict<Infallible>> {
        if let Awaited::Question(question) = &mut self.awaited {
            let question = match ready!(question.as_mut().poll(cx)) {
                Ok(question) => question,
                Err(not_asked) => {
                    let refusal = self.shared.not_asked((&self.request).into(), &not_asked);
                    return Poll::Ready(Verdict::Refused(refusal));
                }
            };
            self.awaited = match self.shared.put((&self.request).into(), &question) {
                Verdict::Admitted(pending) => return Poll::Ready(Verdict::Admitted(pending)),
                Verdict::Refused(response) => return Poll::Ready(Verdict::Refused(response)),
                Verdict::Waiting(decisions) => Awaited::Decisions(question, decisions),
            };
        }
        let Awaited::Decisions(question, decisions) = &mut self.awaited else {
            return Poll::Pending;
        };
        let decisions = ready!(decisions.as_mut().poll(cx));
        Poll::Ready(self.shared.verdict((&self.request).into(), question, decisions))
    }
}

impl<S: Service<Request<B>>, B> State<S, B> {
    fn refused(response: Response<Bytes>) -> Self {
        Self::Refused { response: Some(response) }
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Waiting { request } => {
                    let Some(waiting) = request else { return Poll::Pending };
                    let verdict = ready!(waiting.poll(cx));
                    let Some(waiting) = request.take() else { return Poll::Pending };
                    let Waiting { mut inner, request, .. } = *waiting;
                    match verdict {
                        Verdict::Admitted(pending) => {
                            State::Admitted { future: inner.call(request), pending }
                        }
                        Verdict::Refused(response) => State::refused(response),
                    }
                }
                Projected::Admitted { future, pending } => {
                    let response = ready!(future.poll(cx))?;
                    let Some(pending) = pending.take() else {
                        return Poll::Ready(Ok(ResponseBody::inner(response)));
                    };
                    match pending.finish(response) {
                        Finished::Done(response) => {
                            return Poll::Ready(Ok(response));
                        }
                        Finished::Settling { settling, response } => {
                            State::Settling { settling, response: Some(response) }
                        }
                    }
                }
                Projected::Settling { settling, response } => {
                    let pending = ready!(settling.as_mut().poll(cx));
                    return match response.take() {
                        Some(response) => Poll::Ready(Ok(pending.write(response))),
                        None => Poll::Pending,
                    };
                }
                Projected::Refused { response } => {
                    return match response.take() {
                        Some(response) => Poll::Ready(Ok(ResponseBody::own(response))),
                        None => Poll::Pending,
                    };
                }
            };
            state.set(next);
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
