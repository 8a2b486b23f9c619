//! Audit events in this process: the last ones.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use async_trait::async_trait;

use super::{
    MemoryStore,
    account::{State, lock},
};
use crate::{
    StoreError,
    audit::{AuditEvent, AuditFilter, AuditLog, WriteEvents},
};

const AT_MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Events {
    events: VecDeque<AuditEvent>,
    last_id: u64,
}

/// Writes down what belongs to no change.
pub(super) struct Writer(pub(super) Arc<Mutex<State>>);

impl Events {
    pub(super) fn extend(&mut self, events: &[AuditEvent]) {
        for event in events {
            if self.events.len() == AT_MOST {
                self.events.pop_front();
            }
            self.last_id += 1;
            self.events.push_back(AuditEvent { id: Some(self.last_id), ..event.clone() });
        }
    }
}

#[async_trait]
impl WriteEvents for Writer {
    async fn write(&self, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        lock(&self.0).events.extend(&events);
        Ok(())
    }
}

#[async_trait]
impl AuditLog for MemoryStore {
    async fn events(&self, filter: &AuditFilter) -> Result<Vec<AuditEvent>, StoreError> {
        let events = &self.lock().events.events;
        let concerns = |event: &&AuditEvent| {
            filter.user.as_ref().is_none_or(|user| {
                event.subject.as_ref() == Some(user) || event.actor.user() == Some(user)
            })
        };
        let before = |event: &&AuditEvent| filter.before.is_none_or(|last| event.id < Some(last));
        let found = events.iter().rev().filter(before).filter(concerns);
        Ok(found.take(filter.limit as usize).cloned().collect())
    }

    async fn delete_events(&self, before: SystemTime, at_most: u32) -> Result<u64, StoreError> {
        let mut deleted = 0;
        self.lock().events.events.retain(|event| {
            let delete = event.at < before && deleted < u64::from(at_most);
            deleted += u64::from(delete);
            !delete
        });
        Ok(deleted)
    }
}
