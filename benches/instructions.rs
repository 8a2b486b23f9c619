//! What a layer costs in instructions, counted by valgrind: the same on each run, and however busy the
//! machine is, so that a change of one part in a hundred shows.
//!
//! A request is built, answered, and its response dropped; of 10,000 clients each has come twice, and
//! now each comes once. What a layer costs is what this takes, less that of `bare`.
//!
//!     cargo run --release --bin instructions             all of them; valgrind has to be installed
//!     valgrind --tool=callgrind --toggle-collect='instructions::counted*' \
//!         target/release/instructions "tower-warden, five headers"       one, for callgrind_annotate

#[path = "support/figures.rs"]
mod figures;
#[path = "support/layers.rs"]
mod layers;

use std::{
    convert::Infallible,
    env, fs,
    future::ready,
    process::{Command, ExitCode},
};

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::Map;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_governor::GovernorLayer;
use tower_warden::{
    Identity, Quota, RateLimitLayer, RequireAuth, Role, Rule, UserId,
    limit::LimitHeaders,
    store::memory::{MemoryRateLimitStore, MemoryStore},
    token::{KeySet, SigningKey, TokenService},
};

#[cfg(feature = "tower-rate-limiter")]
use layers::tower_rate_limiter;
use layers::{
    CLIENTS, ENDLESS, answer, axum_governor, bare, request, tower_governor, tower_warden,
};

/// Who takes part, in groups; `bare` is what all of a group are compared with.
const CASES: &[&str] = &[
    "bare",
    "constants, two headers",
    "constants, five headers",
    "tower-warden, no headers",
    "tower-warden, two headers",
    "tower-warden, five headers",
    "tower_governor, no headers",
    "tower_governor, two headers",
    "axum-governor, five headers",
    #[cfg(feature = "tower-rate-limiter")]
    "tower-rate-limiter, two headers",
    "constants, refusing, five headers",
    "tower-warden, refusing, no headers",
    "tower-warden, refusing, five headers",
    "tower_governor, refusing, no headers",
    "tower_governor, refusing, two headers",
    "bare, with a token",
    "tower-warden, a token seen before",
    "tower-warden, a token and five headers",
];

fn main() -> ExitCode {
    match env::args().nth(1) {
        Some(case) => run(&case),
        None => {
            let mut figures = Map::new();
            for case in CASES {
                let instructions = count(case);
                println!("{case:40} {instructions:>9.0}");
                figures.insert((*case).into(), instructions.into());
            }
            figures::write("instructions", figures.into());
        }
    }
    ExitCode::SUCCESS
}

