//! What stands in Redis.

use ::redis::{aio::MultiplexedConnection, cmd};

use crate::{
    redis_server::pttl,
    scene::{ADMIN, Scene},
};

async fn all_keys(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut keys: Vec<String> = cmd("KEYS").arg("*").query_async(redis).await.unwrap();
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn keys_are_named_as_the_contract_says_and_none_lives_for_ever() {
    let scene = Scene::new().await;
    let settings = scene.settings().with("RATE_LIMIT_PUBLIC", "7/30m");
    let server = settings.with("RATE_LIMIT_USER", "90/10m").start().await;
    let api = &server.api;
    let ada = scene.user(api, "ada@example.com").await;
    let me = api.get("/auth/me").bearer(&ada.access).send().await.expect(200);
    for _ in 0..9 {
        api.get("/public/status").from("203.0.113.9").send().await;
    }
    api.log_in(ADMIN, "Wrong-Horse-1").from("2001:db8:1:2:3::4").send().await.expect(401);
    api.get("/auth/me").from("::ffff:198.51.100.7").send().await.expect(401);
    // What no one is: not an address, and not a key.
    api.get("/public/status").from("rl:ip:{0}").send().await.expect(200);

    let mut redis = scene.redis().await;
    let user = format!("rl:user:{}", me.text("id"));
    let minutes = [
        ("rl:ip:127.0.0.1", 30),
        ("rl:ip:198.51.100.7", 30),
        ("rl:ip:2001:db8:1:2::/64", 30),
        ("rl:ip:203.0.113.9", 30),
        ("rl:login:2001:db8:1:2::/64", 15),
        ("rl:register:127.0.0.1", 60),
        (&*user, 10),
    ];
    let keys = all_keys(&mut redis).await;
    // That of the question whether Redis would have us lives for a second.
    let keys: Vec<_> = keys.iter().filter(|key| *key != "rl:probe:=probe").collect();
    // An account is a hash of its address: nobody reads addresses in Redis.
    let (accounts, keys): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|key| key.starts_with("rl:account:="));
    assert_eq!(
        accounts.iter().map(|key| key.len()).collect::<Vec<_>>(),
        ["rl:account:=".len() + 64]
    );
    assert_eq!(keys, minutes.map(|(key, _)| key));
    for (key, minutes) in minutes {
        let left = pttl(&mut redis, key).await;
        assert!((1..=minutes * 60_000).contains(&left), "{key} lives for {left} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn what_is_not_ours_is_replaced_at_the_first_request_which_is_counted() {
    let scene = Scene::new().await;
    let server = scene.settings().with("RATE_LIMIT_PUBLIC", "7/30m").start().await;
    let mut redis = scene.redis().await;
    let foreign = [
        ("203.0.113.1", cmd("RPUSH").arg("rl:ip:203.0.113.1").arg("a").to_owned()),
        ("203.0.113.2", cmd("HSET").arg("rl:ip:203.0.113.2").arg("a").arg("b").to_owned()),
        ("203.0.113.3", cmd("SET").arg("rl:ip:203.0.113.3").arg("").to_owned()),
        ("203.0.113.4", cmd("SET").arg("rl:ip:203.0.113.4").arg("1000000").to_owned()),
        ("203.0.113.5", cmd("SET").arg("rl:ip:203.0.113.5").arg(&[167_u8; 40]).to_owned()),
        ("203.0.113.6", cmd("SET").arg("rl:ip:203.0.113.6").arg(&[255_u8; 999]).to_owned()),
    ];
    for (ip, put) in foreign {
        put.exec_async(&mut redis).await.unwrap();
        for remaining in [6, 5] {
            let reply = server.api.get("/public/status").from(ip).send().await.expect(200);
            assert_eq!(reply.remaining("ip"), Some(remaining), "{ip}");
        }
        assert!(pttl(&mut redis, &format!("rl:ip:{ip}")).await > 0, "{ip}");
    }
}
