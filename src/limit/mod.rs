//! The turnstile.

mod decision;
mod quota;
mod store;

pub use decision::Decision;
pub use quota::{InvalidQuota, Quota};
pub use store::{Decisions, Hold, Key, Mark, RateLimitStore, Take, Taken};
