//! What admins see and change.

use serde_json::json;
use tower_warden::Role;

use crate::support::{Api, NO_ID, Server, at_once, count};

#[tokio::test]
async fn analytics_count_users_and_projects() {
    let server = Server::start().await;
    let (admin, editor) = (server.join(Role::ADMIN).await, server.join(Role::EDITOR).await);
    for name in ["a", "b", "c"] {
        server.create_project(&editor, name).await;
    }
    let figures = server.get("/analytics").by(&admin).await.expect(200).json();
    assert_eq!((&figures["users"], &figures["projects"]), (&json!(2), &json!(3)));
}

#[tokio::test]
async fn admin_changes_role_and_plan() {
    let server = Server::start().await;
    let (admin, member) = (server.join(Role::ADMIN).await, server.join(Role::VIEWER).await);
    let path = format!("/admin/users/{}", member.id);
    for (change, role, plan) in [
        (json!({"role": "editor"}), "editor", json!(null)),
        (json!({"plan": "free"}), "editor", json!("free")),
        (json!({"plan": "paid", "role": "viewer"}), "viewer", json!("paid")),
        (json!({"plan": "enterprise"}), "viewer", json!("enterprise")),
        (json!({"role": "admin"}), "admin", json!("enterprise")),
        (json!({"plan": null}), "admin", json!(null)),
    ] {
        let user = server.patch(&path, change).by(&admin).await.expect(200).json();
        assert_eq!(user["id"], json!(member.id));
        assert_eq!((&user["role"], &user["plan"]), (&json!(role), &plan));
        let role = user["role"].as_str().unwrap().into();
        let member = server.session(&member.id.as_str().into(), role, &member.email).await;
        let me = server.get("/auth/me").by(&member).await.json();
        assert_eq!(me, user);
    }
}

#[tokio::test]
async fn change_that_makes_no_sense_is_refused() {
    let server = Server::start().await;
    let (admin, member) = (server.join(Role::ADMIN).await, server.join(Role::VIEWER).await);
    let path = format!("/admin/users/{}", member.id);
    for (change, errors) in [
        (json!({}), &[": required"][..]),
        (json!({"role": "owner"}), &["role: invalid_value"]),
        (json!({"role": "Admin"}), &["role: invalid_value"]),
        (json!({"role": null}), &["role: invalid_value"]),
        (json!({"role": 1, "plan": "gold"}), &["role: invalid_value", "plan: invalid_value"]),
        (json!({"plan": false}), &["plan: invalid_value"]),
        (json!({"role": "admin", "email": "x"}), &[": unknown_field"]),
    ] {
        let reply = server.patch(&path, change.clone()).by(&admin).await;
        assert_eq!(reply.field_errors(), errors, "{change}");
    }
    assert_eq!(server.get("/auth/me").by(&member).await.text("role"), "viewer");
    let nobody = server.patch(&format!("/admin/users/{NO_ID}"), json!({"plan": "free"}));
    nobody.by(&admin).await.refused(404, "not_found");
}

#[tokio::test]
async fn last_admin_must_stay() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let path = format!("/admin/users/{}", admin.id);
    server.patch(&path, json!({"role": "editor"})).by(&admin).await.refused(409, "last_admin");
    server.patch(&path, json!({"role": "admin", "plan": "paid"})).by(&admin).await.expect(200);

    server.join(Role::ADMIN).await;
    server.patch(&path, json!({"role": "editor"})).by(&admin).await.expect(200);
}

#[tokio::test]
async fn of_two_admins_demoted_at_once_one_stays() {
    for _ in 0..5 {
        let server = Server::start().await;
        let admins = [server.join(Role::ADMIN).await, server.join(Role::ADMIN).await];
        let demote = |by: usize, whom: usize| {
            let path = format!("/admin/users/{}", admins[whom].id);
            server.patch(&path, json!({"role": "viewer"})).by(&admins[by])
        };
        let replies = at_once([demote(0, 0), demote(1, 1), demote(0, 1), demote(1, 0)]).await;
        // Whoever was demoted may be demoted again, but by an admin.
        let done = count(&replies, 200) + count(&replies, 403);
        assert_eq!((done, count(&replies, 409)), (2, 2), "{replies:?}");
        assert!(count(&replies, 200) > 0);
    }
}
