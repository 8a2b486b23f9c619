//! Mail that waits to be sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use super::{
    MailSender, Message,
    lines::{Lines, Waiting},
};
use crate::signals;

/// The most messages that are kept, the ones being sent included.
const CAPACITY: u32 = 4096;

/// The pauses between attempts, in seconds: 68 minutes in all. A mail server that turns strangers
/// away at first (greylisting, RFC 6647) wants to be asked again after 5 to 15 minutes.
const PAUSES: [u64; 8] = [1, 5, 30, 120, 300, 600, 1200, 1800];

/// Sends mail behind the back of whoever posts it. Clones share what waits.
///
/// - [`post`](Self::post) never waits and never fails. Where 4096 messages wait already, or 256 for
///   the same domain, the new one is dropped, and a log line says so.
/// - At most 8 are sent at once, 2 to any one domain. One that takes longer than 5 s gives up its
///   place, and from then on its domain, like one that turned mail away, shares 4 others with its
///   kind until it takes a message quickly: no domain delays the mail of another.
/// - What can't be sent now is tried eight times more, after 1 s, 5 s, 30 s and then pauses that grow
///   to half an hour, and given up after 68 minutes in all, with a log line. Logs never tell whom it
///   was for. [`given_up`](Self::given_up) counts what was lost.
/// - What waits is in memory only: call [`close`](Self::close) before the program ends.
///
/// ```
/// use tower_warden::user::{Email, mail::{MailError, MailSender, Message, Outbox}};
/// use std::time::Duration;
///
/// #[derive(Debug)]
/// struct Console;
///
/// #[async_trait::async_trait]
/// impl MailSender for Console {
///     async fn send(&self, message: &Message) -> Result<(), MailError> {
///         println!("to {}: {}", message.to(), message.text());
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let outbox = Outbox::new(Console);
/// outbox.post(Message::new(Email::parse("ada@example.com")?, "Hello", "Hi Ada,\n"));
/// assert_eq!(outbox.close(Duration::from_secs(10)).await, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: Arc<dyn MailSender>,
    pauses: Arc<[Duration]>,
    room: Arc<Semaphore>,
    lines: Lines,
    closing: Arc<watch::Sender<bool>>,
    given_up: Arc<AtomicU64>,
}

impl Outbox {
    /// An outbox that sends by this sender.
    #[must_use]
    pub fn new(sender: impl MailSender) -> Self {
        Self {
            sender: Arc::new(sender),
            pauses: PAUSES.map(Duration::from_secs).into(),
            room: Arc::new(Semaphore::new(CAPACITY as usize)),
            lines: Lines::default(),
            closing: Arc::new(watch::Sender::new(false)),
            given_up: Arc::default(),
        }
    }

    /// The same outbox, with these pauses between the attempts to send a message: one attempt more
    /// than there are pauses.
    #[must_use]
    pub fn with_pauses(self, pauses: impl Into<Arc<[Duration]>>) -> Self {
        Self { pauses: pauses.into(), ..self }
    }

    /// Takes a message to be sent soon. Belongs on a tokio runtime, as everything here.
    pub fn post(&self, message: Message) {
        let room = Arc::clone(&self.room).try_acquire_owned();
        let line = self.lines.join(message.to().domain());
        match (room, line) {
            (Ok(room), Some(line)) if !*self.closing.borrow() => {
                tokio::spawn(self.clone().deliver(message, line, room));
                return;
            }
            (Ok(_), Some(_)) => tracing::error!("mail dropped: the outbox is closed"),
            (Err(_), _) => tracing::error!("mail dropped: the outbox is full"),
            (_, None) => tracing::error!("mail dropped: too much waits for the same domain"),
        }
        self.lose("dropped");
    }

