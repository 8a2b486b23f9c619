//! Mail that waits to be sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::{
    MailSender, Message,
    lines::{Lines, Waiting},
    room::{Place, Room},
};
use crate::signals;

/// The pauses between attempts, in seconds: 68 minutes in all. A mail server that turns strangers
/// away at first (greylisting, RFC 6647) wants to be asked again after 5 to 15 minutes.
const PAUSES: [u64; 8] = [1, 5, 30, 120, 300, 600, 1200, 1800];

/// Sends mail behind the back of whoever posts it. Clones share what waits.
///
/// - [`post`](Self::post) never waits and never fails. There is room for 4096 messages, 256 of them for
///   the same domain. Where it is full, the oldest of those is given up that wait for another attempt,
///   or for a domain that is slow; where there is none, or the new one is for such a domain, that is
///   dropped. A log line says so.
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
    room: Room,
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
            room: Room::default(),
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
        let why = if *self.closing.borrow() {
            "the outbox is closed"
        } else if let Some(line) = self.lines.join(message.to().domain()) {
            if let Some(place) = self.room.enter(&line) {
                tokio::spawn(self.clone().deliver(message, line, place));
                return;
            }
            "the outbox is full"
        } else {
            "too much waits for the same domain"
        };
        tracing::error!("mail dropped: {why}");
        self.lose("dropped");
    }

    /// How many messages wait or are being sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.room.taken()
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
        let _ = timeout(deadline, self.room.is_empty()).await;
        let left = self.waiting();
        if left > 0 {
            tracing::error!(left, "mail was not sent in time");
        }
        left
    }

    /// Sends a message, however often it takes. Its place is free again when this ends.
    async fn deliver(self, message: Message, line: Waiting, mut place: Place) {
        let mut pauses = self.pauses.iter();
        loop {
            let Some(turn) = place.wait(line.turn()).await else { return self.give_way() };
            let Err(error) = turn.send(self.sender.send(&message)).await else { break };
            let last = error.is_permanent() || *self.closing.borrow();
            let Some(pause) = pauses.next().filter(|_| !last) else {
                tracing::error!(%error, "mail given up");
                return self.lose("given_up");
            };
            tracing::warn!(%error, "mail not sent yet");
            place.is_for_another_attempt();
            if place.wait(self.rest(*pause)).await.is_none() {
                return self.give_way();
            }
        }
        signals::mail("sent");
    }

    fn give_way(&self) {
        tracing::error!("mail given up: the outbox is full, and others have not been tried yet");
        self.lose("given_up");
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
    use crate::user::{Email, mail::room::CAPACITY};

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
        assert_eq!((outbox.waiting(), outbox.given_up()), (CAPACITY, 10));
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

    /// Turns away what is for `later.example`, hangs where it is for `stuck.example`, counts the rest.
    #[derive(Clone, Debug, Default)]
    struct Hostile(Arc<AtomicU64>);

    #[async_trait]
    impl MailSender for Hostile {
        async fn send(&self, message: &Message) -> Result<(), MailError> {
            let domain = message.to().domain();
            if domain.ends_with("later.example") {
                return Err(MailError::temporary("not now", "busy"));
            } else if domain.ends_with("stuck.example") {
                tokio::time::sleep(Duration::from_secs(30)).await;
                return Err(MailError::temporary("too late", "timeout"));
            }
            self.0.fetch_add(1, Relaxed);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_turns_mail_away_keeps_no_room_from_others() {
        for hostile in ["later.example", "stuck.example"] {
            let sender = Hostile::default();
            let outbox = Outbox::new(sender.clone());
            let post_all = || {
                for n in 0..CAPACITY {
                    outbox.post(message_to(&format!("eve@{}.{hostile}", n % 16)));
                }
            };
            post_all();
            tokio::time::sleep(Duration::from_secs(60)).await;
            post_all();
            let lost = outbox.given_up();
            for n in 0..100 {
                outbox.post(message_to(&format!("ada@{n}.example")));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(sender.0.load(Relaxed), 100, "{hostile}");
            assert_eq!(outbox.given_up() - lost, 100, "{hostile}: as many have given way");
            hours_later().await;
            outbox.close(Duration::from_secs(100_000)).await;
            assert_eq!(outbox.waiting(), 0, "{hostile}");
        }
    }

    #[test]
    fn debug_tells_neither_address_nor_text() {
        let shown = format!("{:?}", message());
        assert!(!shown.contains("ada") && !shown.contains("1234"), "{shown}");
    }
}
