//! Tokens of an issuer that rotates its keys, hangs, lies and dies.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router, body::Body, extract::State, http::StatusCode, response::IntoResponse, routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};
use tokio_stream::StreamExt;
use tower::Layer;
use tower_warden::{
    Identity, ManualClock, RequireAuth, Role, TokenService, UserId,
    auth::{JwksAuthenticator, JwksError},
    store::memory::MemoryStore,
    token::{KeySet, SigningKey, TokenError, TokenVerifier},
};

use crate::support::{inner, problem, request, send};

/// What the issuer answers at the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    Hangs,
    /// Until the gate opens; then it answers as the mood is by then.
    Tarries,
    Fails,
    Redirects,
    Lies,
    Empties,
    Floods,
    Drips,
    Repeats,
    IsSecret,
    SaysItIsAnother,
    PointsInside,
}

struct Issuer {
    url: String,
    shared: Arc<Shared>,
    clock: ManualClock,
}

struct Shared {
    mood: Mutex<Mood>,
    jwks: Mutex<Value>,
    asked: AtomicUsize,
    gate: Notify,
    url: String,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            mood: Mutex::new(Mood::Well),
            jwks: Mutex::new(json!({"keys": []})),
            asked: AtomicUsize::new(0),
            gate: Notify::new(),
            url: url.clone(),
        });
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(keys))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared, clock: ManualClock::new() }
    }

    /// A new key, which takes the place of the last one.
    fn rotate(&self) -> TokenService {
        let keys = KeySet::new(SigningKey::generate_ed25519().unwrap());
        let tokens = TokenService::new(keys, &self.url, "api", MemoryStore::new())
            .with_clock(Arc::new(self.clock.clone()));
        *self.shared.jwks.lock().unwrap() = serde_json::to_value(tokens.jwks()).unwrap();
        tokens
    }

    fn is(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> usize {
        self.shared.asked.load(Relaxed)
    }

    fn authenticator(&self) -> JwksAuthenticator {
        let verifier =
            TokenVerifier::new(&self.url, "api").with_clock(Arc::new(self.clock.clone()));
        JwksAuthenticator::discover(verifier).unwrap()
    }
}

async fn document(State(issuer): State<Arc<Shared>>) -> impl IntoResponse {
    let (name, keys) = match *issuer.mood.lock().unwrap() {
        Mood::SaysItIsAnother => ("https://id.example", &issuer.url),
        Mood::PointsInside => (&*issuer.url, &issuer.url.replace("127.0.0.1", "127.0.0.2")),
        _ => (&*issuer.url, &issuer.url),
    };
    json!({"issuer": name, "jwks_uri": format!("{keys}/keys")}).to_string()
}

async fn keys(State(issuer): State<Arc<Shared>>) -> axum::response::Response {
    issuer.asked.fetch_add(1, Relaxed);
    let tarries = *issuer.mood.lock().unwrap() == Mood::Tarries;
    if tarries {
        issuer.gate.notified().await;
    }
    let mood = *issuer.mood.lock().unwrap();
    let jwks = issuer.jwks.lock().unwrap().to_string();
    let cache = [("cache-control", "max-age=600")];
    match mood {
        Mood::Well | Mood::SaysItIsAnother | Mood::PointsInside => (cache, jwks).into_response(),
        Mood::Drips => Body::from_stream(drips(jwks)).into_response(),
        Mood::Repeats => r#"{"keys":[],"keys":[{"kty":"RSA"}]}"#.into_response(),
        Mood::IsSecret => {
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}"#.into_response()
        }
        Mood::Hangs | Mood::Tarries => std::future::pending().await,
        Mood::Fails => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Redirects => axum::response::Redirect::to("/elsewhere").into_response(),
        Mood::Lies => "<html>".into_response(),
        Mood::Empties => (cache, r#"{"keys":[]}"#).into_response(),
        Mood::Floods => "x".repeat(1024 * 1024).into_response(),
    }
}

/// A letter every 100 ms: never late with the next one.
fn drips(text: String) -> impl tokio_stream::Stream<Item = Result<String, std::io::Error>> {
    let letters = text.chars().map(String::from).collect::<Vec<_>>();
    tokio_stream::iter(letters).throttle(Duration::from_millis(100)).map(Ok)
}

async fn token(tokens: &TokenService) -> String {
    let ada = Identity::new(UserId::from("ada"), Role::EDITOR);
    tokens.issue(&ada).await.unwrap().access_token().to_owned()
}

#[tokio::test]
async fn keys_are_fetched_for_the_first_token_once_for_all_who_wait() {
    let issuer = Issuer::start().await;
    let good = token(&issuer.rotate()).await;
    let service = RequireAuth::new(issuer.authenticator()).layer(inner());
    let call = || request().header("authorization", format!("Bearer {good}"));
    let answers = futures(20, || send(&service, call())).await;
    assert!(answers.iter().all(|response| response.status() == 200));
    assert_eq!(issuer.asked(), 1);
    assert_eq!(send(&service, request().header("authorization", "Bearer x")).await.status(), 401);
}

/// So many at once.
async fn futures<F: Future>(count: usize, make: impl Fn() -> F) -> Vec<F::Output> {
    let mut waiting: Vec<_> = (0..count).map(|_| (Some(Box::pin(make())), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut waiting {
            if let Some(running) = future
                && let std::task::Poll::Ready(ready) = running.as_mut().poll(cx)
            {
                (*future, *output) = (None, Some(ready));
            }
        }
        match waiting.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn who_comes_during_a_fetch_shares_its_outcome_good_or_bad() {
    for (mood, is_known) in [(Mood::Well, true), (Mood::Fails, false)] {
        let issuer = Issuer::start().await;
        let (tokens, auth) = (issuer.rotate(), issuer.authenticator());
        let good = token(&tokens).await;
        issuer.is(Mood::Tarries);
        let verify = || {
            let (auth, good) = (auth.clone(), good.clone());
            tokio::spawn(async move { auth.verify(&good).await.is_ok() })
        };
        let mut callers = vec![verify()];
        until(|| issuer.asked() == 1).await;
        callers.extend((0..20).map(|_| verify()));
        tokio::task::yield_now().await;
        issuer.is(mood);
        issuer.shared.gate.notify_one();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), is_known, "{mood:?}");
        }
        assert_eq!(issuer.asked(), 1, "{mood:?}");
    }
}

