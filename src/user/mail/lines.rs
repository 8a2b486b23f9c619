//! Who is sent mail to at once: each domain has patience of its own.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::MailError;

/// The most messages that are sent at once to domains that take their mail,
const QUICK: usize = 8;
/// to those that were slow, or turned mail away, when last asked,
const SLOW: usize = 4;
/// and to any one domain.
const EACH: usize = 2;
/// The most that wait for one domain.
const WAITING: usize = 256;
/// What takes longer is slow, and gives up its place among the quick.
const PATIENCE: Duration = Duration::from_secs(5);

/// The domains that mail waits for. Clones are one.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    domains: Arc<Mutex<Domains>>,
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

/// How many messages wait for each.
type Domains = HashMap<Box<str>, (usize, Arc<Domain>)>;

#[derive(Debug)]
pub(super) struct Domain {
    slow: AtomicBool,
    turns: Semaphore,
}

/// A message's place among those that wait for its domain.
#[derive(Debug)]
pub(super) struct Waiting {
    lines: Lines,
    name: Box<str>,
    domain: Arc<Domain>,
}

impl Default for Lines {
    fn default() -> Self {
        let [quick, slow] = [QUICK, SLOW].map(|places| Arc::new(Semaphore::new(places)));
        Self { domains: Arc::default(), quick, slow }
    }
}

impl Lines {
    /// A place for a message to this domain, unless too many wait for it.
    pub(super) fn join(&self, name: &str) -> Option<Waiting> {
        let mut domains = self.lock();
        let (waiting, domain) = domains.entry(name.into()).or_insert_with(|| {
            (0, Arc::new(Domain { slow: AtomicBool::new(false), turns: Semaphore::new(EACH) }))
        });
        if *waiting == WAITING {
            return None;
        }
        *waiting += 1;
        Some(Waiting { lines: self.clone(), name: name.into(), domain: Arc::clone(domain) })
    }

    fn lock(&self) -> MutexGuard<'_, Domains> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether the domain was slow, or turned mail away, when last asked.
    pub(super) fn is_slow(&self) -> bool {
        self.domain.is_slow()
    }

    pub(super) fn domain(&self) -> Arc<Domain> {
        Arc::clone(&self.domain)
    }

    /// Comes back when it is this domain's turn.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let domain = &*self.domain;
        let of_domain = domain.turns.acquire().await;
        let patient = domain.is_slow();
        let places = if patient { &self.lines.slow } else { &self.lines.quick };
        Turn { domain, patient, place: places.acquire().await.ok(), _of_domain: of_domain.ok() }
    }
}

impl Domain {
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Relaxed)
    }
}

/// The right to send a message.
pub(super) struct Turn<'a> {
    domain: &'a Domain,
    /// Whether its place is one for as long as it takes.
    patient: bool,
    place: Option<SemaphorePermit<'a>>,
    _of_domain: Option<SemaphorePermit<'a>>,
}

impl Turn<'_> {
    pub(super) async fn send(
        mut self,
        sending: impl Future<Output = Result<(), MailError>>,
    ) -> Result<(), MailError> {
        let (mut sending, begin) = (pin!(sending), Instant::now());
        let slow = &self.domain.slow;
        let sent = if self.patient {
            sending.await
        } else {
            match timeout(PATIENCE, &mut sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    slow.store(true, Relaxed);
                    drop(self.place.take());
                    sending.await
                }
            }
        };
        let turned_away = sent.as_ref().is_err_and(|error| !error.is_permanent());
        slow.store(turned_away || begin.elapsed() >= PATIENCE, Relaxed);
        sent
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut domains = self.lines.lock();
        if let Some((waiting, _)) = domains.get_mut(&self.name) {
            *waiting -= 1;
            if *waiting == 0 {
                domains.remove(&self.name);
            }
        }
    }
}
