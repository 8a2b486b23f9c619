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
    question::Question,
    rule::NotAsked,
    store::Decisions,
    verdict::{Boxed, Finished, Pending, Put, Verdict},
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
        Choosing {
            question: Boxed<Result<Question, NotAsked>>,
            waiting: Option<(Arc<Shared>, S, Request<B>)>,
        },
        Asking {
            answer: Boxed<Result<Decisions, StoreError>>,
            waiting: Option<(Question, Arc<Shared>, S, Request<B>)>,
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

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn admitted(future: S::Future, pending: Option<Pending>) -> Self {
        Self { state: State::Admitted { future, pending } }
    }

    pub(super) fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(super) fn choosing(
        question: Boxed<Result<Question, NotAsked>>,
        shared: Arc<Shared>,
        inner: S,
        request: Request<B>,
    ) -> Self {
        Self { state: State::Choosing { question, waiting: Some((shared, inner, request)) } }
    }

    pub(super) fn asking(
        answer: Boxed<Result<Decisions, StoreError>>,
        question: Question,
        shared: Arc<Shared>,
        inner: S,
        request: Request<B>,
    ) -> Self {
        Self { state: State::Asking { answer, waiting: Some((question, shared, inner, request)) } }
    }
}

impl<S: Service<Request<B>>, B> State<S, B> {
    fn refused(response: Response<Bytes>) -> Self {
        Self::Refused { response: Some(response) }
    }

    fn decided(verdict: Verdict, inner: &mut S, request: Request<B>) -> Self {
        match verdict {
            Verdict::Admitted(pending) => Self::Admitted { future: inner.call(request), pending },
            Verdict::Refused(response) => Self::refused(response),
        }
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
                Projected::Choosing { question, waiting } => {
                    let question = ready!(question.as_mut().poll(cx));
                    let Some((shared, mut inner, request)) = waiting.take() else {
                        return Poll::Pending;
                    };
                    match question {
                        Err(not_asked) => {
                            State::refused(shared.not_asked((&request).into(), &not_asked))
                        }
                        Ok(question) => match shared.put((&request).into(), &question) {
                            Put::Decided(verdict) => State::decided(verdict, &mut inner, request),
                            Put::Waiting(answer) => {
                                let waiting = Some((question, shared, inner, request));
                                State::Asking { answer, waiting }
                            }
                        },
                    }
                }
                Projected::Asking { answer, waiting } => {
                    let answer = ready!(answer.as_mut().poll(cx));
                    let Some((question, shared, mut inner, request)) = waiting.take() else {
                        return Poll::Pending;
                    };
                    let verdict = shared.verdict((&request).into(), &question, answer);
                    State::decided(verdict, &mut inner, request)
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
