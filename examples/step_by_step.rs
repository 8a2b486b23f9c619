//! An open API, protected: the whole program of the guide "Protect a service, step by step". Accounts,
//! tokens, roles, limits by plan, and two limits on guesses.
//!
//! Run it: `cargo run --example step_by_step --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use http::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Identity, PeerAddr, Plan, Problem, ProblemCode, Quota, RateLimitLayer, RateLimiter,
    RequireAuth, Role, Rule, TokenService, TrustedProxies, UserService,
    auth::{Admin, Editor, Either, Permitted},
    limit::Charge,
    store::memory::{MemoryRateLimitStore, MemoryStore},
    token::{KeySet, SigningKey, TokenPair},
    user::{
        BcryptHasher, Email, HashingPool, LinkMail, LoginError, Password, UserChange,
        mail::{MailError, MailSender, Message, Outbox},
    },
};

#[derive(Clone)]
struct App {
    users: UserService,
    tokens: TokenService,
    guesses: RateLimiter,
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

#[derive(Deserialize)]
struct Link {
    token: String,
}

#[derive(Deserialize)]
struct Refresh {
    refresh_token: String,
}

async fn register(
    State(app): State<App>,
    Json(new): Json<Credentials>,
) -> Result<StatusCode, Problem> {
    app.users.register(&new.email, Password::from(new.password)).await?;
    Ok(StatusCode::CREATED)
}

async fn verify(State(app): State<App>, Json(link): Json<Link>) -> Result<StatusCode, Problem> {
    app.users.verify_email(&link.token).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn login(
    State(app): State<App>,
    Json(given): Json<Credentials>,
) -> Result<Json<TokenPair>, Problem> {
    // As accounts know it: each way to write an address counts as the same account.
    let email = Email::parse(&given.email).map_err(|_| LoginError::InvalidCredentials)?;
    // Taken before the password is looked at, so that parallel guesses can't slip through.
    let guess = app.guesses.ask(email.as_str()).reserve().await?;
    let user = match app.users.authenticate(&email, Password::from(given.password)).await {
        Err(wrong @ LoginError::InvalidCredentials) => {
            guess.keep().await;
            return Err(wrong.into());
        }
        outcome => {
            guess.give_back().await;
            outcome?
        }
    };
    Ok(Json(app.tokens.issue(&Identity::from(&user).with_amr(["pwd"])).await?))
}

async fn refresh(
    State(app): State<App>,
    Json(old): Json<Refresh>,
) -> Result<Json<TokenPair>, Problem> {
    // Who it is now: role and plan may have changed since.
    let now = async |id| {
        let user = app.users.find(&id).await?.filter(|user| !user.suspended);
        Ok(user.map(|user| Identity::from(&user)))
    };
    Ok(Json(app.tokens.refresh(&old.refresh_token, now).await?))
}

fn router(
    app: App,
    limits: MemoryRateLimitStore,
    proxies: &TrustedProxies,
) -> Result<Router, Box<dyn Error>> {
    let users = Rule::per_user("user", Quota::per_minute(60))
        .with_plan(Plan::PAID, Quota::per_minute(600))
        .exempt_role(Role::ADMIN);
    let strangers = Rule::per_ip("ip", Quota::per_minute(100))
        .behind(proxies.clone())
        .when(|request| request.identity().is_none());
    let auth = RequireAuth::new(app.tokens.clone());
    let api = Router::new()
        .route(
            "/reports",
            get(async |caller: Identity| format!("Hello, {}!", caller.user_id()))
                .post(async |_: Permitted<Either<Editor, Admin>>| "written"),
        )
        .route_layer(
            ServiceBuilder::new()
                .layer(auth.identify_only()) // who is it,
                .layer(RateLimitLayer::new(limits.clone(), [users, strangers])) // how often,
                .layer(auth), // strangers end here
        );

    let accounts = Router::new()
        .route("/register", post(register))
        .route("/verify", post(verify))
        .route("/refresh", post(refresh))
        .route_layer(RateLimitLayer::new(
            limits.clone(),
            Rule::per_ip("accounts", Quota::per_hour(100)).behind(proxies.clone()),
        ));
    // Wrong passwords, and no other 401.
    let wrong = Charge::when(|response| {
        response.status == StatusCode::UNAUTHORIZED
            && response.extensions.get() == Some(&ProblemCode("invalid_credentials"))
    });
    let wrong = Rule::per_ip("login", Quota::new(5, Duration::from_secs(15 * 60))?)
        .behind(proxies.clone())
        .charging(wrong);
    let login =
        Router::new().route("/login", post(login)).route_layer(RateLimitLayer::new(limits, wrong));
    Ok(api.merge(accounts).merge(login).with_state(app))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (limits, accounts, drawer) =
        (MemoryRateLimitStore::new(), MemoryStore::new(), Drawer::default());
    let hashing = HashingPool::new(BcryptHasher::new(4)?)?; // in production: BcryptHasher::default()
    let mail = LinkMail::verification("https://app.example/verify")?;
    let outbox = Outbox::new(drawer.clone());
    let users = UserService::new(accounts.clone(), hashing, mail, outbox.clone());
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let app = App {
        users: users.clone(),
        tokens: TokenService::new(keys, "https://api.example", "api", accounts),
        guesses: RateLimiter::new(limits.clone(), "guesses", Quota::per_hour(50)),
    };
    let router = router(app, limits, &TrustedProxies::none())?;
    // A server: axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).
    let post = async |path: &str, token: &str, body: Value| {
        let request = Request::post(path)
            .extension(PeerAddr::from(([203, 0, 113, 9], 4711)))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"));
        router
            .clone()
            .oneshot(request.body(Body::from(body.to_string()))?)
            .await
            .map_err(|never| -> Box<dyn Error> { never.into() })
    };

    let ada = json!({"email": "ada@example.com", "password": "Correct-Horse-1"});
    assert_eq!(post("/register", "", ada.clone()).await?.status(), 201);
    outbox.close(Duration::from_secs(5)).await;
    assert_eq!(post("/login", "", ada.clone()).await?.status(), 403); // not verified
    let link = drawer.token().ok_or("no mail")?;
    assert_eq!(post("/verify", "", json!({"token": link})).await?.status(), 204);

    let pair = read(post("/login", "", ada).await?).await?;
    let viewer = post("/reports", text(&pair, "access_token"), json!({})).await?;
    println!("a viewer writes: {}, limit {:?}", viewer.status(), viewer.headers()["ratelimit"]);
    assert_eq!(viewer.status(), 403);

    // An admin changes her role: the old access token ends, and the next pair says the new role.
    let user = users.find_by_email("ada@example.com").await?.ok_or("no such user")?;
    let change = UserChange::new().with_role(Role::EDITOR).with_plan(Some(Plan::PAID));
    users.update(&user.id, change).await?;
    let old = post("/reports", text(&pair, "access_token"), json!({})).await?;
    assert_eq!(old.status(), 401);
    let pair = json!({"refresh_token": text(&pair, "refresh_token")});
    let pair = read(post("/refresh", "", pair).await?).await?;
    let editor = post("/reports", text(&pair, "access_token"), json!({})).await?;
    println!("an editor writes: {}, limit {:?}", editor.status(), editor.headers()["ratelimit"]);
    assert_eq!(editor.status(), 200);
    assert_eq!(editor.headers()["x-ratelimit-limit"], "600");

    let guess = json!({"email": "ada@example.com", "password": "Wrong-Horse-1"});
    for status in [401, 401, 401, 401, 401, 429] {
        assert_eq!(post("/login", "", guess.clone()).await?.status(), status);
    }
    println!("five wrong passwords, and no sixth");
    Ok(())
}

async fn read(response: Response<Body>) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 4096).await?)?)
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// Keeps mail instead of sending it.
#[derive(Clone, Debug, Default)]
struct Drawer(Arc<Mutex<Vec<Message>>>);

#[async_trait::async_trait]
impl MailSender for Drawer {
    async fn send(&self, message: &Message) -> Result<(), MailError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
        Ok(())
    }
}

impl Drawer {
    /// The token of the link in the last mail.
    fn token(&self) -> Option<String> {
        let mails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = mails.last()?.text().lines().find_map(|line| line.split_once("?token="))?;
        Some(link.1.to_owned())
    }
}
