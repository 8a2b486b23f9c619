//! Two processes are one service.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    api::{Api, Call, Reply},
    redis_server,
    scene::{ADMIN, PASSWORD, Scene, Server, Settings, admin},
};

/// Sends so many requests at once, to each server its share.
async fn at_once(servers: &[Server], n: usize, call: impl Fn(&Api) -> Call) -> Vec<Reply> {
    let mut calls = JoinSet::new();
    for server in servers.iter().cycle().take(n) {
        calls.spawn(call(&server.api).send());
    }
    calls.join_all().await
}

fn count(replies: &[Reply], status: u16) -> usize {
    replies.iter().filter(|reply| reply.status == status).count()
}

async fn start_at_once(settings: &Settings) -> Vec<Server> {
    let mut starts = JoinSet::new();
    for _ in 0..8 {
        let settings = settings.clone();
        starts.spawn(async move { settings.start().await });
    }
    starts.join_all().await
}

async fn one_limit_of_each_kind(scene: &Scene, settings: &Settings) {
    let settings = settings
        .clone()
        .with("RATE_LIMIT_PUBLIC", "20/1h")
        .with("RATE_LIMIT_USER", "30/1h")
        .with("RATE_LIMIT_LOGIN", "5/1h");
    let servers = scene.two_servers(&settings).await;
    let user = scene.user(&servers[0].api, "ada@example.com").await;

    let replies = at_once(&servers, 60, |api| api.get("/public/status").from("203.0.113.9")).await;
    assert_eq!((count(&replies, 200), count(&replies, 429)), (20, 40));

    let guess = |api: &Api| api.log_in(ADMIN, "Wrong-Horse-1").from("2001:db8:1:2::3");
    let replies = at_once(&servers, 18, guess).await;
    assert_eq!((count(&replies, 401), count(&replies, 429)), (5, 13));
    let refused = servers[1].api.log_in(ADMIN, PASSWORD).from("2001:db8:1:2:4::").send().await;
    assert_eq!(refused.expect(429).text("code"), "too_many_login_attempts");

    let replies = at_once(&servers, 60, |api| api.get("/auth/me").bearer(&user.access)).await;
    assert_eq!((count(&replies, 200), count(&replies, 429)), (30, 30));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn two_servers_keep_one_limit_of_each_kind() {
    let scene = Scene::new().await;
    one_limit_of_each_kind(&scene, &scene.settings()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn two_servers_keep_one_limit_of_each_kind_in_a_cluster() {
    let scene = Scene::new().await;
    let settings = scene.settings().with("REDIS_URL", redis_server::cluster_urls());
    one_limit_of_each_kind(&scene, &settings).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn servers_that_start_at_once_all_start_and_know_one_another() {
    let scene = Scene::new().await;
    let path = |name| scene.path(name).to_str().unwrap().to_owned();
    // No database schema, no admin and no keys yet: all of them make these.
    let settings = scene.settings().with("JWT_PRIVATE_KEY", path("private.pem"));
    let settings = settings.with("JWT_PUBLIC_KEY", path("public.pem"));
    let servers = start_at_once(&settings).await;

    let [first, .., last] = &servers[..] else { panic!() };
    let root = admin(&first.api).await;
    last.api.get("/auth/me").bearer(&root.access).send().await.expect(200);
    let project = json!({"name": "Notes"});
    let project = first.api.post("/projects", &project).bearer(&root.access).send().await;
    let path = format!("/projects/{}", project.expect(201).text("id"));
    last.api.get(&path).bearer(&root.access).send().await.expect(200);
    last.api.refresh(&root.refresh).send().await.expect(200);
    first.api.refresh(&root.refresh).send().await.expect(401);

    // With keys to begin with they are closer together.
    start_at_once(&Scene::new().await.settings()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn what_a_server_has_begun_it_finishes_and_the_next_goes_on_from_there() {
    let scene = Scene::new().await;
    let settings = scene.settings().with("RATE_LIMIT_PUBLIC", "20/1h");
    let first = settings.start().await;
    let root = admin(&first.api).await;
    first.api.get("/public/status").from("203.0.113.9").send().await.expect(200);
    tokio::time::timeout(Duration::from_secs(10), first.end()).await.unwrap();

    let second = settings.start().await;
    second.api.get("/auth/me").bearer(&root.access).send().await.expect(200);
    second.api.refresh(&root.refresh).send().await.expect(200);
    let status = second.api.get("/public/status").from("203.0.113.9").send().await;
    assert_eq!(status.remaining("ip"), Some(18));
}
