//! Second factors, and logins that wait for one.

use std::time::SystemTime;

use async_trait::async_trait;

use super::{
    SqlStore, Wing,
    statement::{Statement, sql},
    token::is_epoch,
    verb::Tx,
};
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    audit::{Act, AuditEvent, AuditTrail},
    second_factor::{
        PendingLogin, PendingLoginStore, SealedSecret, SecondFactorStore, StoredTotp, TotpBegun,
    },
};

const LOCK_USER: Statement =
    sql!("SELECT id FROM " users " WHERE id = $1 AND suspended_at IS NULL" lock);
const BEGIN: Statement = sql!(
    "INSERT INTO " second_factors " AS old (user_id, secret) VALUES ($1, $2)
     ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret WHERE old.on_since IS NULL"
);
const FIND: Statement = sql!("SELECT secret, on_since FROM " second_factors " WHERE user_id = $1");
const CONFIRM: Statement = sql!(
    "UPDATE " second_factors " SET on_since = $3, last_step = $4
     WHERE user_id = $1 AND secret = $2 AND on_since IS NULL"
);
const INSERT_CODE: Statement = sql!(
    "INSERT INTO " recovery_codes " (user_id, hash) VALUES ($1, $2) ON CONFLICT DO NOTHING"
);
const USE_STEP: Statement = sql!(
    "UPDATE " second_factors " SET last_step = $2
     WHERE user_id = $1 AND on_since IS NOT NULL AND last_step < $2"
);
const USE_CODE: Statement = sql!("DELETE FROM " recovery_codes " WHERE user_id = $1 AND hash = $2");
const REPLACE_SECRET: Statement =
    sql!("UPDATE " second_factors " SET secret = $3 WHERE user_id = $1 AND secret = $2");
const REMOVE: Statement =
    sql!("DELETE FROM " second_factors " WHERE user_id = $1 RETURNING on_since");

#[async_trait]
impl<W: Wing> SecondFactorStore for SqlStore<W> {
    fn clock(&self) -> SharedClock {
        self.clock()
    }

    fn audit_trail(&self) -> AuditTrail {
        self.audit.clone()
    }

    async fn begin_totp(
        &self,
        user: &UserId,
        secret: &SealedSecret,
    ) -> Result<TotpBegun, StoreError> {
        self.transact((user.clone(), secret.clone()), |tx, (user, secret)| {
            Box::pin(begin(tx, user, secret))
        })
        .await
    }

    async fn find_totp(&self, user: &UserId) -> Result<Option<StoredTotp>, StoreError> {
        self.ask(user.clone(), |tx, user| Box::pin(find(tx, user))).await
    }

    async fn confirm_totp(
        &self,
        user: &UserId,
        secret: &SealedSecret,
        step: u64,
        recovery_codes: &[TokenHash],
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let confirmation = Confirmation {
            user: user.clone(),
            secret: secret.clone(),
            step: stored_step(step),
            recovery_codes: recovery_codes.to_vec(),
            now,
        };
        self.transact(confirmation, |tx, confirmation| Box::pin(confirm(tx, confirmation))).await
    }

    async fn use_step(&self, user: &UserId, step: u64) -> Result<bool, StoreError> {
        self.ask((user.clone(), stored_step(step)), |tx, (user, step)| {
            Box::pin(async { Ok(tx.execute(&USE_STEP, [user.into(), (*step).into()]).await? == 1) })
        })
        .await
    }

    async fn use_recovery_code(&self, user: &UserId, code: &TokenHash) -> Result<bool, StoreError> {
        self.transact((user.clone(), *code), |tx, (user, code)| {
            Box::pin(use_recovery_code(tx, user, code))
        })
        .await
    }

    async fn replace_secret(
        &self,
        user: &UserId,
        old: &SealedSecret,
        new: &SealedSecret,
    ) -> Result<bool, StoreError> {
        self.ask((user.clone(), old.clone(), new.clone()), |tx, (user, old, new)| {
            Box::pin(async {
                let values = [user.into(), old.into(), new.into()];
                Ok(tx.execute(&REPLACE_SECRET, values).await? == 1)
            })
        })
        .await
    }

    async fn remove_totp(&self, user: &UserId) -> Result<bool, StoreError> {
        self.transact(user.clone(), |tx, user| Box::pin(remove_and_note(tx, user))).await
    }
}

/// What turns a second factor on.
struct Confirmation {
    user: UserId,
    secret: SealedSecret,
    step: i64,
    recovery_codes: Vec<TokenHash>,
    now: SystemTime,
}

async fn begin(tx: &mut Tx<'_>, user: &UserId, secret: &SealedSecret) -> sqlx::Result<TotpBegun> {
    if tx.one(&LOCK_USER, [user.into()]).await?.is_none() {
        return Ok(TotpBegun::NoUser);
    }
    Ok(match tx.execute(&BEGIN, [user.into(), secret.into()]).await? {
        0 => TotpBegun::AlreadyOn,
        _ => TotpBegun::Pending,
    })
}

async fn find(tx: &mut Tx<'_>, user: &UserId) -> sqlx::Result<Option<StoredTotp>> {
    let row = tx.one(&FIND, [user.into()]).await?;
    row.map(|mut row| Ok(StoredTotp::new(row.take()?, row.take()?))).transpose()
}

async fn confirm(tx: &mut Tx<'_>, confirmation: &Confirmation) -> sqlx::Result<bool> {
    let Confirmation { user, secret, step, recovery_codes, now } = confirmation;
    let values = [user.into(), secret.into(), (*now).into(), (*step).into()];
    if tx.execute(&CONFIRM, values).await? == 0 {
        return Ok(false);
    }
    for code in recovery_codes {
        tx.execute(&INSERT_CODE, [user.into(), code.into()]).await?;
    }
    tx.note(AuditEvent::new(Act::SECOND_FACTOR_ON, *now).about(user)).await?;
    Ok(true)
}

