//! Sessions in cookies, as a browser keeps and sends them: fetch, WebSocket, EventSource, and pages
//! of other origins.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State, WebSocketUpgrade, ws::Message},
    http::{HeaderValue, StatusCode, header::SET_COOKIE},
    middleware::{self, Next},
    response::{AppendHeaders, Html, IntoResponse, Response, Sse, sse::Event},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tower_http::csrf::CsrfLayer;
use tower_warden::{
    Identity, ManualClock, Problem, RequestHead, RequireAuth, Role, TokenService, UserId,
    auth::{FirstOf, SessionCookies},
    store::memory::MemoryStore,
    token::{KeySet, SigningKey},
};

use crate::browser::Browser;

/// An app whose sessions are in cookies, and another origin's page.
struct Site {
    /// Also reached by its address, which is another site.
    port: u16,
    other_port: u16,
    clock: ManualClock,
    seen: Seen,
}

/// What was asked, whether with a cookie, and what was answered.
type Seen = Arc<Mutex<Vec<(String, bool, u16)>>>;

#[derive(Clone)]
struct App {
    tokens: TokenService,
    cookies: SessionCookies,
    seen: Seen,
}

impl Site {
    async fn start() -> Self {
        let (clock, seen) = (ManualClock::at(std::time::SystemTime::now()), Seen::default());
        let keys = KeySet::new(SigningKey::generate_ed25519().unwrap());
        let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new())
            .with_clock(Arc::new(clock.clone()));
        let cookies = SessionCookies::new().with_clock(Arc::new(clock.clone()));
        let app = App { tokens, cookies, seen: Arc::clone(&seen) };
        let page = Router::new().route("/", get(async || Html("<title>page</title>")));
        let (port, other_port) = (serve(app.router().merge(page.clone())).await, serve(page).await);
        Self { port, other_port, clock, seen }
    }

    /// What was seen since it was last asked.
    fn seen(&self) -> Vec<(String, bool, u16)> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn serve(app: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

impl App {
    fn router(self) -> Router {
        let auth = FirstOf::new().or(self.tokens.clone()).or(self.cookies.of(self.tokens.clone()));
        Router::new()
            .route("/me", get(async |caller: Identity| caller.user_id().to_string()))
            .route("/events", get(events))
            .route("/socket", get(socket))
            .layer(RequireAuth::new(auth))
            .route("/login", post(login))
            .route("/refresh", post(refresh))
            .route("/logout", post(logout))
            .layer(CsrfLayer::new())
            .layer(middleware::from_fn_with_state(self.clone(), note))
            .with_state(self)
    }
}

async fn note(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let with_cookie = request.headers().contains_key("cookie");
    let response = next.run(request).await;
    app.seen.lock().unwrap().push((path, with_cookie, response.status().as_u16()));
    response
}

async fn events(caller: Identity) -> impl IntoResponse {
    let event = Event::default().data(caller.user_id().as_str());
    let open = tokio_stream::once(event).chain(tokio_stream::pending());
    Sse::new(open.map(Ok::<_, std::convert::Infallible>))
}

async fn socket(caller: Identity, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let _ = socket.send(Message::text(caller.user_id().as_str())).await;
    })
}

async fn login(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let pair = app.tokens.issue(&ada()).await?;
    Ok(set(app.cookies.set(&pair)?))
}

async fn refresh(State(app): State<App>, request: Request) -> Result<impl IntoResponse, Problem> {
    let token = app.cookies.refresh_token(&RequestHead::from(&request))?.to_owned();
    let pair = app.tokens.refresh(&token, async |_| Ok(Some(ada()))).await?;
    Ok(set(app.cookies.set(&pair)?))
}

async fn logout(State(app): State<App>, request: Request) -> Result<impl IntoResponse, Problem> {
    let token = app.cookies.refresh_token(&RequestHead::from(&request))?.to_owned();
    app.tokens.logout(&token).await?;
    Ok(set(app.cookies.clear()))
}

fn set(cookies: Vec<HeaderValue>) -> impl IntoResponse {
    (StatusCode::NO_CONTENT, AppendHeaders(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie))))
}

fn ada() -> Identity {
    Identity::new(UserId::from("ada"), Role::EDITOR)
}

