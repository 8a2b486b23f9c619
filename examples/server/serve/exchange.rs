//! One request and its answer, as the app and the connection see them.

use std::{
    convert::Infallible,
    future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body as AnyBody, extract::ConnectInfo, response::IntoResponse};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use super::watch::{Exchange, Watch};
use crate::app::{Hardening, SlowBody, invalid_request};

/// The app, for one connection.
pub struct Exchanges {
    pub app: Router,
    pub peer: SocketAddr,
    pub watch: Watch,
    pub hardening: Hardening,
    /// From the head of a request to the end of its body.
    pub body_timeout: Duration,
}

impl hyper::service::Service<Request<Incoming>> for Exchanges {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let unanswered = Unanswered(self.watch.begin());
        if !names_its_host(&request) {
            let (exchange, response) = (unanswered.0.clone(), without_host(self.hardening));
            return Box::pin(future::ready(Ok(response.map(|body| Answer { body, exchange }))));
        }
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let request = request.map(|body| {
            if body.is_end_stream() {
                return AnyBody::empty();
            }
            let deadline = Instant::now() + self.body_timeout;
            AnyBody::new(Arriving { body, deadline, late: None, exchange: unanswered.0.clone() })
        });
        let response = self.app.clone().call(request);
        Box::pin(async move {
            let response = response.await?;
            let exchange = unanswered.0.clone();
            Ok(response.map(|body| Answer { body, exchange }))
        })
    }
}

/// As RFC 9112, section 3.2 demands, and hyper leaves to us.
fn names_its_host<B>(request: &Request<B>) -> bool {
    let named = request.headers().get_all(header::HOST).iter().count();
    match request.version() {
        Version::HTTP_11 => named == 1,
        _ => named <= 1,
    }
}

fn without_host(hardening: Hardening) -> Response<AnyBody> {
    let mut response = invalid_request("Not one Host header").into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    hardening.response(response)
}

/// Until there is an answer, or nobody waits for one.
struct Unanswered(Exchange);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.answered();
    }
}

/// The body of a request, while it comes in time.
struct Arriving {
    body: Incoming,
    deadline: Instant,
    /// Made once something must be waited for.
    late: Option<Pin<Box<Sleep>>>,
    exchange: Exchange,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(late.as_mut().poll(cx));
        self.exchange.close();
        Poll::Ready(Some(Err(SlowBody.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.exchange.left_unread();
        }
    }
}

/// The body of an answer, while the client takes it.
pub struct Answer {
    body: AnyBody,
    exchange: Exchange,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.exchange.moved();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
