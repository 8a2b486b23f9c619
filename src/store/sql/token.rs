//! Families of refresh tokens.

use std::time::SystemTime;

use async_trait::async_trait;

use super::{
    Row, SqlStore, Value, Wing,
    statement::{Statement, sql},
    verb::Tx,
};
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    token::{
        Family, FamilyId, NewFamily, RenewRequest, Renewed, RevokeReason, RotateRequest, Rotation,
        StoredToken, TokenStore, Verdict, judge, token_expiry,
    },
};

const INSERT_FAMILY: Statement = sql!(
    "INSERT INTO " families " (id, user_id, created_at, last_used_at, expires_at)
     VALUES ($1, $2, $3, $3, $4)"
);
const FAMILY_OF: Statement = sql!(
    "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason
     FROM " families "
     WHERE id = (SELECT family_id FROM " refresh_tokens " WHERE hash = $1)"
);
const LOCK_FAMILY: Statement = sql!(
    "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason
     FROM " families "
     WHERE id = (SELECT family_id FROM " refresh_tokens " WHERE hash = $1)" lock
);
const LOCK_FAMILY_BY_ID: Statement = sql!(
    "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason
     FROM " families " WHERE id = $1" lock
);
const LIVE_TOKEN: Statement = sql!(
    "SELECT generation, issued_at, expires_at, superseded_at
     FROM " refresh_tokens " WHERE family_id = $1 AND superseded_at IS NULL"
);
const TOKEN: Statement = sql!(
    "SELECT generation, issued_at, expires_at, superseded_at FROM " refresh_tokens " WHERE hash = $1"
);
const INSERT_TOKEN: Statement = sql!(
    "INSERT INTO " refresh_tokens "
        (hash, family_id, generation, issued_at, expires_at, superseded_at)
     VALUES ($1, $2, $3, $4, $5, NULL)"
);
const USE_FAMILY: Statement = sql!("UPDATE " families " SET last_used_at = $2 WHERE id = $1");
const SUPERSEDE: Statement =
    sql!("UPDATE " refresh_tokens " SET superseded_at = $2 WHERE hash = $1");
const SUPERSEDE_LIVE: Statement = sql!(
    "UPDATE " refresh_tokens " SET superseded_at = $2
     WHERE family_id = $1 AND superseded_at IS NULL"
);
const REVOKE: Statement =
    sql!("UPDATE " families " SET revoked_at = $2, revoked_reason = $3 WHERE id = $1");
const LOCK_FAMILIES_OF: Statement = sql!(
    "SELECT id FROM " families " WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id" lock
);
const REVOKE_ALL: Statement = sql!(
    "UPDATE " families " SET revoked_at = $2, revoked_reason = $3
     WHERE user_id = $1 AND revoked_at IS NULL AND ($4 IS NULL OR id <> $4)"
);
const LOCK_EPOCH: Statement = sql!("SELECT epoch, suspended_at FROM " users " WHERE id = $1" lock);
/// Token and family are both locked, so that one rotated since the statement began is read anew,
/// and stays.
const DELETE_EXPIRED: Statement = sql!(
    "DELETE FROM " families " WHERE id" one_of
        "SELECT family.id
         FROM " refresh_tokens " AS token
         JOIN " families " AS family ON family.id = token.family_id
         WHERE token.superseded_at IS NULL AND token.expires_at < $1
         ORDER BY token.expires_at LIMIT $2" skip_locked end
);

#[async_trait]
impl<W: Wing> TokenStore for SqlStore<W> {
    async fn open_family(&self, family: NewFamily) -> Result<bool, StoreError> {
        self.transact(family, |tx, family| Box::pin(open_family(tx, family))).await
    }

