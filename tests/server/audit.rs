//! What is written down of who did what.

use std::time::Duration;

use serde_json::json;
use tower_warden::{
    Clock, Role, UserId,
    audit::{Actor, AuditEvent, Outcome},
};

use crate::support::{Api, PASSWORD, Server, token_in};

fn told(events: &[AuditEvent]) -> Vec<String> {
    let tell = |event: &AuditEvent| {
        let detail = event.detail.as_ref().map(|detail| format!(" {detail}")).unwrap_or_default();
        format!("{} {}{detail}, by {}", event.act, event.outcome, event.actor.kind())
    };
    events.iter().map(tell).collect()
}

#[tokio::test]
async fn life_of_an_account_is_told_with_who_and_from_where() {
    let server = Server::start().await;
    let from = |call: crate::support::Call| {
        call.from("203.0.113.9").header("user-agent", "Mozilla/5.0 (test)\tact=deleted")
    };
    let register = json!({"email": "ada@example.com", "password": PASSWORD});
    from(server.post("/auth/register", register)).await.expect(201);
    from(server.login("ada@example.com", PASSWORD)).await.refused(403, "email_not_verified");
    // What was refused is written apart, and may be later than what comes after it.
    server.settle_audit().await;
    let token = token_in(&server.letter().await);
    from(server.post("/auth/verify", json!({"token": token}))).await.expect(200);
    from(server.login("ada@example.com", "Wrong-Horse-1")).await.expect(401);
    server.settle_audit().await;
    let pair = from(server.login("ada@example.com", PASSWORD)).await.expect(200);
    let (access, refresh) = (pair.text("access_token"), pair.text("refresh_token"));
    from(server.get("/auth/me").bearer(&access)).await.expect(200);
    let key = from(server.post("/auth/keys", json!({"name": "import"})).bearer(&access)).await;
    let key = key.expect(201).json();
    let path = format!("/auth/keys/{}", key["id"].as_str().unwrap());
    from(server.delete(&path).bearer(&access)).await.expect(204);
    let wrong = json!({"current_password": "Wrong-Horse-1", "password": "Correct-Horse-2"});
    from(server.post("/auth/password/change", wrong).bearer(&access)).await.expect(403);
    server.settle_audit().await;
    from(server.refresh(&refresh)).await.expect(200);
    from(server.refresh(&refresh)).await.expect(401);

    let events = server.audit_events().await;
    assert_eq!(
        told(&events),
        [
            "registered done, by nobody",
            "login refused not_verified, by nobody",
            "address_verified done, by nobody",
            "login refused invalid_credentials, by nobody",
            "login done pwd, by nobody",
            "key_created done, by user",
            "key_revoked done, by user",
            "confirmation refused wrong_password, by user",
            "refresh_reused refused reused, by nobody",
        ]
    );
    for event in &events {
        assert_eq!(event.at, server.clock.now());
        assert_eq!(event.ip.unwrap().to_string(), "203.0.113.9");
        assert_eq!(event.user_agent.as_deref(), Some(r"Mozilla/5.0 (test)\tact=deleted"));
        assert_eq!(event.request_id.as_ref().unwrap().len(), 16);
        assert_eq!(event.subject, events[0].subject);
    }
    assert_eq!(events[5].object.as_deref(), key["id"].as_str());
    assert_eq!(events[5].session, events[4].object, "the session that was opened made the key");
    assert_eq!(events[5].actor.user(), events[0].subject.as_ref());
}

#[tokio::test]
async fn what_an_admin_does_names_the_admin() {
    let server = Server::start().await;
    let (root, ada) = (server.join(Role::ADMIN).await, server.join(Role::VIEWER).await);
    let before = server.audit_events().await.len();
    let change = json!({"role": "editor", "plan": "paid", "suspended": true});
    let path = format!("/admin/users/{}", ada.id);
    server.patch(&path, change).by(&root).await.expect(200);
    server.patch(&path, json!({"suspended": false})).by(&ada).await.expect(401);
    let events = &server.audit_events().await[before..];
    let words = ["role_changed done editor", "plan_changed done paid", "suspended done"];
    assert_eq!(told(events), words.map(|words| format!("{words}, by user")));
    let root = Actor::User { id: UserId::from(root.id), role: Role::ADMIN };
    assert!(events.iter().all(|event| event.actor == root));
    assert!(events.iter().all(|event| event.subject == Some(UserId::from(ada.id.clone()))));
}

/// A password may be typed where the address belongs.
#[tokio::test]
async fn failed_login_leaves_no_trace_of_what_was_typed() {
    let server = Server::start().await;
    server.login("Correct-Horse-1", "ada@example.com").await.expect(401);
    let events = server.audit_events().await;
    assert_eq!(told(&events), ["login refused invalid_credentials, by nobody"]);
    assert_eq!((events[0].outcome, &events[0].subject), (Outcome::Refused, &None));
    let dump = format!("{events:?}").to_lowercase();
    assert!(!dump.contains("horse") && !dump.contains("ada@"), "{dump}");
}

/// Whoever hangs up has done what was begun.
#[tokio::test]
async fn client_that_hangs_up_is_told_of_all_the_same() {
    let server = Server::start().await;
    server.register_verified("ada@example.com").await;
    let before = server.audit_events().await.len();
    let call = server.login("ada@example.com", PASSWORD).from("203.0.113.9");
    drop(crate::support::in_flight(call).await);
    let pair = server.login("ada@example.com", PASSWORD).from("203.0.113.9").await.expect(200);
    let call = server.post("/auth/logout-all", json!({})).bearer(&pair.text("access_token"));
    drop(crate::support::in_flight(call).await);
    let last = async {
        loop {
            let events = server.audit_events().await;
            if events.last().unwrap().act.as_str() == "logout_all" {
                break events;
            }
            tokio::task::yield_now().await;
        }
    };
    let events = tokio::time::timeout(Duration::from_secs(20), last).await.unwrap();
    let events = &events[before..];
    assert_eq!(events.last().unwrap().actor.kind(), "user");
    assert!(events.iter().all(|event| event.request_id.is_some()));
}
