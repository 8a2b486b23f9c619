//! Second factors, and logins that wait for them, in this process: the reference for all other wings.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use async_trait::async_trait;

use super::{MemoryStore, account::State};
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    audit::{Act, AuditEvent, AuditTrail},
    second_factor::{
        PendingLogin, PendingLoginStore, SealedSecret, SecondFactorStore, StoredTotp, TotpBegun,
    },
};

#[derive(Debug, Default)]
pub(super) struct SecondFactors(HashMap<UserId, Factor>);

#[derive(Debug)]
struct Factor {
    totp: StoredTotp,
    last_step: Option<u64>,
    recovery_codes: HashSet<TokenHash>,
}

#[async_trait]
impl SecondFactorStore for MemoryStore {
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
        let state = &mut *self.lock();
        if state.register.active(user).is_none() {
            return Ok(TotpBegun::NoUser);
        }
        if state.second_factors.is_on(user) {
            return Ok(TotpBegun::AlreadyOn);
        }
        let totp = StoredTotp::new(secret.clone(), None);
        let factor = Factor { totp, last_step: None, recovery_codes: HashSet::new() };
        state.second_factors.0.insert(user.clone(), factor);
        Ok(TotpBegun::Pending)
    }

    async fn find_totp(&self, user: &UserId) -> Result<Option<StoredTotp>, StoreError> {
        Ok(self.lock().second_factors.0.get(user).map(|factor| factor.totp.clone()))
    }

    async fn confirm_totp(
        &self,
        user: &UserId,
        secret: &SealedSecret,
        step: u64,
        recovery_codes: &[TokenHash],
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let state = &mut *self.lock();
        let pending =
            |factor: &&mut Factor| factor.totp.on_since.is_none() && factor.totp.secret == *secret;
        let Some(factor) = state.second_factors.0.get_mut(user).filter(pending) else {
            return Ok(false);
        };
        factor.totp.on_since = Some(now);
        factor.last_step = Some(step);
        factor.recovery_codes = recovery_codes.iter().copied().collect();
        state.register.set_second_factor(user, true);
        state.noted.push(AuditEvent::new(Act::SECOND_FACTOR_ON, now).about(user));
        Ok(true)
    }

    async fn use_step(&self, user: &UserId, step: u64) -> Result<bool, StoreError> {
        let state = &mut *self.lock();
        let later = |factor: &&mut Factor| {
            factor.totp.on_since.is_some() && factor.last_step.is_none_or(|last| last < step)
        };
        let factor = state.second_factors.0.get_mut(user).filter(later);
        Ok(factor.map(|factor| factor.last_step = Some(step)).is_some())
    }

    async fn use_recovery_code(&self, user: &UserId, code: &TokenHash) -> Result<bool, StoreError> {
        let State { second_factors, noted, .. } = &mut *self.lock();
        let factor = second_factors.0.get_mut(user);
        let used = factor.is_some_and(|factor| factor.recovery_codes.remove(code));
        if used {
            noted.push(AuditEvent::new(Act::RECOVERY_CODE_USED, self.clock.now()).about(user));
        }
        Ok(used)
    }

    async fn replace_secret(
        &self,
        user: &UserId,
        old: &SealedSecret,
        new: &SealedSecret,
    ) -> Result<bool, StoreError> {
        let state = &mut *self.lock();
        let factor = state.second_factors.0.get_mut(user).filter(|f| f.totp.secret == *old);
        Ok(factor.map(|factor| factor.totp.secret = new.clone()).is_some())
    }

    async fn remove_totp(&self, user: &UserId) -> Result<bool, StoreError> {
        let state = &mut *self.lock();
        let was_on = state.second_factors.is_on(user);
        state.second_factors.0.remove(user);
        state.register.set_second_factor(user, false);
        if was_on {
            let now = self.clock.now();
            state.noted.push(AuditEvent::new(Act::SECOND_FACTOR_OFF, now).about(user));
        }
        Ok(was_on)
    }
}

impl SecondFactors {
    pub(super) fn forget(&mut self, user: &UserId) {
        self.0.remove(user);
    }

    fn is_on(&self, user: &UserId) -> bool {
        self.0.get(user).is_some_and(|factor| factor.totp.on_since.is_some())
    }
}

#[derive(Debug, Default)]
pub(super) struct PendingLogins(HashMap<TokenHash, Pending>);

#[derive(Debug)]
struct Pending {
    login: PendingLogin,
    tries: u32,
}

#[async_trait]
impl PendingLoginStore for MemoryStore {
    fn clock(&self) -> SharedClock {
        self.clock()
    }

    fn audit_trail(&self) -> AuditTrail {
        self.audit.clone()
    }

    async fn open_login(&self, login: PendingLogin) -> Result<(), StoreError> {
        let state = &mut *self.lock();
        let user = state.register.active(&login.user_id);
        if user.is_some_and(|user| login.epoch.is_none_or(|epoch| epoch == user.epoch)) {
            let event = AuditEvent::new(Act::SECOND_STEP, self.clock.now());
            state.noted.push(event.about(&login.user_id));
            state.pending_logins.0.insert(login.token, Pending { login, tries: 0 });
        }
        Ok(())
    }

    async fn find_login(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        let state = &mut *self.lock();
        Ok(state.pending_logins.waiting(token, now).map(|pending| pending.login.user_id.clone()))
    }

    async fn take_try(
        &self,
        token: &TokenHash,
        at_most: u32,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        let state = &mut *self.lock();
        let pending = state.pending_logins.waiting(token, now);
        Ok(pending.filter(|pending| pending.tries < at_most).map(|pending| {
            pending.tries += 1;
            pending.login.user_id.clone()
        }))
    }

    async fn give_try_back(&self, token: &TokenHash) -> Result<(), StoreError> {
        if let Some(pending) = self.lock().pending_logins.0.get_mut(token) {
            pending.tries = pending.tries.saturating_sub(1);
        }
        Ok(())
    }

    async fn finish_login(&self, token: &TokenHash, now: SystemTime) -> Result<bool, StoreError> {
        let finished = self.lock().pending_logins.0.remove(token);
        Ok(finished.is_some_and(|pending| now < pending.login.expires_at))
    }

    async fn delete_expired_logins(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        let mut deleted = 0;
        self.lock().pending_logins.0.retain(|_, pending| {
            let delete = pending.login.expires_at < before && deleted < u64::from(at_most);
            deleted += u64::from(delete);
            !delete
        });
        Ok(deleted)
    }
}

impl PendingLogins {
    /// Ends the logins of a user.
    pub(super) fn end_all(&mut self, user: &UserId) {
        self.0.retain(|_, pending| pending.login.user_id != *user);
    }

    fn waiting(&mut self, token: &TokenHash, now: SystemTime) -> Option<&mut Pending> {
        self.0.get_mut(token).filter(|pending| now < pending.login.expires_at)
    }
}
