//! Families of refresh tokens.

use std::time::SystemTime;

use async_trait::async_trait;

use super::{
    Row, SqlStore, Wing, revocation,
    statement::{Statement, sql},
    value::{FromValue, Value, unreadable},
    verb::Tx,
};
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    audit::{Act, AuditEvent, AuditTrail},
    clock::later,
    token::{
        Family, FamilyId, Following, NewFamily, Opening, PresentedToken, RenewRequest, Renewed,
        Revocations, RevokeReason, Revoked, RotateRequest, Rotation, Sealed, Session, SessionInfo,
        StoredToken, TokenStore, Verdict, act_of, judge, token_expiry,
    },
};

/// Takes the lock of all sessions of a user, and answers how often they were ended.
const LOCK_USER: Statement = sql!(
    "INSERT INTO " user_sessions " AS old (user_id, epoch) VALUES ($1, 0)
     ON CONFLICT (user_id) DO UPDATE SET epoch = old.epoch
     RETURNING epoch, marked_at"
);
const BEGIN_EPOCH: Statement = sql!(
    "UPDATE " user_sessions "
     SET epoch = epoch + 1, ended_at = $2, marked_at = coalesce($3, marked_at)
     WHERE user_id = $1"
);
const LOCK_EPOCH: Statement = sql!("SELECT epoch, suspended_at FROM " users " WHERE id = $1" lock);
const INSERT_FAMILY: Statement = sql!(
    "INSERT INTO " families "
        (id, user_id, created_at, last_used_at, expires_at, amr, ip, user_agent, label, epoch)
     VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8, $9)"
);
/// Those that may stay are passed over, the last used first.
const LOCK_DISPLACED: Statement = sql!(
    "SELECT id FROM " families "
     WHERE user_id = $1 AND revoked_at IS NULL AND (epoch IS NULL OR epoch = $2)
         AND id IN (SELECT family_id FROM " refresh_tokens "
                    WHERE superseded_at IS NULL AND expires_at > $3)
     ORDER BY last_used_at DESC, id LIMIT 1000 OFFSET $4" lock
);
const FIND_FAMILY: Statement = sql!(
    "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason, amr, ip,
         user_agent, label, epoch, sealed, sealed_generation, sealed_until
     FROM " families "
     WHERE id = (SELECT family_id FROM " refresh_tokens " WHERE hash = $1)"
);
const LOCK_FAMILY: Statement = sql!(
    "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason, amr, ip,
         user_agent, label, epoch, sealed, sealed_generation, sealed_until
     FROM " families "
     WHERE id = (SELECT family_id FROM " refresh_tokens " WHERE hash = $1)" lock
);
const LOCK_FAMILY_OF: Statement = sql!(
    "SELECT id, user_id, created_at, last_used_at, expires_at, revoked_at, revoked_reason, amr, ip,
         user_agent, label, epoch, sealed, sealed_generation, sealed_until
     FROM " families " WHERE id = $1 AND user_id = $2" lock
);
/// A token, the live one of its family, and how all sessions of its user were ended.
const TOKEN: Statement = sql!(
    "SELECT token.generation, token.issued_at, token.expires_at, token.superseded_at,
         live.generation, live.expires_at, mark.epoch, mark.ended_at, mark.marked_at
     FROM " refresh_tokens " AS token
     LEFT JOIN " refresh_tokens " AS live
         ON live.family_id = token.family_id AND live.superseded_at IS NULL
     LEFT JOIN " user_sessions " AS mark ON mark.user_id = $2
     WHERE token.hash = $1"
);
const LIVE_TOKEN: Statement = sql!(
    "SELECT live.hash, live.generation, live.issued_at, live.expires_at, live.superseded_at,
         live.generation, live.expires_at, mark.epoch, mark.ended_at, mark.marked_at
     FROM " refresh_tokens " AS live
     LEFT JOIN " user_sessions " AS mark ON mark.user_id = $2
     WHERE live.family_id = $1 AND live.superseded_at IS NULL"
);
const INSERT_TOKEN: Statement = sql!(
    "INSERT INTO " refresh_tokens "
        (hash, family_id, generation, issued_at, expires_at, superseded_at)
     VALUES ($1, $2, $3, $4, $5, NULL)"
);
const USE_FAMILY: Statement = sql!(
    "UPDATE " families "
     SET last_used_at = $2, ip = coalesce($3, ip), user_agent = coalesce($4, user_agent),
         label = coalesce($5, label), sealed = $6, sealed_generation = $7, sealed_until = $8
     WHERE id = $1"
);
const SUPERSEDE: Statement =
    sql!("UPDATE " refresh_tokens " SET superseded_at = $2 WHERE hash = $1");
