//! Who is calling: the words that all rooms share.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// In the extensions of a request whose caller was asked for, and isn't known.
#[derive(Clone, Copy)]
pub(crate) struct Unknown;

/// The identifier of a user, as the store or the token's `sub` has it: opaque text.
///
/// Cheap to clone. [`UserId::random`] makes a UUID (version 4).
///
/// ```
/// use tower_warden::UserId;
/// assert_eq!(UserId::from("42").as_str(), "42");
/// assert_eq!(UserId::random().as_str().len(), 36);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// A new, unguessable identifier.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string().into())
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a UUID in its one canonical form (RFC 9562, section 4): lower case, with
    /// hyphens, as [`random`](Self::random) makes them.
    ///
    /// ```
    /// use tower_warden::UserId;
    /// assert!(UserId::random().is_uuid());
    /// assert!(!UserId::from("42").is_uuid());
    /// assert!(!UserId::from("0B6BBA26-6D09-4B0C-A2F8-7A6F3A7A4D77").is_uuid());
    /// ```
    #[must_use]
    pub fn is_uuid(&self) -> bool {
        let canonical = |id: uuid::Uuid| *id.hyphenated().encode_lower(&mut [0; 36]) == *self.0;
        uuid::Uuid::try_parse(&self.0).is_ok_and(canonical)
    }
}

impl From<&str> for UserId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for UserId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As text.
impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// By which claim the identity of an API key's request says which key it was.
pub(crate) const API_KEY_CLAIM: &str = "api_key";

