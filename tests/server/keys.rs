//! API keys: what they are, what they reach, and how they end.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tower_warden::{Plan, Role, UserId, user::UserChange};

use crate::{
    reply::{Reply, assert_members},
    support::{Api, Call, DAY, MINUTE, NO_ID, SECOND, Server, Session, at_once, count},
};

/// 2026-01-01, when the clock of the tests begins, and one second.
const SOON: &str = "2026-01-01T00:00:01Z";

#[tokio::test]
async fn key_is_shown_once_and_listed_the_newest_first() {
    let server = Server::start().await;
    let member = server.join(Role::EDITOR).await;
    let body = json!({"name": "  nightly import ", "role": "viewer", "expires_at": "2027-01-01T01:00:00+01:00"});
    let made = server.post("/auth/keys", body).by(&member).await.expect(201).json();
    assert_members(
        made.as_object().unwrap(),
        &["id", "name", "prefix", "role", "created_at", "expires_at", "last_used_at", "key"],
    );
    let key = made["key"].as_str().unwrap();
    assert!(key.len() == 44 && key.starts_with("wdn_"), "{key}");
    assert!(key[4..].bytes().all(|b| b.is_ascii_alphanumeric()), "{key}");
    assert_eq!(made["prefix"], key[..12]);
    assert_eq!((&made["name"], &made["role"]), (&json!("nightly import"), &json!("viewer")));
    assert_eq!(made["expires_at"], "2027-01-01T00:00:00.000000Z");
    assert_eq!(
        (&made["created_at"], &made["last_used_at"]),
        (&json!("2026-01-01T00:00:00.000000Z"), &Value::Null)
    );

    server.clock.advance(SECOND);
    let second = make(&server, &member, json!({"name": "another"})).await;
    assert_eq!((&second["role"], &second["expires_at"]), (&json!("editor"), &Value::Null));
    assert_ne!(second["key"], made["key"]);
    let mut expected = [second, made];
    for key in &mut expected {
        key.as_object_mut().unwrap().remove("key");
    }
    assert_eq!(listed(&server, &member).await, expected);
    let other = server.join(Role::VIEWER).await;
    assert_eq!(listed(&server, &other).await, [] as [Value; 0]);
}

#[tokio::test]
async fn key_reaches_projects_analytics_and_who_it_is_and_nothing_else() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let made = make(&server, &admin, json!({"name": "all"})).await;
    let key = text_of(&made);
    let project = server.post("/projects", json!({"name": "x"})).bearer(&key).await;
    let project = project.expect(201);
    assert_eq!(project.text("owner_id"), admin.id);
    let path = format!("/projects/{}", project.text("id"));
    for call in [
        server.get("/auth/me"),
        server.head("/auth/me"),
        server.get("/projects"),
        server.get(&path),
        server.patch(&path, json!({"name": "y"})),
        server.get("/analytics"),
    ] {
        call.bearer(&key).await.expect(200);
    }
    server.delete(&path).bearer(&key).await.expect(204);
    assert_eq!(server.get("/auth/me").bearer(&key).await.text("id"), admin.id);

    let id = made["id"].as_str().unwrap();
    for call in [
        server.post("/auth/logout-all", json!({})),
        server.get("/auth/keys"),
        server.post("/auth/keys", json!({"name": "child"})),
        server.delete(&format!("/auth/keys/{id}")),
        server.delete(&format!("/auth/keys/{NO_ID}")),
        server.patch(&format!("/admin/users/{}", admin.id), json!({"plan": "paid"})),
        // Before it is looked at.
        server.delete("/auth/keys/none"),
        server.call(Method::PUT, "/auth/keys"),
        server.call(Method::POST, "/auth/keys").body("text/plain", "x"),
    ] {
        call.bearer(&key).await.refused(403, "insufficient_permissions");
    }
    assert_eq!(listed(&server, &admin).await.len(), 1);
}

#[tokio::test]
async fn what_is_out_of_a_keys_reach_is_counted_by_user() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let key = key(&server, &member, json!({"name": "x"})).await;
    let reply = server.get("/auth/keys").bearer(&key).await;
    // One for the key that was made.
    assert_eq!(reply.refused(403, "insufficient_permissions").limit().unwrap()[..2], [300, 298]);
    let reply = server.get("/auth/me").by(&member).await.expect(200);
    assert_eq!((reply.limiter_names(), reply.remaining()), (vec!["user".to_owned()], 297));
}

