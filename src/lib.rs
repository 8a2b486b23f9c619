//! Composable tower layers that authenticate, authorize and rate-limit HTTP services.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
pub mod auth;
mod client_ip;
mod clock;
mod error;
mod head;
mod identity;
pub mod json;
pub mod limit;
mod problem;
mod secret;
pub mod store;
pub mod token;
pub mod user;

pub use answer::{Answer, AnswerFuture};
pub use auth::{RequireAuth, RequireRole};
pub use client_ip::{
    ClientIp, ForwardedHeader, InvalidNetwork, NoPeerAddr, PeerAddr, TrustedProxies,
};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use error::StoreError;
pub use head::RequestHead;
pub use identity::{Identity, Plan, Role, UserId};
pub use limit::{Quota, RateLimitLayer};
pub use problem::{Problem, ProblemCode, ResponseBody};
pub use secret::{OpaqueToken, TokenHash};
