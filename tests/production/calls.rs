//! What refusals cost Redis.

use std::collections::BTreeMap;

use ::redis::cmd;
use serde_json::json;

use crate::{api::Call, scene::Scene};

/// How often scripts were called.
async fn script_calls(scene: &Scene) -> u64 {
    let mut redis = scene.redis().await;
    let info: String = cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
    let calls: BTreeMap<_, _> = info
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
        .filter_map(|(command, rest)| Some((command, rest.split(',').next()?.parse().ok()?)))
        .collect();
    ["eval", "evalsha", "fcall"].iter().filter_map(|command| calls.get(command)).sum::<u64>()
}

/// A refusal is remembered for a while, also where a route has two limiters, and where it is for its
/// headers that a request is refused: a flood costs Redis next to nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn refused_again_and_again_asks_redis_now_and_then() {
    const FLOOD: u64 = 400;
    let scene = Scene::new().await;
    let settings = scene.settings();
    let first = settings.clone().with("RATE_LIMIT_PUBLIC", "3/1h").start().await;
    let second = settings.with("RATE_LIMIT_REGISTER", "3/1h").start().await;
    let resend = json!({"email": "nobody@example.com"});
    type Ask<'a> = &'a dyn Fn() -> Call;
    let cases: [(&str, u16, Ask<'_>); 4] = [
        ("one limiter", 200, &|| first.api.get("/public/status").from("203.0.113.1")),
        ("the first of two", 202, &|| {
            first.api.post("/auth/verify/resend", &resend).from("203.0.113.2")
        }),
        ("the second of two", 202, &|| {
            second.api.post("/auth/verify/resend", &resend).from("203.0.113.3")
        }),
        ("two Authorization headers", 400, &|| {
            first.api.get("/auth/me").bearer("a").bearer("b").from("203.0.113.4")
        }),
    ];
    for (what, admitted, ask) in cases {
        for _ in 0..3 {
            ask().send().await.expect(admitted);
        }
        let before = script_calls(&scene).await;
        let begun = std::time::Instant::now();
        for _ in 0..FLOOD {
            ask().send().await.expect(429);
        }
        let calls = script_calls(&scene).await - before;
        println!("{what}: {calls} script calls for {FLOOD} refusals in {:?}", begun.elapsed());
        // One a second, and what a busy machine may add.
        assert!(calls <= 5 + begun.elapsed().as_secs() * 2, "{what}: {calls} script calls");
    }
}
