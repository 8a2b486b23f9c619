//! Users.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use sqlx::{SqliteConnection, query, query_as, query_scalar};

use super::{
    super::sql::{UserRow, carry_out, to_micros, user},
    SqliteStore,
    pool::begin,
};
use crate::{
    Plan, Role, StoreError, TokenHash, UserId,
    user::{
        CreateUserError, Email, NewUser, PasswordHash, UpdateUserError, User, UserChange,
        UserStore, VerificationToken,
    },
};

#[async_trait]
impl UserStore for SqliteStore {
    async fn create(&self, user: NewUser) -> Result<User, CreateUserError> {
        carry_out(&self.pool, user, |c, user| Box::pin(create(c, user)))
            .await?
            .ok_or(CreateUserError::EmailTaken)
    }

    async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        carry_out(&self.pool, id.clone(), |c, id| Box::pin(find(c, id.as_str()))).await
    }

    async fn find_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        carry_out(&self.pool, email.clone(), |c, email| Box::pin(find_by_email(c, email))).await
    }

    async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError> {
        carry_out(&self.pool, (id.clone(), change), |c, (id, change)| {
            Box::pin(update(c, id, change))
        })
        .await?
    }

    async fn replace_password_hash(
        &self,
        id: &UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, StoreError> {
        let arguments = (id.clone(), old.clone(), new.clone());
        carry_out(&self.pool, arguments, |c, (id, old, new)| {
            Box::pin(replace_password_hash(c, id, old, new))
        })
        .await
    }

    async fn renew_verification(
        &self,
        email: &Email,
        token: VerificationToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        let arguments = (email.clone(), token, at_most_every);
        carry_out(&self.pool, arguments, |c, (email, token, at_most_every)| {
            Box::pin(renew_verification(c, email, token, *at_most_every))
        })
        .await
    }

    async fn find_verification(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        carry_out(&self.pool, (*token, now), |c, (token, now)| {
            Box::pin(find_verification(c, token, *now))
        })
        .await
    }

    async fn verify_email(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        carry_out(&self.pool, (*token, now), |c, (token, now)| {
            Box::pin(verify_email(c, token, *now))
        })
        .await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        carry_out(&self.pool, (), |c, ()| Box::pin(count(c))).await
    }

    async fn delete_expired_links(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        carry_out(&self.pool, (before, at_most), |c, (before, at_most)| {
            Box::pin(delete_expired_links(c, *before, *at_most))
        })
        .await
    }
}

/// Nothing where the address is taken.
async fn create(connection: &mut SqliteConnection, new: &NewUser) -> sqlx::Result<Option<User>> {
    let mut tx = begin(connection).await?;
    let created = query(
        "INSERT INTO tower_warden_users
            (id, email, password_hash, role, plan, email_verified, created_at)
         VALUES ($1, $2, $3, $4, NULL, $5, $6)
         ON CONFLICT (email) DO NOTHING",
    )
    .bind(new.id.as_str())
    .bind(new.email.as_str())
    .bind(new.password_hash.expose())
    .bind(new.role.as_str())
    .bind(new.verification.is_none())
    .bind(to_micros(new.created_at))
    .execute(&mut *tx)
    .await?;
    if created.rows_affected() == 0 {
        return Ok(None);
    }
    if let Some(token) = &new.verification {
        put_verification(&mut tx, new.id.as_str(), token, i64::MAX).await?;
    }
    let user = find(&mut tx, new.id.as_str()).await?;
    tx.commit().await?;
    Ok(user)
}

