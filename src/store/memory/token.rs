//! Refresh tokens in this process: the reference for all other wings.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::SystemTime,
};

use async_trait::async_trait;

use super::{MemoryStore, account::State};
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    audit::{Act, AuditEvent, AuditTrail},
    clock::later,
    token::{
        Family, FamilyId, NewFamily, Opening, PresentedToken, RenewRequest, Renewed, Revocation,
        Revocations, RevokeReason, Revoked, RotateRequest, Rotation, Sealed,
        Session as LiveSession, StoredToken, TokenStore, Verdict, act_of, judge, token_expiry,
    },
};

#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: HashMap<FamilyId, Session>,
    /// Those of each user, the ended ones too.
    by_user: HashMap<UserId, Vec<FamilyId>>,
    /// Where a token is to be found: its family, and its generation there.
    index: HashMap<TokenHash, (FamilyId, usize)>,
}

#[derive(Debug)]
struct Session {
    family: Family,
    /// By generation, the first of which may have been forgotten; the last one is live.
    tokens: Vec<(TokenHash, StoredToken)>,
}

#[async_trait]
impl TokenStore for MemoryStore {
    async fn open_family(&self, new: NewFamily) -> Result<Opening, StoreError> {
        let state = &mut *self.lock();
        let in_epoch =
            |epoch| state.register.active(&new.user_id).is_some_and(|user| user.epoch == epoch);
        if !new.epoch.is_none_or(in_epoch) {
            return Ok(Opening::Outdated);
        }
        if let Some(at_most) = new.at_most {
            let live = state.sessions.live(&new.user_id, new.created_at);
            let displaced: Vec<_> = live
                .iter()
                .skip(at_most.saturating_sub(1) as usize)
                .map(|s| s.family.id.clone())
                .collect();
            for id in displaced {
                let reason = RevokeReason::Displaced;
                state.revoke(&id, new.created_at, reason);
                state.noted.push(act_of(reason, &new.user_id, &id, new.created_at));
            }
        }
        let first = StoredToken::new(0, new.created_at, new.token_expires_at);
        state.noted.push(new.act());
        let session = Session { family: new.family(0), tokens: vec![(new.token, first)] };
        state.sessions.index.insert(new.token, (new.id.clone(), 0));
        state.sessions.by_user.entry(new.user_id).or_default().push(new.id.clone());
        state.sessions.sessions.insert(new.id, session);
        Ok(Opening::Opened { not_before: None })
    }

    async fn find_token(&self, token: &TokenHash) -> Result<Option<PresentedToken>, StoreError> {
        let sessions = &mut self.lock().sessions;
        Ok(sessions.find(token).map(|(session, generation)| {
            PresentedToken::new(session.family.clone(), session.tokens[generation].1)
        }))
    }

    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError> {
        let state = &mut *self.lock();
        let now = request.clock.now();
        let Some((session, generation)) = state.sessions.find(&request.presented) else {
            return Ok(Rotation::Unknown);
        };
        let Session { family, tokens } = session;
        let id = family.id.clone();
        Ok(match judge(now, family, &tokens[generation].1) {
            Verdict::Rotate => {
                let generation = session.replace(&request, now);
                state.sessions.index.insert(request.successor, (id.clone(), generation));
                Rotation::Rotated { family: id }
            }
            Verdict::Replay => match (family.sealed.clone(), tokens.last()) {
                (Some(successor), Some((_, live))) if now < live.expires_at => {
                    Rotation::Replayed { family: id, successor, expires_at: live.expires_at }
                }
                _ => Rotation::Expired,
            },
            Verdict::Reuse => {
                let user_id = family.user_id.clone();
                state.revoke(&id, now, RevokeReason::Reuse);
                state.noted.push(act_of(RevokeReason::Reuse, &user_id, &id, now));
                Rotation::Reused { family: id, user_id }
            }
            Verdict::Expired => Rotation::Expired,
            Verdict::Revoked => Rotation::Revoked,
        })
    }

    async fn revoke_family(
        &self,
        token: &TokenHash,
        reason: RevokeReason,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        let state = &mut *self.lock();
        let ids = |family: &Family| (family.id.clone(), family.user_id.clone());
        let found = state.sessions.find(token).map(|(session, _)| ids(&session.family));
        let Some((id, user)) = found else { return Ok(false) };
        let now = clock.now();
        let revoked = state.revoke(&id, now, reason);
        if revoked {
            state.noted.push(act_of(reason, &user, &id, now));
        }
        Ok(revoked)
    }

    async fn revoke_user(
        &self,
        user: &UserId,
        keep: Option<&FamilyId>,
        reason: RevokeReason,
        clock: &SharedClock,
    ) -> Result<u64, StoreError> {
        let state = &mut *self.lock();
        let now = clock.now();
        let event = AuditEvent::new(Act::LOGOUT_ALL, now).about(user);
        state.noted.push(keep.into_iter().fold(event, |event, kept| event.on(kept.as_str())));
        Ok(state.end_sessions(user, keep.map(FamilyId::as_str), now, reason))
    }

    async fn sessions(
        &self,
        user: &UserId,
        now: SystemTime,
    ) -> Result<Vec<LiveSession>, StoreError> {
        let sessions = &self.lock().sessions;
        let live = sessions.live(user, now).into_iter();
        let shown = live.map(|session| LiveSession::new(session.family.clone(), session.ends_at()));
        Ok(shown.collect())
    }

    async fn end_session(
        &self,
        user: &UserId,
        id: &FamilyId,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        let state = &mut *self.lock();
        let now = clock.now();
        let session = state.sessions.sessions.get(id);
        let own = session.is_some_and(|s| s.family.user_id == *user && s.is_live(now));
        let ended = own && state.revoke(id, now, RevokeReason::Ended);
        if ended {
            state.noted.push(act_of(RevokeReason::Ended, user, id, now));
        }
        Ok(ended)
    }