const REVOKE: Statement = sql!(
    "UPDATE " families " SET revoked_at = $2, revoked_reason = $3, sealed = NULL WHERE id = $1"
);
/// Always in the same order. More than a thousand end by the epoch alone; those of epochs before have.
const LOCK_FAMILIES_OF: Statement = sql!(
    "SELECT id FROM " families "
     WHERE user_id = $1 AND revoked_at IS NULL AND (epoch IS NULL OR epoch = $2)
     ORDER BY id LIMIT 1001" lock
);
const REVOKE_ALL: Statement = sql!(
    "UPDATE " families " SET revoked_at = $2, revoked_reason = $3, sealed = NULL
     WHERE id" one_of
         "SELECT id FROM " families "
          WHERE user_id = $1 AND revoked_at IS NULL AND id <> $4 AND (epoch IS NULL OR epoch = $5)
          ORDER BY id LIMIT 1001" end
);
/// Into the epoch that begins, but not one that ended with an epoch before, or that an older server
/// opened before all were ended: it would live again.
const KEEP_FAMILY: Statement = sql!(
    "UPDATE " families " AS kept SET epoch = $3
     WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL
         AND (epoch = $4
              OR epoch IS NULL AND NOT EXISTS (
                  SELECT 1 FROM " user_sessions " AS mark
                  WHERE mark.user_id = $2 AND mark.ended_at >= kept.created_at))"
);
const SESSIONS: Statement = sql!(
    "SELECT family.id, family.user_id, family.created_at, family.last_used_at, family.expires_at,
         family.revoked_at, family.revoked_reason, family.amr, family.ip, family.user_agent,
         family.label, family.epoch, family.sealed, family.sealed_generation, family.sealed_until,
         live.expires_at, mark.epoch, mark.ended_at
     FROM " families " AS family
     JOIN " refresh_tokens " AS live
         ON live.family_id = family.id AND live.superseded_at IS NULL
     LEFT JOIN " user_sessions " AS mark ON mark.user_id = family.user_id
     WHERE family.user_id = $1 AND family.revoked_at IS NULL AND live.expires_at > $2
         AND (family.expires_at IS NULL OR family.expires_at > $2)
         AND (family.epoch IS NULL
              OR family.epoch = (SELECT epoch FROM " user_sessions " WHERE user_id = $1))
     ORDER BY family.last_used_at DESC, family.id LIMIT 1000"
);
const ENDED: Statement = sql!(
    "SELECT family_id FROM " refresh_tokens "
     WHERE superseded_at IS NULL AND expires_at < $1 ORDER BY expires_at LIMIT $2"
);
const LOCK_ENDED: Statement = sql!("SELECT id FROM " families " WHERE id = $1" skip_locked);
/// One that was rotated before it was locked has not ended.
const STILL_ENDED: Statement = sql!(
    "SELECT family_id FROM " refresh_tokens "
     WHERE family_id = $1 AND superseded_at IS NULL AND expires_at < $2"
);
const DELETE_USED: Statement = sql!(
    "DELETE FROM " refresh_tokens " WHERE hash" one_of
        "SELECT hash FROM " refresh_tokens "
         WHERE family_id = $1 AND superseded_at IS NOT NULL LIMIT $2" end
);
const DELETE_FAMILY: Statement = sql!("DELETE FROM " families " WHERE id = $1");

/// How many sessions are ended one by one; more are by a mark.
const ONE_BY_ONE: usize = 1000;

