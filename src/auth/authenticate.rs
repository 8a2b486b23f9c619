//! The one question that [`RequireAuth`](crate::RequireAuth) asks: who is it?

use std::fmt;

use auto_impl::auto_impl;
use http::StatusCode;

use crate::{Answer, Identity, Problem, RequestHead, StoreError};

/// Tells who is calling from what came with the request.
///
/// ```
/// use tower_warden::{Answer, Identity, RequestHead, Role, UserId};
/// use tower_warden::auth::{Authenticate, AuthError};
///
/// /// Callers that a gateway has let in, known by a header that it sets.
/// #[derive(Debug)]
/// struct Gateway;
///
/// impl Authenticate for Gateway {
///     fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
///         let caller = request.headers.get("x-caller").map(|value| value.to_str());
///         Answer::Ready(match caller {
///             Some(Ok(name)) => Ok(Identity::new(UserId::from(name), Role::VIEWER)),
///             Some(Err(_)) => Err(AuthError::Invalid("x-caller is no text")),
///             None => Err(AuthError::Missing),
///         })
///     }
/// }
/// ```
#[auto_impl(Arc)]
pub trait Authenticate: fmt::Debug + Send + Sync + 'static {
    /// The caller, or why there is none.
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>>;
}

/// Why a caller is not known. The client learns little of it; the reason is in the log, and as
/// `Arc<AuthError>` in the extensions of the response.
///
/// ```
/// use tower_warden::auth::AuthError;
/// let problem = AuthError::Expired.to_problem("api");
/// assert_eq!((problem.status().as_u16(), problem.code()), (401, "token_expired"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Nothing was presented that could tell.
    #[error("no credentials were presented")]
    Missing,
    /// There is more than one of this, which clients are told (`Authorization header`): one reader may
    /// believe the first and another the last.
    #[error("there is more than one {0}")]
    Ambiguous(&'static str),
    /// What was presented came with a request that another site's page made.
    #[error("another site made the request")]
    CrossSite,
    /// What was presented is genuine, and past its time.
    #[error("the credentials have expired")]
    Expired,
    /// What was presented is genuine, and was revoked before its time.
    #[error("the credentials are revoked")]
    Revoked,
    /// What was presented is not genuine; the reason is for logs.
    #[error("the credentials are not genuine: {0}")]
    Invalid(&'static str),
    /// What was presented can't be checked at the moment.
    #[error("the credentials can't be checked")]
    Unavailable(#[from] StoreError),
}

impl AuthError {
    /// What the client is told: 401 in the forms of RFC 6750, section 3; 400 for an ambiguous
    /// request; 403 for one of another site; 503 where it can't be checked.
    #[must_use]
    pub fn to_problem(&self, realm: &str) -> Problem {
        let unauthorized = |code, detail| Problem::new(StatusCode::UNAUTHORIZED, code, detail);
        let ended = |code, detail| {
            let (error, description) = (Some("invalid_token"), Some(detail));
            unauthorized(code, detail).with_bearer_challenge(realm, error, description)
        };
        match self {
            Self::Missing => unauthorized("authentication_required", "Authentication required")
                .with_bearer_challenge(realm, None, None),
            Self::Expired => ended("token_expired", "Token expired"),
            Self::Revoked => ended("token_revoked", "Token revoked"),
            Self::Invalid(_) => unauthorized("invalid_token", "Invalid token")
                .with_bearer_challenge(realm, Some("invalid_token"), None),
            Self::Ambiguous(what) => Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                format!("More than one {what}"),
            ),
            Self::CrossSite => Problem::new(
                StatusCode::FORBIDDEN,
                "cross_site_request",
                "Requests of other sites are refused",
            ),
            Self::Unavailable(_) => Problem::unavailable(1),
        }
    }
}
