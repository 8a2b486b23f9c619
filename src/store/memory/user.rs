//! Users in this process: the reference implementation.

use std::{
    cmp::Reverse,
    collections::HashMap,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::{MemoryStore, account::State};
use crate::{
    Role, SharedClock, StoreError, TokenHash, UserId,
    audit::{Act, AuditEvent, AuditTrail},
    clock::later,
    token::{RevokeReason, Revoked},
    user::{
        CreateUserError, Email, EmailChangeError, EnsuredAdmin, LinkToken, NewUser, PasswordChange,
        PasswordHash, PasswordSet, UpdateUserError, User, UserChange, UserChanged, UserPage,
        UserStore, acts, judge_change, judge_deletion,
    },
};

#[derive(Debug, Default)]
pub(super) struct Register {
    accounts: HashMap<UserId, Account>,
    by_email: HashMap<Email, UserId>,
    /// Whose each token of a link is, or was: what is no longer good is forgotten at the clean-up.
    by_link: HashMap<TokenHash, UserId>,
}

#[derive(Debug)]
struct Account {
    user: User,
    password_hash: PasswordHash,
    verification: Option<LinkToken>,
    /// One that was used or ended is kept, past its time: a new one has to wait.
    reset: Option<LinkToken>,
    /// The same, and the address that is wanted.
    email_change: Option<(Email, LinkToken)>,
}

#[async_trait]
impl UserStore for MemoryStore {
    fn clock(&self) -> SharedClock {
        self.clock()
    }

    fn audit_trail(&self) -> AuditTrail {
        self.audit.clone()
    }

    async fn create(&self, new: NewUser) -> Result<User, CreateUserError> {
        let state = &mut *self.lock();
        state.free(&new.email, new.created_at);
        let register = &mut state.register;
        if register.by_email.contains_key(&new.email) {
            return Err(CreateUserError::EmailTaken);
        }
        if register.accounts.contains_key(&new.id) {
            return Err(StoreError::internal("the identifier is taken").into());
        }
        let registered = AuditEvent::new(Act::REGISTERED, new.created_at).about(&new.id);
        let user = register.add(new);
        state.noted.push(registered);
        Ok(user)
    }

    async fn find_holder(
        &self,
        email: &Email,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        let register = &mut self.lock().register;
        let holder = register.account_of(email).filter(|account| account.holds_its_address(now));
        Ok(holder.map(|account| account.user.clone()))
    }

    async fn find_with_hash(
        &self,
        id: &UserId,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        let register = &self.lock().register;
        let account = register.accounts.get(id);
        Ok(account.map(|account| (account.user.clone(), account.password_hash.clone())))
    }

    async fn list(&self, page: &UserPage) -> Result<Vec<User>, StoreError> {
        let register = &self.lock().register;
        let older = |user: &&User| {
            page.after.as_ref().is_none_or(|cursor| {
                (user.created_at, user.id.as_str()) < (cursor.created_at, cursor.id.as_str())
            })
        };
        let mut users: Vec<_> =
            register.accounts.values().map(|account| &account.user).filter(older).collect();
        users.sort_by_key(|user| Reverse((user.created_at, user.id.as_str())));
        Ok(users.into_iter().take(page.limit as usize).cloned().collect())
    }

    async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        Ok(self.lock().register.accounts.get(id).map(|account| account.user.clone()))
    }

    async fn find_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        let register = &mut self.lock().register;
        let account = register.account_of(email);
        Ok(account.map(|account| (account.user.clone(), account.password_hash.clone())))
    }

    async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError> {
        self.change(id, change).await.map(|changed| changed.user)
    }

    async fn change(
        &self,
        id: &UserId,
        change: UserChange,
    ) -> Result<UserChanged, UpdateUserError> {
        let state = &mut *self.lock();
        let now = self.clock().now();
        let judged = judge_change(&state.register.concerned(id, change.by.as_ref()), id, &change)?;
        let changed = &judged.user;
        if change.second_factor_off {
            state.second_factors.forget(id);
        }
        if let Some(account) = state.register.accounts.get_mut(id) {
            if changed.suspended && !account.user.suspended {
                account.end_links(now);
            }
            let suspended = changed.suspended && !account.user.suspended;
            let role = (account.user.role != changed.role).then(|| changed.role.clone());
            let other_plan = account.user.plan != changed.plan;
            state.noted.extend(acts(&account.user, changed, change.by.as_ref(), now));
            account.user = changed.clone();
            if let Some(role) = role {
                state.tell(Revoked::Role { user: id.clone(), role }, now);
            }
            if other_plan {
                state.tell(Revoked::Account(id.clone()), now);
            }
            if suspended {
                state.end_logins_and_sessions(id, None, now);
                state.api_keys.revoke_all(id, now);
            }
        }
        Ok(judged)
    }

    async fn replace_password_hash(
        &self,
        id: &UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, StoreError> {
        let register = &mut self.lock().register;
        let account = register.accounts.get_mut(id).filter(|account| account.password_hash == *old);
        let replaced = account.map(|account| account.password_hash = new.clone());
        Ok(replaced.is_some())
    }

    async fn renew_verification(
        &self,
        email: &Email,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        let register = &mut self.lock().register;
        let account = register.account_of(email).filter(|account| {
            !account.user.email_verified && is_due(account.verification, &token, at_most_every)
        });
        let user = account.map(|account| {
            account.verification = Some(token);
            account.user.clone()
        });
        Ok(register.note_link(token, user))
    }

    async fn find_verification(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        let register = &mut self.lock().register;
        let found = register.by_link(|account| account.verification, token, now);
        Ok(found.map(|account| account.user.id.clone()))
    }

    async fn verify_email(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        let State { register, noted, .. } = &mut *self.lock();
        let account = register.by_link(|account| account.verification, token, now);
        Ok(account.map(|account| {
            account.user.email_verified = true;
            account.verification = None;
            noted.push(AuditEvent::new(Act::ADDRESS_VERIFIED, now).about(&account.user.id));
            account.user.clone()
        }))
    }

    async fn put_reset(
        &self,
        id: &UserId,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        let State { register, noted, .. } = &mut *self.lock();
        let account = register.accounts.get_mut(id).filter(|account| {
            !account.user.suspended && is_due(account.reset, &token, at_most_every)
        });
        let user = account.map(|account| {
            account.reset = Some(token);
            noted.push(AuditEvent::new(Act::PASSWORD_FORGOTTEN, token.created_at).about(id));
            account.user.clone()
        });
        Ok(register.note_link(token, user))
    }

    async fn find_reset(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        let register = &mut self.lock().register;
        let found = register.by_link(|account| account.reset, token, now);
        Ok(found.map(|account| account.user.id.clone()))
    }

    async fn reset_password(
        &self,
        token: &TokenHash,
        new: &PasswordHash,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        let state = &mut *self.lock();
        let now = clock.now();
        let Some(account) = state.register.by_link(|account| account.reset, token, now) else {
            return Ok(None);
        };
        account.user.email_verified = true;
        account.user.epoch += 1;
        account.password_hash = new.clone();
        account.verification = None;
        account.end_links(now);
        let user = account.user.clone();
        state.end_logins_and_sessions(&user.id, None, now);
        state.noted.push(AuditEvent::new(Act::PASSWORD_RESET, now).about(&user.id));
        let api_keys = state.api_keys.count(&user.id);
        Ok(Some(PasswordSet::new(user, api_keys)))
    }

    async fn change_password(
        &self,
        change: &PasswordChange,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        let PasswordChange { id, epoch, new, keep } = change;
        let state = &mut *self.lock();
        let now = clock.now();
        let account = state.register.accounts.get_mut(id);
        let Some(account) = account.filter(|account| account.is_in(*epoch)) else {
            return Ok(None);
        };
        account.user.epoch += 1;
        account.password_hash = new.clone();
        account.end_links(now);
        let user = account.user.clone();
        state.end_logins_and_sessions(id, keep.as_deref(), now);
        state.noted.push(AuditEvent::new(Act::PASSWORD_CHANGED, now).about(id));
        let api_keys = state.api_keys.count(id);
        Ok(Some(PasswordSet::new(user, api_keys)))
    }

    async fn put_email_change(
        &self,
        id: &UserId,
        email: &Email,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, EmailChangeError> {
        let State { register, noted, .. } = &mut *self.lock();
        let holder = register.account_of(email).filter(|account| {
            account.user.id != *id && account.holds_its_address(token.created_at)
        });
        let taken = holder.is_some();
        let account = register.accounts.get_mut(id).filter(|account| !account.user.suspended);
        let account = account.ok_or(EmailChangeError::NotFound)?;
        if account.user.email == *email {
            return Err(EmailChangeError::OwnEmail);
        }
        if taken {
            return Err(EmailChangeError::EmailTaken);
        }
        let last = account.email_change.as_ref().map(|(_, token)| *token);
        if !is_due(last, &token, at_most_every) {
            return Ok(None);
        }
        account.email_change = Some((email.clone(), token));
        noted.push(AuditEvent::new(Act::EMAIL_CHANGE_ASKED, token.created_at).about(id));
        let user = account.user.clone();
        Ok(register.note_link(token, Some(user)))
    }

    async fn confirm_email_change(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<User, EmailChangeError> {
        let state = &mut *self.lock();
        let now = clock.now();
        let link = |account: &Account| account.email_change.as_ref().map(|(_, token)| *token);
        let account = state.register.by_link(link, token, now);
        let account = account.ok_or(EmailChangeError::InvalidToken)?;
        let id = account.user.id.clone();
        account.end_email_change(now);
        let wanted = account.email_change.as_ref().map(|(email, _)| email.clone());
        let wanted = wanted.ok_or(EmailChangeError::InvalidToken)?;
        state.free(&wanted, now);
        let Register { accounts, by_email, .. } = &mut state.register;
        let account = accounts.get_mut(&id).ok_or(EmailChangeError::InvalidToken)?;
        if by_email.contains_key(&wanted) {
            return Err(EmailChangeError::EmailTaken);
        }
        by_email.remove(&account.user.email);
        state.noted.push(AuditEvent::new(Act::EMAIL_CHANGED, now).about(&id));
        by_email.insert(wanted.clone(), id);
        account.user.email = wanted;
        account.user.email_verified = true;
        account.verification = None;
        account.end_reset(now);
        Ok(account.user.clone())
    }

    async fn delete(
        &self,
        id: &UserId,
        by: Option<&UserId>,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        self.lock().delete(id, by, None, clock.now())
    }

    async fn delete_in_epoch(
        &self,
        id: &UserId,
        epoch: u64,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        self.lock().delete(id, None, Some(epoch), clock.now())
    }

    async fn ensure_admin(
        &self,
        admin: &NewUser,
        clock: &SharedClock,
    ) -> Result<(User, EnsuredAdmin), StoreError> {
        let state = &mut *self.lock();
        let now = clock.now();
        let ensured = |id, outcome: EnsuredAdmin| {
            let event = |how| AuditEvent::new(Act::ADMIN_ENSURED, now).about(id).with_detail(how);
            outcome.change().map(event)
        };
        let Some(account) = state.register.account_of(&admin.email) else {
            let admin = NewUser { verification: None, ..admin.clone() }.with_role(Role::ADMIN);
            state.noted.extend(ensured(&admin.id, EnsuredAdmin::Created));
            return Ok((state.register.add(admin), EnsuredAdmin::Created));
        };
        let outcome = EnsuredAdmin::of(&account.user);
        state.noted.extend(ensured(&account.user.id, outcome));
        if outcome != EnsuredAdmin::Suspended {
            account.user.role = Role::ADMIN;
        }
        if outcome != EnsuredAdmin::TakenOver {
            return Ok((account.user.clone(), outcome));
        }
        account.user.email_verified = true;
        account.user.epoch += 1;
        account.password_hash = admin.password_hash.clone();
        account.verification = None;
        account.end_links(now);
        let user = account.user.clone();
        state.end_logins_and_sessions(&user.id, None, now);
        state.api_keys.revoke_all(&user.id, now);
        Ok((user, outcome))
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(self.lock().register.accounts.len() as u64)
    }

    async fn delete_expired_links(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        let register = &mut self.lock().register;
        let mut left = at_most;
        let mut forget = |expired: bool| {
            let forget = expired && left > 0;
            left -= u32::from(forget);
            forget
        };
        for account in register.accounts.values_mut() {
            let over = |token: &LinkToken| token.expires_at < before && token.is_over(before);
            account.verification.take_if(|token| forget(over(token)));
            account.reset.take_if(|token| forget(over(token)));
            account.email_change.take_if(|(_, token)| forget(over(token)));
        }
        let Register { accounts, by_link, .. } = register;
        by_link.retain(|hash, id| accounts.get(id).is_some_and(|account| account.has_link(hash)));
        Ok((at_most - left).into())
    }
}

impl State {
    fn delete(
        &mut self,
        id: &UserId,
        by: Option<&UserId>,
        epoch: Option<u64>,
        now: SystemTime,
    ) -> Result<User, UpdateUserError> {
        let user = judge_deletion(&self.register.concerned(id, by), id, by, epoch)?;
        self.remove(id, now);
        self.noted.push(AuditEvent::new(Act::DELETED, now).about(id).or_by(by));
        Ok(user)
    }

    /// Takes an address from an account that holds it no longer.
    fn free(&mut self, email: &Email, now: SystemTime) {
        let account = self.register.account_of(email);
        if let Some(account) = account.filter(|account| !account.holds_its_address(now)) {
            let id = account.user.id.clone();
            self.remove(&id, now);
            let event = AuditEvent::new(Act::DELETED, now).about(&id);
            self.noted.push(event.with_detail("never_verified"));
        }
    }

    /// Forgets a user; what was the user's ends.
    fn remove(&mut self, id: &UserId, now: SystemTime) {
        if let Some(account) = self.register.accounts.remove(id) {
            self.register.by_email.remove(&account.user.email);
        }
        self.second_factors.forget(id);
        self.end_logins_and_sessions(id, None, now);
        self.api_keys.revoke_all(id, now);
    }

    /// Ends what was opened by the password that was good until now, except one session.
    fn end_logins_and_sessions(&mut self, id: &UserId, except: Option<&str>, now: SystemTime) {
        self.pending_logins.end_all(id);
        self.end_sessions(id, except, now, RevokeReason::LogoutAll);
        self.tell(Revoked::Account(id.clone()), now);
    }
}

impl Register {
    /// The user, if the account may be used.
    pub(super) fn active(&self, id: &UserId) -> Option<&User> {
        self.accounts.get(id).map(|account| &account.user).filter(|user| !user.suspended)
    }

    fn add(&mut self, new: NewUser) -> User {
        let mut user = User::new(new.id.clone(), new.email.clone(), new.role, new.created_at);
        user.email_verified = new.verification.is_none();
        let account = Account {
            user: user.clone(),
            password_hash: new.password_hash,
            verification: new.verification,
            reset: None,
            email_change: None,
        };
        self.by_email.insert(new.email, new.id.clone());
        self.by_link.extend(new.verification.map(|token| (token.hash, new.id.clone())));
        self.accounts.insert(new.id, account);
        user
    }

    /// The user's second factor was turned on or off.
    pub(super) fn set_second_factor(&mut self, id: &UserId, on: bool) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.user.second_factor = on;
        }
    }

    fn account_of(&mut self, email: &Email) -> Option<&mut Account> {
        self.accounts.get_mut(self.by_email.get(email)?)
    }

    /// The account whose link of some purpose has this token, if that is good now.
    fn by_link(
        &mut self,
        link: impl Fn(&Account) -> Option<LinkToken>,
        token: &TokenHash,
        now: SystemTime,
    ) -> Option<&mut Account> {
        let is_it = |stored: LinkToken| stored.hash == *token && now < stored.expires_at;
        let account = self.accounts.get_mut(self.by_link.get(token)?)?;
        link(account).is_some_and(is_it).then_some(account)
    }

    fn note_link(&mut self, token: LinkToken, user: Option<User>) -> Option<User> {
        self.by_link.extend(user.iter().map(|user| (token.hash, user.id.clone())));
        user
    }

    /// By whom it is judged whether a user may be changed or go: that user, who acts, and where an admin
    /// may go, another one.
    fn concerned(&self, id: &UserId, by: Option<&UserId>) -> Vec<User> {
        let user_of = |id| self.accounts.get(id).map(|account| &account.user);
        let others = || self.accounts.values().map(|account| &account.user);
        let user = user_of(id);
        let another = user
            .filter(|user| user.is_active_admin())
            .and_then(|_| others().find(|other| other.id != *id && other.is_active_admin()));
        [user, by.and_then(user_of), another].into_iter().flatten().cloned().collect()
    }
}

