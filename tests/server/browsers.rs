//! CORS: whose scripts may call, and what they may read.

use http::{HeaderValue, Method};

use crate::support::{Api, Call, Server};

const OURS: &str = "https://app.example";

async fn server() -> Server {
    Server::with(|app| app.cors_allowed_origins = vec![HeaderValue::from_static(OURS)]).await
}

fn preflight(server: &Server, path: &str) -> Call {
    let call = server.call(Method::OPTIONS, path).header("access-control-request-method", "PATCH");
    call.header("access-control-request-headers", "authorization, content-type")
}

#[tokio::test]
async fn preflight_is_answered_before_authentication_and_limits() {
    let server = server().await;
    for _ in 0..100 {
        server.get("/public/status").await.expect(200);
    }
    server.get("/auth/me").await.expect(429);
    for path in ["/auth/me", "/projects", "/auth/login", "/public/status"] {
        let reply = preflight(&server, path).header("origin", OURS).await.expect(200);
        assert_eq!(reply.header("access-control-allow-origin"), Some(OURS));
        let methods = reply.header("access-control-allow-methods").unwrap();
        for method in ["GET", "HEAD", "POST", "PATCH", "DELETE"] {
            assert!(methods.split(',').any(|allowed| allowed == method), "{methods}");
        }
        let headers = reply.header("access-control-allow-headers").unwrap();
        for header in ["authorization", "content-type"] {
            assert!(headers.split(',').any(|allowed| allowed == header), "{headers}");
        }
        assert_eq!(reply.limit(), None);
    }
}

#[tokio::test]
async fn options_that_is_no_preflight_is_a_request_like_any_other() {
    let server = server().await;
    let bare = server.call(Method::OPTIONS, "/public/status").await.expect(405);
    assert_eq!(bare.remaining(), 99);
    let half = server.call(Method::OPTIONS, "/nowhere").header("origin", OURS).await.expect(404);
    assert_eq!(half.remaining(), 98);
}

#[tokio::test]
async fn scripts_may_read_errors_and_the_headers_of_limits() {
    let server = server().await;
    for path in ["/public/status", "/auth/me", "/nowhere", "/auth/verify"] {
        let reply = server.get(path).header("origin", OURS).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some(OURS), "{path}");
        assert!(reply.header("vary").unwrap().contains("origin"));
        let exposed = reply.header("access-control-expose-headers").unwrap();
        for header in [
            "www-authenticate",
            "retry-after",
            "location",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "ratelimit",
            "ratelimit-policy",
        ] {
            assert!(exposed.split(',').any(|name| name == header), "{header}: {exposed}");
        }
    }
}

#[tokio::test]
async fn other_origins_are_not_allowed() {
    let server = server().await;
    for origin in
        ["https://evil.example", "null", "https://app.example.evil.example", "http://app.example"]
    {
        for call in [server.get("/public/status"), preflight(&server, "/auth/me")] {
            let reply = call.header("origin", origin).await;
            assert_eq!(reply.header("access-control-allow-origin"), None, "{origin}");
        }
    }
}

#[tokio::test]
async fn by_default_no_origin_is_allowed() {
    let server = Server::start().await;
    preflight(&server, "/public/status")
        .header("origin", OURS)
        .await
        .refused(405, "method_not_allowed");
    let reply = server.get("/public/status").header("origin", OURS).await.expect(200);
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control")));
}
