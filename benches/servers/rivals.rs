//! The route behind what is written by hand today.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{Either, Full};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use quick_cache::sync::Cache;
use redis::{Client, Script, aio::ConnectionManager};
use serde::Deserialize;
use tower::{ServiceBuilder, util::MapResponseLayer};

use super::{
    Outcome,
    ours::LIMIT,
    tokens::{AUDIENCE, ISSUER, pem},
};

/// Who is calling, as handlers see it.
#[derive(Clone)]
struct Caller {
    user: Arc<str>,
    expires_at: u64,
}

/// What verifies tokens; with a cache, each once.
struct Verifier {
    key: DecodingKey,
    validation: Validation,
    seen: Option<Cache<String, Caller>>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
}

impl Verifier {
    fn new(caches: bool) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let key = DecodingKey::from_rsa_pem(&pem("rsa-public.pem")).expect("a key");
        Self { key, validation, seen: caches.then(|| Cache::new(10_000)) }
    }

    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        if let Some(caller) = self.seen.as_ref().and_then(|seen| seen.get(token)) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
            return (now < caller.expires_at).then_some(caller);
        }
        let token_data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).ok()?;
        let Claims { sub, exp } = token_data.claims;
        let caller = Caller { user: sub.into(), expires_at: exp };
        if let Some(seen) = &self.seen {
            seen.insert(token.to_owned(), caller.clone());
        }
        Some(caller)
    }
}

pub(crate) fn with_jsonwebtoken(route: Router) -> Router {
    async fn check(
        State(verifier): State<Arc<Verifier>>,
        mut request: Request,
        next: Next,
    ) -> Response {
        let Some(caller) = verifier.caller(request.headers()) else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        request.extensions_mut().insert(caller);
        next.run(request).await
    }

    route.layer(from_fn_with_state(Arc::new(Verifier::new(false)), check))
}

/// Knows tokens it has seen, and counts users; says nothing of the limit in headers.
pub(crate) fn with_governor(route: Router) -> Router {
    struct Door {
        verifier: Verifier,
        limiter: DefaultKeyedRateLimiter<Arc<str>>,
    }

    async fn check(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
        let Some(caller) = door.verifier.caller(request.headers()) else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        if door.limiter.check_key(&caller.user).is_err() {
            return StatusCode::TOO_MANY_REQUESTS.into_response();
        }
        request.extensions_mut().insert(caller);
        next.run(request).await
    }

    let limit = NonZeroU32::new(LIMIT).expect("a limit");
    let door = Door {
        verifier: Verifier::new(true),
        limiter: RateLimiter::keyed(Quota::per_minute(limit)),
    };
    route.layer(from_fn_with_state(Arc::new(door), check))
}

/// Counts in Redis by two counters, with a call of the script for each request.
pub(crate) async fn on_redis(route: Router, url: &str, caches: bool) -> Outcome<Router> {
    struct Door {
        verifier: Verifier,
        redis: ConnectionManager,
        script: Script,
    }

    async fn check(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
        let Some(caller) = door.verifier.caller(request.headers()) else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut redis = door.redis.clone();
        let allowed: Result<bool, _> = door
            .script
            .key(format!("hand-made:{}", caller.user))
            .arg(LIMIT)
            .arg(60)
            .arg(now)
            .invoke_async(&mut redis)
            .await;
        match allowed {
            Ok(true) => {}
            Ok(false) => return StatusCode::TOO_MANY_REQUESTS.into_response(),
            Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
        request.extensions_mut().insert(caller);
        next.run(request).await
    }

    let door = Door {
        verifier: Verifier::new(caches),
        redis: ConnectionManager::new(Client::open(url)?).await?,
        script: Script::new(include_str!("two_counters.lua")),
    };
    Ok(route.layer(from_fn_with_state(Arc::new(door), check)))
}

/// Two layers that do nothing but what layers that may answer themselves can't leave: a body of either
/// kind.
pub(crate) fn empty_layers(route: Router) -> Router {
    type Own = Full<Bytes>;
    let either = || {
        let wrap = |response: Response<Body>| response.map(Either::<Body, Own>::Left);
        MapResponseLayer::new(wrap)
    };
    let again = |response: Response<Either<Body, Own>>| response.map(Either::<_, Own>::Left);
    route.layer(ServiceBuilder::new().layer(MapResponseLayer::new(again)).layer(either()))
}

/// What tower-warden writes, as constants: two of these headers, or all five.
pub(crate) fn constant_headers<const N: usize>() -> Router {
    const HEADERS: [(&str, &str); 5] = [
        ("ratelimit-policy", r#""user";q=100000;w=60"#),
        ("ratelimit", r#""user";r=99000;t=60"#),
        ("x-ratelimit-limit", "100000"),
        ("x-ratelimit-remaining", "99000"),
        ("x-ratelimit-reset", "1800000000"),
    ];

    async fn hello<const N: usize>() -> impl IntoResponse {
        (std::array::from_fn::<_, N, _>(|i| HEADERS[i]), "Hello, world!")
    }

    Router::new().route("/", get(hello::<N>))
}

/// Refuses in the bytes that tower-warden does, and does nothing else.
pub(crate) fn constant_429() -> Router {
    const BODY: &str = r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,"detail":"Too many requests. Try again in 3599 seconds.","code":"rate_limited","violated-policies":["user"]}"#;

    async fn refuse() -> Response {
        let headers = [
            ("content-type", "application/problem+json"),
            ("cache-control", "no-store"),
            ("retry-after", "3599"),
            ("x-ratelimit-limit", "1"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1800000000"),
            ("ratelimit-policy", r#""user";q=1;w=3600"#),
            ("ratelimit", r#""user";r=0;t=3599"#),
        ];
        (StatusCode::TOO_MANY_REQUESTS, headers, BODY).into_response()
    }

    Router::new().route("/", get(refuse))
}
