//! API keys in this process: the reference for all other wings.

use std::{collections::HashMap, time::SystemTime};

use async_trait::async_trait;

use super::{MemoryStore, account::State};
use crate::{
    Identity, SharedClock, StoreError, TokenHash, UserId,
    api_key::{ApiKey, ApiKeyId, ApiKeyStore, CreateKeyError, FoundKey, KeyUse, NewApiKey},
    audit::{Act, AuditEvent},
};

#[derive(Debug, Default)]
pub(super) struct ApiKeys {
    keys: HashMap<TokenHash, StoredKey>,
    /// In the order in which they were made.
    by_owner: HashMap<UserId, Vec<TokenHash>>,
}

#[derive(Debug)]
struct StoredKey {
    key: ApiKey,
    revoked_at: Option<SystemTime>,
}

#[async_trait]
impl ApiKeyStore for MemoryStore {
    fn clock(&self) -> SharedClock {
        self.clock()
    }

    async fn create_key(&self, new: NewApiKey, at_most: u32) -> Result<(), CreateKeyError> {
        let state = &mut *self.lock();
        let owner = state.register.active(&new.key.owner).ok_or(CreateKeyError::NoOwner)?;
        if state.api_keys.of(&owner.id).count() >= at_most as usize {
            return Err(CreateKeyError::TooMany);
        }
        let event = AuditEvent::new(Act::KEY_CREATED, new.key.created_at);
        state.noted.push(event.about(&owner.id).on(new.key.id.as_str()));
        state.api_keys.by_owner.entry(owner.id.clone()).or_default().push(new.hash);
        state.api_keys.keys.insert(new.hash, StoredKey { key: new.key, revoked_at: None });
        Ok(())
    }

    async fn find_key(&self, used: KeyUse) -> Result<Option<FoundKey>, StoreError> {
        let state = &mut *self.lock();
        let Some(stored) = state.api_keys.keys.get_mut(&used.hash) else {
            return Ok(None);
        };
        let owner = state.register.active(&stored.key.owner).map(|user| {
            let owner = Identity::new(user.id.clone(), user.role.clone());
            user.plan.clone().into_iter().fold(owner, Identity::with_plan)
        });
        let mut found = FoundKey::new(stored.key.clone(), stored.revoked_at.is_some(), owner);
        if used.is_noted(&found) {
            stored.key.last_used_at = Some(used.at);
            found.key.last_used_at = Some(used.at);
        }
        Ok(Some(found))
    }

    async fn list_keys(&self, owner: &UserId) -> Result<Vec<ApiKey>, StoreError> {
        let state = &mut *self.lock();
        let mut keys: Vec<_> = state.api_keys.of(owner).map(|stored| stored.key.clone()).collect();
        keys.sort_by(|a, b| (b.created_at, b.id.as_str()).cmp(&(a.created_at, a.id.as_str())));
        Ok(keys)
    }

    async fn revoke_key(
        &self,
        owner: &UserId,
        id: &ApiKeyId,
        now: SystemTime,
    ) -> Result<Option<TokenHash>, StoreError> {
        let State { api_keys, noted, .. } = &mut *self.lock();
        let revoked = api_keys.keys.iter_mut().find(|(_, stored)| {
            stored.key.id == *id && stored.key.owner == *owner && stored.revoked_at.is_none()
        });
        Ok(revoked.map(|(hash, stored)| {
            stored.revoked_at = Some(now);
            noted.push(AuditEvent::new(Act::KEY_REVOKED, now).about(owner).on(id.as_str()));
            *hash
        }))
    }

    async fn revoke_all_keys(&self, owner: &UserId, now: SystemTime) -> Result<u64, StoreError> {
        let state = &mut *self.lock();
        let revoked = state.api_keys.revoke_all(owner, now);
        if revoked > 0 {
            let event = AuditEvent::new(Act::KEYS_REVOKED, now).about(owner);
            state.noted.push(event.with_detail(&revoked.to_string()));
        }
        Ok(revoked)
    }

    async fn delete_revoked_keys(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        let ApiKeys { keys, by_owner } = &mut self.lock().api_keys;
        let mut deleted = 0;
        keys.retain(|_, stored| {
            let past = stored.revoked_at.is_some_and(|at| at < before);
            let delete = past && deleted < u64::from(at_most);
            deleted += u64::from(delete);
            !delete
        });
        by_owner.retain(|_, hashes| {
            hashes.retain(|hash| keys.contains_key(hash));
            !hashes.is_empty()
        });
        Ok(deleted)
    }
}

impl ApiKeys {
    /// The keys of this user that were not revoked.
    fn of(&self, owner: &UserId) -> impl Iterator<Item = &StoredKey> {
        let hashes = self.by_owner.get(owner).into_iter().flatten();
        hashes.filter_map(|hash| self.keys.get(hash)).filter(|stored| stored.revoked_at.is_none())
    }

    /// How many keys this user has.
    pub(super) fn count(&self, owner: &UserId) -> u64 {
        self.of(owner).count() as u64
    }

    /// Revokes what a user has, and answers how much that is.
    pub(super) fn revoke_all(&mut self, owner: &UserId, now: SystemTime) -> u64 {
        let mut revoked = 0;
        for hash in self.by_owner.get(owner).into_iter().flatten() {
            if let Some(stored) = self.keys.get_mut(hash) {
                revoked += u64::from(stored.revoked_at.is_none());
                stored.revoked_at.get_or_insert(now);
            }
        }
        revoked
    }
}