impl Account {
    fn holds_its_address(&self, now: SystemTime) -> bool {
        let good = |token: LinkToken| now < token.expires_at;
        self.user.email_verified || self.verification.is_some_and(good)
    }

    fn has_link(&self, hash: &TokenHash) -> bool {
        let change = self.email_change.as_ref().map(|(_, token)| token);
        [self.verification.as_ref(), self.reset.as_ref(), change]
            .into_iter()
            .flatten()
            .any(|token| token.hash == *hash)
    }

    fn is_in(&self, epoch: u64) -> bool {
        !self.user.suspended && self.user.epoch == epoch
    }

    fn end_links(&mut self, now: SystemTime) {
        self.end_reset(now);
        self.end_email_change(now);
    }

    fn end_reset(&mut self, now: SystemTime) {
        if let Some(token) = &mut self.reset {
            token.expires_at = token.expires_at.min(now);
        }
    }

    fn end_email_change(&mut self, now: SystemTime) {
        if let Some((_, token)) = &mut self.email_change {
            token.expires_at = token.expires_at.min(now);
        }
    }
}

fn is_due(last: Option<LinkToken>, next: &LinkToken, at_most_every: Duration) -> bool {
    last.is_none_or(|last| later(last.created_at, at_most_every) <= next.created_at)
}