    /// How many messages wait or are being sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        CAPACITY as usize - self.room.available_permits()
    }

    /// How many messages were given up or dropped so far.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }

    /// Takes no more messages, tries those once more that wait for another attempt, and waits until
    /// none is left, but not longer than this. Answers how many are.
    pub async fn close(&self, deadline: Duration) -> usize {
        self.closing.send_replace(true);
        // All the room there is can be had when no message is left.
        let _ = timeout(deadline, self.room.acquire_many(CAPACITY)).await;
        let left = self.waiting();
        if left > 0 {
            tracing::error!(left, "mail was not sent in time");
        }
        left
    }

    /// Sends a message, however often it takes. Its room is free again when this ends.
    async fn deliver(self, message: Message, line: Waiting, _room: OwnedSemaphorePermit) {
        let mut pauses = self.pauses.iter();
        while let Err(error) = line.send(self.sender.send(&message)).await {
            let last = error.is_permanent() || *self.closing.borrow();
            let Some(pause) = pauses.next().filter(|_| !last) else {
                tracing::error!(%error, "mail given up");
                return self.lose("given_up");
            };
            tracing::warn!(%error, "mail not sent yet");
            self.rest(*pause).await;
        }
        signals::mail("sent");
    }

    fn lose(&self, outcome: &'static str) {
        self.given_up.fetch_add(1, Relaxed);
        signals::mail(outcome);
    }

    /// Waits, unless the outbox is being closed.
    async fn rest(&self, pause: Duration) {
        let mut closing = self.closing.subscribe();
        let _ = timeout(pause, closing.wait_for(|closing| *closing)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use tokio::time::Instant;

    use super::{super::MailError, *};
    use crate::user::Email;

    /// Fails so many times, and notes when it was asked.
    #[derive(Clone, Debug)]
    struct Flaky {
        failures: usize,
        permanent: bool,
        asked: Arc<Mutex<Vec<Duration>>>,
        begin: Instant,
    }

    impl Flaky {
        fn new(failures: usize, permanent: bool) -> Self {
            Self { failures, permanent, asked: Arc::default(), begin: Instant::now() }
        }

        fn asked_at(&self) -> Vec<u64> {
            self.asked.lock().unwrap().iter().map(Duration::as_secs).collect()
        }
    }

    #[async_trait]
    impl MailSender for Flaky {
        async fn send(&self, _: &Message) -> Result<(), MailError> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(self.begin.elapsed());
            match (asked.len() <= self.failures, self.permanent) {
                (false, _) => Ok(()),
                (true, false) => Err(MailError::temporary("not now", "busy")),
                (true, true) => Err(MailError::permanent("never", "no such mailbox")),
            }
        }
    }

    /// Never ends.
    #[derive(Debug)]
    struct Stuck;

    #[async_trait]
    impl MailSender for Stuck {
        async fn send(&self, _: &Message) -> Result<(), MailError> {
            std::future::pending().await
        }
    }

    fn message() -> Message {
        message_to("ada@example.com")
    }

    fn message_to(address: &str) -> Message {
        Message::new(Email::parse(address).unwrap(), "Hello", "the token is 1234")
    }

    /// Long after the last attempt.
    async fn hours_later() {
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn message_is_tried_again_after_growing_pauses() {
        let all = [0, 1, 6, 36, 156, 456, 1056, 2256, 4056];
        for (failures, permanent, asked_at, given_up) in [
            (0, false, &all[..1], 0),
            (2, false, &all[..3], 0),
            (8, false, &all, 0),
            (9, false, &all, 1),
            (9, true, &all[..1], 1),
        ] {
            let sender = Flaky::new(failures, permanent);
            let outbox = Outbox::new(sender.clone());
            outbox.post(message());
            assert_eq!(outbox.waiting(), 1);
            hours_later().await;
            assert_eq!(sender.asked_at(), asked_at, "{failures} failures");
            assert_eq!((outbox.waiting(), outbox.given_up()), (0, given_up));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closing_tries_once_more_and_takes_no_more() {
        for failures in [1, 9] {
            let sender = Flaky::new(failures, false);
            let outbox = Outbox::new(sender.clone()).with_pauses([Duration::from_secs(60)]);
            outbox.post(message());
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(outbox.close(Duration::from_secs(5)).await, 0);
            assert_eq!(sender.asked_at(), [0, 10]);

            outbox.post(message());
            hours_later().await;
            assert_eq!(sender.asked_at(), [0, 10]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_no_longer_than_the_deadline() {
        let outbox = Outbox::new(Stuck);
        outbox.post(message());
        let begin = Instant::now();
        assert_eq!(outbox.close(Duration::from_secs(5)).await, 1);
        assert_eq!(begin.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn full_outbox_drops_the_message() {
        let outbox = Outbox::new(Stuck);
        for n in 0..CAPACITY + 10 {
            outbox.post(message_to(&format!("ada@{n}.example")));
        }
        assert_eq!((outbox.waiting(), outbox.given_up()), (CAPACITY as usize, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn one_domain_cannot_fill_the_outbox() {
        let outbox = Outbox::new(Stuck);
        for _ in 0..300 {
            outbox.post(message());
        }
        outbox.post(message_to("ada@other.example"));
        assert_eq!((outbox.waiting(), outbox.given_up()), (257, 44));
    }

    /// Notes when it was asked to send to whom; to `slow.example` that takes 30 s and fails.
    #[derive(Clone, Debug)]
    struct Uneven {
        sent: Arc<Mutex<Vec<(String, u64)>>>,
        begin: Instant,
    }

    #[async_trait]
    impl MailSender for Uneven {
        async fn send(&self, message: &Message) -> Result<(), MailError> {
            if message.to().domain().ends_with("slow.example") {
                tokio::time::sleep(Duration::from_secs(30)).await;
                return Err(MailError::temporary("too late", "timeout"));
            }
            let at = self.begin.elapsed().as_secs();
            self.sent.lock().unwrap().push((message.to().domain().to_owned(), at));
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_domain_delays_nobody_else() {
        let sender = Uneven { sent: Arc::default(), begin: Instant::now() };
        let outbox = Outbox::new(sender.clone());
        let mut expected = vec![];
        for second in 0..120 {
            // Three slow domains, of which much is asked, and another for each second.
            for n in 0..3 {
                outbox.post(message_to(&format!("eve@{n}.slow.example")));
            }
            let quick = format!("{second}.example");
            outbox.post(message_to(&format!("ada@{quick}")));
            expected.push((quick, second));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(*sender.sent.lock().unwrap(), expected);
    }

    #[test]
    fn debug_tells_neither_address_nor_text() {
        let shown = format!("{:?}", message());
        assert!(!shown.contains("ada") && !shown.contains("1234"), "{shown}");
    }
}
