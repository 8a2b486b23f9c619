//! The limit on guesses: taken before the password is looked at, given back unless it was wrong.

use http::Method;
use serde_json::json;
use tower_warden::{Quota, Role};

use crate::reply::Reply;
use crate::support::{
    Api, Call, MINUTE, PASSWORD, SECOND, Server, Session, at_once, count, in_flight,
};

#[tokio::test]
async fn login_is_refused_after_5_failures_in_15_minutes() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    for n in 1..=5 {
        let reply = wrong(&server, &member).await.refused(401, "invalid_credentials");
        assert_eq!(reply.limit().unwrap()[..2], [5, 5 - n]);
        server.clock.advance(SECOND);
    }
    for call in [wrong(&server, &member), right(&server, &member)] {
        let reply = call.await.refused(429, "too_many_login_attempts");
        assert_eq!(reply.retry_after(), 895);
        assert_eq!(reply.text("detail"), "Too many login attempts. Try again in 15 minutes.");
        assert_eq!(reply.json()["violated-policies"], json!(["login"]));
    }
    right(&server, &member).from("203.0.113.9").await.expect(200);

    server.clock.advance(894 * SECOND);
    let reply = wrong(&server, &member).await.refused(429, "too_many_login_attempts");
    assert_eq!(reply.text("detail"), "Too many login attempts. Try again in 1 minute.");
    server.clock.advance(SECOND);
    // One has left the window, and one only.
    wrong(&server, &member).await.refused(401, "invalid_credentials");
    wrong(&server, &member).await.refused(429, "too_many_login_attempts");
}

#[tokio::test]
async fn only_wrong_passwords_count() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    server.register("unverified@example.com").await;
    let login = || server.call(Method::POST, "/auth/login");
    let harmless = || {
        [
            right(&server, &member),
            server.login("unverified@example.com", PASSWORD),
            server.post("/auth/login", json!({"email": "x"})),
            login().body("application/json", "{"),
            login().body("text/plain", "x"),
            login().body("application/json", vec![b' '; 100_000]),
            login().bearer("x").bearer("y"),
            server.get("/auth/login"),
        ]
    };
    for failures in 0..5 {
        let mut statuses = Vec::new();
        for call in harmless() {
            let reply = call.await;
            statuses.push(reply.status.as_u16());
            if let Some(login) = reply.limiters().iter().find(|limiter| limiter.name == "login") {
                assert_eq!(login.remaining, 5 - failures, "{reply:?}");
            }
        }
        assert_eq!(statuses, [200, 403, 422, 400, 415, 413, 400, 405]);
        // Neither do they forgive.
        assert_eq!(wrong(&server, &member).await.expect(401).remaining(), 4 - failures);
    }
    wrong(&server, &member).await.refused(429, "too_many_login_attempts");
}

#[tokio::test]
async fn parallel_guesses_get_no_more_attempts() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let replies = at_once((0..50).map(|_| wrong(&server, &member))).await;
    assert_eq!((count(&replies, 401), count(&replies, 429)), (5, 45));
}

#[tokio::test]
async fn refusal_for_attempts_in_flight_says_to_come_back_in_a_second() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let mut attempts = Vec::new();
    for _ in 0..5 {
        attempts.push(in_flight(wrong(&server, &member)).await);
    }
    let sixth = right(&server, &member).await.refused(429, "too_many_login_attempts");
    assert_eq!(sixth.retry_after(), 1);
    assert_eq!(sixth.text("detail"), "Too many login attempts. Try again in 1 minute.");

    for attempt in attempts {
        attempt.await.refused(401, "invalid_credentials");
    }
    let reply = right(&server, &member).await.refused(429, "too_many_login_attempts");
    assert_eq!(reply.retry_after(), 900);
}

#[tokio::test]
async fn logins_in_flight_that_succeed_leave_all_attempts() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let replies = at_once((0..5).map(|_| right(&server, &member))).await;
    assert_eq!(count(&replies, 200), 5);
    assert_eq!(right(&server, &member).await.expect(200).limiter("login").remaining, 5);
}

#[tokio::test]
async fn login_whose_client_hangs_up_stays_counted() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    for _ in 0..5 {
        drop(in_flight(right(&server, &member)).await);
    }
    let reply = right(&server, &member).await.refused(429, "too_many_login_attempts");
    assert_eq!(reply.retry_after(), 900);
}

#[tokio::test]
async fn what_one_limiter_refuses_the_other_does_not_count() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    for _ in 0..5 {
        wrong(&server, &member).await.expect(401);
    }
    for _ in 0..10 {
        wrong(&server, &member).await.expect(429);
    }
    assert_eq!(server.get("/public/status").await.remaining(), 94);
    // The other way round.
    for _ in 0..100 {
        server.get("/public/status").from("192.0.2.1").await.expect(200);
    }
    for _ in 0..10 {
        let reply = wrong(&server, &member).from("192.0.2.1").await.refused(429, "rate_limited");
        assert_eq!(reply.json()["violated-policies"], json!(["ip"]));
    }
    server.clock.advance(MINUTE);
    let reply = right(&server, &member).from("192.0.2.1").await.expect(200);
    assert_eq!(reply.limiter("login").remaining, 5);
}

