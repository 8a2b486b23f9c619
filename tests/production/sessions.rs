//! Refresh tokens that reach two processes at once.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    api::{Api, Pair, Reply},
    scene::{PASSWORD, Scene, admin},
};

const EMAIL: &str = "ada@example.com";

async fn log_in(api: &Api) -> Pair {
    api.log_in(EMAIL, PASSWORD).send().await.expect(200).pair()
}

/// What a refresh left: a pair, or none because the token was worth nothing.
fn refreshed(reply: &Reply) -> Option<Pair> {
    match reply.status.as_u16() {
        200 => Some(reply.pair()),
        401 => None,
        _ => panic!("{reply:?}"),
    }
}

async fn expect_dead(api: &Api, tokens: impl IntoIterator<Item = String>) {
    for token in tokens {
        assert_eq!(refreshed(&api.refresh(&token).send().await).map(|pair| pair.access), None);
    }
}

fn role(access_token: &str) -> String {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(access_token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["role"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn of_a_hundred_refreshes_with_one_token_one_wins_and_the_session_ends() {
    /// So many take a second without optimisation; 200 have been tried.
    const ROUNDS: usize = 10;
    let scene = Scene::new().await;
    let servers = scene.two_servers(&scene.settings()).await;
    scene.user(&servers[0].api, EMAIL).await;
    for round in 0..ROUNDS {
        let token = log_in(&servers[0].api).await.refresh;
        let mut presentations = JoinSet::new();
        for server in servers.iter().cycle().take(100) {
            presentations.spawn(server.api.refresh(&token).send());
        }
        let replies = presentations.join_all().await;
        let winners: Vec<_> = replies.iter().filter_map(refreshed).collect();
        assert_eq!(winners.len(), 1, "in round {round}");
        expect_dead(&servers[round % 2].api, winners.into_iter().map(|pair| pair.refresh)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn logout_that_races_refresh_leaves_no_live_token() {
    const ROUNDS: usize = 40;
    let scene = Scene::new().await;
    let [a, b] = scene.two_servers(&scene.settings()).await;
    scene.user(&a.api, EMAIL).await;
    for _ in 0..ROUNDS {
        let first = log_in(&a.api).await.refresh;
        let (refresh, logout) =
            tokio::join!(a.api.refresh(&first).send(), b.api.log_out(&first).send());
        logout.expect(204);
        let second = refreshed(&refresh).map(|pair| pair.refresh);
        expect_dead(&b.api, second.into_iter().chain([first])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn logout_all_that_races_refresh_leaves_no_live_token() {
    const ROUNDS: usize = 10;
    let scene = Scene::new().await;
    let servers = scene.two_servers(&scene.settings()).await;
    let [a, b] = &servers;
    scene.user(&a.api, EMAIL).await;
    for _ in 0..ROUNDS {
        let sessions = tokio::join!(log_in(&a.api), log_in(&a.api), log_in(&b.api), log_in(&b.api));
        let sessions: [Pair; 4] = sessions.into();
        let mut refreshes = JoinSet::new();
        for (server, session) in servers.iter().cycle().zip(&sessions) {
            refreshes.spawn(server.api.refresh(&session.refresh).send());
        }
        // Two who leave every session at once don't get into one another's way either.
        let everywhere =
            |api: &Api| api.post("/auth/logout-all", &json!({})).bearer(&sessions[0].access).send();
        let (one, other) = tokio::join!(everywhere(&a.api), everywhere(&b.api));
        one.expect(204);
        other.expect(204);
        let refreshes = refreshes.join_all().await;
        let successors = refreshes.iter().filter_map(refreshed).map(|pair| pair.refresh);
        let sessions = sessions.iter().map(|session| session.refresh.clone());
        expect_dead(&a.api, successors.chain(sessions).collect::<Vec<_>>()).await;
    }
}

/// A demotion ends no session, but no token that is made after it knows the old role.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn demotion_that_races_refresh_shows_in_the_next_pair() {
    const ROUNDS: usize = 20;
    let scene = Scene::new().await;
    let [a, b] = scene.two_servers(&scene.settings()).await;
    let mut session = scene.user(&a.api, EMAIL).await;
    let root = admin(&b.api).await.access;
    let me = a.api.get("/auth/me").bearer(&session.access).send().await;
    let path = format!("/admin/users/{}", me.expect(200).text("id"));
    let change = |role: &str| b.api.patch(&path, &json!({"role": role})).bearer(&root).send();
    for _ in 0..ROUNDS {
        change("editor").await.expect(200);
        let (refresh, demoted) =
            tokio::join!(a.api.refresh(&session.refresh).send(), change("viewer"));
        demoted.expect(200);
        let next = a.api.refresh(&refresh.expect(200).pair().refresh).send().await;
        session = next.expect(200).pair();
        assert_eq!(role(&session.access), "viewer");
    }
}
