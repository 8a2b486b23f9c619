//! The response of [`RateLimitService`](super::RateLimitService): ask, pass on or refuse, settle.

use std::{
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
    verdict::{Awaited, Boxed, Finished, Pending, Verdict},
};
use crate::{RequestHead, ResponseBody};

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
        Passing {
            #[pin]
            future: S::Future,
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

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn passing(future: S::Future) -> Self {
        Self { state: State::Passing { future } }
    }

    pub(super) fn admitted(future: S::Future, pending: Pending) -> Self {
        Self { state: State::Admitted { future, pending: Some(pending) } }
    }

    pub(super) fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::refused(response) }
    }

    pub(super) fn waiting(request: Waiting<S, B>) -> Self {
        Self { state: State::Waiting { request: Some(Box::new(request)) } }
    }
}

impl<S, B> Waiting<S, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        loop {
            let request = RequestHead::from(&self.request);
            let verdict = match &mut self.awaited {
                Awaited::Question(question) => match ready!(question.as_mut().poll(cx)) {
                    Ok(question) => self.shared.put(request, question),
                    Err(not_asked) => Verdict::Refused(self.shared.not_asked(request, &not_asked)),
                },
                Awaited::Decisions(question, decisions) => {
                    let decisions = ready!(decisions.as_mut().poll(cx));
                    self.shared.verdict(request, question, decisions)
                }
            };
            match verdict {
                Verdict::Waiting(awaited) => self.awaited = awaited,
                verdict => return Poll::Ready(verdict),
            }
        }
    }
}

impl<S: Service<Request<B>>, B> State<S, B> {
    fn refused(response: Response<Bytes>) -> Self {
        Self::Refused { response: Some(response) }
    }

    /// What follows, once it is known.
    // Apart from `poll`, which is quick where nothing has to be waited for.
    #[inline(never)]
    fn after(waiting: &mut Option<Box<Waiting<S, B>>>, cx: &mut Context<'_>) -> Poll<Self> {
        let Some(request) = waiting else { return Poll::Pending };
        let verdict = ready!(request.poll(cx));
        let Some(request) = waiting.take() else { return Poll::Pending };
        let Waiting { shared, mut inner, request, .. } = *request;
        Poll::Ready(match verdict {
            Verdict::Passes => Self::Passing { future: inner.call(request) },
            Verdict::Admitted(pending) => {
                Self::Admitted { future: inner.call(request), pending: Some(pending) }
            }
            Verdict::Refused(response) => Self::refused(response),
            Verdict::Waiting(awaited) => {
                let waiting = Waiting { awaited, shared, inner, request };
                Self::Waiting { request: Some(Box::new(waiting)) }
            }
        })
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
                Projected::Waiting { request } => ready!(State::after(request, cx)),
                Projected::Passing { future } => {
                    return future.poll(cx).map_ok(ResponseBody::inner);
                }
                Projected::Admitted { future, pending } => {
                    let response = ready!(future.poll(cx))?;
                    let Some(pending) = pending.take() else { return Poll::Pending };
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
