//! What stores said of keys, remembered for a moment; and for a minute, in case they fail.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use foldhash::quality::RandomState;
use quick_cache::{
    UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};
use std::sync::Arc;

use crate::{Identity, TokenHash, UserId};

/// After so long one request asks again, while others go on with what is known.
const FRESH: Duration = Duration::from_millis(400);
/// After so long every request asks again: with the query, less than a second.
const KNOWN: Duration = Duration::from_millis(800);
/// For so long a key is good while the store fails.
const GRACE: Duration = Duration::from_secs(60);
/// So long after a failure the store is asked again about keys that are good without it.
const PAUSE: Duration = Duration::from_secs(1);

/// How a key stands.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// It identifies this caller, until it expires.
    Good(Identity),
    /// Its role and its owner's have nothing in common.
    NoRole,
    /// For good.
    Revoked,
}

/// What the store said, and when it was asked.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) standing: Standing,
    owner: UserId,
    asked: Moment,
    /// Whether somebody asks again already.
    asking: AtomicBool,
}

/// When a store was asked: what changed later than that it could not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    time: Duration,
    /// How many changes were known of.
    changes: u64,
}

/// What is known of a key without asking.
pub(super) enum Recalled {
    /// It can be relied upon.
    Known(Arc<Seen>),
    /// It counts only if the store can't be asked.
    Old(Arc<Seen>),
    Nothing,
}

/// A bounded number of keys, by their hash.
pub(super) struct SeenKeys {
    keys: Cache<TokenHash, Arc<Seen>, UnitWeighter, RandomState>,
    changes: AtomicU64,
    /// Until when the store is spared, in microseconds.
    away_until: AtomicU64,
}

impl SeenKeys {
    pub(super) fn new(capacity: usize) -> Self {
        let keys = Cache::with(
            capacity,
            capacity as u64,
            UnitWeighter,
            RandomState::default(),
            DefaultLifecycle::default(),
        );
        Self { keys, changes: AtomicU64::new(0), away_until: AtomicU64::new(0) }
    }

    /// To be taken before the store is asked.
    pub(super) fn moment(&self, now: Duration) -> Moment {
        Moment { time: now, changes: self.changes.load(SeqCst) }
    }

    pub(super) fn recall(&self, key: &TokenHash, now: Duration) -> Recalled {
        let Some(seen) = self.keys.get(key) else { return Recalled::Nothing };
        let age = now.saturating_sub(seen.asked.time);
        if matches!(seen.standing, Standing::Revoked) {
            return Recalled::Known(seen);
        }
        if age >= GRACE {
            return Recalled::Nothing;
        }
        let current = seen.asked.changes == self.changes.load(SeqCst);
        let known = current && (age < FRESH || (age < KNOWN && seen.asking.swap(true, SeqCst)))
            || self.is_away(now);
        if known { Recalled::Known(seen) } else { Recalled::Old(seen) }
    }

    /// Notes what the store said when it was asked at that moment.
    pub(super) fn note(&self, key: TokenHash, owner: UserId, standing: Standing, asked: Moment) {
        let revoked = |seen: Arc<Seen>| matches!(seen.standing, Standing::Revoked);
        if !self.keys.peek(&key).is_some_and(revoked) {
            let seen = Seen { standing, owner, asked, asking: AtomicBool::new(false) };
            self.keys.insert(key, Arc::new(seen));
        }
        self.away_until.store(0, SeqCst);
    }

    /// The store doesn't know this key any more.
    pub(super) fn forget(&self, key: &TokenHash) {
        self.keys.remove(key);
    }

    /// This key is revoked, whatever a store that was asked before will say.
    pub(super) fn revoke(&self, key: TokenHash, owner: UserId, now: Duration) {
        self.changes.fetch_add(1, SeqCst);
        self.note(key, owner, Standing::Revoked, self.moment(now));
    }

    /// Something of this owner has changed.
    pub(super) fn forget_owner(&self, owner: &UserId) {
        self.changes.fetch_add(1, SeqCst);
        self.keys
            .retain(|_, seen| seen.owner != *owner || matches!(seen.standing, Standing::Revoked));
    }

    /// The store failed: it is spared for a while by those who can do without.
    pub(super) fn store_is_away(&self, now: Duration) {
        self.away_until.store(micros(now + PAUSE), SeqCst);
    }

    /// Whether the store is to be spared. When the pause is over one asks, and the others go on.
    fn is_away(&self, now: Duration) -> bool {
        let until = self.away_until.load(SeqCst);
        if until == 0 {
            return false;
        }
        let (now, next) = (micros(now), micros(now + PAUSE));
        now < until || self.away_until.compare_exchange(until, next, SeqCst, SeqCst).is_err()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Debug for SeenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeenKeys").field("len", &self.keys.len()).finish_non_exhaustive()
    }
}
