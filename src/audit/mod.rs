//! Audit trail: who did what, whom to, when, from where, and what came of it.
//!
//! 1. An [`AuditEvent`] is written for each [`Act`] that changes an account, opens or ends a session, or
//!    was refused. Ordinary requests and refreshes are none: metrics and spans tell of those.
//! 2. Where they go says the [`AuditTrail`] of the store: into its table, the log, a [sink](AuditSink) of
//!    your own, or all of them. With none, nothing is written, and nothing is paid.
//! 3. In the table an event stands **in the transaction of its change** (in memory: under the same
//!    lock): no change without its event, no event without its change. Sinks hear of it once it is
//!    committed; a process that dies in between has it in the table alone.
//! 4. What failed has no change. Its event goes through a queue of 1024, and is written apart: a login
//!    is neither slowed nor failed by it. What doesn't fit is lost, and counted.
//! 5. Who and from where is taken from the [`Origin`](crate::Origin) that
//!    [`ObserveLayer`](crate::ObserveLayer) puts around requests.
//! 6. Nothing can be forged in it: what a client chose is its user agent alone, escaped and cut. No
//!    secret is in it, and no e-mail address: of a failed login at no account there is no trace of
//!    what was typed, which may have been a password.
//! 7. Who reads it finds users by their identifiers, also when they are deleted. It is personal data:
//!    delete what is too old ([`AuditLog::delete_events`]); nothing is deleted unasked, except that
//!    `MemoryStore` keeps the last 10,000 events only.
//! 8. What a limiter refuses is not looked at, and so no event: its metrics count it.
//! 9. A store of your own answers its trail (`audit_trail` of its contracts), and hands its changes to
//!    [`AuditTrail::note`] once they are committed. Into a table of its own it writes them itself.
//!
//! ```
//! use tower_warden::{
//!     Identity, Origin, Role, TokenService, UserId,
//!     audit::{Act, Actor, AuditFilter, AuditLog, AuditTrail},
//!     store::memory::MemoryStore,
//!     token::{KeySet, SigningKey},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let accounts = MemoryStore::new().with_audit(AuditTrail::new().with_table().with_log());
//! let keys = KeySet::new(SigningKey::generate_ed25519()?);
//! let tokens = TokenService::new(keys, "https://id.example", "api", accounts.clone());
//!
//! let ada = Identity::new(UserId::from("ada"), Role::EDITOR).with_amr(["pwd"]);
//! tokens.issue(&ada).await?;
//! // In a server ObserveLayer does this.
//! let admin = Identity::new(UserId::from("grace"), Role::ADMIN);
//! let here = Origin::new().with_ip([203, 0, 113, 9].into()).by(admin);
//! here.scope(tokens.logout_all(ada.user_id())).await?;
//!
//! let events = accounts.events(&AuditFilter::new(10).about(ada.user_id())).await?;
//! assert_eq!(events[0].act, Act::LOGOUT_ALL);
//! assert_eq!(events[0].actor.user().unwrap().as_str(), "grace");
//! assert_eq!(events[0].ip.unwrap().to_string(), "203.0.113.9");
//! assert_eq!(events[1].act, Act::LOGIN);
//! assert_eq!(events[1].detail.as_deref(), Some("pwd"));
//! assert_eq!(events[1].actor, Actor::Program); // nothing said where it came from
//! # Ok(()) }
//! ```

mod act;
mod event;
mod log;
mod sink;
mod trail;

pub use act::Act;
pub use event::{Actor, AuditEvent, Outcome};
pub use log::{AuditFilter, AuditLog};
pub use sink::AuditSink;
pub use trail::AuditTrail;
pub(crate) use trail::WriteEvents;
