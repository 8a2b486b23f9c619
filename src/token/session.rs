//! What is known of a session beside its tokens.

use std::{net::IpAddr, time::SystemTime};

use super::Family;
use crate::Identity;

/// From where and with what a user logged in or refreshed, for the user to recognize the session by.
///
/// ```
/// use tower_warden::token::SessionInfo;
/// let info = SessionInfo::new().with_user_agent("x".repeat(1000)).with_label("my phone");
/// assert_eq!(info.user_agent().map(str::len), Some(256));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionInfo {
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    label: Option<String>,
}

impl SessionInfo {
    /// Nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, from this address.
    #[must_use]
    pub fn with_ip(self, ip: IpAddr) -> Self {
        Self { ip: Some(ip), ..self }
    }

    /// The same, with this `User-Agent`, of which 256 characters are kept.
    #[must_use]
    pub fn with_user_agent(self, user_agent: impl AsRef<str>) -> Self {
        Self { user_agent: Some(cut(user_agent.as_ref())), ..self }
    }

    /// The same by a name of the user's choice, of which 256 characters are kept.
    #[must_use]
    pub fn with_label(self, label: impl AsRef<str>) -> Self {
        Self { label: Some(cut(label.as_ref())), ..self }
    }

    /// From which address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// With which `User-Agent`.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// What the user calls it.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// What is known later wins; what is not known then stays.
    #[must_use]
    pub fn or(self, earlier: &Self) -> Self {
        Self {
            ip: self.ip.or(earlier.ip),
            user_agent: self.user_agent.or_else(|| earlier.user_agent.clone()),
            label: self.label.or_else(|| earlier.label.clone()),
        }
    }
}

/// NUL is left out: PostgreSQL can't keep it.
fn cut(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(256).collect()
}

/// A session to open, for a caller who has just proved who it is.
///
/// ```
/// use tower_warden::{Identity, Role, UserId, token::{NewSession, SessionInfo}};
/// let ada = Identity::new(UserId::from("ada"), Role::EDITOR).with_amr(["pwd", "otp"]);
/// let from = SessionInfo::new().with_ip([203, 0, 113, 9].into()).with_user_agent("Mozilla/5.0");
/// let session = NewSession::new(ada).with_info(from); // for TokenService::open_session
/// ```
#[derive(Clone, Debug)]
pub struct NewSession {
    pub(super) identity: Identity,
    pub(super) info: SessionInfo,
}

impl NewSession {
    /// A session of this caller. Its tokens say the caller's role, plan, further claims, and how
    /// ([`amr`](Identity::amr)) and when ([`auth_time`](Identity::auth_time); now, unless said) it
    /// proved who it is.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { identity, info: SessionInfo::new() }
    }

    /// The same, from where and with what.
    #[must_use]
    pub fn with_info(self, info: SessionInfo) -> Self {
        Self { info, ..self }
    }
}

/// A live session, as its user sees it.
///
/// ```
/// # use tower_warden::{Identity, Role, TokenService, UserId, token::{KeySet, SigningKey}};
/// # use tower_warden::store::memory::MemoryStore;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// # let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
/// let ada = Identity::new(UserId::from("ada"), Role::EDITOR).with_amr(["pwd"]);
/// let pair = tokens.issue(&ada).await?;
/// let session = &tokens.sessions(ada.user_id()).await?[0];
/// assert_eq!(session.family.id.as_str(), pair.session_id()); // which one is the caller's own
/// assert_eq!(session.family.amr, ["pwd"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// What the store keeps of it.
    pub family: Family,
    /// When it ends, if it is not refreshed before.
    pub expires_at: SystemTime,
}

impl Session {
    /// A session whose live token ends then.
    #[must_use]
    pub fn new(family: Family, expires_at: SystemTime) -> Self {
        Self { family, expires_at }
    }
}
