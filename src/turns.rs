//! Whose turn it is: a fair queue before so many places, to hash a password or to look up a key.
//!
//! Checks (logins) and what is new (registrations) wait in a lane each, and take turns: however many
//! register, a login waits for one hash more. Within a lane clients take turns: whose first one waits
//! goes before whose second.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

/// On whose behalf a place is taken.
pub(crate) type Client = Arc<str>;

/// What is done in a place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lane {
    /// A password, or a key, is checked.
    Check,
    /// A new password is hashed.
    Set,
}

#[derive(Debug)]
pub(crate) struct Turns {
    places: usize,
    /// How many may wait in each lane.
    length: usize,
    state: Mutex<State>,
}

/// The right to begin. It ends when this is dropped, and the next in turn has it.
#[derive(Debug)]
pub(crate) struct Place(Option<Arc<Turns>>);

/// Nobody may wait any more, or waited too long.
#[derive(Debug)]
pub(crate) struct Late;

#[derive(Debug, Default)]
struct State {
    running: usize,
    lanes: [Queue; 2],
    /// Which lane comes next, if anyone waits in both.
    next: usize,
    tickets: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// The first is the next.
    waiting: BTreeMap<Ticket, Waiter>,
    /// The round of whoever came last.
    round: u64,
}

/// First by round, then by order of arrival. In each round every client has one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    round: u64,
    number: u64,
}

#[derive(Debug)]
struct Waiter {
    client: Option<Client>,
    call: oneshot::Sender<Place>,
}

impl Turns {
    pub(crate) fn new(places: usize, length: usize) -> Arc<Self> {
        Arc::new(Self { places, length, state: Mutex::default() })
    }

    pub(crate) fn places(&self) -> usize {
        self.places
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn running(&self) -> usize {
        self.lock().running
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lock().lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// A place, once it is this one's turn.
    pub(crate) async fn take(
        self: &Arc<Self>,
        lane: Lane,
        client: Option<Client>,
        patience: Duration,
    ) -> Result<Place, Late> {
        let (ticket, called) = {
            let mut state = self.lock();
            if state.running < self.places {
                state.running += 1;
                return Ok(Place(Some(Arc::clone(self))));
            }
            self.queue(&mut state, lane, client).ok_or(Late)?
        };
        let _leave = Leave { turns: self, lane, ticket };
        timeout(patience, called).await.ok().and_then(Result::ok).ok_or(Late)
    }

    fn queue(
        &self,
        state: &mut State,
        lane: Lane,
        client: Option<Client>,
    ) -> Option<(Ticket, oneshot::Receiver<Place>)> {
        state.tickets += 1;
        let number = state.tickets;
        let queue = &mut state.lanes[lane as usize];
        let own =
            queue.waiting.iter().filter(|(_, waiter)| client.is_some() && waiter.client == client);
        // One client may have a quarter of the lane; what is done for nobody in particular all of it.
        let (own, last) = own.fold((0, None), |(n, _), (ticket, _)| (n + 1, Some(ticket.round)));
        let share = if client.is_some() { self.length.div_ceil(4) } else { self.length };
        if queue.waiting.len() >= self.length || own >= share {
            return None;
        }
        let ticket = Ticket { round: last.map_or(queue.round, |round| round + 1), number };
        let (call, called) = oneshot::channel();
        queue.waiting.insert(ticket, Waiter { client, call });
        Some((ticket, called))
    }

    /// Hands a place on, or frees it.
    fn pass_on(self: &Arc<Self>) {
        let mut state = self.lock();
        while let Some(waiter) = state.call_next() {
            match waiter.call.send(Place(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // Gone meanwhile. The place is not dropped, which would come back here.
                Err(mut place) => drop(place.0.take()),
            }
        }
        state.running -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn call_next(&mut self) -> Option<Waiter> {
        let first = self.next;
        for lane in [first, 1 - first] {
            let queue = &mut self.lanes[lane];
            if let Some((ticket, waiter)) = queue.waiting.pop_first() {
                queue.round = ticket.round;
                self.next = 1 - lane;
                return Some(waiter);
            }
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

/// Takes a ticket back, however waiting ends.
struct Leave<'a> {
    turns: &'a Turns,
    lane: Lane,
    ticket: Ticket,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.turns.lock().lanes[self.lane as usize].waiting.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, task::yield_now};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    /// Who is let in, in which order, when one place is passed on from one to the next.
    async fn order(length: usize, asked: &[(Lane, Option<&str>)]) -> Vec<usize> {
        let turns = Turns::new(1, length);
        let first = turns.take(Lane::Check, None, PATIENCE).await.unwrap();
        let (let_in, mut order) = mpsc::unbounded_channel();
        for (index, (lane, client)) in asked.iter().enumerate() {
            let (turns, let_in) = (Arc::clone(&turns), let_in.clone());
            let (lane, client) = (*lane, client.map(Client::from));
            tokio::spawn(async move {
                if let Ok(place) = turns.take(lane, client, PATIENCE).await {
                    let_in.send(index).unwrap();
                    drop(place);
                }
            });
            yield_now().await;
        }
        drop((first, let_in));
        let mut seen = vec![];
        while let Some(index) = order.recv().await {
            seen.push(index);
        }
        assert_eq!((turns.running(), turns.waiting()), (0, 0));
        seen
    }

    #[tokio::test]
    async fn logins_and_registrations_take_turns() {
        let (set, check) = ((Lane::Set, None), (Lane::Check, None));
        assert_eq!(order(9, &[set, set, set, check, check]).await, [3, 0, 4, 1, 2]);
    }

    #[tokio::test]
    async fn clients_take_turns() {
        let (a, b) = ((Lane::Check, Some("a")), (Lane::Check, Some("b")));
        assert_eq!(order(16, &[a, a, a, b, a, b]).await, [0, 3, 1, 5, 2, 4]);
    }

    #[tokio::test]
    async fn one_client_has_a_quarter_of_a_lane() {
        let (a, b) = ((Lane::Set, Some("a")), (Lane::Set, Some("b")));
        assert_eq!(order(8, &[a, a, a, a, b]).await, [0, 4, 1]);
        assert_eq!(order(2, &[(Lane::Set, None); 5]).await, [0, 1]);
    }

    #[tokio::test]
    async fn place_that_comes_too_late_goes_to_the_next() {
        let turns = Turns::new(1, 8);
        let first = turns.take(Lane::Check, None, PATIENCE).await.unwrap();
        let waiter = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(Lane::Check, None, PATIENCE).await }
        });
        yield_now().await;
        drop(first); // it is on its way to the waiter,
        waiter.abort(); // who does not take it
        let _ = waiter.await;
        assert_eq!((turns.running(), turns.waiting()), (0, 0));
        turns.take(Lane::Set, None, PATIENCE).await.unwrap();
    }
}
