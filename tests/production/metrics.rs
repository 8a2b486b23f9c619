//! What operators see.

use http::StatusCode;
use serde_json::json;

use crate::{
    api::Api,
    ports::free_port,
    scene::{ADMIN, Scene},
};

/// An address for `METRICS_ADDR`.
pub(crate) fn metrics_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Where metrics are read.
#[derive(Clone)]
pub(crate) struct Metrics(Api);

/// What there was when it was read.
pub(crate) struct Page(String);

impl Metrics {
    pub(crate) fn at(address: &str) -> Self {
        Self(Api::at(&format!("http://{address}")))
    }

    pub(crate) async fn read(&self) -> Page {
        Page(self.0.get("/metrics").send().await.expect(200).body)
    }
}

impl Page {
    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The value of a series, with its labels.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn metrics_tell_of_limits_logins_and_tokens_but_not_whose() {
    let scene = Scene::new().await;
    let address = metrics_address();
    let settings = scene.settings().with("METRICS_ADDR", &address);
    let server = settings.with("RATE_LIMIT_LOGIN", "2/1h").start().await;
    let api = &server.api;
    let ada = scene.user(api, "ada@example.com").await;
    for status in [401, 401, 429] {
        let guess = api.log_in("ada@example.com", "Wrong-Horse-1").from("203.0.113.9");
        guess.send().await.expect(status);
    }
    let me = api.get("/auth/me").bearer(&ada.access).send().await.expect(200);
    api.get("/auth/me").bearer("not.a.token").from("2001:db8::1").send().await.expect(401);
    let next = api.refresh(&ada.refresh).send().await.expect(200).pair();
    api.refresh(&ada.refresh).send().await.expect(401);
    api.post("/auth/register", &json!({})).from("198.51.100.7").send().await.expect(422);

    let page = Metrics::at(&address).read().await;
    for (series, value) in [
        (r#"tower_warden_limit_decisions_total{limiter="login",outcome="allowed"}"#, 3.0),
        (r#"tower_warden_limit_decisions_total{limiter="login",outcome="refused"}"#, 1.0),
        (r#"tower_warden_limit_decisions_total{limiter="user",outcome="allowed"}"#, 1.0),
        (r#"tower_warden_logins_total{outcome="ok"}"#, 1.0),
        (r#"tower_warden_logins_total{outcome="invalid_credentials"}"#, 2.0),
        (r#"tower_warden_token_refreshes_total{outcome="rotated"}"#, 1.0),
        (r#"tower_warden_token_refreshes_total{outcome="reused"}"#, 1.0),
        (r#"tower_warden_token_verifications_total{outcome="invalid"}"#, 1.0),
        ("tower_warden_hashing_running", 0.0),
    ] {
        assert_eq!(page.value(series), Some(value), "{series} in {}", page.0);
    }
    let ours =
        ["203.0.113.9", "2001:db8", "198.51.100.7", "127.0.0.1", "ada@", "not.a.token", ADMIN];
    let id = me.text("id");
    let theirs = [&*id, &*ada.access, &*ada.refresh, &*next.access, &*next.refresh];
    for secret in ours.into_iter().chain(theirs) {
        assert!(!page.0.contains(secret), "{secret} in {}", page.0);
    }
    assert_eq!(api.get("/metrics").send().await.status, StatusCode::NOT_FOUND);
}
