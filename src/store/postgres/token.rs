//! Families of refresh tokens.

use std::time::SystemTime;

use async_trait::async_trait;
use sqlx::{PgConnection, query, query_as, query_scalar};

use super::{
    super::sql::{FamilyRow, TokenRow, carry_out, family, stored_token, to_micros},
    PostgresStore,
    pool::begin,
};
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    token::{
        Family, FamilyId, NewFamily, RevokeReason, RotateRequest, Rotation, StoredToken,
        TokenStore, Verdict, judge, token_expiry,
    },
};

#[async_trait]
impl TokenStore for PostgresStore {
    async fn open_family(&self, family: NewFamily) -> Result<(), StoreError> {
        carry_out(&self.pool, family, |c, family| Box::pin(open_family(c, family))).await
    }

    async fn family(&self, token: &TokenHash) -> Result<Option<Family>, StoreError> {
        carry_out(&self.pool, *token, |c, token| Box::pin(family_of(c, token))).await
    }

    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError> {
        carry_out(&self.pool, request, |c, request| Box::pin(rotate(c, request))).await
    }

    async fn revoke_family(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        carry_out(&self.pool, (*token, clock.clone()), |c, (token, clock)| {
            Box::pin(revoke_family(c, token, clock))
        })
        .await
    }

    async fn revoke_user(&self, user: &UserId, clock: &SharedClock) -> Result<u64, StoreError> {
        carry_out(&self.pool, (user.clone(), clock.clone()), |c, (user, clock)| {
            Box::pin(revoke_user(c, user, clock))
        })
        .await
    }

    async fn delete_expired_sessions(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        carry_out(&self.pool, (before, at_most), |c, (before, at_most)| {
            Box::pin(delete_expired_sessions(c, *before, *at_most))
        })
        .await
    }
}

async fn open_family(connection: &mut PgConnection, new: &NewFamily) -> sqlx::Result<()> {
    let mut tx = begin(connection).await?;
    query(
        "INSERT INTO tower_warden.families (id, user_id, created_at, last_used_at, expires_at)
         VALUES ($1, $2, $3, $3, $4)",
    )
    .bind(new.id.as_str())
    .bind(new.user_id.as_str())
    .bind(to_micros(new.created_at))
    .bind(new.expires_at.map(to_micros))
    .execute(&mut *tx)
    .await?;
    let token = StoredToken {
        generation: 0,
        issued_at: new.created_at,
        expires_at: new.token_expires_at,
        superseded_at: None,
    };
    insert_token(&mut tx, &new.id, &new.token, &token).await?;
    tx.commit().await
}

async fn family_of(
    connection: &mut PgConnection,
    token: &TokenHash,
) -> sqlx::Result<Option<Family>> {
    let row: Option<FamilyRow> = query_as(
        "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason
         FROM tower_warden.families
         WHERE id = (SELECT family_id FROM tower_warden.refresh_tokens WHERE hash = $1)",
    )
    .bind(&token.as_bytes()[..])
    .fetch_optional(connection)
    .await?;
    row.map(family).transpose()
}

async fn rotate(connection: &mut PgConnection, request: &RotateRequest) -> sqlx::Result<Rotation> {
    let mut tx = begin(connection).await?;
    let Some(family) = lock_family(&mut tx, &request.presented).await? else {
        return Ok(Rotation::Unknown);
    };
    let Some(token) = read_token(&mut tx, &request.presented).await? else {
        return Ok(Rotation::Unknown);
    };
    let now = request.clock.now();
    match judge(now, &family, &token) {
        Verdict::Expired => Ok(Rotation::Expired),
        Verdict::Revoked => Ok(Rotation::Revoked),
        Verdict::Reuse => {
            revoke(&mut tx, &family.id, now, RevokeReason::Reuse).await?;
            tx.commit().await?;
            Ok(Rotation::Reused { family: family.id, user_id: family.user_id })
        }
        Verdict::Rotate => {
            supersede(&mut tx, &family.id, &request.presented, now).await?;
            let successor = StoredToken {
                generation: token.generation.saturating_add(1),
                issued_at: now,
                expires_at: token_expiry(now, request.time_to_live, family.expires_at),
                superseded_at: None,
            };
            insert_token(&mut tx, &family.id, &request.successor, &successor).await?;
            tx.commit().await?;
            Ok(Rotation::Rotated { family: family.id })
        }
    }
}