#[tokio::test]
async fn made_up_keys_ask_an_issuer_that_fails_once_a_minute() {
    let issuer = Issuer::start().await;
    issuer.rotate();
    let auth = issuer.authenticator();
    auth.refresh().await.unwrap();
    issuer.is(Mood::Fails);
    let forged = token(&Issuer::start().await.rotate()).await;
    for asked in 2..4 {
        issuer.clock.advance(Duration::from_secs(60));
        for _ in 0..2 {
            let answers = futures(20, || async { auth.verify(&forged).await }).await;
            assert!(answers.iter().all(|answer| matches!(answer, Err(TokenError::Store(_)))));
            assert_eq!(issuer.asked(), asked);
        }
    }
}

#[tokio::test]
async fn a_new_key_is_found_and_unknown_ones_ask_at_most_once_a_minute() {
    let issuer = Issuer::start().await;
    let (old, auth) = (issuer.rotate(), issuer.authenticator());
    let first = token(&old).await;
    auth.verify(&first).await.unwrap();

    let new = issuer.rotate();
    let second = token(&new).await;
    // The first try was just now: a forger can't make us ask again and again.
    for _ in 0..10 {
        assert!(matches!(auth.verify(&second).await, Err(TokenError::Invalid("kid"))));
    }
    assert_eq!(issuer.asked(), 1);
    issuer.clock.advance(Duration::from_secs(60));
    auth.verify(&second).await.unwrap();
    assert_eq!(issuer.asked(), 2);
    // A key that the issuer has dropped is good for nothing, remembered or not.
    assert!(matches!(auth.verify(&first).await, Err(TokenError::Invalid("kid"))));
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn keys_are_fetched_anew_in_the_background_before_they_are_old() {
    let issuer = Issuer::start().await;
    let (tokens, auth) = (issuer.rotate(), issuer.authenticator());
    auth.refresh().await.unwrap();
    let good = token(&tokens).await;
    issuer.clock.advance(Duration::from_secs(479));
    auth.verify(&good).await.unwrap();
    assert_eq!(issuer.asked(), 1);
    issuer.clock.advance(Duration::from_secs(1));
    auth.verify(&good).await.unwrap();
    until(|| issuer.asked() == 2).await;
    auth.verify(&good).await.unwrap();
    assert_eq!(issuer.asked(), 2);
}

async fn until(true_: impl Fn() -> bool) {
    for _ in 0..500 {
        if true_() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never became true");
}

#[tokio::test]
async fn the_last_good_keys_stay_whatever_the_issuer_does() {
    let issuer = Issuer::start().await;
    let (tokens, auth) = (issuer.rotate(), issuer.authenticator());
    auth.refresh().await.unwrap();
    for mood in [
        Mood::Fails,
        Mood::Redirects,
        Mood::Lies,
        Mood::Empties,
        Mood::Floods,
        Mood::Repeats,
        Mood::IsSecret,
        Mood::SaysItIsAnother,
        Mood::PointsInside,
    ] {
        issuer.is(mood);
        assert!(auth.refresh().await.is_err(), "{mood:?}");
        auth.verify(&token(&tokens).await).await.unwrap();
    }
    // A key that may be a new one can't be checked: 503, not 401.
    issuer.clock.advance(Duration::from_secs(60));
    let stranger = Issuer::start().await.rotate();
    let service = RequireAuth::new(auth).layer(inner());
    for _ in 0..2 {
        let unknown = format!("Bearer {}", token(&stranger).await);
        let response = send(&service, request().header("authorization", unknown)).await;
        assert_eq!(response.status(), 503);
        assert_eq!(problem(response).await["code"], "unavailable");
    }
}

#[tokio::test]
async fn without_keys_tokens_cant_be_checked_and_nobody_waits_long() {
    let issuer = Issuer::start().await;
    let (tokens, auth) = (issuer.rotate(), issuer.authenticator());
    let good = token(&tokens).await;
    for (asked, mood) in [(1, Mood::Hangs), (2, Mood::Drips)] {
        issuer.is(mood);
        let began = std::time::Instant::now();
        assert!(matches!(auth.verify(&good).await, Err(TokenError::Store(_))), "{mood:?}");
        assert!(began.elapsed() < Duration::from_secs(7), "{mood:?} {:?}", began.elapsed());
        assert!(matches!(auth.verify(&good).await, Err(TokenError::Store(_))));
        assert_eq!(issuer.asked(), asked, "not again within a second");
        issuer.clock.advance(Duration::from_secs(1));
    }
    issuer.is(Mood::Well);
    issuer.clock.advance(Duration::from_secs(1));
    auth.verify(&good).await.unwrap();
}

#[tokio::test]
async fn an_address_without_tls_is_refused_at_the_start() {
    let verifier = || TokenVerifier::new("http://id.example", "api");
    let refused = JwksAuthenticator::discover(verifier()).unwrap_err();
    assert!(matches!(refused, JwksError::InvalidUrl(_)));
    assert!(JwksAuthenticator::at("http://id.example/keys", verifier()).is_err());
    assert!(JwksAuthenticator::at("https://id.example/keys", verifier()).is_ok());
}
