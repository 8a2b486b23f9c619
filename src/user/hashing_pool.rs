//! Where passwords are hashed: on blocking threads, a few at once, behind a bounded queue.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

use super::{HashError, Password, PasswordHash, PasswordHasher};
use crate::{
    signals,
    turns::{Client, Lane, Late, Place, Turns},
};

/// Runs a [`PasswordHasher`] beside the requests, so that a flood of logins can't slow down
/// anything else. Clones share their bounds.
///
/// - As many passwords are hashed at once as there are cores but one, which stays free for all else;
///   one where there is one core only.
/// - Logins and new passwords wait apart, and take turns: a flood of registrations delays a login by
///   one hash. Up to 256 of each wait, for 15 s at most, a quarter of them for [one
///   client](Self::for_client); clients take turns too. Whoever would have to wait longer is told
///   [`HashingError::Busy`] (503 with `Retry-After`).
/// - A caller that goes away leaves the queue, but what it started is finished, and counts against
///   the bound until it is: hanging up can't buy more hashing.
///
/// ```
/// use tower_warden::user::{BcryptHasher, HashingPool, Password};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = HashingPool::new(BcryptHasher::new(4)?)?;
/// let hash = pool.hash(Password::from("Correct-Horse-1")).await?;
/// assert!(pool.verify(Password::from("Correct-Horse-1"), Some(hash.clone())).await?);
/// assert!(!pool.verify(Password::from("Wrong-Horse-1"), Some(hash)).await?);
/// assert!(!pool.verify(Password::from("Correct-Horse-1"), None).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HashingPool {
    hasher: Arc<dyn PasswordHasher>,
    /// What is verified against where there is no account.
    decoy: PasswordHash,
    turns: Arc<Turns>,
    patience: Duration,
    client: Option<Client>,
}

/// Why a password was neither hashed nor verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HashingError {
    /// Too many are waiting, or waiting took too long.
    #[error("too many passwords wait to be hashed")]
    Busy,
    /// The hasher failed.
    #[error(transparent)]
    Hash(#[from] HashError),
}

impl HashingPool {
    /// A pool around a hasher.
    ///
    /// # Errors
    /// Where the hasher has no [decoy](PasswordHasher::decoy).
    pub fn new(hasher: impl PasswordHasher) -> Result<Self, HashError> {
        let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            // Nobody's password: whoever matches it is turned away all the same.
            decoy: hasher.decoy()?,
            hasher: Arc::new(hasher),
            turns: Turns::new(cores.get().saturating_sub(1).max(1), 256),
            patience: Duration::from_secs(15),
            client: None,
        })
    }

    /// The same pool, hashing so many passwords at once.
    #[must_use]
    pub fn with_threads(self, threads: NonZeroUsize) -> Self {
        Self { turns: Turns::new(threads.get(), self.turns.length()), ..self }
    }

    /// The same pool, in which so many more logins, and so many more new passwords, may wait, each
    /// for so long.
    #[must_use]
    pub fn with_queue(self, length: usize, patience: Duration) -> Self {
        Self { turns: Turns::new(self.turns.places(), length), patience, ..self }
    }

    /// The same pool (its bounds are shared), on behalf of a client: whatever tells clients apart,
    /// their address, say. One client gets at most a quarter of a queue, and clients take turns.
    #[must_use]
    pub fn for_client(&self, client: &str) -> Self {
        Self { client: Some(client.into()), ..self.clone() }
    }

    /// Hashes a password.
    ///
    /// # Errors
    /// [`HashingError::Busy`] where it would have to wait too long, and where the hasher fails.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, HashingError> {
        self.run(Lane::Set, move |hasher| hasher.hash(&password)).await
    }

    /// Whether a password is the one that was hashed. For `None`, where there is no account, it
    /// isn't, at the same cost; and so it is where the hash is [cheaper](PasswordHasher::even_out)
    /// than one made now.
    ///
    /// # Errors
    /// [`HashingError::Busy`] where it would have to wait too long, and where the hasher fails.
    pub async fn verify(
        &self,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<bool, HashingError> {
        Ok(self.check(password, hash).await? != Match::No)
    }

    /// The same, and whether it was hashed as it was typed.
    pub(super) async fn check(
        &self,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<Match, HashingError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let decoy = self.decoy.clone();
        let found = self.run(Lane::Check, move |hasher| {
            let equal = |password: &Password| {
                let equal = hasher.verify(password, &hash)?;
                if !equal {
                    hasher.even_out(password, &hash, &decoy)?;
                }
                Ok::<_, HashError>(equal)
            };
            if equal(&password)? {
                return Ok(Match::Yes);
            }
            let as_typed = password.as_typed().map_or(Ok(false), |typed| equal(&typed))?;
            Ok(if as_typed { Match::AsTyped } else { Match::No })
        });
        Ok(if known { found.await? } else { found.await.map(|_| Match::No)? })
    }

    /// Whether a hash is weaker than one made now.
    #[must_use]
    pub fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        self.hasher.needs_rehash(hash)
    }

    /// How many passwords are being hashed now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.turns.running()
    }

    /// How many wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.turns.waiting()
    }

    async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&dyn PasswordHasher) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashingError> {
        let begun = Instant::now();
        let place = self.turns.take(lane, self.client.clone(), self.patience).await;
        let place = Working { place: Some(place?), pool: self.clone() };
        place.tell();
        let done = spawn_blocking(move || {
            // The place belongs to the work. If the caller held it, hanging up would free it while
            // the work goes on, and any number could run at once.
            let place = place;
            work(&*place.pool.hasher)
        });
        let done = done.await.map_err(HashError::new)??;
        signals::hashed(begun.elapsed());
        Ok(done)
    }
}

