//! A register whose parts tell what they were asked, and fail when they are told to.

use std::{
    future, io,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{sync::Semaphore, task::yield_now, time::timeout};
use tower_warden::{
    ManualClock, SharedClock, StoreError, TokenHash, UserId,
    store::memory::MemoryStore,
    user::{
        BcryptHasher, CreateUserError, Email, EmailChangeError, EnsuredAdmin, HashError,
        HashingPool, LinkMail, LinkToken, NewUser, Password, PasswordChange, PasswordHash,
        PasswordHasher, PasswordSet, UpdateUserError, User, UserChange, UserPage, UserService,
        UserStore,
        mail::{MailError, MailSender, Message, Outbox},
    },
};

pub(crate) const PASSWORD: &str = "Correct-Horse-1";

pub(crate) struct Register {
    pub(crate) users: UserService,
    pub(crate) store: TestStore,
    pub(crate) hasher: CountingHasher,
    pub(crate) drawer: Drawer,
    pub(crate) outbox: Outbox,
    pub(crate) clock: ManualClock,
}

impl Register {
    pub(crate) fn new() -> Self {
        Self::over(TestStore::default(), 4)
    }

    pub(crate) fn over(store: TestStore, cost: u32) -> Self {
        Log::keep();
        let hasher = CountingHasher::new(cost);
        let hashing = HashingPool::new(hasher.clone()).unwrap();
        hasher.hashes.store(0, SeqCst); // the one that the pool makes for itself
        let (drawer, clock) = (Drawer::default(), ManualClock::new());
        let outbox = Outbox::new(drawer.clone());
        let mail = LinkMail::verification("https://example.com/auth/verify").unwrap();
        let link = |path| format!("https://example.com/{path}");
        let users = UserService::new(store.clone(), hashing, mail, outbox.clone())
            .with_reset_mail(LinkMail::reset(&link("reset")).unwrap())
            .with_email_change_mail(LinkMail::email_change(&link("confirm-email")).unwrap())
            .with_clock(Arc::new(clock.clone()));
        Self { users, store, hasher, drawer, outbox, clock }
    }

    pub(crate) async fn register(&self, address: &str) -> User {
        self.users.register(&email(address), PASSWORD.into()).await.unwrap()
    }

    pub(crate) async fn register_verified(&self, address: &str) -> User {
        self.register(address).await;
        self.users.verify_email(&self.mailed_token().await).await.unwrap()
    }

    /// The token in the next mail.
    pub(crate) async fn mailed_token(&self) -> String {
        let message = self.drawer.next().await;
        let lines = message.text().lines();
        let mut links =
            lines.filter_map(|line| line.strip_prefix("https://example.com/auth/verify?token="));
        links.next().unwrap().to_owned()
    }

    /// Lets what goes on behind the answers come to its end.
    pub(crate) async fn settle(&self) {
        for _ in 0..50 {
            yield_now().await;
        }
    }

    pub(crate) async fn stored_hash(&self, address: &str) -> PasswordHash {
        self.store.users.find_by_email(&email(address)).await.unwrap().unwrap().1
    }
}

pub(crate) fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

/// Lets the others run until this is so.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), held).await.unwrap();
}

/// All that is logged in this process.
pub(crate) struct Log;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