#[tokio::test]
async fn where_both_refuse_the_longest_wait_speaks() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let exhaust = async || while server.get("/public/status").await.status == 200 {};
    for _ in 0..5 {
        wrong(&server, &member).await.expect(401);
    }
    exhaust().await;
    let reply = wrong(&server, &member).await.refused(429, "too_many_login_attempts");
    assert_eq!(reply.json()["violated-policies"], json!(["ip", "login"]));
    assert_eq!((reply.retry_after(), reply.limit().unwrap()[0]), (900, 5));
    assert_eq!(reply.limiter_names(), ["ip", "login"]);

    server.clock.advance(890 * SECOND);
    exhaust().await;
    let reply = wrong(&server, &member).await.refused(429, "rate_limited");
    assert_eq!(reply.json()["violated-policies"], json!(["ip", "login"]));
    assert_eq!((reply.retry_after(), reply.limit().unwrap()[0]), (60, 100));
}

#[tokio::test]
async fn guesses_from_everywhere_share_the_limit_of_the_account() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let from = |n: u64| format!("192.0.2.{n}");
    let spellings =
        [member.email.clone(), member.email.to_uppercase(), format!(" {} ", member.email)];
    for n in 0..50 {
        let email = &spellings[n as usize % 3];
        let reply = server.login(email, "Wrong-Horse-1").from(&from(n / 5)).await;
        assert_eq!(reply.refused(401, "invalid_credentials").limiter("account").remaining, 49 - n);
        server.clock.advance(SECOND);
    }
    let reply = right(&server, &member).from("192.0.2.99").await;
    let reply = reply.refused(429, "too_many_login_attempts");
    assert_eq!(reply.json()["violated-policies"], json!(["account"]));
    assert_eq!(reply.limiter_names(), ["ip", "login", "account"]);
    assert_eq!(reply.retry_after(), 3600 - 50);
    assert_eq!(reply.text("detail"), "Too many login attempts. Try again in 60 minutes.");
    // What it refuses no other counts.
    let others = server.login("other@example.com", "x").from("192.0.2.99").await.expect(401);
    assert_eq!(others.limiter("login").remaining, 4);
    assert_eq!(others.limiter("ip").remaining, 99);
    // Who guesses an account that isn't there learns nothing from the limits.
    assert_eq!(others.limiter("account").remaining, 49);
    let bad = server.post("/auth/login", json!({"email": member.email})).await.expect(422);
    assert_eq!(bad.limiter_names(), ["ip", "login"]);
}

#[tokio::test]
async fn strangers_do_not_lock_an_owner_out() {
    let server = Server::with(|app| app.limits.quotas.account = Quota::per_hour(4)).await;
    let member = server.join(Role::VIEWER).await;
    right(&server, &member).await.expect(200); // a session from this address
    for _ in 0..4 {
        let reply = wrong(&server, &member).from("192.0.2.1").await.expect(401);
        assert_eq!(reply.limiter_names(), ["ip", "login", "account"]);
    }
    wrong(&server, &member).from("192.0.2.2").await.refused(429, "too_many_login_attempts");
    let reply = wrong(&server, &member).await.refused(401, "invalid_credentials");
    assert_eq!(reply.limiter_names(), ["ip", "login"]);
    right(&server, &member).await.expect(200);
    // Only as long as there is a session.
    server.post("/auth/logout-all", json!({})).by(&member).await.expect(204);
    right(&server, &member).await.refused(429, "too_many_login_attempts");
}

#[tokio::test]
async fn registrations_and_mails_share_a_limit() {
    let server = Server::with(|app| app.limits.quotas.register = Quota::per_hour(3)).await;
    let left = |reply: Reply| reply.limiter("register").remaining;
    let register =
        |email: &str| server.post("/auth/register", json!({"email": email, "password": PASSWORD}));
    assert_eq!(left(register("ada@example.com").await.expect(201)), 2);
    assert_eq!(left(register("ada@example.com").await.expect(409)), 2);
    assert_eq!(left(register("nobody").await.expect(422)), 2);
    let resend = || server.post("/auth/verify/resend", json!({"email": "nobody@example.com"}));
    assert_eq!(left(resend().await.expect(202)), 1);
    assert_eq!(left(register("bob@example.com").await.expect(201)), 0);
    for call in [register("eve@example.com"), resend()] {
        let reply = call.await.refused(429, "rate_limited");
        assert_eq!(reply.json()["violated-policies"], json!(["register"]));
    }
    assert_eq!(server.get("/auth/register").await.expect(405).limiter_names(), ["ip"]);
    register("eve@example.com").from("192.0.2.1").await.expect(201);
}

fn wrong(server: &Server, member: &Session) -> Call {
    server.login(&member.email, "Wrong-Horse-1")
}

fn right(server: &Server, member: &Session) -> Call {
    server.login(&member.email, PASSWORD)
}
