//! [`Require`], [`RequireRole`], their service and its future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Identity, Problem, Refusal, RefusalHook, RefusalReason, RequestHead, ResponseBody, Role,
    problem::checked_realm,
};

/// Lets callers pass of whom something is true, and answers 403 to all others. Stands inside
/// [`RequireAuth`](crate::RequireAuth). See the [module docs](crate::auth).
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use serde::Deserialize;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_warden::{Identity, Require, Role, UserId};
///
/// #[derive(Deserialize)]
/// struct Tenant<'a> {
///     tenant: &'a str,
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = ServiceBuilder::new()
///     .layer(Require::scope("projects:write"))
///     .layer(Require::that(|caller| {
///         caller.claims_as().is_ok_and(|Tenant { tenant }| tenant == "acme")
///     }))
///     .service(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(Empty::new()))));
///
/// let caller = Identity::new(UserId::from("42"), Role::VIEWER)
///     .with_claim("scope", "projects:read projects:write");
/// for (tenant, status) in [("acme", 200), ("other", 403)] {
///     let caller = caller.clone().with_claim("tenant", tenant);
///     let request = Request::get("/").extension(caller).body(())?;
///     assert_eq!(service.clone().oneshot(request).await?.status(), status);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Require {
    shared: Arc<Shared>,
}

/// Lets callers pass who have one of these roles, and answers 403 to all others. Stands inside
/// [`RequireAuth`](crate::RequireAuth). See the [module docs](crate::auth).
///
/// It is a [`Require`] for the most usual requirement. For a single handler see
/// [`Permitted`](super::Permitted).
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_warden::{Identity, RequireRole, Role, UserId};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let auditor = Role::from("auditor"); // roles are open: name your own
/// let service = RequireRole::any_of([Role::ADMIN, auditor.clone()])
///     .layer(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(Empty::new()))));
/// for (role, status) in [(Role::ADMIN, 200), (auditor, 200), (Role::EDITOR, 403)] {
///     let caller = Identity::new(UserId::from("42"), role); // RequireAuth puts it there
///     let request = Request::get("/").extension(caller).body(())?;
///     assert_eq!(service.clone().oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireRole(Require);

#[derive(Clone)]
struct Shared {
    met_by: Arc<dyn Fn(&Identity) -> bool + Send + Sync>,
    realm: Arc<str>,
    /// What a caller is told who doesn't pass, in a realm.
    answer: Arc<dyn Fn(&str) -> Problem + Send + Sync>,
    refusal: Option<RefusalHook>,
}

impl Require {
    /// Lets those pass of whom this is true.
    pub fn that(met_by: impl Fn(&Identity) -> bool + Send + Sync + 'static) -> Self {
        let met_by = Arc::new(met_by);
        let answer = Arc::new(insufficient);
        Self { shared: Arc::new(Shared { met_by, realm: "api".into(), answer, refusal: None }) }
    }

    /// Lets those pass who meet a requirement that has a name.
    pub fn of<R: super::Requirement + 'static>() -> Self {
        Self::that(R::is_met_by)
    }

    /// Lets those pass whose claim `scope` has this word among its own (RFC 8693, section 4.2).
    pub fn scope(scope: impl Into<String>) -> Self {
        let scope = scope.into();
        Self::that(move |caller| caller.scopes().any(|found| found == scope))
    }

    /// Lets those pass who proved who they are by this method, among others
    /// ([`amr`](Identity::amr)): `otp`, say, for a one-time code.
    pub fn amr(method: impl Into<String>) -> Self {
        let method = method.into();
        Self::that(move |caller| caller.amr().contains(&method))
    }

    /// The same with another realm in its challenges than `api`.
    ///
    /// # Panics
    /// Where the realm is not printable ASCII without quotes and backslashes.
    pub fn with_realm(self, realm: &str) -> Self {
        let realm = checked_realm(realm);
        self.change(|shared| shared.realm = realm)
    }

    /// The same with refusals in your own words.
    pub fn with_refusal(self, hook: RefusalHook) -> Self {
        self.change(|shared| shared.refusal = Some(hook))
    }

    /// The same for those of whom this is true.
    pub(super) fn but_that(
        self,
        met_by: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.change(|shared| shared.met_by = Arc::new(met_by))
    }

    /// The same that tells another thing to callers who don't pass.
    pub(super) fn or_answer(
        self,
        answer: impl Fn(&str) -> Problem + Send + Sync + 'static,
    ) -> Self {
        self.change(|shared| shared.answer = Arc::new(answer))
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    fn refuse(&self, request: RequestHead<'_>) -> Response<Bytes> {
        let caller = request.identity();
        let problem = match caller {
            Some(caller) => {
                tracing::debug!(role = %caller.role(), "the caller may not do this");
                (self.shared.answer)(&self.shared.realm)
            }
            None => {
                unknown();
                insufficient(&self.shared.realm)
            }
        };
        let refusal = Refusal { request, reason: RefusalReason::Forbidden(caller) };
        refusal.answer(problem, self.shared.refusal.as_ref())
    }
}

impl RequireRole {
    /// Lets any of these roles pass; none of the others, known or unknown.
    pub fn any_of(roles: impl IntoIterator<Item = Role>) -> Self {
        let roles: Box<[Role]> = roles.into_iter().collect();
        Self(Require::that(move |caller| roles.contains(caller.role())))
    }

    /// The same with another realm in its challenges than `api`.
    ///
    /// # Panics
    /// Where the realm is not printable ASCII without quotes and backslashes.
    pub fn with_realm(self, realm: &str) -> Self {
        Self(self.0.with_realm(realm))
    }

    /// The same with refusals in your own words.
    pub fn with_refusal(self, hook: RefusalHook) -> Self {
        Self(self.0.with_refusal(hook))
    }
}

/// 403 for a caller who is known and may not (RFC 6750, section 3.1).
pub(crate) fn insufficient(realm: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "insufficient_permissions", "Insufficient permissions")
        .with_bearer_challenge(realm, Some("insufficient_scope"), None)
}

/// Logs that there is nobody to ask about.
fn unknown() {
    tracing::error!(
        "no identity was found where one is required: the stack is built wrong, RequireAuth belongs \
         outside of it"
    );
}

impl fmt::Debug for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Require").field("realm", &self.shared.realm).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Require {
    type Service = RequireService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireService { inner, layer: self.clone() }
    }
}

impl<S> Layer<S> for RequireRole {
    type Service = RequireService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

/// What [`Require`] and [`RequireRole`] make of a service.
///
/// Named where the type of a stack is written out:
///
/// ```
/// use tower::Layer;
/// use tower_warden::{RequireRole, Role, auth::require::RequireService};
///
/// fn for_admins<S>(inner: S) -> RequireService<S> {
///     RequireRole::any_of([Role::ADMIN]).layer(inner)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct RequireService<S> {
    inner: S,
    layer: Require,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let head = RequestHead::from(&request);
        let state = if head.identity().is_some_and(|caller| (self.layer.shared.met_by)(caller)) {
            State::Admitted { future: self.inner.call(request) }
        } else {
            State::Refused { response: Some(self.layer.refuse(head)) }
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The response of [`RequireService`].
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<F> {
        Admitted { #[pin] future: F },
        Refused { response: Option<Response<Bytes>> },
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Admitted { future } => future.poll(cx).map_ok(ResponseBody::inner),
            Projected::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(ResponseBody::own(response))),
                None => Poll::Pending,
            },
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