/// Instructions for one request, as valgrind counts them in a process of its own.
fn count(case: &str) -> f64 {
    let this = env::current_exe().expect("a path");
    let out = env::temp_dir().join(format!("instructions.{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=instructions::counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(this)
        .arg(case)
        .output()
        .expect("valgrind is installed");
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    let counted = fs::read_to_string(&out).expect("what callgrind wrote");
    let _ = fs::remove_file(&out);
    let total = counted.lines().find_map(|line| line.strip_prefix("summary: "));
    let total: f64 = total.and_then(|total| total.trim().parse().ok()).expect("a sum");
    total / CLIENTS as f64
}

/// The part that is counted.
#[inline(never)]
fn counted<S, B>(service: &mut S, request: impl Fn(usize) -> Request<Body>, clients: usize)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
{
    for number in 0..CLIENTS {
        drop(answer(service, request(number % clients)));
    }
}

/// Drives a service to which each client has come twice: the first time many are new, and what others
/// leave to do for those who come next is done in the second. The last response tells that it does what
/// the case says.
fn drive<S, B>(
    mut service: S,
    request: impl Fn(usize) -> Request<Body>,
    clients: usize,
    (status, headers): (StatusCode, usize),
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
{
    for number in (0..clients).chain(0..clients) {
        answer(&mut service, request(number));
    }
    let last = answer(&mut service, request(0));
    assert_eq!((last.status(), last.headers().len()), (status, headers));
    counted(&mut service, request, clients);
}

fn run(case: &str) {
    let ok = |headers| (StatusCode::OK, headers);
    let no = |headers| (StatusCode::TOO_MANY_REQUESTS, headers);
    let endless = || tower_warden(ENDLESS);
    match case {
        "bare" => drive(bare(), request, CLIENTS, ok(0)),
        "constants, two headers" => drive(constant(StatusCode::OK, 2), request, CLIENTS, ok(2)),
        "constants, five headers" => drive(constant(StatusCode::OK, 5), request, CLIENTS, ok(5)),
        "tower-warden, no headers" => {
            drive(endless().without_headers().layer(bare()), request, CLIENTS, ok(0));
        }
        "tower-warden, two headers" => {
            let layer = endless().with_headers(LimitHeaders::Draft);
            drive(layer.layer(bare()), request, CLIENTS, ok(2));
        }
        "tower-warden, five headers" => drive(endless().layer(bare()), request, CLIENTS, ok(5)),
        "tower_governor, no headers" => {
            let config = tower_governor(ENDLESS).finish().expect("a configuration");
            drive(GovernorLayer::new(config).layer(bare()), request, CLIENTS, ok(0));
        }
        "tower_governor, two headers" => {
            let config = tower_governor(ENDLESS).use_headers().finish().expect("a configuration");
            drive(GovernorLayer::new(config).layer(bare()), request, CLIENTS, ok(2));
        }
        "axum-governor, five headers" => {
            drive(axum_governor(ENDLESS).layer(bare()), request, CLIENTS, ok(5));
        }
        #[cfg(feature = "tower-rate-limiter")]
        "tower-rate-limiter, two headers" => {
            let layer = tower_rate_limiter(ENDLESS, tower_rate_limiter::RateLimitFields::Draft11);
            drive(layer.layer(bare()), request, CLIENTS, ok(2));
        }
        "constants, refusing, five headers" => {
            drive(constant(StatusCode::TOO_MANY_REQUESTS, 8), request, 1, no(8));
        }
        "tower-warden, refusing, no headers" => {
            drive(tower_warden(1).without_headers().layer(bare()), request, 1, no(3));
        }
        "tower-warden, refusing, five headers" => {
            drive(tower_warden(1).layer(bare()), request, 1, no(8));
        }
        "tower_governor, refusing, no headers" => {
            let config = tower_governor(1).finish().expect("a configuration");
            drive(GovernorLayer::new(config).layer(bare()), request, 1, no(2));
        }
        "tower_governor, refusing, two headers" => {
            let config = tower_governor(1).use_headers().finish().expect("a configuration");
            drive(GovernorLayer::new(config).layer(bare()), request, 1, no(4));
        }
        "bare, with a token" => drive(bare(), presented(&tokens()), CLIENTS, ok(0)),
        "tower-warden, a token seen before" => {
            let tokens = tokens();
            let request = presented(&tokens);
            drive(RequireAuth::new(tokens).layer(bare()), request, CLIENTS, ok(0));
        }
        "tower-warden, a token and five headers" => {
            let tokens = tokens();
            let request = presented(&tokens);
            let rule = Rule::per_user("user", Quota::per_hour(ENDLESS));
            let limit = RateLimitLayer::new(MemoryRateLimitStore::new(), rule);
            let stack = ServiceBuilder::new().layer(RequireAuth::new(tokens)).layer(limit);
            drive(stack.service(bare()), request, CLIENTS, ok(5));
        }
        _ => panic!("no case is named {case:?}; there are {CASES:?}"),
    }
}

/// What ours writes, as constants: the least that a layer with these headers can take.
const HEADERS: [(&str, &str); 8] = [
    ("ratelimit-policy", r#""ip";q=1000000000;w=3600"#),
    ("ratelimit", r#""ip";r=999999999;t=3600"#),
    ("x-ratelimit-limit", "1000000000"),
    ("x-ratelimit-remaining", "999999999"),
    ("x-ratelimit-reset", "1800000000"),
    ("content-type", "application/problem+json"),
    ("cache-control", "no-store"),
    ("retry-after", "3599"),
];

fn constant(
    status: StatusCode,
    headers: usize,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible> {
    let headers: Vec<_> = HEADERS[..headers]
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    service_fn(move |_: Request<Body>| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        for (name, value) in &headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        ready(Ok(response))
    })
}

fn tokens() -> TokenService {
    let pem = include_bytes!("../tests/support/keys/rsa-private.pem");
    let key = SigningKey::from_pem(pem).expect("a key");
    TokenService::new(KeySet::new(key), "https://id.example", "api", MemoryStore::default())
}

/// Each request with one of ten tokens, of some 700 bytes.
fn presented(tokens: &TokenService) -> impl Fn(usize) -> Request<Body> + use<> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let token = |user| {
        let caller = Identity::new(UserId::from(format!("user-{user}")), Role::EDITOR);
        let pair = runtime.block_on(tokens.issue(&caller)).expect("a token");
        HeaderValue::try_from(format!("Bearer {}", pair.access_token())).expect("a header")
    };
    let headers: Vec<_> = (0..10).map(token).collect();
    move |number| {
        let mut request = request(number);
        let token = headers[number % headers.len()].clone();
        request.headers_mut().insert(http::header::AUTHORIZATION, token);
        request
    }
}
