//! Passwords that are forgotten, changed, and hashed anew.

use std::time::Duration;

use super::{
    super::{
        api_key, link,
        statement::{Statement, sql},
        verb::Tx,
    },
    account::end_logins_and_sessions,
    address::DROP_VERIFICATION,
    find::{find, lock},
};
use crate::{
    SharedClock, TokenHash, UserId,
    audit::{Act, AuditEvent},
    user::{LinkToken, PasswordChange, PasswordHash, PasswordSet, User},
};

pub(super) const SET_PASSWORD: Statement = sql!(
    "UPDATE " users " SET password_hash = $2, email_verified = $3, epoch = epoch + 1 WHERE id = $1"
);
const REPLACE_PASSWORD_HASH: Statement =
    sql!("UPDATE " users " SET password_hash = $3 WHERE id = $1 AND password_hash = $2");

pub(super) async fn put_reset(
    tx: &mut Tx<'_>,
    id: &UserId,
    token: &LinkToken,
    at_most_every: Duration,
) -> sqlx::Result<Option<User>> {
    let Some(user) = lock(tx, id).await? else { return Ok(None) };
    if !link::put(tx, &link::RESETS, id, token, at_most_every).await? {
        return Ok(None);
    }
    tx.note(AuditEvent::new(Act::PASSWORD_FORGOTTEN, token.created_at).about(id)).await?;
    Ok(Some(user))
}

pub(super) async fn reset_password(
    tx: &mut Tx<'_>,
    token: &TokenHash,
    new: &PasswordHash,
    clock: &SharedClock,
) -> sqlx::Result<Option<PasswordSet>> {
    let Some((id, now)) = link::consume(tx, &link::RESETS, token, clock).await? else {
        return Ok(None);
    };
    tx.execute(&SET_PASSWORD, [(&id).into(), new.into(), true.into()]).await?;
    tx.execute(&DROP_VERIFICATION, [(&id).into()]).await?;
    link::end_pending(tx, &id, now).await?;
    end_logins_and_sessions(tx, &id, None, now).await?;
    tx.note(AuditEvent::new(Act::PASSWORD_RESET, now).about(&id)).await?;
    password_set(tx, &id).await
}

pub(super) async fn change_password(
    tx: &mut Tx<'_>,
    PasswordChange { id, epoch, new, keep, .. }: &PasswordChange,
    clock: &SharedClock,
) -> sqlx::Result<Option<PasswordSet>> {
    let user = lock(tx, id).await?;
    let Some(user) = user.filter(|user| user.epoch == *epoch) else { return Ok(None) };
    let now = clock.now();
    tx.execute(&SET_PASSWORD, [id.into(), new.into(), user.email_verified.into()]).await?;
    link::end_pending(tx, id, now).await?;
    end_logins_and_sessions(tx, id, keep.as_deref(), now).await?;
    tx.note(AuditEvent::new(Act::PASSWORD_CHANGED, now).about(id)).await?;
    password_set(tx, id).await
}

async fn password_set(tx: &mut Tx<'_>, id: &UserId) -> sqlx::Result<Option<PasswordSet>> {
    let api_keys = api_key::count(tx, id).await?;
    Ok(find(tx, id).await?.map(|user| PasswordSet::new(user, api_keys)))
}

pub(super) async fn replace_password_hash(
    tx: &mut Tx<'_>,
    id: &UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> sqlx::Result<bool> {
    Ok(tx.execute(&REPLACE_PASSWORD_HASH, [id.into(), old.into(), new.into()]).await? == 1)
}
