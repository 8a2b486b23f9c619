//! Composable tower layers that authenticate, authorize and rate-limit HTTP services.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod client_ip;
mod clock;
mod error;
mod identity;
pub mod json;
pub mod limit;
mod secret;
pub mod store;
pub mod token;
pub mod user;

pub use answer::{Answer, AnswerFuture};
pub use client_ip::{
    ClientIp, ForwardedHeader, InvalidNetwork, NoPeerAddr, PeerAddr, TrustedProxies,
};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use error::StoreError;
pub use identity::{Identity, Plan, Role, UserId};
pub use limit::Quota;
pub use secret::{OpaqueToken, TokenHash};