/// How many families are looked at, and tokens forgotten, in one step of the clean-up.
const FAMILIES_PER_STEP: u32 = 100;
const TOKENS_PER_STEP: u64 = 1000;

#[async_trait]
impl<W: Wing> TokenStore for SqlStore<W> {
    async fn open_family(&self, family: NewFamily) -> Result<Opening, StoreError> {
        self.transact(family, |tx, family| Box::pin(open_family(tx, family))).await
    }

    async fn find_token(&self, token: &TokenHash) -> Result<Option<PresentedToken>, StoreError> {
        self.ask(*token, |tx, token| {
            Box::pin(async move {
                Ok(read_presented(tx, &FIND_FAMILY, token).await?.map(|(found, _)| found))
            })
        })
        .await
    }

    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError> {
        self.transact(request, |tx, request| Box::pin(rotate(tx, request))).await
    }

    async fn revoke_family(
        &self,
        token: &TokenHash,
        reason: RevokeReason,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        self.transact((*token, reason, clock.clone()), |tx, (token, reason, clock)| {
            Box::pin(revoke_family(tx, token, *reason, clock))
        })
        .await
    }

    async fn revoke_user(
        &self,
        user: &UserId,
        keep: Option<&FamilyId>,
        reason: RevokeReason,
        clock: &SharedClock,
    ) -> Result<u64, StoreError> {
        let arguments = (user.clone(), keep.cloned(), reason, clock.clone());
        self.transact(arguments, |tx, (user, keep, reason, clock)| {
            Box::pin(revoke_user(tx, user, keep.as_ref(), *reason, clock))
        })
        .await
    }

    async fn sessions(&self, user: &UserId, now: SystemTime) -> Result<Vec<Session>, StoreError> {
        self.ask((user.clone(), now), |tx, (user, now)| Box::pin(sessions(tx, user, *now))).await
    }

    async fn end_session(
        &self,
        user: &UserId,
        id: &FamilyId,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        self.transact((user.clone(), id.clone(), clock.clone()), |tx, (user, id, clock)| {
            Box::pin(end_session(tx, user, id, clock))
        })
        .await
    }

    async fn renew(&self, request: RenewRequest) -> Result<Option<Renewed>, StoreError> {
        self.transact(request, |tx, request| Box::pin(renew(tx, request))).await
    }

    fn revocations(&self) -> Revocations {
        self.revocations.clone()
    }

    async fn follow_revocations(&self) -> Result<Following, StoreError> {
        self.follow().await
    }

    fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    fn audit_trail(&self) -> AuditTrail {
        self.audit.clone()
    }

    async fn delete_revocations(&self, before: SystemTime) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            // In short steps: others who write wait for one of them only.
            let step = self.ask(before, |tx, before| Box::pin(revocation::delete(tx, *before)));
            let step = step.await?;
            deleted += step;
            if step < revocation::STEP {
                return Ok(deleted);
            }
        }
    }

    async fn delete_expired_sessions(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        let at_most = u64::from(at_most);
        let mut deleted = 0;
        while deleted < at_most {
            let left = (at_most - deleted).min(TOKENS_PER_STEP);
            let step = self.transact((before, left), |tx, (before, left)| {
                Box::pin(delete_expired(tx, *before, *left))
            });
            let Step { forgotten, last } = step.await?;
            deleted += forgotten;
            if last {
                break;
            }
        }
        Ok(deleted)
    }
}

/// Of the clean-up, in a transaction of its own: others who write have their turn after it.
struct Step {
    forgotten: u64,
    /// Whether there was nothing else to look at, or nothing but what others hold.
    last: bool,
}

