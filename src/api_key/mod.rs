//! API keys: how machines come in, on behalf of a user.
//!
//! An [`ApiKeyService`] makes, lists, revokes and recognizes keys, over an [`ApiKeyStore`] of your
//! choice. Its rules:
//!
//! 1. A key is a prefix and 40 random letters and digits, of which the last 6 are a checksum of the
//!    34 before: `wdn_…`. So a scanner for leaked secrets knows one without asking, and what merely
//!    looks like one costs no look-up. It is shown once. Stores keep its SHA-256: what is random needs no
//!    slow hash.
//! 2. A key acts as its owner, with the lesser of its own role and the owner's role now, and with the
//!    owner's plan. The owner's limits count it. Where the owner is gone or suspended it is revoked.
//! 3. What was found is remembered for less than a second. So whatever changes about a key or its owner
//!    counts within a second on every server, at the cost of one query a second for each key that is in
//!    use. On the server that made the change it counts at once: [`ApiKeyService::revoke`] sees to it, and
//!    after other changes [`ApiKeyService::forget`] does.
//!    Keys that were never seen are looked up four at a time: whoever sends forged ones in great number
//!    leaves the store's connections to others. Clients take turns at it, by their address, where an
//!    [`ObserveLayer`](crate::ObserveLayer) stands outside and says it.
//! 4. While the store fails, keys are good that it knew within the last minute, as they were then. About
//!    others it can't be said: 503. One that is known to be revoked stays so.
//! 5. `last_used_at` is true to a minute, at the cost of one write a minute for each key in use.
//! 6. A key that was revoked is remembered by the store, so that its holder is told why; that ends with
//!    [`ApiKeyService::delete_revoked`]. One past its time stays listed until its owner revokes it.
//!
//! Keys are presented as Bearer tokens; an `ApiKeyService` answers
//! [`Authenticate`](crate::auth::Authenticate). What they must not reach is the application's to say: the
//! identity of a key's request has an [`ApiKeyId`] ([`ApiKeyId::of`]), that of a person's has none. Keys
//! should never manage keys, passwords or accounts.
//!
//! ```
//! use tower_warden::{
//!     Identity, ManualClock, Plan, Role,
//!     api_key::{ApiKeyError, ApiKeyId, ApiKeyService, KeyRequest},
//!     store::memory::MemoryStore,
//!     user::{Email, NewUser, PasswordHash, UserStore},
//! };
//! # use std::{sync::Arc, time::Duration};
//! # use tower_warden::{Clock, UserId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (store, clock) = (MemoryStore::new(), ManualClock::new());
//! let keys = ApiKeyService::new(store.clone()).with_clock(Arc::new(clock.clone()));
//! # let hash = PasswordHash::from("$2b$12$…".to_owned());
//! # let ada = NewUser::new(Email::parse("ada@example.com")?, hash, clock.now());
//! # let ada = ada.with_role(Role::EDITOR);
//! # let ada = store.create(ada).await?;
//! let ada = Identity::new(ada.id, ada.role); // an editor, who has logged in
//!
//! let request = KeyRequest::new("nightly import").with_role(Role::VIEWER);
//! let (key, secret) = keys.create(&ada, request).await?;
//! assert!(secret.expose().starts_with(key.prefix.as_str()));
//!
//! let caller = keys.verify(secret.expose()).await?;
//! assert_eq!((caller.user_id(), caller.role()), (ada.user_id(), &Role::VIEWER));
//! assert_eq!(ApiKeyId::of(&caller), Some(key.id.clone()));
//!
//! assert!(keys.revoke(ada.user_id(), &key.id).await?);
//! assert!(matches!(keys.verify(secret.expose()).await, Err(ApiKeyError::Revoked)));
//! assert!(matches!(keys.verify("wdn_0123").await, Err(ApiKeyError::Invalid(_))));
//! # Ok(())
//! # }
//! ```

mod error;
mod form;
mod key;
mod seen;
mod service;
mod store;

pub use error::{ApiKeyError, CreateKeyError, KeyObjection};
pub use form::ApiKeySecret;
pub use key::{ApiKey, ApiKeyId, FoundKey, KeyRequest, NewApiKey};
pub use service::ApiKeyService;
pub use store::{ApiKeyStore, KeyUse};