#[tokio::test]
async fn key_has_the_lesser_of_both_roles() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let owner = server.join(Role::EDITOR).await;
    let (viewer, editor) = (
        key(&server, &owner, json!({"name": "v", "role": "viewer"})).await,
        key(&server, &owner, json!({"name": "e"})).await,
    );
    let write = async |key: &str| {
        server.post("/projects", json!({"name": "x"})).bearer(key).await.status.as_u16()
    };
    assert_eq!((write(&viewer).await, write(&editor).await), (403, 201));
    let path = format!("/admin/users/{}", owner.id);
    server.patch(&path, json!({"role": "viewer"})).by(&admin).await.expect(200);
    assert_eq!((write(&viewer).await, write(&editor).await), (403, 403));
    server.patch(&path, json!({"role": "admin"})).by(&admin).await.expect(200);
    assert_eq!((write(&viewer).await, write(&editor).await), (403, 201));
    server.get("/analytics").bearer(&editor).await.refused(403, "insufficient_permissions");
}

#[tokio::test]
async fn key_is_limited_as_its_owner_is_by_plan_and_by_its_own_role() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let full = key(&server, &admin, json!({"name": "full"})).await;
    assert_eq!(server.get("/projects").bearer(&full).await.expect(200).limit(), None);
    let lesser = key(&server, &admin, json!({"name": "lesser", "role": "viewer"})).await;
    let reply = server.get("/projects").bearer(&lesser).await.expect(200);
    assert_eq!(reply.limit().unwrap()[..2], [300, 299]);

    let path = format!("/admin/users/{}", admin.id);
    server.patch(&path, json!({"plan": "free"})).by(&admin).await.expect(200);
    let reply = server.get("/projects").bearer(&lesser).await.expect(200);
    assert_eq!(reply.limit().unwrap()[..2], [60, 58]);
}

#[tokio::test]
async fn key_that_makes_no_sense_is_refused() {
    let server = Server::start().await;
    let editor = server.join(Role::EDITOR).await;
    let long = "x".repeat(201);
    for (body, errors) in [
        (json!({}), &["name: required"][..]),
        (json!({"name": 1}), &["name: invalid_type"]),
        (json!({"name": " "}), &["name: too_short"]),
        (json!({"name": long}), &["name: too_long"]),
        (json!({"name": "a\0b"}), &["name: contains_nul"]),
        (json!({"name": "x", "role": "owner"}), &["role: invalid_value"]),
        (json!({"name": "x", "role": null}), &["role: invalid_value"]),
        (json!({"name": "x", "role": "admin"}), &["role: too_high"]),
        (json!({"name": "x", "expires_at": 1_900_000_000}), &["expires_at: invalid_type"]),
        (json!({"name": "x", "expires_at": "tomorrow"}), &["expires_at: invalid_time"]),
        (json!({"name": "x", "expires_at": "2026-01-01T00:00:00Z"}), &["expires_at: in_the_past"]),
        (
            json!({"name": "", "role": "x", "expires_at": "", "key": "wdn_"}),
            &[
                "name: too_short",
                "role: invalid_value",
                "expires_at: invalid_time",
                ": unknown_field",
            ],
        ),
        (
            json!({"name": "x", "role": "admin", "expires_at": "2025-01-01T00:00:00Z"}),
            &["role: too_high", "expires_at: in_the_past"],
        ),
    ] {
        let reply = server.post("/auth/keys", body.clone()).by(&editor).await;
        assert_eq!(reply.field_errors(), errors, "{body}");
    }
    assert_eq!(listed(&server, &editor).await.len(), 0);
    server.post("/auth/keys", json!({"name": "x"})).await.refused(401, "authentication_required");
}

#[tokio::test]
async fn user_has_100_keys_at_most_also_when_made_at_once() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let expired = make(&server, &member, json!({"name": "x", "expires_at": SOON})).await;
    server.clock.advance(SECOND);
    let calls = (0..110).map(|_| server.post("/auth/keys", json!({"name": "x"})).by(&member));
    let replies = at_once(calls).await;
    assert_eq!((count(&replies, 201), count(&replies, 409)), (99, 11));
    let one_more = || server.post("/auth/keys", json!({"name": "x"})).by(&member);
    one_more().await.refused(409, "too_many_keys");
    assert_eq!(listed(&server, &member).await.len(), 100);
    revoke(&server, &member, &expired).await.expect(204);
    one_more().await.expect(201);
    one_more().await.refused(409, "too_many_keys");
}

