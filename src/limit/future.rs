//! The response of [`RateLimitService`](super::RateLimitService): ask, pass on or refuse, settle.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Decision, LimiterName,
    charge::Counted,
    headers::Reports,
    layer::Shared,
    service::Takes,
    store::{Decisions, Hold},
};
use crate::{Answer, ResponseBody, StoreError, problem::Watch};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a store's answer means for a request.
pub(super) enum Verdict {
    /// It passes; with what is to be said and settled afterwards, where the store decided.
    Admitted(Option<Holds>),
    Refused(Response<Bytes>),
}

/// What an admitted request leaves to be done: headers, and holds to settle. Dropped before there
/// is a response (the client hung up, the handler panicked), the holds are kept.
pub(super) struct Holds {
    shared: Arc<Shared>,
    reports: Reports,
    holds: Vec<Hold>,
}

impl Holds {
    pub(super) fn new(shared: Arc<Shared>, reports: Reports, holds: Vec<Hold>) -> Self {
        Self { shared, reports, holds }
    }

    /// Settles what was taken on trial, but for what only the trailers will tell. A store that
    /// answers at once needs no future.
    fn settle<B: Body>(mut self, response: Response<B>) -> Settled<B> {
        if self.holds.is_empty() {
            return Settled::Done(self.finish(response));
        }
        let (parts, body) = response.into_parts();
        let mut waiting = Vec::new();
        for hold in mem::take(&mut self.holds) {
            let limiter = hold.limiter;
            let keep = match self.shared.charge(limiter).counts(&parts, body.is_end_stream()) {
                Counted::Yes => true,
                Counted::No => false,
                Counted::Later => {
                    self.holds.push(hold);
                    continue;
                }
            };
            match self.shared.store.settle(hold, keep) {
                Answer::Ready(answer) => self.settled(limiter, answer),
                Answer::Pending(answer) => waiting.push((limiter, detached(answer))),
            }
        }
        let response = Response::from_parts(parts, body);
        if waiting.is_empty() {
            return Settled::Done(self.finish(response));
        }
        let settling = Box::pin(async move {
            for (limiter, answer) in waiting {
                let answer = answer.await;
                self.settled(limiter, answer);
            }
            self
        });
        Settled::Waiting { settling, response }
    }

    /// Notes how a limit stands now.
    fn settled(&mut self, limiter: LimiterName, answer: Result<Decision, StoreError>) {
        match answer {
            Ok(decision) => {
                let report = self.reports.0.iter_mut().find(|report| report.limiter == limiter);
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

    fn finish<B>(self, mut response: Response<B>) -> Response<ResponseBody<B>> {
        self.shared.write_headers(&self.reports, &mut response);
        match self.holds.is_empty() {
            true => ResponseBody::inner(response),
            false => {
                let watch = Watch(Box::new(move |trailers| self.end(trailers)));
                ResponseBody::watched(response, watch)
            }
        }
    }

    /// Settles what was left, once the response has ended. Nobody waits for that.
    fn end(mut self, trailers: Option<&HeaderMap>) {
        for hold in mem::take(&mut self.holds) {
            let keep = self.shared.charge(hold.limiter).counts_in_the_end(trailers);
            if let Answer::Pending(answer) = self.shared.store.settle(hold, keep) {
                drop(detached(answer));
            }
        }
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        for hold in mem::take(&mut self.holds) {
            if let Answer::Pending(answer) = self.shared.store.settle(hold, true) {
                drop(detached(answer));
            }
        }
    }
}

enum Settled<B> {
    Done(Response<ResponseBody<B>>),
    Waiting { settling: Boxed<Holds>, response: Response<B> },
}

/// Runs what settles a hold in a task of its own, where there is a runtime: it must be carried
/// through though the client hangs up meanwhile.
fn detached(answer: Boxed<Result<Decision, StoreError>>) -> Boxed<Result<Decision, StoreError>> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            let task = runtime.spawn(answer);
            Box::pin(async move { task.await.unwrap_or_else(|e| Err(StoreError::internal(e))) })
        }
        Err(_) => answer,
    }
}

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
        Asking {
            answer: Boxed<Result<Decisions, StoreError>>,
            waiting: Option<(Takes, Arc<Shared>, S, Request<B>)>,
        },
        Admitted {
            #[pin]
            future: S::Future,
            holds: Option<Holds>,
        },
        Settling {
            settling: Boxed<Holds>,
            response: Option<S::Response>,
        },
        Refused {
            response: Option<Response<Bytes>>,
        },
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn admitted(future: S::Future, holds: Option<Holds>) -> Self {
        Self { state: State::Admitted { future, holds } }
    }

    pub(super) fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(super) fn asking(
        answer: Boxed<Result<Decisions, StoreError>>,
        takes: Takes,
        shared: Arc<Shared>,
        inner: S,
        request: Request<B>,
    ) -> Self {
        Self { state: State::Asking { answer, waiting: Some((takes, shared, inner, request)) } }
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
                Projected::Asking { answer, waiting } => {
                    let answer = ready!(answer.as_mut().poll(cx));
                    let Some((takes, shared, mut inner, request)) = waiting.take() else {
                        return Poll::Pending;
                    };
                    match shared.verdict((&request).into(), &takes, answer) {
                        Verdict::Admitted(holds) => {
                            State::Admitted { future: inner.call(request), holds }
                        }
                        Verdict::Refused(response) => State::Refused { response: Some(response) },
                    }
                }
                Projected::Admitted { future, holds } => {
                    let response = ready!(future.poll(cx))?;
                    let Some(holds) = holds.take() else {
                        return Poll::Ready(Ok(ResponseBody::inner(response)));
                    };
                    match holds.settle(response) {
                        Settled::Done(response) => {
                            return Poll::Ready(Ok(response));
                        }
                        Settled::Waiting { settling, response } => {
                            State::Settling { settling, response: Some(response) }
                        }
                    }
                }
                Projected::Settling { settling, response } => {
                    let holds = ready!(settling.as_mut().poll(cx));
                    return match response.take() {
                        Some(response) => Poll::Ready(Ok(holds.finish(response))),
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
