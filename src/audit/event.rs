//! [`AuditEvent`]: who did what, whom to, when, from where, and what came of it.

use std::{fmt, net::IpAddr, time::SystemTime};

use super::Act;
use crate::{Identity, Origin, Role, UserId, identity::API_KEY_CLAIM, origin::inert};

/// One act, as it is kept. It holds no password, no token, no key and no address; what a client chose
/// (its user agent) is cut to 256 characters, with control characters escaped.
///
/// ```
/// use std::time::SystemTime;
/// use tower_warden::{UserId, audit::{Act, AuditEvent, Outcome}};
/// // An act of your own, beside those of the crate: AuditTrail::note writes it.
/// let ada = UserId::from("ada");
/// let event = AuditEvent::new(Act::LOGIN, SystemTime::now()).about(&ada).refused("from a blocked country");
/// assert_eq!(event.outcome, Outcome::Refused);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Its place in the table, where it was read from one.
    pub id: Option<u64>,
    /// When it was done or refused, by the clock of the store.
    pub at: SystemTime,
    /// What was done, or tried.
    pub act: Act,
    /// Whether it was done or refused.
    pub outcome: Outcome,
    /// Whose account it concerns.
    pub subject: Option<UserId>,
    /// Which thing of that account: the identifier of a session, or of an API key.
    pub object: Option<Box<str>>,
    /// What else the [`Act`] says, and why it was refused.
    pub detail: Option<Box<str>>,
    /// Who did it.
    pub actor: Actor,
    /// In which session the actor did it.
    pub session: Option<Box<str>>,
    /// From which address.
    pub ip: Option<IpAddr>,
    /// With which `User-Agent`, by the client's own account.
    pub user_agent: Option<Box<str>>,
    /// In which request, as logs and spans name it.
    pub request_id: Option<Box<str>>,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Actor {
    /// The program itself, outside of any request.
    Program,
    /// Somebody who had not proved anything yet: at a login, or with a link from a mail.
    Nobody,
    /// A user, in this role then.
    User {
        /// Who was authenticated.
        id: UserId,
        /// As what the user acted: the role may be another by now.
        role: Role,
    },
    /// An API key of a user.
    Key {
        /// The key's identifier.
        id: Box<str>,
        /// Whose it is.
        owner: UserId,
        /// As what it acted.
        role: Role,
    },
}

/// What came of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused, and changed nothing but what a refusal does.
    Refused,
}

impl AuditEvent {
    /// That this was done, now, by whom and from where the [`Origin`] says that is
    /// [current](Origin::current).
    #[must_use]
    pub fn new(act: Act, now: SystemTime) -> Self {
        let origin = Origin::current();
        let caller = origin.as_ref().and_then(Origin::caller);
        Self {
            id: None,
            at: now,
            act,
            outcome: Outcome::Done,
            subject: None,
            object: None,
            detail: None,
            actor: match (&origin, caller) {
                (None, _) => Actor::Program,
                (Some(_), None) => Actor::Nobody,
                (Some(_), Some(caller)) => Actor::from(caller),
            },
            session: caller.and_then(Identity::session_id).map(inert),
            ip: origin.as_ref().and_then(Origin::ip),
            user_agent: origin.as_ref().and_then(Origin::user_agent).map(Box::from),
            request_id: origin.as_ref().and_then(Origin::request_id).map(Box::from),
        }
    }

    /// The same, refused for this reason.
    #[must_use]
    pub fn refused(self, reason: &str) -> Self {
        Self { outcome: Outcome::Refused, ..self }.with_detail(reason)
    }

    /// The same, about this user's account.
    #[must_use]
    pub fn about(self, subject: &UserId) -> Self {
        Self { subject: Some(subject.clone()), ..self }
    }

    /// The same, by this admin, where nothing else says who acts.
    pub(crate) fn or_by(self, admin: Option<&UserId>) -> Self {
        match admin {
            Some(admin) if self.actor == Actor::Program => {
                let actor = Actor::User { id: admin.clone(), role: Role::ADMIN };
                Self { actor, ..self }
            }
            _ => self,
        }
    }

    /// The same, about this thing of the account. Escaped and cut as a user agent.
    #[must_use]
    pub fn on(self, object: &str) -> Self {
        Self { object: Some(inert(object)), ..self }
    }

    /// The same, with this said of it. Escaped and cut as a user agent.
    #[must_use]
    pub fn with_detail(self, detail: &str) -> Self {
        Self { detail: Some(inert(detail)), ..self }
    }
}

impl Actor {
    /// Which user it is, or whose key.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::Program | Self::Nobody => None,
            Self::User { id, .. } => Some(id),
            Self::Key { owner, .. } => Some(owner),
        }
    }

    /// The word for its kind, as tables and logs have it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Nobody => "nobody",
            Self::User { .. } => "user",
            Self::Key { .. } => "key",
        }
    }

    /// In which role it acted.
    #[must_use]
    pub fn role(&self) -> Option<&Role> {
        match self {
            Self::Program | Self::Nobody => None,
            Self::User { role, .. } | Self::Key { role, .. } => Some(role),
        }
    }

    /// Which key it is.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Key { id, .. } => Some(id),
            _ => None,
        }
    }
}

impl From<&Identity> for Actor {
    fn from(caller: &Identity) -> Self {
        let (user, role) = (caller.user_id().clone(), caller.role().clone());
        match caller.claims().get(API_KEY_CLAIM) {
            None => Self::User { id: user, role },
            Some(key) => {
                Self::Key { id: inert(key.as_str().unwrap_or_default()), owner: user, role }
            }
        }
    }
}

impl Outcome {
    /// The word for it, as tables and logs have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