#[tokio::test]
async fn all_that_is_wrong_with_a_wanted_key_is_said_at_once() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let (past, long) = ("2020-01-01T00:00:00Z", "x".repeat(201));
    for (body, errors) in [
        (
            json!({"name": " ", "role": "admin", "expires_at": past, "x": 1}),
            &["name: too_short", ": unknown_field", "role: too_high", "expires_at: in_the_past"][..],
        ),
        (
            json!({"name": format!("{long}\0"), "role": "admin"}),
            &["name: too_long", "name: contains_nul", "role: too_high"],
        ),
        (json!({"role": "admin"}), &["name: required", "role: too_high"]),
        (
            json!({"name": 1, "role": "owner", "expires_at": past}),
            &["name: invalid_type", "role: invalid_value", "expires_at: in_the_past"],
        ),
        (
            json!({"name": "x", "role": "editor", "expires_at": "soon"}),
            &["expires_at: invalid_time", "role: too_high"],
        ),
        (json!([]), &[": invalid_type"]),
    ] {
        let reply = server.post("/auth/keys", body.clone()).by(&member).await;
        assert_eq!(reply.field_errors(), errors, "{body}");
    }
    assert_eq!(listed(&server, &member).await, [] as [Value; 0]);
}

#[tokio::test]
async fn revoked_key_ends_at_once_and_only_its_owner_revokes_it() {
    let server = Server::start().await;
    let (owner, other) = (server.join(Role::VIEWER).await, server.join(Role::ADMIN).await);
    let made = make(&server, &owner, json!({"name": "x"})).await;
    let key = text_of(&made);
    server.get("/projects").bearer(&key).await.expect(200);
    revoke(&server, &other, &made).await.refused(404, "not_found");
    server.get("/projects").bearer(&key).await.expect(200);
    revoke(&server, &owner, &made).await.expect(204);
    server.get("/projects").bearer(&key).await.refused(401, "token_revoked");
    revoke(&server, &owner, &made).await.refused(404, "not_found");
    server.delete(&format!("/auth/keys/{NO_ID}")).by(&owner).await.refused(404, "not_found");
    server.delete("/auth/keys/none").by(&owner).await.refused(404, "not_found");
    server.get(&format!("/auth/keys/{NO_ID}")).by(&owner).await.refused(405, "method_not_allowed");
    assert_eq!(listed(&server, &owner).await, [] as [Value; 0]);

    // Who has no valid key is counted by address.
    let reply = server.get("/projects").bearer(&key).await;
    assert_eq!(reply.limiter_names(), ["ip"]);
}

#[tokio::test]
async fn expired_key_says_so_and_stays_listed() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let made = make(&server, &member, json!({"name": "x", "expires_at": SOON})).await;
    let key = text_of(&made);
    server.clock.advance(Duration::from_millis(999));
    server.get("/projects").bearer(&key).await.expect(200);
    server.clock.advance(Duration::from_millis(1));
    server.get("/projects").bearer(&key).await.refused(401, "token_expired");
    assert_eq!(listed(&server, &member).await.len(), 1);
    revoke(&server, &member, &made).await.expect(204);
    server.get("/projects").bearer(&key).await.refused(401, "token_revoked");
}

#[tokio::test]
async fn what_is_no_key_is_an_invalid_token() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let key = key(&server, &member, json!({"name": "x"})).await;
    let mut flipped = key.clone().into_bytes();
    flipped[20] = if flipped[20] == b'a' { b'b' } else { b'a' };
    let flipped = String::from_utf8(flipped).unwrap();
    for text in
        [&flipped, &key[..43], &key[4..], "wdn_", &key.to_uppercase(), &key.replace("wdn", "abc")]
    {
        server.get("/projects").bearer(text).await.refused(401, "invalid_token");
    }
    // Bytes that are no letters, others that look like them, and lengths: nobody is asked about any.
    let letters = |text: &str| format!("wdn_{text}");
    server.lose_database().await;
    for text in [
        letters(&"0".repeat(40)),
        letters(&"0".repeat(39)),
        letters(&"0".repeat(41)),
        letters(&"z".repeat(4000)),
        letters(&"é".repeat(20)),
        format!("{}\u{FF10}", &key[..41]),
        format!("{key}\u{AD}"),
        format!("{key}="),
        format!("{key},{key}"),
        key.replace('_', "-"),
    ] {
        server.get("/projects").bearer(&text).await.refused(401, "invalid_token");
    }
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let key = self::key(&server, &member, json!({"name": "x"})).await;
    server.get("/projects").bearer(&key).bearer(&key).await.refused(400, "invalid_request");
    server
        .get(&format!("/projects?access_token={key}"))
        .await
        .refused(401, "authentication_required");
}

