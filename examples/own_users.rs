//! Users in a table of your own, with argon2, and this crate's tokens: what a `TokenService` needs of
//! users is an id and a role at login, and who they are at each refresh.
//!
//! Run it: `cargo run --example own_users --features axum,sqlite`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{error::Error, sync::LazyLock};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use http::{Request, StatusCode};
use serde::Deserialize;
use sqlx::{Row, SqlitePool, sqlite::SqlitePoolOptions};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower_warden::{
    Identity, Problem, RequireAuth, Role, StoreError, TokenService, UserId,
    store::memory::MemoryStore,
    token::{KeySet, SigningKey, TokenPair},
};

#[derive(Clone)]
struct App {
    users: SqlitePool,
    tokens: TokenService,
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

async fn login(
    State(app): State<App>,
    Json(Credentials { name, password }): Json<Credentials>,
) -> Result<Json<TokenPair>, Problem> {
    let row = sqlx::query("SELECT id, role, hash FROM people WHERE name = ?").bind(name);
    let row = row.fetch_optional(&app.users).await.map_err(StoreError::unavailable)?;
    // An unknown name takes as long as a wrong password: it is checked against the hash of nobody.
    let (who, hash) = match &row {
        Some(row) => (Some(identity(row.get("id"), row.get("role"))), row.get("hash")),
        None => (None, NOBODY.clone()),
    };
    // Hashing takes long, and 19 MiB: not on a thread that others wait for, and not all at once. The permit
    // is the work's own, so that a client that hangs up doesn't free it.
    let permit = HASHING.acquire().await.map_err(StoreError::internal)?;
    let right = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        check(&password, &hash)
    });
    match (who, right.await) {
        (Some(who), Ok(true)) => Ok(Json(app.tokens.issue(&who).await?)),
        _ => Err(Problem::new(StatusCode::UNAUTHORIZED, "wrong", "Wrong name or password")),
    }
}

async fn refresh(State(app): State<App>, token: String) -> Result<Json<TokenPair>, Problem> {
    let now = |id: UserId| async move {
        let row = sqlx::query("SELECT id, role FROM people WHERE id = ?").bind(id.to_string());
        let row = row.fetch_optional(&app.users).await.map_err(StoreError::unavailable)?;
        Ok(row.map(|row| identity(row.get("id"), row.get("role"))))
    };
    Ok(Json(app.tokens.refresh(&token, now).await?))
}

fn identity(id: &str, role: &str) -> Identity {
    Identity::new(UserId::from(id), Role::from(role)).with_amr(["pwd"])
}

static NOBODY: LazyLock<String> = LazyLock::new(|| hash("nobody"));
static HASHING: Semaphore = Semaphore::const_new(2);

fn hash(password: &str) -> String {
    Argon2::default().hash_password(password.as_bytes()).expect("random bytes").to_string()
}

fn check(password: &str, hash: &str) -> bool {
    let hash = PasswordHash::new(hash);
    hash.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Now, so that the first unknown name takes no longer than others.
    LazyLock::force(&NOBODY);
    let users = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    sqlx::query("CREATE TABLE people (id TEXT, name TEXT, role TEXT, hash TEXT)")
        .execute(&users)
        .await?;
    let ada =
        sqlx::query("INSERT INTO people VALUES ('7', 'ada', 'editor', ?)").bind(hash("Lovelace"));
    ada.execute(&users).await?;

    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
    let app = Router::new()
        .route("/me", get(async |caller: Identity| format!("user {}", caller.user_id())))
        .layer(RequireAuth::new(tokens.clone()))
        .route("/login", post(login))
        .route("/refresh", post(refresh))
        .with_state(App { users, tokens });

    for (name, password, status) in
        [("ada", "Byron", 401), ("bob", "Lovelace", 401), ("ada", "Lovelace", 200)]
    {
        let body = Body::from(format!(r#"{{"name": "{name}", "password": "{password}"}}"#));
        let request =
            Request::post("/login").header("content-type", "application/json").body(body)?;
        let response = app.clone().oneshot(request).await?;
        println!("{name}, {password}: {}", response.status());
        assert_eq!(response.status(), status);
    }
    Ok(())
}
