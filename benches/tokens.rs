//! What needs no server: `RequireAuth` before a service, for tokens that it sees for the first time
//! and for tokens that it has seen, and the signing of new ones; beside the back ends themselves and
//! jsonwebtoken. tower-warden signs and verifies with ring, with aws-lc-rs under that feature.

use std::{
    convert::Infallible,
    fs,
    future::{Future, Ready, ready},
    hint::black_box,
    path::Path,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};
use tower_warden::{
    ApiKeyService, Identity, RequireAuth, Role, UserId,
    api_key::KeyRequest,
    store::memory::MemoryStore,
    token::{
        Algorithm as KeyAlgorithm, FamilyId, KeySet, Revocation, Revoked, SigningKey, TokenService,
        TokenVerifier,
    },
    user::{Email, NewUser, PasswordHash, UserStore},
};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "api";

/// As many as the cache of a `TokenService` holds unless told otherwise.
const TOKENS: usize = 10_000;

static ACCESS_TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tokens = token_service();
    (0..TOKENS).map(|user| issue(&tokens, &format!("user-{user}"))).collect()
});

fn pem(name: &str) -> Vec<u8> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/keys");
    fs::read(keys.join(name)).expect("a key file")
}

fn der(name: &str) -> Vec<u8> {
    let pem = String::from_utf8(pem(name)).expect("PEM is text");
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(lines).expect("PEM is base64")
}

fn token_service() -> TokenService {
    let key = SigningKey::from_pem(&pem("rsa-private.pem")).expect("a key");
    TokenService::new(KeySet::new(key), ISSUER, AUDIENCE, MemoryStore::default())
}

fn issue(tokens: &TokenService, user: &str) -> String {
    let caller = Identity::new(UserId::from(user), Role::EDITOR);
    let pair = now(tokens.issue(&caller)).expect("a token");
    pair.access_token().to_owned()
}

/// What a future that needs no waiting answers.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// Answers at once, with nothing.
#[derive(Clone)]
struct Bare;

impl Service<Request<()>> for Bare {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Full::default())))
    }
}

/// As a server makes it of bytes just received: no part is shared with another request.
fn request(token: &str) -> Request<()> {
    let mut value = Vec::with_capacity(7 + token.len());
    value.extend_from_slice(b"Bearer ");
    value.extend_from_slice(token.as_bytes());
    let value = HeaderValue::from_maybe_shared(Bytes::from(value)).expect("a token is ASCII");
    let mut request = Request::new(());
    request.headers_mut().insert(header::AUTHORIZATION, value);
    request
}

fn call<S, B>(service: &mut S, request: Request<()>) -> Response<B>
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let response = now(service.call(request));
    match response {
        Ok(response) => {
            assert!(response.status().is_success());
            response
        }
        Err(never) => match never {},
    }
}

/// The claims of a token, as one who uses jsonwebtoken declares them.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    role: String,
    iat: u64,
    exp: u64,
    jti: String,
}

fn new_tokens(c: &mut Criterion) {
    let mut group = c.benchmark_group("new token");
    let token = &ACCESS_TOKENS[0];
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let public = der("rsa-public-pkcs1.pem");

    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::RSA_PKCS1_2048_8192_SHA256,
        &public,
    );
    group.bench_function("ring", |b| {
        b.iter(|| key.verify(signed.as_bytes(), &signature).expect("genuine"));
    });

    let key = aws_lc_rs::signature::ParsedPublicKey::new(
        &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
        &public,
    );
    let key = key.expect("a key");
    group.bench_function("aws-lc-rs", |b| {
        b.iter(|| key.verify_sig(signed.as_bytes(), &signature).expect("genuine"));
    });

    let mut service = RequireAuth::new(token_service().with_cache_capacity(0)).layer(Bare);
    group.bench_function("tower-warden without cache", |b| {
        b.iter(|| call(&mut service, request(token)));
    });

    group.bench_function("tower-warden", |b| {
        b.iter_custom(|n| {
            let mut elapsed = Duration::ZERO;
            let mut left = n as usize;
            while left > 0 {
                // One that has seen none of them, and is soon full.
                let tokens = token_service().with_cache_capacity(TOKENS / 10);
                let mut service = RequireAuth::new(tokens).layer(Bare);
                let fresh = &ACCESS_TOKENS[..left.min(TOKENS)];
                let begun = Instant::now();
                for token in fresh {
                    black_box(call(&mut service, request(token)));
                }
                elapsed += begun.elapsed();
                left -= fresh.len();
            }
            elapsed
        });
    });

    let key = DecodingKey::from_rsa_pem(&pem("rsa-public.pem")).expect("a key");
    let mut validation = Validation::new(Algorithm::RS256);
    validation.leeway = 0;
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    group.bench_function("jsonwebtoken", |b| {
        b.iter(|| {
            jsonwebtoken::decode::<Claims>(token, &key, &validation).expect("genuine").claims.exp
        });
    });
}

