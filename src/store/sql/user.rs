//! Users.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    Row, SqlStore, Value, Wing, api_key, link, second_factor,
    statement::{Statement, sql},
    token::end_sessions,
    value::to_micros,
    verb::Tx,
};
use crate::{
    Role, SharedClock, StoreError, TokenHash, UserId,
    audit::{Act, AuditEvent, AuditTrail},
    token::{RevokeReason, Revoked},
    user::{
        CreateUserError, Email, EmailChangeError, EnsuredAdmin, LinkToken, NewUser, PasswordChange,
        PasswordHash, PasswordSet, UpdateUserError, User, UserChange, UserChanged, UserPage,
        UserStore, acts, judge_change, judge_deletion,
    },
};

const INSERT: Statement = sql!(
    "INSERT INTO " users " (id, email, password_hash, role, plan, email_verified, created_at)
     VALUES ($1, $2, $3, $4, NULL, $5, $6)
     ON CONFLICT (email) DO NOTHING"
);
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
const LOCK_BY_EMAIL: Statement = sql!(
    "SELECT " user_columns " FROM " users " WHERE email = $1" lock
);
const LIST: Statement = sql!(
    "SELECT " user_columns " FROM " users "
     WHERE created_at < $2 OR (created_at = $2 AND id < $3)
     ORDER BY created_at DESC, id DESC LIMIT $1"
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
const SET_PASSWORD: Statement = sql!(
    "UPDATE " users " SET password_hash = $2, email_verified = $3, epoch = epoch + 1 WHERE id = $1"
);
const SET_ROLE: Statement = sql!("UPDATE " users " SET role = $2 WHERE id = $1");
const SET_EMAIL: Statement =
    sql!("UPDATE " users " SET email = $2, email_verified = TRUE WHERE id = $1");
const DELETE: Statement = sql!("DELETE FROM " users " WHERE id = $1");
const REPLACE_PASSWORD_HASH: Statement =
    sql!("UPDATE " users " SET password_hash = $3 WHERE id = $1 AND password_hash = $2");
const LOCK_UNVERIFIED: Statement =
    sql!("SELECT id FROM " users " WHERE email = $1 AND NOT email_verified" lock);
const VERIFY: Statement = sql!("UPDATE " users " SET email_verified = TRUE WHERE id = $1");
const DROP_VERIFICATION: Statement = sql!("DELETE FROM " verification_tokens " WHERE user_id = $1");
const HAS_VERIFICATION: Statement =
    sql!("SELECT user_id FROM " verification_tokens " WHERE user_id = $1 AND expires_at > $2");
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

const COUNT: Statement = sql!("SELECT count(*) FROM " users);

#[async_trait]
impl<W: Wing> UserStore for SqlStore<W> {
    fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    fn audit_trail(&self) -> AuditTrail {
        self.audit.clone()
    }

    async fn find_holder(
        &self,
        email: &Email,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        self.transact((email.clone(), now), |tx, (email, now)| {
            Box::pin(find_holder(tx, email, *now))
        })
        .await
    }

    async fn find_with_hash(
        &self,
        id: &UserId,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        self.ask(id.clone(), |tx, id| Box::pin(find_with_hash(tx, id))).await
    }

    async fn list(&self, page: &UserPage) -> Result<Vec<User>, StoreError> {
        self.ask(page.clone(), |tx, page| Box::pin(list(tx, page))).await
    }

    async fn put_reset(
        &self,
        id: &UserId,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        self.transact((id.clone(), token, at_most_every), |tx, (id, token, at_most_every)| {
            Box::pin(put_reset(tx, id, token, *at_most_every))
        })
        .await
    }

    async fn find_reset(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        self.ask((*token, now), |tx, (token, now)| {
            Box::pin(link::find(tx, &link::RESETS, token, *now))
        })
        .await
    }

    async fn reset_password(
        &self,
        token: &TokenHash,
        new: &PasswordHash,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        self.transact((*token, new.clone(), clock.clone()), |tx, (token, new, clock)| {
            Box::pin(reset_password(tx, token, new, clock))
        })
        .await
    }

    async fn change_password(
        &self,
        change: &PasswordChange,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        self.transact((change.clone(), clock.clone()), |tx, (change, clock)| {
            Box::pin(change_password(tx, change, clock))
        })
        .await
    }

    async fn put_email_change(
        &self,
        id: &UserId,
        email: &Email,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, EmailChangeError> {
        let arguments = (id.clone(), email.clone(), token, at_most_every);
        self.transact(arguments, |tx, (id, email, token, at_most_every)| {
            Box::pin(put_email_change(tx, id, email, token, *at_most_every))
        })
        .await?
    }

    async fn confirm_email_change(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<User, EmailChangeError> {
        self.transact((*token, clock.clone()), |tx, (token, clock)| {
            Box::pin(confirm_email_change(tx, token, clock))
        })
        .await?
    }

    async fn delete(
        &self,
        id: &UserId,
        by: Option<&UserId>,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        self.transact((id.clone(), by.cloned(), clock.clone()), |tx, (id, by, clock)| {
            Box::pin(delete(tx, id, by.as_ref(), None, clock))
        })
        .await?
    }

    async fn delete_in_epoch(
        &self,
        id: &UserId,
        epoch: u64,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        self.transact((id.clone(), epoch, clock.clone()), |tx, (id, epoch, clock)| {
            Box::pin(delete(tx, id, None, Some(*epoch), clock))
        })
        .await?
    }

    async fn ensure_admin(
        &self,
        admin: &NewUser,
        clock: &SharedClock,
    ) -> Result<(User, EnsuredAdmin), StoreError> {
        self.transact((admin.clone(), clock.clone()), |tx, (admin, clock)| {
            Box::pin(ensure_admin(tx, admin, clock))
        })
        .await
    }

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
        self.change(id, change).await.map(|changed| changed.user)
    }

    async fn change(
        &self,
        id: &UserId,
        change: UserChange,
    ) -> Result<UserChanged, UpdateUserError> {
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
        token: LinkToken,
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
        self.ask((*token, now), |tx, (token, now)| {
            Box::pin(link::find(tx, &link::VERIFICATIONS, token, *now))
        })
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
            Box::pin(link::delete_expired(tx, *before, *at_most))
        })
        .await
    }
}

