//! Authentication and authorization: who is calling, and may they?
//!
//! [`RequireAuth`] asks an authenticator and puts the caller's [`Identity`](crate::Identity) into
//! the extensions of the request, or answers 401. [`RequireRole`] and [`Require`] read it from there,
//! or answer 403; so does [`Permitted`], for a single handler.
//!
//! 1. `RequireAuth` stands outside of these. Where one of them finds no identity it refuses, and logs
//!    that the stack is built wrong.
//! 2. A limiter that counts users stands inside `RequireAuth`. One that counts callers without a
//!    valid token as well stands between [`RequireAuth::identify_only`] and the `RequireAuth` that
//!    it was made from: the first tells who it is and refuses nobody, the second refuses and asks
//!    nothing again.
//! 3. Two `Authorization` headers are refused with 400: one reader may believe the first, another
//!    the last.
//! 4. An authenticator that can't tell at the moment is 503, never 401: an outage doesn't make a
//!    good token bad.
//! 5. Clients learn little (RFC 6750, section 3). The reason is logged, and stands as
//!    `Arc<AuthError>` in the response's extensions.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Empty;
//! use tower_warden::{Answer, Identity, RequestHead, RequireAuth, RequireRole, Role, UserId};
//! use tower_warden::auth::{AuthError, Authenticate};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! /// One key for all; for the example's sake.
//! #[derive(Debug)]
//! struct SharedKey;
//!
//! impl Authenticate for SharedKey {
//!     fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
//!         Answer::Ready(match request.headers.get("x-key") {
//!             Some(key) if key == "open sesame" => Ok(Identity::new(UserId::from("ali"), Role::EDITOR)),
//!             Some(_) => Err(AuthError::Invalid("not the key")),
//!             None => Err(AuthError::Missing),
//!         })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = ServiceBuilder::new()
//!     .layer(RequireAuth::new(SharedKey))
//!     .layer(RequireRole::any_of([Role::EDITOR, Role::ADMIN]))
//!     .service(service_fn(async |request: Request<()>| {
//!         let caller: &Identity = request.extensions().get().ok_or("no caller")?;
//!         assert_eq!(caller.user_id().as_str(), "ali");
//!         Ok::<_, &str>(Response::new(Empty::new()))
//!     }));
//!
//! let request = Request::get("/").header("x-key", "open sesame").body(())?;
//! assert_eq!(service.clone().oneshot(request).await?.status(), StatusCode::OK);
//! let response = service.oneshot(Request::get("/").body(())?).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="api""#);
//! # Ok(()) }
//! ```

mod api_key;
mod authenticate;
mod bearer;
mod cookies;
mod first_of;
#[cfg(feature = "jwks")]
mod jwks;
mod recent;
pub mod require;
pub mod require_auth;
mod requirement;

pub use authenticate::{AuthError, Authenticate};
pub use bearer::bearer;
pub use cookies::{CookieAuthenticator, CookieTooLong, SessionCookies};
pub use first_of::FirstOf;
#[cfg(feature = "jwks")]
pub use jwks::{JwksAuthenticator, JwksError};
pub use recent::RequireRecentAuth;
pub use require::{Require, RequireRole};
pub use require_auth::RequireAuth;
pub use requirement::{Admin, Both, Editor, Either, Permitted, Requirement, Viewer};

pub(crate) use require::insufficient;