async fn revoke_family(
    connection: &mut PgConnection,
    token: &TokenHash,
    clock: &SharedClock,
) -> sqlx::Result<bool> {
    let mut tx = begin(connection).await?;
    match lock_family(&mut tx, token).await? {
        Some(family) if family.revoked.is_none() => {
            revoke(&mut tx, &family.id, clock.now(), RevokeReason::Logout).await?;
            tx.commit().await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

async fn revoke_user(
    connection: &mut PgConnection,
    user: &UserId,
    clock: &SharedClock,
) -> sqlx::Result<u64> {
    let mut tx = begin(connection).await?;
    // In one order, so that two who leave every session at once don't deadlock.
    let families: Vec<String> = query_scalar(
        "SELECT id FROM tower_warden.families
         WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id FOR UPDATE",
    )
    .bind(user.as_str())
    .fetch_all(&mut *tx)
    .await?;
    let revoked = query(
        "UPDATE tower_warden.families SET revoked_at = $2, revoked_reason = $3 WHERE id = ANY ($1)",
    )
    .bind(families)
    .bind(to_micros(clock.now()))
    .bind(RevokeReason::LogoutAll.as_str())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(revoked.rows_affected())
}

/// Token and family are both locked, so that one rotated since the statement began is read anew,
/// and stays.
async fn delete_expired_sessions(
    connection: &mut PgConnection,
    before: SystemTime,
    at_most: u32,
) -> sqlx::Result<u64> {
    let deleted = query(
        "DELETE FROM tower_warden.families
         WHERE id = ANY (ARRAY(
             SELECT family.id
             FROM tower_warden.refresh_tokens AS token
             JOIN tower_warden.families AS family ON family.id = token.family_id
             WHERE token.superseded_at IS NULL AND token.expires_at < $1
             ORDER BY token.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(to_micros(before))
    .bind(i64::from(at_most))
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// The family of a token, which nobody else writes until the transaction ends.
async fn lock_family(
    connection: &mut PgConnection,
    token: &TokenHash,
) -> sqlx::Result<Option<Family>> {
    let row: Option<FamilyRow> = query_as(
        "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason
         FROM tower_warden.families
         WHERE id = (SELECT family_id FROM tower_warden.refresh_tokens WHERE hash = $1)
         FOR UPDATE",
    )
    .bind(&token.as_bytes()[..])
    .fetch_optional(connection)
    .await?;
    row.map(family).transpose()
}

/// Only sound once the family is locked, and in a statement of its own: the one that waited for
/// the lock sees tokens as they were before.
async fn read_token(
    connection: &mut PgConnection,
    token: &TokenHash,
) -> sqlx::Result<Option<StoredToken>> {
    let row: Option<TokenRow> = query_as(
        "SELECT generation, issued_at, expires_at, superseded_at
         FROM tower_warden.refresh_tokens WHERE hash = $1",
    )
    .bind(&token.as_bytes()[..])
    .fetch_optional(connection)
    .await?;
    row.map(stored_token).transpose()
}

async fn insert_token(
    connection: &mut PgConnection,
    family: &FamilyId,
    hash: &TokenHash,
    token: &StoredToken,
) -> sqlx::Result<()> {
    query(
        "INSERT INTO tower_warden.refresh_tokens
            (hash, family_id, generation, issued_at, expires_at, superseded_at)
         VALUES ($1, $2, $3, $4, $5, NULL)",
    )
    .bind(&hash.as_bytes()[..])
    .bind(family.as_str())
    .bind(i64::from(token.generation))
    .bind(to_micros(token.issued_at))
    .bind(to_micros(token.expires_at))
    .execute(connection)
    .await?;
    Ok(())
}

async fn supersede(
    connection: &mut PgConnection,
    family: &FamilyId,
    token: &TokenHash,
    now: SystemTime,
) -> sqlx::Result<()> {
    query("UPDATE tower_warden.families SET last_used_at = $2 WHERE id = $1")
        .bind(family.as_str())
        .bind(to_micros(now))
        .execute(&mut *connection)
        .await?;
    query("UPDATE tower_warden.refresh_tokens SET superseded_at = $2 WHERE hash = $1")
        .bind(&token.as_bytes()[..])
        .bind(to_micros(now))
        .execute(connection)
        .await?;
    Ok(())
}

async fn revoke(
    connection: &mut PgConnection,
    family: &FamilyId,
    now: SystemTime,
    reason: RevokeReason,
) -> sqlx::Result<()> {
    query("UPDATE tower_warden.families SET revoked_at = $2, revoked_reason = $3 WHERE id = $1")
        .bind(family.as_str())
        .bind(to_micros(now))
        .bind(reason.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
