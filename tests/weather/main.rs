//! What becomes of requests while Redis is slow, gone, or talks nonsense: with [`FallbackStore`] an
//! answer within the budget, never a panic, nothing counted twice, and limits within a second of
//! its return.

#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "the lint knows only functions that are tests themselves")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ::redis::{RedisResult, cmd};
use proxy::{Proxy, Weather};
use redis::OwnServer;
use tower_warden::{
    Quota, StoreError,
    limit::{Decision, FallbackStore, RateLimitStore, store::Take},
    store::{memory::MemoryRateLimitStore, redis::RedisRateLimitStore},
};

#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/redis.rs"]
mod redis;

const BUDGET: Duration = Duration::from_millis(25);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(150);
const LIMIT: u32 = 1_000;

/// A store on Redis, behind weather.
struct Scene {
    proxy: Proxy,
    inner: RedisRateLimitStore,
    store: FallbackStore,
}

impl Scene {
    async fn before(url: &str) -> Self {
        let server: SocketAddr = url.trim_start_matches("redis://").parse().unwrap();
        let proxy = Proxy::before(server).await;
        let url = format!("redis://{}", proxy.address());
        let inner = RedisRateLimitStore::connect(&url).await.unwrap();
        let inner = inner.with_prefix(&redis::prefix());
        let store = around(inner.clone());
        Self { proxy, inner, store }
    }
}

fn around(store: RedisRateLimitStore) -> FallbackStore {
    FallbackStore::new(store, MemoryRateLimitStore::new()).with_budget(BUDGET)
}

fn take(limit: u32) -> Take {
    let quota = Quota::per_hour(limit);
    Take::new("ip".parse().unwrap(), "203.0.113.9", quota)
}

async fn decide(store: &impl RateLimitStore) -> Result<Decision, StoreError> {
    Ok(store.take(&[take(LIMIT)]).await?[0].decision)
}

/// How many the server has counted.
async fn counted(store: &impl RateLimitStore) -> u32 {
    let look = take(LIMIT).with_cost(0);
    LIMIT - store.take(&[look]).await.unwrap()[0].decision.remaining()
}

