//! What this API answers beyond what the library's errors say of themselves ([`Problem`]).

use std::any::Any;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use tower_warden::Problem;

pub type Answer<T> = Result<T, Problem>;

/// 400: what can't be read, and why.
pub fn invalid_request(detail: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
}

/// 404, for paths that no route answers.
pub async fn not_found() -> Problem {
    Problem::not_found()
}

/// 405, for methods that a route doesn't answer; axum adds `Allow`.
pub async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
}

/// 400 for two `Authorization` headers, on routes that read none.
pub async fn one_authorization(request: Request, next: Next) -> Response {
    match request.headers().get_all(header::AUTHORIZATION).iter().nth(1) {
        Some(_) => invalid_request("More than one Authorization header").into_response(),
        None => next.run(request).await,
    }
}

/// 500, where a handler panicked.
pub fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    Problem::internal().into_response()
}
