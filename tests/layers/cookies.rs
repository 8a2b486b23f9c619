//! Sessions of browsers in cookies: who brings them, and whose request it is.

use std::{sync::Arc, time::Duration};

use http::{Request, request::Builder};
use tower::Layer;
use tower_warden::{
    Identity, ManualClock, RequestHead, RequireAuth, Role, TokenService, UserId,
    auth::{AuthError, FirstOf, SessionCookies},
    store::memory::MemoryStore,
    token::{KeySet, SigningKey, TokenPair},
};

use crate::support::{inner, problem, send};

async fn session() -> (TokenService, SessionCookies, TokenPair) {
    let clock = Arc::new(ManualClock::new());
    let keys = KeySet::new(SigningKey::generate_ed25519().unwrap());
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new())
        .with_refresh_ttl(Duration::from_secs(3600))
        .with_clock(clock.clone());
    let pair = tokens.issue(&Identity::new(UserId::from("ada"), Role::EDITOR)).await.unwrap();
    (tokens, SessionCookies::new().with_clock(clock), pair)
}

fn browser(token: &str) -> Builder {
    let cookie = format!("theme=dark; __Host-access={token}; x=y=z");
    Request::get("/").header("host", "api.example").header("cookie", cookie)
}

#[tokio::test]
async fn cookies_are_of_this_host_and_out_of_reach_of_scripts() {
    let (_, cookies, pair) = session().await;
    let attributes = "Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Strict";
    let set = cookies.set(&pair).unwrap();
    let refresh = pair.refresh_token().expose();
    assert_eq!(set[0], format!("__Host-refresh={refresh}; {attributes}"));
    let attributes = "Path=/; Max-Age=900; Secure; HttpOnly; SameSite=Strict";
    assert_eq!(set[1], format!("__Host-access={}; {attributes}", pair.access_token()));
    assert!(set.iter().all(http::HeaderValue::is_sensitive));
    assert_eq!(cookies.clone().without_access_token().set(&pair).unwrap().len(), 1);
    assert_eq!(
        cookies.lax().clear()[1],
        "__Host-access=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"
    );
}

#[tokio::test]
async fn a_token_too_long_for_a_cookie_is_no_cookie() {
    let (tokens, cookies, _) = session().await;
    let caller = Identity::new(UserId::from("ada"), Role::EDITOR).with_claim("x", "x".repeat(4000));
    let pair = tokens.issue(&caller).await.unwrap();
    assert!(cookies.set(&pair).is_err());
}

#[tokio::test]
async fn a_cookie_is_believed_where_the_request_is_of_the_same_origin() {
    let (tokens, cookies, pair) = session().await;
    let cookies = cookies.with_trusted_origin("https://app.example");
    let service =
        RequireAuth::new(FirstOf::new().or(tokens.clone()).or(cookies.of(tokens))).layer(inner());
    let token = pair.access_token();
    let upgrade = || browser(token).header("connection", "upgrade").header("upgrade", "websocket");
    for (case, request, status) in [
        ("no browser", browser(token), 200),
        ("the same origin", browser(token).header("sec-fetch-site", "same-origin"), 200),
        ("typed by the user", browser(token).header("sec-fetch-site", "none"), 200),
        ("another host of the site", browser(token).header("sec-fetch-site", "same-site"), 403),
        ("another site", browser(token).header("sec-fetch-site", "cross-site"), 403),
        ("an old browser", browser(token).header("origin", "https://api.example"), 200),
        ("an old browser elsewhere", browser(token).header("origin", "https://evil.example"), 403),
        ("a sandbox", browser(token).header("origin", "null"), 403),
        ("a WebSocket of ours", upgrade().header("origin", "https://api.example"), 200),
        ("a WebSocket of others", upgrade().header("origin", "https://evil.example"), 403),
        // Whoever sits on the network can make a page of our host without TLS.
        (
            "a WebSocket of our host without TLS",
            upgrade().header("origin", "http://api.example"),
            403,
        ),
        ("another port", browser(token).header("origin", "https://api.example:8443"), 403),
        ("a host that begins alike", browser(token).header("origin", "https://api.example.x"), 403),
        ("a user at our host", browser(token).header("origin", "https://x@api.example"), 403),
        ("an origin of nothing", browser(token).header("origin", "https://"), 403),
        ("no origin", browser(token).header("origin", ""), 403),
        ("a strange site", browser(token).header("sec-fetch-site", "Same-Origin"), 403),
        (
            "a trusted origin without TLS",
            browser(token).header("origin", "http://app.example"),
            403,
        ),
        (
            "a trusted origin",
            browser(token)
                .header("origin", "https://app.example")
                .header("sec-fetch-site", "same-site"),
            200,
        ),
        ("twice", browser(token).header("cookie", format!("__Host-access={token}")), 400),
        ("twice in one line", browser(&format!("{token}; __Host-access={token}")), 400),
        ("twice, and one is empty", browser(&format!("{token}; __Host-access=")), 400),
        (
            "a name without the prefix, which another host of the site can set",
            Request::get("/")
                .header("host", "api.example")
                .header("cookie", format!("access={token}")),
            401,
        ),
        (
            "a name in other case",
            Request::get("/")
                .header("host", "api.example")
                .header("cookie", format!("__host-access={token}")),
            401,
        ),
        (
            "a name within a value",
            Request::get("/")
                .header("host", "api.example")
                .header("cookie", format!("x=\"__Host-access={token}\"")),
            401,
        ),
        ("another token", browser("a.b.c"), 401),
        ("none", browser(""), 401),
        (
            "a Bearer token, and no look at the cookie",
            browser("x").header("authorization", format!("Bearer {token}")),
            200,
        ),
    ] {
        let response = send(&service, request).await;
        assert_eq!(response.status(), status, "{case}");
        if status == 403 {
            assert_eq!(problem(response).await["code"], "cross_site_request", "{case}");
        }
    }
}

