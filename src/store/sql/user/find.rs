//! Who is looked for, and found.

use std::time::SystemTime;

use super::super::{
    Row,
    statement::{Statement, sql},
    value::to_micros,
    verb::Tx,
};
use crate::{
    Role, UserId,
    user::{Email, PasswordHash, User, UserPage},
};

const FIND: Statement = sql!(
    "SELECT " user_columns " FROM " users " WHERE id = $1"
);
const FIND_WITH_HASH: Statement = sql!(
    "SELECT " user_columns ", password_hash FROM " users " WHERE id = $1"
);
const FIND_BY_EMAIL: Statement = sql!(
    "SELECT " user_columns ", password_hash FROM " users " WHERE email = $1"
);
const LOCK: Statement = sql!(
    "SELECT " user_columns " FROM " users " WHERE id = $1" lock
);
const LIST: Statement = sql!(
    "SELECT " user_columns " FROM " users "
     WHERE created_at < $2 OR (created_at = $2 AND id < $3)
     ORDER BY created_at DESC, id DESC LIMIT $1"
);
const HAS_VERIFICATION: Statement =
    sql!("SELECT user_id FROM " verification_tokens " WHERE user_id = $1 AND expires_at > $2");
const COUNT: Statement = sql!("SELECT count(*) FROM " users);

pub(super) async fn find(tx: &mut Tx<'_>, id: &UserId) -> sqlx::Result<Option<User>> {
    tx.one(&FIND, [id.into()]).await?.map(|mut row| user(&mut row)).transpose()
}

/// A user whom nobody else changes until the transaction ends, unless the account is suspended.
pub(super) async fn lock(tx: &mut Tx<'_>, id: &UserId) -> sqlx::Result<Option<User>> {
    let user = tx.one(&LOCK, [id.into()]).await?.map(|mut row| user(&mut row)).transpose()?;
    Ok(user.filter(|user| !user.suspended))
}

pub(super) async fn find_with_hash(
    tx: &mut Tx<'_>,
    id: &UserId,
) -> sqlx::Result<Option<(User, PasswordHash)>> {
    let row = tx.one(&FIND_WITH_HASH, [id.into()]).await?;
    row.map(|mut row| Ok((user(&mut row)?, row.take()?))).transpose()
}

pub(super) async fn find_by_email(
    tx: &mut Tx<'_>,
    email: &Email,
) -> sqlx::Result<Option<(User, PasswordHash)>> {
    let row = tx.one(&FIND_BY_EMAIL, [email.into()]).await?;
    row.map(|mut row| Ok((user(&mut row)?, row.take()?))).transpose()
}

pub(super) async fn find_holder(
    tx: &mut Tx<'_>,
    email: &Email,
    now: SystemTime,
) -> sqlx::Result<Option<User>> {
    let Some((user, _)) = find_by_email(tx, email).await? else { return Ok(None) };
    Ok(holds_its_address(tx, &user, now).await?.then_some(user))
}

pub(super) async fn holds_its_address(
    tx: &mut Tx<'_>,
    user: &User,
    now: SystemTime,
) -> sqlx::Result<bool> {
    let good = [(&user.id).into(), now.into()];
    Ok(user.email_verified || tx.one(&HAS_VERIFICATION, good).await?.is_some())
}

pub(super) async fn list(tx: &mut Tx<'_>, page: &UserPage) -> sqlx::Result<Vec<User>> {
    let after = page.after.as_ref();
    let made = after.map_or(i64::MAX, |cursor| to_micros(cursor.created_at));
    let id = after.map_or("", |cursor| cursor.id.as_str());
    let rows = tx.all(&LIST, [page.limit.into(), made.into(), id.into()]).await?;
    rows.into_iter().map(|mut row| user(&mut row)).collect()
}

pub(super) async fn count(tx: &mut Tx<'_>) -> sqlx::Result<u64> {
    let users: Option<i64> = tx.one(&COUNT, []).await?.map(|mut row| row.take()).transpose()?;
    Ok(users.unwrap_or_default().unsigned_abs())
}

/// `user_columns` of `sql!`
pub(super) fn user(row: &mut Row) -> sqlx::Result<User> {
    let (id, email, role): (UserId, Email, Role) = (row.take()?, row.take()?, row.take()?);
    let (plan, email_verified) = (row.take()?, row.take()?);
    let suspended_at: Option<i64> = row.take()?;
    let mut user = User::new(id, email, role, row.take()?);
    user.plan = plan;
    user.email_verified = email_verified;
    user.suspended = suspended_at.is_some();
    user.epoch = row.take::<i64>()?.unsigned_abs();
    user.second_factor = row.take()?;
    Ok(user)
}
