//! [`AuditTrail`]: which events are kept, and where.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{runtime::Handle, sync::Notify, time::timeout};

use super::{AuditEvent, AuditSink, sink::LogLines};
use crate::{StoreError, signals};

/// So many events of failures wait to be written; what comes beyond is lost to the table, and counted.
const WAITING: usize = 1024;

/// So many are written at once.
const BATCH: usize = 100;

/// Where the events of a store go: nowhere, unless set. Given to the store
/// (`MemoryStore::with_audit`, and so for the others), from which the services over it take it. Cheap
/// to clone. See the [module's docs](super).
///
/// ```
/// use tower_warden::{audit::AuditTrail, store::memory::MemoryStore};
/// let trail = AuditTrail::new().with_table().with_log(); // both
/// let accounts = MemoryStore::new().with_audit(trail); // for UserService, TokenService, …
/// ```
#[derive(Clone, Default)]
pub struct AuditTrail(Option<Arc<Inner>>);

#[derive(Clone, Default)]
struct Inner {
    table: bool,
    sinks: Vec<Arc<dyn AuditSink>>,
    later: Option<Arc<Later>>,
}

/// Writes events that belong to no change.
#[async_trait]
pub(crate) trait WriteEvents: Send + Sync + 'static {
    async fn write(&self, events: Vec<AuditEvent>) -> Result<(), StoreError>;
}

/// What waits to be written, by a task that is there as long as something does.
struct Later {
    writer: Box<dyn WriteEvents>,
    waiting: Mutex<Waiting>,
    written: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<AuditEvent>,
    is_writing: bool,
}

impl AuditTrail {
    /// Events go nowhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and into the table of the store: an event of a change in the transaction of the change.
    #[must_use]
    pub fn with_table(self) -> Self {
        self.change(|inner| inner.table = true)
    }

    /// The same, and into the log: one line each, of the target `tower_warden::audit` and the level
    /// INFO.
    #[must_use]
    pub fn with_log(self) -> Self {
        self.with_sink(LogLines)
    }

    /// The same, and to this sink.
    #[must_use]
    pub fn with_sink(self, sink: impl AuditSink) -> Self {
        self.change(|inner| inner.sinks.push(Arc::new(sink)))
    }

    /// Notes an event that belongs to no change of the store: something refused, or an act of your own
    /// program. It costs whoever calls a push into a queue; a store that is slow or gone loses the
    /// event (counted as `tower_warden_audit_events_total{outcome="lost"}`), and fails nobody.
    pub fn note(&self, event: AuditEvent) {
        let Some(inner) = &self.0 else { return };
        self.tell(&event);
        if let Some(later) = &inner.later {
            later.push(event);
        }
    }

    /// Waits until what was [noted](Self::note) is written, but no longer than this: before a program
    /// ends.
    pub async fn flush(&self, at_most: Duration) {
        if let Some(later) = self.0.as_ref().and_then(|inner| inner.later.as_ref()) {
            let _ = timeout(at_most, later.is_written()).await;
        }
    }

    /// Whether a store keeps events of its changes.
    pub(crate) fn has_table(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.table)
    }

    /// To the sinks: the table has it, or will.
    pub(crate) fn tell(&self, event: &AuditEvent) {
        if let Some(inner) = &self.0 {
            signals::audit("noted", 1);
            inner.sinks.iter().for_each(|sink| sink.record(event));
        }
    }

    /// The same for a store, which writes in this way what belongs to no change.
    pub(crate) fn written_by(self, writer: impl WriteEvents) -> Self {
        if !self.has_table() {
            return self;
        }
        self.change(|inner| {
            inner.later = Some(Arc::new(Later {
                writer: Box::new(writer),
                waiting: Mutex::default(),
                written: Notify::new(),
            }));
        })
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(self.0.get_or_insert_default()));
        self
    }
}

impl Later {
    fn push(self: &Arc<Self>, event: AuditEvent) {
        let mut waiting = self.lock();
        // Without a runtime there is nobody to write it.
        let runtime = Handle::try_current();
        match runtime {
            Ok(runtime) if waiting.events.len() < WAITING => {
                waiting.events.push_back(event);
                if !std::mem::replace(&mut waiting.is_writing, true) {
                    runtime.spawn(Arc::clone(self).write());
                }
            }
            _ => signals::audit("lost", 1),
        }
    }

    async fn write(self: Arc<Self>) {
        while let Some(batch) = self.take() {
            let count = batch.len();
            if let Err(error) = self.writer.write(batch).await {
                signals::audit("lost", count as u64);
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, count, "audit events of failures were lost");
            }
        }
        self.written.notify_waiters();
    }

    fn take(&self) -> Option<Vec<AuditEvent>> {
        let mut waiting = self.lock();
        let count = waiting.events.len().min(BATCH);
        waiting.is_writing = count > 0;
        waiting.is_writing.then(|| waiting.events.drain(..count).collect())
    }

    async fn is_written(&self) {
        loop {
            let written = self.written.notified();
            if !self.lock().is_writing {
                return;
            }
            written.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AuditTrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks = self.0.as_ref().map_or(0, |inner| inner.sinks.len());
        f.debug_struct("AuditTrail")
            .field("table", &self.has_table())
            .field("sinks", &sinks)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        time::{Instant, SystemTime},
    };

    use tokio::sync::Semaphore;

    use super::*;
    use crate::audit::Act;

    /// A table that stands still until it is let go.
    #[derive(Clone)]
    struct Slow(Arc<Semaphore>, Arc<AtomicUsize>);

    #[async_trait]
    impl WriteEvents for Slow {
        async fn write(&self, events: Vec<AuditEvent>) -> Result<(), StoreError> {
            let _permit = self.0.acquire().await.map_err(StoreError::unavailable)?;
            self.1.fetch_add(events.len(), SeqCst);
            Ok(())
        }
    }

    fn failure() -> AuditEvent {
        AuditEvent::new(Act::LOGIN, SystemTime::UNIX_EPOCH).refused("invalid_credentials")
    }

    #[tokio::test]
    async fn flood_of_failures_is_bounded_and_waits_for_nothing() {
        let slow = Slow(Arc::new(Semaphore::new(0)), Arc::default());
        let trail = AuditTrail::new().with_table().written_by(slow.clone());
        let begun = Instant::now();
        for _ in 0..100_000 {
            trail.note(failure());
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        trail.flush(Duration::from_millis(10)).await;
        slow.0.add_permits(1);
        trail.flush(Duration::from_secs(60)).await;
        assert_eq!(slow.1.load(SeqCst), WAITING);
        // And what comes later is written again.
        trail.note(failure());
        trail.flush(Duration::from_secs(60)).await;
        assert_eq!(slow.1.load(SeqCst), WAITING + 1);
    }

    #[tokio::test]
    async fn table_that_is_gone_fails_nobody() {
        let gone = Slow(Arc::new(Semaphore::new(0)), Arc::default());
        gone.0.close();
        let trail = AuditTrail::new().with_table().written_by(gone.clone());
        trail.note(failure());
        trail.flush(Duration::from_secs(60)).await;
        assert_eq!(gone.1.load(SeqCst), 0);
    }

    #[test]
    fn without_a_runtime_the_sinks_hear_all_the_same() {
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        let sink = move |_: &AuditEvent| _ = count.fetch_add(1, SeqCst);
        let trail = AuditTrail::new().with_table().with_sink(sink);
        trail.written_by(Slow(Arc::new(Semaphore::new(1)), Arc::default())).note(failure());
        assert_eq!(heard.load(SeqCst), 1);
    }
}
