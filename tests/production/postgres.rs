//! While PostgreSQL hangs or is gone.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    api::{Api, Pair},
    proxy::{Proxy, Weather},
    scene::{PASSWORD, Scene, Server, admin, fails_to_start, proxy_before},
};

const EMAIL: &str = "ada@example.com";

async fn server_behind_a_proxy(scene: &Scene) -> (Proxy, Server) {
    let (proxy, url) = proxy_before(scene.database.as_str()).await;
    (proxy, scene.settings().with("DATABASE_URL", url).start().await)
}

/// Every route that needs the database says so in time, and never that a token is bad.
async fn all_unavailable(api: &Api, user: &Pair, root: &Pair) {
    let nobody = json!({"email": "bob@example.com", "password": PASSWORD});
    let project = "/projects/6f1c2f0e-5d2f-4a51-9a77-0b6f1c2f0e5d";
    let calls = [
        api.log_in(EMAIL, PASSWORD).from("203.0.113.9"),
        api.refresh(&user.refresh),
        api.log_out(&user.refresh),
        api.post("/auth/register", &nobody),
        api.post("/auth/verify/resend", &json!({"email": EMAIL})),
        api.get(&format!("/auth/verify?token={}", "0".repeat(64))),
        api.get("/auth/me").bearer(&user.access),
        api.get("/projects").bearer(&user.access),
        api.get(project).bearer(&user.access),
        api.post("/projects", &json!({"name": "Notes"})).bearer(&root.access),
        api.get("/analytics").bearer(&root.access),
    ];
    let mut asked = JoinSet::new();
    for call in calls {
        asked.spawn(call.send());
    }
    let status = api.get("/public/status").send().await.expect(200);
    assert!(status.took < Duration::from_secs(1), "{:?}", status.took);
    for reply in asked.join_all().await {
        let reply = reply.expect_unavailable();
        assert!(reply.took < Duration::from_secs(5), "{reply:?}");
    }
}

async fn works_again(api: &Api, user: &Pair) {
    let start = Instant::now();
    while api.get("/auth/me").bearer(&user.access).send().await.status != 200 {
        assert!(start.elapsed() < Duration::from_secs(5), "the database is not used again");
        sleep(Duration::from_millis(20)).await;
    }
    api.get("/projects").bearer(&user.access).send().await.expect(200);
    api.refresh(&user.refresh).send().await.expect(200);
    let login = api.log_in(EMAIL, PASSWORD).from("203.0.113.9").send().await.expect(200);
    assert_eq!(login.remaining("login"), Some(5), "an outage costs no attempt");
}

async fn outage(weather: Weather) {
    let scene = Scene::new().await;
    let (proxy, server) = server_behind_a_proxy(&scene).await;
    let api = &server.api;
    let (user, root) = (scene.user(api, EMAIL).await, admin(api).await);
    proxy.turn(weather).await;
    all_unavailable(api, &user, &root).await;
    proxy.turn(Weather::Fair).await;
    works_again(api, &user).await;
}

/// It is asked for three seconds, for it may be about to start, too.
async fn nobody_answers_at_the_start() {
    let url = "postgres://postgres:hunter1@127.0.0.1:1/postgres".to_owned();
    fails_to_start(Scene::new().await.settings(), "DATABASE_URL", url).await;
}

/// Takes as long as requests wait: some three seconds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn outage_of_the_database_is_503_in_time_and_is_over_when_it_is_over() {
    tokio::join!(
        outage(Weather::Refuse),
        outage(Weather::Silent),
        outage(Weather::HangUp),
        nobody_answers_at_the_start()
    );
}

async fn silent_on_the_way_back(path: &str) {
    /// What the pool asks a connection that comes back: a lone `Sync`.
    const HOW_ARE_YOU: Weather = Weather::SilentAt(b"S\0\0\0\x04");
    let scene = Scene::new().await;
    let (proxy, server) = server_behind_a_proxy(&scene).await;
    let user = scene.user(&server.api, EMAIL).await;
    // Only new connections: those that wait in the pool are asked before their work, too.
    proxy.turn(Weather::Refuse).await;
    proxy.turn(HOW_ARE_YOU).await;
    let mut asked = JoinSet::new();
    for _ in 0..10 {
        asked.spawn(server.api.get(path).bearer(&user.access).send());
    }
    for reply in asked.join_all().await {
        reply.expect(200);
    }
    proxy.turn(Weather::Fair).await;
    works_again(&server.api, &user).await;
}

/// In the pool there is room for ten.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn ten_connections_that_fall_silent_after_their_work_are_replaced() {
    tokio::join!(silent_on_the_way_back("/auth/me"), silent_on_the_way_back("/projects"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn database_that_refuses_us_ends_the_start_with_one_line_without_the_password() {
    let scene = Scene::new().await;
    let place = format!("127.0.0.1:{}", scene.database.port().unwrap());
    let mut starts = JoinSet::new();
    for url in [
        format!("postgres://nobody:hunter1@{place}/postgres"),
        format!("postgres://postgres:hunter1@{place}/nothing"),
        format!("postgres://postgres:hunter1@{place}0000/postgres"),
        format!("mysql://postgres:hunter1@{place}/postgres"),
    ] {
        starts.spawn(fails_to_start(scene.settings(), "DATABASE_URL", url));
    }
    starts.join_all().await;
}