    async fn family(&self, token: &TokenHash) -> Result<Option<Family>, StoreError> {
        self.ask(*token, |tx, token| Box::pin(family_of(tx, token))).await
    }

    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError> {
        self.transact(request, |tx, request| Box::pin(rotate(tx, request))).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<Option<Renewed>, StoreError> {
        self.transact(request, |tx, request| Box::pin(renew(tx, request))).await
    }

    async fn revoke_family(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        self.transact((*token, clock.clone()), |tx, (token, clock)| {
            Box::pin(revoke_family(tx, token, clock))
        })
        .await
    }

    async fn revoke_user(&self, user: &UserId, clock: &SharedClock) -> Result<u64, StoreError> {
        self.transact((user.clone(), clock.clone()), |tx, (user, clock)| {
            Box::pin(revoke_user(tx, user, clock))
        })
        .await
    }

    async fn delete_expired_sessions(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        self.ask((before, at_most), |tx, (before, at_most)| {
            Box::pin(async move {
                tx.execute(&DELETE_EXPIRED, [(*before).into(), (*at_most).into()]).await
            })
        })
        .await
    }
}

async fn open_family(tx: &mut Tx<'_>, new: &NewFamily) -> sqlx::Result<bool> {
    if let Some(epoch) = new.epoch
        && !is_epoch(tx, &new.user_id, epoch).await?
    {
        return Ok(false);
    }
    let family =
        [(&new.id).into(), (&new.user_id).into(), new.created_at.into(), new.expires_at.into()];
    tx.execute(&INSERT_FAMILY, family).await?;
    let token = StoredToken {
        generation: 0,
        issued_at: new.created_at,
        expires_at: new.token_expires_at,
        superseded_at: None,
    };
    insert_token(tx, &new.id, &new.token, &token).await?;
    Ok(true)
}

/// Whether the account may be used, and is in this epoch, until the transaction ends.
async fn is_epoch(tx: &mut Tx<'_>, user: &UserId, epoch: u64) -> sqlx::Result<bool> {
    let Some(mut row) = tx.one(&LOCK_EPOCH, [user.into()]).await? else { return Ok(false) };
    let (now, suspended_at): (i64, Option<SystemTime>) = (row.take()?, row.take()?);
    Ok(now.unsigned_abs() == epoch && suspended_at.is_none())
}

async fn family_of(tx: &mut Tx<'_>, token: &TokenHash) -> sqlx::Result<Option<Family>> {
    tx.one(&FAMILY_OF, [token.into()]).await?.map(family).transpose()
}

async fn rotate(tx: &mut Tx<'_>, request: &RotateRequest) -> sqlx::Result<Rotation> {
    let Some(family) = lock_family(tx, &request.presented).await? else {
        return Ok(Rotation::Unknown);
    };
    let Some(token) = read_token(tx, &request.presented).await? else {
        return Ok(Rotation::Unknown);
    };
    let now = request.clock.now();
    match judge(now, &family, &token) {
        Verdict::Expired => Ok(Rotation::Expired),
        Verdict::Revoked => Ok(Rotation::Revoked),
        Verdict::Reuse => {
            revoke(tx, &family.id, now, RevokeReason::Reuse).await?;
            Ok(Rotation::Reused { family: family.id, user_id: family.user_id })
        }
        Verdict::Rotate => {
            tx.execute(&USE_FAMILY, [(&family.id).into(), now.into()]).await?;
            tx.execute(&SUPERSEDE, [(&request.presented).into(), now.into()]).await?;
            let successor = StoredToken {
                generation: token.generation.saturating_add(1),
                issued_at: now,
                expires_at: token_expiry(now, request.time_to_live, family.expires_at),
                superseded_at: None,
            };
            insert_token(tx, &family.id, &request.successor, &successor).await?;
            Ok(Rotation::Rotated { family: family.id })
        }
    }
}

async fn renew(tx: &mut Tx<'_>, request: &RenewRequest) -> sqlx::Result<Option<Renewed>> {
    let locked = tx.one(&LOCK_FAMILY_BY_ID, [(&request.family).into()]).await?;
    let Some(family) = locked.map(family).transpose()? else { return Ok(None) };
    let live = tx.one(&LIVE_TOKEN, [(&family.id).into()]).await?;
    let Some(live) = live.map(stored_token).transpose()? else { return Ok(None) };
    let now = request.clock.now();
    if family.user_id != request.user_id || judge(now, &family, &live) != Verdict::Rotate {
        return Ok(None);
    }
    tx.execute(&USE_FAMILY, [(&family.id).into(), now.into()]).await?;
    tx.execute(&SUPERSEDE_LIVE, [(&family.id).into(), now.into()]).await?;
    let successor = StoredToken {
        generation: live.generation.saturating_add(1),
        issued_at: now,
        expires_at: token_expiry(now, request.time_to_live, family.expires_at),
        superseded_at: None,
    };
    insert_token(tx, &family.id, &request.successor, &successor).await?;
    Ok(Some(Renewed::new(family, successor.expires_at)))
}

async fn revoke_family(
    tx: &mut Tx<'_>,
    token: &TokenHash,
    clock: &SharedClock,
) -> sqlx::Result<bool> {
    match lock_family(tx, token).await? {
        Some(family) if family.revoked.is_none() => {
            revoke(tx, &family.id, clock.now(), RevokeReason::Logout).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// All are locked, always in the same order, before the first is written.
async fn revoke_user(tx: &mut Tx<'_>, user: &UserId, clock: &SharedClock) -> sqlx::Result<u64> {
    tx.all(&LOCK_FAMILIES_OF, [user.into()]).await?;
    let reason = RevokeReason::LogoutAll.as_str();
    tx.execute(&REVOKE_ALL, [user.into(), clock.now().into(), reason.into(), Value::Null]).await
}

/// Ends all sessions of a user, except one. The user is locked already.
pub(super) async fn end_sessions(
    tx: &mut Tx<'_>,
    user: &UserId,
    except: Option<&str>,
    now: SystemTime,
    reason: RevokeReason,
) -> sqlx::Result<()> {
    tx.all(&LOCK_FAMILIES_OF, [user.into()]).await?;
    let row = [user.into(), now.into(), reason.as_str().into(), except.into()];
    tx.execute(&REVOKE_ALL, row).await?;
    Ok(())
}

/// The family of a token, which nobody else writes until the transaction ends.
async fn lock_family(tx: &mut Tx<'_>, token: &TokenHash) -> sqlx::Result<Option<Family>> {
    tx.one(&LOCK_FAMILY, [token.into()]).await?.map(family).transpose()
}

/// Only sound once the family is locked, and in a statement of its own: the one that waited for
/// the lock sees tokens as they were before.
async fn read_token(tx: &mut Tx<'_>, token: &TokenHash) -> sqlx::Result<Option<StoredToken>> {
    tx.one(&TOKEN, [token.into()]).await?.map(stored_token).transpose()
}

async fn insert_token(
    tx: &mut Tx<'_>,
    family: &FamilyId,
    hash: &TokenHash,
    token: &StoredToken,
) -> sqlx::Result<()> {
    let row = [
        hash.into(),
        family.into(),
        token.generation.into(),
        token.issued_at.into(),
        token.expires_at.into(),
    ];
    tx.execute(&INSERT_TOKEN, row).await?;
    Ok(())
}

async fn revoke(
    tx: &mut Tx<'_>,
    family: &FamilyId,
    now: SystemTime,
    reason: RevokeReason,
) -> sqlx::Result<()> {
    tx.execute(&REVOKE, [family.into(), now.into(), reason.as_str().into()]).await?;
    Ok(())
}

fn family(mut row: Row) -> sqlx::Result<Family> {
    Ok(Family {
        id: row.take()?,
        user_id: row.take()?,
        created_at: row.take()?,
        last_used_at: row.take()?,
        expires_at: row.take()?,
        revoked: revoked(&mut row)?,
    })
}

fn revoked(row: &mut Row) -> sqlx::Result<Option<(SystemTime, RevokeReason)>> {
    let (at, reason): (Option<SystemTime>, Option<String>) = (row.take()?, row.take()?);
    // A newer server may know more reasons. That the family is revoked is what counts.
    let reason = reason.as_deref().and_then(RevokeReason::parse).unwrap_or(RevokeReason::Logout);
    Ok(at.map(|at| (at, reason)))
}

fn stored_token(mut row: Row) -> sqlx::Result<StoredToken> {
    Ok(StoredToken {
        generation: row.take()?,
        issued_at: row.take()?,
        expires_at: row.take()?,
        superseded_at: row.take()?,
    })
}