impl Log {
    /// To be called before anything is logged: `tracing` may else overlook the first lines.
    pub(crate) fn keep() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
                .with_writer(|| Log)
                .init();
        });
    }

    pub(crate) fn text() -> String {
        String::from_utf8(LOG.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps mail instead of sending it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drawer(Arc<Mutex<Vec<Message>>>);

impl Drawer {
    pub(crate) async fn next(&self) -> Message {
        until(|| self.len() > 0).await;
        self.0.lock().unwrap().remove(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[async_trait]
impl MailSender for Drawer {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        self.0.lock().unwrap().push(message.clone());
        Ok(())
    }
}

/// Never ends.
#[derive(Debug)]
pub(crate) struct StuckMailSender;

#[async_trait]
impl MailSender for StuckMailSender {
    async fn send(&self, _: &Message) -> Result<(), MailError> {
        future::pending().await
    }
}

/// bcrypt that counts, and fails to hash when it is told to.
#[derive(Clone, Debug)]
pub(crate) struct CountingHasher {
    bcrypt: BcryptHasher,
    pub(crate) hashes: Arc<AtomicUsize>,
    pub(crate) verifies: Arc<AtomicUsize>,
    pub(crate) broken: Arc<AtomicBool>,
}

impl CountingHasher {
    fn new(cost: u32) -> Self {
        Self {
            bcrypt: BcryptHasher::new(cost).unwrap(),
            hashes: Arc::default(),
            verifies: Arc::default(),
            broken: Arc::default(),
        }
    }
}

impl PasswordHasher for CountingHasher {
    fn hash(&self, password: &Password) -> Result<PasswordHash, HashError> {
        self.hashes.fetch_add(1, SeqCst);
        if self.broken.load(SeqCst) {
            return Err(HashError::new("told to fail"));
        }
        self.bcrypt.hash(password)
    }

    fn verify(&self, password: &Password, hash: &PasswordHash) -> Result<bool, HashError> {
        self.verifies.fetch_add(1, SeqCst);
        self.bcrypt.verify(password, hash)
    }

    fn even_out(
        &self,
        password: &Password,
        hash: &PasswordHash,
        decoy: &PasswordHash,
    ) -> Result<(), HashError> {
        self.bcrypt.even_out(password, hash, decoy)
    }

    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        self.bcrypt.needs_rehash(hash)
    }
}

/// The store in memory, which may be gone, late, or overtaken by another server.
#[derive(Clone, Debug)]
pub(crate) struct TestStore {
    pub(crate) users: MemoryStore,
    pub(crate) gone: Arc<AtomicBool>,
    /// How many more looks at an address find nothing, as if the account came only afterwards.
    pub(crate) overlooked: Arc<AtomicUsize>,
    /// How many accounts wait to be created.
    pub(crate) creating: Arc<AtomicUsize>,
    /// Each account that is created needs one of these.
    pub(crate) go_on: Arc<Semaphore>,
}

impl Default for TestStore {
    fn default() -> Self {
        Self {
            users: MemoryStore::new(),
            gone: Arc::default(),
            overlooked: Arc::default(),
            creating: Arc::default(),
            go_on: Arc::new(Semaphore::new(100)),
        }
    }
}

impl TestStore {
    fn overlooks(&self) -> bool {
        self.overlooked.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    fn reach(&self) -> Result<&MemoryStore, StoreError> {
        if self.gone.load(SeqCst) {
            return Err(StoreError::unavailable("connection refused"));
        }
        Ok(&self.users)
    }
}

#[async_trait]
impl UserStore for TestStore {
    fn clock(&self) -> SharedClock {
        self.users.clock()
    }

    async fn find_holder(
        &self,
        email: &Email,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        if self.overlooks() {
            return Ok(None);
        }
        self.reach()?.find_holder(email, now).await
    }

    async fn find_with_hash(
        &self,
        id: &UserId,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        self.reach()?.find_with_hash(id).await
    }

    async fn list(&self, page: &UserPage) -> Result<Vec<User>, StoreError> {
        self.reach()?.list(page).await
    }

    async fn put_reset(
        &self,
        id: &UserId,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        self.reach()?.put_reset(id, token, at_most_every).await
    }

    async fn find_reset(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        self.reach()?.find_reset(token, now).await
    }

    async fn reset_password(
        &self,
        token: &TokenHash,
        new: &PasswordHash,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        self.reach()?.reset_password(token, new, clock).await
    }

    async fn change_password(
        &self,
        change: &PasswordChange,
        clock: &SharedClock,
    ) -> Result<Option<PasswordSet>, StoreError> {
        self.reach()?.change_password(change, clock).await
    }

    async fn put_email_change(
        &self,
        id: &UserId,
        email: &Email,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, EmailChangeError> {
        self.reach()?.put_email_change(id, email, token, at_most_every).await
    }

    async fn confirm_email_change(
        &self,
        token: &TokenHash,
        clock: &SharedClock,
    ) -> Result<User, EmailChangeError> {
        self.reach()?.confirm_email_change(token, clock).await
    }

    async fn delete(
        &self,
        id: &UserId,
        by: Option<&UserId>,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        self.reach()?.delete(id, by, clock).await
    }

    async fn delete_in_epoch(
        &self,
        id: &UserId,
        epoch: u64,
        clock: &SharedClock,
    ) -> Result<User, UpdateUserError> {
        self.reach()?.delete_in_epoch(id, epoch, clock).await
    }

    async fn ensure_admin(
        &self,
        admin: &NewUser,
        clock: &SharedClock,
    ) -> Result<(User, EnsuredAdmin), StoreError> {
        self.reach()?.ensure_admin(admin, clock).await
    }

    async fn create(&self, user: NewUser) -> Result<User, CreateUserError> {
        self.creating.fetch_add(1, SeqCst);
        self.go_on.acquire().await.unwrap().forget();
        self.creating.fetch_sub(1, SeqCst);
        self.reach()?.create(user).await
    }

    async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        self.reach()?.find(id).await
    }

    async fn find_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<(User, PasswordHash)>, StoreError> {
        if self.overlooks() {
            return Ok(None);
        }
        self.reach()?.find_by_email(email).await
    }

    async fn update(&self, id: &UserId, change: UserChange) -> Result<User, UpdateUserError> {
        self.reach()?.update(id, change).await
    }

    async fn replace_password_hash(
        &self,
        id: &UserId,
        old: &PasswordHash,
        new: &PasswordHash,
    ) -> Result<bool, StoreError> {
        self.reach()?.replace_password_hash(id, old, new).await
    }

    async fn renew_verification(
        &self,
        email: &Email,
        token: LinkToken,
        at_most_every: Duration,
    ) -> Result<Option<User>, StoreError> {
        self.reach()?.renew_verification(email, token, at_most_every).await
    }

    async fn find_verification(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<UserId>, StoreError> {
        self.reach()?.find_verification(token, now).await
    }

    async fn verify_email(
        &self,
        token: &TokenHash,
        now: SystemTime,
    ) -> Result<Option<User>, StoreError> {
        self.reach()?.verify_email(token, now).await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.reach()?.count().await
    }

    async fn delete_expired_links(
        &self,
        before: SystemTime,
        at_most: u32,
    ) -> Result<u64, StoreError> {
        self.reach()?.delete_expired_links(before, at_most).await
    }
}
