//! Passwords at login.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, atomic::Ordering::SeqCst, mpsc},
    time::{Duration, SystemTime},
};

use tower_warden::{
    store::memory::MemoryStore,
    user::{
        HashError, HashingPool, LinkMail, LoginError, NewUser, Password, PasswordHash,
        PasswordHasher, RegisterError, UserService, UserStore, mail::Outbox,
    },
};

use crate::support::{Drawer, Log, PASSWORD, Register, email, until};

#[tokio::test]
async fn every_login_costs_one_verification_whoever_it_is() {
    let register = Register::new();
    register.register_verified("ada@example.com").await;
    register.hasher.hashes.store(0, SeqCst);
    let too_long = format!("{PASSWORD}{}", "x".repeat(72));
    for (address, password, right) in [
        ("ada@example.com", PASSWORD, true),
        (" Ada@Example.COM ", PASSWORD, true),
        ("ada@example.com", "Wrong-Horse-1", false),
        ("ada@example.com", "", false),
        ("ada@example.com", too_long.as_str(), false),
        ("ada@example.com", "Correct-Horse-1\0Correct-Horse-1", false),
        ("eve@example.com", PASSWORD, false),
        ("eve@example.com", "decoy", false),
        ("no address", PASSWORD, false),
        ("", "", false),
    ] {
        register.hasher.verifies.store(0, SeqCst);
        let login = register.users.authenticate(address, password.into()).await;
        match login {
            Ok(user) => assert!(right && user.email.as_str() == "ada@example.com"),
            Err(LoginError::InvalidCredentials) => assert!(!right, "{address} {password}"),
            Err(other) => panic!("{address} {password}: {other}"),
        }
        assert_eq!(register.hasher.verifies.load(SeqCst), 1, "{address} {password}");
        assert_eq!(register.hasher.hashes.load(SeqCst), 0, "{address} {password}");
    }
}

#[tokio::test]
async fn unverified_address_shows_only_to_who_knows_the_password() {
    let register = Register::new();
    register.register("ada@example.com").await;
    let right = register.users.authenticate("ada@example.com", PASSWORD.into()).await;
    assert!(matches!(right, Err(LoginError::EmailNotVerified)), "{right:?}");
    let wrong = register.users.authenticate("ada@example.com", "Wrong-Horse-1".into()).await;
    assert!(matches!(wrong, Err(LoginError::InvalidCredentials)), "{wrong:?}");
}

#[tokio::test]
async fn database_that_is_gone_is_not_a_wrong_password() {
    let register = Register::new();
    register.register_verified("ada@example.com").await;
    register.store.gone.store(true, SeqCst);
    for address in ["ada@example.com", "eve@example.com"] {
        let login = register.users.authenticate(address, PASSWORD.into()).await;
        assert!(matches!(&login, Err(LoginError::Store(e)) if e.is_unavailable()), "{login:?}");
    }
}

#[tokio::test]
async fn stored_text_that_is_no_hash_is_not_a_wrong_password() {
    let register = Register::new();
    let (hash, made) = (PasswordHash::from("plain text".to_owned()), SystemTime::UNIX_EPOCH);
    let broken = NewUser::new(email("ada@example.com"), hash, made);
    register.store.users.create(broken).await.unwrap();
    let login = register.users.authenticate("ada@example.com", PASSWORD.into()).await;
    assert!(matches!(&login, Err(LoginError::Store(e)) if !e.is_unavailable()), "{login:?}");
}

#[tokio::test]
async fn cheaper_hash_is_made_anew_at_login() {
    let before = Register::new();
    before.register_verified("ada@example.com").await;
    let old = before.stored_hash("ada@example.com").await;
    assert!(old.expose().starts_with("$2b$04$"));

    let after = Register::over(before.store.clone(), 5);
    let wrong = after.users.authenticate("ada@example.com", "Wrong-Horse-1".into()).await;
    assert!(wrong.is_err());
    assert_eq!(after.hasher.hashes.load(SeqCst), 0, "a wrong password is nothing to hash");

    after.users.authenticate("ada@example.com", PASSWORD.into()).await.unwrap();
    let mut stored = old;
    while stored.expose().starts_with("$2b$04$") {
        stored = after.stored_hash("ada@example.com").await;
        tokio::task::yield_now().await;
    }
    assert!(stored.expose().starts_with("$2b$05$"));

    after.users.authenticate("ada@example.com", PASSWORD.into()).await.unwrap();
    assert_eq!(after.hasher.hashes.load(SeqCst), 1, "once is enough");
}

#[tokio::test]
async fn hashing_anew_may_fail_and_the_login_does_not() {
    let before = Register::new();
    before.register_verified("ada@example.com").await;
    let after = Register::over(before.store.clone(), 5);
    after.hasher.broken.store(true, SeqCst);
    after.users.authenticate("ada@example.com", PASSWORD.into()).await.unwrap();
    until(|| after.hasher.hashes.load(SeqCst) == 1).await;
    after.users.authenticate("ada@example.com", PASSWORD.into()).await.unwrap();
}

/// Verifies when it is told to.
#[derive(Debug)]
struct GatedHasher(Mutex<mpsc::Receiver<()>>);

impl PasswordHasher for GatedHasher {
    fn hash(&self, _: &Password) -> Result<PasswordHash, HashError> {
        Ok(PasswordHash::from("hash".to_owned()))
    }

    fn verify(&self, _: &Password, _: &PasswordHash) -> Result<bool, HashError> {
        self.0.lock().unwrap().recv().map_err(HashError::new)?;
        Ok(false)
    }

    fn needs_rehash(&self, _: &PasswordHash) -> bool {
        false
    }
}

#[tokio::test]
async fn full_queue_is_busy() {
    Log::keep();
    let (go_on, told) = mpsc::channel();
    let hashing = HashingPool::new(GatedHasher(Mutex::new(told)))
        .unwrap()
        .with_threads(NonZeroUsize::MIN)
        .with_queue(0, Duration::from_secs(15));
    let mail = LinkMail::verification("https://example.com/auth/verify").unwrap();
    let outbox = Outbox::new(Drawer::default());
    let users = UserService::new(MemoryStore::new(), hashing.clone(), mail, outbox);

    let first = users.clone();
    let first =
        tokio::spawn(async move { first.authenticate("eve@example.com", PASSWORD.into()).await });
    until(|| hashing.running() == 1).await;
    let second = users.authenticate("ada@example.com", PASSWORD.into()).await;
    assert!(matches!(second, Err(LoginError::Busy)), "{second:?}");
    let third = users.register(&email("ada@example.com"), PASSWORD.into()).await;
    assert!(matches!(third, Err(RegisterError::Busy)), "{third:?}");

    go_on.send(()).unwrap();
    assert!(matches!(first.await.unwrap(), Err(LoginError::InvalidCredentials)));
}
