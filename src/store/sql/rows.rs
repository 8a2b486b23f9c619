//! Rows as both wings select them, and what they mean.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::error::BoxDynError;

use crate::{
    Plan, Role, UserId,
    token::{Family, FamilyId, RevokeReason, StoredToken},
    user::{Email, User},
};

/// `id, email, role, plan, email_verified, created_at`
pub(in crate::store) type UserRow = (String, String, String, Option<String>, bool, i64);

/// `id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason`
pub(in crate::store) type FamilyRow =
    (String, String, i64, i64, Option<i64>, Option<i64>, Option<String>);

/// `generation, issued_at, expires_at, superseded_at`
pub(in crate::store) type TokenRow = (i64, i64, i64, Option<i64>);

pub(in crate::store) fn user(row: UserRow) -> sqlx::Result<User> {
    let (id, email, role, plan, email_verified, created_at) = row;
    let email = Email::parse(&email).map_err(unreadable)?;
    let mut user = User::new(UserId::from(id), email, Role::from(&*role), from_micros(created_at)?);
    user.plan = plan.as_deref().map(Plan::from);
    user.email_verified = email_verified;
    Ok(user)
}

pub(in crate::store) fn family(row: FamilyRow) -> sqlx::Result<Family> {
    let (id, user_id, created_at, last_used_at, expires_at, revoked_at, reason) = row;
    // A newer server may know more reasons. That the family is revoked is what counts.
    let reason = reason.as_deref().and_then(RevokeReason::parse).unwrap_or(RevokeReason::Logout);
    Ok(Family {
        id: FamilyId::from(id),
        user_id: UserId::from(user_id),
        created_at: from_micros(created_at)?,
        last_used_at: from_micros(last_used_at)?,
        expires_at: expires_at.map(from_micros).transpose()?,
        revoked: revoked_at.map(from_micros).transpose()?.map(|at| (at, reason)),
    })
}

pub(in crate::store) fn stored_token(row: TokenRow) -> sqlx::Result<StoredToken> {
    let (generation, issued_at, expires_at, superseded_at) = row;
    Ok(StoredToken {
        generation: generation.try_into().map_err(unreadable)?,
        issued_at: from_micros(issued_at)?,
        expires_at: from_micros(expires_at)?,
        superseded_at: superseded_at.map(from_micros).transpose()?,
    })
}

/// Microseconds since the Unix epoch, negative before it; the ends of `i64` for what is beyond.
pub(in crate::store) fn to_micros(time: SystemTime) -> i64 {
    let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

pub(in crate::store) fn from_micros(micros: i64) -> sqlx::Result<SystemTime> {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.ok_or_else(|| unreadable("a time that this system can't express"))
}

fn unreadable(reason: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::Decode(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_to_the_microsecond() {
        for micros in [0, 1, -1, 1_800_000_000_123_456, -62_135_596_800_000_000] {
            assert_eq!(to_micros(from_micros(micros).unwrap()), micros);
        }
        let beyond = UNIX_EPOCH + Duration::from_secs(u64::MAX / 4);
        assert_eq!(to_micros(beyond), i64::MAX);
    }
}
