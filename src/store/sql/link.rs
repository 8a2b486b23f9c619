//! Links that were mailed: a table for each purpose, which all are used in the same way.

use std::time::{Duration, SystemTime};

use super::{
    Value,
    statement::{Statement, sql},
    value::to_micros,
    verb::Tx,
};
use crate::{SharedClock, TokenHash, UserId, user::LinkToken};

/// The statements on the tokens of links of one purpose.
pub(super) struct Links {
    pub(super) put: Statement,
    pub(super) find: Statement,
    pub(super) lock_user: Statement,
    /// It is kept, past its time: the next one has to wait.
    pub(super) end: Statement,
    pub(super) end_of: Statement,
    pub(super) delete_expired: Statement,
}

macro_rules! links {
    ($table:ident) => {
        Links {
            put: sql!(
                "INSERT INTO " $table " AS old (user_id, hash, created_at, expires_at)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (user_id) DO UPDATE
                 SET hash = excluded.hash, created_at = excluded.created_at,
                     expires_at = excluded.expires_at
                 WHERE old.created_at <= $5"
            ),
            find: sql!("SELECT user_id FROM " $table " WHERE hash = $1 AND expires_at > $2"),
            lock_user: sql!(
                "SELECT id FROM " users "
                 WHERE id = (SELECT user_id FROM " $table " WHERE hash = $1)" lock
            ),
            end: sql!(
                "UPDATE " $table " SET expires_at = $2 WHERE hash = $1 AND expires_at > $2"
            ),
            end_of: sql!(
                "UPDATE " $table " SET expires_at = $2 WHERE user_id = $1 AND expires_at > $2"
            ),
            delete_expired: sql!(
                "DELETE FROM " $table " WHERE user_id" one_of
                    "SELECT user_id FROM " $table "
                     WHERE expires_at < $1 AND created_at < $3
                     ORDER BY expires_at LIMIT $2" skip_locked end
            ),
        }
    };
}

pub(super) static VERIFICATIONS: Links = links!(verification_tokens);
pub(super) static RESETS: Links = links!(reset_tokens);
pub(super) static EMAIL_CHANGES: Links = links!(email_changes);

/// Gives a user a token in place of one that was made so long before; answers whether it did.
pub(super) async fn put(
    tx: &mut Tx<'_>,
    links: &'static Links,
    id: &UserId,
    token: &LinkToken,
    at_most_every: Duration,
) -> sqlx::Result<bool> {
    Ok(tx.execute(&links.put, row(id, token, at_most_every)).await? == 1)
}

/// A token as it is put, and by when the one before it must have been made.
pub(super) fn row(id: &UserId, token: &LinkToken, at_most_every: Duration) -> [Value; 5] {
    let interval = i64::try_from(at_most_every.as_micros()).unwrap_or(i64::MAX);
    let made_by = to_micros(token.created_at).saturating_sub(interval);
    let hash = (&token.hash).into();
    [id.into(), hash, token.created_at.into(), token.expires_at.into(), made_by.into()]
}

pub(super) async fn find(
    tx: &mut Tx<'_>,
    links: &'static Links,
    token: &TokenHash,
    now: SystemTime,
) -> sqlx::Result<Option<UserId>> {
    let row = tx.one(&links.find, [token.into(), now.into()]).await?;
    row.map(|mut row| row.take()).transpose()
}

/// Uses a token up: whose it is, who is locked from then on, and when that was.
pub(super) async fn consume(
    tx: &mut Tx<'_>,
    links: &'static Links,
    token: &TokenHash,
    clock: &SharedClock,
) -> sqlx::Result<Option<(UserId, SystemTime)>> {
    let Some(mut row) = tx.one(&links.lock_user, [token.into()]).await? else { return Ok(None) };
    let (id, now) = (row.take()?, clock.now());
    let ended = tx.execute(&links.end, [token.into(), now.into()]).await?;
    Ok((ended == 1).then_some((id, now)))
}

/// Ends a reset and a change of address that are pending.
pub(super) async fn end_pending(tx: &mut Tx<'_>, id: &UserId, now: SystemTime) -> sqlx::Result<()> {
    for links in [&RESETS, &EMAIL_CHANGES] {
        tx.execute(&links.end_of, [id.into(), now.into()]).await?;
    }
    Ok(())
}

pub(super) async fn delete_expired(
    tx: &mut Tx<'_>,
    before: SystemTime,
    at_most: u32,
) -> sqlx::Result<u64> {
    let kept = before.checked_sub(LinkToken::KEPT).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut deleted = 0;
    for links in [&VERIFICATIONS, &RESETS, &EMAIL_CHANGES] {
        let left = u64::from(at_most).saturating_sub(deleted);
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let row = [before.into(), left.into(), kept.into()];
        deleted += tx.execute(&links.delete_expired, row).await?;
    }
    Ok(deleted)
}
