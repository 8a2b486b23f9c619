use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;

use super::*;
use crate::{Clock, ManualClock, Plan};

/// One key, of one owner; counts what it is asked, and fails when told to.
#[derive(Debug, Default)]
struct OneKey {
    made: std::sync::Mutex<Option<(NewApiKey, Identity, bool)>>,
    asked: AtomicU64,
    /// How many ask at the moment, and how many did at most.
    asking: AtomicU64,
    asking_at_most: AtomicU64,
    /// Answers after a while only.
    slow: AtomicBool,
    away: AtomicBool,
}

#[async_trait]
impl ApiKeyStore for OneKey {
    async fn create_key(&self, key: NewApiKey, _: u32) -> Result<(), CreateKeyError> {
        let owner = Identity::new(key.key.owner.clone(), Role::EDITOR);
        *self.made.lock().unwrap() = Some((key, owner, false));
        Ok(())
    }

    async fn find_key(&self, used: KeyUse) -> Result<Option<FoundKey>, StoreError> {
        self.asked.fetch_add(1, SeqCst);
        self.asking_at_most.fetch_max(self.asking.fetch_add(1, SeqCst) + 1, SeqCst);
        tokio::task::yield_now().await;
        if self.slow.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.asking.fetch_sub(1, SeqCst);
        if self.away.load(SeqCst) {
            return Err(StoreError::unavailable("away"));
        }
        let made = self.made.lock().unwrap();
        Ok(made.as_ref().filter(|(new, ..)| new.hash == used.hash).map(|(new, owner, revoked)| {
            FoundKey::new(new.key.clone(), *revoked, Some(owner.clone()))
        }))
    }

    async fn list_keys(&self, _: &UserId) -> Result<Vec<ApiKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn revoke_key(
        &self,
        _: &UserId,
        _: &ApiKeyId,
        _: std::time::SystemTime,
    ) -> Result<Option<TokenHash>, StoreError> {
        let mut made = self.made.lock().unwrap();
        Ok(made.as_mut().map(|(new, _, revoked)| {
            *revoked = true;
            new.hash
        }))
    }

    async fn revoke_all_keys(
        &self,
        _: &UserId,
        _: std::time::SystemTime,
    ) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn delete_revoked_keys(
        &self,
        _: std::time::SystemTime,
        _: u32,
    ) -> Result<u64, StoreError> {
        Ok(0)
    }
}

struct Scene {
    store: Arc<OneKey>,
    clock: ManualClock,
    keys: ApiKeyService,
    owner: Identity,
}

impl Scene {
    fn new() -> Self {
        let (store, clock) = (Arc::new(OneKey::default()), ManualClock::new());
        let keys = ApiKeyService::new(Arc::clone(&store)).with_clock(Arc::new(clock.clone()));
        Self { store, clock, keys, owner: Identity::new(UserId::from("ada"), Role::EDITOR) }
    }

    async fn key(&self, request: KeyRequest) -> (ApiKeyId, String) {
        let (key, secret) = self.keys.create(&self.owner, request).await.unwrap();
        (key.id, secret.expose().to_owned())
    }

    fn asked(&self) -> u64 {
        self.store.asked.load(SeqCst)
    }

    fn owner_is_now(&self, owner: Identity) {
        self.store.made.lock().unwrap().as_mut().unwrap().1 = owner;
    }

