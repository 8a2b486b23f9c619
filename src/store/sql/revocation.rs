//! What servers tell one another to be revoked.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::{sync::Notify, task::AbortHandle};

use super::{
    Row, SqlStore, Wing,
    statement::{Statement, sql},
    value::{to_micros, unreadable},
    verb::Tx,
};
use crate::{
    Role, StoreError, UserId,
    token::{FamilyId, Following, Revocation, RevocationFeed, Revoked},
};

const INSERT: Statement = sql!(
    "INSERT INTO " revocations " (kind, subject, value, at) VALUES ($1, $2, $3, $4) RETURNING id"
);
const READ: Statement = sql!(
    "SELECT id, at, kind, subject, value FROM " revocations "
     WHERE id > $1 AND at >= $2 ORDER BY id LIMIT 5000"
);
const DELETE: Statement = sql!(
    "DELETE FROM " revocations " WHERE id" one_of
        "SELECT id FROM " revocations " WHERE at < $1 ORDER BY at LIMIT 1000" skip_locked end
);

/// So many are forgotten at a time.
pub(super) const STEP: u64 = 1000;

/// The channel on which servers on PostgreSQL wake one another.
#[cfg(feature = "postgres")]
pub(in crate::store) const CHANNEL: &str = "tower_warden_revocations";

/// What others revoke in this database.
pub(super) struct Feed<W: Wing> {
    store: SqlStore<W>,
    changed: Arc<Notify>,
    /// What listens for others, where the database can tell.
    listening: Option<AbortHandle>,
}

impl<W: Wing> SqlStore<W> {
    /// PostgreSQL wakes those who follow (`NOTIFY`); behind that, and for SQLite alone, the table is
    /// read every 400 ms.
    pub(super) async fn follow(&self) -> Result<Following, StoreError> {
        let changed = Arc::new(Notify::new());
        let listening = W::listen(&self.pool, Arc::clone(&changed));
        let feed = Feed { store: self.clone(), changed, listening };
        self.revocations.follow(feed, self.clock()).await
    }
}

#[async_trait]
impl<W: Wing> RevocationFeed for Feed<W> {
    async fn read(&self, after: u64, since: SystemTime) -> Result<Vec<Revocation>, StoreError> {
        self.store
            .ask((after, since), |tx, (after, since)| Box::pin(read(tx, *after, *since)))
            .await
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl<W: Wing> Drop for Feed<W> {
    fn drop(&mut self) {
        self.listening.iter().for_each(AbortHandle::abort);
    }
}

impl<W: Wing> fmt::Debug for Feed<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Tx<'_> {
    /// Tells all servers that this is revoked, once the transaction is committed. Every verb that
    /// ends a session does, and every one that changes what others may remember of an account.
    pub(super) async fn revoke(&mut self, what: Revoked, at: SystemTime) -> sqlx::Result<()> {
        let (kind, subject, value) = match &what {
            Revoked::Session(id) => ("session", id.as_str(), None),
            Revoked::User { id, before, except: None } => {
                ("user", id.as_str(), Some(to_micros(*before).to_string()))
            }
            Revoked::User { id, before, except: Some(kept) } => {
                let value = format!("{} {}", to_micros(*before), kept.as_str());
                ("others", id.as_str(), Some(value))
            }
            Revoked::Role { user, role } => ("role", user.as_str(), Some(role.to_string())),
            Revoked::Account(id) => ("account", id.as_str(), None),
        };
        let row = [kind.into(), subject.into(), value.as_deref().into(), at.into()];
        let id: Option<i64> =
            self.one(&INSERT, row).await?.map(|mut row| row.take()).transpose()?;
        let seq = id.unwrap_or_default().unsigned_abs();
        self.revoked.push(Revocation::new(seq, at, what));
        Ok(())
    }
}

async fn read(tx: &mut Tx<'_>, after: u64, since: SystemTime) -> sqlx::Result<Vec<Revocation>> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = tx.all(&READ, [after.into(), since.into()]).await?;
    rows.into_iter().map(revocation).collect()
}

pub(super) async fn delete(tx: &mut Tx<'_>, before: SystemTime) -> sqlx::Result<u64> {
    tx.execute(&DELETE, [before.into()]).await
}

fn revocation(mut row: Row) -> sqlx::Result<Revocation> {
    let (seq, at): (i64, SystemTime) = (row.take()?, row.take()?);
    let (kind, subject): (String, String) = (row.take()?, row.take()?);
    let value: Option<String> = row.take()?;
    let what = match (&*kind, value) {
        ("session", _) => Revoked::Session(FamilyId::from(subject)),
        ("user" | "others", Some(value)) => {
            let (before, kept) =
                value.split_once(' ').map_or((&*value, None), |(before, id)| (before, Some(id)));
            let micros = before.parse().map_err(unreadable)?;
            let before = UNIX_EPOCH + Duration::from_micros(micros);
            let except = kept.map(|id| FamilyId::from(id.to_owned()));
            Revoked::User { id: UserId::from(subject), before, except }
        }
        ("role", Some(role)) => {
            Revoked::Role { user: UserId::from(subject), role: Role::from(&*role) }
        }
        // A newer server may know more kinds: something of an account, at least.
        _ => Revoked::Account(UserId::from(subject)),
    };
    Ok(Revocation::new(seq.unsigned_abs(), at, what))
}
