//! What goes wrong, as problems: one type for all handlers.

use std::any::Any;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use tower_warden::{
    Problem, StoreError,
    token::{RefreshError, TokenError},
    user::{LoginError, RegisterError, UpdateUserError, VerifyError},
};

/// Why a request has no other answer. A newtype, so that `?` knows the way from every error.
#[derive(Debug)]
pub struct Refused(Box<Problem>);

pub type Answer<T> = Result<T, Refused>;

/// Clients that were told of a full queue come back after so many seconds.
const BUSY: u64 = 5;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.into_response().map(axum::body::Body::from)
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        let cause = &error as &dyn std::error::Error;
        if error.is_unavailable() {
            tracing::error!(error = cause, "the database does not answer");
            Problem::unavailable(1).into()
        } else {
            tracing::error!(error = cause, "a request failed");
            Problem::internal().into()
        }
    }
}

impl From<LoginError> for Refused {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::InvalidCredentials => {
                unauthorized("invalid_credentials", "Invalid email or password")
            }
            LoginError::EmailNotVerified => {
                Problem::new(StatusCode::FORBIDDEN, "email_not_verified", "Email not verified")
                    .into()
            }
            LoginError::Busy => Problem::unavailable(BUSY).into(),
            LoginError::Store(error) => error.into(),
            error => failed(&error),
        }
    }
}

impl From<RegisterError> for Refused {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::EmailTaken => conflict("email_taken", "Email already registered"),
            RegisterError::WeakPassword(violations) => {
                let mut errors = super::body::FieldErrors::default();
                errors.password(&violations);
                errors.into()
            }
            RegisterError::Busy => Problem::unavailable(BUSY).into(),
            RegisterError::Store(error) => error.into(),
            error => failed(&error),
        }
    }
}

impl From<VerifyError> for Refused {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::InvalidToken => Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_verification_token",
                "Invalid or expired verification token",
            )
            .into(),
            VerifyError::Store(error) => error.into(),
            error => failed(&error),
        }
    }
}

impl From<UpdateUserError> for Refused {
    fn from(error: UpdateUserError) -> Self {
        match error {
            UpdateUserError::NotFound => not_found_problem(),
            UpdateUserError::LastAdmin => conflict("last_admin", "The last admin must stay"),
            UpdateUserError::Store(error) => error.into(),
            error => failed(&error),
        }
    }
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            error => failed(&error),
        }
    }
}

impl From<RefreshError> for Refused {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Invalid(reason) => {
                tracing::info!(%reason, "refresh refused");
                unauthorized("invalid_refresh_token", "Invalid refresh token")
            }
            RefreshError::Store(error) => error.into(),
            error => failed(&error),
        }
    }
}

/// 400: what can't be read, and why.
pub fn invalid_request(detail: &'static str) -> Refused {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_request", detail).into()
}

/// 404, for handlers.
pub fn not_found_problem() -> Refused {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "Not found").into()
}

/// 404, for paths that no route answers.
pub async fn not_found() -> Refused {
    not_found_problem()
}

/// 405, for methods that a route doesn't answer; axum adds `Allow`.
pub async fn method_not_allowed() -> Refused {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, "method_not_allowed", "Method not allowed").into()
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
    Refused::from(Problem::internal()).into_response()
}

fn unauthorized(code: &'static str, detail: &'static str) -> Refused {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, code, detail);
    problem.with_bearer_challenge("api", None, None).into()
}

fn conflict(code: &'static str, detail: &'static str) -> Refused {
    Problem::new(StatusCode::CONFLICT, code, detail).into()
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Refused {
    tracing::error!(error, "a request failed");
    Refused::from(Problem::internal())
}