/// A request of the page; the status and the text that it reads, or 0 where it may read nothing.
async fn fetch(browser: &Browser, method: &str, url: &str) -> (u64, String) {
    let options = json!({"method": method, "credentials": "include", "mode": "no-cors"});
    let script = format!(
        "const done = arguments[0];
         fetch({}, {options}).then(async (r) => done([r.status, await r.text()]), () => done([-1, '']));",
        json!(url)
    );
    let answer = browser.run_async(&script).await;
    (answer[0].as_u64().unwrap(), answer[1].as_str().unwrap().to_owned())
}

/// The first message of a socket, or `null`.
async fn socket_says(browser: &Browser, url: &str) -> Value {
    let script = format!(
        "const done = arguments[0], socket = new WebSocket({});
         socket.onmessage = ({{data}}) => done(data);
         socket.onerror = () => done(null);",
        json!(url)
    );
    browser.run_async(&script).await
}

/// The first event of a stream, or `null`.
async fn stream_says(browser: &Browser, url: &str) -> Value {
    let script = format!(
        "const done = arguments[0], events = new EventSource({}, {{withCredentials: true}});
         events.onmessage = ({{data}}) => {{ events.close(); done(data) }};
         events.onerror = () => {{ events.close(); done(null) }};",
        json!(url)
    );
    browser.run_async(&script).await
}

#[tokio::test]
#[ignore = "needs Chromium: run tests/run"]
async fn a_browser_keeps_a_session_in_cookies_and_no_other_origin_uses_it() {
    let site = Site::start().await;
    let own = format!("http://localhost:{}", site.port);
    let socket = format!("ws://localhost:{}/socket", site.port);
    let browser = Browser::start().await;

    browser.open(&own).await;
    assert_eq!(fetch(&browser, "GET", "/me").await.0, 401);
    assert_eq!(socket_says(&browser, &socket).await, Value::Null);
    assert_eq!(fetch(&browser, "POST", "/login").await.0, 204);
    let me = || async { fetch(&browser, "GET", "/me").await };
    assert_eq!(me().await, (200, "ada".into()));
    assert_eq!(browser.run("return document.cookie").await, "", "no script reads them");
    assert_eq!(socket_says(&browser, &socket).await, "ada");
    assert_eq!(stream_says(&browser, "/events").await, "ada");

    // The access token ends; the refresh token brings another.
    site.clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(me().await.0, 401);
    assert_eq!(stream_says(&browser, "/events").await, Value::Null);
    assert_eq!(fetch(&browser, "POST", "/refresh").await.0, 204);
    assert_eq!(me().await, (200, "ada".into()));
    assert_eq!(socket_says(&browser, &socket).await, "ada");
    site.seen();

    // Another port is another origin of the same site: the browser sends the cookies along, and they
    // are not believed. Another address is another site: it sends none.
    for (page, with_cookie, refused) in [
        (format!("http://localhost:{}", site.other_port), true, 403),
        (format!("http://127.0.0.1:{}", site.other_port), false, 401),
    ] {
        browser.open(&page).await;
        assert_eq!(fetch(&browser, "GET", &format!("{own}/me")).await, (0, String::new()));
        assert_eq!(socket_says(&browser, &socket).await, Value::Null);
        assert_eq!(stream_says(&browser, &format!("{own}/events")).await, Value::Null);
        for path in ["/login", "/refresh", "/logout"] {
            assert_eq!(fetch(&browser, "POST", &format!("{own}{path}")).await.0, 0);
        }
        let seen = site.seen();
        let expected = |path: &str| {
            // CSRF is refused before anybody looks at who asks.
            let status =
                if ["/login", "/refresh", "/logout"].contains(&path) { 403 } else { refused };
            (path.to_owned(), with_cookie, status)
        };
        let paths = ["/me", "/socket", "/events", "/login", "/refresh", "/logout"];
        assert_eq!(seen, paths.map(expected), "{page}");
    }

    // Nothing of this has changed or ended the session.
    browser.open(&own).await;
    assert_eq!(me().await, (200, "ada".into()));
    assert_eq!(fetch(&browser, "POST", "/logout").await.0, 204);
    site.seen();
    assert_eq!(me().await.0, 401);
    assert_eq!(site.seen(), [("/me".to_owned(), false, 401)], "the browser has dropped them");
    browser.stop().await;
}
