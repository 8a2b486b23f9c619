//! What was revoked before its time, known without asking a store.

use std::{
    fmt,
    hash::BuildHasher,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use foldhash::{HashMap, quality::RandomState};

use super::{FamilyId, TokenError};
use crate::{Identity, Role, StoreError, UserId};

/// One thing that was revoked, as a feed tells it.
///
/// ```
/// use std::time::SystemTime;
/// use tower_warden::token::{FamilyId, Revocation, Revocations, Revoked};
/// let known = Revocations::new();
/// let ended = Revoked::Session(FamilyId::random());
/// known.apply(&Revocation::new(1, SystemTime::now(), ended)); // as a feed told it
/// assert_eq!(known.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocation {
    /// Its place in the feed. Of two that contradict each other the later counts.
    pub seq: u64,
    /// When it was revoked, by the clock of the server that did it.
    pub at: SystemTime,
    /// What is worth nothing, or out of date, from then on.
    pub what: Revoked,
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revoked {
    /// A session has ended: its access tokens are worth nothing.
    Session(FamilyId),
    /// Everything that was issued to a user up to this moment. For a user with more sessions than can
    /// be told one by one.
    User {
        /// The user to whom it was issued.
        id: UserId,
        /// Tokens whose `iat` is not later.
        before: SystemTime,
        /// But for those of this session.
        except: Option<FamilyId>,
    },
    /// The user has this role from now on: a token that says another one is out of date, and its
    /// client is to refresh.
    Role {
        /// The user whose role was changed.
        user: UserId,
        /// The role that tokens have to say.
        role: Role,
    },
    /// Something of this account has changed that others may have remembered (its plan, say, its API
    /// keys, or that it is suspended). Access tokens are not concerned; [listeners](Revocations::listen) are.
    Account(UserId),
}

impl Revocation {
    /// A revocation at this place of its feed.
    #[must_use]
    pub fn new(seq: u64, at: SystemTime, what: Revoked) -> Self {
        Self { seq, at, what }
    }
}

impl Revoked {
    /// The account of which something is otherwise now, for who remembers what belongs to it.
    #[must_use]
    pub fn account(&self) -> Option<&UserId> {
        match self {
            Self::Session(_) => None,
            Self::User { id, .. } | Self::Role { user: id, .. } | Self::Account(id) => Some(id),
        }
    }
}

/// What this process knows to be revoked. Clones share it.
///
/// A store has one, which the verbs that end sessions write to as soon as they are committed, and
/// which [`TokenService`](super::TokenService) asks with each token. What other servers revoke comes
/// by a feed that is [followed](super::RevocationFeed).
///
/// 1. A token is looked up by its session, its user and its role, never by its text, and after the
///    signature (or the memory of it).
/// 2. With nothing revoked a look-up is two loads; else a bit or two in a filter of 8 KiB, and only
///    where those are set a map behind a lock.
/// 3. What is kept is dropped when the last access token that it concerns has ended. There is room for a
///    hundred thousand entries unless said otherwise; with more, the older half is given up for one
///    rule: every token issued by then is expired, so that its client refreshes, which is where an
///    ended session ends.
///
/// ```
/// use tower_warden::{
///     Identity, Role, UserId,
///     store::memory::MemoryStore,
///     token::{KeySet, SigningKey, TokenError, TokenService},
/// };
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = KeySet::new(SigningKey::generate_ed25519()?);
/// let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
/// let pair = tokens.issue(&Identity::new(UserId::from("ada"), Role::EDITOR)).await?;
/// assert!(tokens.verify(pair.access_token()).is_ok());
///
/// tokens.logout(pair.refresh_token().expose()).await?;
/// assert!(matches!(tokens.verify(pair.access_token()), Err(TokenError::Revoked)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    /// A bit per session and user of whom something is known.
    filter: Box<[AtomicU64; WORDS]>,
    entries: AtomicUsize,
    /// Tokens up to this second are expired; 0: none are.
    floor: AtomicU64,
    hasher: RandomState,
    known: RwLock<Known>,
    listeners: RwLock<Vec<Listener>>,
    /// In microseconds: how long an access token can live.
    keep_for: AtomicU64,
    capacity: AtomicUsize,
    origin: Instant,
    /// Microseconds since the origin at which all of the feed was known; 0: no feed is followed.
    fresh_at: AtomicU64,
}

