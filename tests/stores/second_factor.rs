//! The contracts of [`SecondFactorStore`] and [`PendingLoginStore`].

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tower_warden::{
    Clock, ManualClock, OpaqueToken, Role, SharedClock, TokenHash, UserId,
    second_factor::{
        PendingLogin, PendingLoginStore, SealedSecret, SecondFactorStore, StoredTotp, TotpBegun,
    },
    store::memory::MemoryStore,
    user::{Email, NewUser, PasswordHash, UpdateUserError, UserChange, UserStore},
};

/// What second factors and their users are kept in.
trait Store: SecondFactorStore + PendingLoginStore + UserStore {}
impl<S: SecondFactorStore + PendingLoginStore + UserStore> Store for S {}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Runs the contract over a wing: `second_factor_contract!(wing, an expression that makes an empty
/// store)`. The expression may await. Attributes before the name go to every test.
macro_rules! second_factor_contract {
    ($(#[$attribute:meta])* $wing:ident, $store:expr) => {
        second_factor_contract! { @cases [$(#[$attribute])*] $wing, $store;
            secret_is_pending_until_it_is_confirmed
            only_the_pending_secret_is_confirmed_and_once
            of_many_confirmations_at_once_one_wins
            what_is_on_is_not_begun_again
            nobody_begins
            step_is_used_once_and_all_before_it_too
            of_many_uses_of_a_step_at_once_one_wins
            recovery_code_is_used_once_by_its_user
            of_many_uses_of_a_recovery_code_at_once_one_wins
            secret_is_replaced_only_if_the_old_one_stands
            removed_factor_is_gone_with_its_codes
            login_waits_until_it_ends
            login_is_finished_once
            tries_are_counted_and_given_back
            of_many_tries_at_once_no_more_are_taken_than_may_be
            login_of_nobody_is_not_opened
            login_of_another_epoch_is_not_opened
            no_login_survives_a_suspension_that_it_races
            deletion_takes_the_factor_and_logins_along
            change_of_a_user_takes_it_off_with_the_rest_or_not_at_all
            expired_logins_are_forgotten_a_few_at_a_time
        }
    };
    (@cases $attributes:tt $wing:ident, $store:expr; $($case:ident)*) => {
        mod $wing {
            use super::*;
            $(second_factor_contract! { @case $attributes $store; $case })*
        }
    };
    (@case [$(#[$attribute:meta])*] $store:expr; $case:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            super::$case(Arc::new($store)).await;
        }
    };
}

second_factor_contract!(memory, MemoryStore::new());

#[cfg(feature = "sqlite")]
second_factor_contract!(
    sqlite,
    tower_warden::store::sqlite::SqliteStore::new(crate::sqlite::database().await)
);

#[cfg(feature = "postgres")]
second_factor_contract!(
    #[ignore = "needs PostgreSQL: run tests/run"]
    postgres,
    tower_warden::store::postgres::PostgresStore::new(crate::postgres::database().await)
);

async fn secret_is_pending_until_it_is_confirmed(store: Arc<impl Store>) {
    let ada = add_user(&*store, "ada@example.com").await;
    assert_eq!(store.find_totp(&ada).await.unwrap(), None);
    assert_eq!(store.begin_totp(&ada, &secret(1)).await.unwrap(), TotpBegun::Pending);
    let pending = StoredTotp::new(secret(1), None);
    assert_eq!(store.find_totp(&ada).await.unwrap(), Some(pending));
    assert!(!store.use_step(&ada, 100).await.unwrap());
    assert!(!has_second_factor(&*store, &ada).await);

    assert!(store.confirm_totp(&ada, &secret(1), 7, &[], now()).await.unwrap());
    let on = StoredTotp::new(secret(1), Some(now()));
    assert_eq!(store.find_totp(&ada).await.unwrap(), Some(on));
    assert!(has_second_factor(&*store, &ada).await);
    let eve = add_user(&*store, "eve@example.com").await;
    assert!(!has_second_factor(&*store, &eve).await);
}

async fn only_the_pending_secret_is_confirmed_and_once(store: Arc<impl Store>) {
    let ada = add_user(&*store, "ada@example.com").await;
    let confirm = async |n| store.confirm_totp(&ada, &secret(n), 7, &[], now()).await.unwrap();
    assert!(!confirm(1).await);
    assert_eq!(store.begin_totp(&ada, &secret(1)).await.unwrap(), TotpBegun::Pending);
    assert_eq!(store.begin_totp(&ada, &secret(2)).await.unwrap(), TotpBegun::Pending);
    assert!(!confirm(1).await);
    assert!(confirm(2).await);
    assert!(!confirm(2).await);
}

async fn of_many_confirmations_at_once_one_wins(store: Arc<impl Store>) {
    let ada = add_user(&*store, "ada@example.com").await;
    store.begin_totp(&ada, &secret(1)).await.unwrap();
    let won = wins(12, |n| {
        let (store, ada) = (store.clone(), ada.clone());
        async move {
            let code = recovery_code(n);
            store.confirm_totp(&ada, &secret(1), 7, &[code], now()).await.unwrap()
        }
    });
    assert_eq!(won.await, 1);
    let mut left = 0;
    for n in 0..12 {
        left += usize::from(store.use_recovery_code(&ada, &recovery_code(n)).await.unwrap());
    }
    assert_eq!(left, 1, "the codes of one, and only one, are good");
}

async fn what_is_on_is_not_begun_again(store: Arc<impl Store>) {
    let ada = on(&*store, &[]).await;
    assert_eq!(store.begin_totp(&ada, &secret(2)).await.unwrap(), TotpBegun::AlreadyOn);
    assert_eq!(store.find_totp(&ada).await.unwrap().unwrap().secret, secret(1));
}

async fn nobody_begins(store: Arc<impl Store>) {
    assert_eq!(store.begin_totp(&UserId::random(), &secret(1)).await.unwrap(), TotpBegun::NoUser);
    assert_eq!(store.find_totp(&UserId::random()).await.unwrap(), None);
}

async fn step_is_used_once_and_all_before_it_too(store: Arc<impl Store>) {
    let ada = on(&*store, &[]).await;
    for (step, used) in [(7, false), (6, false), (8, true), (8, false), (10, true), (9, false)] {
        assert_eq!(store.use_step(&ada, step).await.unwrap(), used, "{step}");
    }
    assert!(!store.use_step(&UserId::random(), 100).await.unwrap());
}

async fn of_many_uses_of_a_step_at_once_one_wins(store: Arc<impl Store>) {
    let ada = on(&*store, &[]).await;
    let won = wins(20, |_| {
        let (store, ada) = (store.clone(), ada.clone());
        async move { store.use_step(&ada, 8).await.unwrap() }
    });
    assert_eq!(won.await, 1);
}

async fn recovery_code_is_used_once_by_its_user(store: Arc<impl Store>) {
    let codes = [recovery_code(1), recovery_code(2)];
    let ada = on(&*store, &codes).await;
    let eve = add_user(&*store, "eve@example.com").await;
    let used = async |user, code| store.use_recovery_code(user, &code).await.unwrap();
    assert!(!used(&eve, codes[0]).await);
    assert!(!used(&ada, recovery_code(3)).await);
    assert!(used(&ada, codes[0]).await);
    assert!(!used(&ada, codes[0]).await);
    assert!(used(&ada, codes[1]).await);
}

async fn of_many_uses_of_a_recovery_code_at_once_one_wins(store: Arc<impl Store>) {
    let ada = on(&*store, &[recovery_code(1)]).await;
    let won = wins(20, |_| {
        let (store, ada) = (store.clone(), ada.clone());
        async move { store.use_recovery_code(&ada, &recovery_code(1)).await.unwrap() }
    });
    assert_eq!(won.await, 1);
}

async fn secret_is_replaced_only_if_the_old_one_stands(store: Arc<impl Store>) {
    let ada = on(&*store, &[]).await;
    assert!(!store.replace_secret(&ada, &secret(3), &secret(2)).await.unwrap());
    assert!(store.replace_secret(&ada, &secret(1), &secret(2)).await.unwrap());
    let expected = StoredTotp::new(secret(2), Some(now()));
    assert_eq!(store.find_totp(&ada).await.unwrap(), Some(expected));
    assert!(!store.use_step(&ada, 7).await.unwrap(), "the last step stays used");
}

async fn removed_factor_is_gone_with_its_codes(store: Arc<impl Store>) {
    let ada = on(&*store, &[recovery_code(1)]).await;
    assert!(store.remove_totp(&ada).await.unwrap());
    assert!(!store.remove_totp(&ada).await.unwrap());
    assert_eq!(store.find_totp(&ada).await.unwrap(), None);
    assert!(!has_second_factor(&*store, &ada).await);

    // One that is set up again has codes of its own, and no memory.
    assert_eq!(store.begin_totp(&ada, &secret(2)).await.unwrap(), TotpBegun::Pending);
    assert!(!store.remove_totp(&ada).await.unwrap(), "it was pending");
    assert_eq!(store.begin_totp(&ada, &secret(3)).await.unwrap(), TotpBegun::Pending);
    assert!(store.confirm_totp(&ada, &secret(3), 1, &[], now()).await.unwrap());
    assert!(!store.use_recovery_code(&ada, &recovery_code(1)).await.unwrap());
    assert!(store.use_step(&ada, 2).await.unwrap());
}

async fn login_waits_until_it_ends(store: Arc<impl Store>) {
    let (ada, token) = login(&*store).await;
    let found = async |at| store.find_login(&token, at).await.unwrap();
    assert_eq!(found(now() + 5 * MINUTE - SECOND).await, Some(ada));
    let end = now() + 5 * MINUTE;
    assert_eq!(found(end).await, None);
    assert_eq!(store.take_try(&token, 5, end).await.unwrap(), None);
    assert!(!store.finish_login(&token, end).await.unwrap());
    assert_eq!(store.find_login(&random_hash(), now()).await.unwrap(), None);
    assert_eq!(store.take_try(&random_hash(), 5, now()).await.unwrap(), None);
}

async fn login_is_finished_once(store: Arc<impl Store>) {
    let (_, token) = login(&*store).await;
    let won = wins(10, |_| {
        let store = store.clone();
        async move { store.finish_login(&token, now()).await.unwrap() }
    });
    assert_eq!(won.await, 1);
    assert_eq!(store.find_login(&token, now()).await.unwrap(), None);
}

async fn tries_are_counted_and_given_back(store: Arc<impl Store>) {
    let (ada, token) = login(&*store).await;
    let take = async || store.take_try(&token, 2, now()).await.unwrap();
    assert_eq!(take().await, Some(ada.clone()));
    assert_eq!(take().await, Some(ada.clone()));
    assert_eq!(take().await, None);
    store.give_try_back(&token).await.unwrap();
    assert_eq!(take().await, Some(ada));
    assert_eq!(take().await, None);
    store.give_try_back(&random_hash()).await.unwrap();
}

async fn of_many_tries_at_once_no_more_are_taken_than_may_be(store: Arc<impl Store>) {
    let (_, token) = login(&*store).await;
    let taken = wins(30, |_| {
        let store = store.clone();
        async move { store.take_try(&token, 5, now()).await.unwrap().is_some() }
    });
    assert_eq!(taken.await, 5);
}

async fn login_of_nobody_is_not_opened(store: Arc<impl Store>) {
    let token = random_hash();
    let login = PendingLogin::new(token, UserId::random(), now() + MINUTE);
    store.open_login(login).await.unwrap();
    assert_eq!(store.find_login(&token, now()).await.unwrap(), None);
}

async fn login_of_another_epoch_is_not_opened(store: Arc<impl Store>) {
    let ada = add_user(&*store, "ada@example.com").await;
    let epoch = store.find(&ada).await.unwrap().unwrap().epoch;
    for (epoch, opened) in [(Some(epoch), true), (None, true), (Some(epoch + 1), false)] {
        let token = random_hash();
        let login = PendingLogin::new(token, ada.clone(), now() + MINUTE).with_epoch(epoch);
        store.open_login(login).await.unwrap();
        assert_eq!(store.find_login(&token, now()).await.unwrap().is_some(), opened, "{epoch:?}");
    }
}

async fn no_login_survives_a_suspension_that_it_races(store: Arc<impl Store>) {
    for round in 0..12 {
        let user = add_user(&*store, &format!("ada-{round}@example.com")).await;
        let tokens: Vec<_> = (0..4).map(|_| random_hash()).collect();
        let openers: Vec<_> = tokens
            .iter()
            .map(|token| {
                let login = PendingLogin::new(*token, user.clone(), now() + MINUTE);
                let store = store.clone();
                tokio::spawn(async move { store.open_login(login).await.unwrap() })
            })
            .collect();
        let mut change = UserChange::new();
        change.suspended = Some(true);
        store.update(&user, change).await.unwrap();
        for opener in openers {
            opener.await.unwrap();
        }
        for token in tokens {
            assert_eq!(store.find_login(&token, now()).await.unwrap(), None);
        }
    }
}

async fn deletion_takes_the_factor_and_logins_along(store: Arc<impl Store>) {
    let ada = on(&*store, &[recovery_code(1)]).await;
    let token = random_hash();
    let login = PendingLogin::new(token, ada.clone(), now() + MINUTE);
    store.open_login(login).await.unwrap();
    let clock: SharedClock = Arc::new(ManualClock::new());
    store.delete(&ada, None, &clock).await.unwrap();
    assert_eq!(store.find_totp(&ada).await.unwrap(), None);
    assert!(!store.use_step(&ada, 100).await.unwrap());
    assert!(!store.use_recovery_code(&ada, &recovery_code(1)).await.unwrap());
    assert_eq!(store.find_login(&token, now()).await.unwrap(), None);
}

async fn change_of_a_user_takes_it_off_with_the_rest_or_not_at_all(store: Arc<impl Store>) {
    let ada = on(&*store, &[recovery_code(1)]).await;
    let off = UserChange::new().with_role(Role::ADMIN).with_second_factor_off();
    let stranger = store.change(&ada, off.clone().by(&UserId::random())).await;
    assert!(matches!(stranger, Err(UpdateUserError::NotAllowed)), "{stranger:?}");
    assert!(store.find_totp(&ada).await.unwrap().is_some());

    let changed = store.change(&ada, off.clone()).await.unwrap();
    assert_eq!((changed.before.role, changed.before.second_factor), (Role::VIEWER, true));
    assert_eq!((&changed.user.role, changed.user.second_factor), (&Role::ADMIN, false));
    assert_eq!(store.find(&ada).await.unwrap(), Some(changed.user));
    assert_eq!(store.find_totp(&ada).await.unwrap(), None);
    assert!(!store.use_recovery_code(&ada, &recovery_code(1)).await.unwrap());

    // One that is not confirmed goes as well, of which there is nothing to tell.
    let sealed = SealedSecret::from(vec![7; 60]);
    assert_eq!(store.begin_totp(&ada, &sealed).await.unwrap(), TotpBegun::Pending);
    assert!(!store.change(&ada, off).await.unwrap().before.second_factor);
    assert_eq!(store.find_totp(&ada).await.unwrap(), None);
}

async fn expired_logins_are_forgotten_a_few_at_a_time(store: Arc<impl Store>) {
    let ada = add_user(&*store, "ada@example.com").await;
    let mut tokens = Vec::new();
    for seconds in 0..4 {
        let token = random_hash();
        let end = now() + seconds * SECOND;
        store.open_login(PendingLogin::new(token, ada.clone(), end)).await.unwrap();
        tokens.push(token);
    }
    let before = now() + 3 * SECOND;
    assert_eq!(store.delete_expired_logins(before, 2).await.unwrap(), 2);
    assert_eq!(store.delete_expired_logins(before, 2).await.unwrap(), 1);
    assert_eq!(store.delete_expired_logins(before, 2).await.unwrap(), 0);
    assert_eq!(store.find_login(&tokens[3], now()).await.unwrap(), Some(ada));
}

/// How many of many that are done at once answer yes.
async fn wins<F>(many: u8, each: impl Fn(u8) -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    let tasks: Vec<_> = (0..many).map(|n| tokio::spawn(each(n))).collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    won
}

/// A user whose second factor is on, confirmed by step 7.
async fn on(store: &impl Store, recovery_codes: &[TokenHash]) -> UserId {
    let user = add_user(store, "ada@example.com").await;
    assert_eq!(store.begin_totp(&user, &secret(1)).await.unwrap(), TotpBegun::Pending);
    assert!(store.confirm_totp(&user, &secret(1), 7, recovery_codes, now()).await.unwrap());
    user
}

/// A login that waits for five minutes.
async fn login(store: &impl Store) -> (UserId, TokenHash) {
    let (user, token) = (add_user(store, "ada@example.com").await, random_hash());
    let login = PendingLogin::new(token, user.clone(), now() + 5 * MINUTE);
    store.open_login(login).await.unwrap();
    (user, token)
}

async fn has_second_factor(store: &impl Store, user: &UserId) -> bool {
    let found = store.find(user).await.unwrap().unwrap();
    let by_email = store.find_by_email(&found.email).await.unwrap().unwrap().0;
    assert_eq!(found, by_email);
    found.second_factor
}

async fn add_user(store: &impl Store, email: &str) -> UserId {
    let hash = PasswordHash::from("$2b$04$".to_owned());
    let user = NewUser::new(Email::parse(email).unwrap(), hash, now());
    store.create(user).await.unwrap().id
}

fn secret(n: u8) -> SealedSecret {
    SealedSecret::from(vec![n; 53])
}

fn recovery_code(n: u8) -> TokenHash {
    TokenHash::from([n; 32])
}

fn random_hash() -> TokenHash {
    OpaqueToken::<32>::random().unwrap().hash()
}

fn now() -> SystemTime {
    ManualClock::new().now()
}