    async fn renew(&self, request: RenewRequest) -> Result<Option<Renewed>, StoreError> {
        let sessions = &mut self.lock().sessions;
        let now = request.clock.now();
        let found = sessions.sessions.get_mut(&request.family);
        let own = found.filter(|s| s.family.user_id == request.user_id && s.is_live(now));
        let Some(session) = own else { return Ok(None) };
        let Some((live, _)) = session.tokens.last() else { return Ok(None) };
        let RenewRequest { successor, time_to_live, clock, family, .. } = request;
        let request = RotateRequest::new(*live, successor, time_to_live, clock);
        let generation = session.replace(&request, now);
        sessions.index.insert(successor, (family, generation));
        Ok(Some(Renewed::new(session.family.clone(), session.ends_at())))
    }

    fn revocations(&self) -> Revocations {
        self.lock().revocations.clone()
    }

    fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    fn audit_trail(&self) -> AuditTrail {
        self.audit.clone()
    }

    async fn delete_revocations(&self, _: SystemTime) -> Result<u64, StoreError> {
        // They are nowhere but where they are asked for.
        self.lock().revocations.forget_ended(self.clock.now());
        Ok(0)
    }

    async fn delete_expired_sessions(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        let Sessions { sessions, index, by_user } = &mut self.lock().sessions;
        let mut left = at_most as usize;
        sessions.retain(|id, session| {
            if left == 0 || session.ends_at() >= before {
                return true;
            }
            // Used ones first: by the live one it is known that the session has ended.
            let used = session.tokens.len() - 1;
            for (token, _) in session.tokens.drain(..used.min(left)) {
                index.remove(&token);
            }
            left -= used.min(left);
            if left == 0 {
                return true;
            }
            left -= 1;
            session.tokens.iter().for_each(|(token, _)| drop(index.remove(token)));
            if let Entry::Occupied(mut ids) = by_user.entry(session.family.user_id.clone()) {
                ids.get_mut().retain(|other| other != id);
                if ids.get().is_empty() {
                    ids.remove();
                }
            }
            false
        });
        Ok((at_most as usize - left) as u64)
    }
}

impl State {
    /// Answers whether the session had not been revoked before.
    fn revoke(&mut self, id: &FamilyId, now: SystemTime, reason: RevokeReason) -> bool {
        let Some(Session { family, .. }) = self.sessions.sessions.get_mut(id) else { return false };
        if family.revoked.is_some() {
            return false;
        }
        family.revoked = Some((now, reason));
        family.sealed = None;
        self.tell(Revoked::Session(id.clone()), now);
        true
    }

    /// Ends all sessions of a user but the one to keep, and answers how many. Every verb that does so
    /// calls this.
    pub(super) fn end_sessions(
        &mut self,
        user: &UserId,
        keep: Option<&str>,
        now: SystemTime,
        reason: RevokeReason,
    ) -> u64 {
        let mut ids = self.sessions.by_user.get(user).cloned().unwrap_or_default();
        ids.retain(|id| Some(id.as_str()) != keep);
        ids.iter().filter(|id| self.revoke(id, now, reason)).count() as u64
    }

    /// What else others may remember of an account.
    pub(super) fn tell(&mut self, what: Revoked, at: SystemTime) {
        self.told += 1;
        self.revocations.apply(&Revocation::new(self.told, at, what));
    }
}

impl Sessions {
    /// The session of a token, and where in it the token is.
    fn find(&mut self, token: &TokenHash) -> Option<(&mut Session, usize)> {
        let (id, generation) = self.index.get(token)?;
        let session = self.sessions.get_mut(id)?;
        let forgotten = session.forgotten();
        Some((session, generation.checked_sub(forgotten)?))
    }

    /// Those of a user that are worth something, the last used first.
    fn live(&self, user: &UserId, now: SystemTime) -> Vec<&Session> {
        let ids = self.by_user.get(user).into_iter().flatten();
        let of_user = ids.filter_map(|id| self.sessions.get(id));
        let mut live: Vec<_> = of_user.filter(|session| session.is_live(now)).collect();
        live.sort_by(|a, b| {
            let key = |s: &Session| (std::cmp::Reverse(s.family.last_used_at), s.family.id.clone());
            key(a).cmp(&key(b))
        });
        live
    }
}

impl Session {
    /// The live token, by its successor, whose generation is answered.
    fn replace(&mut self, request: &RotateRequest, now: SystemTime) -> usize {
        let Self { family, tokens } = self;
        let mut generation = 0;
        if let Some((_, live)) = tokens.last_mut() {
            live.superseded_at = Some(now);
            generation = live.generation;
        }
        let expires_at = token_expiry(now, request.time_to_live, family.expires_at);
        let successor = StoredToken::new(generation + 1, now, expires_at);
        family.last_used_at = now;
        family.info = request.info.clone().or(&family.info);
        let sealing = request.sealing.as_ref();
        family.sealed =
            sealing.map(|s| Sealed::new(generation, s.bytes.clone(), later(now, s.leeway)));
        tokens.push((request.successor, successor));
        successor.generation as usize
    }

    fn is_live(&self, now: SystemTime) -> bool {
        self.tokens
            .last()
            .is_some_and(|(_, live)| judge(now, &self.family, live) == Verdict::Rotate)
    }

    /// When its last token ends.
    fn ends_at(&self) -> SystemTime {
        self.tokens.last().map_or(self.family.created_at, |(_, live)| live.expires_at)
    }

    /// How many of its generations were forgotten: the first ones.
    fn forgotten(&self) -> usize {
        self.tokens.first().map_or(0, |(_, first)| first.generation as usize)
    }
}
