//! The contract of [`ApiKeyStore`].

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tower_warden::{
    Clock, Identity, ManualClock, OpaqueToken, Plan, Role, SharedClock, TokenHash, UserId,
    api_key::{ApiKey, ApiKeyId, ApiKeyStore, CreateKeyError, FoundKey, KeyUse, NewApiKey},
    store::memory::MemoryStore,
    user::{Email, NewUser, PasswordHash, UserChange, UserStore},
};

/// What keys and their owners are kept in.
trait Store: ApiKeyStore + UserStore {}
impl<S: ApiKeyStore + UserStore> Store for S {}

const MINUTE: Duration = Duration::from_secs(60);

/// Runs the contract over a wing: `api_key_store_contract!(wing, an expression that makes an empty
/// store)`. The expression may await. Attributes before the name go to every test.
macro_rules! api_key_store_contract {
    ($(#[$attribute:meta])* $wing:ident, $store:expr) => {
        api_key_store_contract! { @cases [$(#[$attribute])*] $wing, $store;
            key_is_found_with_its_owner_as_the_owner_is_now
            keys_are_listed_the_newest_first
            revoked_key_is_found_but_not_listed
            only_its_owner_revokes_a_key
            of_many_revocations_at_once_one_finds_it
            owner_has_no_more_keys_than_the_cap
            of_many_made_at_once_no_more_than_the_cap_are_made
            key_of_nobody_is_not_made
            use_is_noted_now_and_then
            use_of_what_is_no_good_is_not_noted
            all_keys_are_revoked_at_once
            revoked_keys_are_forgotten_a_few_at_a_time
            suspension_and_deletion_revoke_keys_for_good
            no_key_survives_a_suspension_or_deletion_that_it_races
        }
    };
    (@cases $attributes:tt $wing:ident, $store:expr; $($case:ident)*) => {
        mod $wing {
            use super::*;
            $(api_key_store_contract! { @case $attributes $store; $case })*
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

api_key_store_contract!(memory, MemoryStore::new());

#[cfg(feature = "sqlite")]
api_key_store_contract!(
    sqlite,
    tower_warden::store::sqlite::SqliteStore::new(crate::sqlite::database().await)
);

#[cfg(feature = "postgres")]
api_key_store_contract!(
    #[ignore = "needs PostgreSQL: run tests/run"]
    postgres,
    tower_warden::store::postgres::PostgresStore::new(crate::postgres::database().await)
);

async fn key_is_found_with_its_owner_as_the_owner_is_now(store: Arc<impl Store>) {
    let owner = add_user(&*store, "ada@example.com", Role::EDITOR).await;
    let mut new = key_of(&owner, "import", 0);
    new.key.expires_at = Some(now() + MINUTE);
    store.create_key(new.clone(), 100).await.unwrap();

    let mut expected =
        FoundKey::new(new.key, false, Some(Identity::new(owner.clone(), Role::EDITOR)));
    expected.key.last_used_at = Some(now());
    assert_eq!(find(&*store, new.hash).await.as_ref(), Some(&expected));

    let change = UserChange::new().with_role(Role::ADMIN).with_plan(Some(Plan::PAID));
    store.update(&owner, change).await.unwrap();
    expected.owner = Some(Identity::new(owner, Role::ADMIN).with_plan(Plan::PAID));
    assert_eq!(find(&*store, new.hash).await, Some(expected));
    assert_eq!(find(&*store, random_hash()).await, None);
}

async fn keys_are_listed_the_newest_first(store: Arc<impl Store>) {
    let ada = add_user(&*store, "ada@example.com", Role::VIEWER).await;
    let eve = add_user(&*store, "eve@example.com", Role::VIEWER).await;
    let mut expected = Vec::new();
    for n in 0..3 {
        let new = key_of(&ada, "a key", n);
        store.create_key(new.clone(), 100).await.unwrap();
        store.create_key(key_of(&eve, "another", n), 100).await.unwrap();
        expected.insert(0, new.key);
    }
    assert_eq!(store.list_keys(&ada).await.unwrap(), expected);
    assert_eq!(store.list_keys(&UserId::random()).await.unwrap(), []);
}

async fn revoked_key_is_found_but_not_listed(store: Arc<impl Store>) {
    let (owner, new) = one_key(&*store).await;
    let revoked = store.revoke_key(&owner, &new.key.id, now()).await.unwrap();
    assert_eq!(revoked, Some(new.hash));
    assert_eq!(store.list_keys(&owner).await.unwrap(), []);
    let found = find(&*store, new.hash).await.unwrap();
    assert!(found.revoked);
    assert_eq!(found.key, new.key, "its use is not noted");
    assert_eq!(store.revoke_key(&owner, &new.key.id, now()).await.unwrap(), None);
}

async fn only_its_owner_revokes_a_key(store: Arc<impl Store>) {
    let (owner, new) = one_key(&*store).await;
    let eve = add_user(&*store, "eve@example.com", Role::ADMIN).await;
    for (user, id) in [(&eve, &new.key.id), (&owner, &ApiKeyId::random())] {
        assert_eq!(store.revoke_key(user, id, now()).await.unwrap(), None);
    }
    assert!(!find(&*store, new.hash).await.unwrap().revoked);
}

async fn of_many_revocations_at_once_one_finds_it(store: Arc<impl Store>) {
    let (owner, new) = one_key(&*store).await;
    let revocations = (0..10).map(|_| {
        let (store, owner, id) = (store.clone(), owner.clone(), new.key.id.clone());
        tokio::spawn(async move { store.revoke_key(&owner, &id, now()).await.unwrap() })
    });
    let mut found = 0;
    for revocation in revocations.collect::<Vec<_>>() {
        found += usize::from(revocation.await.unwrap().is_some());
    }
    assert_eq!(found, 1);
}

async fn owner_has_no_more_keys_than_the_cap(store: Arc<impl Store>) {
    let ada = add_user(&*store, "ada@example.com", Role::VIEWER).await;
    let eve = add_user(&*store, "eve@example.com", Role::VIEWER).await;
    let mut expired = key_of(&ada, "expired", 0);
    expired.key.expires_at = Some(now() - MINUTE);
    store.create_key(expired.clone(), 2).await.unwrap();
    store.create_key(key_of(&ada, "second", 1), 2).await.unwrap();
    let third = store.create_key(key_of(&ada, "third", 2), 2).await;
    assert!(matches!(third, Err(CreateKeyError::TooMany)), "{third:?}");
    store.create_key(key_of(&eve, "hers", 3), 2).await.unwrap();

    store.revoke_key(&ada, &expired.key.id, now()).await.unwrap();
    store.create_key(key_of(&ada, "third", 4), 2).await.unwrap();
}

async fn of_many_made_at_once_no_more_than_the_cap_are_made(store: Arc<impl Store>) {
    let owner = add_user(&*store, "ada@example.com", Role::VIEWER).await;
    store.create_key(key_of(&owner, "first", 0), 5).await.unwrap();
    let tasks = (0..12).map(|n| {
        let (store, new) = (store.clone(), key_of(&owner, "a key", n));
        tokio::spawn(async move { store.create_key(new, 5).await })
    });
    let mut made = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(()) => made += 1,
            Err(CreateKeyError::TooMany) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((made, store.list_keys(&owner).await.unwrap().len()), (4, 5));
}

async fn key_of_nobody_is_not_made(store: Arc<impl Store>) {
    let made = store.create_key(key_of(&UserId::random(), "a key", 0), 5).await;
    assert!(matches!(made, Err(CreateKeyError::NoOwner)), "{made:?}");
}

async fn use_is_noted_now_and_then(store: Arc<impl Store>) {
    let (owner, new) = one_key(&*store).await;
    let used = async |at: SystemTime| {
        let used = KeyUse::new(new.hash, at, MINUTE);
        let found = store.find_key(used).await.unwrap().unwrap().key;
        let listed = store.list_keys(&owner).await.unwrap();
        assert_eq!(listed[0], found);
        found.last_used_at.unwrap()
    };
    let second = Duration::from_secs(1);
    assert_eq!(used(now()).await, now());
    assert_eq!(used(now() + MINUTE - second).await, now());
    assert_eq!(used(now() + MINUTE).await, now() + MINUTE);
    assert_eq!(used(now() + MINUTE + second).await, now() + MINUTE);
}

async fn use_of_what_is_no_good_is_not_noted(store: Arc<impl Store>) {
    let owner = add_user(&*store, "ada@example.com", Role::VIEWER).await;
    let mut new = key_of(&owner, "short", 0);
    new.key.expires_at = Some(now());
    store.create_key(new.clone(), 5).await.unwrap();
    assert_eq!(find(&*store, new.hash).await.unwrap().key.last_used_at, None);
    assert_eq!(store.list_keys(&owner).await.unwrap()[0].last_used_at, None);
}

async fn all_keys_are_revoked_at_once(store: Arc<impl Store>) {
    let (owner, first) = one_key(&*store).await;
    let second = key_of(&owner, "second", 1);
    store.create_key(second.clone(), 5).await.unwrap();
    store.revoke_key(&owner, &first.key.id, now()).await.unwrap();
    assert_eq!(store.revoke_all_keys(&owner, now()).await.unwrap(), 1);
    assert_eq!(store.revoke_all_keys(&owner, now()).await.unwrap(), 0);
    assert!(find(&*store, second.hash).await.unwrap().revoked);
}

async fn revoked_keys_are_forgotten_a_few_at_a_time(store: Arc<impl Store>) {
    let owner = add_user(&*store, "ada@example.com", Role::VIEWER).await;
    let mut hashes = Vec::new();
    for n in 0..5 {
        let new = key_of(&owner, "a key", n);
        store.create_key(new.clone(), 10).await.unwrap();
        hashes.push(new.hash);
        if n > 0 {
            let at = now() + Duration::from_secs(n);
            store.revoke_key(&owner, &new.key.id, at).await.unwrap();
        }
    }
    let before = now() + Duration::from_secs(4);
    assert_eq!(store.delete_revoked_keys(before, 2).await.unwrap(), 2);
    assert_eq!(store.delete_revoked_keys(before, 2).await.unwrap(), 1);
    assert_eq!(store.delete_revoked_keys(before, 2).await.unwrap(), 0);
    let mut left = HashSet::new();
    for (n, hash) in hashes.into_iter().enumerate() {
        left.extend(find(&*store, hash).await.map(|_| n));
    }
    assert_eq!(left, HashSet::from([0, 4]));
}

async fn suspension_and_deletion_revoke_keys_for_good(store: Arc<impl Store>) {
    let (owner, new) = one_key(&*store).await;
    suspend(&*store, &owner, true).await;
    let found = find(&*store, new.hash).await.unwrap();
    assert_eq!((found.revoked, found.owner), (true, None));
    let made = store.create_key(key_of(&owner, "another", 1), 5).await;
    assert!(matches!(made, Err(CreateKeyError::NoOwner)), "{made:?}");
    suspend(&*store, &owner, false).await;
    assert!(find(&*store, new.hash).await.unwrap().revoked);

    let second = key_of(&owner, "second", 2);
    store.create_key(second.clone(), 5).await.unwrap();
    store.delete(&owner, None, &clock()).await.unwrap();
    let found = find(&*store, second.hash).await.unwrap();
    assert_eq!((found.revoked, found.owner), (true, None));
}

async fn no_key_survives_a_suspension_or_deletion_that_it_races(store: Arc<impl Store>) {
    for round in 0..12 {
        let owner = add_user(&*store, &format!("ada-{round}@example.com"), Role::VIEWER).await;
        let keys: Vec<_> = (0..4).map(|n| key_of(&owner, "a key", n)).collect();
        let makers: Vec<_> = keys
            .iter()
            .map(|new| {
                let (store, new) = (store.clone(), new.clone());
                tokio::spawn(async move { store.create_key(new, 9).await })
            })
            .collect();
        let end = {
            let (store, owner) = (store.clone(), owner.clone());
            tokio::spawn(async move {
                match round % 2 {
                    0 => suspend(&*store, &owner, true).await,
                    _ => drop(store.delete(&owner, None, &clock()).await.unwrap()),
                }
            })
        };
        for maker in makers {
            let made = maker.await.unwrap();
            assert!(matches!(made, Ok(()) | Err(CreateKeyError::NoOwner)), "{made:?}");
        }
        end.await.unwrap();
        for new in keys {
            assert!(find(&*store, new.hash).await.is_none_or(|found| found.revoked));
        }
    }
}

async fn suspend(store: &impl Store, owner: &UserId, suspended: bool) {
    let mut change = UserChange::new();
    change.suspended = Some(suspended);
    store.update(owner, change).await.unwrap();
}

fn clock() -> SharedClock {
    Arc::new(ManualClock::new())
}

async fn one_key(store: &impl Store) -> (UserId, NewApiKey) {
    let owner = add_user(store, "ada@example.com", Role::VIEWER).await;
    let new = key_of(&owner, "a key", 0);
    store.create_key(new.clone(), 100).await.unwrap();
    (owner, new)
}

/// A key that was made so many seconds after the first.
fn key_of(owner: &UserId, name: &str, n: u64) -> NewApiKey {
    let prefix = "wdn_12345678".to_owned();
    let at = now() + Duration::from_secs(n);
    let (id, name) = (ApiKeyId::random(), name.to_owned());
    NewApiKey::new(ApiKey::new(id, owner.clone(), name, prefix, Role::VIEWER, at), random_hash())
}

async fn find(store: &impl Store, hash: TokenHash) -> Option<FoundKey> {
    store.find_key(KeyUse::new(hash, now(), MINUTE)).await.unwrap()
}

async fn add_user(store: &impl Store, email: &str, role: Role) -> UserId {
    let hash = PasswordHash::from("$2b$04$".to_owned());
    let user = NewUser::new(Email::parse(email).unwrap(), hash, now()).with_role(role);
    store.create(user).await.unwrap().id
}

fn random_hash() -> TokenHash {
    OpaqueToken::<32>::random().unwrap().hash()
}

fn now() -> SystemTime {
    ManualClock::new().now()
}
