//! Sessions: login, token pairs, refresh, logout.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};
use tower_warden::{Clock, Plan, Role, UserId, user::UserChange};

use crate::{
    reply::{Reply, assert_members},
    support::{Api, DAY, MINUTE, PASSWORD, SECOND, Server, Session, at_once, count},
};

#[tokio::test]
async fn right_login_gives_both_tokens() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let pair = server.login("Ada@example.com", PASSWORD).await.expect(200);
    let members = ["access_token", "token_type", "expires_in", "refresh_token"];
    assert_members(pair.json().as_object().unwrap(), &members);
    assert_eq!(pair.text("token_type"), "Bearer");
    assert_eq!(pair.json()["expires_in"], 900);
    let refresh = pair.text("refresh_token");
    assert!(refresh.len() == 128 && refresh.bytes().all(|b| b.is_ascii_hexdigit()), "{refresh}");
    server.get("/auth/me").bearer(&pair.text("access_token")).await.expect(200);
}

#[tokio::test]
async fn access_token_says_who_and_until_when() {
    let server = Server::start().await;
    let member = server.join(Role::EDITOR).await;
    let jwks = server.get("/.well-known/jwks.json").await.expect(200).json();
    let now = server.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();

    let [header, claims] = parts(&server.login(&member.email, PASSWORD).await.text("access_token"));
    assert_eq!(header, json!({"alg": "RS256", "typ": "at+jwt", "kid": jwks["keys"][0]["kid"]}));
    let members = ["sub", "role", "iat", "exp", "jti", "iss", "aud", "sid", "auth_time", "amr"];
    assert_members(claims.as_object().unwrap(), &members);
    let expected = json!({
        "sub": member.id, "role": "editor", "iat": now, "exp": now + 900, "jti": claims["jti"],
        "iss": "tower-warden", "aud": "api", "sid": claims["sid"], "auth_time": now,
        "amr": ["pwd"],
    });
    assert_eq!(claims, expected);

    let plan = UserChange::new().with_plan(Some(Plan::PAID));
    server.users.update(&UserId::from(member.id), plan).await.unwrap();
    let [_, next] = parts(&server.login(&member.email, PASSWORD).await.text("access_token"));
    assert_eq!(next["plan"], "paid");
    assert_ne!(next["jti"], claims["jti"]);
}

#[tokio::test]
async fn unverified_login_is_refused() {
    let server = Server::start().await;
    server.register("ada@example.com").await;
    server.login("ada@example.com", PASSWORD).await.refused(403, "email_not_verified");
    server.login("ada@example.com", "Wrong-Horse-1").await.refused(401, "invalid_credentials");
}

#[tokio::test]
async fn wrong_password_is_refused() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let too_long = format!("{PASSWORD}{}", "x".repeat(73));
    let mut bodies = Vec::new();
    for (n, (email, password)) in [
        ("ada@example.com", "Wrong-Horse-1"),
        ("nobody@example.com", PASSWORD),
        ("ada@example.com", &too_long),
        ("ada@example.com", "Correct-Horse-1\0Correct-Horse-1"),
        ("ada@example.com", ""),
        ("not an address", PASSWORD),
        ("", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = server.login(email, password).from(&format!("192.0.2.{n}")).await;
        bodies.push(reply.refused(401, "invalid_credentials").body);
    }
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{bodies:?}");
}

#[tokio::test]
async fn access_token_is_dead_after_15_minutes() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let me = || server.get("/auth/me").by(&member);
    me().await.expect(200);
    server.clock.advance(899 * SECOND);
    me().await.expect(200);
    server.clock.advance(SECOND);
    me().await.refused(401, "token_expired");
}

#[tokio::test]
async fn rotation_gives_a_new_pair_and_kills_the_old() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let pair = server.refresh(&member.refresh).await.expect(200);
    let members = ["access_token", "token_type", "expires_in", "refresh_token"];
    assert_members(pair.json().as_object().unwrap(), &members);
    assert_ne!(pair.text("refresh_token"), member.refresh);
    assert_ne!(pair.text("access_token"), member.access);
    server.get("/auth/me").bearer(&pair.text("access_token")).await.expect(200);
    refused(server.refresh(&member.refresh).await);
}

