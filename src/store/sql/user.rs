//! Users.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    Row, SqlStore, Wing,
    statement::{Statement, sql},
    value::to_micros,
    verb::Tx,
};
use crate::{
    Role, StoreError, TokenHash, UserId,
    user::{
        CreateUserError, Email, NewUser, PasswordHash, UpdateUserError, User, UserChange,
        UserStore, VerificationToken,
    },
};

const INSERT: Statement = sql!(
    "INSERT INTO " users " (id, email, password_hash, role, plan, email_verified, created_at)
     VALUES ($1, $2, $3, $4, NULL, $5, $6)
     ON CONFLICT (email) DO NOTHING"
);
const FIND: Statement = sql!(
    "SELECT id, email, role, plan, email_verified, created_at,
        id IN (SELECT user_id FROM " second_factors " WHERE user_id = $1 AND on_since IS NOT NULL)
     FROM " users " WHERE id = $1"
);
const FIND_BY_EMAIL: Statement = sql!(
    "SELECT id, email, role, plan, email_verified, created_at,
        id IN (SELECT user_id FROM " second_factors " WHERE on_since IS NOT NULL), password_hash
     FROM " users " WHERE email = $1"
);
/// Always in the same order. One whom another transaction demoted while we waited is read anew, and
/// is not among them.
const LOCK_ADMINS: Statement = sql!(
    "SELECT id FROM " users " WHERE role = 'admin' AND email_verified ORDER BY id" lock
);
const UPDATE: Statement = sql!(
    "UPDATE " users "
     SET role = coalesce($2, role),
         plan = CASE WHEN $3 THEN $4 ELSE plan END,
         email_verified = email_verified OR $5
     WHERE id = $1"
);
const REPLACE_PASSWORD_HASH: Statement =
    sql!("UPDATE " users " SET password_hash = $3 WHERE id = $1 AND password_hash = $2");
const LOCK_UNVERIFIED: Statement =
    sql!("SELECT id FROM " users " WHERE email = $1 AND NOT email_verified" lock);
const PUT_VERIFICATION: Statement = sql!(
    "INSERT INTO " verification_tokens " AS old (user_id, hash, created_at, expires_at)
     VALUES ($1, $2, $3, $4)
     ON CONFLICT (user_id) DO UPDATE
     SET hash = excluded.hash, created_at = excluded.created_at, expires_at = excluded.expires_at
     WHERE old.created_at <= $5"
);
const FIND_VERIFICATION: Statement = sql!(
    "SELECT user_id FROM " verification_tokens " WHERE hash = $1 AND expires_at > $2"
);
const LOCK_USER_OF_VERIFICATION: Statement = sql!(
    "SELECT id FROM " users "
     WHERE id = (SELECT user_id FROM " verification_tokens " WHERE hash = $1)" lock
);
const CONSUME_VERIFICATION: Statement =
    sql!("DELETE FROM " verification_tokens " WHERE hash = $1 AND expires_at > $2");
const VERIFY: Statement = sql!("UPDATE " users " SET email_verified = TRUE WHERE id = $1");
const COUNT: Statement = sql!("SELECT count(*) FROM " users);
const DELETE_EXPIRED: Statement = sql!(
    "DELETE FROM " verification_tokens " WHERE user_id" one_of
        "SELECT user_id FROM " verification_tokens "
         WHERE expires_at < $1 ORDER BY expires_at LIMIT $2" skip_locked end
);

#[async_trait]
impl<W: Wing> UserStore for SqlStore<W> {
    async fn create(&self, user: NewUser) -> Result<User, CreateUserError> {
        self.transact(user, |tx, user| Box::pin(create(tx, user)))
            .await?
            .ok_or(CreateUserError::EmailTaken)
    }

