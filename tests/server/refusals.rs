//! Who may come where, what is refused first, and what no route answers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::Method;
use serde_json::json;
use tower_warden::Role;

use crate::{
    reply::assert_members,
    support::{Api, Call, NO_ID, SECOND, Server, Session},
};

/// The contract's routes, and the least role that they are for; `None`: anyone.
pub(crate) const ROUTES: [(&str, &str, Option<&str>); 38] = [
    ("POST", "/auth/register", None),
    ("GET", "/auth/verify", None),
    ("POST", "/auth/verify", None),
    ("GET", "/reset", None),
    ("POST", "/reset", None),
    ("GET", "/confirm-email", None),
    ("POST", "/confirm-email", None),
    ("POST", "/auth/login", None),
    ("POST", "/auth/login/totp", None),
    ("POST", "/auth/refresh", None),
    ("POST", "/auth/logout", None),
    ("POST", "/auth/logout-all", Some("viewer")),
    ("GET", "/auth/sessions", Some("viewer")),
    ("DELETE", "/auth/sessions/{id}", Some("viewer")),
    ("GET", "/auth/keys", Some("viewer")),
    ("POST", "/auth/keys", Some("viewer")),
    ("DELETE", "/auth/keys/{id}", Some("viewer")),
    ("POST", "/auth/totp", Some("viewer")),
    ("POST", "/auth/totp/confirm", Some("viewer")),
    ("POST", "/auth/totp/disable", Some("viewer")),
    ("GET", "/auth/me", Some("viewer")),
    ("GET", "/projects", Some("viewer")),
    ("POST", "/projects", Some("editor")),
    ("GET", "/projects/{id}", Some("viewer")),
    ("PATCH", "/projects/{id}", Some("editor")),
    ("DELETE", "/projects/{id}", Some("admin")),
    ("GET", "/analytics", Some("admin")),
    ("GET", "/public/status", None),
    ("PATCH", "/admin/users/{id}", Some("admin")),
    ("GET", "/.well-known/jwks.json", None),
    ("POST", "/auth/verify/resend", None),
    ("POST", "/auth/password/forgot", None),
    ("POST", "/auth/password/reset", None),
    ("POST", "/auth/email/confirm", None),
    ("POST", "/auth/password/change", Some("viewer")),
    ("POST", "/auth/email/change", Some("viewer")),
    ("POST", "/auth/me/delete", Some("viewer")),
    ("GET", "/admin/users", Some("admin")),
];

const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];

#[tokio::test]
async fn each_route_is_for_its_roles() {
    let server = Server::start().await;
    let sessions = [
        server.join(Role::VIEWER).await,
        server.join(Role::EDITOR).await,
        server.join(Role::ADMIN).await,
    ];
    let ranks = ["viewer", "editor", "admin"];
    for (method, path, least) in ROUTES {
        let call = || server.call(method.parse().unwrap(), &path.replace("{id}", NO_ID));
        let Some(least) = least else {
            let status = call().await.status.as_u16();
            assert!([200, 400, 415].contains(&status), "{method} {path}: {status}");
            continue;
        };
        call().await.refused(401, "authentication_required");
        call().bearer("x").await.refused(401, "invalid_token");
        let needed = ranks.iter().position(|rank| *rank == least).unwrap();
        for (rank, member) in sessions.iter().enumerate() {
            // One of these routes ends all sessions.
            let role = ranks[rank].into();
            let session = server.session(&member.id.as_str().into(), role, &member.email).await;
            let reply = call().by(&session).await;
            if rank < needed {
                reply.refused(403, "insufficient_permissions");
            } else {
                let passed = ![401, 403].contains(&reply.status.as_u16());
                assert!(passed, "{method} {path} as {}: {reply:?}", ranks[rank]);
            }
        }
    }
}

