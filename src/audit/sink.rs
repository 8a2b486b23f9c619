//! [`AuditSink`]: where events go, beside the table.

use super::{Actor, AuditEvent};
use crate::UserId;

/// Takes events: those of a change once it is committed, those of a failure at once.
///
/// It must neither wait nor fail: what takes time belongs behind a channel, and a full one drops.
/// A closure is one.
///
/// ```
/// use tower_warden::{audit::{AuditEvent, AuditTrail}, store::memory::MemoryStore};
/// let (events, received) = std::sync::mpsc::sync_channel::<AuditEvent>(1000);
/// let trail = AuditTrail::new().with_sink(move |event: &AuditEvent| {
///     let _ = events.try_send(event.clone()); // full: the event is lost, the request goes on
/// });
/// let accounts = MemoryStore::new().with_audit(trail);
/// # drop((accounts, received));
/// ```
pub trait AuditSink: Send + Sync + 'static {
    /// Takes one event.
    fn record(&self, event: &AuditEvent);
}

impl<F: Fn(&AuditEvent) + Send + Sync + 'static> AuditSink for F {
    fn record(&self, event: &AuditEvent) {
        self(event);
    }
}

/// Events as log lines, of the level INFO and the target `tower_warden::audit`.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLines;

impl AuditSink for LogLines {
    /// All text as strings, which `tracing` escapes; what there is none of is left out.
    fn record(&self, event: &AuditEvent) {
        let actor = match &event.actor {
            Actor::Key { id, .. } => Some(&**id),
            actor => actor.user().map(UserId::as_str),
        };
        tracing::info!(
            target: "tower_warden::audit",
            act = event.act.as_str(),
            outcome = event.outcome.as_str(),
            detail = event.detail.as_deref(),
            subject = event.subject.as_ref().map(UserId::as_str),
            object = event.object.as_deref(),
            by = event.actor.kind(),
            actor,
            role = event.actor.role().map(|role| role.as_str()),
            session = event.session.as_deref(),
            ip = event.ip.map(tracing::field::display),
            user_agent = event.user_agent.as_deref(),
            request_id = event.request_id.as_deref(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
        time::SystemTime,
    };

    use super::*;
    use crate::{
        Identity, Origin, Role,
        audit::{Act, AuditTrail},
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_event_is_one_line_whatever_clients_send() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(log.finish());
        let caller = Identity::new(UserId::from("root\n\""), Role::ADMIN).with_session_id("5e\n55");
        let here = Origin::new()
            .with_ip([203, 0, 113, 9].into())
            .with_user_agent("x\r\nINFO tower_warden::audit: act=\"deleted\"")
            .by(caller);
        let note = async {
            let event = AuditEvent::new(Act::DELETED, SystemTime::UNIX_EPOCH);
            let event = event.about(&UserId::from("a\nb")).with_detail("1\u{1b}[0m").on("k\"k");
            AuditTrail::new().with_log().note(event);
        };
        here.scope(note).await;
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let begins = r#" INFO tower_warden::audit: act="deleted" outcome="done" detail="#;
        assert!(text.starts_with(begins), "{text}");
        for word in [r#"by="user""#, "ip=203.0.113.9", r#"role="admin""#, "subject=", "session="] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(text.matches(r#" act="deleted" out"#).count(), 1, "{text}");
    }
}