async fn open_family(tx: &mut Tx<'_>, new: &NewFamily) -> sqlx::Result<Opening> {
    if let Some(epoch) = new.epoch
        && !is_epoch(tx, &new.user_id, epoch).await?
    {
        return Ok(Opening::Outdated);
    }
    let (epoch, not_before) = lock_user(tx, &new.user_id).await?;
    if let Some(others) = new.at_most.map(|at_most| at_most.saturating_sub(1)) {
        let live =
            [(&new.user_id).into(), to_i64(epoch).into(), new.created_at.into(), others.into()];
        for mut displaced in tx.all(&LOCK_DISPLACED, live).await? {
            let (id, reason): (FamilyId, _) = (displaced.take()?, RevokeReason::Displaced);
            revoke(tx, &id, new.created_at, reason).await?;
            tx.note(act_of(reason, &new.user_id, &id, new.created_at)).await?;
        }
    }
    insert_family(tx, &new.family(epoch)).await?;
    let token = StoredToken::new(0, new.created_at, new.token_expires_at);
    insert_token(tx, &new.id, &new.token, &token).await?;
    tx.note(new.act()).await?;
    Ok(Opening::Opened { not_before })
}

async fn rotate(tx: &mut Tx<'_>, request: &RotateRequest) -> sqlx::Result<Rotation> {
    let Some((PresentedToken { family, token, .. }, live)) =
        read_presented(tx, &LOCK_FAMILY, &request.presented).await?
    else {
        return Ok(Rotation::Unknown);
    };
    let now = request.clock.now();
    Ok(match judge(now, &family, &token) {
        Verdict::Revoked => Rotation::Revoked,
        Verdict::Reuse => {
            revoke(tx, &family.id, now, RevokeReason::Reuse).await?;
            tx.note(act_of(RevokeReason::Reuse, &family.user_id, &family.id, now)).await?;
            Rotation::Reused { family: family.id, user_id: family.user_id }
        }
        Verdict::Replay => match (family.sealed, live) {
            (Some(successor), Some((_, expires_at))) if now < expires_at => {
                Rotation::Replayed { family: family.id, successor, expires_at }
            }
            _ => Rotation::Expired,
        },
        Verdict::Rotate => {
            replace(tx, &family, &token, request, now).await?;
            Rotation::Rotated { family: family.id }
        }
        Verdict::Expired => Rotation::Expired,
    })
}

/// The live token of a locked family, by its successor.
async fn replace(
    tx: &mut Tx<'_>,
    family: &Family,
    live: &StoredToken,
    request: &RotateRequest,
    now: SystemTime,
) -> sqlx::Result<()> {
    let sealing = request.sealing.as_ref();
    let info = &request.info;
    let used = [
        (&family.id).into(),
        now.into(),
        info.ip().map(|ip| ip.to_string()).as_deref().into(),
        info.user_agent().into(),
        info.label().into(),
        sealing.map(|sealing| Value::Bytes(sealing.bytes.to_vec())).into(),
        sealing.map(|_| live.generation).into(),
        sealing.map(|sealing| later(now, sealing.leeway)).into(),
    ];
    tx.execute(&USE_FAMILY, used).await?;
    tx.execute(&SUPERSEDE, [(&request.presented).into(), now.into()]).await?;
    let expires_at = token_expiry(now, request.time_to_live, family.expires_at);
    let successor = StoredToken::new(live.generation.saturating_add(1), now, expires_at);
    insert_token(tx, &family.id, &request.successor, &successor).await
}

/// Whether the account may be used, and is in this epoch, until the transaction ends.
pub(super) async fn is_epoch(tx: &mut Tx<'_>, user: &UserId, epoch: u64) -> sqlx::Result<bool> {
    let Some(mut row) = tx.one(&LOCK_EPOCH, [user.into()]).await? else { return Ok(false) };
    let (now, suspended_at): (u64, Option<SystemTime>) = (row.take()?, row.take()?);
    Ok(now == epoch && suspended_at.is_none())
}

/// Whichever token is live: it is as if it had been presented.
async fn renew(tx: &mut Tx<'_>, request: &RenewRequest) -> sqlx::Result<Option<Renewed>> {
    let Some((hash, found)) = lock_live(tx, &request.family, &request.user_id).await? else {
        return Ok(None);
    };
    let PresentedToken { family, token, .. } = found;
    let now = request.clock.now();
    if judge(now, &family, &token) != Verdict::Rotate {
        return Ok(None);
    }
    let (time_to_live, clock) = (request.time_to_live, request.clock.clone());
    let rotation = RotateRequest::new(hash, request.successor, time_to_live, clock);
    replace(tx, &family, &token, &rotation, now).await?;
    let expires_at = token_expiry(now, time_to_live, family.expires_at);
    Ok(Some(Renewed::new(family, expires_at)))
}