/// Nothing where the address is taken.
async fn create(tx: &mut Tx<'_>, new: &NewUser) -> sqlx::Result<Option<User>> {
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
async fn free(tx: &mut Tx<'_>, email: &Email, now: SystemTime) -> sqlx::Result<()> {
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

async fn holds_its_address(tx: &mut Tx<'_>, user: &User, now: SystemTime) -> sqlx::Result<bool> {
    let good = [(&user.id).into(), now.into()];
    Ok(user.email_verified || tx.one(&HAS_VERIFICATION, good).await?.is_some())
}

/// Forgets a user, who is locked; what was the user's ends.
async fn remove(tx: &mut Tx<'_>, id: &UserId, now: SystemTime) -> sqlx::Result<()> {
    end_logins_and_sessions(tx, id, None, now).await?;
    api_key::revoke_all(tx, id, now).await?;
    tx.execute(&DELETE, [id.into()]).await?;
    Ok(())
}

/// Ends what was opened by the password that was good until now, except one session.
async fn end_logins_and_sessions(
    tx: &mut Tx<'_>,
    id: &UserId,
    except: Option<&str>,
    now: SystemTime,
) -> sqlx::Result<()> {
    second_factor::end_logins(tx, id).await?;
    end_sessions(tx, id, except, now, RevokeReason::LogoutAll).await?;
    tx.revoke(Revoked::Account(id.clone()), now).await
}

async fn find(tx: &mut Tx<'_>, id: &UserId) -> sqlx::Result<Option<User>> {
    tx.one(&FIND, [id.into()]).await?.map(|mut row| user(&mut row)).transpose()
}

/// A user whom nobody else changes until the transaction ends, unless the account is suspended.
async fn lock(tx: &mut Tx<'_>, id: &UserId) -> sqlx::Result<Option<User>> {
    let user = tx.one(&LOCK, [id.into()]).await?.map(|mut row| user(&mut row)).transpose()?;
    Ok(user.filter(|user| !user.suspended))
}

async fn find_with_hash(
    tx: &mut Tx<'_>,
    id: &UserId,
) -> sqlx::Result<Option<(User, PasswordHash)>> {
    let row = tx.one(&FIND_WITH_HASH, [id.into()]).await?;
    row.map(|mut row| Ok((user(&mut row)?, row.take()?))).transpose()
}

async fn find_by_email(
    tx: &mut Tx<'_>,
    email: &Email,
) -> sqlx::Result<Option<(User, PasswordHash)>> {
    let row = tx.one(&FIND_BY_EMAIL, [email.into()]).await?;
    row.map(|mut row| Ok((user(&mut row)?, row.take()?))).transpose()
}

async fn find_holder(
    tx: &mut Tx<'_>,
    email: &Email,
    now: SystemTime,
) -> sqlx::Result<Option<User>> {
    let Some((user, _)) = find_by_email(tx, email).await? else { return Ok(None) };
    Ok(holds_its_address(tx, &user, now).await?.then_some(user))
}

async fn list(tx: &mut Tx<'_>, page: &UserPage) -> sqlx::Result<Vec<User>> {
    let after = page.after.as_ref();
    let made = after.map_or(i64::MAX, |cursor| to_micros(cursor.created_at));
    let id = after.map_or("", |cursor| cursor.id.as_str());
    let rows = tx.all(&LIST, [page.limit.into(), made.into(), id.into()]).await?;
    rows.into_iter().map(|mut row| user(&mut row)).collect()
}

async fn update(
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

async fn delete(
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

async fn put_reset(
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

async fn reset_password(
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

async fn change_password(
    tx: &mut Tx<'_>,
    PasswordChange { id, epoch, new, keep, .. }: &PasswordChange,
    clock: &SharedClock,
) -> sqlx::Result<Option<PasswordSet>> {
    let user = lock(tx, id).await?;
    let Some(user) = user.filter(|user| user.epoch == *epoch) else { return Ok(None) };
    let now = clock.now();
    tx.execute(&SET_PASSWORD, [id.into(), new.into(), user.email_verified.into()]).await?;
    tx.execute(&link::RESETS.end_of, [id.into(), now.into()]).await?;
    end_logins_and_sessions(tx, id, keep.as_deref(), now).await?;
    tx.note(AuditEvent::new(Act::PASSWORD_CHANGED, now).about(id)).await?;
    password_set(tx, id).await
}

async fn password_set(tx: &mut Tx<'_>, id: &UserId) -> sqlx::Result<Option<PasswordSet>> {
    let api_keys = api_key::count(tx, id).await?;
    Ok(find(tx, id).await?.map(|user| PasswordSet::new(user, api_keys)))
}

async fn put_email_change(
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

async fn confirm_email_change(
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

async fn ensure_admin(
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

async fn verify_email(
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

async fn count(tx: &mut Tx<'_>) -> sqlx::Result<u64> {
    let users: Option<i64> = tx.one(&COUNT, []).await?.map(|mut row| row.take()).transpose()?;
    Ok(users.unwrap_or_default().unsigned_abs())
}

/// `user_columns` of `sql!`
fn user(row: &mut Row) -> sqlx::Result<User> {
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

fn epoch(user: &User) -> Value {
    i64::try_from(user.epoch).unwrap_or(i64::MAX).into()
}