#[tokio::test]
async fn last_use_is_true_to_a_minute() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let key = key(&server, &member, json!({"name": "x"})).await;
    let last_use = async || listed(&server, &member).await[0]["last_used_at"].clone();
    assert_eq!(last_use().await, Value::Null);
    server.clock.advance(600 * SECOND);
    server.get("/projects").bearer(&key).await.expect(200);
    assert_eq!(last_use().await, "2026-01-01T00:10:00.000000Z");
    server.clock.advance(MINUTE);
    server.get("/projects").bearer(&key).await.expect(200);
    assert_eq!(last_use().await, "2026-01-01T00:11:00.000000Z");
}

#[tokio::test]
async fn without_a_database_keys_are_good_that_were_seen_in_the_last_minute() {
    let server = Server::start().await;
    let member = server.join(Role::VIEWER).await;
    let (seen, unseen, revoked) = (
        key(&server, &member, json!({"name": "seen"})).await,
        key(&server, &member, json!({"name": "unseen"})).await,
        make(&server, &member, json!({"name": "revoked"})).await,
    );
    server.get("/auth/me").bearer(&seen).await.expect(200);
    revoke(&server, &member, &revoked).await.expect(204);
    server.lose_database().await;
    server.clock.advance(59 * SECOND);
    // Known, and so counted; what it asks for needs the database.
    let reply = server.get("/projects").bearer(&seen).await.refused(503, "unavailable");
    assert_eq!(reply.limiter_names(), ["user"]);
    server.get("/auth/keys").bearer(&seen).await.refused(403, "insufficient_permissions");
    let reply = server.get("/auth/keys").bearer(&unseen).await.refused(503, "unavailable");
    assert_eq!(reply.limiter_names(), ["ip"]);
    server.get("/auth/keys").bearer(&text_of(&revoked)).await.refused(401, "token_revoked");
    server.get("/auth/keys").bearer("wdn_x").await.refused(401, "invalid_token");
    server.clock.advance(SECOND);
    server.get("/auth/keys").bearer(&seen).await.refused(503, "unavailable");
    server.clock.advance(DAY);
    server.get("/auth/keys").bearer(&text_of(&revoked)).await.refused(401, "token_revoked");
}

#[tokio::test]
async fn what_changes_behind_the_server_counts_within_a_second() {
    let server = Server::start().await;
    let owner = server.join(Role::VIEWER).await;
    let key = key(&server, &owner, json!({"name": "x"})).await;
    server.get("/projects").bearer(&key).await.expect(200);
    let change = UserChange::new().with_plan(Some(Plan::PAID));
    server.users.update(&UserId::from(&*owner.id), change).await.unwrap();
    server.clock.advance(Duration::from_millis(999));
    let reply = server.get("/projects").bearer(&key).await.expect(200);
    assert_eq!(reply.limit().unwrap()[0], 600);
}

async fn make(server: &Server, owner: &Session, body: Value) -> Value {
    server.post("/auth/keys", body).by(owner).await.expect(201).json()
}

async fn key(server: &Server, owner: &Session, body: Value) -> String {
    text_of(&make(server, owner, body).await)
}

fn text_of(made: &Value) -> String {
    made["key"].as_str().unwrap().to_owned()
}

fn revoke(server: &Server, owner: &Session, made: &Value) -> Call {
    server.delete(&format!("/auth/keys/{}", made["id"].as_str().unwrap())).by(owner)
}

async fn listed(server: &Server, owner: &Session) -> Vec<Value> {
    let reply: Reply = server.get("/auth/keys").by(owner).await.expect(200);
    reply.json()["keys"].as_array().unwrap().clone()
}
