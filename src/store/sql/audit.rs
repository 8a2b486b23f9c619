//! Audit events.

use std::{net::IpAddr, time::SystemTime};

use async_trait::async_trait;

use super::{
    Row, SqlStore, Wing,
    statement::{Statement, sql},
    value::unreadable,
    verb::Tx,
};
use crate::{
    Role, StoreError, UserId,
    audit::{Act, Actor, AuditEvent, AuditFilter, AuditLog, AuditTrail, Outcome, WriteEvents},
};

const INSERT: Statement = sql!(
    "INSERT INTO " audit_events "
        (at, act, outcome, subject, object, detail, actor_kind, actor, actor_role, actor_key, session,
         ip, user_agent, request_id)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
);
const LATEST: Statement = sql!(
    "SELECT id, at, act, outcome, subject, object, detail, actor_kind, actor, actor_role, actor_key,
         session, ip, user_agent, request_id
     FROM " audit_events " WHERE id < $2 ORDER BY id DESC LIMIT $1"
);
/// From each index the latest, and of these the latest: neither is read to its end.
const LATEST_ABOUT: Statement = sql!(
    "SELECT id, at, act, outcome, subject, object, detail, actor_kind, actor, actor_role, actor_key,
         session, ip, user_agent, request_id
     FROM " audit_events " WHERE id IN (
         SELECT id FROM (SELECT id FROM " audit_events "
                         WHERE subject = $3 AND id < $2 ORDER BY id DESC LIMIT $1) AS done_to
         UNION
         SELECT id FROM (SELECT id FROM " audit_events "
                         WHERE actor = $3 AND id < $2 ORDER BY id DESC LIMIT $1) AS done_by)
     ORDER BY id DESC LIMIT $1"
);
const DELETE: Statement = sql!(
    "DELETE FROM " audit_events " WHERE id" one_of
        "SELECT id FROM " audit_events " WHERE at < $1 ORDER BY at LIMIT $2" skip_locked end
);

impl<W: Wing> SqlStore<W> {
    /// Writes down who does what, in the way of this trail: into the table `audit_events`, in the
    /// transactions of the changes, if it [has one](AuditTrail::with_table).
    #[must_use]
    pub fn with_audit(self, trail: AuditTrail) -> Self {
        let writer = Self { audit: AuditTrail::new(), ..self.clone() };
        Self { audit: trail.written_by(writer), ..self }
    }
}

#[async_trait]
impl<W: Wing> WriteEvents for SqlStore<W> {
    async fn write(&self, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        self.transact(events, |tx, events| {
            Box::pin(async move {
                for event in events {
                    insert(tx, event).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

#[async_trait]
impl<W: Wing> AuditLog for SqlStore<W> {
    async fn events(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>, StoreError> {
        self.ask(filter.clone(), |tx, filter| Box::pin(events(tx, filter))).await
    }

    async fn delete_events(&self, before: SystemTime, at_most: u32) -> Result<u64, StoreError> {
        self.ask((before, at_most), |tx, (before, at_most)| {
            Box::pin(async { tx.execute(&DELETE, [(*before).into(), (*at_most).into()]).await })
        })
        .await
    }
}

impl Tx<'_> {
    /// Writes down what this transaction does, in it; others hear of it once it is committed. Every verb
    /// that changes something does so, once for each act.
    pub(super) async fn note(&mut self, event: AuditEvent) -> sqlx::Result<()> {
        if self.audit.has_table() {
            insert(self, &event).await?;
        }
        self.noted.push(event);
        Ok(())
    }
}

async fn insert(tx: &mut Tx<'_>, event: &AuditEvent) -> sqlx::Result<()> {
    let row = [
        event.at.into(),
        event.act.as_str().into(),
        event.outcome.as_str().into(),
        event.subject.as_ref().into(),
        event.object.as_deref().into(),
        event.detail.as_deref().into(),
        event.actor.kind().into(),
        event.actor.user().into(),
        event.actor.role().into(),
        event.actor.key().into(),
        event.session.as_deref().into(),
        event.ip.map(|ip| ip.to_string()).as_deref().into(),
        event.user_agent.as_deref().into(),
        event.request_id.as_deref().into(),
    ];
    tx.execute(&INSERT, row).await.map(drop)
}

async fn events(tx: &mut Tx<'_>, filter: &AuditFilter) -> sqlx::Result<Vec<AuditEvent>> {
    let before = filter.before.map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX));
    let rows = match &filter.user {
        None => tx.all(&LATEST, [filter.limit.into(), before.into()]).await?,
        Some(user) => {
            tx.all(&LATEST_ABOUT, [filter.limit.into(), before.into(), user.into()]).await?
        }
    };
    rows.into_iter().map(event).collect()
}

fn event(mut row: Row) -> sqlx::Result<AuditEvent> {
    let id: u64 = row.take()?;
    let (at, act): (SystemTime, String) = (row.take()?, row.take()?);
    let mut event = AuditEvent::new(Act::from(&*act), at);
    event.id = Some(id);
    event.outcome = match &*row.take::<String>()? {
        "done" => Outcome::Done,
        "refused" => Outcome::Refused,
        _ => return Err(unreadable("an outcome that isn't known")),
    };
    event.subject = row.take()?;
    event.object = text(&mut row)?;
    event.detail = text(&mut row)?;
    event.actor = actor(&mut row)?;
    event.session = text(&mut row)?;
    event.ip = row.take::<Option<String>>()?.and_then(|ip| ip.parse::<IpAddr>().ok());
    event.user_agent = text(&mut row)?;
    event.request_id = text(&mut row)?;
    Ok(event)
}

/// `actor_kind, actor, actor_role, actor_key`
fn actor(row: &mut Row) -> sqlx::Result<Actor> {
    let (kind, user): (String, Option<UserId>) = (row.take()?, row.take()?);
    let (role, key): (Option<Role>, Option<Box<str>>) = (row.take()?, text(row)?);
    Ok(match (&*kind, user, role, key) {
        ("program", ..) => Actor::Program,
        ("nobody", ..) => Actor::Nobody,
        ("user", Some(id), Some(role), None) => Actor::User { id, role },
        ("key", Some(owner), Some(role), Some(id)) => Actor::Key { id, owner, role },
        _ => return Err(unreadable("an actor that isn't known")),
    })
}

fn text(row: &mut Row) -> sqlx::Result<Option<Box<str>>> {
    Ok(row.take::<Option<String>>()?.map(Box::from))
}