#[tokio::test]
async fn head_needs_what_get_needs() {
    let server = Server::start().await;
    let (viewer, admin) = (server.join(Role::VIEWER).await, server.join(Role::ADMIN).await);
    let id = server.create_project(&admin, "Apollo").await;
    let paths = ROUTES.iter().filter(|(method, ..)| *method == "GET").map(|(_, path, _)| *path);
    for path in paths {
        let path = path.replace("{id}", &id);
        let as_each = |method: Method| {
            let call = || server.call(method.clone(), &path);
            [call(), call().by(&viewer), call().by(&admin)]
        };
        for (get, head) in as_each(Method::GET).into_iter().zip(as_each(Method::HEAD)) {
            let (get, head) = (get.await, head.await);
            assert_eq!(get.status, head.status, "{path}");
            assert_eq!(get.header("content-type"), head.header("content-type"), "{path}");
        }
    }
}

#[tokio::test]
async fn other_methods_are_405_with_allow() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    for (_, path, _) in ROUTES {
        let mut allowed: Vec<_> = ROUTES
            .iter()
            .filter(|(_, same, _)| *same == path)
            .map(|(method, ..)| *method)
            .collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.sort_unstable();
        for method in METHODS.into_iter().filter(|method| !allowed.contains(method)) {
            let call = server.call(method.parse().unwrap(), &path.replace("{id}", NO_ID));
            let reply = call.by(&admin).from("192.0.2.1").await;
            let reply = reply.expect(405);
            let mut allow: Vec<_> =
                reply.header("allow").unwrap().split(',').map(str::trim).collect();
            allow.sort_unstable();
            assert_eq!(allow, allowed, "{method} {path}");
            server.clock.advance(SECOND);
        }
    }
}

#[tokio::test]
async fn only_exact_paths_are_routes() {
    let server = Server::start().await;
    let admin = server.join(Role::ADMIN).await;
    let id = server.create_project(&admin, "Apollo").await;
    let project = format!("/projects/{id}");
    server.get(&project).by(&admin).await.expect(200);
    for path in [
        "/",
        "/nowhere",
        "/auth",
        "/auth/",
        "/auth/me/",
        "//auth/me",
        "/auth//me",
        "/Auth/me",
        "/auth/ME",
        "/auth/%6de",
        "/auth%2fme",
        "/auth/me%00",
        "/auth/me;x",
        "/./auth/me",
        "/auth/../auth/me",
        "/projects/",
        "/analytics/",
        "/%61nalytics",
        "/.well-known/",
        "/admin",
        "/admin/users/",
        "/metrics",
        &format!("{project}/"),
        &format!("/projects/{}", id.to_uppercase()),
        &format!("/projects/{}", id.replace('-', "")),
        &format!("/projects/{{{id}}}"),
        &format!("/projects/urn:uuid:{id}"),
        &format!("/projects/{id}%20"),
        "/projects/1",
        "/projects/%ff",
        "/projects/%",
        &format!("/admin/users/{}", admin.id.to_uppercase()),
    ] {
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            let reply = server.call(method, path).by(&admin).await;
            assert_eq!(reply.error(), (404, "not_found"), "{path}");
        }
        server.clock.advance(10 * SECOND);
    }
    for (i, byte) in id.bytes().enumerate() {
        let encoded = format!("/projects/{}%{byte:02x}{}", &id[..i], &id[i + 1..]);
        server.get(&encoded).by(&admin).await.refused(404, "not_found");
    }
    let absolute = format!("http://api.example{project}?x=1");
    server.get(&absolute).by(&admin).await.expect(200);
    server.call(Method::CONNECT, "api.example:443").await.refused(404, "not_found");
    server.call(Method::OPTIONS, "*").await.refused(404, "not_found");
}