/// Time for `n` requests on each of so many threads, their tokens in turn.
fn run<S, B>(service: &S, tokens: &'static [String], threads: usize, n: u64) -> Duration
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
{
    let work = |thread: usize| {
        let mut service = service.clone();
        move || {
            let from = thread * tokens.len() / threads;
            for token in tokens.iter().cycle().skip(from).take(n as usize) {
                black_box(call(&mut service, request(token)));
            }
        }
    };
    let begun = Instant::now();
    let others: Vec<_> = (1..threads).map(|t| thread::spawn(work(t))).collect();
    work(0)();
    for other in others {
        other.join().expect("a thread");
    }
    begun.elapsed()
}

fn seen_tokens(c: &mut Criterion) {
    for (name, tokens) in
        [("seen token, one", &ACCESS_TOKENS[..1]), ("seen token, 10k", &ACCESS_TOKENS[..])]
    {
        let mut group = c.benchmark_group(name);
        let require_auth = RequireAuth::new(token_service().with_cache_capacity(2 * TOKENS));
        let ours = require_auth.layer(Bare);
        let pair = require_auth.identify_only().layer(require_auth.layer(Bare));
        run(&ours, tokens, 1, tokens.len() as u64);
        for threads in [1, 2] {
            group.bench_function(BenchmarkId::new("bare", threads), |b| {
                b.iter_custom(|n| run(&Bare, tokens, threads, n));
            });
            group.bench_function(BenchmarkId::new("tower-warden", threads), |b| {
                b.iter_custom(|n| run(&ours, tokens, threads, n));
            });
            group.bench_function(BenchmarkId::new("tower-warden twice", threads), |b| {
                b.iter_custom(|n| run(&pair, tokens, threads, n));
            });
        }
    }
}

/// A token of ours, a key, and a token of another issuer, each seen before; and what it costs that some
/// were revoked.
fn known_callers(c: &mut Criterion) {
    const NONE: &str = "nothing revoked";
    const MANY: &str = "10,000 sessions revoked";
    let token = &ACCESS_TOKENS[0];
    let tokens = token_service();
    let caller = tokens.verify(token).expect("genuine");
    let revoked = tokens.revocations();
    for name in [NONE, MANY] {
        c.benchmark_group("caller: a token").bench_function(name, |b| {
            b.iter(|| tokens.verify(black_box(token)).expect("seen"));
        });
        c.benchmark_group("caller: the look-up").bench_function(name, |b| {
            b.iter(|| revoked.is_revoked(black_box(&caller)));
        });
        for seq in 0..TOKENS as u64 {
            let ended = Revoked::Session(FamilyId::random());
            revoked.apply(&Revocation::new(seq, SystemTime::now(), ended));
        }
    }

    let verifier = TokenVerifier::new(ISSUER, AUDIENCE)
        .with_algorithms([KeyAlgorithm::Rs256])
        .with_jwks(&token_service().jwks());
    c.benchmark_group("caller: a foreign token").bench_function(NONE, |b| {
        b.iter(|| verifier.verify(black_box(token)).expect("genuine"));
    });

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (keys, key) = runtime.block_on(async {
        let store = MemoryStore::new();
        let email = Email::parse("ada@example.com").expect("an address");
        let hash = PasswordHash::from("nobody logs in".to_owned());
        let ada = store.create(NewUser::new(email, hash, SystemTime::now())).await.expect("a user");
        let keys = ApiKeyService::new(store);
        let made = keys.create(&Identity::from(&ada), KeyRequest::new("bench")).await;
        let (_, key) = made.expect("a key");
        keys.verify(key.expose()).await.expect("good");
        (keys, key)
    });
    // From time to time a key that was seen is asked for anew, with patience, which the runtime has.
    let _entered = runtime.enter();
    c.benchmark_group("caller: an API key").bench_function(NONE, |b| {
        b.iter(|| now(keys.verify(black_box(key.expose()))).expect("seen"));
    });
}

fn signing(c: &mut Criterion) {
    let mut group = c.benchmark_group("signing");
    let (message, _) = ACCESS_TOKENS[0].rsplit_once('.').expect("three parts");
    let private = der("rsa-private-pkcs1.pem");

    let key = ring::signature::RsaKeyPair::from_der(&private).expect("a key");
    let mut signature = vec![0; key.public().modulus_len()];
    group.bench_function("ring", |b| {
        use ring::{rand::SystemRandom, signature::RSA_PKCS1_SHA256};
        let random = SystemRandom::new();
        b.iter(|| key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature));
    });

    let key = aws_lc_rs::signature::RsaKeyPair::from_der(&private).expect("a key");
    group.bench_function("aws-lc-rs", |b| {
        use aws_lc_rs::{rand::SystemRandom, signature::RSA_PKCS1_SHA256};
        let random = SystemRandom::new();
        b.iter(|| key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature));
    });

    // The access token, the refresh token that comes with it, and the note of it in the store.
    let tokens = token_service();
    let caller = Identity::new(UserId::from("user-0"), Role::EDITOR);
    group.bench_function("tower-warden", |b| {
        b.iter(|| now(tokens.issue(&caller)).expect("a pair"));
    });

    let key = EncodingKey::from_rsa_pem(&pem("rsa-private.pem")).expect("a key");
    let header = Header::new(Algorithm::RS256);
    group.bench_function("jsonwebtoken", |b| {
        b.iter(|| {
            let issued =
                SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs();
            let claims = Claims {
                iss: ISSUER.to_owned(),
                aud: AUDIENCE.to_owned(),
                sub: "user-0".to_owned(),
                role: "editor".to_owned(),
                iat: issued,
                exp: issued + 900,
                jti: "0b6bba26-6d09-4b0c-a2f8-7a6f3a7a4d77".to_owned(),
            };
            jsonwebtoken::encode(&header, &claims, &key).expect("a token")
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = new_tokens, seen_tokens, known_callers, signing
}
criterion_main!(benches);
