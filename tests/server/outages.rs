//! What becomes of requests while something behind the server fails.

use std::{
    future::IntoFuture,
    num::NonZeroUsize,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, SystemTime},
};

use serde_json::json;
use tokio::{task::yield_now, time::Instant};
use tower_warden::{
    Answer, Clock, Role, StoreError,
    limit::{
        Decision, OnFailure, RateLimitStore,
        store::{Decisions, Hold, Take},
    },
    user::{BcryptHasher, HashError, HashingPool, Password, PasswordHash, PasswordHasher},
};

use crate::support::{Api, Call, NO_ID, PASSWORD, Server, Session};

/// All that needs the database.
fn calls(server: &Server, admin: &Session) -> Vec<Call> {
    let user = format!("/admin/users/{}", admin.id);
    let project = format!("/projects/{NO_ID}");
    let token = "0".repeat(64);
    let mut calls = vec![
        server.post("/auth/register", json!({"email": "ada@example.com", "password": PASSWORD})),
        server.get(&format!("/auth/verify?token={token}")),
        server.head(&format!("/auth/verify?token={token}")),
        server.login(&admin.email, PASSWORD),
        server.login(&admin.email, "Wrong-Horse-1"),
        server.login("nobody@example.com", PASSWORD),
        server.refresh(&admin.refresh),
        server.post("/auth/logout", json!({"refresh_token": admin.refresh})),
        server.post("/auth/verify/resend", json!({"email": admin.email})),
    ];
    let signed_in = [
        server.post("/auth/logout-all", json!({})),
        server.get("/auth/me"),
        server.get("/projects"),
        server.post("/projects", json!({"name": "x"})),
        server.get(&project),
        server.patch(&project, json!({"name": "x"})),
        server.delete(&project),
        server.get("/analytics"),
        server.patch(&user, json!({"role": "editor"})),
    ];
    calls.extend(signed_in.map(|call| call.by(admin)));
    calls
}

#[tokio::test]
async fn without_its_database_the_server_is_unavailable_and_says_nothing_else() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    server.lose_database().await;
    for call in calls(&server, &admin) {
        call.await.expect(503);
    }
    server.get("/public/status").await.expect(200);
    server.get("/.well-known/jwks.json").await.expect(200);
    server.get("/auth/me").await.refused(401, "authentication_required");
    // The three logins were given back.
    let reply = server.login(&admin.email, PASSWORD).await;
    assert_eq!(reply.limiter("login").remaining, 5);
}

#[tokio::test]
async fn database_that_hangs_is_unavailable_within_5_seconds() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let _all_connections = server.hold_database().await;
    tokio::time::pause();
    for call in calls(&server, &admin) {
        let begin = Instant::now();
        call.await.expect(503);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn while_limits_cannot_be_decided_requests_pass_without_headers() {
    let server = Server::with(|app| app.limits.store = Arc::new(NoStore)).await;
    let member = server.join(Role::VIEWER).await;
    for _ in 0..110 {
        assert_eq!(server.get("/public/status").await.expect(200).limit(), None);
    }
    assert_eq!(server.get("/auth/me").by(&member).await.expect(200).limit(), None);
    assert_eq!(server.get("/auth/me").await.expect(401).limit(), None);
    assert_eq!(server.login(&member.email, "x").await.expect(401).limit(), None);
}

#[tokio::test]
async fn while_limits_cannot_be_decided_nothing_passes_where_the_policy_is_deny() {
    let server = Server::with(|app| {
        app.limits.store = Arc::new(NoStore);
        app.limits.on_failure = OnFailure::Deny;
    })
    .await;
    let (member, admin) = (server.join(Role::VIEWER).await, server.join(Role::ADMIN).await);
    for call in [
        server.get("/public/status"),
        server.get("/nowhere"),
        server.login(&member.email, PASSWORD),
        server.get("/auth/me").by(&member),
        server.get("/auth/me"),
    ] {
        let reply = call.await.refused(503, "unavailable");
        assert_eq!(reply.limit(), None);
    }
    server.get("/auth/me").by(&admin).await.expect(200);
}

#[tokio::test]
async fn full_hashing_queue_is_unavailable_and_takes_no_attempt() {
    let (open, closed) = mpsc::channel();
    let hasher = Gated { gate: Mutex::new(closed), hasher: BcryptHasher::new(4).unwrap() };
    let hashing = HashingPool::new(hasher).unwrap();
    let hashing = hashing.with_threads(NonZeroUsize::MIN).with_queue(0, Duration::ZERO);
    let server = Server::with_hashing(hashing.clone(), |_| {}).await;
    let member = server.join(Role::VIEWER).await;

    let login = || server.login(&member.email, PASSWORD).into_future();
    let first = tokio::spawn(login());
    while hashing.running() == 0 {
        yield_now().await;
    }
    for _ in 0..10 {
        login().await.refused(503, "unavailable");
    }
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    server.post("/auth/register", body).await.refused(503, "unavailable");
    server.get("/public/status").await.expect(200);
    open.send(()).unwrap();
    assert_eq!(first.await.unwrap().expect(200).limiter("login").remaining, 5);
}

#[tokio::test]
async fn handler_that_panics_is_a_500_and_takes_no_attempt() {
    let server =
        Server::with(|app| app.tokens = app.tokens.clone().with_clock(Arc::new(BrokenClock))).await;
    let email = "ada@example.com";
    server.register_verified(email).await;
    for _ in 0..10 {
        let reply = server.login(email, PASSWORD).await.refused(500, "internal");
        assert_eq!(reply.limiter("login").remaining, 5);
    }
}

/// A store of limits that is out of reach.
#[derive(Debug)]
struct NoStore;

impl RateLimitStore for NoStore {
    fn take(&self, _: &[Take]) -> Answer<Result<Decisions, StoreError>> {
        Answer::Ready(Err(StoreError::unavailable("gone")))
    }

    fn settle(&self, _: Hold, _: bool) -> Answer<Result<Decision, StoreError>> {
        Answer::Ready(Err(StoreError::unavailable("gone")))
    }
}

/// Verifies only when it is told to.
#[derive(Debug)]
struct Gated {
    gate: Mutex<mpsc::Receiver<()>>,
    hasher: BcryptHasher,
}

impl PasswordHasher for Gated {
    fn hash(&self, password: &Password) -> Result<PasswordHash, HashError> {
        self.hasher.hash(password)
    }

    fn verify(&self, password: &Password, hash: &PasswordHash) -> Result<bool, HashError> {
        self.gate.lock().unwrap().recv().map_err(HashError::new)?;
        self.hasher.verify(password, hash)
    }

    fn needs_rehash(&self, _: &PasswordHash) -> bool {
        false
    }
}

/// Nobody knows how late it is.
#[derive(Debug)]
struct BrokenClock;

impl Clock for BrokenClock {
    fn now(&self) -> SystemTime {
        panic!("no time")
    }

    fn monotonic(&self) -> Duration {
        panic!("no time")
    }
}