/// Each request is wrong in all that is still to come as well.
#[tokio::test]
async fn what_is_refused_first_is_as_the_contract_says() {
    let server = Server::start().await;
    let [viewer, editor, admin] = [
        server.join(Role::VIEWER).await,
        server.join(Role::EDITOR).await,
        server.join(Role::ADMIN).await,
    ];
    let id = server.create_project(&admin, "Apollo").await;
    let (bad, project, nothing) =
        ("/projects/1".to_owned(), format!("/projects/{id}"), format!("/projects/{NO_ID}"));
    let large = || vec![b'{'; 64 * 1024 + 1];
    let put = |path: &str| server.call(Method::PUT, path).body("text/plain", large());
    let patch = |path: &str| server.call(Method::PATCH, path);
    let limited =
        || async { while server.get("/auth/me").from("192.0.2.1").await.status != 429 {} };
    limited().await;
    let twice = |call: Call| call.bearer("x").bearer("x");
    for (call, status, code) in [
        (twice(put(&bad)), 400, "invalid_request"),
        (twice(put(&bad)).from("192.0.2.1"), 429, "rate_limited"),
        (put(&bad).from("192.0.2.1"), 429, "rate_limited"),
        (put(&bad).from("192.0.2.1").bearer("x"), 429, "rate_limited"),
        (put(&bad).bearer("x"), 401, "invalid_token"),
        (patch(&bad).body("text/plain", large()).by(&viewer), 403, "insufficient_permissions"),
        (put(&bad).by(&editor), 404, "not_found"),
        (patch(&bad).body("text/plain", large()).by(&editor), 404, "not_found"),
        (put(&project).by(&editor), 405, "method_not_allowed"),
        (patch(&nothing).body("text/plain", large()).by(&editor), 413, "payload_too_large"),
        (patch(&nothing).body("text/plain", "{").by(&editor), 415, "unsupported_media_type"),
        (patch(&nothing).body("application/json", "{").by(&editor), 400, "invalid_request"),
        (patch(&nothing).json(&json!({"name": 1})).by(&editor), 422, "validation_failed"),
        (patch(&nothing).json(&json!({"name": "x"})).by(&editor), 404, "not_found"),
        (server.get("/auth/verify").from("192.0.2.1"), 429, "rate_limited"),
        (server.get("/nowhere").from("192.0.2.1"), 429, "rate_limited"),
    ] {
        let reply = call.await;
        assert_eq!(reply.error(), (status, code));
    }
}

#[tokio::test]
async fn errors_repeat_nothing_of_what_was_sent() {
    let server = Server::start().await;
    let admin @ Session { id, .. } = &server.join(Role::ADMIN).await;
    let marker = "s3cretMarker";
    let body = json!({
        "email": marker, "password": marker, "refresh_token": [marker], "name": [marker],
        "role": marker, "plan": marker, marker: marker,
    });
    let mut calls = vec![
        server.get(&format!("/{marker}")),
        server.get(&format!("/auth/verify?token={marker}")),
        server.get(&format!("/projects?after={marker}")).by(admin),
        server.get(&format!("/projects?limit={marker}")).by(admin),
        server.get(&format!("/projects/{marker}")).by(admin),
        server.get("/auth/me").bearer(marker),
        server.call(marker.parse().unwrap(), "/auth/me").by(admin),
        server.login(&format!("{marker}@example.com"), marker),
        server.refresh(marker),
        server.patch(&format!("/admin/users/{id}"), body.clone()).by(admin),
        server.post("/projects", body.clone()).by(admin),
    ];
    for path in
        ["/auth/register", "/auth/login", "/auth/refresh", "/auth/logout", "/auth/verify/resend"]
    {
        calls.push(server.post(path, body.clone()));
        calls.push(server.call(Method::POST, path).body(marker, marker));
        calls.push(server.call(Method::POST, path).body("application/json", marker));
    }
    for call in calls {
        let reply = call.await;
        assert!(reply.status.is_client_error(), "{reply:?}");
        assert!(!format!("{reply:?}").contains(marker), "{reply:?}");
    }
}

#[tokio::test]
async fn status_tells_that_the_server_is_up() {
    let server = Server::start().await;
    let status = server.get("/public/status").await.expect(200).json();
    assert_eq!(status, json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}));
}

#[tokio::test]
async fn public_keys_are_public_and_cacheable() {
    let server = Server::start().await;
    let reply = server.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
    let keys = reply.json();
    let [key] = keys["keys"].as_array().unwrap().as_slice() else { panic!("{keys}") };
    assert_members(key.as_object().unwrap(), &["kty", "use", "alg", "kid", "n", "e"]);
    assert_eq!(
        (&key["kty"], &key["alg"], &key["use"]),
        (&json!("RSA"), &json!("RS256"), &json!("sig"))
    );
    // RFC 7638: the thumbprint.
    let members = format!(r#"{{"e":{},"kty":"RSA","n":{}}}"#, key["e"], key["n"]);
    let digest = ring::digest::digest(&ring::digest::SHA256, members.as_bytes());
    assert_eq!(key["kid"], json!(BASE64URL.encode(digest)));
}
