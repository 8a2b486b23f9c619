//! The app with all its stores in this process, and requests to it.

use std::{
    future::{IntoFuture, poll_fn},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{
    sync::{Mutex, mpsc},
    task::yield_now,
};
use tower::ServiceExt;
use tower_warden::{
    ApiKeyService, Identity, ManualClock, Quota, Role, SharedClock, TokenService, TrustedProxies,
    UserId, UserService,
    api_key::ApiKeyStore,
    audit::{AuditEvent, AuditFilter, AuditLog, AuditTrail},
    limit::OnFailure,
    second_factor::{
        LoginSteps, PendingLoginStore, SealingKey, SealingKeys, SecondFactorStore, TotpService,
    },
    store::{memory::MemoryRateLimitStore, postgres, sqlite},
    token::{KeySet, SigningKey, TokenStore},
    user::{
        BcryptHasher, Email, HashingPool, LinkMail, UserChange, UserStore,
        mail::{MailError, MailSender, Message, Outbox},
    },
};

use crate::{
    app::{App, Limits, Pool, ProjectStore, Quotas, app},
    reply::Reply,
};

pub(crate) const PASSWORD: &str = "Correct-Horse-1";
pub(crate) const PRIVATE_KEY: &str = include_str!("../support/keys/rsa-private.pem");
pub(crate) const NO_ID: &str = "00000000-0000-4000-8000-000000000000";

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The example server in this process, with its defaults, on a clock of its own.
pub(crate) struct Server {
    router: Router,
    pub(crate) clock: ManualClock,
    pub(crate) users: UserService,
    pub(crate) tokens: TokenService,
    database: Pool,
    accounts: Arc<dyn Accounts>,
    outbox: Outbox,
    letters: Mutex<mpsc::UnboundedReceiver<Message>>,
    members: AtomicU32,
}

/// A verified user with a session.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings than the defaults.
    pub(crate) async fn with(change: impl FnOnce(&mut App)) -> Self {
        let hashing = HashingPool::new(BcryptHasher::new(4).unwrap()).unwrap();
        Self::with_hashing(hashing, change).await
    }

    pub(crate) async fn with_hashing(hashing: HashingPool, change: impl FnOnce(&mut App)) -> Self {
        let clock = ManualClock::new();
        let shared: SharedClock = Arc::new(clock.clone());
        let (store, database) = open_database(&shared).await;
        let (post_office, letters) = mpsc::unbounded_channel();
        let outbox = Outbox::new(PostOffice(post_office));
        let mail = LinkMail::verification("https://api.example/auth/verify").unwrap();
        let users = UserService::new(store.clone(), hashing, mail, outbox.clone())
            .with_reset_mail(LinkMail::reset("https://api.example/reset").unwrap())
            .with_email_change_mail(
                LinkMail::email_change("https://api.example/confirm-email").unwrap(),
            );
        let key = SigningKey::from_pem(PRIVATE_KEY.as_bytes()).unwrap();
        let tokens = TokenService::new(KeySet::new(key), "tower-warden", "api", store.clone())
            .with_subjects(UserId::is_uuid);
        let projects = ProjectStore::new(database.clone(), shared.clone());
        let limits = MemoryRateLimitStore::new().with_clock(shared.clone());

        let sealing = SealingKeys::new(SealingKey::random().unwrap());
        let totp =
            TotpService::new(store.clone(), sealing, "tower-warden").with_clock(shared.clone());

        let mut settings = App {
            users: users.with_clock(shared.clone()),
            tokens: tokens.with_clock(shared.clone()),
            keys: ApiKeyService::new(store.clone()).with_clock(shared.clone()),
            totp: totp.clone(),
            login: LoginSteps::new(store.clone(), totp).with_clock(shared.clone()),
            projects: projects.await.unwrap(),
            limits: Limits {
                store: Arc::new(limits),
                on_failure: OnFailure::Allow,
                clock: shared,
                quotas: quotas(),
            },
            cors_allowed_origins: Vec::new(),
            https: false,
        };
        change(&mut settings);
        Self {
            clock,
            users: settings.users.clone(),
            tokens: settings.tokens.clone(),
            accounts: store,
            router: app(settings),
            database,
            outbox,
            letters: Mutex::new(letters),
            members: AtomicU32::new(0),
        }
    }

    /// Lets what was refused be written down, too.
    pub(crate) async fn settle_audit(&self) {
        UserStore::audit_trail(&self.accounts).flush(20 * SECOND).await;
    }

    /// What was written down of who did what, the first first.
    pub(crate) async fn audit_events(&self) -> Vec<AuditEvent> {
        self.settle_audit().await;
        let mut events = self.accounts.events(&AuditFilter::new(1000)).await.unwrap();
        events.reverse();
        events
    }

    /// From now on it doesn't answer.
    pub(crate) async fn lose_database(&self) {
        match &self.database {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }

    /// Nobody else gets a connection to it, until what is answered is dropped.
    pub(crate) async fn hold_database(&self) -> Vec<Box<dyn std::any::Any>> {
        let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
        match &self.database {
            Pool::Sqlite(pool) => {
                for _ in 0..pool.options().get_max_connections() {
                    held.push(Box::new(pool.acquire().await.unwrap()));
                }
            }
            Pool::Postgres(pool) => {
                for _ in 0..pool.options().get_max_connections() {
                    held.push(Box::new(pool.acquire().await.unwrap()));
                }
            }
        }
        held
    }

    /// The next letter that is sent.
    pub(crate) async fn letter(&self) -> Message {
        self.letters.lock().await.recv().await.unwrap()
    }

    /// Nothing is on its way.
    pub(crate) async fn assert_no_letter(&self) {
        while self.outbox.waiting() > 0 {
            yield_now().await;
        }
        assert!(self.letters.lock().await.try_recv().is_err(), "a letter was sent");
    }

    /// Registers an address with [`PASSWORD`], over HTTP, and answers the token that is mailed.
    pub(crate) async fn register(&self, email: &str) -> String {
        let body = json!({"email": email, "password": PASSWORD});
        self.post("/auth/register", body).await.expect(201);
        token_in(&self.letter().await)
    }

    /// Registers and verifies an address, over HTTP.
    pub(crate) async fn register_verified(&self, email: &str) {
        let token = self.register(email).await;
        self.get(&format!("/auth/verify?token={token}")).await.expect(200);
    }

    pub(crate) fn login(&self, email: &str, password: &str) -> Call {
        self.post("/auth/login", json!({"email": email, "password": password}))
    }

    pub(crate) fn refresh(&self, token: &str) -> Call {
        self.post("/auth/refresh", json!({"refresh_token": token}))
    }

    /// A new user of this role, with [`PASSWORD`] and a session. Made behind the API, so that no
    /// limit has counted anything yet.
    pub(crate) async fn join(&self, role: Role) -> Session {
        let email = format!("member-{}@example.com", self.members.fetch_add(1, Relaxed));
        let address = Email::parse(&email).unwrap();
        self.users.register(&address, PASSWORD.into()).await.unwrap();
        let user = self.users.verify_email(&token_in(&self.letter().await)).await.unwrap();
        let change = UserChange::new().with_role(role.clone());
        self.users.update(&user.id, change).await.unwrap();
        self.session(&user.id, role, &email).await
    }

    pub(crate) async fn session(&self, id: &UserId, role: Role, email: &str) -> Session {
        let pair = self.tokens.issue(&Identity::new(id.clone(), role)).await.unwrap();
        Session {
            id: id.to_string(),
            email: email.to_owned(),
            access: pair.access_token().to_owned(),
            refresh: pair.refresh_token().expose().to_owned(),
        }
    }

    pub(crate) async fn create_project(&self, owner: &Session, name: &str) -> String {
        let created = self.post("/projects", json!({"name": name})).by(owner).await;
        created.expect(201).text("id")
    }
}

trait Accounts:
    UserStore + TokenStore + ApiKeyStore + SecondFactorStore + PendingLoginStore + AuditLog
{
}

impl<S> Accounts for S where
    S: UserStore + TokenStore + ApiKeyStore + SecondFactorStore + PendingLoginStore + AuditLog
{
}

/// SQLite in memory; or a new database in PostgreSQL, on which `tests/run` runs all chapters once more.
async fn open_database(clock: &SharedClock) -> (Arc<dyn Accounts>, Pool) {
    let audit = AuditTrail::new().with_table();
    let Ok(server) = std::env::var("TOWER_WARDEN_TEST_ACCOUNTS") else {
        let pool = sqlite::connect("sqlite::memory:").await.unwrap();
        sqlite::migrate(&pool).await.unwrap();
        let store = sqlite::SqliteStore::new(pool.clone()).with_clock(clock.clone());
        return (Arc::new(store.with_audit(audit)), Pool::Sqlite(pool));
    };
    let mut url: url::Url = server.parse().unwrap();
    let name = format!("tower_warden_{}", uuid::Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&server).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut admin).await.unwrap();
    url.set_path(&name);
    let pool = postgres::connect(url.as_str()).await.unwrap();
    postgres::migrate(&pool).await.unwrap();
    let store = postgres::PostgresStore::new(pool.clone()).with_clock(clock.clone());
    (Arc::new(store.with_audit(audit)), Pool::Postgres(pool))
}

