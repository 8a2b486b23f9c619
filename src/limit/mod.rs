//! The turnstile.

mod decision;
mod quota;
mod store;
mod window;

pub use decision::Decision;
pub use quota::{InvalidQuota, Quota};
pub use store::{Decisions, Hold, Key, Mark, RateLimitStore, Take, Taken};
pub use window::{IN_FLIGHT, Log, RESOLUTION};
