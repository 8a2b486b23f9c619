//! Addresses that are proved, and changed.

use std::time::{Duration, SystemTime};

use super::{
    super::{
        link,
        statement::{Statement, sql},
        verb::Tx,
    },
    account::free,
    find::{find, find_holder, lock},
};
use crate::{
    SharedClock, TokenHash, UserId,
    audit::{Act, AuditEvent},
    user::{Email, EmailChangeError, LinkToken, User},
};

const LOCK_UNVERIFIED: Statement =
    sql!("SELECT id FROM " users " WHERE email = $1 AND NOT email_verified" lock);
const VERIFY: Statement = sql!("UPDATE " users " SET email_verified = TRUE WHERE id = $1");
pub(super) const DROP_VERIFICATION: Statement =
    sql!("DELETE FROM " verification_tokens " WHERE user_id = $1");
const SET_EMAIL: Statement =
    sql!("UPDATE " users " SET email = $2, email_verified = TRUE WHERE id = $1");
const WANTED_EMAIL: Statement = sql!("SELECT email FROM " email_changes " WHERE hash = $1");
const PUT_EMAIL_CHANGE: Statement = sql!(
    "INSERT INTO " email_changes " AS old (user_id, hash, created_at, expires_at, email)
     VALUES ($1, $2, $3, $4, $6)
     ON CONFLICT (user_id) DO UPDATE
     SET hash = excluded.hash, created_at = excluded.created_at, expires_at = excluded.expires_at,
         email = excluded.email
     WHERE old.created_at <= $5"
);
/// An address may be taken between the look and the write: what fails then is undone up to here.
const SAVE: Statement = sql!("SAVEPOINT tower_warden_email");
const UNDO: Statement = sql!("ROLLBACK TO SAVEPOINT tower_warden_email");

pub(super) async fn renew_verification(
    tx: &mut Tx<'_>,
    email: &Email,
    token: &LinkToken,
    at_most_every: Duration,
) -> sqlx::Result<Option<User>> {
    let Some(mut row) = tx.one(&LOCK_UNVERIFIED, [email.into()]).await? else { return Ok(None) };
    let id = row.take()?;
    if !link::put(tx, &link::VERIFICATIONS, &id, token, at_most_every).await? {
        return Ok(None);
    }
    find(tx, &id).await
}

pub(super) async fn verify_email(
    tx: &mut Tx<'_>,
    token: &TokenHash,
    now: SystemTime,
) -> sqlx::Result<Option<User>> {
    let Some(mut row) = tx.one(&link::VERIFICATIONS.lock_user, [token.into()]).await? else {
        return Ok(None);
    };
    let id: UserId = row.take()?;
    if tx.execute(&link::VERIFICATIONS.end, [token.into(), now.into()]).await? == 0 {
        return Ok(None);
    }
    tx.execute(&DROP_VERIFICATION, [(&id).into()]).await?;
    tx.execute(&VERIFY, [(&id).into()]).await?;
    tx.note(AuditEvent::new(Act::ADDRESS_VERIFIED, now).about(&id)).await?;
    find(tx, &id).await
}

pub(super) async fn put_email_change(
    tx: &mut Tx<'_>,
    id: &UserId,
    email: &Email,
    token: &LinkToken,
    at_most_every: Duration,
) -> sqlx::Result<Result<Option<User>, EmailChangeError>> {
    let Some(user) = lock(tx, id).await? else {
        return Ok(Err(EmailChangeError::NotFound));
    };
    if user.email == *email {
        return Ok(Err(EmailChangeError::OwnEmail));
    }
    if find_holder(tx, email, token.created_at).await?.is_some() {
        return Ok(Err(EmailChangeError::EmailTaken));
    }
    let [id, hash, created_at, expires_at, made_by] = link::row(id, token, at_most_every);
    let row = [id, hash, created_at, expires_at, made_by, email.into()];
    if tx.execute(&PUT_EMAIL_CHANGE, row).await? == 0 {
        return Ok(Ok(None));
    }
    tx.note(AuditEvent::new(Act::EMAIL_CHANGE_ASKED, token.created_at).about(&user.id)).await?;
    Ok(Ok(Some(user)))
}

pub(super) async fn confirm_email_change(
    tx: &mut Tx<'_>,
    token: &TokenHash,
    clock: &SharedClock,
) -> sqlx::Result<Result<User, EmailChangeError>> {
    let Some((id, now)) = link::consume(tx, &link::EMAIL_CHANGES, token, clock).await? else {
        return Ok(Err(EmailChangeError::InvalidToken));
    };
    let Some(mut row) = tx.one(&WANTED_EMAIL, [token.into()]).await? else {
        return Ok(Err(EmailChangeError::InvalidToken));
    };
    let wanted: Email = row.take()?;
    free(tx, &wanted, now).await?;
    tx.execute(&SAVE, []).await?;
    match tx.execute(&SET_EMAIL, [(&id).into(), (&wanted).into()]).await {
        Ok(_) => {}
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            tx.execute(&UNDO, []).await?;
            return Ok(Err(EmailChangeError::EmailTaken));
        }
        Err(error) => return Err(error),
    }
    tx.execute(&DROP_VERIFICATION, [(&id).into()]).await?;
    tx.execute(&link::RESETS.end_of, [(&id).into(), now.into()]).await?;
    tx.note(AuditEvent::new(Act::EMAIL_CHANGED, now).about(&id)).await?;
    Ok(find(tx, &id).await?.ok_or(EmailChangeError::InvalidToken))
}
