//! [`RequireAuth`], its service and its future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{AuthError, Authenticate};
use crate::{
    Answer, Identity, Refusal, RefusalHook, RefusalReason, RequestHead, ResponseBody,
    identity::Unknown, origin, problem::checked_realm,
};

/// Lets callers pass that an authenticator knows, with their [`Identity`] in the extensions of the
/// request; answers 401 to all others. See the [module docs](crate::auth).
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_warden::{
///     Identity, RequireAuth, Role, TokenService, UserId,
///     store::memory::MemoryStore, token::{KeySet, SigningKey},
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
/// let service = RequireAuth::new(tokens.clone()).layer(service_fn(async |request: Request<()>| {
///     assert!(request.extensions().get::<Identity>().is_some()); // who gets here is known
///     Ok::<_, &str>(Response::new(Empty::new()))
/// }));
///
/// let pair = tokens.issue(&Identity::new(UserId::from("ada"), Role::EDITOR)).await?;
/// let request = Request::get("/").header("authorization", format!("Bearer {}", pair.access_token()));
/// assert_eq!(service.clone().oneshot(request.body(())?).await?.status(), 200);
///
/// let request = Request::get("/").header("authorization", "Bearer made-up").body(())?;
/// let refused = service.oneshot(request).await?;
/// assert_eq!(refused.status(), 401);
/// assert_eq!(refused.headers()["www-authenticate"], r#"Bearer realm="api", error="invalid_token""#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RequireAuth {
    // One count to clone: axum clones a route's whole stack for each request.
    shared: Arc<Shared>,
    only_identifies: bool,
}

// In cache lines of its own, beside the count of who shares it: that is written for each request, by whichever
// core serves it.
#[derive(Clone)]
#[repr(align(128))]
struct Shared {
    authenticator: Arc<dyn Authenticate>,
    realm: Arc<str>,
    refusal: Option<RefusalHook>,
}

impl RequireAuth {
    /// Asks this authenticator: a [`TokenService`](crate::TokenService) for Bearer tokens, or one
    /// of your own.
    pub fn new(authenticator: impl Authenticate) -> Self {
        let shared =
            Shared { authenticator: Arc::new(authenticator), realm: "api".into(), refusal: None };
        Self { shared: Arc::new(shared), only_identifies: false }
    }

    /// The form of this layer that refuses nobody: known callers get their [`Identity`], unknown
    /// ones pass without. Stacked outside a limiter, with this layer inside it, it lets the limiter
    /// tell known from unknown callers; the authenticator is asked only once.
    pub fn identify_only(&self) -> Self {
        Self { only_identifies: true, ..self.clone() }
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

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    /// What a form of this layer further out found already.
    fn known<B>(&self, request: &Request<B>) -> Option<Outcome> {
        let found: &Found = request.extensions().get()?;
        Arc::ptr_eq(&found.by, &self.shared.authenticator).then(|| found.outcome.clone())
    }

    /// Notes in the request who is calling; says why it must not pass, where it must not.
    fn admit<B>(&self, request: &mut Request<B>, outcome: Outcome) -> Result<(), Arc<AuthError>> {
        if self.only_identifies {
            let by = Arc::clone(&self.shared.authenticator);
            let found = Found { by, outcome: outcome.clone() };
            request.extensions_mut().insert(found);
        }
        match outcome {
            Ok(identity) => {
                origin::is_called_by(&identity);
                request.extensions_mut().insert(identity);
                Ok(())
            }
            Err(_) if self.only_identifies => {
                request.extensions_mut().insert(Unknown);
                Ok(())
            }
            Err(reason) => Err(reason),
        }
    }

    fn refuse(&self, request: RequestHead<'_>, error: Arc<AuthError>) -> Response<Bytes> {
        let problem = error.to_problem(&self.shared.realm);
        let refusal = Refusal { request, reason: RefusalReason::Unauthenticated(&error) };
        let mut response = refusal.answer(problem, self.shared.refusal.as_ref());
        response.extensions_mut().insert(error);
        response
    }
}

impl fmt::Debug for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireAuth")
            .field("authenticator", &self.shared.authenticator)
            .field("only_identifies", &self.only_identifies)
            .field("realm", &self.shared.realm)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RequireAuth {
    type Service = RequireAuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireAuthService { inner, layer: self.clone() }
    }
}

type Outcome = Result<Identity, Arc<AuthError>>;

/// What the authenticator said, for a layer further in that would ask the same.
#[derive(Clone)]
struct Found {
    by: Arc<dyn Authenticate>,
    outcome: Outcome,
}

/// Where the authenticator has answered: logged here, as nobody else may hear of it where the layer
/// only identifies.
fn answered(answer: Result<Identity, AuthError>) -> Outcome {
    answer.map_err(|reason| {
        match &reason {
            AuthError::Unavailable(cause) => {
                tracing::error!(error = cause as &dyn std::error::Error, "can't authenticate");
            }
            reason => tracing::debug!(%reason, "unauthenticated"),
        }
        Arc::new(reason)
    })
}

/// What [`RequireAuth`] makes of a service.
///
/// Named where the type of a stack is written out:
///
/// ```
/// use tower::Layer;
/// use tower_warden::{RequireAuth, auth::require_auth::RequireAuthService};
///
/// fn guarded<S>(inner: S, auth: &RequireAuth) -> RequireAuthService<S> {
///     auth.layer(inner)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct RequireAuthService<S> {
    inner: S,
    layer: RequireAuth,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireAuthService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let outcome = match self.layer.known(&request) {
            Some(outcome) => outcome,
            None => match self.layer.shared.authenticator.authenticate(RequestHead::from(&request))
            {
                Answer::Ready(answer) => answered(answer),
                Answer::Pending(answer) => {
                    // The service that was polled ready is the one to call; a clone stays behind.
                    let clone = self.inner.clone();
                    let inner = std::mem::replace(&mut self.inner, clone);
                    let layer = self.layer.clone();
                    return ResponseFuture {
                        state: State::Asking { answer, waiting: Some((request, inner, layer)) },
                    };
                }
            },
        };
        let state = match self.layer.admit(&mut request, outcome) {
            Ok(()) => State::Admitted { future: self.inner.call(request) },
            Err(reason) => {
                State::Refused { response: Some(self.layer.refuse((&request).into(), reason)) }
            }
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The response of [`RequireAuthService`].
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Asking {
            answer: Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send>>,
            waiting: Option<(Request<B>, S, RequireAuth)>,
        },
        Admitted {
            #[pin]
            future: S::Future,
        },
        Refused {
            response: Option<Response<Bytes>>,
        },
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Asking { answer, waiting } => {
                    let outcome = answered(ready!(answer.as_mut().poll(cx)));
                    let Some((mut request, mut inner, layer)) = waiting.take() else {
                        return Poll::Pending;
                    };
                    match layer.admit(&mut request, outcome) {
                        Ok(()) => State::Admitted { future: inner.call(request) },
                        Err(reason) => State::Refused {
                            response: Some(layer.refuse((&request).into(), reason)),
                        },
                    }
                }
                Projected::Admitted { future } => {
                    return future.poll(cx).map_ok(ResponseBody::inner);
                }
                Projected::Refused { response } => {
                    return match response.take() {
                        Some(response) => Poll::Ready(Ok(ResponseBody::own(response))),
                        None => Poll::Pending,
                    };
                }
            };
            state.set(next);
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
