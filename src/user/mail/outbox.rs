//! Mail that waits to be sent.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use super::{MailError, MailSender, Message};

/// The most messages that are kept, the ones being sent included.
const CAPACITY: u32 = 1024;
/// The most that are sent at once.
const AT_ONCE: usize = 4;

/// Sends mail behind the back of whoever posts it. Clones share what waits.
///
/// - [`post`](Self::post) never waits and never fails. Where 1024 messages wait already, the new one
///   is dropped, and a log line says so.
/// - At most four are sent at once. One that can't be sent now is tried four times more, after 1 s,
///   5 s, 30 s and 2 min, and then given up with a log line. Logs never tell whom it was for.
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
    lines: Arc<Semaphore>,
    closing: Arc<watch::Sender<bool>>,
}

impl Outbox {
    /// An outbox that sends by this sender.
    #[must_use]
    pub fn new(sender: impl MailSender) -> Self {
        Self {
            sender: Arc::new(sender),
            pauses: [1, 5, 30, 120].map(Duration::from_secs).into(),
            room: Arc::new(Semaphore::new(CAPACITY as usize)),
            lines: Arc::new(Semaphore::new(AT_ONCE)),
            closing: Arc::new(watch::Sender::new(false)),
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
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(room) if !*self.closing.borrow() => {
                tokio::spawn(self.clone().deliver(message, room));
            }
            Ok(_) => tracing::error!("mail dropped: the outbox is closed"),
            Err(_) => tracing::error!("mail dropped: the outbox is full"),
        }
    }

    /// How many messages wait or are being sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        CAPACITY as usize - self.room.available_permits()
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
    async fn deliver(self, message: Message, _room: OwnedSemaphorePermit) {
        let mut pauses = self.pauses.iter();
        while let Err(error) = self.attempt(&message).await {
            let last = error.is_permanent() || *self.closing.borrow();
            let Some(pause) = pauses.next().filter(|_| !last) else {
                tracing::error!(%error, "mail given up");
                return;
            };
            tracing::warn!(%error, "mail not sent yet");
            self.rest(*pause).await;
        }
    }

    async fn attempt(&self, message: &Message) -> Result<(), MailError> {
        let _line = self.lines.acquire().await;
        self.sender.send(message).await
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

    use super::*;
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
        Message::new(Email::parse("ada@example.com").unwrap(), "Hello", "the token is 1234")
    }

    /// Long after the last attempt.
    async fn an_hour_later() {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn message_is_tried_again_after_growing_pauses() {
        for (failures, permanent, asked_at) in [
            (0, false, vec![0]),
            (2, false, vec![0, 1, 6]),
            (4, false, vec![0, 1, 6, 36, 156]),
            (9, false, vec![0, 1, 6, 36, 156]),
            (9, true, vec![0]),
        ] {
            let sender = Flaky::new(failures, permanent);
            let outbox = Outbox::new(sender.clone());
            outbox.post(message());
            assert_eq!(outbox.waiting(), 1);
            an_hour_later().await;
            assert_eq!(sender.asked_at(), asked_at, "{failures} failures");
            assert_eq!(outbox.waiting(), 0);
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
            an_hour_later().await;
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
        for _ in 0..CAPACITY + 10 {
            outbox.post(message());
        }
        assert_eq!(outbox.waiting(), CAPACITY as usize);
    }

    #[test]
    fn debug_tells_neither_address_nor_text() {
        let shown = format!("{:?}", message());
        assert!(!shown.contains("ada") && !shown.contains("1234"), "{shown}");
    }
}
