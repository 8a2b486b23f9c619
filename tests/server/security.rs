//! What every answer tells browsers. That it is hardened is checked of each answer that any test
//! sees (`reply`); here, that there is none which isn't seen.

use std::collections::BTreeSet;

use http::{HeaderValue, Method};
use serde_json::json;
use tower_warden::{Quota, Role};

use crate::{
    refusals::ROUTES,
    reply::Reply,
    support::{Api, MINUTE, NO_ID, Server},
};

const OTHERS: [&str; 8] =
    ["/", "/app.js", "/app.css", "/docs", "/docs.js", "/openapi.json", "/nowhere", "/auth/me/"];

#[tokio::test]
async fn over_https_every_answer_asks_for_nothing_else() {
    let ours = HeaderValue::from_static("https://app.example");
    let server = Server::with(|app| {
        app.https = true;
        app.cors_allowed_origins = vec![ours];
        app.limits.quotas.public = Quota::per_minute(10_000);
    });
    let server = server.await;
    let [viewer, admin] = [server.join(Role::VIEWER).await, server.join(Role::ADMIN).await];
    let hardened = |reply: Reply| {
        let only = reply.header("strict-transport-security").unwrap_or_default();
        assert!(only.starts_with("max-age="), "{reply:?}");
        reply.status.as_u16()
    };
    let mut statuses = BTreeSet::new();
    let routes = ROUTES.iter().map(|(method, path, _)| (*method, *path));
    for (method, path) in routes.chain(OTHERS.iter().map(|path| ("GET", *path))) {
        let path = path.replace("{id}", NO_ID);
        // One of these routes ends all sessions.
        let viewer = server.session(&viewer.id.as_str().into(), Role::VIEWER, &viewer.email).await;
        let admin = server.session(&admin.id.as_str().into(), Role::ADMIN, &admin.email).await;
        let call = || server.call(method.parse().unwrap(), &path);
        let large = vec![b' '; 64 * 1024 + 1];
        for call in [
            call(),
            call().header("accept", "text/html"),
            call().bearer("x"),
            call().bearer("x").bearer("x"),
            call().by(&viewer),
            call().by(&admin).json(&json!({"token": "x"})),
            call().by(&admin).body("text/plain", large),
            server.call("BREW".parse().unwrap(), &path).by(&admin),
            server
                .call(Method::OPTIONS, &path)
                .header("origin", "https://app.example")
                .header("access-control-request-method", "GET"),
        ] {
            statuses.insert(hardened(call.await));
        }
    }
    server.clock.advance(MINUTE);
    loop {
        let status = hardened(server.login(&admin.email, "wrong").await);
        statuses.insert(status);
        if status == 429 {
            break;
        }
    }
    for status in [200, 400, 401, 403, 404, 405, 413, 415, 422, 429] {
        assert!(statuses.contains(&status), "no {status} was seen: {statuses:?}");
    }
}
