//! How an account begins, changes and ends.

use std::time::{Duration, SystemTime};

use super::{
    super::{
        Value, api_key, link, second_factor,
        statement::{Statement, sql},
        token::end_sessions,
        verb::Tx,
    },
    address::DROP_VERIFICATION,
    find::{find, holds_its_address, user},
    password::SET_PASSWORD,
};
use crate::{
    Role, SharedClock, UserId,
    audit::{Act, AuditEvent},
    token::{RevokeReason, Revoked},
    user::{
        Email, EnsuredAdmin, NewUser, UpdateUserError, User, UserChange, UserChanged, acts,
        judge_change, judge_deletion,
    },
};

const INSERT: Statement = sql!(
    "INSERT INTO " users " (id, email, password_hash, role, plan, email_verified, created_at)
     VALUES ($1, $2, $3, $4, NULL, $5, $6)
     ON CONFLICT (email) DO NOTHING"
);
const LOCK_BY_EMAIL: Statement = sql!(
    "SELECT " user_columns " FROM " users " WHERE email = $1" lock
);
/// A user, who acts, and all active admins: always in the same order. One whom another transaction
/// changed while we waited is read anew.
const LOCK_ADMINS_AND: Statement = sql!(
    "SELECT " user_columns " FROM " users "
     WHERE id = $1 OR id = $2
        OR (role = 'admin' AND email_verified AND suspended_at IS NULL)
     ORDER BY id" lock
);
const CHANGE: Statement = sql!(
    "UPDATE " users "
     SET role = $2, plan = $3, email_verified = $4, epoch = $5,
         suspended_at = CASE WHEN $6 THEN coalesce(suspended_at, $7) END
     WHERE id = $1"
);
const SET_ROLE: Statement = sql!("UPDATE " users " SET role = $2 WHERE id = $1");
const DELETE: Statement = sql!("DELETE FROM " users " WHERE id = $1");

/// Nothing where the address is taken.
pub(super) async fn create(tx: &mut Tx<'_>, new: &NewUser) -> sqlx::Result<Option<User>> {
    if !insert(tx, new).await? {
        free(tx, &new.email, new.created_at).await?;
        if !insert(tx, new).await? {
            return Ok(None);
        }
    }
    tx.note(AuditEvent::new(Act::REGISTERED, new.created_at).about(&new.id)).await?;
    find(tx, &new.id).await
}

/// Answers whether the address was free.
async fn insert(tx: &mut Tx<'_>, new: &NewUser) -> sqlx::Result<bool> {
    let row = [
        (&new.id).into(),
        (&new.email).into(),
        (&new.password_hash).into(),
        (&new.role).into(),
        new.verification.is_none().into(),
        new.created_at.into(),
    ];
    let inserted = tx.execute(&INSERT, row).await? == 1;
    if let (Some(token), true) = (&new.verification, inserted) {
        link::put(tx, &link::VERIFICATIONS, &new.id, token, Duration::ZERO).await?;
    }
    Ok(inserted)
}

/// Takes an address from an account that holds it no longer.
pub(super) async fn free(tx: &mut Tx<'_>, email: &Email, now: SystemTime) -> sqlx::Result<()> {
    if let Some(mut row) = tx.one(&LOCK_BY_EMAIL, [email.into()]).await? {
        let holder = user(&mut row)?;
        if !holds_its_address(tx, &holder, now).await? {
            remove(tx, &holder.id, now).await?;
            let event = AuditEvent::new(Act::DELETED, now).about(&holder.id);
            tx.note(event.with_detail("never_verified")).await?;
        }
    }
    Ok(())
}

/// Forgets a user, who is locked; what was the user's ends.
async fn remove(tx: &mut Tx<'_>, id: &UserId, now: SystemTime) -> sqlx::Result<()> {
    end_logins_and_sessions(tx, id, None, now).await?;
    api_key::revoke_all(tx, id, now).await?;
    tx.execute(&DELETE, [id.into()]).await?;
    Ok(())
}

/// Ends what was opened by the password that was good until now, except one session.
pub(super) async fn end_logins_and_sessions(
    tx: &mut Tx<'_>,
    id: &UserId,
    except: Option<&str>,
    now: SystemTime,
) -> sqlx::Result<()> {
    second_factor::end_logins(tx, id).await?;
    end_sessions(tx, id, except, now, RevokeReason::LogoutAll).await?;
    tx.revoke(Revoked::Account(id.clone()), now).await
}