#[tokio::test]
async fn reuse_revokes_every_generation() {
    let server = Server::start().await;
    for presented in [0, 1, 18, 19] {
        let member = server.join(Role::VIEWER).await;
        let mut chain = vec![member.refresh.clone()];
        for _ in 0..20 {
            chain.push(
                server.refresh(chain.last().unwrap()).await.expect(200).text("refresh_token"),
            );
            server.clock.advance(SECOND);
        }
        refused(server.refresh(&chain[presented]).await);
        refused(server.refresh(&chain[20]).await);
        // Another session of the same user is none of it.
        server.login(&member.email, PASSWORD).await.expect(200);
    }
}

#[tokio::test]
async fn of_many_refreshes_at_once_one_wins_and_then_the_family_is_revoked() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let replies = at_once((0..20).map(|_| server.refresh(&member.refresh))).await;
    assert_eq!((count(&replies, 200), count(&replies, 401)), (1, 19));
    let winner = replies.iter().find(|reply| reply.status == 200).unwrap();
    refused(server.refresh(&winner.text("refresh_token")).await);
}

#[tokio::test]
async fn refresh_token_lives_7_days() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    server.clock.advance(7 * DAY - SECOND);
    let next = server.refresh(&member.refresh).await.expect(200).text("refresh_token");
    server.clock.advance(7 * DAY);
    refused(server.refresh(&next).await);
}

#[tokio::test]
async fn other_text_is_no_refresh_token() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    for text in [
        "",
        "0",
        &"0".repeat(128),
        &member.refresh.to_uppercase(),
        &member.refresh[1..],
        &format!("{} ", member.refresh),
        &member.access,
    ] {
        refused(server.refresh(text).await);
    }
    server.refresh(&member.refresh).await.expect(200);
}

#[tokio::test]
async fn changed_role_and_plan_show_in_the_next_pair() {
    let server = Server::start().await;
    let (admin, member) = (server.join(Role::ADMIN).await, server.join(Role::VIEWER).await);
    let change = json!({"role": "editor", "plan": "enterprise"});
    server.patch(&format!("/admin/users/{}", member.id), change).by(&admin).await.expect(200);

    let create = |token: &str| server.post("/projects", json!({"name": "p"})).bearer(token);
    create(&member.access).await.refused(401, "token_expired");
    let pair = server.refresh(&member.refresh).await.expect(200);
    let reply = create(&pair.text("access_token")).await.expect(201);
    assert_eq!(reply.limit().unwrap()[0], 3000);
    let [_, claims] = parts(&pair.text("access_token"));
    assert_eq!((&claims["role"], &claims["plan"]), (&json!("editor"), &json!("enterprise")));
}

#[tokio::test]
async fn logout_ends_one_session() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let other = server.login(&member.email, PASSWORD).await.expect(200).text("refresh_token");
    let next = server.refresh(&member.refresh).await.expect(200).text("refresh_token");

    // Any generation of it will do, and an unknown token is as good.
    for token in [&member.refresh, &member.refresh, &"0".repeat(128), ""] {
        let body = json!({"refresh_token": token});
        assert!(server.post("/auth/logout", body).await.expect(204).body.is_empty());
    }
    refused(server.refresh(&next).await);
    server.refresh(&other).await.expect(200);
    server.get("/auth/me").by(&member).await.refused(401, "token_revoked");
}

#[tokio::test]
async fn logout_all_ends_all_sessions_of_the_user() {
    let server = Server::start().await;
    let (member, stranger) = (server.join(Role::VIEWER).await, server.join(Role::VIEWER).await);
    let other = server.login(&member.email, PASSWORD).await.expect(200).text("refresh_token");
    let logout_all = || server.call(http::Method::POST, "/auth/logout-all");
    logout_all().await.refused(401, "authentication_required");
    assert!(logout_all().by(&member).await.expect(204).body.is_empty());
    for token in [&member.refresh, &other] {
        refused(server.refresh(token).await);
    }
    server.refresh(&stranger.refresh).await.expect(200);
    server.get("/auth/me").by(&member).await.refused(401, "token_revoked");
    let again = server.login(&member.email, PASSWORD).await.expect(200).text("access_token");
    server.get("/auth/me").bearer(&again).await.expect(200);
}