async fn use_recovery_code(tx: &mut Tx<'_>, user: &UserId, code: &TokenHash) -> sqlx::Result<bool> {
    let used = tx.execute(&USE_CODE, [user.into(), code.into()]).await? == 1;
    if used {
        tx.note(AuditEvent::new(Act::RECOVERY_CODE_USED, tx.now()).about(user)).await?;
    }
    Ok(used)
}

async fn remove_and_note(tx: &mut Tx<'_>, user: &UserId) -> sqlx::Result<bool> {
    let was_on = remove(tx, user).await?;
    if was_on {
        tx.note(AuditEvent::new(Act::SECOND_FACTOR_OFF, tx.now()).about(user)).await?;
    }
    Ok(was_on)
}

/// Answers whether one was on. Part of the change of a user, too.
pub(super) async fn remove(tx: &mut Tx<'_>, user: &UserId) -> sqlx::Result<bool> {
    let row = tx.one(&REMOVE, [user.into()]).await?;
    let on_since: Option<Option<SystemTime>> = row.map(|mut row| row.take()).transpose()?;
    Ok(on_since.flatten().is_some())
}

/// Steps count from 1970, by half minutes.
fn stored_step(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

const OPEN_LOGIN: Statement = sql!(
    "INSERT INTO " pending_logins " (hash, user_id, tries, expires_at) VALUES ($1, $2, 0, $3)"
);
const FIND_LOGIN: Statement =
    sql!("SELECT user_id FROM " pending_logins " WHERE hash = $1 AND expires_at > $2");
const TAKE_TRY: Statement = sql!(
    "UPDATE " pending_logins " SET tries = tries + 1
     WHERE hash = $1 AND expires_at > $2 AND tries < $3
     RETURNING user_id"
);
const GIVE_TRY_BACK: Statement =
    sql!("UPDATE " pending_logins " SET tries = tries - 1 WHERE hash = $1 AND tries > 0");
const FINISH_LOGIN: Statement =
    sql!("DELETE FROM " pending_logins " WHERE hash = $1 AND expires_at > $2");
const END_LOGINS: Statement = sql!("DELETE FROM " pending_logins " WHERE user_id = $1");
const DELETE_EXPIRED_LOGINS: Statement = sql!(
    "DELETE FROM " pending_logins " WHERE hash" one_of
        "SELECT hash FROM " pending_logins "
         WHERE expires_at < $1 ORDER BY expires_at LIMIT $2" skip_locked end
);

#[async_trait]
impl<W: Wing> PendingLoginStore for SqlStore<W> {
    fn clock(&self) -> SharedClock {
        self.clock()
    }

    fn audit_trail(&self) -> AuditTrail {
        self.audit.clone()
    }

    async fn open_login(&self, login: PendingLogin) -> Result<(), StoreError> {
        self.transact(login, |tx, login| Box::pin(open_login(tx, login))).await
    }

    async fn find_login(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        self.ask((*token, now), |tx, (token, now)| {
            Box::pin(async {
                let row = tx.one(&FIND_LOGIN, [token.into(), (*now).into()]).await?;
                row.map(|mut row| row.take()).transpose()
            })
        })
        .await
    }

    async fn take_try(
        &self,
        token: &TokenHash,
        at_most: u32,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        self.ask((*token, at_most, now), |tx, (token, at_most, now)| {
            Box::pin(async {
                let values = [token.into(), (*now).into(), (*at_most).into()];
                tx.one(&TAKE_TRY, values).await?.map(|mut row| row.take()).transpose()
            })
        })
        .await
    }

    async fn give_try_back(&self, token: &TokenHash) -> Result<(), StoreError> {
        self.ask(*token, |tx, token| {
            Box::pin(async { tx.execute(&GIVE_TRY_BACK, [token.into()]).await.map(drop) })
        })
        .await
    }

    async fn finish_login(&self, token: &TokenHash, now: SystemTime) -> Result<bool, StoreError> {
        self.ask((*token, now), |tx, (token, now)| {
            Box::pin(async {
                Ok(tx.execute(&FINISH_LOGIN, [token.into(), (*now).into()]).await? == 1)
            })
        })
        .await
    }

    async fn delete_expired_logins(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        self.ask((before, at_most), |tx, (before, at_most)| {
            Box::pin(async {
                tx.execute(&DELETE_EXPIRED_LOGINS, [(*before).into(), (*at_most).into()]).await
            })
        })
        .await
    }
}

/// The user is locked, so that the login is there, or not opened, when the user is suspended.
async fn open_login(tx: &mut Tx<'_>, login: &PendingLogin) -> sqlx::Result<()> {
    if tx.one(&LOCK_USER, [(&login.user_id).into()]).await?.is_none() {
        return Ok(());
    }
    if let Some(epoch) = login.epoch
        && !is_epoch(tx, &login.user_id, epoch).await?
    {
        return Ok(());
    }
    let row = [(&login.token).into(), (&login.user_id).into(), login.expires_at.into()];
    tx.execute(&OPEN_LOGIN, row).await?;
    tx.note(AuditEvent::new(Act::SECOND_STEP, tx.now()).about(&login.user_id)).await
}

/// Ends the logins of a user. Part of the verbs that set a password and suspend users, which have
/// locked the user.
pub(super) async fn end_logins(tx: &mut Tx<'_>, user: &UserId) -> sqlx::Result<u64> {
    tx.execute(&END_LOGINS, [user.into()]).await
}
