//! Who is calling: the words that all rooms share.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    sync::Arc,
    time::SystemTime,
};

use serde_json::{Map, Value};

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

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
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

/// An authenticated caller, as [`RequireAuth`](crate::RequireAuth) puts it into the extensions of
/// a request. Cheap to clone.
///
/// ```
/// use tower_warden::{Identity, Plan, Role, UserId};
/// let caller = Identity::new(UserId::from("42"), Role::EDITOR).with_plan(Plan::PAID);
/// assert_eq!(caller.user_id().as_str(), "42");
/// assert_eq!(caller.plan(), Some(&Plan::PAID));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Identity(Arc<Caller>);

#[derive(Clone, Debug, PartialEq)]
struct Caller {
    user_id: UserId,
    role: Role,
    plan: Option<Plan>,
    token_id: Option<Box<str>>,
    expires_at: Option<SystemTime>,
    claims: Map<String, Value>,
}

impl Identity {
    /// A caller with a role and nothing else.
    #[must_use]
    pub fn new(user_id: UserId, role: Role) -> Self {
        Self(Arc::new(Caller {
            user_id,
            role,
            plan: None,
            token_id: None,
            expires_at: None,
            claims: Map::new(),
        }))
    }

    /// The same caller with a plan.
    #[must_use]
    pub fn with_plan(self, plan: Plan) -> Self {
        self.change(|caller| caller.plan = Some(plan))
    }

    /// The same caller, known by the token of this identifier (`jti`).
    #[must_use]
    pub fn with_token_id(self, id: impl Into<Box<str>>) -> Self {
        self.change(|caller| caller.token_id = Some(id.into()))
    }

    /// The same caller, known until then.
    #[must_use]
    pub fn with_expires_at(self, at: SystemTime) -> Self {
        self.change(|caller| caller.expires_at = Some(at))
    }

    /// The same caller with further claims.
    #[must_use]
    pub fn with_claims(self, claims: Map<String, Value>) -> Self {
        self.change(|caller| caller.claims = claims)
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

    /// The identifier of the token that was presented (`jti`).
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.0.token_id.as_deref()
    }

    /// When what was presented ends.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.expires_at
    }

    /// Claims beyond those that have a getter of their own.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.0.claims
    }

    fn change(mut self, change: impl FnOnce(&mut Caller)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}
