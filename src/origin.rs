//! [`Origin`]: where what is done comes from.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use http::HeaderValue;

use tokio::task::futures::TaskLocalFuture;

use crate::Identity;

tokio::task_local! {
    static CURRENT: Origin;
}

/// From where, and by whom, something is done: what an [`AuditEvent`](crate::audit::AuditEvent) says of it.
///
/// [`ObserveLayer`](crate::ObserveLayer) puts it around each request, and
/// [`RequireAuth`](crate::RequireAuth) adds who is calling. It goes along by itself: into whatever the
/// request awaits, and into the tasks in which stores carry verbs out; a task of your own takes it along
/// by [`current`](Self::current) and [`scope`](Self::scope). What is done outside of any is done by the
/// [program](crate::audit::Actor::Program).
///
/// ```
/// use tower_warden::{Identity, Origin, Role, UserId};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// // On the command line, say, where no layer is.
/// let ada = Identity::new(UserId::from("ada"), Role::ADMIN);
/// let here = Origin::new().with_user_agent("admin-tool\n1.0").by(ada);
/// here.scope(async {
///     let origin = Origin::current().unwrap();
///     assert_eq!(origin.caller().unwrap().user_id().as_str(), "ada");
///     assert_eq!(origin.user_agent(), Some(r"admin-tool\n1.0"));
/// })
/// .await;
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Origin(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    ip: Option<IpAddr>,
    /// As it was sent; read where it is asked for.
    sent_agent: Option<HeaderValue>,
    user_agent: OnceLock<Box<str>>,
    request_id: Option<Box<str>>,
    caller: OnceLock<Identity>,
    observed: Option<Arc<Observed>>,
}

/// What the layers within tell the one that observes.
pub(crate) struct Observed {
    pub(crate) span: tracing::Span,
    decided: Mutex<Option<Decided>>,
}

/// A limiter, and what it decided.
pub(crate) type Decided = (&'static str, &'static str);

impl Origin {
    /// Nothing is known of it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, from this address.
    #[must_use]
    pub fn with_ip(mut self, ip: IpAddr) -> Self {
        Arc::make_mut(&mut self.0).ip = Some(ip);
        self
    }

    /// The same, with this `User-Agent`: 256 characters of it, those that don't show escaped.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: &str) -> Self {
        Arc::make_mut(&mut self.0).user_agent = OnceLock::from(inert(user_agent));
        self
    }

    /// The same, from the header of a request.
    pub(crate) fn with_sent_agent(mut self, user_agent: &HeaderValue) -> Self {
        Arc::make_mut(&mut self.0).sent_agent = Some(user_agent.clone());
        self
    }

    /// The same, by which logs tell requests apart. Escaped and cut as the user agent.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        Arc::make_mut(&mut self.0).request_id = Some(inert(id));
        self
    }

    /// The same, by this caller.
    #[must_use]
    pub fn by(mut self, caller: Identity) -> Self {
        Arc::make_mut(&mut self.0).caller = OnceLock::from(caller);
        self
    }

    /// The same, where this is told who calls and what limiters decide.
    pub(crate) fn observed_by(mut self, observed: Arc<Observed>) -> Self {
        Arc::make_mut(&mut self.0).observed = Some(observed);
        self
    }

    /// From which address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.ip
    }

    /// With which `User-Agent`.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        let Some(sent) = &self.0.sent_agent else { return self.0.user_agent.get().map(|it| &**it) };
        Some(self.0.user_agent.get_or_init(|| inert(&String::from_utf8_lossy(sent.as_bytes()))))
    }

    /// By which identifier logs tell the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Who is calling, once that is known.
    #[must_use]
    pub fn caller(&self) -> Option<&Identity> {
        self.0.caller.get()
    }

    /// Does this work, which then comes from here.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Where what is being done comes from.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The same work for a task of its own: it comes from here, too.
    pub(crate) fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
        let here = Self::current();
        async move {
            match here {
                Some(here) => here.scope(work).await,
                None => work.await,
            }
        }
    }

    /// The future that this makes, and all that it awaits, come from here.
    pub(crate) fn around<F: Future>(self, make: impl FnOnce() -> F) -> TaskLocalFuture<Self, F> {
        let future = CURRENT.sync_scope(self.clone(), make);
        CURRENT.scope(self, future)
    }
}

