//! Users in this process: the reference implementation.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::MemoryStore;
use crate::{
    Role, StoreError, TokenHash, UserId,
    user::{
        CreateUserError, Email, NewUser, PasswordHash, UpdateUserError, User, UserChange,
        UserStore, VerificationToken,
    },
};

#[derive(Debug, Default)]
pub(super) struct Register {
    accounts: HashMap<UserId, Account>,
    by_email: HashMap<Email, UserId>,
    by_token: HashMap<TokenHash, UserId>,
}

#[derive(Debug)]
struct Account {
    user: User,
    password_hash: PasswordHash,
    verification: Option<VerificationToken>,
}

#[async_trait]
impl UserStore for MemoryStore {
    async fn create(&self, new: NewUser) -> Result<User, CreateUserError> {
        let register = &mut self.lock().register;
        if register.by_email.contains_key(&new.email) {
            return Err(CreateUserError::EmailTaken);
        }
        if register.accounts.contains_key(&new.id) {
            return Err(StoreError::internal("the identifier is taken").into());
        }
        let mut user = User::new(new.id.clone(), new.email.clone(), new.role, new.created_at);
        user.email_verified = new.verification.is_none();
        register.by_email.insert(new.email, new.id.clone());
        register.by_token.extend(new.verification.map(|token| (token.hash, new.id.clone())));
        let account = Account {
            user: user.clone(),
            password_hash: new.password_hash,
            verification: new.verification,
        };
        register.accounts.insert(new.id, account);
        Ok(user)
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
        let register = &mut self.lock().register;
        let verified_admins = register.verified_admins();
        let user = &mut register.accounts.get_mut(id).ok_or(UpdateUserError::NotFound)?.user;
        let demoted = change.role.as_ref().is_some_and(|role| *role != Role::ADMIN);
        if demoted && is_verified_admin(user) && verified_admins == 1 {
            return Err(UpdateUserError::LastAdmin);
        }
        user.role = change.role.unwrap_or_else(|| user.role.clone());
        user.plan = change.plan.unwrap_or_else(|| user.plan.clone());
        user.email_verified |= change.verify_email;
        Ok(user.clone())
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
        token: VerificationToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        let register = &mut self.lock().register;
        let Some(account) = register.account_of(email) else {
            return Ok(None);
        };
        let too_soon = account
            .verification
            .is_some_and(|last| token.created_at < last.created_at + at_most_every);
        if account.user.email_verified || too_soon {
            return Ok(None);
        }
        let user = account.user.clone();
        if let Some(old) = account.verification.replace(token) {
            register.by_token.remove(&old.hash);
        }
        register.by_token.insert(token.hash, user.id.clone());
        Ok(Some(user))
    }

    async fn find_verification(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        let register = &mut self.lock().register;
        Ok(register.unverified(token, now).map(|account| account.user.id.clone()))
    }

    async fn verify_email(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        let register = &mut self.lock().register;
        let Some(account) = register.unverified(token, now) else {
            return Ok(None);
        };
        account.user.email_verified = true;
        account.verification = None;
        let user = account.user.clone();
        register.by_token.remove(token);
        Ok(Some(user))
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
        let expired = register
            .accounts
            .values_mut()
            .filter_map(|account| account.verification.take_if(|token| token.expires_at < before));
        let mut deleted = 0;
        for token in expired.take(at_most as usize) {
            register.by_token.remove(&token.hash);
            deleted += 1;
        }
        Ok(deleted)
    }
}

impl Register {
    /// The user, if the account may be used.
    pub(super) fn active(&self, id: &UserId) -> Option<&User> {
        self.accounts.get(id).map(|account| &account.user)
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

    /// The account that this token would verify.
    fn unverified(&mut self, token: &TokenHash, now: SystemTime) -> Option<&mut Account> {
        let account = self.accounts.get_mut(self.by_token.get(token)?)?;
        account.verification.is_some_and(|token| now < token.expires_at).then_some(account)
    }

    fn verified_admins(&self) -> usize {
        self.accounts.values().filter(|account| is_verified_admin(&account.user)).count()
    }
}

fn is_verified_admin(user: &User) -> bool {
    user.role == Role::ADMIN && user.email_verified
}