/// Whatever answers the requests of the API.
pub(crate) trait Api {
    fn call(&self, method: Method, path: &str) -> Call;

    fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    fn head(&self, path: &str) -> Call {
        self.call(Method::HEAD, path)
    }

    fn post(&self, path: &str, body: Value) -> Call {
        self.call(Method::POST, path).json(&body)
    }

    fn patch(&self, path: &str, body: Value) -> Call {
        self.call(Method::PATCH, path).json(&body)
    }

    fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }
}

impl Api for Server {
    fn call(&self, method: Method, path: &str) -> Call {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 4711));
        let request = Request::builder().extension(ConnectInfo(peer));
        Call::new(Via::Router(self.router.clone()), request.method(method).uri(path))
    }
}

/// A program that serves the API.
pub(crate) struct Remote {
    client: Client<HttpConnector, Body>,
    base: String,
}

impl Remote {
    pub(crate) fn new(base: impl Into<String>) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, base: base.into() }
    }
}

impl Api for Remote {
    fn call(&self, method: Method, path: &str) -> Call {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        Call::new(Via::Http(Box::new(self.client.clone())), request)
    }
}

/// A request that is sent when it is awaited. What is answered was checked for the common forms.
#[must_use]
pub(crate) struct Call {
    via: Via,
    request: http::request::Builder,
    body: Body,
}