/// Somebody is calling: said by what has authenticated it. The first word counts.
pub(crate) fn is_called_by(caller: &Identity) {
    let _ = CURRENT.try_with(|origin| {
        if origin.0.caller.set(caller.clone()).is_ok()
            && let Some(observed) = &origin.0.observed
        {
            observed.span.record("user.id", caller.user_id().as_str());
        }
    });
}

/// A limiter has decided. A refusal counts before all else, then what was said last.
#[inline(always)]
pub(crate) fn is_decided(limiter: &'static str, outcome: &'static str) {
    let _ = CURRENT.try_with(|origin| {
        if let Some(observed) = &origin.0.observed {
            observed.decide((limiter, outcome));
        }
    });
}

pub(crate) const REFUSED: &str = "refused";

impl Observed {
    pub(crate) fn new(span: tracing::Span) -> Self {
        Self { span, decided: Mutex::default() }
    }

    // Apart, so that it costs nothing where nobody observes.
    #[inline(never)]
    fn decide(&self, what: Decided) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        if decided.is_none_or(|(_, before)| before != REFUSED) {
            *decided = Some(what);
        }
    }

    pub(crate) fn decided(&self) -> Option<Decided> {
        *self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("ip", &self.0.ip)
            .field("user_agent", &self.user_agent())
            .field("request_id", &self.0.request_id)
            .field("caller", &self.caller().map(Identity::user_id))
            .finish_non_exhaustive()
    }
}

/// Text that others chose, as it does no harm in a log or a table: what doesn't show, breaks lines or
/// turns the reading direction is escaped, as is the backslash; 256 characters at most.
pub(crate) fn inert(text: &str) -> Box<str> {
    let mut inert = String::with_capacity(text.len().min(256));
    let mut left = 256_usize;
    for c in text.chars() {
        let before = inert.len();
        if c.is_control() || is_invisible(c) || c == '\\' {
            inert.extend(c.escape_default());
        } else {
            inert.push(c);
        }
        let Some(rest) = left.checked_sub(inert[before..].chars().count()) else {
            inert.truncate(before);
            break;
        };
        left = rest;
    }
    inert.into()
}

/// Line separators, and what turns or joins text without being seen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_chose_stays_inert() {
        for (text, kept) in [
            ("Mozilla/5.0 (X11; Linux)", "Mozilla/5.0 (X11; Linux)"),
            ("a\r\nact=login outcome=done", r"a\r\nact=login outcome=done"),
            ("a\u{1b}[2K\u{0}", r"a\u{1b}[2K\u{0}"),
            ("nis\u{202e}da\u{2028}x", r"nis\u{202e}da\u{2028}x"),
            (r"a\n", r"a\\n"),
            ("Grüße 漢字", "Grüße 漢字"),
        ] {
            assert_eq!(&*inert(text), kept);
        }
        assert_eq!(inert(&"x".repeat(1000)).len(), 256);
        // An escape is whole or not there.
        assert_eq!(&*inert(&format!("{}\n", "x".repeat(255))), "x".repeat(255));
    }

    #[tokio::test]
    async fn tasks_inherit_where_they_come_from_if_they_are_told_to() {
        let origin = Origin::new().with_request_id("7");
        origin
            .scope(async {
                let id = || Origin::current().and_then(|here| here.request_id().map(String::from));
                let inherited = tokio::spawn(Origin::inherited(async move { id() }));
                assert_eq!(inherited.await.unwrap().as_deref(), Some("7"));
                assert_eq!(tokio::spawn(async move { id() }).await.unwrap(), None);
            })
            .await;
        assert!(Origin::current().is_none());
    }
}