#[tokio::test]
async fn the_refresh_token_is_read_under_the_same_rules() {
    let (_, cookies, pair) = session().await;
    let refresh = pair.refresh_token().expose();
    let asked = |site: &str| {
        let cookie = format!("__Host-refresh={refresh}");
        let request = Request::post("/").header("cookie", cookie).header("sec-fetch-site", site);
        request.body(()).unwrap()
    };
    let own = asked("same-origin");
    assert_eq!(cookies.refresh_token(&RequestHead::from(&own)).unwrap(), refresh);
    let other = asked("cross-site");
    let refused = cookies.refresh_token(&RequestHead::from(&other));
    assert!(matches!(refused, Err(AuthError::CrossSite)));
    let none = Request::post("/").body(()).unwrap();
    let refused = cookies.refresh_token(&RequestHead::from(&none));
    assert!(matches!(refused, Err(AuthError::Missing)));
    let cookie = format!("__Host-refresh={refresh}; __Host-refresh={refresh}");
    let twice = Request::post("/").header("cookie", cookie).body(()).unwrap();
    let refused = cookies.refresh_token(&RequestHead::from(&twice)).unwrap_err();
    assert_eq!(refused.to_problem("api").detail(), "More than one session cookie");
}

#[tokio::test]
async fn cookies_are_found_again_by_whatever_names_they_were_set() {
    let (tokens, cookies, pair) = session().await;
    for (cookies, name) in [
        (cookies.clone().with_names("a", "r"), "__Host-a"),
        (cookies.clone().with_domain("example"), "__Secure-access"),
        (cookies.clone().with_domain("example").with_names("a", "r"), "__Secure-a"),
        (cookies.with_names("a", "r").with_domain("example"), "__Secure-a"),
    ] {
        let set = cookies.set(&pair).unwrap();
        let sent: Vec<_> = set.iter().map(|set| set.to_str().unwrap()).collect();
        assert!(sent[1].starts_with(&format!("{name}=")), "{sent:?}");
        let sent = sent.iter().map(|set| set.split(';').next().unwrap()).collect::<Vec<_>>();
        let request = || Request::get("/").header("cookie", sent.join("; "));
        let service = RequireAuth::new(cookies.of(tokens.clone())).layer(inner());
        assert_eq!(send(&service, request()).await.status(), 200, "{name}");
        let refresh = request().body(()).unwrap();
        let refresh = cookies.refresh_token(&RequestHead::from(&refresh)).unwrap().to_owned();
        assert_eq!(refresh, pair.refresh_token().expose());
        // By their own names they are nobody's.
        let others = RequireAuth::new(SessionCookies::new().of(tokens.clone())).layer(inner());
        assert_eq!(send(&others, request()).await.status(), 401, "{name}");
    }
}

#[tokio::test]
async fn on_this_very_machine_a_page_needs_no_tls() {
    let (tokens, cookies, pair) = session().await;
    let service = RequireAuth::new(cookies.of(tokens)).layer(inner());
    for host in ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "app.localhost"] {
        let cookie = format!("__Host-access={}", pair.access_token());
        let request = Request::get("/").header("host", host).header("cookie", cookie);
        let request = request.header("origin", format!("http://{host}"));
        assert_eq!(send(&service, request).await.status(), 200, "{host}");
    }
}