enum Via {
    Router(Router),
    Http(Box<Client<HttpConnector, Body>>),
}

impl Call {
    fn new(via: Via, request: http::request::Builder) -> Self {
        Self { via, request, body: Body::empty() }
    }

    pub(crate) fn by(self, session: &Session) -> Self {
        self.bearer(&session.access)
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// From this address instead of 127.0.0.1.
    pub(crate) fn from(self, ip: &str) -> Self {
        let peer = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 4711);
        Self { request: self.request.extension(ConnectInfo(peer)), ..self }
    }

    pub(crate) fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
        Self { request: self.request.header(name, value), ..self }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub(crate) fn body(self, kind: &str, body: impl Into<Body>) -> Self {
        Self { body: body.into(), ..self.header("content-type", kind) }
    }
}

impl IntoFuture for Call {
    type Output = Reply;
    type IntoFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let request = self.request.body(self.body).unwrap();
            let (path, method) = (request.uri().path().to_owned(), request.method().clone());
            let response = match self.via {
                Via::Router(router) => router.oneshot(request).await.unwrap(),
                Via::Http(client) => client.request(request).await.unwrap().map(Body::new),
            };
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Reply::new(head.status, head.headers, body, &method, &path)
        })
    }
}

/// Sends a request up to where its handler first waits: the limits have counted it by then. Dropped,
/// it is a client that hangs up.
pub(crate) async fn in_flight(call: Call) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
    let mut reply = call.into_future();
    let waits = poll_fn(|context| Poll::Ready(reply.as_mut().poll(context).is_pending())).await;
    assert!(waits);
    reply
}

/// The answers to many calls that are made at once.
pub(crate) async fn at_once(calls: impl IntoIterator<Item = Call>) -> Vec<Reply> {
    let tasks: Vec<_> = calls.into_iter().map(|call| tokio::spawn(call.into_future())).collect();
    let mut replies = Vec::new();
    for task in tasks {
        replies.push(task.await.unwrap());
    }
    replies
}

pub(crate) fn count(replies: &[Reply], status: u16) -> usize {
    replies.iter().filter(|reply| reply.status == status).count()
}

/// The token of the link in a letter.
pub(crate) fn token_in(letter: &Message) -> String {
    let link = |line: &str| line.split_once("?token=").map(|(_, token)| token.to_owned());
    letter.text().lines().find_map(link).unwrap()
}

/// The contract's defaults.
fn quotas() -> Quotas {
    Quotas {
        proxies: TrustedProxies::none(),
        public: Quota::per_minute(100),
        user: Quota::per_minute(300),
        login: Quota::new(5, 15 * MINUTE).unwrap(),
        account: Quota::per_hour(50),
        register: Quota::per_hour(100),
        free: Quota::per_minute(60),
        paid: Quota::per_minute(600),
        enterprise: Quota::per_minute(3000),
    }
}

/// Takes letters to where tests find them.
#[derive(Debug)]
struct PostOffice(mpsc::UnboundedSender<Message>);

#[async_trait]
impl MailSender for PostOffice {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        self.0.send(message.clone()).map_err(|gone| MailError::permanent("no server", gone))
    }
}
