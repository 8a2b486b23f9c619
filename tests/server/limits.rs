//! Limits by address and by user, and what responses say of them.

use std::{collections::VecDeque, future::IntoFuture, time::Duration};

use http::Method;
use serde_json::json;
use tower_warden::{Clock, Plan, Role, UserId, user::UserChange};

use crate::{
    reply::Limiter,
    support::{Api, Call, MINUTE, NO_ID, SECOND, Server},
};

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test]
async fn unauthenticated_client_is_refused_after_100_requests() {
    let server = Server::start().await;
    let client = "203.0.113.9";
    let calls: [fn(&Server) -> Call; 5] = [
        |server| server.get("/public/status"),
        |server| server.get("/nowhere"),
        |server| server.get("/auth/login"),
        |server| server.get("/auth/me"),
        |server| server.get("/projects").bearer("x"),
    ];
    for n in 1..=100 {
        let reply = calls[n as usize % 5](&server).from(client).await;
        assert_eq!((reply.status == 429, reply.remaining()), (false, 100 - n), "{reply:?}");
    }
    for call in calls {
        let reply = call(&server).from(client).await.refused(429, "rate_limited");
        assert_eq!((reply.retry_after(), reply.limit().unwrap()[..2].to_vec()), (60, vec![100, 0]));
        assert_eq!(reply.json()["violated-policies"], json!(["ip"]));
    }
    server.get("/public/status").from("203.0.113.10").await.expect(200);
    let member = server.join(Role::VIEWER).await;
    server.get("/projects").by(&member).from(client).await.expect(200);
    server.clock.advance(MINUTE);
    server.get("/public/status").from(client).await.expect(200);
}

#[tokio::test]
async fn user_has_300_requests_a_minute() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let other_session = server.session(&UserId::from(&*member.id), Role::VIEWER, "").await;
    for n in 1..=300 {
        // One user, whatever the session and the address.
        let session = if n % 2 == 0 { &member } else { &other_session };
        let call = server.get("/auth/me").by(session).from(&format!("192.0.2.{}", n % 250));
        let reply = call.await.expect(200);
        assert_eq!(reply.limit().unwrap()[..2], [300, 300 - n]);
    }
    let reply = server.get("/projects").by(&member).await.refused(429, "rate_limited");
    assert_eq!(reply.json()["violated-policies"], json!(["user"]));
    let other = server.join(Role::VIEWER).await;
    server.get("/projects").by(&other).await.expect(200);
    assert_eq!(server.get("/public/status").await.expect(200).remaining(), 99);
}

#[tokio::test]
async fn admin_is_not_limited() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    for _ in 0..400 {
        let reply = server.get("/auth/me").by(&admin).await.expect(200);
        assert_eq!(reply.limit(), None);
    }
    // But only where they are known as admins.
    assert_eq!(server.get("/public/status").by(&admin).await.remaining(), 99);
}

#[tokio::test]
async fn headers_are_on_every_limited_response() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    for (call, limiters) in [
        (server.get("/public/status"), &["ip"][..]),
        (server.get("/.well-known/jwks.json"), &["ip"]),
        (server.get("/auth/verify"), &["ip"]),
        (server.get("/nowhere"), &["ip"]),
        (server.delete("/public/status"), &["ip"]),
        (server.post("/auth/register", json!({})), &["ip", "register"]),
        (server.post("/auth/refresh", json!({"refresh_token": ""})), &["ip"]),
        (server.post("/auth/logout", json!({"refresh_token": ""})), &["ip"]),
        (server.post("/auth/verify/resend", json!({})), &["ip", "register"]),
        (server.login("nobody@example.com", ""), &["ip", "login", "account"]),
        (server.post("/auth/login", json!([])), &["ip", "login"]),
        (server.get("/auth/me"), &["ip"]),
        (server.get("/auth/me").bearer("x"), &["ip"]),
        (server.get("/auth/me").bearer("x").bearer("x"), &["ip"]),
        (server.get("/auth/me").by(&member), &["user"]),
        (server.head("/auth/me").by(&member), &["user"]),
        (server.get("/analytics").by(&member), &["user"]),
        (server.get("/projects?limit=0").by(&member), &["user"]),
        (server.get(&format!("/projects/{NO_ID}")).by(&member), &["user"]),
        (server.get("/projects/1").by(&member), &["user"]),
        (server.call(Method::PUT, "/projects").by(&member), &["user"]),
    ] {
        let reply = call.await;
        // That all headers are there and agree is checked of every reply.
        assert_eq!(reply.limiter_names(), limiters, "{reply:?}");
    }
}