async fn find(connection: &mut SqliteConnection, id: &str) -> sqlx::Result<Option<User>> {
    let row: Option<UserRow> = query_as(
        "SELECT id, email, role, plan, email_verified, created_at
         FROM tower_warden_users WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.map(user).transpose()
}

async fn find_by_email(
    connection: &mut SqliteConnection,
    email: &Email,
) -> sqlx::Result<Option<(User, PasswordHash)>> {
    type Row = (String, String, String, Option<String>, bool, i64, String);
    let row: Option<Row> = query_as(
        "SELECT id, email, role, plan, email_verified, created_at, password_hash
         FROM tower_warden_users WHERE email = $1",
    )
    .bind(email.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(|(id, email, role, plan, verified, created_at, hash)| {
        let user = user((id, email, role, plan, verified, created_at))?;
        Ok((user, PasswordHash::from(hash)))
    })
    .transpose()
}

async fn update(
    connection: &mut SqliteConnection,
    id: &UserId,
    change: &UserChange,
) -> sqlx::Result<Result<User, UpdateUserError>> {
    let mut tx = begin(connection).await?;
    if change.role.as_ref().is_some_and(|role| *role != Role::ADMIN) {
        let admins: Vec<String> = query_scalar(
            "SELECT id FROM tower_warden_users WHERE role = 'admin' AND email_verified",
        )
        .fetch_all(&mut *tx)
        .await?;
        if admins == [id.as_str()] {
            return Ok(Err(UpdateUserError::LastAdmin));
        }
    }
    query(
        "UPDATE tower_warden_users
         SET role = coalesce($2, role),
             plan = CASE WHEN $3 THEN $4 ELSE plan END,
             email_verified = email_verified OR $5
         WHERE id = $1",
    )
    .bind(id.as_str())
    .bind(change.role.as_ref().map(Role::as_str))
    .bind(change.plan.is_some())
    .bind(change.plan.iter().flatten().next().map(Plan::as_str))
    .bind(change.verify_email)
    .execute(&mut *tx)
    .await?;
    let user = find(&mut tx, id.as_str()).await?;
    tx.commit().await?;
    Ok(user.ok_or(UpdateUserError::NotFound))
}

async fn replace_password_hash(
    connection: &mut SqliteConnection,
    id: &UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> sqlx::Result<bool> {
    let replaced = query(
        "UPDATE tower_warden_users SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
    )
    .bind(id.as_str())
    .bind(old.expose())
    .bind(new.expose())
    .execute(connection)
    .await?;
    Ok(replaced.rows_affected() == 1)
}

async fn renew_verification(
    connection: &mut SqliteConnection,
    email: &Email,
    token: &VerificationToken,
    at_most_every: Duration,
) -> sqlx::Result<Option<User>> {
    let mut tx = begin(connection).await?;
    let id: Option<String> =
        query_scalar("SELECT id FROM tower_warden_users WHERE email = $1 AND NOT email_verified")
            .bind(email.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    let Some(id) = id else { return Ok(None) };
    let interval = i64::try_from(at_most_every.as_micros()).unwrap_or(i64::MAX);
    let made_by = to_micros(token.created_at).saturating_sub(interval);
    if !put_verification(&mut tx, &id, token, made_by).await? {
        return Ok(None);
    }
    let user = find(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(user)
}

/// Gives a user a verification token in place of one that was made by then; answers whether it
/// did.
async fn put_verification(
    connection: &mut SqliteConnection,
    user_id: &str,
    token: &VerificationToken,
    made_by: i64,
) -> sqlx::Result<bool> {
    let put = query(
        "INSERT INTO tower_warden_verification_tokens AS old (user_id, hash, created_at, expires_at)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (user_id) DO UPDATE
         SET hash = excluded.hash,
             created_at = excluded.created_at,
             expires_at = excluded.expires_at
         WHERE old.created_at <= $5",
    )
    .bind(user_id)
    .bind(&token.hash.as_bytes()[..])
    .bind(to_micros(token.created_at))
    .bind(to_micros(token.expires_at))
    .bind(made_by)
    .execute(connection)
    .await?;
    Ok(put.rows_affected() == 1)
}

async fn find_verification(
    connection: &mut SqliteConnection,
    token: &TokenHash,
    now: SystemTime,
) -> sqlx::Result<Option<UserId>> {
    let id: Option<String> = query_scalar(
        "SELECT user_id FROM tower_warden_verification_tokens WHERE hash = $1 AND expires_at > $2",
    )
    .bind(&token.as_bytes()[..])
    .bind(to_micros(now))
    .fetch_optional(connection)
    .await?;
    Ok(id.map(UserId::from))
}

async fn verify_email(
    connection: &mut SqliteConnection,
    token: &TokenHash,
    now: SystemTime,
) -> sqlx::Result<Option<User>> {
    let mut tx = begin(connection).await?;
    let id: Option<String> = query_scalar(
        "SELECT id FROM tower_warden_users
         WHERE id = (SELECT user_id FROM tower_warden_verification_tokens WHERE hash = $1)",
    )
    .bind(&token.as_bytes()[..])
    .fetch_optional(&mut *tx)
    .await?;
    let Some(id) = id else { return Ok(None) };
    let consumed =
        query("DELETE FROM tower_warden_verification_tokens WHERE hash = $1 AND expires_at > $2")
            .bind(&token.as_bytes()[..])
            .bind(to_micros(now))
            .execute(&mut *tx)
            .await?;
    if consumed.rows_affected() == 0 {
        return Ok(None);
    }
    query("UPDATE tower_warden_users SET email_verified = TRUE WHERE id = $1")
        .bind(&id)
        .execute(&mut *tx)
        .await?;
    let user = find(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(user)
}

async fn count(connection: &mut SqliteConnection) -> sqlx::Result<u64> {
    let users: i64 =
        query_scalar("SELECT count(*) FROM tower_warden_users").fetch_one(connection).await?;
    Ok(users.unsigned_abs())
}

async fn delete_expired_links(
    connection: &mut SqliteConnection,
    before: SystemTime,
    at_most: u32,
) -> sqlx::Result<u64> {
    let deleted = query(
        "DELETE FROM tower_warden_verification_tokens
         WHERE user_id IN (
             SELECT user_id FROM tower_warden_verification_tokens
             WHERE expires_at < $1
             ORDER BY expires_at LIMIT $2)",
    )
    .bind(to_micros(before))
    .bind(i64::from(at_most))
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
