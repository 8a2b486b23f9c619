//! API keys.

use std::time::SystemTime;

use async_trait::async_trait;

use super::{
    Row, SqlStore, Wing,
    statement::{Statement, sql},
    value::to_micros,
    verb::Tx,
};
use crate::{
    Identity, Plan, Role, SharedClock, StoreError, TokenHash, UserId,
    api_key::{ApiKey, ApiKeyId, ApiKeyStore, CreateKeyError, FoundKey, KeyUse, NewApiKey},
    audit::{Act, AuditEvent},
    token::Revoked,
};

const LOCK_OWNER: Statement =
    sql!("SELECT id FROM " users " WHERE id = $1 AND suspended_at IS NULL" lock);
const COUNT: Statement =
    sql!("SELECT count(*) FROM " api_keys " WHERE user_id = $1 AND revoked_at IS NULL");
const INSERT: Statement = sql!(
    "INSERT INTO " api_keys " (id, hash, user_id, name, prefix, role, created_at, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
);
const FIND: Statement = sql!(
    "SELECT key.id, key.user_id, key.name, key.prefix, key.role, key.created_at, key.expires_at,
        key.last_used_at, key.revoked_at, owner.role, owner.plan
     FROM " api_keys " AS key
     LEFT JOIN " users " AS owner ON owner.id = key.user_id AND owner.suspended_at IS NULL
     WHERE key.hash = $1"
);
const NOTE_USE: Statement = sql!(
    "UPDATE " api_keys " SET last_used_at = $2
     WHERE hash = $1 AND revoked_at IS NULL AND (last_used_at IS NULL OR last_used_at <= $3)"
);
const LIST: Statement = sql!(
    "SELECT id, user_id, name, prefix, role, created_at, expires_at, last_used_at
     FROM " api_keys " WHERE user_id = $1 AND revoked_at IS NULL
     ORDER BY created_at DESC, id DESC"
);
const REVOKE: Statement = sql!(
    "UPDATE " api_keys " SET revoked_at = $3
     WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL
     RETURNING hash"
);
const REVOKE_ALL: Statement =
    sql!("UPDATE " api_keys " SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL");
const DELETE_REVOKED: Statement = sql!(
    "DELETE FROM " api_keys " WHERE id" one_of
        "SELECT id FROM " api_keys "
         WHERE revoked_at < $1 ORDER BY revoked_at LIMIT $2" skip_locked end
);

#[async_trait]
impl<W: Wing> ApiKeyStore for SqlStore<W> {
    fn clock(&self) -> SharedClock {
        self.clock()
    }

    async fn create_key(&self, key: NewApiKey, at_most: u32) -> Result<(), CreateKeyError> {
        self.transact((key, at_most), |tx, (key, at_most)| Box::pin(create(tx, key, *at_most)))
            .await?
    }

    async fn find_key(&self, used: KeyUse) -> Result<Option<FoundKey>, StoreError> {
        self.ask(used, |tx, used| Box::pin(find(tx, used))).await
    }

    async fn list_keys(&self, owner: &UserId) -> Result<Vec<ApiKey>, StoreError> {
        self.ask(owner.clone(), |tx, owner| Box::pin(list(tx, owner))).await
    }

    async fn revoke_key(
        &self,
        owner: &UserId,
        id: &ApiKeyId,
        now: SystemTime,
    ) -> Result<Option<TokenHash>, StoreError> {
        self.transact((owner.clone(), id.clone(), now), |tx, (owner, id, now)| {
            Box::pin(revoke(tx, owner, id, *now))
        })
        .await
    }

    async fn revoke_all_keys(&self, owner: &UserId, now: SystemTime) -> Result<u64, StoreError> {
        self.transact((owner.clone(), now), |tx, (owner, now)| {
            Box::pin(async {
                let revoked = revoke_all(tx, owner, *now).await?;
                if revoked > 0 {
                    let event = AuditEvent::new(Act::KEYS_REVOKED, *now).about(owner);
                    tx.note(event.with_detail(&revoked.to_string())).await?;
                }
                Ok(revoked)
            })
        })
        .await
    }

    async fn delete_revoked_keys(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        self.ask((before, at_most), |tx, (before, at_most)| {
            Box::pin(async move {
                tx.execute(&DELETE_REVOKED, [(*before).into(), (*at_most).into()]).await
            })
        })
        .await
    }
}

