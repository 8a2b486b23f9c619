//! What operators read: the reason, and no secret.

use std::{
    cell::RefCell,
    error::Error,
    fmt::{Debug, Write},
    sync::Once,
};

use tower::{Layer, ServiceBuilder};
use tower_warden::{
    Answer, Identity, ManualClock, Quota, RateLimitLayer, RequestHead, RequireAuth, RequireRole,
    Role, StoreError, TokenService, UserId,
    auth::{AuthError, Authenticate},
    limit::{AccessList, OnFailure, Rule},
    store::memory::MemoryStore,
    token::{KeySet, SigningKey},
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{layer::Context, prelude::*};

use crate::{
    store_failure::Gone,
    support::{Gateway, from, inner, memory, request, send},
};

thread_local! {
    static EVENTS: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    static SPANS: RefCell<Vec<(u64, String)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the events of each thread, so of each test. Global, as a subscriber of one thread misses
/// events whose call sites another thread reached first.
struct Recorder;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().target() == "tower_warden::request" {
            let mut text = Text::default();
            attributes.record(&mut text);
            SPANS.with_borrow_mut(|spans| spans.push((id.into_u64(), text.0)));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        SPANS.with_borrow_mut(|spans| {
            if let Some((_, told)) = spans.iter_mut().rev().find(|(it, _)| *it == id.into_u64()) {
                let mut text = Text::default();
                values.record(&mut text);
                told.push_str(&text.0);
            }
        });
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("tower_warden") {
            let mut text = Text::default();
            event.record(&mut text);
            EVENTS.with_borrow_mut(|events| events.push((*event.metadata().level(), text.0)));
        }
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        write!(self.0, "{}={value} ", field.name()).unwrap();
        let mut cause = value.source();
        while let Some(error) = cause {
            write!(self.0, "because {error} ").unwrap();
            cause = error.source();
        }
    }
}

/// The one event since this was last asked.
fn the_event() -> (Level, String) {
    let mut events = events();
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

pub(crate) fn events() -> Vec<(Level, String)> {
    record();
    EVENTS.take()
}

/// The spans of requests since this was last asked, each with all that it was told.
pub(crate) fn spans() -> Vec<String> {
    record();
    SPANS.take().into_iter().map(|(_, text)| text).collect()
}

fn record() {
    static RECORDING: Once = Once::new();
    RECORDING.call_once(|| tracing_subscriber::registry().with(Recorder).init());
}

#[track_caller]
fn assert_tells((level, text): (Level, String), expected: Level, words: &[&str]) {
    assert_eq!(level, expected, "{text}");
    for word in words {
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_refused_token_leaves_the_reason_and_not_itself() {
    let keys = KeySet::new(SigningKey::generate_ed25519().unwrap());
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::default());
    let caller = Identity::new(UserId::from("ada"), Role::EDITOR);
    let pair = tokens.issue(&caller).await.unwrap();
    let token = pair.access_token().to_string();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let service = RequireAuth::new(tokens).layer(inner());
    events();
    let bearer = format!("Bearer {forged}");
    send(&service, request().header("authorization", &bearer)).await;
    let events = events();
    assert!(events.iter().any(|(_, text)| text.contains("not genuine")), "{events:?}");
    for (_, text) in &events {
        assert!(forged.split('.').all(|part| !text.contains(part)), "{text}");
    }
    send(&service, request().header("authorization", format!("Bearer {token}"))).await;
    assert_eq!(self::events(), [], "nothing is said of who passes");
}

#[derive(Clone, Debug)]
struct Unavailable;

impl Authenticate for Unavailable {
    fn authenticate(&self, _: RequestHead<'_>) -> Answer<Result<Identity, AuthError>> {
        Answer::Ready(Err(StoreError::unavailable("sessions are down").into()))
    }
}

#[tokio::test]
async fn an_authenticator_that_cannot_tell_is_an_error_also_where_nobody_is_refused() {
    events();
    let auth = RequireAuth::new(Unavailable);
    let words = &["can't authenticate", "not available", "because sessions are down"];
    send(&auth.layer(inner()), request()).await;
    assert_tells(the_event(), Level::ERROR, words);
    send(&auth.identify_only().layer(inner()), request()).await;
    assert_tells(the_event(), Level::ERROR, words);
    let both = ServiceBuilder::new().layer(auth.identify_only()).layer(auth).service(inner());
    send(&both, request()).await;
    assert_tells(the_event(), Level::ERROR, words);
}

#[tokio::test]
async fn a_role_that_is_missing_is_no_error_and_an_identity_that_is_missing_is() {
    events();
    let role = RequireRole::any_of([Role::ADMIN]);
    let service =
        ServiceBuilder::new().layer(RequireAuth::new(Gateway)).layer(role.clone()).service(inner());
    send(&service, request().header("x-user", "ada")).await;
    assert_tells(the_event(), Level::DEBUG, &["viewer"]);
    send(&role.layer(inner()), request()).await;
    assert_tells(the_event(), Level::ERROR, &["the stack is built wrong", "RequireAuth"]);
}

#[tokio::test]
async fn a_missing_peer_address_is_logged_with_what_to_add() {
    events();
    let limit = RateLimitLayer::new(
        memory(&ManualClock::new()),
        [Rule::per_ip("ip", Quota::per_minute(1))],
    );
    send(&limit.layer(inner()), http::Request::builder()).await;
    let words = &["into_make_service_with_connect_info", "tower_warden::PeerAddr"];
    assert_tells(the_event(), Level::ERROR, words);
}

#[tokio::test]
async fn a_limit_per_user_that_nobody_authenticates_for_is_told_of_once() {
    events();
    let rule = || [Rule::per_user("user", Quota::per_minute(1))];
    let limit = || RateLimitLayer::new(memory(&ManualClock::new()), rule());
    let auth = RequireAuth::new(Gateway);
    let wrong = ServiceBuilder::new().layer(limit()).layer(auth.clone()).service(inner());
    for _ in 0..2 {
        send(&wrong, request().header("x-user", "ada")).await;
    }
    assert_tells(the_event(), Level::WARN, &["limiter=user", "limits nobody", "RequireAuth"]);
    for right in [auth.identify_only(), auth] {
        let right = ServiceBuilder::new().layer(right).layer(limit()).service(inner());
        send(&right, request()).await;
        send(&right, request().header("x-user", "ada")).await;
        let warnings = events().into_iter().filter(|(level, _)| *level <= Level::WARN);
        assert_eq!(warnings.count(), 0);
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_trusted_is_told_of_once() {
    let service = || {
        let rules = [Rule::per_ip("ip", Quota::per_minute(9))];
        RateLimitLayer::new(memory(&ManualClock::new()), rules).layer(inner())
    };
    let of = |ip| from(ip).header("x-forwarded-for", "198.51.100.1");
    events();
    let behind = service();
    for _ in 0..2 {
        send(&behind, of([10, 0, 0, 1])).await;
    }
    assert_tells(the_event(), Level::WARN, &["no proxy is trusted", "TrustedProxies"]);
    // On the internet anybody sends such headers; and who sends none is no proxy.
    let open = service();
    send(&open, of([203, 0, 113, 9])).await;
    send(&open, from([127, 0, 0, 1])).await;
    assert_eq!(events(), []);
}

#[tokio::test]
async fn a_store_that_fails_is_logged_with_the_cause_and_what_is_done() {
    events();
    for (policy, word) in [(OnFailure::Allow, "Allow"), (OnFailure::Deny, "Deny")] {
        let rules = [Rule::per_ip("ip", Quota::per_minute(1))];
        let limit = RateLimitLayer::new(Gone, rules).with_on_failure(policy);
        send(&limit.layer(inner()), request()).await;
        assert_tells(the_event(), Level::DEBUG, &["because connection refused", word]);
    }
}

#[tokio::test]
async fn what_an_observing_limit_would_refuse_is_told_though_the_store_is_not_asked() {
    events();
    let list = AccessList::new();
    list.deny_net("203.0.113.0/24").unwrap();
    for rule in [
        Rule::by("ip", |_| None).or_refuse(),
        Rule::per_ip("ip", Quota::per_minute(1)).with_access(list),
    ] {
        let limit = RateLimitLayer::new(memory(&ManualClock::new()), rule.observing());
        send(&limit.layer(inner()), request()).await;
        assert_tells(the_event(), Level::DEBUG, &["limiter=ip", "would have refused"]);
    }
    let rule = Rule::per_ip("ip", Quota::per_minute(1)).observing();
    let limit = RateLimitLayer::new(memory(&ManualClock::new()), rule);
    send(&limit.layer(inner()), http::Request::builder()).await;
    assert_tells(the_event(), Level::ERROR, &["can't tell clients apart"]);
}
