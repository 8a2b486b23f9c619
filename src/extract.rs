//! The framework's window: [`Identity`] as an axum extractor, and problems as axum responses.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use axum::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body::Body as _;

use crate::{
    ClientIp, Identity, Problem, RefusalAnswer, TrustedProxies,
    auth::{Permitted, Requirement, insufficient},
    limit::{RateLimited, Standing},
};

/// The caller that [`RequireAuth`](crate::RequireAuth) let in.
///
/// Where no such layer stands outside of the handler, the request is answered 500, and logged.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_warden::Identity;
/// let app: Router = Router::new()
///     .route("/me", get(async |caller: Identity| caller.user_id().to_string()));
/// ```
impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| {
            tracing::error!(
                "a handler found no identity: the stack is built wrong, RequireAuth belongs \
                 outside of it"
            );
            Problem::internal()
        })
    }
}

/// The caller, where [`RequireAuth`](crate::RequireAuth), or a form of it, knows one.
impl<S: Sync> OptionalFromRequestParts<S> for Identity {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}

/// A caller who meets a requirement; 403 where it doesn't.
impl<S: Sync, R: Requirement> FromRequestParts<S> for Permitted<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = <Identity as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Self::new(caller).ok_or_else(|| insufficient("api"))
    }
}

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_http().map(Body::from)
    }
}

/// A body that has to be waited for can't be answered in place of a refusal: it becomes 500, and is
/// logged.
impl From<Response> for RefusalAnswer {
    fn from(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let answer = match at_once(body) {
            Some(bytes) => http::Response::from_parts(head, bytes),
            None => {
                tracing::error!("a refusal hook answered with a body that is not there at once");
                Problem::internal().into_http()
            }
        };
        answer.into()
    }
}

/// All of a body, if none of it has to be waited for.
fn at_once(mut body: Body) -> Option<Bytes> {
    let (mut bytes, mut cx) = (BytesMut::new(), Context::from_waker(Waker::noop()));
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(None) => return Some(bytes.freeze()),
            Poll::Ready(Some(Ok(frame))) => bytes.extend(frame.into_data().ok()),
            Poll::Ready(Some(Err(_))) | Poll::Pending => return None,
        }
    }
}

/// The client that a request comes from.
///
/// Which proxies are believed about that is said by a layer around the handler:
/// `.layer(Extension(proxies))`, and [`TrustedProxies::none`] where there are none. Where nobody says
/// it, or there is no peer address, the request is answered 500, and logged: an address that a stranger
/// could choose, or that all clients share, is none.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use tower_warden::{ClientIp, TrustedProxies};
/// let app: Router = Router::new()
///     .route("/ip", get(async |client: ClientIp| client.addr().to_string()))
///     .layer(Extension(TrustedProxies::none()));
/// ```
impl<S: Sync> FromRequestParts<S> for ClientIp {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(proxies) = parts.extensions.get::<TrustedProxies>() else {
            tracing::error!(
                "a handler asks for the client's address: the stack is built wrong, a layer \
                 Extension(TrustedProxies) belongs outside of it"
            );
            return Err(Problem::internal());
        };
        proxies.client_ip(&parts.headers, &parts.extensions).map_err(|error| {
            tracing::error!(%error, "a handler asks for the client's address");
            Problem::internal()
        })
    }
}

/// The headers of the limits.
impl axum::response::IntoResponseParts for Standing {
    type Error = std::convert::Infallible;

    fn into_response_parts(
        self,
        mut response: axum::response::ResponseParts,
    ) -> Result<axum::response::ResponseParts, Self::Error> {
        self.write_headers(response.headers_mut(), http::StatusCode::OK);
        Ok(response)
    }
}

/// The 429 or the 503.
impl axum::response::IntoResponse for RateLimited {
    fn into_response(self) -> axum::response::Response {
        axum::response::IntoResponse::into_response(Problem::from(self))
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn an_answer_of_axum_is_taken_where_it_is_there_at_once() {
        let answer = RefusalAnswer::from((http::StatusCode::IM_A_TEAPOT, "short").into_response());
        let answer = format!("{answer:?}");
        assert!(answer.contains("418") && answer.contains("short"), "{answer}");

        let never = Body::from_stream(tokio_stream::pending::<Result<Bytes, String>>());
        let answer = format!("{:?}", RefusalAnswer::from(Response::new(never)));
        assert!(answer.contains("500"), "{answer}");
    }
}
