//! Room for mail that waits: what was not tried yet goes before what was in vain.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::lines::{Domain, Waiting};

/// The most messages that are kept, the ones being sent included.
pub(super) const CAPACITY: usize = 4096;

/// Clones are one.
#[derive(Clone)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    waiting: Arc<Mutex<Queue>>,
}

/// Those that wait, the oldest first. The others are being sent, and are not disturbed.
#[derive(Default)]
struct Queue {
    tickets: u64,
    waiting: BTreeMap<u64, Waiter>,
}

struct Waiter {
    domain: Arc<Domain>,
    again: bool,
    place: OwnedSemaphorePermit,
    /// Dropped where its place is given to another.
    _call: oneshot::Sender<Infallible>,
}

/// The place of a message. It is free again when this is dropped.
pub(super) struct Place {
    room: Room,
    ticket: u64,
    domain: Arc<Domain>,
    again: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// A place for a message of this line. Where there is none, that of the oldest which waits in
    /// vain, if this one doesn't.
    pub(super) fn enter(&self, line: &Waiting) -> Option<Place> {
        let mut queue = self.lock();
        let free = Arc::clone(&self.places).try_acquire_owned().ok();
        let permit = free.or_else(|| if line.is_slow() { None } else { queue.give_up_oldest() })?;
        queue.tickets += 1;
        let (room, ticket, domain) = (self.clone(), queue.tickets, line.domain());
        Some(Place { room, ticket, domain, again: false, permit: Some(permit) })
    }

    pub(super) fn taken(&self) -> usize {
        CAPACITY - self.places.available_permits()
    }

    /// Comes back when no message is left.
    pub(super) async fn is_empty(&self) {
        drop(self.places.acquire_many(CAPACITY as u32).await);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn give_up_oldest(&mut self) -> Option<OwnedSemaphorePermit> {
        let in_vain = |waiter: &Waiter| waiter.again || waiter.domain.is_slow();
        let (ticket, _) = self.waiting.iter().find(|(_, waiter)| in_vain(waiter))?;
        let ticket = *ticket;
        self.waiting.remove(&ticket).map(|waiter| waiter.place)
    }
}

impl Place {
    /// From now on it is held for a message that was tried in vain.
    pub(super) fn is_for_another_attempt(&mut self) {
        self.again = true;
    }

    /// Waits for this; nothing where the place was given to another meanwhile.
    pub(super) async fn wait<T>(&mut self, until: impl Future<Output = T>) -> Option<T> {
        let (call, mut given_up) = oneshot::channel();
        let (domain, again) = (Arc::clone(&self.domain), self.again);
        let waiter = Waiter { domain, again, place: self.permit.take()?, _call: call };
        self.room.lock().waiting.insert(self.ticket, waiter);
        let mut until = pin!(until);
        let waited = poll_fn(|cx| match until.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Pin::new(&mut given_up).poll(cx).map(|_| None),
        });
        let waited = waited.await;
        self.permit = self.room.lock().waiting.remove(&self.ticket).map(|waiter| waiter.place);
        waited.filter(|_| self.permit.is_some())
    }
}

impl Drop for Place {
    /// Also while it waits.
    fn drop(&mut self) {
        self.room.lock().waiting.remove(&self.ticket);
    }
}

impl Default for Room {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(CAPACITY)), waiting: Arc::default() }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("taken", &self.taken()).finish_non_exhaustive()
    }
}
