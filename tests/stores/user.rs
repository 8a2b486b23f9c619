//! The contract of [`UserStore`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::Barrier;
use tower_warden::{
    Clock, ManualClock, OpaqueToken, Plan, Role, TokenHash, UserId,
    store::memory::MemoryStore,
    user::{
        CreateUserError, Email, LinkToken, NewUser, PasswordHash, UpdateUserError, User,
        UserChange, UserStore,
    },
};

type Store = Arc<dyn UserStore>;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// Runs the contract over a wing: `user_store_contract!(wing, an expression that makes an empty
/// store)`. The expression may await. Attributes before the name go to every test, such as
/// `#[ignore = "needs a PostgreSQL"]`.
macro_rules! user_store_contract {
    ($(#[$attribute:meta])* $wing:ident, $store:expr) => {
        user_store_contract! { @cases [$(#[$attribute])*] $wing, $store;
            created_user_is_found_by_id_and_address
            user_without_verification_is_verified
            address_is_one_account
            of_many_registrations_at_once_one_wins
            role_and_plan_change_apart
            change_of_nobody_is_not_found
            last_admin_stays
            unverified_admin_does_not_count
            of_two_admins_demoted_at_once_one_stays
            password_hash_is_replaced_only_if_the_old_one_stands
            of_many_replacements_at_once_one_wins
            verification_works_once
            of_many_verifications_at_once_one_wins
            verification_ends_exactly_at_its_time
            looking_at_a_verification_changes_nothing
            renewed_verification_ends_the_old_one
            renewal_waits_for_its_interval
            of_many_renewals_at_once_one_wins
            nothing_is_renewed_for_the_verified_and_the_unknown
            expired_verifications_are_forgotten_a_few_at_a_time
        }
    };
    (@cases $attributes:tt $wing:ident, $store:expr; $($case:ident)*) => {
        mod $wing {
            use super::*;
            $(user_store_contract! { @case $attributes $store; $case })*
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

user_store_contract!(memory, MemoryStore::new());

#[cfg(feature = "sqlite")]
user_store_contract!(
    sqlite,
    tower_warden::store::sqlite::SqliteStore::new(crate::sqlite::database().await)
);

#[cfg(feature = "postgres")]
user_store_contract!(
    #[ignore = "needs PostgreSQL: run tests/run"]
    postgres,
    tower_warden::store::postgres::PostgresStore::new(crate::postgres::database().await)
);

async fn created_user_is_found_by_id_and_address(store: Store) {
    let new = unverified("ada@example.com");
    let created = store.create(new.clone()).await.unwrap();
    let mut expected = User::new(new.id.clone(), new.email.clone(), Role::VIEWER, now());
    assert_eq!(created, expected);
    assert_eq!(store.find(&new.id).await.unwrap(), Some(created.clone()));
    let (found, hash) = store.find_by_email(&new.email).await.unwrap().unwrap();
    assert_eq!((found, hash), (created, new.password_hash.clone()));

    assert_eq!(store.find(&UserId::random()).await.unwrap(), None);
    assert_eq!(store.find_by_email(&email("eve@example.com")).await.unwrap(), None);
    assert_eq!(store.count().await.unwrap(), 1);

    let verified = store.verify_email(&token_of(&new), now()).await.unwrap().unwrap();
    expected.email_verified = true;
    assert_eq!(verified, expected);
    assert_eq!(store.find(&new.id).await.unwrap(), Some(expected));
}

async fn user_without_verification_is_verified(store: Store) {
    let new = verified("ada@example.com", Role::ADMIN);
    let created = store.create(new.clone()).await.unwrap();
    assert!(created.email_verified);
    assert_eq!(created.role, Role::ADMIN);
    assert_eq!(store.find(&new.id).await.unwrap(), Some(created));
}

async fn address_is_one_account(store: Store) {
    let first = store.create(unverified("ada@example.com")).await.unwrap();
    let second = store.create(unverified("ada@example.com")).await;
    assert!(matches!(second, Err(CreateUserError::EmailTaken)), "{second:?}");
    assert_eq!(store.find_by_email(&first.email).await.unwrap().unwrap().0, first);
    assert_eq!(store.count().await.unwrap(), 1);
}

async fn of_many_registrations_at_once_one_wins(store: Store) {
    let results = at_once(20, || {
        let (store, new) = (store.clone(), unverified("ada@example.com"));
        async move { store.create(new).await }
    })
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|lost| matches!(lost, Err(CreateUserError::EmailTaken))), "{lost:?}");
    assert_eq!(store.count().await.unwrap(), 1);
}

async fn role_and_plan_change_apart(store: Store) {
    let mut expected = store.create(unverified("ada@example.com")).await.unwrap();
    let id = expected.id.clone();
    let auditor = Role::from_static("auditor");
    for (change, role, plan, email_verified) in [
        (set_role(Role::EDITOR), Role::EDITOR, None, false),
        (set_plan(Some(Plan::PAID)), Role::EDITOR, Some(Plan::PAID), false),
        (set_role(auditor.clone()), auditor.clone(), Some(Plan::PAID), false),
        (UserChange::default(), auditor.clone(), Some(Plan::PAID), false),
        (set_plan(None), auditor.clone(), None, false),
        (UserChange::new().with_verified_email(), auditor.clone(), None, true),
        (set_plan(Some(Plan::FREE)), auditor.clone(), Some(Plan::FREE), true),
    ] {
        (expected.role, expected.plan, expected.email_verified) = (role, plan, email_verified);
        assert_eq!(store.update(&id, change.clone()).await.unwrap(), expected, "{change:?}");
        assert_eq!(store.find(&id).await.unwrap().as_ref(), Some(&expected), "{change:?}");
    }
}

async fn change_of_nobody_is_not_found(store: Store) {
    store.create(unverified("ada@example.com")).await.unwrap();
    for id in [UserId::random(), UserId::from("1"), UserId::from("")] {
        let changed = store.update(&id, set_role(Role::EDITOR)).await;
        assert!(matches!(changed, Err(UpdateUserError::NotFound)), "{changed:?}");
    }
}

async fn last_admin_stays(store: Store) {
    let admin = store.create(verified("ada@example.com", Role::ADMIN)).await.unwrap();
    let other = store.create(verified("bob@example.com", Role::VIEWER)).await.unwrap();
    let refused = store.update(&admin.id, set_role(Role::VIEWER)).await;
    assert!(matches!(refused, Err(UpdateUserError::LastAdmin)), "{refused:?}");
    let both = set_role(Role::EDITOR).with_plan(Some(Plan::PAID));
    let refused = store.update(&admin.id, both).await;
    assert!(matches!(refused, Err(UpdateUserError::LastAdmin)), "{refused:?}");
    assert_eq!(store.find(&admin.id).await.unwrap().unwrap(), admin);

    // What leaves the admin an admin, and what is somebody else's, is no matter.
    store.update(&admin.id, set_role(Role::ADMIN)).await.unwrap();
    store.update(&admin.id, set_plan(Some(Plan::FREE))).await.unwrap();
    store.update(&other.id, set_role(Role::ADMIN)).await.unwrap();
    store.update(&admin.id, set_role(Role::VIEWER)).await.unwrap();
    let refused = store.update(&other.id, set_role(Role::VIEWER)).await;
    assert!(matches!(refused, Err(UpdateUserError::LastAdmin)), "{refused:?}");
}

async fn unverified_admin_does_not_count(store: Store) {
    let admin = store.create(verified("ada@example.com", Role::ADMIN)).await.unwrap();
    let new = unverified("bob@example.com").with_role(Role::ADMIN);
    let unproved = store.create(new.clone()).await.unwrap();
    let refused = store.update(&admin.id, set_role(Role::VIEWER)).await;
    assert!(matches!(refused, Err(UpdateUserError::LastAdmin)), "{refused:?}");
    store.update(&unproved.id, set_role(Role::VIEWER)).await.unwrap();
    store.update(&unproved.id, set_role(Role::ADMIN)).await.unwrap();

    store.verify_email(&token_of(&new), now()).await.unwrap().unwrap();
    store.update(&admin.id, set_role(Role::VIEWER)).await.unwrap();
}

async fn of_two_admins_demoted_at_once_one_stays(store: Store) {
    let mut stayed = store.create(verified("ada@example.com", Role::ADMIN)).await.unwrap();
    // More than once, since two may well come one after the other.
    for round in 0..50 {
        let next = verified(&format!("bob{round}@example.com"), Role::ADMIN);
        let next = store.create(next).await.unwrap();
        let mut admins = [stayed, next].into_iter();
        let results = at_once(2, || {
            let (store, admin) = (store.clone(), admins.next().unwrap());
            async move { (store.update(&admin.id, set_role(Role::VIEWER)).await, admin) }
        })
        .await;
        let (demoted, mut refused): (Vec<_>, Vec<_>) =
            results.into_iter().partition(|(result, _)| result.is_ok());
        assert_eq!((demoted.len(), refused.len()), (1, 1), "{demoted:?} {refused:?}");
        let (refusal, admin) = refused.remove(0);
        assert!(matches!(refusal, Err(UpdateUserError::LastAdmin)), "{refusal:?}");
        assert_eq!(store.find(&admin.id).await.unwrap().as_ref(), Some(&admin));
        stayed = admin;
    }
}

async fn password_hash_is_replaced_only_if_the_old_one_stands(store: Store) {
    let new = unverified("ada@example.com");
    store.create(new.clone()).await.unwrap();
    let [old, second, third] = [new.password_hash, hash("second"), hash("third")];
    for (id, old, new, replaced, stands) in [
        (&new.id, &second, &third, false, &old),
        (&UserId::from("nobody"), &old, &third, false, &old),
        (&new.id, &old, &second, true, &second),
        (&new.id, &old, &third, false, &second),
        (&new.id, &second, &third, true, &third),
    ] {
        assert_eq!(store.replace_password_hash(id, old, new).await.unwrap(), replaced);
        assert_eq!(
            store.find_by_email(&email("ada@example.com")).await.unwrap().unwrap().1,
            *stands
        );
    }
}

async fn of_many_replacements_at_once_one_wins(store: Store) {
    let new = unverified("ada@example.com");
    store.create(new.clone()).await.unwrap();
    let mut number = 0;
    let replaced = at_once(20, || {
        number += 1;
        let (store, id, old) = (store.clone(), new.id.clone(), new.password_hash.clone());
        let mine = hash(&number.to_string());
        async move { store.replace_password_hash(&id, &old, &mine).await.unwrap() }
    })
    .await;
    assert_eq!(replaced.into_iter().filter(|replaced| *replaced).count(), 1);
}

async fn verification_works_once(store: Store) {
    let new = unverified("ada@example.com");
    store.create(new.clone()).await.unwrap();
    let token = token_of(&new);
    assert_eq!(store.verify_email(&random_hash(), now()).await.unwrap(), None);
    assert!(!store.find(&new.id).await.unwrap().unwrap().email_verified);
    assert!(store.verify_email(&token, now()).await.unwrap().unwrap().email_verified);
    assert_eq!(store.verify_email(&token, now()).await.unwrap(), None);
    assert_eq!(store.find_verification(&token, now()).await.unwrap(), None);
    assert!(store.find(&new.id).await.unwrap().unwrap().email_verified);
}

async fn of_many_verifications_at_once_one_wins(store: Store) {
    let new = unverified("ada@example.com");
    store.create(new.clone()).await.unwrap();
    let verified = at_once(20, || {
        let (store, token) = (store.clone(), token_of(&new));
        async move { store.verify_email(&token, now()).await.unwrap() }
    })
    .await;
    assert_eq!(verified.iter().flatten().count(), 1);
}

async fn verification_ends_exactly_at_its_time(store: Store) {
    let end = now() + DAY;
    for (address, at, verified) in [
        ("a@example.com", end, false),
        ("b@example.com", end + DAY, false),
        ("c@example.com", end - Duration::from_millis(1), true),
        ("d@example.com", now() - DAY, true),
    ] {
        let new = unverified(address);
        store.create(new.clone()).await.unwrap();
        let found = store.find_verification(&token_of(&new), at).await.unwrap();
        assert_eq!(found, verified.then(|| new.id.clone()), "{address}");
        let user = store.verify_email(&token_of(&new), at).await.unwrap();
        assert_eq!(user.is_some(), verified, "{address}");
        assert_eq!(store.find(&new.id).await.unwrap().unwrap().email_verified, verified);
    }
}

async fn looking_at_a_verification_changes_nothing(store: Store) {
    let new = unverified("ada@example.com");
    store.create(new.clone()).await.unwrap();
    for _ in 0..3 {
        let found = store.find_verification(&token_of(&new), now()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&new.id));
    }
    assert!(!store.find(&new.id).await.unwrap().unwrap().email_verified);
    assert!(store.verify_email(&token_of(&new), now()).await.unwrap().is_some());
}

async fn renewed_verification_ends_the_old_one(store: Store) {
    let new = unverified("ada@example.com");
    let created = store.create(new.clone()).await.unwrap();
    let later = now() + MINUTE;
    let token = verification(later);
    let renewed = store.renew_verification(&new.email, token, MINUTE).await.unwrap();
    assert_eq!(renewed, Some(created));
    assert_eq!(store.verify_email(&token_of(&new), later).await.unwrap(), None);
    assert_eq!(store.find_verification(&token_of(&new), later).await.unwrap(), None);
    assert!(store.verify_email(&token.hash, later).await.unwrap().unwrap().email_verified);
}

async fn renewal_waits_for_its_interval(store: Store) {
    let new = unverified("ada@example.com");
    store.create(new.clone()).await.unwrap();
    for (after, renewed) in [
        (Duration::ZERO, false),
        (MINUTE - Duration::from_millis(1), false),
        (MINUTE, true),
        (MINUTE, false),
        (2 * MINUTE - Duration::from_millis(1), false),
        (2 * MINUTE, true),
        (2 * DAY, true), // the old one has ended by then
    ] {
        let token = verification(now() + after);
        let user = store.renew_verification(&new.email, token, MINUTE).await.unwrap();
        assert_eq!(user.is_some(), renewed, "after {after:?}");
        let found = store.find_verification(&token.hash, token.created_at).await.unwrap();
        assert_eq!(found.is_some(), renewed, "after {after:?}");
    }
}

async fn of_many_renewals_at_once_one_wins(store: Store) {
    let new = unverified("ada@example.com");
    store.create(new.clone()).await.unwrap();
    let renewed = at_once(20, || {
        let (store, email) = (store.clone(), new.email.clone());
        let token = verification(now() + MINUTE);
        async move { store.renew_verification(&email, token, MINUTE).await.unwrap() }
    })
    .await;
    assert_eq!(renewed.iter().flatten().count(), 1);
}

async fn nothing_is_renewed_for_the_verified_and_the_unknown(store: Store) {
    store.create(verified("ada@example.com", Role::VIEWER)).await.unwrap();
    let new = unverified("bob@example.com");
    store.create(new.clone()).await.unwrap();
    store.verify_email(&token_of(&new), now()).await.unwrap().unwrap();
    for address in ["ada@example.com", "bob@example.com", "eve@example.com"] {
        let token = verification(now() + DAY);
        let user = store.renew_verification(&email(address), token, MINUTE).await.unwrap();
        assert_eq!(user, None, "{address}");
        assert_eq!(store.find_verification(&token.hash, now() + DAY).await.unwrap(), None);
    }
}

async fn expired_verifications_are_forgotten_a_few_at_a_time(store: Store) {
    for i in 0..5 {
        store.create(unverified(&format!("old{i}@example.com"))).await.unwrap();
    }
    let mut young = unverified("young@example.com");
    young.verification = Some(verification(now() + DAY));
    store.create(young.clone()).await.unwrap();

    let end = now() + DAY;
    assert_eq!(
        store.delete_expired_links(end, 10).await.unwrap(),
        0,
        "it ended then, and not before"
    );
    let before = end + Duration::from_millis(1);
    for deleted in [2, 2, 1, 0] {
        assert_eq!(store.delete_expired_links(before, 2).await.unwrap(), deleted);
    }
    assert_eq!(store.count().await.unwrap(), 6);
    let found = store.find_verification(&token_of(&young), end).await.unwrap();
    assert_eq!(found, Some(young.id));

    // Who came too late may still ask for a new one.
    let renewed =
        store.renew_verification(&email("old0@example.com"), verification(end), MINUTE).await;
    assert!(renewed.unwrap().is_some());
}

fn now() -> SystemTime {
    ManualClock::new().now()
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

fn hash(text: &str) -> PasswordHash {
    PasswordHash::from(text.to_owned())
}

fn random_hash() -> TokenHash {
    OpaqueToken::<32>::random().unwrap().hash()
}

/// A token made then, that ends a day later.
fn verification(created_at: SystemTime) -> LinkToken {
    LinkToken::new(random_hash(), created_at, DAY)
}

fn verified(address: &str, role: Role) -> NewUser {
    NewUser::new(email(address), hash("first"), now()).with_role(role)
}

fn unverified(address: &str) -> NewUser {
    verified(address, Role::VIEWER).with_verification(verification(now()))
}

fn token_of(new: &NewUser) -> TokenHash {
    new.verification.unwrap().hash
}

fn set_role(role: Role) -> UserChange {
    UserChange::new().with_role(role)
}

fn set_plan(plan: Option<Plan>) -> UserChange {
    UserChange::new().with_plan(plan)
}

/// Runs so many at the same time.
async fn at_once<T, F>(count: usize, mut work: impl FnMut() -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (start, work) = (start.clone(), work());
            tokio::spawn(async move {
                start.wait().await;
                work.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
