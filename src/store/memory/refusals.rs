//! Refusals that are known to last, for whom they are told again: read without a lock, as who is
//! refused may come often.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::clients::Client;
use crate::Quota;

/// Until when the client that stands here has no room at all. A sequence lock: a writer, of which
/// there is one at a time, makes the version odd while it writes; a reader who finds it odd, or
/// another one afterwards, has read nothing.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Refusal {
    version: AtomicU64,
    client: [AtomicU64; 2],
    limit: AtomicU64,
    window_us: AtomicU64,
    until: AtomicU64,
}

impl Refusal {
    /// Until when this client has no room under this quota, where that is known.
    #[inline]
    pub(super) fn until(&self, client: Client, quota: &Quota) -> Option<u64> {
        let version = self.version.load(Ordering::Acquire);
        let until = self.until.load(Ordering::Relaxed);
        let found = self.is_of(client, quota);
        fence(Ordering::Acquire);
        let unchanged =
            version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        (found && unchanged).then_some(until)
    }

    /// Puts a client here, in place of any other. Only one thread writes at a time.
    pub(super) fn put(&self, client: Client, quota: &Quota, until: u64) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.client[0].store(client.0[0], Ordering::Relaxed);
        self.client[1].store(client.0[1], Ordering::Relaxed);
        self.limit.store(quota.limit().into(), Ordering::Relaxed);
        self.window_us.store(quota.window_us(), Ordering::Relaxed);
        self.until.store(until, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    /// Knows of nobody any more. Only one thread writes at a time.
    pub(super) fn forget(&self) {
        // An instant that has been is no refusal, whosever the rest is.
        self.until.store(0, Ordering::Relaxed);
    }

    fn is_of(&self, client: Client, quota: &Quota) -> bool {
        self.client[0].load(Ordering::Relaxed) == client.0[0]
            && self.client[1].load(Ordering::Relaxed) == client.0[1]
            && self.limit.load(Ordering::Relaxed) == u64::from(quota.limit())
            && self.window_us.load(Ordering::Relaxed) == quota.window_us()
    }
}
