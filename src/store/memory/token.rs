//! Refresh tokens in this process: the reference for all other wings.

use std::{collections::HashMap, time::SystemTime};

use async_trait::async_trait;

use super::MemoryStore;
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    token::{
        Family, FamilyId, NewFamily, RenewRequest, Renewed, RevokeReason, RotateRequest, Rotation,
        StoredToken, TokenStore, Verdict, judge, token_expiry,
    },
};

#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: HashMap<FamilyId, Session>,
    /// Where a token is to be found: its family and its generation.
    index: HashMap<TokenHash, (FamilyId, usize)>,
}

#[derive(Debug)]
struct Session {
    family: Family,
    /// By generation; the last one is live.
    tokens: Vec<(TokenHash, StoredToken)>,
}

#[async_trait]
impl TokenStore for MemoryStore {
    async fn open_family(&self, new: NewFamily) -> Result<bool, StoreError> {
        let first = StoredToken {
            generation: 0,
            issued_at: new.created_at,
            expires_at: new.token_expires_at,
            superseded_at: None,
        };
        let family = Family {
            id: new.id.clone(),
            user_id: new.user_id,
            created_at: new.created_at,
            last_used_at: new.created_at,
            expires_at: new.expires_at,
            revoked: None,
        };
        let state = &mut *self.lock();
        let same_epoch = |epoch| {
            let user = state.register.active(&family.user_id);
            user.is_some_and(|user| user.epoch == epoch)
        };
        if !new.epoch.is_none_or(same_epoch) {
            return Ok(false);
        }
        let state = &mut state.sessions;
        state.index.insert(new.token, (new.id.clone(), 0));
        state.sessions.insert(new.id, Session { family, tokens: vec![(new.token, first)] });
        Ok(true)
    }

    async fn family(&self, token: &TokenHash) -> Result<Option<Family>, StoreError> {
        let state = &mut self.lock().sessions;
        Ok(state.find(token).map(|(session, _)| session.family.clone()))
    }

    async fn rotate(&self, request: RotateRequest) -> Result<Rotation, StoreError> {
        let state = &mut self.lock().sessions;
        let now = request.clock.now();
        let Some((Session { family, tokens }, generation)) = state.find(&request.presented) else {
            return Ok(Rotation::Unknown);
        };
        let presented = &mut tokens[generation].1;
        let id = family.id.clone();
        Ok(match judge(now, family, presented) {
            Verdict::Rotate => {
                presented.superseded_at = Some(now);
                let successor = StoredToken {
                    generation: presented.generation + 1,
                    issued_at: now,
                    expires_at: token_expiry(now, request.time_to_live, family.expires_at),
                    superseded_at: None,
                };
                family.last_used_at = now;
                tokens.push((request.successor, successor));
                state.index.insert(request.successor, (id.clone(), generation + 1));
                Rotation::Rotated { family: id }
            }
            Verdict::Reuse => {
                family.revoked = Some((now, RevokeReason::Reuse));
                Rotation::Reused { family: id, user_id: family.user_id.clone() }
            }
            Verdict::Expired => Rotation::Expired,
            Verdict::Revoked => Rotation::Revoked,
        })
    }

    async fn renew(&self, request: RenewRequest) -> Result<Option<Renewed>, StoreError> {
        let state = &mut self.lock().sessions;
        let now = request.clock.now();
        let Some(Session { family, tokens }) = state.sessions.get_mut(&request.family) else {
            return Ok(None);
        };
        let Some((_, live)) = tokens.last_mut() else { return Ok(None) };
        if family.user_id != request.user_id || judge(now, family, live) != Verdict::Rotate {
            return Ok(None);
        }
        live.superseded_at = Some(now);
        let successor = StoredToken {
            generation: live.generation + 1,
            issued_at: now,
            expires_at: token_expiry(now, request.time_to_live, family.expires_at),
            superseded_at: None,
        };
        family.last_used_at = now;
        state.index.insert(request.successor, (family.id.clone(), tokens.len()));
        tokens.push((request.successor, successor));
        Ok(Some(Renewed::new(family.clone(), successor.expires_at)))
    }

    async fn revoke_family(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<bool, StoreError> {
        let state = &mut self.lock().sessions;
        let found = state.find(token);
        Ok(found.is_some_and(|(session, _)| session.revoke(clock, RevokeReason::Logout)))
    }

    async fn revoke_user(&self, user: &UserId, clock: &SharedClock) -> Result<u64, StoreError> {
        let state = &mut self.lock().sessions;
        let sessions =
            state.sessions.values_mut().filter(|session| session.family.user_id == *user);
        let revoked = sessions
            .filter_map(|session| session.revoke(clock, RevokeReason::LogoutAll).then_some(1));
        Ok(revoked.sum())
    }

    async fn delete_expired_sessions(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        let state = &mut self.lock().sessions;
        let Sessions { sessions, index } = state;
        let ended = |session: &Session| {
            session.tokens.last().is_none_or(|(_, live)| live.expires_at < before)
        };
        let mut deleted = 0;
        sessions.retain(|_, session| {
            let delete = deleted < u64::from(at_most) && ended(session);
            if delete {
                deleted += 1;
                for (token, _) in &session.tokens {
                    index.remove(token);
                }
            }
            !delete
        });
        Ok(deleted)
    }
}

impl Sessions {
    /// Ends all sessions of a user, except one.
    pub(super) fn end_all(
        &mut self,
        user: &UserId,
        except: Option<&str>,
        now: SystemTime,
        reason: RevokeReason,
    ) {
        for Session { family, .. } in self.sessions.values_mut() {
            if family.user_id == *user && except != Some(family.id.as_str()) {
                family.revoked.get_or_insert((now, reason));
            }
        }
    }

    /// The session of a token, and which generation the token is.
    fn find(&mut self, token: &TokenHash) -> Option<(&mut Session, usize)> {
        let (id, generation) = self.index.get(token)?;
        Some((self.sessions.get_mut(id)?, *generation))
    }
}

impl Session {
    /// Answers whether it had not been revoked before.
    fn revoke(&mut self, clock: &SharedClock, reason: RevokeReason) -> bool {
        let live = self.family.revoked.is_none();
        if live {
            self.family.revoked = Some((clock.now(), reason));
        }
        live
    }
}
