//! What a client is given: an access token, or a pair.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeStruct};
use zeroize::Zeroizing;

use super::{FamilyId, RefreshToken};

/// What a client gets: an access token for each request, a refresh token for the next pair. Both
/// are wiped when dropped.
///
/// It serializes as the body of a successful token response (RFC 6749, section 5.1), which is to be
/// sent with `Cache-Control: no-store`:
///
/// ```json
/// {"access_token": "…", "token_type": "Bearer", "expires_in": 900, "refresh_token": "…"}
/// ```
pub struct TokenPair {
    pub(super) access_token: Zeroizing<String>,
    pub(super) expires_in: Duration,
    pub(super) refresh_token: RefreshToken,
    pub(super) refresh_expires_at: SystemTime,
    pub(super) session: FamilyId,
}

/// An access token alone. It is wiped when dropped, and serializes as a token response without a
/// refresh token (RFC 6749, section 4.4.3).
///
/// ```
/// use tower_warden::{Identity, Role, TokenService, UserId, token::{KeySet, SigningKey}};
/// # use tower_warden::store::memory::MemoryStore;
/// # let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// # let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
/// let robot = Identity::new(UserId::from("nightly"), Role::VIEWER).with_claim("scope", "reports:read");
/// let token = tokens.issue_access(&robot)?;
/// assert!(tokens.verify(token.expose())?.scopes().any(|scope| scope == "reports:read"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AccessToken {
    pub(super) token: Zeroizing<String>,
    pub(super) expires_in: Duration,
}

impl TokenPair {
    /// The access token, for the `Authorization` header of each request.
    #[must_use]
    pub fn access_token(&self) -> &str {
        &self.access_token
    }

    /// How long the access token lives, from now on.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }

    /// The refresh token, good for one [`refresh`](crate::TokenService::refresh).
    #[must_use]
    pub fn refresh_token(&self) -> &RefreshToken {
        &self.refresh_token
    }

    /// When the refresh token ends, if it is not used before.
    #[must_use]
    pub fn refresh_expires_at(&self) -> SystemTime {
        self.refresh_expires_at
    }

    /// The session that both tokens are of: the `sid` of the access token.
    #[must_use]
    pub fn session_id(&self) -> &str {
        self.session.as_str()
    }
}

impl AccessToken {
    /// The token, for the `Authorization` header.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.token
    }

    /// How long it lives, from now on.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }
}

impl Serialize for AccessToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut token = serializer.serialize_struct("AccessToken", 3)?;
        token.serialize_field("access_token", &**self.token)?;
        token.serialize_field("token_type", "Bearer")?;
        token.serialize_field("expires_in", &self.expires_in.as_secs())?;
        token.end()
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl Serialize for TokenPair {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pair = serializer.serialize_struct("TokenPair", 4)?;
        pair.serialize_field("access_token", &**self.access_token)?;
        pair.serialize_field("token_type", "Bearer")?;
        pair.serialize_field("expires_in", &self.expires_in.as_secs())?;
        pair.serialize_field("refresh_token", self.refresh_token.expose())?;
        pair.end()
    }
}

impl fmt::Debug for TokenPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPair")
            .field("expires_in", &self.expires_in)
            .field("refresh_expires_at", &self.refresh_expires_at)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
