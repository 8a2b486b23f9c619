//! Request bodies: what is not as the contract says is refused, never taken or dropped.

use axum::body::Body;
use http::Method;
use serde_json::json;
use tower_warden::Role;

use crate::{
    reply::Reply,
    support::{Api, PASSWORD, Server},
};

const KIB_64: usize = 64 * 1024;

#[tokio::test]
async fn what_is_no_json_is_malformed() {
    let server = Server::start().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for text in [
        "".as_bytes(),
        b" ",
        b"{",
        b"{}x",
        b"{} {}",
        b"{'email': 1}",
        b"{\"email\": \"a\",}",
        b"email=a&password=b",
        b"\xef\xbb\xbf{}",
        b"{\"email\": \"\xff\"}",
        b"{\"email\": \"\\ud800\"}",
        b"NaN",
        deep.as_bytes(),
        br#"{"refresh_token": "a", "refresh_token": "a"}"#,
        br#"{"refresh_token": "a", "refresh\u005ftoken": "b"}"#,
        br#"{"refresh_token": {"a": 1, "a": 2}}"#,
        br#"{"x": 1, "x": 2}"#,
    ] {
        let reply = refresh_with(&server, "application/json", text.to_vec()).await;
        let shown = String::from_utf8_lossy(&text[..text.len().min(50)]);
        assert_eq!(reply.error(), (400, "invalid_request"), "{shown}");
    }
}

#[tokio::test]
async fn json_of_another_shape_is_refused_with_all_that_is_wrong() {
    let server = Server::start().await;
    let long = format!("{}@example.com", "a".repeat(65));
    for (body, errors) in [
        (json!([]), &[": invalid_type"][..]),
        (json!("x"), &[": invalid_type"]),
        (json!(null), &[": invalid_type"]),
        (json!({}), &["email: required", "password: required"]),
        (json!({"email": 1, "password": null}), &["email: invalid_type", "password: invalid_type"]),
        (json!({"email": ["a"], "password": PASSWORD}), &["email: invalid_type"]),
        (
            json!({"email": long, "password": "short", "role": "admin"}),
            &[
                "email: invalid_email",
                "password: too_short",
                "password: no_uppercase",
                "password: no_digit",
                ": unknown_field",
            ],
        ),
        (
            json!({"email": "ada@example.com", "password": PASSWORD, "role": "admin"}),
            &[": unknown_field"],
        ),
        (
            json!({"Email": "ada@example.com", "email": "ada@example.com", "password": PASSWORD, "__proto__": {}}),
            &[": unknown_field", ": unknown_field"],
        ),
    ] {
        let reply = server.post("/auth/register", body.clone()).await;
        assert_eq!(reply.field_errors(), errors, "{body}");
    }
    server.assert_no_letter().await;
}

#[tokio::test]
async fn every_route_with_a_body_is_as_strict() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let other = server.session(&admin.id.as_str().into(), Role::ADMIN, &admin.email).await;
    let id = server.create_project(&admin, "Apollo").await;
    for (method, path, good) in [
        (
            Method::POST,
            "/auth/register".to_owned(),
            json!({"email": "a@example.com", "password": PASSWORD}),
        ),
        (
            Method::POST,
            "/auth/login".to_owned(),
            json!({"email": admin.email, "password": PASSWORD}),
        ),
        (Method::POST, "/auth/refresh".to_owned(), json!({"refresh_token": admin.refresh})),
        (Method::POST, "/auth/logout".to_owned(), json!({"refresh_token": other.refresh})),
        (Method::POST, "/auth/verify/resend".to_owned(), json!({"email": "a@example.com"})),
        (Method::POST, "/projects".to_owned(), json!({"name": "x"})),
        (Method::PATCH, format!("/projects/{id}"), json!({"name": "x"})),
        (Method::PATCH, format!("/admin/users/{}", admin.id), json!({"plan": "paid"})),
    ] {
        let call = || server.call(method.clone(), &path).by(&admin);
        let text = good.to_string();
        call().body("application/json", "{").await.refused(400, "invalid_request");
        call().body("text/plain", text.clone()).await.refused(415, "unsupported_media_type");
        call().body("application/json", too_large()).await.refused(413, "payload_too_large");

        let mut unknown = good.clone();
        unknown["x"] = json!(1);
        call().json(&unknown).await.refused(422, "validation_failed");
        call().json(&json!({})).await.refused(422, "validation_failed");
        for member in good.as_object().unwrap().keys() {
            let mut other_type = good.clone();
            other_type[member] = json!([good[member]]);
            let fields = call().json(&other_type).await.field_errors();
            assert!(
                fields.iter().all(|error| error.starts_with(&format!("{member}: "))),
                "{path} {fields:?}"
            );
        }
        let reply = call().body("Application/JSON; charset=utf-8", text).await;
        assert!(reply.status.is_success(), "{path} {reply:?}");
    }
}

#[tokio::test]
async fn body_of_another_type_is_refused() {
    let server = Server::start().await;
    let good = json!({"refresh_token": "x"}).to_string();
    for kind in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/problem+json",
        "application/jsonx",
        "json",
    ] {
        let reply = refresh_with(&server, kind, good.clone()).await;
        assert_eq!(reply.error(), (415, "unsupported_media_type"), "{kind:?}");
    }
    server.call(Method::POST, "/auth/refresh").await.refused(415, "unsupported_media_type");
}

#[tokio::test]
async fn body_over_64_kib_is_refused() {
    let server = Server::start().await;
    let of_length = |length: usize| {
        let mut body = json!({"refresh_token": ""}).to_string().into_bytes();
        body.resize(length, b' ');
        body
    };
    for length in [KIB_64, KIB_64 + 1, 2 * 1024 * 1024] {
        let counted = refresh_with(&server, "application/json", of_length(length));
        let announced = server.call(Method::POST, "/auth/refresh");
        let announced = announced
            .header("content-length", length.to_string())
            .body("application/json", of_length(length));
        for reply in [counted.await, announced.await] {
            if length == KIB_64 {
                reply.refused(401, "invalid_refresh_token");
            } else {
                reply.refused(413, "payload_too_large");
            }
        }
    }
}

/// The answer to a body of members without a meaning is no larger than the body: it names only so many.
#[tokio::test]
async fn answer_is_small_whatever_was_asked() {
    let server = Server::start().await;
    let many: String = (0..7000).map(|n| format!(r#","{n}":0"#)).collect();
    let many = format!(r#"{{"refresh_token":"x"{many}}}"#);
    let long = format!(r#"{{"{}": 1, "refresh_token": {{}}}}"#, "a".repeat(60_000));
    for body in [many, long] {
        assert!((60_000..=KIB_64).contains(&body.len()), "{}", body.len());
        let reply = refresh_with(&server, "application/json", body).await;
        assert_eq!(reply.error(), (422, "validation_failed"));
        assert!(reply.body.len() < 4096, "{}", reply.body.len());
    }
    let path = format!("/auth/verify?token={}", "a".repeat(20_000));
    let reply = server.get(&path).await.refused(400, "invalid_verification_token");
    assert!(reply.body.len() < 4096);
}

async fn refresh_with(server: &Server, kind: &str, body: impl Into<Body>) -> Reply {
    server.call(Method::POST, "/auth/refresh").body(kind, body).await
}

fn too_large() -> Vec<u8> {
    vec![b' '; KIB_64 + 1]
}
