//! The gate of a [tower]: layers that authenticate, authorize and rate-limit HTTP services, with
//! the token service and the user store behind them.
//!
//! - [`RequireAuth`] asks who is calling (a Bearer token, or whatever you say) and answers 401.
//! - [`RequireRole`] asks whether that caller may, and answers 403.
//! - [`RateLimitLayer`] counts by client address, by user, by plan or by what you say, and answers
//!   429. **Its limits hold in every window**: 100 a minute are never 199 around a boundary.
//! - [`TokenService`] issues, verifies, rotates and revokes tokens; [`UserService`] registers users,
//!   checks passwords and proves addresses. Each stands on a store that you choose.
//!
//! The layers work around any `tower::Service` of `http` requests whose response bodies are
//! `http_body::Body<Data = Bytes>`: axum's, hyper's, tonic's. None adds an error of its own.
//!
//! # A protected API
//!
//! Write the stack from the outside in: who is it, how often, may they.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Empty;
//! use tower_warden::{
//!     Identity, Plan, Quota, RateLimitLayer, RequireAuth, RequireRole, Role, Rule, TokenService,
//!     UserId,
//!     store::memory::{MemoryRateLimitStore, MemoryStore},
//!     token::{KeySet, SigningKey},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = KeySet::new(SigningKey::generate_ed25519()?);
//! let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::default());
//! let per_plan = Rule::per_user("user", Quota::per_minute(60))
//!     .with_plan(Plan::PAID, Quota::per_minute(600))
//!     .exempt_role(Role::ADMIN);
//!
//! let service = ServiceBuilder::new()
//!     .layer(RequireAuth::new(tokens.clone()))
//!     .layer(RateLimitLayer::new(MemoryRateLimitStore::new(), [per_plan]))
//!     .layer(RequireRole::any_of([Role::EDITOR, Role::ADMIN]))
//!     .service(service_fn(async |_: Request<()>| Ok::<_, &str>(Response::new(Empty::new()))));
//!
//! let ada = Identity::new(UserId::random(), Role::EDITOR).with_plan(Plan::PAID);
//! let pair = tokens.issue(&ada).await?;
//! let request = Request::get("/").header("authorization", format!("Bearer {}", pair.access_token()));
//! let response = service.clone().oneshot(request.body(())?).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers()["ratelimit"], r#""user";r=599;t=60"#);
//!
//! let response = service.oneshot(Request::get("/").body(())?).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! # Ok(()) }
//! ```
//!
//! [`auth`], [`limit`], [`token`] and [`user`] tell the rules of each, and what a deployment must
//! know. The repository's `examples/server` assembles an API of fifteen endpoints from them.
//!
//! # Stores
//!
//! | | users | refresh tokens | limits |
//! | --- | --- | --- | --- |
//! | [`store::memory`] | for tests | for tests | one process |
//! | `store::sqlite` | one machine | one machine | |
//! | `store::postgres` | any number of servers | any number of servers | |
//! | `store::redis` | | | any number of servers |
//!
//! Others implement [`UserStore`](user::UserStore), [`TokenStore`](token::TokenStore) or
//! [`RateLimitStore`](limit::RateLimitStore).
//!
//! # Features
//!
//! None is on by default, and each only adds.
//!
//! | feature | adds | Rust |
//! | --- | --- | --- |
//! | `axum` | `ConnectInfo` as peer address, [`Identity`] as extractor, [`Problem`] as response | 1.88 |
//! | `sqlite` | users and refresh tokens in SQLite | 1.94 |
//! | `postgres` | users and refresh tokens in PostgreSQL | 1.94 |
//! | `redis` | limits in Redis, Redis Cluster, behind Sentinel | 1.88 |
//! | `smtp` | mail over SMTP, and as files | 1.88 |
//! | `metrics` | counters and latencies through the `metrics` facade | 1.88 |
//! | `aws-lc-rs` | signatures by aws-lc-rs instead of ring; generation of RSA keys | 1.88 |
//! | `tls` | TLS, by rustls, for those of `postgres`, `redis` and `smtp` that are on | 1.88 |
//! | `jwks` | tokens of other issuers, whose keys are fetched over HTTPS | 1.88 |
//! | `tonic` | tonic's connections as peer addresses, its status codes | 1.88 |
//! | `full` | all of them | 1.94 |
//!
//! # Types of other crates
//!
//! Public signatures name types of `http`, `http-body`, `bytes`, `tower-layer`, `tower-service`, `serde`
//! and `serde_json`, which are stable, and of `axum`, `tonic` and `sqlx` (pools, and only in its own
//! wings) where their features are on: a new major version of one of these is one of this crate. Stores
//! are written with `async-trait`, whose macro expands to nothing but boxed futures. Keys are this
//! crate's own types ([`token::Jwk`]); nothing of `ring`, `aws-lc-rs`, `rustls`, `hyper` or `smallvec` is
//! to be seen.
//!
//! [tower]: https://docs.rs/tower

#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
pub mod api_key;
pub mod auth;
pub mod client_ip;
mod clock;
mod drain;
mod error;
#[cfg(feature = "axum")]
mod extract;
pub mod grpc;
#[cfg(any(doc, doctest))]
pub mod guide;
mod head;
mod identity;
mod json;
pub mod limit;
mod new_file;
mod problem;
mod refusal;
pub mod second_factor;
mod secret;
mod signals;
pub mod store;
pub mod token;
pub mod user;

/// The README's programs are compiled with the tests.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub use answer::{Answer, AnswerFuture};
pub use api_key::ApiKeyService;
pub use auth::{Require, RequireAuth, RequireRole};
pub use client_ip::{ClientIp, ForwardedHeader, NoPeerAddr, PeerAddr, TrustedProxies};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use drain::{DrainLayer, DrainService, DrainedBody};
pub use error::StoreError;
pub use head::RequestHead;
pub use identity::{ClaimsError, Identity, Plan, Role, UserId};
pub use limit::{Key, Quota, RateLimitLayer, RateLimiter, Rule};
pub use problem::{Problem, ProblemCode, ResponseBody};
pub use refusal::{Refusal, RefusalAnswer, RefusalHook, RefusalReason};
pub use secret::{OpaqueToken, TokenHash};
#[cfg(feature = "metrics")]
pub use signals::describe_metrics;
pub use token::TokenService;
pub use user::UserService;
