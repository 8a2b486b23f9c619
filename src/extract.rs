//! The framework's window: [`Identity`] as an axum extractor, and problems as axum responses.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;

use crate::{Identity, Problem};

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

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        self.into_response().map(axum::body::Body::from)
    }
}
