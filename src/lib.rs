//! Layers for [tower] that authenticate, authorize and rate-limit HTTP services, with the tokens, sessions,
//! accounts and API keys behind them.
//!
//! - [`RequireAuth`] asks who is calling (a Bearer token, an API key, or whatever you say) and answers 401.
//! - [`RequireRole`] and [`Require`] ask whether that caller may, and answer 403.
//! - [`RateLimitLayer`] counts by client address, by user, by plan or by what you say, and answers
//!   429. **Its limits hold in every window**: 100 a minute are never 199 around a boundary.
//! - [`TokenService`] issues, verifies, rotates and revokes tokens, and keeps sessions; [`UserService`] keeps accounts;
//!   [`ApiKeyService`] keys for machines; [`second_factor`] one-time codes. Each stands on a store that you choose.
//! - [`audit`] writes down who did what to which account; [`ObserveLayer`] puts a span around each request.
//!
//! # A protected API
//!
//! With axum (feature `axum`): a login that gives tokens, and a route for editors, limited per plan. Write
//! the stack from the outside in: who is it, how often, may they. A rule by user limits only requests whose caller is
//! known by then: the answer of a limited request has a `RateLimit` header.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::{Json, Router, body::Body, routing::{get, post}};
//! use http::{Request, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_warden::{
//!     Identity, PeerAddr, Plan, Problem, Quota, RateLimitLayer, RequireAuth, RequireRole, Role, Rule,
//!     TokenService, UserId,
//!     store::memory::{MemoryRateLimitStore, MemoryStore},
//!     token::{KeySet, SigningKey},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = KeySet::new(SigningKey::generate_ed25519()?);
//! let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
//! let auth = RequireAuth::new(tokens.clone());
//!
//! let users = Rule::per_user("user", Quota::per_minute(60))
//!     .with_plan(Plan::PAID, Quota::per_minute(600))
//!     .exempt_role(Role::ADMIN);
//! let strangers = Rule::per_ip("ip", Quota::per_minute(100)).when(|request| request.identity().is_none());
//! let limit = RateLimitLayer::new(MemoryRateLimitStore::new(), [users, strangers]);
//!
//! let app = Router::new()
//!     .route("/reports", get(async |caller: Identity| format!("Hello, {}!", caller.user_id())))
//!     .route_layer(
//!         ServiceBuilder::new()
//!             .layer(auth.identify_only()) // who is it; refuses nobody
//!             .layer(limit) // how often: 429
//!             .layer(auth) // strangers end here: 401
//!             .layer(RequireRole::any_of([Role::EDITOR, Role::ADMIN])), // viewers here: 403
//!     )
//!     // Yours asks for a password first: see UserService.
//!     .route("/login", post(async move || {
//!         let ada = Identity::new(UserId::from("ada"), Role::EDITOR).with_plan(Plan::PAID);
//!         Ok::<_, Problem>(Json(tokens.issue(&ada).await?))
//!     }));
//!
//! // A server gets peers from `into_make_service_with_connect_info::<SocketAddr>()`; here there is none.
//! let peer = PeerAddr::from(([203, 0, 113, 9], 4711));
//! let login = Request::post("/login").extension(peer).body(Body::empty())?;
//! let answer = app.clone().oneshot(login).await?;
//! let pair: serde_json::Value = serde_json::from_slice(&axum::body::to_bytes(answer.into_body(), 4096).await?)?;
//!
//! let bearer = format!("Bearer {}", pair["access_token"].as_str().ok_or("no token")?);
//! let reports = Request::get("/reports").extension(peer).header("authorization", bearer).body(Body::empty())?;
//! let answer = app.clone().oneshot(reports).await?;
//! assert_eq!(answer.status(), StatusCode::OK);
//! assert_eq!(answer.headers()["ratelimit"], r#""user";r=599;t=60"#);
//!
//! let stranger = Request::get("/reports").extension(peer).body(Body::empty())?;
//! assert_eq!(app.oneshot(stranger).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(()) }
//! ```
//!
//! The layers work around any `tower::Service` of `http` requests whose response bodies are
//! `http_body::Body<Data = Bytes>`: axum's, hyper's, tonic's. None adds an error of its own.
//!
//! # Where to go next
//!
//! | to | read |
//! | --- | --- |
//! | protect an API of yours, from nothing | [step by step](guide::step_by_step) |
//! | know what stands around what | [the order of layers](guide::order_of_layers) |
//! | stand behind nginx, HAProxy, Caddy, a load balancer | [client addresses](guide::client_addresses) |
//! | charge by plan, by weight, by failures | [plans and quotas](guide::plans_and_quotas), [bursts](guide::bursts), [sharing a limit](guide::sharing_a_limit) |
//! | handle forgotten passwords, changed addresses, ended sessions | [accounts for life](guide::accounts_for_life), [sessions and revocation](guide::sessions_and_revocation) |
//! | serve browsers | [browsers](guide::browsers) |
//! | see what happens: traces, metrics, an audit trail | [signals](guide::signals) |
//! | test your app; keep state elsewhere | [testing](guide::testing), [writing a store](guide::writing_a_store) |
//! | move from another crate | [coming from …](guide::coming_from) |
//!
//! [`auth`], [`limit`], [`token`] and [`user`] have the rules of each, and what a deployment must know. The
//! repository's `examples` hold one idea each, and `examples/server` a whole API.
//!
//! # Stores
//!
//! | | accounts, sessions, keys | limits | for |
//! | --- | --- | --- | --- |
//! | [`store::memory`] | `MemoryStore` | `MemoryRateLimitStore` | tests; limits in one process |
//! | `store::sqlite` | `SqliteStore` | | one machine |
//! | `store::postgres` | `PostgresStore` | | any number of servers |
//! | `store::redis` | | `RedisRateLimitStore` | any number of servers |
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
//! | `axum` | `ConnectInfo` as peer address; [`Identity`], [`ClientIp`] and [`Permitted`](auth::Permitted) as extractors, [`Problem`] as response | 1.88 |
//! | `sqlite` | accounts and sessions in SQLite | 1.94 |
//! | `postgres` | accounts and sessions in PostgreSQL | 1.94 |
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
//! and `serde_json`, which are stable, and of `axum`, `tonic` and `sqlx` (pools, and only in the
//! SQL stores) where their features are on: a new major version of one of these is one of this crate. Stores
//! are written with `async-trait`, whose macro expands to nothing but boxed futures. Keys are this
//! crate's own types ([`token::Jwk`]); nothing of `ring`, `aws-lc-rs`, `rustls`, `hyper`, `redis` or `smallvec` is
//! to be seen.
//!
//! [tower]: https://docs.rs/tower

#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
pub mod api_key;
pub mod audit;
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
pub mod observe;
mod origin;
mod problem;
mod refusal;
pub mod second_factor;
mod secret;
mod signals;
pub mod store;
pub mod token;
mod turns;
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
pub use observe::ObserveLayer;
pub use origin::Origin;
pub use problem::{Problem, ProblemCode, ResponseBody};
pub use refusal::{Refusal, RefusalAnswer, RefusalHook, RefusalReason};
pub use secret::{OpaqueToken, TokenHash};
#[cfg(feature = "metrics")]
pub use signals::{describe_metrics, metric_buckets};
pub use token::TokenService;
pub use user::UserService;
