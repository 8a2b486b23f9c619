//! [`RequireRecentAuth`]: not a session of days ago.

use std::time::Duration;

use http::StatusCode;
use tower_layer::Layer;

use super::{Require, require::RequireService};
use crate::{Identity, Problem, RefusalHook, SharedClock, SystemClock};

/// Lets callers pass who proved who they are within a while ([`auth_time`]), and tells all others to
/// do so again (RFC 9470): 401 with `error="insufficient_user_authentication"` and `max_age`. For
/// what a stolen session must not do. Stands inside [`RequireAuth`](crate::RequireAuth).
///
/// A client that understands it sends its user to log in, and comes again with the new token. Callers
/// of whom the time is not known don't pass: API keys never do.
///
/// [`auth_time`]: crate::Identity::auth_time
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use std::{sync::Arc, time::Duration};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_warden::{Clock, Identity, ManualClock, Role, UserId, auth::RequireRecentAuth};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = ManualClock::new();
/// let recent = RequireRecentAuth::within(Duration::from_secs(300));
/// let service = ServiceBuilder::new()
///     .layer(recent.with_clock(Arc::new(clock.clone())))
///     .service(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(Empty::new()))));
///
/// let caller = Identity::new(UserId::from("42"), Role::VIEWER).with_auth_time(clock.now());
/// let request = || Request::get("/").extension(caller.clone()).body(());
/// assert_eq!(service.clone().oneshot(request()?).await?.status(), 200);
/// clock.advance(Duration::from_secs(301));
/// let response = service.oneshot(request()?).await?;
/// assert_eq!(response.status(), 401);
/// assert_eq!(
///     response.headers()["www-authenticate"],
///     "Bearer realm=\"api\", error=\"insufficient_user_authentication\", \
///      error_description=\"A more recent authentication is required\", max_age=\"300\""
/// );
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireRecentAuth {
    max_age: Duration,
    require: Require,
}

/// How far the clock of another issuer may run ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

impl RequireRecentAuth {
    /// Whose proof is at most so old, in whole seconds.
    pub fn within(max_age: Duration) -> Self {
        let max_age = Duration::from_secs(max_age.as_secs());
        let require = Require::that(is_recent(max_age, SystemClock::shared()))
            .or_answer(move |realm| too_old(realm, max_age));
        Self { max_age, require }
    }

    /// Where time comes from.
    pub fn with_clock(self, clock: SharedClock) -> Self {
        let require = self.require.but_that(is_recent(self.max_age, clock));
        Self { require, ..self }
    }

    /// The same with another realm in its challenges than `api`.
    ///
    /// # Panics
    /// Where the realm is not printable ASCII without quotes and backslashes.
    pub fn with_realm(self, realm: &str) -> Self {
        Self { require: self.require.with_realm(realm), ..self }
    }

    /// The same with refusals in your own words.
    pub fn with_refusal(self, hook: RefusalHook) -> Self {
        Self { require: self.require.with_refusal(hook), ..self }
    }
}

/// Whether a caller's proof is at most so old, by this clock.
fn is_recent(max_age: Duration, clock: SharedClock) -> impl Fn(&Identity) -> bool + Send + Sync {
    let recent = move |proved| match clock.now().duration_since(proved) {
        Ok(age) => age <= max_age,
        // Clocks differ, a little.
        Err(ahead) => ahead.duration() <= CLOCK_SKEW,
    };
    move |caller| caller.auth_time().is_some_and(&recent)
}

/// RFC 9470, section 3.
fn too_old(realm: &str, max_age: Duration) -> Problem {
    const CODE: &str = "insufficient_user_authentication";
    let detail = "A more recent authentication is required";
    Problem::new(StatusCode::UNAUTHORIZED, CODE, detail).with_challenge(
        realm,
        &[
            ("error", CODE),
            ("error_description", detail),
            ("max_age", &max_age.as_secs().to_string()),
        ],
    )
}

impl<S> Layer<S> for RequireRecentAuth {
    type Service = RequireService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        self.require.layer(inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use http_body_util::Empty;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{Clock, ManualClock, Role, UserId};

    #[tokio::test]
    async fn what_is_chosen_stays_in_whatever_order_it_is_chosen() {
        let clock = ManualClock::new();
        let caller = Identity::new(UserId::from("42"), Role::VIEWER).with_auth_time(clock.now());
        clock.advance(Duration::from_secs(11));
        let hook = || RefusalHook::new(|_, problem| problem.with_detail("log in again"));
        let recent = || RequireRecentAuth::within(Duration::from_secs(10));
        let clock = || Arc::new(clock.clone());
        for layer in [
            recent().with_clock(clock()).with_realm("shop").with_refusal(hook()),
            recent().with_realm("shop").with_refusal(hook()).with_clock(clock()),
        ] {
            let service = layer.layer(service_fn(async |_: Request<()>| {
                Ok::<_, &str>(Response::new(Empty::new()))
            }));
            let request = Request::get("/").extension(caller.clone()).body(()).unwrap();
            let response = service.oneshot(request).await.unwrap();
            assert_eq!(response.status(), 401);
            let challenge = response.headers()["www-authenticate"].to_str().unwrap();
            assert!(challenge.starts_with(r#"Bearer realm="shop""#), "{challenge}");
            let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
            let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            assert!(body.contains("log in again"), "{body}");
        }
    }
}