type Listener = Box<dyn Fn(&Revoked) + Send + Sync>;

#[derive(Default)]
struct Known {
    sessions: HashMap<Box<str>, SystemTime>,
    users: HashMap<UserId, Marks>,
    /// When what has had its time was last looked for.
    swept_at: Option<SystemTime>,
}

#[derive(Default)]
struct Marks {
    mark: Option<Mark>,
    role: Option<(u64, SystemTime, Role)>,
}

/// Tokens issued up to a moment are worth nothing, but for those of one session.
struct Mark {
    /// That moment, and of two that are alike the place in the feed.
    until: (SystemTime, u64),
    except: Option<FamilyId>,
    /// Since when that is so.
    at: SystemTime,
}

const WORDS: usize = 1024;
const CAPACITY: usize = 100_000;

/// In microseconds: as long as access tokens live unless a service says more.
const LEAST_KEPT: u64 = (15 + 2) * 60 * 1_000_000;

/// How far the clocks of servers may differ.
const SKEW: Duration = Duration::from_secs(60);

/// As tokens count time.
const TICK: Duration = Duration::from_secs(1);

/// How often what has had its time is looked for.
const SWEEP: Duration = Duration::from_secs(30);

impl Revocations {
    /// Nothing is revoked.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            filter: Box::new([const { AtomicU64::new(0) }; WORDS]),
            entries: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
            hasher: RandomState::default(),
            known: RwLock::default(),
            listeners: RwLock::default(),
            keep_for: AtomicU64::new(LEAST_KEPT),
            capacity: AtomicUsize::new(CAPACITY),
            origin: Instant::now(),
            fresh_at: AtomicU64::new(0),
        }))
    }

    /// The same with room for so many entries: an ended session takes about a hundred bytes.
    #[must_use]
    pub fn with_capacity(self, entries: usize) -> Self {
        self.0.capacity.store(entries.max(2), Ordering::Relaxed);
        self
    }

    /// From now on this is so. To be called again with the same does nothing.
    pub fn apply(&self, revocation: &Revocation) {
        let Revocation { seq, at, what } = revocation;
        {
            let known = &mut *self.write();
            match what {
                Revoked::Session(id) => {
                    known.sessions.insert(id.as_str().into(), *at);
                    self.mark(id.as_str());
                }
                Revoked::User { id, before, except } => {
                    let marks = known.users.entry(id.clone()).or_default();
                    let until = (*before, *seq);
                    // What the session of the last one has left is younger than all before it.
                    if marks.mark.as_ref().is_none_or(|known| known.until < until) {
                        marks.mark = Some(Mark { until, except: except.clone(), at: *at });
                    }
                    self.mark(id.as_str());
                }
                Revoked::Role { user, role } => {
                    let marks = known.users.entry(user.clone()).or_default();
                    if marks.role.as_ref().is_none_or(|(known, ..)| known <= seq) {
                        marks.role = Some((*seq, *at, role.clone()));
                    }
                    self.mark(user.as_str());
                }
                Revoked::Account(_) => {}
            }
            self.make_room(known);
            self.0.entries.store(known.len(), Ordering::Release);
        }
        let listeners = self.0.listeners.read().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().for_each(|listener| listener(what));
    }

    /// Calls this with everything that is revoked from now on; it should return soon.
    pub fn listen(&self, listener: impl Fn(&Revoked) + Send + Sync + 'static) {
        let mut listeners = self.0.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Box::new(listener));
    }

    /// Drops what has had its time.
    pub fn forget_ended(&self, now: SystemTime) {
        let known = &mut *self.write();
        self.sweep(known, now);
        self.0.entries.store(known.len(), Ordering::Release);
    }

    /// The same, if it was not done a short while ago.
    pub(super) fn forget_ended_now_and_then(&self, now: SystemTime) {
        let due = self.read().swept_at.is_none_or(|last| now > last + SWEEP || now < last);
        if due {
            self.forget_ended(now);
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.load(Ordering::Acquire)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a token that says this is revoked, or says a role that its user no longer has.
    #[must_use]
    pub fn is_revoked(&self, caller: &Identity) -> bool {
        self.check(caller).is_err()
    }

    /// How long ago all that the feed holds was known here; `None` where none is followed.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        let fresh_at = self.0.fresh_at.load(Ordering::Acquire);
        (fresh_at != 0)
            .then(|| self.0.origin.elapsed().saturating_sub(Duration::from_micros(fresh_at)))
    }

    /// All that the feed holds was known at that moment.
    pub(super) fn set_fresh(&self, at: Instant) {
        let micros = at.saturating_duration_since(self.0.origin).as_micros();
        self.0.fresh_at.store(u64::try_from(micros).unwrap_or(u64::MAX).max(1), Ordering::Release);
    }

    /// How long a revocation matters: as long as the access tokens of any service that asks.
    pub(super) fn keep_for(&self, lifetime: Duration) {
        let micros = u64::try_from((lifetime + 2 * SKEW).as_micros()).unwrap_or(u64::MAX);
        self.0.keep_for.fetch_max(micros, Ordering::Relaxed);
    }

    /// Since when a revocation that is in force can be.
    pub(super) fn in_force_since(&self, now: SystemTime) -> SystemTime {
        let keep_for = Duration::from_micros(self.0.keep_for.load(Ordering::Relaxed));
        now.checked_sub(keep_for).unwrap_or(UNIX_EPOCH)
    }

    /// Whether a genuine token is revoked, or out of date.
    pub(super) fn check(&self, identity: &Identity) -> Result<(), TokenError> {
        let floor = self.0.floor.load(Ordering::Relaxed);
        if floor != 0 && seconds(identity.issued_at()).is_none_or(|issued| issued <= floor) {
            return Err(TokenError::Expired);
        }
        if self.0.entries.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let (session, user) = (identity.session_id().unwrap_or_default(), identity.user_id());
        let (of_session, of_user) = (self.is_marked(session), self.is_marked(user.as_str()));
        if !of_session && !of_user {
            return Ok(());
        }
        let known = self.read();
        if of_session && known.sessions.contains_key(session) {
            return Err(TokenError::Revoked);
        }
        let Some(marks) = known.users.get(user).filter(|_| of_user) else { return Ok(()) };
        let ends = |mark: &Mark| {
            let (before, _) = mark.until;
            seconds(identity.issued_at()) <= seconds(Some(before))
                && mark.except.as_ref().is_none_or(|kept| kept.as_str() != session)
        };
        if marks.mark.as_ref().is_some_and(ends) {
            return Err(TokenError::Revoked);
        }
        match &marks.role {
            Some((_, _, role)) if role != identity.role() => Err(TokenError::Expired),
            _ => Ok(()),
        }
    }

    /// What no access token can still be concerned by is dropped, and the filter made anew.
    fn sweep(&self, known: &mut Known, now: SystemTime) {
        let since = self.in_force_since(now);
        known.swept_at = Some(now);
        known.retain(|at| at >= since);
        self.refill(known);
    }

    fn make_room(&self, known: &mut Known) {
        let capacity = self.0.capacity.load(Ordering::Relaxed);
        if known.len() <= capacity {
            return;
        }
        let mut times: Vec<_> = known.times().collect();
        let middle = times.len() / 2;
        let newest = times.iter().max().copied().unwrap_or(UNIX_EPOCH);
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        // What is given up may concern a token of a server whose clock is ahead. But not after now,
        // or clients would refresh in vain: of half of it in one minute, what such a server issued and
        // another revoked within their difference is the price.
        let floor = (median + SKEW).min(newest + TICK);
        let floor = seconds(Some(floor)).unwrap_or_default();
        self.0.floor.fetch_max(floor, Ordering::Relaxed);
        known.retain(|at| at > median);
        self.refill(known);
        tracing::warn!("too much was revoked: tokens issued until now count as expired");
    }

    /// Under the lock, so that nothing is marked meanwhile; who looks sees the old bits or the new.
    fn refill(&self, known: &Known) {
        let mut filter = Box::new([0_u64; WORDS]);
        let keys = known.sessions.keys().map(|id| &**id);
        for key in keys.chain(known.users.keys().map(UserId::as_str)) {
            let (word, bit) = self.place(key);
            filter[word] |= bit;
        }
        for (word, bits) in self.0.filter.iter().zip(filter.iter()) {
            word.store(*bits, Ordering::Release);
        }
    }

    fn mark(&self, key: &str) {
        let (word, bit) = self.place(key);
        self.0.filter[word].fetch_or(bit, Ordering::Release);
    }

    fn is_marked(&self, key: &str) -> bool {
        let (word, bit) = self.place(key);
        self.0.filter[word].load(Ordering::Acquire) & bit != 0
    }

    fn place(&self, key: &str) -> (usize, u64) {
        let hash = self.0.hasher.hash_one(key);
        ((hash >> 6) as usize % WORDS, 1 << (hash % 64))
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn len(&self) -> usize {
        self.sessions.len() + self.users.len()
    }

    fn times(&self) -> impl Iterator<Item = SystemTime> {
        self.sessions.values().copied().chain(self.users.values().map(Marks::newest))
    }

    fn retain(&mut self, mut keep: impl FnMut(SystemTime) -> bool) {
        self.sessions.retain(|_, at| keep(*at));
        self.users.retain(|_, marks| keep(marks.newest()));
    }
}

impl Marks {
    fn newest(&self) -> SystemTime {
        let before = self.mark.as_ref().map(|mark| mark.at);
        let role = self.role.as_ref().map(|(_, at, _)| *at);
        before.max(role).unwrap_or(UNIX_EPOCH)
    }
}

/// As tokens count; `None` before 1970, or where there is nothing to count.
fn seconds(time: Option<SystemTime>) -> Option<u64> {
    time?.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What is known is too old for who asks.
pub(super) fn too_stale() -> TokenError {
    StoreError::unavailable("what is revoked has not been heard of for too long").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn token(session: &str, user: &str, issued: u64) -> Identity {
        Identity::new(UserId::from(user), Role::EDITOR)
            .with_session_id(session)
            .with_issued_at(at(issued))
    }

    fn mark(seq: u64, before: u64, except: Option<&str>) -> Revocation {
        let except = except.map(|session| FamilyId::from(session.to_owned()));
        let mark = Revoked::User { id: UserId::from("ada"), before: at(before), except };
        Revocation::new(seq, at(before), mark)
    }

    fn ended(session: &str, when: u64) -> Revocation {
        Revocation::new(when, at(when), Revoked::Session(FamilyId::from(session.to_owned())))
    }

    #[test]
    fn session_ends_for_its_tokens_only_and_is_forgotten_with_the_last_of_them() {
        let revocations = Revocations::new();
        revocations.keep_for(Duration::from_secs(900));
        assert!(revocations.check(&token("a", "ada", 0)).is_ok());
        revocations.apply(&ended("a", 10));
        assert!(matches!(revocations.check(&token("a", "ada", 0)), Err(TokenError::Revoked)));
        assert!(revocations.check(&token("b", "ada", 0)).is_ok());

        revocations.forget_ended(at(10 + 900));
        assert_eq!(revocations.len(), 1);
        revocations.forget_ended(at(10 + 900 + 121));
        assert!(revocations.is_empty());
    }

    #[test]
    fn mark_ends_what_was_issued_until_then() {
        let revocations = Revocations::new();
        revocations.keep_for(Duration::from_secs(900));
        revocations.apply(&mark(1, 10, None));
        for (issued, good) in [(9, false), (10, false), (11, true)] {
            assert_eq!(revocations.check(&token("a", "ada", issued)).is_ok(), good, "{issued}");
        }
        assert!(revocations.check(&token("a", "eve", 9)).is_ok());
    }

    #[test]
    fn mark_spares_the_session_of_the_last_one_only() {
        let revocations = Revocations::new();
        revocations.keep_for(Duration::from_secs(900));
        let good = |session| revocations.check(&token(session, "ada", 5)).is_ok();
        revocations.apply(&mark(1, 10, Some("a")));
        assert_eq!((good("a"), good("b")), (true, false));
        revocations.apply(&mark(2, 10, None));
        assert_eq!((good("a"), good("b")), (false, false), "of two at once the later counts");
        revocations.apply(&mark(1, 10, Some("a")));
        assert!(!good("a"), "heard of twice");
        revocations.apply(&mark(3, 20, Some("b")));
        assert_eq!((good("a"), good("b")), (false, true));
    }

    #[test]
    fn role_is_compared_and_the_later_place_in_the_feed_counts() {
        let revocations = Revocations::new();
        revocations.keep_for(Duration::from_secs(900));
        let role = |seq, role| {
            Revocation::new(seq, at(1), Revoked::Role { user: UserId::from("ada"), role })
        };
        revocations.apply(&role(5, Role::VIEWER));
        assert!(matches!(revocations.check(&token("a", "ada", 1)), Err(TokenError::Expired)));
        revocations.apply(&role(4, Role::EDITOR));
        assert!(revocations.check(&token("a", "ada", 1)).is_err(), "heard of late");
        revocations.apply(&role(6, Role::EDITOR));
        assert!(revocations.check(&token("a", "ada", 1)).is_ok());
    }

    #[test]
    fn more_than_there_is_room_for_expires_what_is_older() {
        let revocations = Revocations::new().with_capacity(100);
        revocations.keep_for(Duration::from_secs(900));
        for n in 0..101 {
            revocations.apply(&ended(&n.to_string(), 10 * n));
        }
        assert!(revocations.len() <= 100);
        for n in 0..101 {
            let token = token(&n.to_string(), "ada", 10 * n);
            assert!(revocations.check(&token).is_err(), "{n}");
            let ahead = token.with_issued_at(at(10 * n + 60));
            assert!(revocations.check(&ahead).is_err(), "{n}, by a clock that is a minute ahead");
        }
        assert!(matches!(revocations.check(&token("x", "eve", 3)), Err(TokenError::Expired)));
        assert!(revocations.check(&token("x", "eve", 990)).is_ok());
    }

    #[test]
    fn what_is_issued_after_a_flood_of_revocations_is_good() {
        let revocations = Revocations::new().with_capacity(100);
        for n in 0..101 {
            revocations.apply(&ended(&n.to_string(), 7));
        }
        assert!(matches!(revocations.check(&token("x", "eve", 8)), Err(TokenError::Expired)));
        assert!(revocations.check(&token("x", "eve", 9)).is_ok());
    }

    #[test]
    fn listeners_hear_of_everything() {
        let revocations = Revocations::new();
        let heard = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&heard);
        revocations.listen(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        revocations.apply(&ended("a", 1));
        revocations.apply(&Revocation::new(2, at(1), Revoked::Account(UserId::from("ada"))));
        assert_eq!((heard.load(Ordering::Relaxed), revocations.len()), (2, 1));
    }
}
