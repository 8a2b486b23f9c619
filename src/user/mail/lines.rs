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
    sync::Semaphore,
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
struct Domain {
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
    /// Sends, when it is this domain's turn.
    pub(super) async fn send(
        &self,
        sending: impl Future<Output = Result<(), MailError>>,
    ) -> Result<(), MailError> {
        let mut sending = pin!(sending);
        let Domain { slow, turns } = &*self.domain;
        let _turn = turns.acquire().await;
        let (sent, begin);
        if slow.load(Relaxed) {
            let _place = self.lines.slow.acquire().await;
            begin = Instant::now();
            sent = sending.await;
        } else {
            let place = self.lines.quick.acquire().await;
            begin = Instant::now();
            sent = match timeout(PATIENCE, &mut sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    slow.store(true, Relaxed);
                    drop(place);
                    sending.await
                }
            };
        }
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