/// The owner is locked: so keys are counted while nobody else makes one, and are there, or not made,
/// when the owner is suspended or deleted.
async fn create(
    tx: &mut Tx<'_>,
    new: &NewApiKey,
    at_most: u32,
) -> sqlx::Result<Result<(), CreateKeyError>> {
    let key = &new.key;
    if tx.one(&LOCK_OWNER, [(&key.owner).into()]).await?.is_none() {
        return Ok(Err(CreateKeyError::NoOwner));
    }
    let count = tx.one(&COUNT, [(&key.owner).into()]).await?;
    let count: i64 = count.map(|mut row| row.take()).transpose()?.unwrap_or_default();
    if count >= i64::from(at_most) {
        return Ok(Err(CreateKeyError::TooMany));
    }
    let row = [
        (&key.id).into(),
        (&new.hash).into(),
        (&key.owner).into(),
        key.name.as_str().into(),
        key.prefix.as_str().into(),
        (&key.role).into(),
        key.created_at.into(),
        key.expires_at.into(),
    ];
    tx.execute(&INSERT, row).await?;
    let event = AuditEvent::new(Act::KEY_CREATED, key.created_at);
    tx.note(event.about(&key.owner).on(key.id.as_str())).await?;
    Ok(Ok(()))
}

async fn find(tx: &mut Tx<'_>, used: &KeyUse) -> sqlx::Result<Option<FoundKey>> {
    let row = tx.one(&FIND, [(&used.hash).into()]).await?;
    let Some(mut found) = row.map(|mut row| found_key(&mut row)).transpose()? else {
        return Ok(None);
    };
    if used.is_noted(&found) {
        let due = to_micros(used.at - used.noted_every);
        match tx.execute(&NOTE_USE, [(&used.hash).into(), used.at.into(), due.into()]).await {
            Ok(_) => found.key.last_used_at = Some(used.at),
            // A database that can only be read is good for this all the same.
            Err(error) => tracing::debug!(%error, "the use of a key was not noted"),
        }
    }
    Ok(Some(found))
}

async fn list(tx: &mut Tx<'_>, owner: &UserId) -> sqlx::Result<Vec<ApiKey>> {
    tx.all(&LIST, [owner.into()]).await?.iter_mut().map(api_key).collect()
}

async fn revoke(
    tx: &mut Tx<'_>,
    owner: &UserId,
    id: &ApiKeyId,
    now: SystemTime,
) -> sqlx::Result<Option<TokenHash>> {
    let row = tx.one(&REVOKE, [owner.into(), id.into(), now.into()]).await?;
    if row.is_some() {
        tx.revoke(Revoked::Account(owner.clone()), now).await?;
        tx.note(AuditEvent::new(Act::KEY_REVOKED, now).about(owner).on(id.as_str())).await?;
    }
    row.map(|mut row| row.take()).transpose()
}

/// Revokes what a user has, for good. Part of the verbs that suspend and delete users, which have
/// locked the user.
pub(super) async fn revoke_all(
    tx: &mut Tx<'_>,
    owner: &UserId,
    now: SystemTime,
) -> sqlx::Result<u64> {
    let revoked = tx.execute(&REVOKE_ALL, [owner.into(), now.into()]).await?;
    if revoked > 0 {
        tx.revoke(Revoked::Account(owner.clone()), now).await?;
    }
    Ok(revoked)
}

/// How many keys a user has.
pub(super) async fn count(tx: &mut Tx<'_>, owner: &UserId) -> sqlx::Result<u64> {
    let keys: Option<i64> =
        tx.one(&COUNT, [owner.into()]).await?.map(|mut row| row.take()).transpose()?;
    Ok(keys.unwrap_or_default().unsigned_abs())
}

/// `id, user_id, name, prefix, role, created_at, expires_at, last_used_at`
fn api_key(row: &mut Row) -> sqlx::Result<ApiKey> {
    let (id, owner, name) = (row.take()?, row.take()?, row.take()?);
    let mut key = ApiKey::new(id, owner, name, row.take()?, row.take()?, row.take()?);
    key.expires_at = row.take()?;
    key.last_used_at = row.take()?;
    Ok(key)
}

/// A key, `revoked_at`, and the owner's `role, plan`: null for one who is gone.
fn found_key(row: &mut Row) -> sqlx::Result<FoundKey> {
    let key = api_key(row)?;
    let revoked = row.take::<Option<SystemTime>>()?.is_some();
    let (role, plan): (Option<Role>, Option<Plan>) = (row.take()?, row.take()?);
    let owner = role.map(|role| {
        plan.into_iter().fold(Identity::new(key.owner.clone(), role), Identity::with_plan)
    });
    Ok(FoundKey::new(key, revoked, owner))
}
