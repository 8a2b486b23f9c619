//! What one server ends, the other knows within a second: told by PostgreSQL, or, where a pooler keeps that
//! from them, asked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    api::{Api, Reply},
    pgbouncer::pgbouncer,
    scene::{Scene, Server, admin},
};

/// Within a second, says the contract; the machine may be busy, and a change may hash a password first.
/// Without what is tested here it would be a quarter of an hour.
const BUSY: Duration = Duration::from_secs(4);

/// Asks until the answer is not 200: what it is then, and after how long.
async fn until_refused(api: &Api, token: &str, begun: Instant) -> (String, Duration) {
    loop {
        let reply = api.get("/projects?limit=1").bearer(token).send().await;
        if reply.status != 200 {
            return (reply.expect(401).text("code"), begun.elapsed());
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "it is not heard of");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn what_one_ends_the_other_knows([one, other]: [Server; 2], scene: &Scene) {
    let [one, other] = [&one.api, &other.api];
    let root = admin(one).await;
    let me = async |token: &str| -> Reply { other.get("/auth/me").bearer(token).send().await };
    let tell = |path: String, body: Value, token: &str| one.post(&path, &body).bearer(token).send();
    for round in 0..3 {
        let email = format!("{round}@example.com");
        let session = scene.user(one, &email).await;
        let id = me(&session.access).await.expect(200).text("id");
        let path = format!("/admin/users/{id}");

        // Another role: the client is to refresh, and then it counts.
        let begun = Instant::now();
        let role = json!({"role": "editor"});
        one.patch(&path, &role).bearer(&root.access).send().await.expect(200);
        let (code, took) = until_refused(other, &session.access, begun).await;
        println!("another role is known elsewhere after {took:?}");
        assert_eq!(code, "token_expired");
        assert!(took < BUSY, "{took:?}");
        let session = other.refresh(&session.refresh).send().await.expect(200).pair();
        let project = json!({"name": "Notes"});
        other.post("/projects", &project).bearer(&session.access).send().await.expect(201);

        // All the ways in which a session ends.
        for way in ["logout", "logout-all", "change", "suspended", "deleted"] {
            let pair = one.log_in(&email, crate::scene::PASSWORD).send().await.expect(200).pair();
            me(&pair.access).await.expect(200);
            let begun = Instant::now();
            match way {
                "logout" => drop(one.log_out(&pair.refresh).send().await.expect(204)),
                "logout-all" => {
                    tell("/auth/logout-all".into(), json!({}), &pair.access).await.expect(204);
                }
                "change" => {
                    let by = one.log_in(&email, crate::scene::PASSWORD).send().await.expect(200);
                    let body = json!({"current_password": crate::scene::PASSWORD,
                                      "password": crate::scene::PASSWORD});
                    let path = "/auth/password/change".to_owned();
                    tell(path, body, &by.pair().access).await.expect(200);
                }
                "suspended" => {
                    for suspended in [true, false] {
                        let body = json!({"suspended": suspended});
                        one.patch(&path, &body).bearer(&root.access).send().await.expect(200);
                    }
                }
                _ => {
                    let body = json!({"current_password": crate::scene::PASSWORD});
                    tell("/auth/me/delete".into(), body, &pair.access).await.expect(204);
                    // At once, and before it is heard of: a right password is never called wrong.
                    let body = json!({"current_password": crate::scene::PASSWORD,
                                      "password": crate::scene::PASSWORD});
                    let change = other.post("/auth/password/change", &body).bearer(&pair.access);
                    assert_eq!(change.send().await.expect(401).text("code"), "token_revoked");
                    assert_eq!(me(&pair.access).await.expect(401).text("code"), "token_revoked");
                }
            }
            let (code, took) = until_refused(other, &pair.access, begun).await;
            println!("{way} is known elsewhere after {took:?}");
            assert_eq!(code, "token_revoked", "{way}");
            assert!(took < BUSY, "{way}: {took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn what_one_server_ends_the_other_knows_within_a_second() {
    let scene = Scene::new().await;
    let servers = scene.two_servers(&scene.settings()).await;
    what_one_ends_the_other_knows(servers, &scene).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL, PgBouncer and Redis: run tests/run"]
async fn what_one_server_ends_the_other_knows_within_a_second_behind_a_pooler() {
    let scene = Scene::new().await;
    let (url, _directory, _running) = pgbouncer(&scene.database);
    let listens = async {
        let address = (url.host_str().unwrap(), url.port().unwrap());
        while tokio::net::TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), listens).await.expect("no PgBouncer");
    let settings = scene.settings().with("DATABASE_URL", url.as_str());
    let servers = scene.two_servers(&settings).await;
    what_one_ends_the_other_knows(servers, &scene).await;
}