async fn revoke_family(
    tx: &mut Tx<'_>,
    token: &TokenHash,
    reason: RevokeReason,
    clock: &SharedClock,
) -> sqlx::Result<bool> {
    match read_presented(tx, &LOCK_FAMILY, token).await? {
        Some((PresentedToken { family, .. }, _)) if family.revoked.is_none() => {
            let now = clock.now();
            revoke(tx, &family.id, now, reason).await?;
            tx.note(act_of(reason, &family.user_id, &family.id, now)).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

async fn end_session(
    tx: &mut Tx<'_>,
    user: &UserId,
    id: &FamilyId,
    clock: &SharedClock,
) -> sqlx::Result<bool> {
    let Some((_, found)) = lock_live(tx, id, user).await? else { return Ok(false) };
    let now = clock.now();
    if judge(now, &found.family, &found.token) != Verdict::Rotate {
        return Ok(false);
    }
    revoke(tx, id, now, RevokeReason::Ended).await?;
    tx.note(act_of(RevokeReason::Ended, user, id, now)).await?;
    Ok(true)
}

async fn revoke_user(
    tx: &mut Tx<'_>,
    user: &UserId,
    keep: Option<&FamilyId>,
    reason: RevokeReason,
    clock: &SharedClock,
) -> sqlx::Result<u64> {
    lock_user(tx, user).await?;
    let now = clock.now();
    let ended = end_sessions(tx, user, keep.map(FamilyId::as_str), now, reason).await?;
    let event = AuditEvent::new(Act::LOGOUT_ALL, now).about(user);
    tx.note(keep.into_iter().fold(event, |event, kept| event.on(kept.as_str()))).await?;
    Ok(ended)
}

/// Ends all sessions of a user but the one to keep, and answers how many it ended one by one.
///
/// Every verb that does so, on whichever side, calls this, after the user's own row is locked if it
/// is to be. It takes the lock that openings take, and begins a new epoch of the sessions: what was
/// opened before has ended with it, however many they are. A login whose password was right until a
/// moment ago is kept out by the epoch of the account, which such verbs of the user side begin.
pub(super) async fn end_sessions(
    tx: &mut Tx<'_>,
    user: &UserId,
    keep: Option<&str>,
    now: SystemTime,
    reason: RevokeReason,
) -> sqlx::Result<u64> {
    let (epoch, _) = lock_user(tx, user).await?;
    let mut ids = Vec::new();
    for mut row in tx.all(&LOCK_FAMILIES_OF, [user.into(), to_i64(epoch).into()]).await? {
        ids.push(row.take::<FamilyId>()?);
    }
    let mark = (ids.len() > ONE_BY_ONE).then(|| now + MARK_MARGIN);
    let keep = match keep {
        Some(keep) if keep_family(tx, user, keep, epoch).await? => Some(keep),
        _ => None,
    };
    tx.execute(&BEGIN_EPOCH, [user.into(), now.into(), mark.into()]).await?;
    let kept = keep.unwrap_or_default();
    let all = [user.into(), now.into(), reason.as_str().into(), kept.into(), to_i64(epoch).into()];
    let ended = tx.execute(&REVOKE_ALL, all).await?;
    if let Some(before) = mark {
        let except = keep.map(|id| FamilyId::from(id.to_owned()));
        tx.revoke(Revoked::User { id: user.clone(), before, except }, now).await?;
    } else {
        for id in ids.into_iter().filter(|id| id.as_str() != kept) {
            tx.revoke(Revoked::Session(id), now).await?;
        }
    }
    Ok(ended)
}

/// Takes a family into the epoch after this one; answers whether it is the user's, and live by this one.
async fn keep_family(tx: &mut Tx<'_>, user: &UserId, keep: &str, epoch: u64) -> sqlx::Result<bool> {
    let next = to_i64(epoch + 1);
    let kept = [keep.into(), user.into(), next.into(), to_i64(epoch).into()];
    Ok(tx.execute(&KEEP_FAMILY, kept).await? == 1)
}

/// For clocks that differ: what another server issued a moment ago may say a later second than ours.
const MARK_MARGIN: std::time::Duration = std::time::Duration::from_secs(2);

async fn sessions(tx: &mut Tx<'_>, user: &UserId, now: SystemTime) -> sqlx::Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for mut row in tx.all(&SESSIONS, [user.into(), now.into()]).await? {
        let mut family = take_family(&mut row)?;
        let expires_at = row.take()?;
        if !end_by_epoch(&mut family, row.take()?, row.take()?) {
            sessions.push(Session::new(family, expires_at));
        }
    }
    Ok(sessions)
}

/// The used tokens of families that have ended, then each family with its last one.
async fn delete_expired(tx: &mut Tx<'_>, before: SystemTime, at_most: u64) -> sqlx::Result<Step> {
    let mut left = at_most;
    let ended = tx.all(&ENDED, [before.into(), FAMILIES_PER_STEP.into()]).await?;
    let all_seen = ended.len() < FAMILIES_PER_STEP as usize;
    for mut row in ended {
        let id: FamilyId = row.take()?;
        if tx.one(&LOCK_ENDED, [(&id).into()]).await?.is_none()
            || tx.one(&STILL_ENDED, [(&id).into(), before.into()]).await?.is_none()
        {
            continue;
        }
        left -= tx.execute(&DELETE_USED, [(&id).into(), to_i64(left).into()]).await?;
        if left == 0 {
            break;
        }
        left -= tx.execute(&DELETE_FAMILY, [(&id).into()]).await?;
        if left == 0 {
            break;
        }
    }
    let forgotten = at_most - left;
    Ok(Step { forgotten, last: forgotten == 0 || all_seen && left > 0 })
}

/// How often all sessions of a user were ended; nobody opens one, or ends all, until the transaction
/// ends.
async fn lock_user(tx: &mut Tx<'_>, user: &UserId) -> sqlx::Result<(u64, Option<SystemTime>)> {
    let row = tx.one(&LOCK_USER, [user.into()]).await?;
    let mut row = row.ok_or_else(|| unreadable("no row of what was just written"))?;
    Ok((row.take()?, row.take()?))
}

/// A family of this user, which nobody else writes until the transaction ends, and its live token.
async fn lock_live(
    tx: &mut Tx<'_>,
    family_id: &FamilyId,
    user: &UserId,
) -> sqlx::Result<Option<(TokenHash, PresentedToken)>> {
    let owned = [family_id.into(), user.into()];
    let Some(mut row) = tx.one(&LOCK_FAMILY_OF, owned).await? else { return Ok(None) };
    let family = take_family(&mut row)?;
    let live = tx.one(&LIVE_TOKEN, [family_id.into(), user.into()]).await?;
    let Some(mut row) = live else { return Ok(None) };
    let hash = row.take()?;
    Ok(Some((hash, presented(family, row)?.0)))
}

/// A token and its family, which nobody else writes until the transaction ends if the statement
/// locks it; and the live token of that family: its generation, and when it ends.
///
/// The token is read in a statement of its own: the one that waited for the lock sees it as it was
/// before.
async fn read_presented(
    tx: &mut Tx<'_>,
    find_family: &Statement,
    token: &TokenHash,
) -> sqlx::Result<Option<(PresentedToken, Option<Live>)>> {
    let Some(mut row) = tx.one(find_family, [token.into()]).await? else { return Ok(None) };
    let family = take_family(&mut row)?;
    let row = tx.one(&TOKEN, [token.into(), (&family.user_id).into()]).await?;
    row.map(|row| presented(family, row)).transpose()
}

/// The generation of a live token, and when it ends.
type Live = (u32, SystemTime);

/// From the columns of [`TOKEN`].
fn presented(mut family: Family, mut row: Row) -> sqlx::Result<(PresentedToken, Option<Live>)> {
    let mut token = StoredToken::new(row.take()?, row.take()?, row.take()?);
    token.superseded_at = row.take()?;
    let live: Option<Live> = match (row.take()?, row.take()?) {
        (Some(generation), Some(expires_at)) => Some((generation, expires_at)),
        _ => None,
    };
    // An older server replaces the live token and leaves the seal.
    let is_live =
        |generation: u32| live.is_some_and(|(live, _)| generation.checked_add(1) == Some(live));
    family.sealed = family.sealed.filter(|sealed| is_live(sealed.generation));
    end_by_epoch(&mut family, row.take()?, row.take()?);
    let mut presented = PresentedToken::new(family, token);
    presented.not_before = row.take()?;
    Ok((presented, live))
}

/// Whether a family was ended with all of its user's; if so, that it was revoked.
fn end_by_epoch(family: &mut Family, epoch: Option<u64>, ended_at: Option<SystemTime>) -> bool {
    let opened_before = match family.epoch {
        // By an older server.
        NO_EPOCH => ended_at.is_some_and(|ended_at| family.created_at <= ended_at),
        opened_in => epoch.is_some_and(|epoch| opened_in < epoch),
    };
    if opened_before && family.revoked.is_none() {
        let at = ended_at.unwrap_or(family.last_used_at);
        family.revoked = Some((at, RevokeReason::LogoutAll));
    }
    opened_before
}

/// Of a family that an older server opened.
const NO_EPOCH: u64 = u64::MAX;

async fn insert_family(tx: &mut Tx<'_>, family: &Family) -> sqlx::Result<()> {
    let row = [
        (&family.id).into(),
        (&family.user_id).into(),
        family.created_at.into(),
        family.expires_at.into(),
        (&*family.amr.join(" ")).into(),
        family.info.ip().map(|ip| ip.to_string()).as_deref().into(),
        family.info.user_agent().into(),
        family.info.label().into(),
        to_i64(family.epoch).into(),
    ];
    tx.execute(&INSERT_FAMILY, row).await?;
    Ok(())
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
    tx.revoke(Revoked::Session(family.clone()), now).await
}

fn take_family(row: &mut Row) -> sqlx::Result<Family> {
    let mut family = Family::new(row.take()?, row.take()?, row.take()?);
    family.last_used_at = row.take()?;
    family.expires_at = row.take()?;
    family.revoked = take_revoked(row)?;
    let amr: Option<String> = row.take()?;
    family.amr = amr.iter().flat_map(|amr| amr.split_whitespace()).map(str::to_owned).collect();
    family.info = take_info(row)?;
    family.epoch = row.take::<Option<u64>>()?.unwrap_or(NO_EPOCH);
    let (sealed, generation, until) = (row.take()?, row.take()?, row.take()?);
    family.sealed = match (sealed, generation, until) {
        (Some(bytes), Some(generation), Some(until)) => {
            Some(Sealed::new(generation, Vec::from_value(bytes)?, until))
        }
        _ => None,
    };
    Ok(family)
}

fn take_revoked(row: &mut Row) -> sqlx::Result<Option<(SystemTime, RevokeReason)>> {
    let (at, reason): (Option<SystemTime>, Option<String>) = (row.take()?, row.take()?);
    // A newer server may know more reasons. That the family is revoked is what counts.
    let reason = reason.as_deref().and_then(RevokeReason::parse).unwrap_or(RevokeReason::Logout);
    Ok(at.map(|at| (at, reason)))
}

fn take_info(row: &mut Row) -> sqlx::Result<SessionInfo> {
    let mut info = SessionInfo::new();
    // For display alone: what can't be read is not known.
    if let Some(ip) = row.take::<Option<String>>()?.and_then(|ip| ip.parse().ok()) {
        info = info.with_ip(ip);
    }
    if let Some(user_agent) = row.take::<Option<String>>()? {
        info = info.with_user_agent(user_agent);
    }
    if let Some(label) = row.take::<Option<String>>()? {
        info = info.with_label(label);
    }
    Ok(info)
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
