//! The contract of the verbs by which accounts change, and what they end: over what keeps users,
//! sessions and keys together.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::Barrier;
use tower_warden::{
    Clock, ManualClock, OpaqueToken, Role, SharedClock, TokenHash, UserId,
    store::memory::MemoryStore,
    token::{NewFamily, Opening, RotateRequest, Rotation, TokenStore},
    user::{
        Email, EmailChangeError, EnsuredAdmin, LinkToken, NewUser, PasswordChange, PasswordHash,
        UpdateUserError, User, UserChange, UserCursor, UserPage, UserStore,
    },
};

/// What users and their sessions are kept in.
trait Store: UserStore + TokenStore {}
impl<S: UserStore + TokenStore> Store for S {}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs the contract over a wing, as `api_key_store_contract!` does.
macro_rules! account_contract {
    ($(#[$attribute:meta])* $wing:ident, $store:expr) => {
        account_contract! { @cases [$(#[$attribute])*] $wing, $store;
            reset_sets_the_password_once_and_ends_everything
            reset_waits_for_its_minute_also_when_it_was_used
            verification_waits_for_its_minute_also_when_it_has_ended
            change_keeps_one_session_and_needs_the_epoch
            of_many_resets_by_one_token_one_wins
            reset_races_logins_and_refreshes_and_no_session_is_left
            suspension_races_logins_and_no_session_is_left
            suspended_user_gets_no_link_and_loses_those_that_are_out
            address_is_changed_by_its_token_and_freed
            of_many_who_want_one_address_one_gets_it
            address_of_an_account_whose_link_ended_is_free
            deletion_ends_sessions_and_frees_the_address
            deletion_by_the_user_needs_the_epoch
            of_two_admins_who_end_one_another_one_stays
            who_is_no_active_admin_changes_nobody
            admin_is_ensured_by_what_is_there
            users_are_listed_the_newest_first
        }
    };
    (@cases $attributes:tt $wing:ident, $store:expr; $($case:ident)*) => {
        mod $wing {
            use super::*;
            $(account_contract! { @case $attributes $store; $case })*
        }
    };
    (@case [$(#[$attribute:meta])*] $store:expr; $case:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            super::$case(Arc::new($store.with_clock(clock()))).await;
        }
    };
}

account_contract!(memory, MemoryStore::new());

#[cfg(feature = "sqlite")]
account_contract!(
    sqlite,
    tower_warden::store::sqlite::SqliteStore::new(crate::sqlite::database().await)
);

#[cfg(feature = "postgres")]
account_contract!(
    #[ignore = "needs PostgreSQL: run tests/run"]
    postgres,
    tower_warden::store::postgres::PostgresStore::new(crate::postgres::database().await)
);

async fn reset_sets_the_password_once_and_ends_everything(store: Arc<impl Store>) {
    let ada = unverified(&*store, "ada@example.com").await;
    let session = open(&*store, &ada).await.unwrap();
    let token = link(now());
    assert_eq!(store.put_reset(&ada.id, token, MINUTE).await.unwrap().unwrap().id, ada.id);
    assert_eq!(store.find_reset(&token.hash, now()).await.unwrap(), Some(ada.id.clone()));
    assert_eq!(store.find_verification(&token.hash, now()).await.unwrap(), None);

    let set = store.reset_password(&token.hash, &hash("new"), &clock()).await.unwrap().unwrap();
    assert!(set.user.email_verified && set.user.epoch == ada.epoch + 1);
    assert_eq!(store.find_with_hash(&ada.id).await.unwrap(), Some((set.user, hash("new"))));
    assert!(store.reset_password(&token.hash, &hash("x"), &clock()).await.unwrap().is_none());
    assert_eq!(store.find_reset(&token.hash, now()).await.unwrap(), None);
    assert!(!lives(&*store, session).await);
    // A login that began before opens no session.
    assert_eq!(open(&*store, &ada).await, None);
}

async fn reset_waits_for_its_minute_also_when_it_was_used(store: Arc<impl Store>) {
    let ada = verified(&*store, "ada@example.com", Role::VIEWER).await;
    let token = link(now());
    store.put_reset(&ada.id, token, MINUTE).await.unwrap().unwrap();
    store.reset_password(&token.hash, &hash("new"), &clock()).await.unwrap().unwrap();
    store.delete_expired_links(now() + Duration::from_micros(1), 9).await.unwrap();
    let early = link(now() + MINUTE - Duration::from_micros(1));
    assert!(store.put_reset(&ada.id, early, MINUTE).await.unwrap().is_none());
    assert!(store.put_reset(&ada.id, link(now() + MINUTE), MINUTE).await.unwrap().is_some());
}

async fn verification_waits_for_its_minute_also_when_it_has_ended(store: Arc<impl Store>) {
    let short = LinkToken::new(random_hash(), now(), Duration::from_secs(2));
    let ada = NewUser::new(email("ada@example.com"), hash("first"), now()).with_verification(short);
    let ada = store.create(ada).await.unwrap();
    store.delete_expired_links(now() + Duration::from_secs(3), 9).await.unwrap();
    let early = link(now() + MINUTE - Duration::from_micros(1));
    assert!(store.renew_verification(&ada.email, early, MINUTE).await.unwrap().is_none());
    let later = link(now() + MINUTE);
    assert!(store.renew_verification(&ada.email, later, MINUTE).await.unwrap().is_some());
}

async fn change_keeps_one_session_and_needs_the_epoch(store: Arc<impl Store>) {
    let ada = verified(&*store, "ada@example.com", Role::VIEWER).await;
    let (other, kept) = (open(&*store, &ada).await.unwrap(), family(&ada));
    let (sid, token) = (kept.id.clone(), kept.token);
    store.open_family(kept).await.unwrap();
    let (reset, change_of_address) = (link(now()), link(now()));
    store.put_reset(&ada.id, reset, MINUTE).await.unwrap().unwrap();
    let wanted = email("eve@example.com");
    store.put_email_change(&ada.id, &wanted, change_of_address, MINUTE).await.unwrap().unwrap();

    let change = PasswordChange::new(&ada, hash("new")).keeping(sid.as_str());
    assert!(store.change_password(&change, &clock()).await.unwrap().is_some());
    assert!(store.change_password(&change, &clock()).await.unwrap().is_none(), "another epoch");
    assert!(!lives(&*store, other).await);
    assert!(lives(&*store, token).await);
    assert_eq!(store.find_reset(&reset.hash, now()).await.unwrap(), None);
    let confirmed = store.confirm_email_change(&change_of_address.hash, &clock()).await;
    assert!(confirmed.is_err(), "whoever asked for it may have known the old password");
}

async fn of_many_resets_by_one_token_one_wins(store: Arc<impl Store>) {
    let ada = verified(&*store, "ada@example.com", Role::VIEWER).await;
    let token = link(now());
    store.put_reset(&ada.id, token, MINUTE).await.unwrap();
    let set = at_once(8, |n| {
        let store = Arc::clone(&store);
        async move {
            let new = hash(&n.to_string());
            store.reset_password(&token.hash, &new, &clock()).await.unwrap().is_some()
        }
    });
    assert_eq!(set.await.into_iter().filter(|set| *set).count(), 1);
}

async fn reset_races_logins_and_refreshes_and_no_session_is_left(store: Arc<impl Store>) {
    for round in 0..5 {
        let ada = verified(&*store, &format!("ada{round}@example.com"), Role::VIEWER).await;
        let old = open(&*store, &ada).await.unwrap();
        let token = link(now());
        store.put_reset(&ada.id, token, MINUTE).await.unwrap();
        let left = at_once(8, |n| {
            let (store, ada) = (Arc::clone(&store), ada.clone());
            async move {
                match n {
                    0 => {
                        let set = store.reset_password(&token.hash, &hash("new"), &clock()).await;
                        set.unwrap().map(|_| token.hash)
                    }
                    1 => {
                        let next = random_hash();
                        let request = RotateRequest::new(old, next, HOUR, clock());
                        store.rotate(request).await.unwrap();
                        Some(next)
                    }
                    _ => open(&*store, &ada).await,
                }
            }
        });
        for token in left.await.into_iter().flatten().chain([old]) {
            assert!(!lives(&*store, token).await, "round {round}");
        }
    }
}

async fn suspension_races_logins_and_no_session_is_left(store: Arc<impl Store>) {
    for round in 0..5 {
        let ada = verified(&*store, &format!("ada{round}@example.com"), Role::VIEWER).await;
        let opened = at_once(6, |n| {
            let (store, ada) = (Arc::clone(&store), ada.clone());
            async move {
                if n == 0 {
                    let change = UserChange::new().with_suspended(true);
                    store.update(&ada.id, change).await.unwrap();
                    return None;
                }
                open(&*store, &ada).await
            }
        });
        for token in opened.await.into_iter().flatten() {
            assert!(!lives(&*store, token).await, "round {round}");
        }
    }
}

async fn suspended_user_gets_no_link_and_loses_those_that_are_out(store: Arc<impl Store>) {
    let ada = verified(&*store, "ada@example.com", Role::VIEWER).await;
    let (reset, change) = (link(now()), link(now()));
    store.put_reset(&ada.id, reset, MINUTE).await.unwrap().unwrap();
    let wanted = email("new@example.com");
    store.put_email_change(&ada.id, &wanted, change, MINUTE).await.unwrap().unwrap();
    let suspended = store.update(&ada.id, UserChange::new().with_suspended(true)).await.unwrap();
    assert!(suspended.suspended);
    assert_eq!(open(&*store, &suspended).await, None);

    let back = store.update(&ada.id, UserChange::new().with_suspended(false)).await.unwrap();
    assert_eq!((back.suspended, back.epoch), (false, ada.epoch + 1));
    assert_eq!(store.find_reset(&reset.hash, now()).await.unwrap(), None);
    let confirmed = store.confirm_email_change(&change.hash, &clock()).await;
    assert!(matches!(confirmed, Err(EmailChangeError::InvalidToken)), "{confirmed:?}");
}

async fn address_is_changed_by_its_token_and_freed(store: Arc<impl Store>) {
    let ada = verified(&*store, "ada@example.com", Role::VIEWER).await;
    let session = open(&*store, &ada).await.unwrap();
    let (wanted, token) = (email("new@example.com"), link(now()));
    let own = store.put_email_change(&ada.id, &ada.email, token, MINUTE).await;
    assert!(matches!(own, Err(EmailChangeError::OwnEmail)), "{own:?}");
    store.put_email_change(&ada.id, &wanted, token, MINUTE).await.unwrap().unwrap();
    let soon = store.put_email_change(&ada.id, &email("x@example.com"), link(now()), MINUTE).await;
    assert_eq!(soon.unwrap(), None);

    let changed = store.confirm_email_change(&token.hash, &clock()).await.unwrap();
    assert_eq!((changed.email, changed.epoch), (wanted, ada.epoch));
    let again = store.confirm_email_change(&token.hash, &clock()).await;
    assert!(matches!(again, Err(EmailChangeError::InvalidToken)), "{again:?}");
    assert!(lives(&*store, session).await);
    verified(&*store, "ada@example.com", Role::VIEWER).await;
}

async fn of_many_who_want_one_address_one_gets_it(store: Arc<impl Store>) {
    let wanted = email("new@example.com");
    let mut tokens = vec![];
    for n in 0..6 {
        let user = verified(&*store, &format!("u{n}@example.com"), Role::VIEWER).await;
        let token = link(now());
        store.put_email_change(&user.id, &wanted, token, MINUTE).await.unwrap().unwrap();
        tokens.push(token.hash);
    }
    let done = at_once(6, |n| {
        let (store, token) = (Arc::clone(&store), tokens[n]);
        async move { store.confirm_email_change(&token, &clock()).await }
    });
    let done = done.await;
    let taken = |done: &&Result<User, _>| matches!(done, Err(EmailChangeError::EmailTaken));
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
    assert_eq!(done.iter().filter(taken).count(), 5, "{done:?}");
    // It used the links up.
    for token in tokens {
        let again = store.confirm_email_change(&token, &clock()).await;
        assert!(matches!(again, Err(EmailChangeError::InvalidToken)), "{again:?}");
    }
}

async fn address_of_an_account_whose_link_ended_is_free(store: Arc<impl Store>) {
    let eve = unverified(&*store, "ada@example.com").await;
    let ada = email("ada@example.com");
    let end = now() + HOUR;
    let before = end - Duration::from_micros(1);
    assert_eq!(store.find_holder(&ada, before).await.unwrap(), Some(eve.clone()));
    assert_eq!(store.find_holder(&ada, end).await.unwrap(), None);
    assert!(store.create(NewUser::new(ada.clone(), hash("x"), before)).await.is_err());
    let new = store.create(NewUser::new(ada.clone(), hash("x"), end)).await.unwrap();
    assert_eq!(store.find(&eve.id).await.unwrap(), None);
    assert_eq!(store.find_holder(&ada, end).await.unwrap(), Some(new));
}

async fn deletion_ends_sessions_and_frees_the_address(store: Arc<impl Store>) {
    let ada = verified(&*store, "ada@example.com", Role::VIEWER).await;
    let session = open(&*store, &ada).await.unwrap();
    store.put_reset(&ada.id, link(now()), MINUTE).await.unwrap().unwrap();
    assert_eq!(store.delete(&ada.id, None, &clock()).await.unwrap(), ada);
    let again = store.delete(&ada.id, None, &clock()).await;
    assert!(matches!(again, Err(UpdateUserError::NotFound)), "{again:?}");
    assert!(!lives(&*store, session).await);
    assert_eq!(open(&*store, &ada).await, None);
    verified(&*store, "ada@example.com", Role::VIEWER).await;
}

async fn deletion_by_the_user_needs_the_epoch(store: Arc<impl Store>) {
    let ada = verified(&*store, "ada@example.com", Role::VIEWER).await;
    let token = link(now());
    store.put_reset(&ada.id, token, MINUTE).await.unwrap().unwrap();
    store.reset_password(&token.hash, &hash("new"), &clock()).await.unwrap().unwrap();
    let deleted = store.delete_in_epoch(&ada.id, ada.epoch, &clock()).await;
    assert!(matches!(deleted, Err(UpdateUserError::Outdated)), "{deleted:?}");
    let deleted = store.delete_in_epoch(&ada.id, ada.epoch + 1, &clock()).await.unwrap();
    assert_eq!(deleted.id, ada.id);
    assert!(UserStore::find(&*store, &ada.id).await.unwrap().is_none());
}

async fn of_two_admins_who_end_one_another_one_stays(store: Arc<impl Store>) {
    let mut stayed = verified(&*store, "a@example.com", Role::ADMIN).await;
    for round in 0..6 {
        let other = verified(&*store, &format!("b{round}@example.com"), Role::ADMIN).await;
        let done = at_once(2, |n| {
            let store = Arc::clone(&store);
            let (by, whom) = (stayed.clone(), other.clone());
            let (by, whom) = if n == 0 { (by, whom) } else { (whom, by) };
            async move {
                let change = UserChange::new().by(&by.id);
                let done = match (round + n) % 3 {
                    0 => store.update(&whom.id, change.with_role(Role::VIEWER)).await,
                    1 => store.update(&whom.id, change.with_suspended(true)).await,
                    _ => store.delete(&whom.id, Some(&by.id), &clock()).await,
                };
                done.map(|_| by)
            }
        });
        let mut done = done.await;
        done.sort_by_key(Result::is_err);
        assert!(matches!(done[..], [Ok(_), Err(UpdateUserError::LastAdmin)]), "{done:?}");
        stayed = done.remove(0).unwrap();
    }
}

async fn who_is_no_active_admin_changes_nobody(store: Arc<impl Store>) {
    let root = verified(&*store, "root@example.com", Role::ADMIN).await;
    let admin = verified(&*store, "admin@example.com", Role::ADMIN).await;
    store.update(&admin.id, UserChange::new().with_role(Role::VIEWER)).await.unwrap();
    let back = UserChange::new().with_role(Role::ADMIN).by(&admin.id);
    let refused = store.update(&admin.id, back).await;
    assert!(matches!(refused, Err(UpdateUserError::NotAllowed)), "{refused:?}");
    assert_eq!(store.find(&admin.id).await.unwrap().unwrap().role, Role::VIEWER);
    let back = UserChange::new().with_role(Role::ADMIN).by(&root.id);
    assert_eq!(store.update(&admin.id, back).await.unwrap().role, Role::ADMIN);
}

async fn admin_is_ensured_by_what_is_there(store: Arc<impl Store>) {
    let admin = |address: &str| NewUser::new(email(address), hash("admin"), now());
    let ensure = async |address: &str| store.ensure_admin(&admin(address), &clock()).await.unwrap();
    let (created, how) = ensure("root@example.com").await;
    assert_eq!((how, created.is_active_admin()), (EnsuredAdmin::Created, true));
    assert_eq!(ensure("root@example.com").await, (created, EnsuredAdmin::Unchanged));

    let ada = verified(&*store, "ada@example.com", Role::VIEWER).await;
    let (promoted, how) = ensure("ada@example.com").await;
    assert_eq!((how, promoted.is_active_admin()), (EnsuredAdmin::Promoted, true));
    assert_eq!(store.find_with_hash(&ada.id).await.unwrap().unwrap().1, hash("first"));

    let eve = unverified(&*store, "eve@example.com").await;
    let session = open(&*store, &eve).await.unwrap();
    let (taken, how) = ensure("eve@example.com").await;
    assert_eq!((how, taken.is_active_admin()), (EnsuredAdmin::TakenOver, true));
    assert_eq!(taken.id, eve.id);
    assert_eq!(store.find_with_hash(&eve.id).await.unwrap().unwrap().1, hash("admin"));
    assert!(!lives(&*store, session).await);

    let bob = verified(&*store, "bob@example.com", Role::VIEWER).await;
    store.update(&bob.id, UserChange::new().with_suspended(true)).await.unwrap();
    let (bob, how) = ensure("bob@example.com").await;
    assert_eq!((how, bob.role), (EnsuredAdmin::Suspended, Role::VIEWER));

    let ensured = at_once(4, |_| {
        let (store, admin) = (Arc::clone(&store), admin("new@example.com"));
        async move { store.ensure_admin(&admin, &clock()).await.unwrap().1 }
    });
    let ensured = ensured.await;
    assert_eq!(ensured.iter().filter(|how| **how == EnsuredAdmin::Created).count(), 1);
}

async fn users_are_listed_the_newest_first(store: Arc<impl Store>) {
    for n in 0..5_u64 {
        let made = now() + MINUTE * u32::try_from(n / 2).unwrap();
        store
            .create(NewUser::new(email(&format!("u{n}@x.example")), hash("x"), made))
            .await
            .unwrap();
    }
    let all = store.list(&UserPage::new(100)).await.unwrap();
    let key = |user: &User| (user.created_at, user.id.to_string());
    assert!(all.windows(2).all(|pair| key(&pair[0]) > key(&pair[1])), "{all:?}");
    let (mut page, mut seen) = (UserPage::new(2), vec![]);
    loop {
        let users = store.list(&page).await.unwrap();
        let Some(last) = users.last() else { break };
        page = UserPage::new(2).after(UserCursor::from(last));
        seen.extend(users);
    }
    assert_eq!((seen.len(), seen), (5, all));
}

/// So many of them at the same time.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    work: impl Fn(usize) -> F,
) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|n| {
            let (barrier, work) = (Arc::clone(&barrier), work(n));
            tokio::spawn(async move {
                barrier.wait().await;
                work.await
            })
        })
        .collect();
    let mut done = vec![];
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

/// Whether a session goes on that has this token.
async fn lives(store: &impl Store, token: TokenHash) -> bool {
    let request = RotateRequest::new(token, random_hash(), HOUR, clock());
    matches!(store.rotate(request).await.unwrap(), Rotation::Rotated { .. })
}

/// A session of someone who logged in as this user was then.
async fn open(store: &impl Store, user: &User) -> Option<TokenHash> {
    let family = family(user);
    let token = family.token;
    let opened = store.open_family(family).await.unwrap();
    matches!(opened, Opening::Opened { .. }).then_some(token)
}

fn family(user: &User) -> NewFamily {
    let mut family = NewFamily::new(user.id.clone(), random_hash(), now(), now() + HOUR);
    family.epoch = Some(user.epoch);
    family
}

async fn verified(store: &impl Store, address: &str, role: Role) -> User {
    let new = NewUser::new(email(address), hash("first"), now()).with_role(role);
    store.create(new.with_id(UserId::random())).await.unwrap()
}

/// Whose link ends in an hour.
async fn unverified(store: &impl Store, address: &str) -> User {
    let new = NewUser::new(email(address), hash("first"), now());
    store.create(new.with_verification(link(now()))).await.unwrap()
}

fn link(created_at: SystemTime) -> LinkToken {
    LinkToken::new(random_hash(), created_at, HOUR)
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

fn clock() -> SharedClock {
    Arc::new(ManualClock::new())
}
