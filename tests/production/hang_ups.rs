//! Clients that hang up in the middle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::query_scalar;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    api::Api,
    metrics::{Metrics, metrics_address},
    scene::{ADMIN, PASSWORD, Scene},
};

/// Sends a request, and hangs up after so long.
async fn hang_up(api: Api, path: &str, body: Value, after: Duration) {
    let (host, body) = (api.authority().to_owned(), body.to_string());
    let mut connection = TcpStream::connect(&host).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nx-forwarded-for: 203.0.113.9\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    sleep(after).await;
    if after.as_millis().is_multiple_of(2) {
        connection.set_zero_linger().unwrap();
    }
}

/// The most passwords that were hashed at once, whenever one looked.
async fn most_running(metrics: Metrics, done: Arc<AtomicBool>) -> f64 {
    let mut most: f64 = 0.0;
    while !done.load(Ordering::Relaxed) {
        let sample = metrics.read().await.value("tower_warden_hashing_running");
        most = most.max(sample.unwrap_or(0.0));
        sleep(Duration::from_millis(5)).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn thousand_clients_that_hang_up_leave_nothing_open_and_nothing_uncounted() {
    const LIMIT: u32 = 2000;
    let scene = Scene::new().await;
    let address = metrics_address();
    let settings = scene.settings().with("RATE_LIMIT_LOGIN", format!("{LIMIT}/1h"));
    let server = settings.with("METRICS_ADDR", &address).start().await;
    let api = &server.api;
    let metrics = Metrics::at(&address);
    let done = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(most_running(metrics.clone(), Arc::clone(&done)));

    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(api.log_in(ADMIN, PASSWORD).send().await.expect(200).pair().refresh);
    }
    for batch in 0..10 {
        let mut clients = JoinSet::new();
        for i in 0..50 {
            // Some wait long enough to have their password looked at on a busy machine, too.
            let patient = if i % 5 == 0 { 150 } else { 0 };
            let after = Duration::from_millis((batch * 50 + i) % 23 + patient);
            let guess = json!({"email": ADMIN, "password": "Wrong-Horse-1"});
            clients.spawn(hang_up(api.clone(), "/auth/login", guess, after));
            let token = &sessions[(batch * 2 + i % 2) as usize];
            let token = json!({"refresh_token": token});
            clients.spawn(hang_up(api.clone(), "/auth/refresh", token, after));
        }
        clients.join_all().await;
    }
    done.store(true, Ordering::Relaxed);

    let mut sql = scene.sql().await;
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND backend_type = 'client backend' AND pid <> pg_backend_pid()
                AND state <> 'idle'";
    let start = Instant::now();
    while query_scalar::<_, i64>(busy).fetch_one(&mut sql).await.unwrap() > 0 {
        assert!(start.elapsed() < Duration::from_secs(2), "a connection is left in a transaction");
        sleep(Duration::from_millis(10)).await;
    }
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    let most = watch.await.unwrap();
    assert!((1.0..=cores).contains(&most), "{most} passwords were hashed at once");

    // All admitted by the limit, this one too, are counted; but for logins of ours that were right.
    let guess = api.log_in(ADMIN, "Wrong-Horse-1").from("203.0.113.9").send().await.expect(401);
    let counted = LIMIT - guess.remaining("login").unwrap();
    let admitted = r#"tower_warden_limit_decisions_total{limiter="login",outcome="allowed"}"#;
    let page = metrics.read().await;
    let admitted = page.value(admitted).unwrap() as u32 - sessions.len() as u32;
    assert!(admitted > 10, "they hung up too early: {admitted}");
    assert!(counted >= admitted, "{counted} counted of {admitted}");
    assert_eq!(page.value("tower_warden_hashing_running"), Some(0.0));
    assert_eq!(page.value("tower_warden_hashing_waiting"), Some(0.0));
}
