//! [`RequireRole`], its service and its future.

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

use crate::{Identity, Problem, ResponseBody, Role, problem::checked_realm};

/// Lets callers pass who have one of these roles, and answers 403 to all others. Stands inside
/// [`RequireAuth`](crate::RequireAuth). See the [module docs](crate::auth).
#[derive(Clone)]
#[must_use]
pub struct RequireRole {
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    roles: Box<[Role]>,
    realm: Arc<str>,
    refusal: Option<Arc<Refusal>>,
}

type Refusal = dyn Fn(Option<&Identity>, Problem) -> Response<Bytes> + Send + Sync;

impl RequireRole {
    /// Lets any of these roles pass; none of the others, known or unknown.
    pub fn any_of(roles: impl IntoIterator<Item = Role>) -> Self {
        let roles = roles.into_iter().collect();
        Self { shared: Arc::new(Shared { roles, realm: "api".into(), refusal: None }) }
    }

    /// The same with another realm in its challenges than `api`.
    ///
    /// # Panics
    /// Where the realm is not printable ASCII without quotes and backslashes.
    pub fn with_realm(self, realm: &str) -> Self {
        let realm = checked_realm(realm);
        self.change(|shared| shared.realm = realm)
    }

    /// The same with refusals in your own words: the hook may replace the response, never the
    /// decision.
    pub fn with_refusal(
        self,
        response: impl Fn(Option<&Identity>, Problem) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.change(|shared| shared.refusal = Some(Arc::new(response)))
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    fn refuse(&self, caller: Option<&Identity>) -> Response<Bytes> {
        match caller {
            Some(caller) => tracing::debug!(role = %caller.role(), "the role does not allow it"),
            None => tracing::error!(
                "RequireRole found no identity: the stack is built wrong, RequireAuth belongs \
                 outside of it"
            ),
        }
        let problem = Problem::new(
            StatusCode::FORBIDDEN,
            "insufficient_permissions",
            "Insufficient permissions",
        )
        .with_bearer_challenge(&self.shared.realm, Some("insufficient_scope"), None);
        match &self.shared.refusal {
            Some(hook) => hook(caller, problem),
            None => problem.into_response(),
        }
    }
}

impl fmt::Debug for RequireRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireRole").field("roles", &self.shared.roles).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RequireRole {
    type Service = RequireRoleService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireRoleService { inner, layer: self.clone() }
    }
}

/// What [`RequireRole`] makes of a service.
#[derive(Clone, Debug)]
pub struct RequireRoleService<S> {
    inner: S,
    layer: RequireRole,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireRoleService<S>
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
        let caller: Option<&Identity> = request.extensions().get();
        let state = if caller.is_some_and(|caller| self.layer.shared.roles.contains(caller.role()))
        {
            State::Admitted { future: self.inner.call(request) }
        } else {
            State::Refused { response: Some(self.layer.refuse(caller)) }
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The response of [`RequireRoleService`].
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