#[tokio::test]
async fn plan_decides_how_many_a_user_has() {
    let server = Server::start().await;
    for (plan, limit) in [(Plan::FREE, 60), (Plan::PAID, 600), (Plan::ENTERPRISE, 3000)] {
        let member = server.join(Role::VIEWER).await;
        let change = UserChange::new().with_plan(Some(plan));
        server.users.update(&UserId::from(&*member.id), change).await.unwrap();
        let pair = server.refresh(&member.refresh).await.expect(200);
        let me = || server.get("/auth/me").bearer(&pair.text("access_token")).into_future();
        for n in 1..=limit {
            assert_eq!(me().await.expect(200).limit().unwrap()[..2], [limit, limit - n]);
        }
        me().await.refused(429, "rate_limited");
    }
}

#[tokio::test]
async fn in_no_minute_are_more_than_100_admitted() {
    let server = Server::start().await;
    let mut admitted = VecDeque::new();
    let mut ask = async || {
        let now = server.clock.now();
        while admitted.front().is_some_and(|at| *at + MINUTE <= now) {
            admitted.pop_front();
        }
        let reply = server.get("/public/status").await;
        if reply.status == 200 {
            admitted.push_back(now);
        }
        assert!(admitted.len() <= 100);
        (reply.status, admitted.len())
    };
    // One to begin with, a burst when its minute is nearly over, and greed from then on.
    ask().await;
    server.clock.advance(59_900 * MILLISECOND);
    for _ in 0..150 {
        ask().await;
    }
    for _ in 0..1300 {
        server.clock.advance(100 * MILLISECOND);
        ask().await;
    }
    // Nor are any turned away for longer than the resolution, a 64th of the window.
    server.clock.advance(MINUTE + SECOND);
    for n in 1..=100 {
        assert_eq!(ask().await, (http::StatusCode::OK, n));
    }
}

#[tokio::test]
async fn window_slides() {
    let server = Server::start().await;
    let ask = async |n: usize| {
        let mut admitted = 0;
        for _ in 0..n {
            admitted += usize::from(server.get("/public/status").await.status == 200);
        }
        admitted
    };
    assert_eq!(ask(60).await, 60);
    server.clock.advance(30 * SECOND);
    assert_eq!(ask(60).await, 40);
    server.clock.advance(30 * SECOND - MILLISECOND);
    assert_eq!(ask(1).await, 0);
    server.clock.advance(MILLISECOND);
    assert_eq!(ask(100).await, 60);
    server.clock.advance(30 * SECOND);
    assert_eq!(ask(100).await, 40);
}

#[tokio::test]
async fn refused_request_is_not_counted_and_retry_after_is_kept() {
    let server = Server::start().await;
    let ask = || server.get("/public/status").into_future();
    for _ in 0..100 {
        ask().await.expect(200);
    }
    server.clock.advance(10_500 * MILLISECOND);
    for _ in 0..200 {
        let reply = ask().await.expect(429);
        assert_eq!(reply.retry_after(), 50);
    }
    server.clock.advance(49_499 * MILLISECOND);
    let reply = ask().await.expect(429);
    assert_eq!(
        (reply.retry_after(), reply.text("detail").as_str()),
        (1, "Too many requests. Try again in 1 second.")
    );
    server.clock.advance(MILLISECOND);
    assert_eq!(ask().await.expect(200).remaining(), 99);
}

#[tokio::test]
async fn headers_say_how_the_limit_stands() {
    let server = Server::start().await;
    let epoch = server.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let ip = |remaining, until_more| Limiter {
        name: "ip".to_owned(),
        limit: 100,
        window: 60,
        remaining,
        until_more,
    };
    let reply = server.get("/public/status").await;
    assert_eq!(reply.header("ratelimit-policy"), Some(r#""ip";q=100;w=60"#));
    assert_eq!(reply.header("ratelimit"), Some(r#""ip";r=99;t=60"#));
    assert_eq!(reply.limit(), Some([100, 99, epoch + 60]));

    // `reset` is when the first leaves the window; `t`, while that is sooner, what r would last.
    server.clock.advance(45_500 * MILLISECOND);
    let reply = server.get("/public/status").await;
    assert_eq!(reply.limit(), Some([100, 98, epoch + 60]));
    assert_eq!(reply.limiters(), [ip(98, 59)]);
    for _ in 0..88 {
        server.get("/public/status").await;
    }
    assert_eq!(server.get("/public/status").await.limiters(), [ip(9, 15)]);

    // With none counted, the reset is now.
    server.clock.advance(2 * MINUTE);
    let body = json!({"email": "nobody", "password": "x"});
    let none = server.post("/auth/register", body).from("192.0.2.7").await.expect(422);
    let register = none.limiter("register");
    assert_eq!((register.remaining, register.until_more), (100, 3600));
}
