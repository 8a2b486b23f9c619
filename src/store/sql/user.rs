//! Users: which verb of the trait is which transaction.

mod account;
mod address;
mod find;
mod password;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{SqlStore, Wing, link};
use crate::{
    SharedClock, StoreError, TokenHash, UserId,
    audit::AuditTrail,
    user::{
        CreateUserError, Email, EmailChangeError, EnsuredAdmin, LinkToken, NewUser, PasswordChange,
        PasswordHash, PasswordSet, UpdateUserError, User, UserChange, UserChanged, UserPage,
        UserStore,
    },
};

#[async_trait]
impl<W: Wing> UserStore for SqlStore<W> {
    fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    fn audit_trail(&self) -> AuditTrail {
        self.audit.clone()
    }

    async fn find_holder(
        &self,
        email: &Email,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        self.transact((email.clone(), now), |tx, (email, now)| {
            Box::pin(find::find_holder(tx, email, *now))
        })
        .await
    }

    async fn find_with_hash(
        &self,
        id: &UserId,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        self.ask(id.clone(), |tx, id| Box::pin(find::find_with_hash(tx, id))).await
    }

    async fn list(&self, page: &UserPage) -> Result<Vec<User>, StoreError> {
        self.ask(page.clone(), |tx, page| Box::pin(find::list(tx, page))).await
    }

    async fn put_reset(
        &self,
        id: &UserId,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        self.transact((id.clone(), token, at_most_every), |tx, (id, token, at_most_every)| {
            Box::pin(password::put_reset(tx, id, token, *at_most_every))
        })
        .await
    }

    async fn find_reset(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        self.ask((*token, now), |tx, (token, now)| {
            Box::pin(link::find(tx, &link::RESETS, token, *now))
        })
        .await
    }

    async fn reset_password(
        &self,
        token: &TokenHash,
        new: &PasswordHash,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        self.transact((*token, new.clone(), clock.clone()), |tx, (token, new, clock)| {
            Box::pin(password::reset_password(tx, token, new, clock))
        })
        .await
    }

    async fn change_password(
        &self,
        change: &PasswordChange,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        self.transact((change.clone(), clock.clone()), |tx, (change, clock)| {
            Box::pin(password::change_password(tx, change, clock))
        })
        .await
    }

    async fn put_email_change(
        &self,
        id: &UserId,
        email: &Email,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, EmailChangeError> {
        let arguments = (id.clone(), email.clone(), token, at_most_every);
        self.transact(arguments, |tx, (id, email, token, at_most_every)| {
            Box::pin(address::put_email_change(tx, id, email, token, *at_most_every))
        })
        .await?
    }

    async fn confirm_email_change(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<User, EmailChangeError> {
        self.transact((*token, clock.clone()), |tx, (token, clock)| {
            Box::pin(address::confirm_email_change(tx, token, clock))
        })
        .await?
    }

    async fn delete(
        &self,
        id: &UserId,
        by: Option<&UserId>,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        self.transact((id.clone(), by.cloned(), clock.clone()), |tx, (id, by, clock)| {
            Box::pin(account::delete(tx, id, by.as_ref(), None, clock))
        })
        .await?
    }

    async fn delete_in_epoch(
        &self,
        id: &UserId,
        epoch: u64,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        self.transact((id.clone(), epoch, clock.clone()), |tx, (id, epoch, clock)| {
            Box::pin(account::delete(tx, id, None, Some(*epoch), clock))
        })
        .await?
    }

    async fn ensure_admin(
        &self,
        admin: &NewUser,
        clock: &SharedClock,
    ) -> Result<(User, EnsuredAdmin), StoreError> {
        self.transact((admin.clone(), clock.clone()), |tx, (admin, clock)| {
            Box::pin(account::ensure_admin(tx, admin, clock))
        })
        .await
    }

    async fn create(&self, user: NewUser) -> Result<User, CreateUserError> {
        self.transact(user, |tx, user| Box::pin(account::create(tx, user)))
            .await?
            .ok_or(CreateUserError::EmailTaken)
    }

    async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        self.ask(id.clone(), |tx, id| Box::pin(find::find(tx, id))).await
    }

    async fn find_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        self.ask(email.clone(), |tx, email| Box::pin(find::find_by_email(tx, email))).await
    }

    async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError> {
        self.change(id, change).await.map(|changed| changed.user)
    }

    async fn change(
        &self,
        id: &UserId,
        change: UserChange,
    ) -> Result<UserChanged, UpdateUserError> {
        self.transact((id.clone(), change), |tx, (id, change)| {
            Box::pin(account::update(tx, id, change))
        })
        .await?
    }

    async fn replace_password_hash(
        &self,
        id: &UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, StoreError> {
        self.ask((id.clone(), old.clone(), new.clone()), |tx, (id, old, new)| {
            Box::pin(password::replace_password_hash(tx, id, old, new))
        })
        .await
    }

    async fn renew_verification(
        &self,
        email: &Email,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        let arguments = (email.clone(), token, at_most_every);
        self.transact(arguments, |tx, (email, token, at_most_every)| {
            Box::pin(address::renew_verification(tx, email, token, *at_most_every))
        })
        .await
    }

    async fn find_verification(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        self.ask((*token, now), |tx, (token, now)| {
            Box::pin(link::find(tx, &link::VERIFICATIONS, token, *now))
        })
        .await
    }

    async fn verify_email(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        self.transact((*token, now), |tx, (token, now)| {
            Box::pin(address::verify_email(tx, token, *now))
        })
        .await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.ask((), |tx, ()| Box::pin(find::count(tx))).await
    }

    async fn delete_expired_links(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        self.ask((before, at_most), |tx, (before, at_most)| {
            Box::pin(link::delete_expired(tx, *before, *at_most))
        })
        .await
    }
}