    async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        self.ask(id.clone(), |tx, id| Box::pin(find(tx, id))).await
    }

    async fn find_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        self.ask(email.clone(), |tx, email| Box::pin(find_by_email(tx, email))).await
    }

    async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError> {
        self.transact((id.clone(), change), |tx, (id, change)| Box::pin(update(tx, id, change)))
            .await?
    }

    async fn replace_password_hash(
        &self,
        id: &UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, StoreError> {
        self.ask((id.clone(), old.clone(), new.clone()), |tx, (id, old, new)| {
            Box::pin(replace_password_hash(tx, id, old, new))
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
        self.transact(arguments, |tx, (email, token, at_most_every)| {
            Box::pin(renew_verification(tx, email, token, *at_most_every))
        })
        .await
    }

    async fn find_verification(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        self.ask((*token, now), |tx, (token, now)| Box::pin(find_verification(tx, token, *now)))
            .await
    }

    async fn verify_email(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        self.transact((*token, now), |tx, (token, now)| Box::pin(verify_email(tx, token, *now)))
            .await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.ask((), |tx, ()| Box::pin(count(tx))).await
    }

    async fn delete_expired_links(
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

/// Nothing where the address is taken.
async fn create(tx: &mut Tx<'_>, new: &NewUser) -> sqlx::Result<Option<User>> {
    let row = [
        (&new.id).into(),
        (&new.email).into(),
        (&new.password_hash).into(),
        (&new.role).into(),
        new.verification.is_none().into(),
        new.created_at.into(),
    ];
    if tx.execute(&INSERT, row).await? == 0 {
        return Ok(None);
    }
    if let Some(token) = &new.verification {
        put_verification(tx, &new.id, token, i64::MAX).await?;
    }
    find(tx, &new.id).await
}

async fn find(tx: &mut Tx<'_>, id: &UserId) -> sqlx::Result<Option<User>> {
    tx.one(&FIND, [id.into()]).await?.map(|mut row| user(&mut row)).transpose()
}

async fn find_by_email(
    tx: &mut Tx<'_>,
    email: &Email,
) -> sqlx::Result<Option<(User, PasswordHash)>> {
    let row = tx.one(&FIND_BY_EMAIL, [email.into()]).await?;
    row.map(|mut row| Ok((user(&mut row)?, row.take()?))).transpose()
}

async fn update(
    tx: &mut Tx<'_>,
    id: &UserId,
    change: &UserChange,
) -> sqlx::Result<Result<User, UpdateUserError>> {
    if change.role.as_ref().is_some_and(|role| *role != Role::ADMIN) {
        let mut admins = tx.all(&LOCK_ADMINS, []).await?;
        if let [admin] = &mut *admins
            && admin.take::<UserId>()? == *id
        {
            return Ok(Err(UpdateUserError::LastAdmin));
        }
    }
    let changes = [
        id.into(),
        change.role.as_ref().into(),
        change.plan.is_some().into(),
        change.plan.iter().flatten().next().into(),
        change.verify_email.into(),
    ];
    tx.execute(&UPDATE, changes).await?;
    Ok(find(tx, id).await?.ok_or(UpdateUserError::NotFound))
}

async fn replace_password_hash(
    tx: &mut Tx<'_>,
    id: &UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> sqlx::Result<bool> {
    Ok(tx.execute(&REPLACE_PASSWORD_HASH, [id.into(), old.into(), new.into()]).await? == 1)
}

async fn renew_verification(
    tx: &mut Tx<'_>,
    email: &Email,
    token: &VerificationToken,
    at_most_every: Duration,
) -> sqlx::Result<Option<User>> {
    let Some(mut row) = tx.one(&LOCK_UNVERIFIED, [email.into()]).await? else { return Ok(None) };
    let id = row.take()?;
    let interval = i64::try_from(at_most_every.as_micros()).unwrap_or(i64::MAX);
    let made_by = to_micros(token.created_at).saturating_sub(interval);
    if !put_verification(tx, &id, token, made_by).await? {
        return Ok(None);
    }
    find(tx, &id).await
}

/// Gives a user a verification token in place of one that was made by then; answers whether it
/// did.
async fn put_verification(
    tx: &mut Tx<'_>,
    id: &UserId,
    token: &VerificationToken,
    made_by: i64,
) -> sqlx::Result<bool> {
    let row = [
        id.into(),
        (&token.hash).into(),
        token.created_at.into(),
        token.expires_at.into(),
        made_by.into(),
    ];
    Ok(tx.execute(&PUT_VERIFICATION, row).await? == 1)
}

async fn find_verification(
    tx: &mut Tx<'_>,
    token: &TokenHash,
    now: SystemTime,
) -> sqlx::Result<Option<UserId>> {
    let row = tx.one(&FIND_VERIFICATION, [token.into(), now.into()]).await?;
    row.map(|mut row| row.take()).transpose()
}

async fn verify_email(
    tx: &mut Tx<'_>,
    token: &TokenHash,
    now: SystemTime,
) -> sqlx::Result<Option<User>> {
    let Some(mut row) = tx.one(&LOCK_USER_OF_VERIFICATION, [token.into()]).await? else {
        return Ok(None);
    };
    let id: UserId = row.take()?;
    if tx.execute(&CONSUME_VERIFICATION, [token.into(), now.into()]).await? == 0 {
        return Ok(None);
    }
    tx.execute(&VERIFY, [(&id).into()]).await?;
    find(tx, &id).await
}

async fn count(tx: &mut Tx<'_>) -> sqlx::Result<u64> {
    let users: Option<i64> = tx.one(&COUNT, []).await?.map(|mut row| row.take()).transpose()?;
    Ok(users.unwrap_or_default().unsigned_abs())
}

/// `id, email, role, plan, email_verified, created_at`, whether a second factor is on
fn user(row: &mut Row) -> sqlx::Result<User> {
    let (id, email, role): (UserId, Email, Role) = (row.take()?, row.take()?, row.take()?);
    let (plan, email_verified) = (row.take()?, row.take()?);
    let mut user = User::new(id, email, role, row.take()?);
    user.plan = plan;
    user.email_verified = email_verified;
    user.second_factor = row.take()?;
    Ok(user)
}