#[tokio::test]
async fn refresh_and_logout_at_once_leave_no_live_token() {
    let server = Server::start().await;
    for _ in 0..10 {
        let member = server.join(Role::VIEWER).await;
        let body = json!({"refresh_token": member.refresh});
        let replies =
            at_once([server.refresh(&member.refresh), server.post("/auth/logout", body)]).await;
        assert_eq!(replies[1].status, 204);
        if replies[0].status == 200 {
            refused(server.refresh(&replies[0].text("refresh_token")).await);
        }
        server.clock.advance(MINUTE); // so that the limit stays out of it
    }
}

#[tokio::test]
async fn me_is_the_user() {
    let server = Server::start().await;
    let member @ Session { id, email, .. } = &server.join(Role::EDITOR).await;
    let me = server.get("/auth/me").by(member).await.expect(200).json();
    let expected = json!({
        "id": id, "email": email, "role": "editor", "plan": null, "email_verified": true,
        "suspended": false, "totp": false, "created_at": me["created_at"],
    });
    assert_eq!(me, expected);
}

#[track_caller]
fn refused(reply: Reply) {
    reply.refused(401, "invalid_refresh_token");
}

/// Header and claims of a token.
pub(crate) fn parts(token: &str) -> [Value; 2] {
    let parts: Vec<_> = token.split('.').collect();
    [parts[0], parts[1]]
        .map(|part| serde_json::from_slice(&BASE64URL.decode(part).unwrap()).unwrap())
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    server.clock.advance(SECOND);
    let other = server
        .login(&member.email, PASSWORD)
        .header("user-agent", "x".repeat(300))
        .await
        .expect(200);
    let list = async |access: &str| {
        let reply = server.get("/auth/sessions").bearer(access).await.expect(200);
        reply.json()["sessions"].as_array().unwrap().clone()
    };
    let sessions = list(&other.text("access_token")).await;
    assert_eq!(sessions.len(), 2);
    let (current, first) = (&sessions[0], &sessions[1]);
    let [_, claims] = parts(&other.text("access_token"));
    assert_eq!((&current["id"], &current["current"]), (&claims["sid"], &json!(true)));
    assert_eq!(current["user_agent"], json!("x".repeat(256)));
    assert_eq!(current["ip"], json!("127.0.0.1"));
    assert_eq!(first["current"], json!(false));

    let stranger = server.join(Role::ADMIN).await;
    let path = format!("/auth/sessions/{}", first["id"].as_str().unwrap());
    server.delete(&path).by(&stranger).await.refused(404, "not_found");
    server.delete("/auth/sessions/x").by(&stranger).await.refused(404, "not_found");
    server.delete(&path).bearer(&other.text("access_token")).await.expect(204);
    server.get("/auth/me").by(&member).await.refused(401, "token_revoked");
    refused(server.refresh(&member.refresh).await);
    assert_eq!(list(&other.text("access_token")).await.len(), 1);
    server.delete(&path).bearer(&other.text("access_token")).await.refused(404, "not_found");
}

#[tokio::test]
async fn replaced_token_within_the_leeway_answers_the_same_successor() {
    let leeway = 30 * SECOND;
    let server = Server::with(|app| {
        app.tokens = app.tokens.clone().with_refresh_leeway(leeway);
    })
    .await;
    let member = server.join(Role::VIEWER).await;
    let next = server.refresh(&member.refresh).await.expect(200).text("refresh_token");
    for _ in 0..2 {
        let again = server.refresh(&member.refresh).await.expect(200);
        assert_eq!(again.text("refresh_token"), next);
        server.get("/auth/me").bearer(&again.text("access_token")).await.expect(200);
    }
    let third = server.refresh(&next).await.expect(200).text("refresh_token");
    refused(server.refresh(&member.refresh).await);
    refused(server.refresh(&third).await);

    let member = server.join(Role::VIEWER).await;
    let next = server.refresh(&member.refresh).await.expect(200).text("refresh_token");
    server.clock.advance(leeway);
    refused(server.refresh(&member.refresh).await);
    refused(server.refresh(&next).await);
}
