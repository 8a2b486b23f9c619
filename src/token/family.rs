//! Families of refresh tokens: what a presented token means, as a pure function.
//!
//! A login opens a family. Each refresh replaces its one live token by a new generation. A token
//! that was replaced and is presented again was stolen, or the one that replaced it was: nobody can
//! tell which, so the whole family ends (RFC 9700, section 4.14.2).

use std::time::{Duration, SystemTime};

use super::{Sealed, SessionInfo};
use crate::{UserId, clock::later, secret::OpaqueToken};

/// A refresh token: 64 random bytes, as 128 lower-case hex digits.
pub type RefreshToken = OpaqueToken<64>;

/// The identifier of a family: a UUID as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FamilyId(Box<str>);

/// A family as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Family {
    /// The session's identifier: the `sid` of its access tokens.
    pub id: FamilyId,
    /// Who logged in.
    pub user_id: UserId,
    /// When the login was.
    pub created_at: SystemTime,
    /// When it was last refreshed, or opened.
    pub last_used_at: SystemTime,
    /// When it ends whatever is refreshed; `None`: never.
    pub expires_at: Option<SystemTime>,
    /// Since when and why it is worth nothing.
    pub revoked: Option<(SystemTime, RevokeReason)>,
    /// By which methods the user logged in (RFC 8176).
    pub amr: Vec<String>,
    /// From where and with what it was last used.
    pub info: SessionInfo,
    /// How often all sessions of the user had been ended when it was opened.
    pub epoch: u64,
    /// The live token, for who presents the one that it replaced. `None` once the live one was used.
    pub sealed: Option<Sealed>,
}

impl Family {
    /// A family as it is when it is opened.
    #[must_use]
    pub fn new(id: FamilyId, user_id: UserId, created_at: SystemTime) -> Self {
        Self {
            id,
            user_id,
            created_at,
            last_used_at: created_at,
            expires_at: None,
            revoked: None,
            amr: Vec::new(),
            info: SessionInfo::new(),
            epoch: 0,
            sealed: None,
        }
    }
}

/// A token of a family as a store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredToken {
    /// 0 at login, one more at each refresh.
    pub generation: u32,
    /// When it was made.
    pub issued_at: SystemTime,
    /// From when on it is worth nothing.
    pub expires_at: SystemTime,
    /// When its successor was made.
    pub superseded_at: Option<SystemTime>,
}

impl StoredToken {
    /// A token that is the live one of its family: 0 at login, one more at each refresh.
    #[must_use]
    pub fn new(generation: u32, issued_at: SystemTime, expires_at: SystemTime) -> Self {
        Self { generation, issued_at, expires_at, superseded_at: None }
    }
}

/// Why a family was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevokeReason {
    /// The user left this session.
    Logout,
    /// The user left every session.
    LogoutAll,
    /// A token was presented that had been replaced.
    Reuse,
    /// The user ended this session from another one.
    Ended,
    /// The user had more sessions than may be, and this was the oldest idle one.
    Displaced,
    /// The user was gone, or might no longer come in, when it was to be refreshed.
    NoUser,
}

/// What a presented token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is the live one: replace it.
    Rotate,
    /// It was replaced a moment ago, and what replaced it is still unused: that one again.
    Replay,
    /// It was replaced before: revoke the family.
    Reuse,
    /// It, or its family, is past its time.
    Expired,
    /// Its family was revoked.
    Revoked,
}

/// What it means that this token of this family is presented now.
///
/// ```
/// # use tower_warden::{token::{judge, Family, FamilyId, StoredToken, Verdict}, UserId};
/// # use std::time::{Duration, SystemTime};
/// # let login = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
/// # let family = Family::new(FamilyId::random(), UserId::from("42"), login);
/// let mut token = StoredToken::new(0, login, login + Duration::from_secs(60));
/// assert_eq!(judge(login, &family, &token), Verdict::Rotate);
/// assert_eq!(judge(login + Duration::from_secs(60), &family, &token), Verdict::Expired);
/// token.superseded_at = Some(login);
/// assert_eq!(judge(login, &family, &token), Verdict::Reuse);
/// ```
#[must_use]
pub fn judge(now: SystemTime, family: &Family, token: &StoredToken) -> Verdict {
    if family.revoked.is_some() {
        Verdict::Revoked
    } else if token.superseded_at.is_some() {
        // The family's seal is that of the live token's immediate parent, and there only while the
        // live one is unused.
        let unsealed =
            |sealed: &Sealed| sealed.generation == token.generation && now < sealed.until;
        match &family.sealed {
            Some(sealed) if unsealed(sealed) && family_ended(now, family) => Verdict::Expired,
            Some(sealed) if unsealed(sealed) => Verdict::Replay,
            _ => Verdict::Reuse,
        }
    } else if now >= token.expires_at || family_ended(now, family) {
        Verdict::Expired
    } else {
        Verdict::Rotate
    }
}

fn family_ended(now: SystemTime, family: &Family) -> bool {
    family.expires_at.is_some_and(|end| now >= end)
}

/// When a token made now ends: after its time to live, but not after its family.
#[must_use]
pub fn token_expiry(
    now: SystemTime,
    time_to_live: Duration,
    family_expires_at: Option<SystemTime>,
) -> SystemTime {
    let end = later(now, time_to_live);
    family_expires_at.map_or(end, |family_end| end.min(family_end))
}

impl FamilyId {
    /// A new one.
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

impl From<String> for FamilyId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl RevokeReason {
    /// The word by which stores keep it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::LogoutAll => "logout_all",
            Self::Reuse => "reuse",
            Self::Ended => "ended",
            Self::Displaced => "displaced",
            Self::NoUser => "no_user",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        use RevokeReason::{Displaced, Ended, Logout, LogoutAll, NoUser, Reuse};
        let all = [Logout, LogoutAll, Reuse, Ended, Displaced, NoUser];
        all.into_iter().find(|reason| reason.as_str() == word)
    }
}
