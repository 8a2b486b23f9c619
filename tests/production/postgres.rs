//! While PostgreSQL hangs or is gone.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    api::{Api, Pair},
    proxy::{Proxy, Weather},
    redis::proxy_before,
    scene::{PASSWORD, Scene, Server, admin},
};

const EMAIL: &str = "ada@example.com";

async fn server_behind_a_proxy(scene: &Scene) -> (Proxy, Server) {
    let (proxy, url) = proxy_before(scene.database.as_str()).await;
    (proxy, scene.settings().with("DATABASE_URL", url).start().await)
}

/// Every route that needs the database says so in time, and never that a token is bad.
async fn all_unavailable(api: &Api, user: &Pair, root: &Pair) -> Duration {
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
    let replies = asked.join_all().await.into_iter();
    let longest = replies.map(|reply| reply.expect_unavailable().took).max().unwrap();
    assert!(longest < Duration::from_secs(5), "one waited for {longest:?}");
    longest
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
    let longest = all_unavailable(api, &user, &root).await;
    proxy.turn(Weather::Fair).await;
    works_again(api, &user).await;
    println!("{weather:?}: the longest waited for {longest:?}");
}

/// Waits as long as requests do: some four seconds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn outage_of_the_database_is_503_in_time_and_is_over_when_it_is_over() {
    tokio::join!(outage(Weather::Refuse), outage(Weather::Silent));
}

/// Connections that fall silent at whatever moment, also while nothing is asked of them, don't
/// stay taken.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn database_that_hangs_again_and_again_under_load_costs_no_connection() {
    let scene = Scene::new().await;
    let (proxy, server) = server_behind_a_proxy(&scene).await;
    let user = scene.user(&server.api, EMAIL).await;
    let mut clients = JoinSet::new();
    for i in 0..20 {
        let (api, user) = (server.api.clone(), user.clone());
        clients.spawn(async move {
            loop {
                let path = if i % 2 == 9 { "/auth/me" } else { "/projects" };
                let reply = api.get(path).bearer(&user.access).send().await;
                assert!(matches!(reply.status.as_u16(), 200 | 503), "{reply:?}");
            }
        });
    }
    for _ in 0..8 {
        proxy.turn(Weather::Silent).await;
        sleep(Duration::from_millis(20)).await;
        proxy.turn(Weather::Fair).await;
        sleep(Duration::from_millis(4000)).await;
    }
    clients.shutdown().await;
    works_again(&server.api, &user).await;
}
