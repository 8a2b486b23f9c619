//! Who passes `RequireAuth`, and what the others are told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_warden::{
    Answer, Identity, RefusalHook, RefusalReason, RequestHead, RequireAuth, Role, StoreError,
    SystemClock, TokenService, UserId,
    auth::{AuthError, Authenticate},
    store::memory::MemoryStore,
    token::{KeySet, Revocation, RevocationFeed, SigningKey},
};

use crate::support::{Gateway, Later, header, inner, problem, request, send};

/// Knows nobody, for this reason.
#[derive(Clone, Debug)]
struct Refuses(fn() -> AuthError);

impl Authenticate for Refuses {
    fn authenticate(&self, _: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        Answer::Ready(Err((self.0)()))
    }
}

/// Counts how often it is asked.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicUsize>);

impl Authenticate for Counting {
    fn authenticate(&self, request: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        self.0.fetch_add(1, Relaxed);
        Gateway.authenticate(request)
    }
}

fn unavailable() -> AuthError {
    AuthError::Unavailable(StoreError::unavailable("db-7.internal is gone"))
}

#[tokio::test]
async fn each_reason_has_its_form() {
    for (reason, status, code, detail, challenge) in [
        (
            (|| AuthError::Missing) as fn() -> _,
            401,
            "authentication_required",
            "Authentication required",
            Some(r#"Bearer realm="api""#),
        ),
        (
            || AuthError::Expired,
            401,
            "token_expired",
            "Token expired",
            Some(r#"Bearer realm="api", error="invalid_token", error_description="Token expired""#),
        ),
        (
            || AuthError::Invalid("wrong signature"),
            401,
            "invalid_token",
            "Invalid token",
            Some(r#"Bearer realm="api", error="invalid_token""#),
        ),
        (
            || AuthError::Ambiguous("Authorization header"),
            400,
            "invalid_request",
            "More than one Authorization header",
            None,
        ),
        (unavailable, 503, "unavailable", "Service unavailable", None),
    ] {
        for layer in [RequireAuth::new(Refuses(reason)), RequireAuth::new(Later(Refuses(reason)))] {
            let response = send(&layer.layer(inner()), request()).await;
            assert_eq!(response.status(), status);
            assert_eq!(header(response.headers(), "www-authenticate"), challenge);
            let retry_after = (status == 503).then_some("1");
            assert_eq!(header(response.headers(), "retry-after"), retry_after);
            let error: &Arc<AuthError> = response.extensions().get().unwrap();
            assert_eq!(error.to_string(), reason().to_string());
            let problem = problem(response).await;
            assert_eq!((&problem["code"], &problem["detail"]), (&code.into(), &detail.into()));
        }
    }
}

#[tokio::test]
async fn known_callers_pass_with_their_identity() {
    for layer in [RequireAuth::new(Gateway), RequireAuth::new(Later(Gateway))] {
        let service = layer.layer(inner().map_request(|request: http::Request<()>| {
            let caller: &Identity = request.extensions().get().unwrap();
            assert_eq!((caller.user_id().as_str(), caller.role()), ("ada", &Role::EDITOR));
            request
        }));
        let editor = request().header("x-user", "ada").header("x-role", "editor");
        assert_eq!(send(&service, editor).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_realm_is_said_and_checked() {
    let service = RequireAuth::new(Gateway).with_realm("the house").layer(inner());
    let response = send(&service, request()).await;
    assert_eq!(header(response.headers(), "www-authenticate"), Some(r#"Bearer realm="the house""#));
}

#[test]
#[should_panic(expected = "a realm is printable ASCII without quotes")]
fn a_realm_that_breaks_the_challenge_fails_when_built() {
    _ = RequireAuth::new(Gateway).with_realm(r#"a", error="none"#);
}

#[tokio::test]
async fn a_hook_may_word_the_refusal_and_learns_the_reason() {
    let layer = RequireAuth::new(Gateway).with_refusal(RefusalHook::new(|refusal, problem| {
        assert!(matches!(refusal.reason, RefusalReason::Unauthenticated(AuthError::Missing)));
        assert_eq!(refusal.request.uri, "/");
        assert_eq!(problem.code(), "authentication_required");
        Response::builder().status(418).body(Bytes::from_static(b"no")).unwrap()
    }));
    let response = send(&layer.layer(inner()), request()).await;
    assert_eq!(response.status(), 418);
    assert!(response.extensions().get::<Arc<AuthError>>().is_some());
}

#[tokio::test]
async fn identify_only_refuses_nobody() {
    for reason in [(|| AuthError::Missing) as fn() -> _, || AuthError::Expired, unavailable] {
        let service = RequireAuth::new(Refuses(reason)).identify_only().layer(inner().map_request(
            |request: http::Request<()>| {
                assert!(request.extensions().get::<Identity>().is_none());
                request
            },
        ));
        assert_eq!(send(&service, request()).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_authenticator_is_asked_once_by_both_forms() {
    let asked = Counting::default();
    for auth in [RequireAuth::new(asked.clone()), RequireAuth::new(Later(asked.clone()))] {
        let service =
            ServiceBuilder::new().layer(auth.identify_only()).layer(auth).service(inner());
        let known = request().header("x-user", "ada");
        assert_eq!(send(&service, known).await.status(), StatusCode::OK);
        assert_eq!(asked.0.swap(0, Relaxed), 1);
        assert_eq!(send(&service, request()).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(asked.0.swap(0, Relaxed), 1);
    }
}

#[tokio::test]
async fn what_another_authenticator_found_is_not_taken_for_this_ones() {
    let (outer, this) = (Counting::default(), Counting::default());
    let service = ServiceBuilder::new()
        .layer(RequireAuth::new(outer.clone()).identify_only())
        .layer(RequireAuth::new(this.clone()))
        .service(inner());
    let known = request().header("x-user", "ada");
    assert_eq!(send(&service, known).await.status(), StatusCode::OK);
    assert_eq!((outer.0.load(Relaxed), this.0.load(Relaxed)), (1, 1));

    let service = ServiceBuilder::new()
        .layer(RequireAuth::new(Gateway).identify_only())
        .layer(RequireAuth::new(Refuses(|| AuthError::Expired)))
        .service(inner());
    let known = request().header("x-user", "ada");
    assert_eq!(send(&service, known).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_outage_is_503_behind_identify_only_too() {
    let auth = RequireAuth::new(Refuses(unavailable));
    let service = ServiceBuilder::new().layer(auth.identify_only()).layer(auth).service(inner());
    assert_eq!(send(&service, request()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn tokens_of_the_service_pass() {
    let keys = KeySet::new(SigningKey::generate_ed25519().unwrap());
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::default());
    let caller = Identity::new(tower_warden::UserId::from("ada"), Role::EDITOR);
    let pair = tokens.issue(&caller).await.unwrap();
    let service = RequireAuth::new(tokens).layer(inner());
    let bearer = format!("Bearer {}", pair.access_token());
    for (values, status) in [
        (vec![bearer.clone()], 200),
        (vec![format!("{bearer}x")], 401),
        (vec![bearer.clone(), bearer.clone()], 400),
        (vec!["Basic YTpi".to_owned()], 401),
        (vec![], 401),
    ] {
        let request =
            values.iter().fold(request(), |request, value| request.header("authorization", value));
        assert_eq!(send(&service, request).await.status(), status, "{} headers", values.len());
    }
}

/// A feed that was read once.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl RevocationFeed for Silent {
    async fn read(&self, _: u64, _: SystemTime) -> Result<Vec<Revocation>, StoreError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn past_the_stale_limit_good_tokens_are_unavailable_and_bad_ones_are_bad() {
    let key = SigningKey::generate_ed25519().unwrap();
    let tokens = TokenService::new(KeySet::new(key), "issuer", "api", MemoryStore::new());
    let ada = Identity::new(UserId::from("ada"), Role::EDITOR);
    let good = tokens.issue(&ada).await.unwrap().access_token().to_owned();
    let status = async |limit: Option<Duration>, token: &str| {
        let service = RequireAuth::new(tokens.clone().with_stale_limit(limit)).layer(inner());
        let request = request().header("authorization", format!("Bearer {token}"));
        let response = send(&service, request).await;
        (response.status().as_u16(), header(response.headers(), "retry-after").is_some())
    };
    let at_once = Some(Duration::ZERO);
    assert_eq!(status(at_once, &good).await, (200, false), "no feed is followed: nothing is stale");

    let following = tokens.revocations().follow(Silent, SystemClock::shared()).await.unwrap();
    // It is some microseconds old by now: past the one limit, within the other.
    assert_eq!(status(at_once, &good).await, (503, true));
    assert_eq!(status(at_once, "a.b.c").await, (401, false));
    assert_eq!(status(Some(Duration::from_secs(3600)), &good).await, (200, false));
    assert_eq!(status(None, &good).await, (200, false), "believed, unless said otherwise");
    drop(following);
}
