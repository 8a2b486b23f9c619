//! Access and refresh tokens: access tokens are verified without asking anyone, refresh tokens are kept
//! in a store, a session each.
//!
//! Access tokens are JWTs (RFC 9068), verified strictly:
//!
//! 1. Exactly three canonical base64url parts, 8 KiB at most; no member twice in header or claims.
//! 2. The header's `kid` picks one of a few known keys. The algorithm is the key's, and `alg` must
//!    say so: RS256, ES256 or EdDSA. `typ` is `at+jwt`. A header that brings a key of its own (`jwk`,
//!    `jku`, `x5c`, …) or changes the rules (`crit`, `b64`) is refused.
//! 3. The signature is checked before any claim. An expired forgery is a forgery.
//! 4. `iss` is ours, `aud` names us; `sub`, `role`, `jti` and `sid` are text, and so is `plan` if it
//!    is there; `amr` is a list of texts; `iat`, `exp`, `auth_time` and `nbf` are whole seconds. A token from more than a minute in the future
//!    is refused, and so is one that lives longer than any of ours.
//! 5. From the second of its `exp` on it is expired, without leeway unless configured.
//!
//! What was verified is remembered until it is expired, so that the next request with the same token
//! costs no signature. What ends a session ends its access tokens: at once in this process, and within
//! a second on every server that [follows](TokenService::follow_revocations) ([`Revocations`]).
//!
//! Refresh tokens are random, and stored as hashes. A login opens a family of them, the session.
//! Each refresh replaces the one live token; a token presented a second time ends its family, because
//! somebody else has it too (RFC 9700, section 4.14.2). A client must therefore not send one twice:
//! after a lost answer its user logs in again, unless [a leeway](TokenService::with_refresh_leeway) is
//! set. Who the user is and may do is read afresh each time.
//!
//! **A deployment** keeps the private key readable to the server only ([`SigningKey`]), gives all
//! its servers the same keys, issuer and audience, and calls [`TokenService::delete_expired`] now
//! and then. Signing with RSA takes up to a millisecond of a core, twice what it takes with the feature
//! `aws-lc-rs`; everything else takes some hundredths of that.
//!
//! ```
//! use tower_warden::{
//!     Identity, ManualClock, Role, UserId,
//!     store::memory::MemoryStore,
//!     token::{KeySet, SigningKey, TokenError, TokenService},
//! };
//! use std::{sync::Arc, time::Duration};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = ManualClock::new();
//! let keys = KeySet::new(SigningKey::generate_ed25519()?);
//! let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::default())
//!     .with_clock(Arc::new(clock.clone()));
//!
//! // A login: the caller has proved who it is.
//! let ada = Identity::new(UserId::from("ada"), Role::EDITOR);
//! let pair = tokens.issue(&ada).await?;
//! assert_eq!(tokens.verify(pair.access_token())?.role(), &Role::EDITOR);
//!
//! // A quarter of an hour later the access token is expired, and is refreshed. Ada is admin now.
//! clock.advance(Duration::from_secs(15 * 60));
//! assert!(matches!(tokens.verify(pair.access_token()), Err(TokenError::Expired)));
//! let look_up = async |id: UserId| Ok(Some(Identity::new(id, Role::ADMIN)));
//! let next = tokens.refresh(pair.refresh_token().expose(), look_up).await?;
//! assert_eq!(tokens.verify(next.access_token())?.role(), &Role::ADMIN);
//!
//! // The old refresh token again: stolen, by one or the other. The session ends.
//! assert!(tokens.refresh(pair.refresh_token().expose(), look_up).await.is_err());
//! assert!(tokens.refresh(next.refresh_token().expose(), look_up).await.is_err());
//! # Ok(())
//! # }
//! ```

mod acts;
mod backend;
mod claims;
mod der;
mod error;
mod family;
mod feed;
mod foreign;
mod hs256;
mod jwk;
mod key_files;
mod key_set;
mod keys;
mod pair;
mod revocation;
mod seal;
mod service;
mod session;
mod store;
mod verified;

pub(crate) use acts::act_of;
pub use error::{InvalidRefresh, KeyError, KeyFileError, RefreshError, TokenError};
pub use family::{
    Family, FamilyId, RefreshToken, RevokeReason, StoredToken, Verdict, judge, token_expiry,
};
pub use feed::{Following, RevocationFeed};
pub use foreign::{ClaimMapping, TokenVerifier};
#[cfg(feature = "jwks")]
pub(crate) use foreign::{ForeignKeys, UNKNOWN_KEY};
pub use hs256::{Hs256Bridge, WeakSecret};
pub use jwk::{Algorithm, Jwk, Jwks};
pub use key_set::KeySet;
pub use keys::{SigningKey, VerifyingKey};
pub use pair::{AccessToken, TokenPair};
pub use revocation::{Revocation, Revocations, Revoked};
pub use seal::Sealed;
pub use service::TokenService;
pub use session::{NewSession, Session, SessionInfo};
pub use store::{
    NewFamily, Opening, PresentedToken, RenewRequest, Renewed, RotateRequest, Rotation, Sealing,
    TokenStore,
};
