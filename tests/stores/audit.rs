//! The contract of the audit: each verb notes its act, in the transaction of the change.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tower_warden::{
    Clock, Identity, ManualClock, OpaqueToken, Origin, Role, SharedClock, TokenHash, UserId,
    api_key::{ApiKey, ApiKeyId, ApiKeyStore, NewApiKey},
    audit::{Act, Actor, AuditEvent, AuditFilter, AuditLog, AuditTrail, Outcome},
    second_factor::{PendingLogin, PendingLoginStore, SealedSecret, SecondFactorStore},
    store::memory::MemoryStore,
    token::{NewFamily, RevokeReason, RotateRequest, TokenStore},
    user::{Email, LinkToken, NewUser, PasswordChange, PasswordHash, User, UserChange, UserStore},
};

/// All that belongs to accounts, and what was done to them.
trait Store:
    UserStore + TokenStore + ApiKeyStore + SecondFactorStore + PendingLoginStore + AuditLog
{
}
impl<S> Store for S where
    S: UserStore + TokenStore + ApiKeyStore + SecondFactorStore + PendingLoginStore + AuditLog
{
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs the contract over a wing, as `api_key_store_contract!` does.
macro_rules! audit_contract {
    ($(#[$attribute:meta])* $wing:ident, $store:expr) => {
        audit_contract! { @cases [$(#[$attribute])*] $wing, $store;
            accounts_tell_what_was_done_to_them
            sessions_tell_how_they_began_and_ended
            keys_and_second_factors_tell
            what_changes_nothing_is_no_event
            of_many_at_once_as_many_are_noted_as_happened
            who_and_from_where_goes_along
            what_clients_choose_stays_inert
            events_are_read_a_page_at_a_time_by_account
            old_events_are_forgotten_a_few_at_a_time
            sinks_hear_what_the_table_has
            refusals_are_noted_apart
        }
    };
    (@cases $attributes:tt $wing:ident, $store:expr; $($case:ident)*) => {
        mod $wing {
            use super::*;
            $(audit_contract! { @case $attributes $store; $case })*
        }
    };
    (@case [$(#[$attribute:meta])*] $store:expr; $case:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let heard = Heard::default();
            let store = $store.with_clock(clock()).with_audit(heard.trail().with_table());
            super::$case(Arc::new(store), heard).await;
        }
    };
}

audit_contract!(memory, MemoryStore::new());

#[cfg(feature = "sqlite")]
audit_contract!(
    sqlite,
    tower_warden::store::sqlite::SqliteStore::new(crate::sqlite::database().await)
);

#[cfg(feature = "postgres")]
audit_contract!(
    #[ignore = "needs PostgreSQL: run tests/run"]
    postgres,
    tower_warden::store::postgres::PostgresStore::new(crate::postgres::database().await)
);

/// What a sink heard.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<AuditEvent>>>);

impl Heard {
    pub(crate) fn trail(&self) -> AuditTrail {
        let heard = self.clone();
        AuditTrail::new()
            .with_sink(move |event: &AuditEvent| heard.0.lock().unwrap().push(event.clone()))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

async fn accounts_tell_what_was_done_to_them(store: Arc<impl Store>, _: Heard) {
    let token = link();
    let new = NewUser::new(email("ada@example.com"), hash("1"), now()).with_verification(token);
    let ada = store.create(new).await.unwrap();
    store.verify_email(&token.hash, now()).await.unwrap().unwrap();
    let reset = link();
    store.put_reset(&ada.id, reset, MINUTE).await.unwrap().unwrap();
    let set = store.reset_password(&reset.hash, &hash("2"), &clock()).await.unwrap().unwrap();
    let change = PasswordChange::new(&set.user, hash("3"));
    store.change_password(&change, &clock()).await.unwrap().unwrap();
    let moved = link();
    let other = email("lovelace@example.com");
    store.put_email_change(&ada.id, &other, moved, MINUTE).await.unwrap().unwrap();
    store.confirm_email_change(&moved.hash, &clock()).await.unwrap();
    let change = UserChange::new().with_role(Role::EDITOR).with_suspended(true);
    store.update(&ada.id, change).await.unwrap();
    store.update(&ada.id, UserChange::new().with_suspended(false)).await.unwrap();
    let mut change = UserChange::new();
    change.plan = Some(Some("paid".into()));
    store.update(&ada.id, change).await.unwrap();
    let mut change = UserChange::new();
    change.plan = Some(None);
    store.update(&ada.id, change).await.unwrap();
    let admin = NewUser::new(other, hash("4"), now());
    store.ensure_admin(&admin, &clock()).await.unwrap();
    store.ensure_admin(&admin, &clock()).await.unwrap();
    let next = NewUser::new(email("root@example.com"), hash("5"), now());
    let (root, _) = store.ensure_admin(&next, &clock()).await.unwrap();
    store.delete(&ada.id, Some(&root.id), &clock()).await.unwrap();

    assert_eq!(
        told(&*store, &ada.id).await,
        [
            "registered done",
            "address_verified done",
            "password_forgotten done",
            "password_reset done",
            "password_changed done",
            "email_change_asked done",
            "email_changed done",
            "role_changed done editor",
            "suspended done",
            "unsuspended done",
            "plan_changed done paid",
            "plan_changed done",
            "admin_ensured done promoted",
            "deleted done",
        ]
    );
    assert_eq!(told(&*store, &root.id).await, ["admin_ensured done created"]);
    let of_root = store.events(&AuditFilter::new(9).about(&root.id)).await.unwrap();
    assert_eq!((of_root.len(), of_root[0].act.as_str()), (2, "deleted"));
    assert_eq!(of_root[0].subject, Some(ada.id));
}

async fn sessions_tell_how_they_began_and_ended(store: Arc<impl Store>, _: Heard) {
    let ada = UserId::from("ada");
    let open = async |at_most| {
        let mut family = NewFamily::new(ada.clone(), random_hash(), now(), now() + HOUR);
        family.amr = vec!["pwd".into(), "otp".into()];
        family.at_most = at_most;
        let (id, token) = (family.id.clone(), family.token);
        store.open_family(family).await.unwrap();
        (id, token)
    };
    let (first, _) = open(None).await;
    let (second, token) = open(Some(1)).await;
    let successor = random_hash();
    for _ in 0..2 {
        store.rotate(RotateRequest::new(token, successor, HOUR, clock())).await.unwrap();
    }
    let (third, token) = open(None).await;
    store.revoke_family(&token, RevokeReason::Logout, &clock()).await.unwrap();
    let (fourth, _) = open(None).await;
    store.end_session(&ada, &fourth, &clock()).await.unwrap();
    let (fifth, _) = open(None).await;
    let reason = RevokeReason::LogoutAll;
    store.revoke_user(&ada, Some(&fifth), reason, &clock()).await.unwrap();
    store.revoke_user(&ada, None, reason, &clock()).await.unwrap();

    let on = |words: &str, id: &tower_warden::token::FamilyId| format!("{words} @{}", id.as_str());
    assert_eq!(
        told(&*store, &ada).await,
        [
            on("login done pwd otp", &first),
            on("session_ended done displaced", &first),
            on("login done pwd otp", &second),
            on("refresh_reused refused reused", &second),
            on("login done pwd otp", &third),
            on("logout done", &third),
            on("login done pwd otp", &fourth),
            on("session_ended done ended", &fourth),
            on("login done pwd otp", &fifth),
            on("logout_all done", &fifth),
            "logout_all done".to_owned(),
        ]
    );
}

async fn keys_and_second_factors_tell(store: Arc<impl Store>, _: Heard) {
    let ada = verified(&*store, "ada@example.com").await;
    let (one, two) = (key(&ada.id), key(&ada.id));
    store.create_key(one.clone(), 9).await.unwrap();
    store.create_key(two.clone(), 9).await.unwrap();
    store.revoke_key(&ada.id, &one.key.id, now()).await.unwrap().unwrap();
    store.revoke_all_keys(&ada.id, now()).await.unwrap();
    let (secret, code) = (SealedSecret::from(vec![7; 40]), random_hash());
    store.begin_totp(&ada.id, &secret).await.unwrap();
    store.confirm_totp(&ada.id, &secret, 1, &[code], now()).await.unwrap();
    let login = PendingLogin::new(random_hash(), ada.id.clone(), now() + MINUTE);
    store.open_login(login).await.unwrap();
    assert!(store.use_recovery_code(&ada.id, &code).await.unwrap());
    store.remove_totp(&ada.id).await.unwrap();
    store.begin_totp(&ada.id, &secret).await.unwrap();
    store.confirm_totp(&ada.id, &secret, 2, &[], now()).await.unwrap();
    let off = || UserChange::new().with_second_factor_off();
    store.update(&ada.id, off()).await.unwrap();
    store.update(&ada.id, off()).await.unwrap();

    let on = |words: &str, key: &NewApiKey| format!("{words} @{}", key.key.id);
    assert_eq!(
        told(&*store, &ada.id).await,
        [
            "registered done".to_owned(),
            on("key_created done", &one),
            on("key_created done", &two),
            on("key_revoked done", &one),
            "keys_revoked done 1".to_owned(),
            "second_factor_on done".to_owned(),
            "second_step done".to_owned(),
            "recovery_code_used done".to_owned(),
            "second_factor_off done".to_owned(),
            "second_factor_on done".to_owned(),
            "second_factor_off done".to_owned(),
        ]
    );
}

async fn what_changes_nothing_is_no_event(store: Arc<impl Store>, heard: Heard) {
    let ada = verified(&*store, "ada@example.com").await;
    let before = heard.count();
    let nobody = UserId::from("nobody");
    let again = NewUser::new(ada.email.clone(), hash("2"), now());
    store.create(again).await.unwrap_err();
    store.verify_email(&random_hash(), now()).await.unwrap();
    store.reset_password(&random_hash(), &hash("2"), &clock()).await.unwrap();
    store.put_reset(&nobody, link(), MINUTE).await.unwrap();
    store.put_email_change(&ada.id, &ada.email, link(), MINUTE).await.unwrap_err();
    store.confirm_email_change(&random_hash(), &clock()).await.unwrap_err();
    store.update(&nobody, UserChange::new().with_suspended(true)).await.unwrap_err();
    store.update(&ada.id, UserChange::new().with_role(Role::VIEWER)).await.unwrap();
    store.update(&ada.id, UserChange::new().with_suspended(false)).await.unwrap();
    store.delete(&ada.id, Some(&nobody), &clock()).await.unwrap_err();
    store.revoke_family(&random_hash(), RevokeReason::Logout, &clock()).await.unwrap();
    let request = RotateRequest::new(random_hash(), random_hash(), HOUR, clock());
    store.rotate(request).await.unwrap();
    store.revoke_key(&ada.id, &ApiKeyId::random(), now()).await.unwrap();
    store.revoke_all_keys(&ada.id, now()).await.unwrap();
    store.create_key(key(&ada.id), 0).await.unwrap_err();
    store.use_recovery_code(&ada.id, &random_hash()).await.unwrap();
    store.remove_totp(&ada.id).await.unwrap();
    store.open_login(PendingLogin::new(random_hash(), nobody, now())).await.unwrap();
    assert_eq!(heard.count(), before);
    assert_eq!(told(&*store, &ada.id).await, ["registered done"]);
}

async fn of_many_at_once_as_many_are_noted_as_happened(store: Arc<impl Store>, heard: Heard) {
    let registrations = at_once(|_| {
        let (store, new) = (store.clone(), NewUser::new(email("a@b.example"), hash("1"), now()));
        async move { store.create(new.with_id(UserId::random())).await.is_ok() }
    });
    assert_eq!(registrations.await, 1);
    let (ada, token) = (verified(&*store, "ada@example.com").await, random_hash());
    let family = NewFamily::new(ada.id.clone(), token, now(), now() + HOUR);
    store.open_family(family).await.unwrap();
    let logouts = at_once(|_| {
        let store = store.clone();
        async move { store.revoke_family(&token, RevokeReason::Logout, &clock()).await.unwrap() }
    });
    assert_eq!(logouts.await, 1);
    let reset = link();
    store.put_reset(&ada.id, reset, MINUTE).await.unwrap().unwrap();
    let resets = at_once(|_| {
        let store = store.clone();
        async move { store.reset_password(&reset.hash, &hash("2"), &clock()).await.unwrap().is_some() }
    });
    assert_eq!(resets.await, 1);
    let keys = at_once(|_| {
        let (store, key) = (store.clone(), key(&ada.id));
        async move { store.create_key(key, 5).await.is_ok() }
    });
    assert_eq!(keys.await, 5);

    let events = store.events(&AuditFilter::new(100)).await.unwrap();
    let count = |act: Act| events.iter().filter(|event| event.act == act).count();
    assert_eq!(count(Act::REGISTERED), 2);
    assert_eq!(count(Act::LOGOUT), 1);
    assert_eq!(count(Act::PASSWORD_RESET), 1);
    assert_eq!(count(Act::KEY_CREATED), 5);
    assert_eq!(heard.count(), events.len());
}

async fn who_and_from_where_goes_along(store: Arc<impl Store>, _: Heard) {
    let ada = verified(&*store, "ada@example.com").await;
    let admin = Identity::new(UserId::from("root"), Role::ADMIN).with_session_id("5e551011");
    let here = Origin::new().with_ip([203, 0, 113, 9].into()).with_user_agent("curl/8");
    let here = here.with_request_id("00c0ffee");
    let strangers = here.clone().scope(store.put_reset(&ada.id, link(), MINUTE));
    strangers.await.unwrap().unwrap();
    let suspension = store.update(&ada.id, UserChange::new().with_suspended(true));
    here.clone().by(admin).scope(suspension).await.unwrap();
    let key = Identity::new(UserId::from("root"), Role::VIEWER).with_claim("api_key", "k-1");
    here.by(key).scope(store.delete(&ada.id, None, &clock())).await.unwrap();

    let events = store.events(&AuditFilter::new(9)).await.unwrap();
    let root = UserId::from("root");
    let key = Actor::Key { id: "k-1".into(), owner: root.clone(), role: Role::VIEWER };
    let user = Actor::User { id: root, role: Role::ADMIN };
    assert_eq!(
        events.iter().map(|event| event.actor.clone()).collect::<Vec<_>>(),
        [key, user, Actor::Nobody, Actor::Program]
    );
    for event in &events[..3] {
        assert_eq!(event.ip.unwrap().to_string(), "203.0.113.9");
        assert_eq!(event.user_agent.as_deref(), Some("curl/8"));
        assert_eq!(event.request_id.as_deref(), Some("00c0ffee"));
        assert_eq!(event.subject.as_ref(), Some(&ada.id));
        assert_eq!(event.at, now());
    }
    assert_eq!(events[1].session.as_deref(), Some("5e551011"));
    assert_eq!((events[3].ip, events[3].user_agent.as_deref()), (None, None));

    // Without a request the verb itself may say who acts.
    let admin = NewUser::new(email("root@example.com"), hash("1"), now());
    let admin = store.create(admin.with_role(Role::ADMIN)).await.unwrap();
    let bob = verified(&*store, "bob@example.com").await;
    let change = UserChange::new().with_role(Role::EDITOR).by(&admin.id);
    store.update(&bob.id, change).await.unwrap();
    store.delete(&bob.id, Some(&admin.id), &clock()).await.unwrap();
    let events = store.events(&AuditFilter::new(2)).await.unwrap();
    assert!(events.iter().all(|event| event.actor.user() == Some(&admin.id)), "{events:?}");
}

async fn what_clients_choose_stays_inert(store: Arc<impl Store>, _: Heard) {
    let ada = verified(&*store, "ada@example.com").await;
    let agent = format!(
        "x\r\nact=deleted\0\u{1b}[2K\u{202e}'; DROP TABLE audit_events; --{}",
        "y".repeat(999)
    );
    let here = Origin::new().with_user_agent(&agent).with_request_id("1\n2");
    here.scope(store.put_reset(&ada.id, link(), MINUTE)).await.unwrap().unwrap();
    let event = store.events(&AuditFilter::new(1)).await.unwrap().remove(0);
    let kept = event.user_agent.unwrap();
    assert!(kept.starts_with(r"x\r\nact=deleted\u{0}\u{1b}[2K\u{202e}'; DROP TABLE"), "{kept}");
    assert!(kept.len() <= 256 && kept.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
    assert_eq!(event.request_id.as_deref(), Some(r"1\n2"));
}

async fn events_are_read_a_page_at_a_time_by_account(store: Arc<impl Store>, _: Heard) {
    let ada = verified(&*store, "ada@example.com").await;
    let bob = verified(&*store, "bob@example.com").await;
    // Ada does something to Bob.
    let by_ada = Origin::new().by(Identity::new(ada.id.clone(), Role::ADMIN));
    let change = UserChange::new().with_role(Role::EDITOR);
    by_ada.scope(store.update(&bob.id, change)).await.unwrap();
    for _ in 0..3 {
        store.revoke_user(&ada.id, None, RevokeReason::LogoutAll, &clock()).await.unwrap();
    }
    let all = store.events(&AuditFilter::new(100)).await.unwrap();
    assert_eq!(all.len(), 6);
    assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id));
    let mut pages = Vec::new();
    let mut filter = AuditFilter::new(2).about(&ada.id);
    loop {
        let page = store.events(&filter).await.unwrap();
        let Some(last) = page.last() else { break };
        filter = filter.after(last);
        pages.extend(page);
    }
    let about_ada: Vec<_> = all
        .iter()
        .filter(|event| {
            event.subject.as_ref() == Some(&ada.id) || event.actor.user() == Some(&ada.id)
        })
        .cloned()
        .collect();
    assert_eq!(about_ada.len(), 5);
    assert_eq!(pages, about_ada);
    assert_eq!(store.events(&AuditFilter::new(9).about(&bob.id)).await.unwrap().len(), 2);
}

async fn old_events_are_forgotten_a_few_at_a_time(store: Arc<impl Store>, _: Heard) {
    for n in 0..5_u8 {
        let mut new = NewUser::new(email(&format!("a{n}@example.com")), hash("1"), now());
        new.created_at = now() + MINUTE * n.into();
        store.create(new).await.unwrap();
    }
    let before = now() + MINUTE * 3;
    assert_eq!(store.delete_events(before, 2).await.unwrap(), 2);
    assert_eq!(store.delete_events(before, 2).await.unwrap(), 1);
    assert_eq!(store.delete_events(before, 2).await.unwrap(), 0);
    let left = store.events(&AuditFilter::new(9)).await.unwrap();
    assert!(left.len() == 2 && left.iter().all(|event| event.at >= before));
}

async fn sinks_hear_what_the_table_has(store: Arc<impl Store>, heard: Heard) {
    let ada = verified(&*store, "ada@example.com").await;
    store.delete(&ada.id, None, &clock()).await.unwrap();
    let mut kept = store.events(&AuditFilter::new(9)).await.unwrap();
    kept.reverse();
    kept.iter_mut().for_each(|event| event.id = None);
    assert_eq!(*heard.0.lock().unwrap(), kept);
}

async fn refusals_are_noted_apart(store: Arc<impl Store>, heard: Heard) {
    let ada = UserId::from("ada");
    let trail = UserStore::audit_trail(&*store);
    for _ in 0..250 {
        let event = AuditEvent::new(Act::LOGIN, now()).refused("invalid_credentials");
        trail.note(event.about(&ada));
    }
    trail.flush(Duration::from_secs(20)).await;
    let events = store.events(&AuditFilter::new(1000).about(&ada)).await.unwrap();
    assert_eq!((events.len(), heard.count()), (250, 250));
    assert!(events.iter().all(|event| event.outcome == Outcome::Refused));
}

/// No change without its event, and no event without its change, whatever fails: what a database
/// can be made to do. `refuse` makes it refuse events, `accept` ends that; `fail` makes changes of users
/// fail after their events were written.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) async fn changes_and_events_stand_and_fall_together<S, F>(
    store: S,
    heard: Heard,
    [refuse, accept, fail]: [&'static str; 3],
    run: impl Fn(&'static str) -> F,
) where
    S: UserStore + TokenStore + AuditLog,
    F: Future<Output = ()>,
{
    let new = |address| NewUser::new(email(address), hash("1"), now());
    let ada = store.create(new("ada@example.com")).await.unwrap();
    let token = random_hash();
    let family = || NewFamily::new(ada.id.clone(), token, now(), now() + HOUR);
    run(refuse).await;
    store.create(new("bob@example.com")).await.unwrap_err();
    store.delete(&ada.id, None, &clock()).await.unwrap_err();
    store.open_family(family()).await.unwrap_err();
    run(accept).await;
    assert!(store.find_by_email(&email("bob@example.com")).await.unwrap().is_none());
    assert!(store.find(&ada.id).await.unwrap().is_some());
    assert!(store.find_token(&token).await.unwrap().is_none());
    store.open_family(family()).await.unwrap();

    run(fail).await;
    store.update(&ada.id, UserChange::new().with_role(Role::EDITOR)).await.unwrap_err();
    store.create(new("bob@example.com")).await.unwrap_err();
    let events = store.events(&AuditFilter::new(9)).await.unwrap();
    let acts: Vec<_> = events.iter().map(|event| event.act.as_str()).collect();
    assert_eq!(acts, ["login", "registered"]);
    assert_eq!(heard.count(), 2, "sinks hear of what is committed");
}

/// What was done to an account, the first act first: act, outcome, detail, `@` object.
async fn told(store: &impl Store, user: &UserId) -> Vec<String> {
    let events = store.events(&AuditFilter::new(100).about(user)).await.unwrap();
    let tell = |event: AuditEvent| {
        let detail = event.detail.map(|detail| format!(" {detail}")).unwrap_or_default();
        let object = event.object.map(|object| format!(" @{object}")).unwrap_or_default();
        format!("{} {}{detail}{object}", event.act, event.outcome)
    };
    // What they did to others is told, too.
    let to_them = events.into_iter().filter(|event| event.subject.as_ref() == Some(user));
    to_them.rev().map(tell).collect()
}

/// How many of sixteen were done.
async fn at_once<F>(mut work: impl FnMut(usize) -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    let tasks: Vec<_> = (0..16).map(|n| tokio::spawn(work(n))).collect();
    let mut done = 0;
    for task in tasks {
        done += usize::from(task.await.unwrap());
    }
    done
}

async fn verified(store: &impl Store, address: &str) -> User {
    store.create(NewUser::new(email(address), hash("1"), now())).await.unwrap()
}

fn key(owner: &UserId) -> NewApiKey {
    let (name, prefix) = ("import".to_owned(), "wdn_abcdefgh".to_owned());
    let key = ApiKey::new(ApiKeyId::random(), owner.clone(), name, prefix, Role::VIEWER, now());
    NewApiKey::new(key, random_hash())
}

fn link() -> LinkToken {
    LinkToken::new(random_hash(), now(), HOUR)
}

fn random_hash() -> TokenHash {
    OpaqueToken::<32>::random().unwrap().hash()
}

fn hash(text: &str) -> PasswordHash {
    PasswordHash::from(text.to_owned())
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

fn now() -> SystemTime {
    ManualClock::new().now()
}

pub(crate) fn clock() -> SharedClock {
    Arc::new(ManualClock::new())
}