    fn millis(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

fn request() -> KeyRequest {
    KeyRequest::new("a key")
}

#[tokio::test]
async fn key_in_use_costs_a_query_now_and_then() {
    let scene = Scene::new();
    let (_, key) = scene.key(request()).await;
    for _ in 0..100 {
        scene.keys.verify(&key).await.unwrap();
        scene.millis(1);
    }
    assert_eq!(scene.asked(), 1);
    for _ in 0..1000 {
        scene.keys.verify(&key).await.unwrap();
        scene.millis(1);
    }
    assert!(scene.asked() <= 4, "{}", scene.asked());
}

#[tokio::test]
async fn what_changes_elsewhere_counts_within_a_second() {
    let scene = Scene::new();
    let (_, key) = scene.key(request()).await;
    assert_eq!(scene.keys.verify(&key).await.unwrap().role(), &Role::EDITOR);
    scene.owner_is_now(Identity::new(UserId::from("ada"), Role::VIEWER).with_plan(Plan::PAID));
    scene.millis(999);
    let caller = scene.keys.verify(&key).await.unwrap();
    assert_eq!((caller.role(), caller.plan()), (&Role::VIEWER, Some(&Plan::PAID)));

    // More than at first is not given.
    scene.owner_is_now(Identity::new(UserId::from("ada"), Role::ADMIN));
    scene.millis(999);
    assert_eq!(scene.keys.verify(&key).await.unwrap().role(), &Role::EDITOR);
}

#[tokio::test]
async fn what_changes_here_counts_at_once() {
    let scene = Scene::new();
    let (id, key) = scene.key(request()).await;
    scene.keys.verify(&key).await.unwrap();
    scene.owner_is_now(Identity::new(UserId::from("ada"), Role::VIEWER));
    scene.keys.forget(&UserId::from("ada"));
    assert_eq!(scene.keys.verify(&key).await.unwrap().role(), &Role::VIEWER);

    assert!(scene.keys.revoke(&UserId::from("ada"), &id).await.unwrap());
    let asked = scene.asked();
    assert!(matches!(scene.keys.verify(&key).await, Err(ApiKeyError::Revoked)));
    assert_eq!(scene.asked(), asked, "what is revoked needs no store");
}

#[tokio::test]
async fn without_a_store_keys_are_good_that_it_knew_a_minute_ago() {
    let scene = Scene::new();
    let (_, key) = scene.key(request()).await;
    scene.keys.verify(&key).await.unwrap();
    scene.store.away.store(true, SeqCst);
    for _ in 0..59 {
        scene.millis(1000);
        scene.keys.verify(&key).await.unwrap();
    }
    scene.millis(1000);
    let gone = scene.keys.verify(&key).await;
    assert!(matches!(&gone, Err(ApiKeyError::Store(error)) if error.is_unavailable()), "{gone:?}");

    scene.store.away.store(false, SeqCst);
    scene.keys.verify(&key).await.unwrap();
}

#[tokio::test]
async fn revoked_key_stays_revoked_without_a_store_and_an_unseen_one_is_unknown() {
    let scene = Scene::new();
    let (id, key) = scene.key(request()).await;
    scene.keys.revoke(&UserId::from("ada"), &id).await.unwrap();
    scene.store.away.store(true, SeqCst);
    scene.millis(3_600_000);
    assert!(matches!(scene.keys.verify(&key).await, Err(ApiKeyError::Revoked)));
    let unseen = ApiKeySecret::random(PREFIX).unwrap();
    assert!(matches!(scene.keys.verify(unseen.expose()).await, Err(ApiKeyError::Store(_))));
    // What has not the form needs no store.
    let asked = scene.asked();
    assert!(matches!(scene.keys.verify("wdn_x").await, Err(ApiKeyError::Invalid(_))));
    assert_eq!(scene.asked(), asked);
}

#[tokio::test]
async fn key_ends_exactly_at_its_time_whatever_is_remembered() {
    let scene = Scene::new();
    let end = scene.clock.now() + Duration::from_millis(300);
    let (_, key) = scene.key(request().with_expires_at(end)).await;
    scene.keys.verify(&key).await.unwrap();
    scene.millis(299);
    scene.keys.verify(&key).await.unwrap();
    scene.millis(1);
    assert!(matches!(scene.keys.verify(&key).await, Err(ApiKeyError::Expired)));
    let past = request().with_expires_at(end);
    let refused = scene.keys.create(&scene.owner, past).await;
    let expired = [KeyObjection::AlreadyExpired];
    assert!(matches!(refused, Err(CreateKeyError::Unfit(found)) if found == expired));
}

#[tokio::test]
async fn role_is_the_owners_or_less() {
    let scene = Scene::new();
    let keys = scene.keys.clone();
    for (owner, role, granted) in [
        (Role::EDITOR, None, Some(Role::EDITOR)),
        (Role::EDITOR, Some(Role::VIEWER), Some(Role::VIEWER)),
        (Role::EDITOR, Some(Role::EDITOR), Some(Role::EDITOR)),
        (Role::EDITOR, Some(Role::ADMIN), None),
        (Role::EDITOR, Some(Role::from("auditor")), None),
        (Role::from("auditor"), None, Some(Role::from("auditor"))),
        (Role::from("auditor"), Some(Role::VIEWER), None),
    ] {
        let owner = Identity::new(UserId::from("ada"), owner);
        let request = KeyRequest { role, ..request() };
        let made = keys.create(&owner, request).await;
        match (made, granted) {
            (Ok((key, _)), Some(granted)) => assert_eq!(key.role, granted),
            (Err(CreateKeyError::Unfit(found)), None) => {
                assert_eq!(found, [KeyObjection::RoleTooHigh]);
            }
            (made, granted) => panic!("{made:?} instead of {granted:?}"),
        }
    }
}

#[tokio::test]
async fn role_that_is_ranked_nowhere_acts_only_for_an_owner_of_the_same() {
    let scene = Scene::new();
    let auditor = Identity::new(UserId::from("ada"), Role::from("auditor"));
    let (_, secret) = scene.keys.create(&auditor, request()).await.unwrap();
    for (owner, good) in [("auditor", true), ("admin", false)] {
        scene.owner_is_now(Identity::new(UserId::from("ada"), Role::from(owner)));
        scene.keys.forget(&UserId::from("ada"));
        assert_eq!(scene.keys.verify(secret.expose()).await.is_ok(), good, "{owner}");
    }
}

#[tokio::test]
async fn forged_keys_in_great_number_leave_the_store_to_others() {
    let scene = Scene::new();
    let (_, key) = scene.key(request()).await;
    scene.keys.verify(&key).await.unwrap();
    // Their form and their checksum are right, as anybody can make them.
    let forged = (0..200).map(|_| {
        let (keys, forged) = (scene.keys.clone(), ApiKeySecret::random(PREFIX).unwrap());
        tokio::spawn(async move { keys.verify(forged.expose()).await })
    });
    let forged: Vec<_> = forged.collect();
    tokio::task::yield_now().await;
    // A key in use doesn't stand in their queue.
    scene.millis(900);
    scene.keys.verify(&key).await.unwrap();
    assert!(scene.asked() < 20, "{}", scene.asked());
    for outcome in forged {
        assert!(matches!(outcome.await.unwrap(), Err(ApiKeyError::Invalid("unknown"))));
    }
    assert!(scene.store.asking_at_most.load(SeqCst) <= 5);
}

#[tokio::test(start_paused = true)]
async fn forged_keys_of_one_client_let_others_have_their_turn() {
    let scene = Scene::new();
    let (_, key) = scene.key(request()).await;
    scene.store.slow.store(true, SeqCst);
    let forged = (0..200).map(|_| {
        let (keys, forged) = (scene.keys.clone(), ApiKeySecret::random(PREFIX).unwrap());
        let eve = Origin::new().with_ip([203, 0, 113, 66].into());
        tokio::spawn(eve.scope(async move { keys.verify(forged.expose()).await }))
    });
    let _forged: Vec<_> = forged.collect();
    tokio::task::yield_now().await;
    // 200 by four take five seconds, and who waits for three is turned away.
    let begin = tokio::time::Instant::now();
    let ada = Origin::new().with_ip([203, 0, 113, 1].into());
    ada.scope(scene.keys.verify(&key)).await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(400), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn one_key_that_many_bring_at_once_is_looked_up_for_all() {
    let scene = Scene::new();
    let (_, key) = scene.key(request()).await;
    let callers = (0..50).map(|_| {
        let (keys, key) = (scene.keys.clone(), key.clone());
        tokio::spawn(async move { keys.verify(&key).await })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap().unwrap();
    }
    assert!(scene.asked() <= 4, "{}", scene.asked());
}

#[tokio::test(start_paused = true)]
async fn an_unseen_key_waits_for_its_turn_for_a_while_and_is_not_called_bad() {
    let scene = Scene::new();
    let (_, key) = scene.key(request()).await;
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(scene.keys.turns.take(Lane::Check, None, TURN).await.unwrap());
    }
    let late = scene.keys.verify(&key).await;
    assert!(matches!(late, Err(ApiKeyError::Store(error)) if error.is_unavailable()));
    drop(turns);
    scene.keys.verify(&key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn once_it_is_revoked_here_no_request_that_begins_later_gets_in() {
    for _ in 0..50 {
        let scene = Scene::new();
        let (id, key) = scene.key(request()).await;
        let revoked = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (keys, key, revoked) = (scene.keys.clone(), key.clone(), revoked.clone());
                tokio::spawn(async move {
                    for _ in 0..200 {
                        let before = revoked.load(SeqCst);
                        let outcome = keys.verify(&key).await;
                        assert!(!before || matches!(outcome, Err(ApiKeyError::Revoked)));
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        scene.keys.revoke(&UserId::from("ada"), &id).await.unwrap();
        revoked.store(true, SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
    }
}