/// Whether a password is the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It is.
    Yes,
    /// It is, but it was hashed as it was typed, not normalized.
    AsTyped,
    /// It isn't.
    No,
}

impl From<Late> for HashingError {
    fn from(_: Late) -> Self {
        Self::Busy
    }
}

/// Work in its place; metrics hear when it is had and when it is given up, by whatever way.
struct Working {
    place: Option<Place>,
    pool: HashingPool,
}

impl Working {
    fn tell(&self) {
        signals::hashing(self.pool.running(), self.pool.waiting());
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.place = None;
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use tokio::{sync::mpsc as async_mpsc, task::yield_now};

    use super::*;
    use crate::user::BcryptHasher;

    /// Says when it begins to hash, and goes on when it is told to.
    #[derive(Debug)]
    struct GatedHasher {
        begun: async_mpsc::UnboundedSender<()>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    struct Gate {
        begun: async_mpsc::UnboundedReceiver<()>,
        go_on: mpsc::Sender<()>,
    }

    impl PasswordHasher for GatedHasher {
        fn hash(&self, _: &Password) -> Result<PasswordHash, HashError> {
            self.begun.send(()).map_err(HashError::new)?;
            self.go_on.lock().unwrap().recv().map_err(HashError::new)?;
            Ok(PasswordHash::from(String::new()))
        }

        fn verify(&self, _: &Password, _: &PasswordHash) -> Result<bool, HashError> {
            panic!("a hasher with a bug")
        }

        fn needs_rehash(&self, _: &PasswordHash) -> bool {
            false
        }
    }

    /// One at once, and one more may wait.
    async fn narrow_pool() -> (HashingPool, Gate) {
        let (begun, has_begun) = async_mpsc::unbounded_channel();
        let (go_on, told) = mpsc::channel();
        let hasher = GatedHasher { begun, go_on: Mutex::new(told) };
        let mut gate = Gate { begun: has_begun, go_on };
        gate.go_on.send(()).unwrap();
        let pool = HashingPool::new(hasher).unwrap();
        gate.begun.recv().await.unwrap();
        (pool.with_threads(NonZeroUsize::MIN).with_queue(1, Duration::from_secs(15)), gate)
    }

    fn spawn_hash(
        pool: &HashingPool,
    ) -> tokio::task::JoinHandle<Result<PasswordHash, HashingError>> {
        let pool = pool.clone();
        tokio::spawn(async move { pool.hash(Password::from("a")).await })
    }

    fn is_busy<T>(result: &Result<T, HashingError>) -> bool {
        matches!(result, Err(HashingError::Busy))
    }

    #[tokio::test]
    async fn caller_that_goes_away_does_not_free_the_place_of_its_work() {
        let (pool, mut gate) = narrow_pool().await;
        let first = spawn_hash(&pool);
        gate.begun.recv().await.unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert_eq!((pool.running(), pool.waiting()), (1, 0));

        let second = spawn_hash(&pool);
        yield_now().await;
        assert_eq!((pool.running(), pool.waiting()), (1, 1));
        assert!(gate.begun.try_recv().is_err(), "two run at once");

        gate.go_on.send(()).unwrap();
        gate.begun.recv().await.unwrap();
        assert_eq!((pool.running(), pool.waiting()), (1, 0));
        gate.go_on.send(()).unwrap();
        assert!(second.await.unwrap().is_ok());
        assert_eq!((pool.running(), pool.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn full_queue_is_busy_until_a_waiter_goes_away() {
        let (pool, mut gate) = narrow_pool().await;
        let running = spawn_hash(&pool);
        gate.begun.recv().await.unwrap();
        let waiting = spawn_hash(&pool);
        yield_now().await;
        assert!(is_busy(&pool.hash(Password::from("a")).await));

        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(pool.waiting(), 0);
        let next = spawn_hash(&pool);
        yield_now().await;
        assert_eq!(pool.waiting(), 1);

        for _ in 0..2 {
            gate.go_on.send(()).unwrap();
        }
        assert!(running.await.unwrap().is_ok());
        assert!(next.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_too_long_is_busy() {
        let (pool, mut gate) = narrow_pool().await;
        let running = spawn_hash(&pool);
        gate.begun.recv().await.unwrap();
        let waiting = spawn_hash(&pool);
        yield_now().await;

        tokio::time::advance(Duration::from_millis(14_999)).await;
        yield_now().await;
        assert!(!waiting.is_finished());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(is_busy(&waiting.await.unwrap()));
        assert_eq!(pool.waiting(), 0);
        gate.go_on.send(()).unwrap();
        assert!(running.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn hash_of_what_was_typed_still_opens() {
        let bcrypt = BcryptHasher::new(4).unwrap();
        let typed = "Gru\u{308}\u{df}e-Horse-1";
        let old = bcrypt.hash(&Password::from(typed).as_typed().unwrap()).unwrap();
        let new = bcrypt.hash(&Password::from(typed)).unwrap();
        let pool = HashingPool::new(bcrypt).unwrap();
        for (password, hash, expected) in [
            (typed, &new, Match::Yes),
            ("Gr\u{fc}\u{df}e-Horse-1", &new, Match::Yes),
            (typed, &old, Match::AsTyped),
            ("Gr\u{fc}\u{df}e-Horse-1", &old, Match::No),
        ] {
            let found = pool.check(Password::from(password), Some(hash.clone())).await.unwrap();
            assert_eq!(found, expected, "{password}");
        }
        assert!(!pool.verify(Password::from(typed), None).await.unwrap());
    }

    #[tokio::test]
    async fn decoy_is_nobodys_password() {
        let pool = HashingPool::new(BcryptHasher::new(4).unwrap()).unwrap();
        assert!(!pool.verify(Password::from("decoy"), None).await.unwrap());
    }

    #[tokio::test]
    async fn hasher_that_panics_is_an_error_and_frees_its_place() {
        let (pool, _gate) = narrow_pool().await;
        for _ in 0..2 {
            let verified = pool.verify(Password::from("a"), None).await;
            assert!(matches!(verified, Err(HashingError::Hash(_))));
        }
        assert_eq!(pool.running(), 0);
    }
}
