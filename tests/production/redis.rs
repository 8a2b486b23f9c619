//! While Redis is slow, gone, or refuses us.

use std::time::{Duration, Instant};

use ::redis::cmd;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    api::{Api, Reply},
    proxy::Weather,
    redis_server::{self, OwnServer},
    scene::{Scene, admin, fails_to_start, proxy_before},
};

/// More than is usual: slow machines answer late in fair weather, too.
const BUDGET: Duration = Duration::from_millis(250);
/// What a busy machine may add to what is promised.
const SLACK: Duration = Duration::from_millis(500);

async fn status(api: &Api, ip: &str) -> Reply {
    api.get("/public/status").from(ip).send().await
}

/// Waits until limits are counted in Redis again, for a second.
async fn back_within_a_second(scene: &Scene, api: &Api) {
    let (mut redis, start) = (scene.redis().await, Instant::now());
    loop {
        status(api, "198.51.100.1").await;
        let counted = cmd("EXISTS").arg("rl:ip:198.51.100.1").query_async(&mut redis).await;
        if counted.unwrap() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(1) + SLACK, "limits are not back");
        sleep(Duration::from_millis(10)).await;
    }
}

/// 10 requests an hour, of which 3 are counted when the weather turns.
async fn policy(on_error: &'static str, weather: Weather) {
    let scene = Scene::new().await;
    let (proxy, url) = proxy_before(&scene.redis.url()).await;
    let settings = scene.settings().with("REDIS_URL", url).with("RATE_LIMIT_PUBLIC", "10/1h");
    let settings = settings.with("RATE_LIMIT_ON_ERROR", on_error);
    let server = settings.with("RATE_LIMIT_BUDGET", format!("{BUDGET:?}")).start().await;
    let api = &server.api;
    let root = admin(api).await;
    for remaining in [9, 8, 7] {
        assert_eq!(status(api, "203.0.113.9").await.remaining("ip"), Some(remaining));
    }

    proxy.turn(weather).await;
    let (mut admitted, mut longest) = (0, Duration::ZERO);
    for i in 0..100 {
        let reply = status(api, "203.0.113.9").await;
        longest = longest.max(reply.took);
        match on_error {
            // What is late before Redis is known to be gone is decided in process.
            "allow" if i < 4 => drop(reply.expect(200)),
            "allow" => assert!(reply.expect(200).header("x-ratelimit-limit").is_none()),
            "deny" => drop(reply.expect_unavailable()),
            _ if reply.status == 200 => admitted += 1,
            _ => drop(reply.expect(429)),
        }
        api.get("/auth/me").bearer(&root.access).send().await.expect(200);
    }
    if on_error == "local" {
        assert_eq!(admitted, 7, "what Redis counted counts on");
    }
    assert!(longest < BUDGET + SLACK, "one waited for {longest:?}");

    proxy.turn(Weather::Fair).await;
    back_within_a_second(&scene, api).await;
    assert_eq!(status(api, "203.0.113.9").await.remaining("ip"), Some(6));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn without_redis_requests_fare_as_the_policy_says_and_then_limits_are_back() {
    tokio::join!(
        policy("allow", Weather::Silent),
        policy("deny", Weather::Refuse),
        policy("local", Weather::Silent),
    );
}

async fn starts_under(weather: Weather) {
    let scene = Scene::new().await;
    let (proxy, url) = proxy_before(&scene.redis.url()).await;
    proxy.turn(weather).await;
    let settings = scene.settings().with("REDIS_URL", url);
    let server = settings.with("RATE_LIMIT_BUDGET", format!("{BUDGET:?}")).start().await;
    // One that is silent is late for three calls before it is gone.
    let mut undecided = false;
    for _ in 0..if weather == Weather::Silent { 6 } else { 1 } {
        undecided = status(&server.api, "203.0.113.9").await.expect(200).remaining("ip").is_none();
    }
    assert!(undecided, "{weather:?}");
    proxy.turn(Weather::Fair).await;
    back_within_a_second(&scene, &server.api).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn server_starts_without_redis_and_uses_it_once_it_is_back() {
    tokio::join!(starts_under(Weather::Refuse), starts_under(Weather::Silent));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn redis_that_refuses_us_ends_the_start_with_one_line_without_the_password() {
    let scene = Scene::new().await;
    let locked = OwnServer::start().await;
    let mut redis = redis_server::connection(&locked.url()).await;
    let acl = |rules: &'static str| {
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg(rules.split(' ').collect::<Vec<_>>());
        command
    };
    acl("reader on >hunter2 ~* +get +time").exec_async(&mut redis).await.unwrap();
    let password = ["SET", "requirepass", "hunter1"];
    cmd("CONFIG").arg(&password).exec_async(&mut redis).await.unwrap();

    let place = locked.url().replace("redis://", "");
    let port = place.rsplit(':').next().unwrap();
    let mut starts = JoinSet::new();
    for url in [
        format!("redis://:hunter3@{place}"),
        format!("redis://{place}"),
        format!("redis://:hunter1@{place}/99"),
        format!("redis://reader:hunter2@{place}"),
        format!("redis://:hunter1@127.0.0.1:{port}0000"),
        format!("http://:hunter1@{place}"),
        "hunter1".to_owned(),
        format!("redis://:hunter3@{place},redis://:hunter3@{place}"),
        format!("redis://{place},redis://{place}"),
    ] {
        starts.spawn(fails_to_start(scene.settings(), "REDIS_URL", url));
    }
    starts.join_all().await;
    let right = format!("redis://:hunter1@{place}");
    let server = scene.settings().with("REDIS_URL", right).start().await;
    assert!(status(&server.api, "203.0.113.9").await.remaining("ip").is_some());
}