pub(super) async fn update(
    tx: &mut Tx<'_>,
    id: &UserId,
    change: &UserChange,
) -> sqlx::Result<Result<UserChanged, UpdateUserError>> {
    let users = lock_admins_and(tx, id, change.by.as_ref()).await?;
    let now = tx.now();
    let UserChanged { mut before, user: changed } = match judge_change(&users, id, change) {
        Ok(changed) => changed,
        Err(refused) => return Ok(Err(refused)),
    };
    if change.second_factor_off {
        // It may have been turned on since the user was read, which locks the user alone.
        before.second_factor = second_factor::remove(tx, id).await?;
    }
    if changed.suspended && !before.suspended {
        link::end_pending(tx, id, now).await?;
        end_logins_and_sessions(tx, id, None, now).await?;
        api_key::revoke_all(tx, id, now).await?;
    }
    let row = [
        id.into(),
        (&changed.role).into(),
        changed.plan.as_ref().into(),
        changed.email_verified.into(),
        epoch(&changed),
        changed.suspended.into(),
        now.into(),
    ];
    tx.execute(&CHANGE, row).await?;
    if before.role != changed.role {
        let (user, role) = (id.clone(), changed.role.clone());
        tx.revoke(Revoked::Role { user, role }, now).await?;
    }
    if before.plan != changed.plan {
        tx.revoke(Revoked::Account(id.clone()), now).await?;
    }
    for event in acts(&before, &changed, change.by.as_ref(), now) {
        tx.note(event).await?;
    }
    Ok(Ok(UserChanged::new(before, changed)))
}

pub(super) async fn delete(
    tx: &mut Tx<'_>,
    id: &UserId,
    by: Option<&UserId>,
    epoch: Option<u64>,
    clock: &SharedClock,
) -> sqlx::Result<Result<User, UpdateUserError>> {
    let users = lock_admins_and(tx, id, by).await?;
    let deleted = judge_deletion(&users, id, by, epoch);
    if deleted.is_ok() {
        let now = clock.now();
        remove(tx, id, now).await?;
        tx.note(AuditEvent::new(Act::DELETED, now).about(id).or_by(by)).await?;
    }
    Ok(deleted)
}

async fn lock_admins_and(
    tx: &mut Tx<'_>,
    id: &UserId,
    by: Option<&UserId>,
) -> sqlx::Result<Vec<User>> {
    let rows = tx.all(&LOCK_ADMINS_AND, [id.into(), by.unwrap_or(id).into()]).await?;
    rows.into_iter().map(|mut row| user(&mut row)).collect()
}

pub(super) async fn ensure_admin(
    tx: &mut Tx<'_>,
    admin: &NewUser,
    clock: &SharedClock,
) -> sqlx::Result<(User, EnsuredAdmin)> {
    let mut admin = admin.clone().with_role(Role::ADMIN);
    admin.verification = None;
    let mut outcome = EnsuredAdmin::Created;
    if !insert(tx, &admin).await? {
        let there = tx.one(&LOCK_BY_EMAIL, [(&admin.email).into()]).await?;
        // Deleted since: the caller's next attempt finds nobody.
        let mut there = there.ok_or(sqlx::Error::RowNotFound)?;
        let there = user(&mut there)?;
        outcome = EnsuredAdmin::of(&there);
        admin.id = there.id;
    }
    let id = &admin.id;
    if outcome == EnsuredAdmin::TakenOver {
        let now = clock.now();
        tx.execute(&SET_PASSWORD, [id.into(), (&admin.password_hash).into(), true.into()]).await?;
        tx.execute(&DROP_VERIFICATION, [id.into()]).await?;
        link::end_pending(tx, id, now).await?;
        end_logins_and_sessions(tx, id, None, now).await?;
        api_key::revoke_all(tx, id, now).await?;
    }
    if outcome != EnsuredAdmin::Suspended {
        tx.execute(&SET_ROLE, [id.into(), (&Role::ADMIN).into()]).await?;
    }
    if let Some(how) = outcome.change() {
        tx.note(AuditEvent::new(Act::ADMIN_ENSURED, clock.now()).about(id).with_detail(how))
            .await?;
    }
    Ok((find(tx, id).await?.ok_or(sqlx::Error::RowNotFound)?, outcome))
}

fn epoch(user: &User) -> Value {
    i64::try_from(user.epoch).unwrap_or(i64::MAX).into()
}