/// Waits until the store decides again, for a second; says how many requests that took.
async fn back_within_a_second(store: &FallbackStore) {
    let start = Instant::now();
    while let Err(error) = decide(store).await {
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(1) + SLACK, "not back after {waited:?}: {error:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks often: each time there is an answer within the budget, and soon a failure at once. (What is
/// late at first is decided here.)
async fn fails_in_time(store: &FallbackStore) -> u32 {
    const REQUESTS: u32 = 20;
    for i in 0..REQUESTS {
        let start = Instant::now();
        let answer = decide(store).await;
        let waited = start.elapsed();
        // The fourth may wait while the third call proves to be late.
        let most = if i < 4 { BUDGET } else { Duration::ZERO };
        assert!(waited < most + SLACK, "request {i} waited for {waited:?}");
        match answer {
            Ok(decision) => assert!(i < 4, "request {i} was decided: {decision:?}"),
            Err(error) => assert!(error.is_unavailable()),
        }
    }
    assert!(store.is_open());
    REQUESTS
}

async fn weathers(weather: Weather, may_be_counted: bool) {
    let scene = Scene::before(&redis::url()).await;
    decide(&scene.store).await.unwrap();
    let before = counted(&scene.inner).await;
    assert_eq!(before, 1);

    scene.proxy.turn(weather).await;
    let requests = fails_in_time(&scene.store).await;
    scene.proxy.turn(Weather::Fair).await;
    back_within_a_second(&scene.store).await;

    let during = counted(&scene.inner).await - before - 1;
    let most = if may_be_counted { requests } else { 0 };
    assert!(during <= most, "{during} counted of {requests} that failed");
}

/// Makes a test of each weather: whether the server may have counted what it kept from us.
macro_rules! weathers {
    ($($name:ident: $weather:expr, counted: $counted:literal;)+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs Redis: run tests/run"]
        async fn $name() {
            weathers($weather, $counted).await;
        }
    )+};
}

weathers! {
    connection_is_refused: Weather::Refuse, counted: false;
    server_accepts_and_never_answers: Weather::Silent, counted: false;
    answers_take_ten_seconds: Weather::Delay(Duration::from_secs(10)), counted: true;
    answers_take_a_little_too_long: Weather::Delay(Duration::from_millis(60)), counted: true;
    answers_drip: Weather::Drip, counted: true;
    connection_is_reset_within_an_answer: Weather::Reset, counted: true;
    loading: Weather::Answer("-LOADING Redis is loading the dataset\r\n"), counted: false;
    readonly: Weather::Answer("-READONLY You can't write here\r\n"), counted: false;
    out_of_memory: Weather::Answer("-OOM command not allowed\r\n"), counted: false;
    master_down: Weather::Answer("-MASTERDOWN Link with MASTER is down\r\n"), counted: false;
    cluster_down: Weather::Answer("-CLUSTERDOWN The cluster is down\r\n"), counted: false;
    busy: Weather::Answer("-BUSY Redis is busy\r\n"), counted: false;
    try_again: Weather::Answer("-TRYAGAIN Multiple keys request\r\n"), counted: false;
    no_authentication: Weather::Answer("-NOAUTH Authentication required\r\n"), counted: false;
    no_permission: Weather::Answer("-NOPERM No permissions\r\n"), counted: false;
    unknown_command: Weather::Answer("-ERR unknown command 'EVALSHA'\r\n"), counted: false;
    moved_where_there_is_no_cluster: Weather::Answer("-MOVED 1 127.0.0.1:1\r\n"), counted: false;
    short_reply: Weather::Answer("*2\r\n:1\r\n:0\r\n"), counted: false;
    odd_reply: Weather::Answer("*6\r\n:1\r\n:0\r\n:7\r\n:-9\r\n:1\r\n:0\r\n"), counted: false;
    null_reply: Weather::Answer("$-1\r\n"), counted: false;
    not_even_redis: Weather::Answer("HTTP/1.1 400 Bad Request\r\n\r\n"), counted: false;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn server_that_is_not_there_at_first_is_used_once_it_is() {
    let mut server = OwnServer::start().await;
    let url = server.url();
    server.stop();
    let inner = RedisRateLimitStore::connect(&url).await.unwrap();
    let store = around(inner);
    fails_in_time(&store).await;
    server.restart().await;
    back_within_a_second(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn server_is_stopped_and_goes_on() {
    let server = OwnServer::start().await;
    let store = RedisRateLimitStore::connect(&server.url()).await.unwrap();
    let store = around(store);
    decide(&store).await.unwrap();
    server.signal("STOP");
    let requests = fails_in_time(&store).await;
    server.signal("CONT");
    back_within_a_second(&store).await;
    assert!((2..=2 + requests).contains(&counted(&store).await));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn sentinels_name_the_master_also_after_a_failover() {
    let mut master = OwnServer::start().await;
    let port = master.port().to_string();
    let _replica = OwnServer::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]).await;
    let mut connection = redis::connection(&master.url()).await;
    // A sentinel asks for replicas when it starts, and then only every ten seconds.
    until(async || {
        let info: String = cmd("INFO").arg("replication").query_async(&mut connection).await?;
        Ok(info.contains("state=online"))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let configuration = directory.path().join("sentinel.conf");
    let settings = format!(
        "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 200\n\
         sentinel failover-timeout main 1000\n"
    );
    std::fs::write(&configuration, settings).unwrap();
    let sentinel = OwnServer::start_with(&[configuration.to_str().unwrap(), "--sentinel"]).await;

    let url = format!("redis-sentinel://127.0.0.1:{}/0#main", sentinel.port());
    let store = RedisRateLimitStore::connect(&url).await.unwrap();
    assert_eq!(decide(&store).await.unwrap().remaining(), LIMIT - 1);
    master.stop();
    assert!(decide(&store).await.is_err());
    until(async || Ok(decide(&store).await.is_ok())).await;
}

/// Asks again and again, for ten seconds at most.
async fn until(mut holds: impl AsyncFnMut() -> RedisResult<bool>) {
    let start = Instant::now();
    while !holds().await.is_ok_and(|holds| holds) {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came to pass");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn server_is_restarted() {
    let mut server = OwnServer::start().await;
    let store = RedisRateLimitStore::connect(&server.url()).await.unwrap();
    let store = around(store);
    decide(&store).await.unwrap();
    server.stop();
    fails_in_time(&store).await;
    server.restart().await;
    back_within_a_second(&store).await;
    assert_eq!(counted(&store).await, 1, "what it knew is lost, the script is not missed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn forgotten_script_is_not_noticed() {
    let server = OwnServer::start().await;
    let store = RedisRateLimitStore::connect(&server.url()).await.unwrap();
    let mut redis = redis::connection(&server.url()).await;
    for i in 1..=10 {
        decide(&store).await.unwrap();
        assert_eq!(counted(&store).await, i);
        cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn killed_connection_is_replaced_and_nothing_is_repeated() {
    let server = OwnServer::start().await;
    let store = RedisRateLimitStore::connect(&server.url()).await.unwrap();
    let mut redis = redis::connection(&server.url()).await;
    let (mut decided, mut failed) = (0, 0);
    for _ in 0..10 {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec_async(&mut redis).await.unwrap();
        for _ in 0..3 {
            match decide(&store).await {
                Ok(_) => decided += 1,
                Err(_) => failed += 1,
            }
        }
    }
    assert!(failed <= 10, "{failed} failures: one break is enough to distrust every connection");
    assert!((decided..=decided + failed).contains(&counted(&store).await));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn flapping_server_admits_no_more_than_the_limit() {
    let scene = Scene::before(&redis::url()).await;
    let mut admitted = 0;
    for i in 0..40 {
        scene.proxy.turn(if i % 2 == 0 { Weather::Fair } else { Weather::Refuse }).await;
        for _ in 0..20 {
            let answer = scene.store.take(&[take(30)]).await;
            admitted += u32::from(answer.is_ok_and(|taken| taken[0].decision.is_allowed()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(admitted <= 30, "{admitted}");
    scene.proxy.turn(Weather::Fair).await;
    back_within_a_second(&scene.store).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn limit_holds_through_an_outage_where_it_is_counted_locally() {
    let scene = Scene::before(&redis::url()).await;
    let store = scene.store.clone().with_local_outages();
    let mut admitted = 0;
    for i in 0..90 {
        if i == 10 {
            scene.proxy.turn(Weather::Silent).await;
        }
        let decision = store.take(&[take(30)]).await.unwrap()[0].decision;
        admitted += u32::from(decision.is_allowed());
    }
    assert_eq!(admitted, 30);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn many_requests_are_no_many_connections() {
    let scene = Scene::before(&redis::url()).await;
    let at_first = scene.proxy.accepted();
    for weather in [Weather::Fair, Weather::Silent] {
        scene.proxy.turn(weather).await;
        let store = Arc::new(scene.inner.clone());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let store = Arc::clone(&store);
            tasks.spawn(async move { tokio::time::timeout(BUDGET, decide(&*store)).await.is_ok() });
        }
        tasks.join_all().await;
    }
    let connections = scene.proxy.accepted() - at_first;
    assert!(connections <= 6, "{connections}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn connection_that_was_closed_while_idle_fails_nobody() {
    let server = OwnServer::start().await;
    let store = RedisRateLimitStore::connect(&server.url()).await.unwrap();
    let mut redis = redis::connection(&server.url()).await;
    for _ in 0..4 {
        decide(&store).await.unwrap();
    }
    cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec_async(&mut redis).await.unwrap();
    // The store's own time can't be moved: it is that of sockets.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..4 {
        decide(&store).await.unwrap();
    }
    assert_eq!(counted(&store).await, 8);
}

/// The most that one client's flood is to get: what Redis admits, and what is decided here.
const TWICE: usize = 2;

/// What becomes of a request that the store fails to decide, and where outages are decided.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Policy {
    Allow,
    Deny,
    Local,
}

/// Asks without pause by so many tasks, and counts what is admitted: in a process that has little
/// time for each, as it has that serves so many connections.
async fn flood(store: &FallbackStore, tasks: usize, take: Take, policy: Policy) -> usize {
    let works = Duration::from_micros(50);
    let end = Instant::now() + Duration::from_secs(2);
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (store, take) = (store.clone(), take.clone());
        flood.spawn(async move {
            let mut admitted = 0;
            while Instant::now() < end {
                let answer = store.take(std::slice::from_ref(&take)).await;
                let Ok(mut taken) = answer else {
                    assert_ne!(policy, Policy::Deny, "503 while Redis is only late");
                    admitted += 1;
                    continue;
                };
                let allowed = taken[0].decision.is_allowed();
                admitted += usize::from(allowed);
                let work = Instant::now();
                while work.elapsed() < works {}
                tokio::task::yield_now().await;
                if let Some(hold) = taken[0].hold.take() {
                    // A wrong password: it counts.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    _ = store.settle(*hold, true).await;
                }
            }
            admitted
        });
    }
    flood.join_all().await.into_iter().sum()
}

async fn flood_gets_at_most_twice_the_limit(policy: Policy, held: bool) {
    let limit = if held { 5 } else { 100 };
    for (tasks, slow) in [(1, None), (400, None), (800, None), (400, Some(20))] {
        let scene = Scene::before(&redis::url()).await;
        let store = match policy {
            Policy::Local => scene.store.clone().with_local_outages(),
            Policy::Allow | Policy::Deny => scene.store.clone(),
        };
        if let Some(ms) = slow {
            // The proxy's delay holds up what comes after, too, as a busy server does.
            scene.proxy.turn(Weather::Delay(Duration::from_millis(ms))).await;
        }
        let flooded = if held { take(limit).on_trial() } else { take(limit) };
        let admitted = flood(&store, tasks, flooded, policy).await;
        let most = TWICE * limit as usize;
        assert!(admitted <= most, "{admitted} of {limit} for {tasks} tasks, {slow:?}, {policy:?}");
        assert!(!store.is_open());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis: run tests/run"]
async fn flood_of_a_client_gets_at_most_twice_the_limit() {
    flood_gets_at_most_twice_the_limit(Policy::Allow, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis: run tests/run"]
async fn flood_of_a_client_gets_at_most_twice_the_limit_where_outages_are_local() {
    flood_gets_at_most_twice_the_limit(Policy::Local, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis: run tests/run"]
async fn flood_of_a_client_gets_at_most_twice_the_limit_where_outages_are_denied() {
    flood_gets_at_most_twice_the_limit(Policy::Deny, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis: run tests/run"]
async fn flood_of_guesses_gets_at_most_twice_the_limit() {
    flood_gets_at_most_twice_the_limit(Policy::Allow, true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn proxy_that_hangs_up_at_client_commands_is_no_obstacle() {
    let scene = Scene::before(&redis::url()).await;
    scene.proxy.turn(Weather::HangUpAt(b"CLIENT")).await;
    let url = format!("redis://{}", scene.proxy.address());
    let store = RedisRateLimitStore::connect(&url).await.unwrap().with_prefix(&redis::prefix());
    assert!(decide(&store).await.unwrap().is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run tests/run"]
async fn call_that_hangs_keeps_nobody_else_waiting() {
    let scene = Scene::before(&redis::url()).await;
    decide(&scene.store).await.unwrap();
    scene.proxy.turn(Weather::Silent).await;
    assert!(tokio::time::timeout(BUDGET, decide(&scene.inner)).await.is_err());
    scene.proxy.turn(Weather::Fair).await;
    let start = Instant::now();
    for _ in 0..4 {
        _ = tokio::time::timeout(2 * BUDGET, decide(&scene.inner)).await;
    }
    decide(&scene.inner).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(350), "one waited for another's call");
}
