//! Whether a user may be changed or go: one judge for all stores.

use super::{UpdateUserError, User, UserChange, UserChanged};
use crate::UserId;

/// What a user is before and after a change. `users` are, locked, the user, who acts, and all active admins.
pub(crate) fn judge_change(
    users: &[User],
    id: &UserId,
    change: &UserChange,
) -> Result<UserChanged, UpdateUserError> {
    let changed = |before: &User| {
        let mut after = before.clone();
        after.role = change.role.clone().unwrap_or(after.role);
        after.plan = change.plan.clone().unwrap_or(after.plan);
        after.suspended = change.suspended.unwrap_or(after.suspended);
        after.email_verified |= change.verify_email;
        after.second_factor &= !change.second_factor_off;
        after.epoch += u64::from(after.suspended && !before.suspended);
        Some(after)
    };
    let (before, after) = judge(users, id, change.by.as_ref(), changed)?;
    Ok(UserChanged::new(before.clone(), after.unwrap_or_else(|| before.clone())))
}

/// Whether a user may go. `users` as for [`judge_change`].
pub(crate) fn judge_deletion(
    users: &[User],
    id: &UserId,
    by: Option<&UserId>,
    epoch: Option<u64>,
) -> Result<User, UpdateUserError> {
    let (before, _) = judge(users, id, by, |_| None)?;
    match epoch {
        Some(epoch) if epoch != before.epoch => Err(UpdateUserError::Outdated),
        _ => Ok(before.clone()),
    }
}

/// What is left of a user is judged first: of two admins who demote one another at once, the second
/// is told that the last one must stay.
fn judge<'a>(
    users: &'a [User],
    id: &UserId,
    by: Option<&UserId>,
    left: impl FnOnce(&User) -> Option<User>,
) -> Result<(&'a User, Option<User>), UpdateUserError> {
    let user = users.iter().find(|user| user.id == *id);
    let is_admin = |id: &UserId| users.iter().any(|user| user.id == *id && user.is_active_admin());
    let Some(before) = user else {
        let may = by.is_none_or(is_admin);
        return Err(if may { UpdateUserError::NotFound } else { UpdateUserError::NotAllowed });
    };
    let after = left(before);
    let stays = after.as_ref().is_some_and(User::is_active_admin);
    let another = users.iter().any(|user| user.id != *id && user.is_active_admin());
    if before.is_active_admin() && !stays && !another {
        return Err(UpdateUserError::LastAdmin);
    }
    if !by.is_none_or(is_admin) {
        return Err(UpdateUserError::NotAllowed);
    }
    Ok((before, after))
}
