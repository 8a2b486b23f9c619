//! What is known of a key.

use std::{fmt, sync::Arc, time::SystemTime};

use crate::{Identity, Role, TokenHash, UserId, identity::API_KEY_CLAIM};

/// The identifier of a key: not the key. Cheap to clone.
///
/// ```
/// use tower_warden::{Identity, Require, Role, UserId, api_key::ApiKeyId};
/// // Lets people pass, and no keys:
/// let in_person = Require::that(|caller| ApiKeyId::of(caller).is_none());
///
/// let person = Identity::new(UserId::from("ada"), Role::EDITOR);
/// assert_eq!(ApiKeyId::of(&person), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApiKeyId(Arc<str>);

impl ApiKeyId {
    /// A new one: a UUID (version 4).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string().into())
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// By which key a caller came in; `None` for one who came otherwise.
    #[must_use]
    pub fn of(caller: &Identity) -> Option<Self> {
        let id = caller.claims().get(API_KEY_CLAIM)?;
        // Another type would be a claim of another issuer's; it is better taken for a key's too.
        Some(Self(id.as_str().unwrap_or_default().into()))
    }

    /// The same caller, who came in by this key.
    pub(super) fn mark(&self, caller: Identity) -> Identity {
        caller.with_claim(API_KEY_CLAIM, self.as_str()).with_token_id(self.as_str())
    }
}

impl From<&str> for ApiKeyId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for ApiKeyId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key as its owner sees it in a list.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_warden::{Role, UserId, api_key::{ApiKey, ApiKeyId}};
/// let (now, owner) = (SystemTime::now(), UserId::from("ada"));
/// let mut key =
///     ApiKey::new(ApiKeyId::random(), owner, "backup".into(), "wdn_3f8s".into(), Role::VIEWER, now);
/// key.expires_at = Some(now + Duration::from_secs(60));
/// assert!(!key.is_expired(now) && key.is_expired(now + Duration::from_secs(60)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ApiKey {
    /// The identifier, by which it is revoked: no secret.
    pub id: ApiKeyId,
    /// As whom it acts.
    pub owner: UserId,
    /// What its owner calls it.
    pub name: String,
    /// How it begins: the configured prefix and 8 more characters.
    pub prefix: String,
    /// What it may do at most.
    pub role: Role,
    /// When it was made.
    pub created_at: SystemTime,
    /// From when on it is worth nothing; `None`: never.
    pub expires_at: Option<SystemTime>,
    /// When it was last used, true to a minute; `None`: never.
    pub last_used_at: Option<SystemTime>,
}

impl ApiKey {
    /// A key that has no end and was never used.
    #[must_use]
    pub fn new(
        id: ApiKeyId,
        owner: UserId,
        name: String,
        prefix: String,
        role: Role,
        created_at: SystemTime,
    ) -> Self {
        Self { id, owner, name, prefix, role, created_at, expires_at: None, last_used_at: None }
    }

    /// Whether it is past its time.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }
}

/// What a user wants of a key.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_warden::{Role, api_key::KeyRequest};
/// let in_a_month = SystemTime::now() + Duration::from_secs(30 * 86_400);
/// let request = KeyRequest::new("backup").with_role(Role::VIEWER).with_expires_at(in_a_month);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyRequest {
    /// What the key is called.
    pub name: String,
    /// What it may do at most; `None`: what its owner may do when it is made.
    pub role: Option<Role>,
    /// From when on it is worth nothing; `None`: never.
    pub expires_at: Option<SystemTime>,
}

impl KeyRequest {
    /// A key of this name, with the owner's role and without an end.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), role: None, expires_at: None }
    }

    /// The same that may do no more than this role.
    #[must_use]
    pub fn with_role(self, role: Role) -> Self {
        Self { role: Some(role), ..self }
    }

    /// The same that ends then.
    #[must_use]
    pub fn with_expires_at(self, at: SystemTime) -> Self {
        Self { expires_at: Some(at), ..self }
    }
}

/// A key to add to a store.
///
/// ```
/// use tower_warden::{TokenHash, api_key::{ApiKey, ApiKeyId, NewApiKey}};
/// # use tower_warden::{Role, UserId};
/// # let (id, owner) = (ApiKeyId::random(), UserId::from("ada"));
/// # let now = std::time::SystemTime::now();
/// # let key = ApiKey::new(id, owner, "backup".into(), "wdn_3f8s".into(), Role::VIEWER, now);
/// let new = NewApiKey::new(key, TokenHash::of("wdn_3f8s…"));
/// assert_eq!(new.hash, TokenHash::of("wdn_3f8s…")); // all that is kept of its text
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewApiKey {
    /// What its owner will see of it.
    pub key: ApiKey,
    /// The hash by which it is found.
    pub hash: TokenHash,
}

impl NewApiKey {
    /// A key, and the hash by which it is found.
    #[must_use]
    pub fn new(key: ApiKey, hash: TokenHash) -> Self {
        Self { key, hash }
    }
}

/// What a store knows of a key that was presented.
///
/// ```
/// use tower_warden::{Identity, Role, UserId, api_key::{ApiKey, ApiKeyId, FoundKey}};
/// # let (id, ada) = (ApiKeyId::random(), UserId::from("ada"));
/// # let now = std::time::SystemTime::now();
/// # let key = ApiKey::new(id, ada.clone(), "backup".into(), "wdn_3f8s".into(), Role::VIEWER, now);
/// let found = FoundKey::new(key, false, Some(Identity::new(ada, Role::EDITOR)));
/// assert!(!found.revoked && found.owner.is_some()); // good, with the lesser of both roles
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FoundKey {
    /// The key.
    pub key: ApiKey,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Who the owner is now, with role and plan; `None` for one who is gone or suspended.
    pub owner: Option<Identity>,
}

impl FoundKey {
    /// A key as it stands.
    #[must_use]
    pub fn new(key: ApiKey, revoked: bool, owner: Option<Identity>) -> Self {
        Self { key, revoked, owner }
    }
}