/// Text with a meaning of its own, with constants for the values known here: [`Role`], [`Plan`].
macro_rules! open_value {
    ($(#[$doc:meta])* $name:ident { $($(#[$const_doc:meta])* $constant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(Cow<'static, str>);

        impl $name {
            $($(#[$const_doc])* pub const $constant: Self = Self(Cow::Borrowed($text));)*

            /// A value of your own, for a constant.
            #[must_use]
            pub const fn from_static(text: &'static str) -> Self {
                Self(Cow::Borrowed(text))
            }

            /// The text of it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            /// Known values are borrowed, so that the usual ones cost no allocation.
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$constant,)*
                    _ => Self(Cow::Owned(text.to_owned())),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match &*text {
                    $($text => Self::$constant,)*
                    _ => Self(Cow::Owned(text)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        /// As text.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<str>::deserialize(deserializer).map(|text| Self::from(&*text))
            }
        }
    };
}

open_value! {
    /// What a caller may do: an open value, of which three are named here.
    ///
    /// Roles have no order. Which of them pass is said where they are required, so one that nobody
    /// named never passes.
    ///
    /// ```
    /// use tower_warden::Role;
    /// const AUDITOR: Role = Role::from_static("auditor");
    /// assert_eq!(Role::from("auditor"), AUDITOR);
    /// assert_ne!(AUDITOR, Role::ADMIN);
    /// ```
    Role {
        /// Reads.
        VIEWER = "viewer",
        /// Reads and writes.
        EDITOR = "editor",
        /// Does everything.
        ADMIN = "admin",
    }
}

open_value! {
    /// What a caller pays for: an open value, of which three are named here.
    ///
    /// ```
    /// use tower_warden::Plan;
    /// assert_eq!(Plan::from("paid"), Plan::PAID);
    /// assert_eq!(Plan::from(String::from("team")), Plan::from("team"));
    /// ```
    Plan {
        /// Pays nothing.
        FREE = "free",
        /// Pays.
        PAID = "paid",
        /// Pays most.
        ENTERPRISE = "enterprise",
    }
}

pub(crate) use open_value;

/// An authenticated caller, as [`RequireAuth`](crate::RequireAuth) puts it into the extensions of
/// a request. Cheap to clone.
///
/// ```
/// use serde::Deserialize;
/// use tower_warden::{Identity, Plan, Role, UserId};
///
/// let caller = Identity::new(UserId::from("42"), Role::EDITOR)
///     .with_plan(Plan::PAID)
///     .with_claim("tenant", "acme");
/// assert_eq!(caller.user_id().as_str(), "42");
/// assert_eq!(caller.plan(), Some(&Plan::PAID));
///
/// #[derive(Deserialize)]
/// struct Further<'a> {
///     tenant: &'a str,
/// }
/// let further: Further<'_> = caller.claims_as()?;
/// assert_eq!(further.tenant, "acme");
///
/// // As JSON, with times in seconds since 1970: into a cache, say, or to another service.
/// let text = serde_json::to_string(&caller)?;
/// assert_eq!(text, r#"{"user_id":"42","role":"editor","plan":"paid","claims":{"tenant":"acme"}}"#);
/// assert_eq!(serde_json::from_str::<Identity>(&text)?, caller);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(#[serde(with = "shared")] Arc<Caller>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Caller {
    user_id: UserId,
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_id: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_id: Option<Box<str>>,
    #[serde(default, with = "seconds", skip_serializing_if = "Option::is_none")]
    auth_time: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    amr: Vec<String>,
    #[serde(default, with = "seconds", skip_serializing_if = "Option::is_none")]
    issued_at: Option<SystemTime>,
    #[serde(default, with = "seconds", skip_serializing_if = "Option::is_none")]
    expires_at: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    claims: Map<String, Value>,
}

/// The claims of a caller are not what they were asked for as.
#[derive(Debug, thiserror::Error)]
#[error("the claims are of another form")]
pub struct ClaimsError(#[source] serde_json::Error);

impl Identity {
    /// A caller with a role and nothing else.
    #[must_use]
    pub fn new(user_id: UserId, role: Role) -> Self {
        Self(Arc::new(Caller {
            user_id,
            role,
            plan: None,
            session_id: None,
            token_id: None,
            auth_time: None,
            amr: Vec::new(),
            issued_at: None,
            expires_at: None,
            epoch: None,
            claims: Map::new(),
        }))
    }

    /// The same caller with a plan.
    #[must_use]
    pub fn with_plan(self, plan: Plan) -> Self {
        self.change(|caller| caller.plan = Some(plan))
    }

    /// The same caller, who proved who it is in this epoch of its account (`user::User::epoch`): if
    /// that has passed, [`TokenService::issue`](crate::TokenService::issue) opens no session. Access
    /// tokens don't say it.
    #[must_use]
    pub fn with_epoch(self, epoch: u64) -> Self {
        self.change(|caller| caller.epoch = Some(epoch))
    }

    pub(crate) fn epoch(&self) -> Option<u64> {
        self.0.epoch
    }

    /// The same caller, in this session (`sid`).
    #[must_use]
    pub fn with_session_id(self, id: impl Into<Box<str>>) -> Self {
        self.change(|caller| caller.session_id = Some(id.into()))
    }

    /// The same caller, known by the token of this identifier (`jti`).
    #[must_use]
    pub fn with_token_id(self, id: impl Into<Box<str>>) -> Self {
        self.change(|caller| caller.token_id = Some(id.into()))
    }

    /// The same caller, who proved who it is at that moment (`auth_time`).
    #[must_use]
    pub fn with_auth_time(self, at: SystemTime) -> Self {
        self.change(|caller| caller.auth_time = Some(at))
    }

    /// The same caller, who proved who it is by these methods: words of RFC 8176, as `pwd` for a
    /// password and `otp` for a one-time code.
    #[must_use]
    pub fn with_amr(self, methods: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let methods = methods.into_iter().map(Into::into).collect();
        self.change(|caller| caller.amr = methods)
    }

    /// The same caller, by a token that was issued then (`iat`).
    #[must_use]
    pub fn with_issued_at(self, at: SystemTime) -> Self {
        self.change(|caller| caller.issued_at = Some(at))
    }

    /// The same caller, known until then.
    #[must_use]
    pub fn with_expires_at(self, at: SystemTime) -> Self {
        self.change(|caller| caller.expires_at = Some(at))
    }

    /// The same caller with these further claims in place of those it had.
    #[must_use]
    pub fn with_claims(self, claims: Map<String, Value>) -> Self {
        self.change(|caller| caller.claims = claims)
    }

    /// The same caller with one more claim.
    #[must_use]
    pub fn with_claim(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.change(|caller| drop(caller.claims.insert(name.into(), value.into())))
    }

    /// Whose request this is.
    #[must_use]
    pub fn user_id(&self) -> &UserId {
        &self.0.user_id
    }

    /// What the caller may do.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.0.role
    }

    /// What the caller pays for, if that is known.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.0.plan.as_ref()
    }

    /// The session that the caller is in (`sid`).
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.0.session_id.as_deref()
    }

    /// The identifier of the token that was presented (`jti`).
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.0.token_id.as_deref()
    }

    /// When the caller last proved who it is: for a session, its login (`auth_time`).
    #[must_use]
    pub fn auth_time(&self) -> Option<SystemTime> {
        self.0.auth_time
    }

    /// By which methods the caller then proved who it is (`amr`, RFC 8176); empty where that is not
    /// known.
    #[must_use]
    pub fn amr(&self) -> &[String] {
        &self.0.amr
    }

    /// Since when there is what was presented (`iat`).
    #[must_use]
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.0.issued_at
    }

    /// When what was presented ends (`exp`).
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.expires_at
    }

    /// Claims beyond those that have a getter of their own.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.0.claims
    }

    /// The same claims as a type of yours, which may borrow from them.
    ///
    /// # Errors
    /// [`ClaimsError`] where one is missing that the type needs, or is of another type.
    pub fn claims_as<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ClaimsError> {
        T::deserialize(&self.0.claims).map_err(ClaimsError)
    }

    /// The words of the claim `scope` (RFC 8693, section 4.2).
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let scope = self.0.claims.get("scope").and_then(Value::as_str);
        scope.unwrap_or_default().split_ascii_whitespace()
    }

    fn change(mut self, change: impl FnOnce(&mut Caller)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

/// What many share is written and read as one of them.
mod shared {
    use super::{Arc, Caller, Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(of: &Arc<Caller>, to: S) -> Result<S::Ok, S::Error> {
        Caller::serialize(of, to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Caller>, D::Error> {
        Caller::deserialize(from).map(Arc::new)
    }
}

/// Times as whole seconds since 1970, as tokens have them (RFC 7519, section 2).
mod seconds {
    use serde::de::Error;

    use super::{
        Deserialize, Deserializer, Duration, Serialize, Serializer, SystemTime, UNIX_EPOCH,
    };

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        time.map(|time| since(time).as_secs()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let time = |seconds| {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            time.ok_or_else(|| D::Error::custom("a time that this system can't express"))
        };
        Option::<u64>::deserialize(from)?.map(time).transpose()
    }
}
