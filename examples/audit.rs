//! Who did what to an account: events in the transaction of each change, read back by one call, and
//! handed to a sink of one's own. `cargo run --example audit --features axum` shows what an auditor sees.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{error::Error, net::SocketAddr};

use axum::{
    Router,
    body::Body,
    extract::{Path, connect_info::MockConnectInfo},
    http::Request,
    routing::post,
};
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{
    Identity, ObserveLayer, Problem, RequireAuth, RequireRole, Role, StoreError, TokenService,
    UserId,
    audit::{Act, AuditEvent, AuditFilter, AuditLog, AuditTrail},
    store::memory::MemoryStore,
    token::{KeySet, SigningKey},
    user::{Email, NewUser, PasswordHash, UserChange, UserStore},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let alarm = |event: &AuditEvent| {
        if event.act == Act::ROLE_CHANGED && event.detail.as_deref() == Some("admin") {
            println!("!! somebody became an admin");
        }
    };
    let trail = AuditTrail::new().with_table().with_sink(alarm);
    // SqliteStore and PostgresStore take it in the same way.
    let accounts = MemoryStore::new().with_audit(trail);
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", accounts.clone());

    let ada = add(&accounts, "ada@example.com").await?;
    let root = UserId::from("root");
    let admin = tokens.issue(&Identity::new(root, Role::ADMIN).with_amr(["pwd"])).await?;

    let store = accounts.clone();
    let promote = async move |Path(id): Path<String>| {
        let change = UserChange::new().with_role(Role::ADMIN);
        store.update(&UserId::from(id), change).await.map(drop).map_err(Problem::from)
    };
    let app = Router::new().route("/users/{id}/promote", post(promote)).route_layer(
        ServiceBuilder::new()
            .layer(ObserveLayer::new()) // says from where
            .layer(RequireAuth::new(tokens)) // says who
            .layer(RequireRole::any_of([Role::ADMIN])),
    );
    // A server gets peers from `into_make_service_with_connect_info`; here there is none.
    let app = app.layer(MockConnectInfo(SocketAddr::from(([203, 0, 113, 9], 4711))));
    let request = Request::post(format!("/users/{ada}/promote"))
        .header("authorization", format!("Bearer {}", admin.access_token()))
        .header("user-agent", "admin-tool/1.0");
    assert!(app.oneshot(request.body(Body::empty())?).await?.status().is_success());

    let events = accounts.events(&AuditFilter::new(50).about(&ada)).await?;
    for event in &events {
        let by = event.actor.user().map_or(event.actor.kind(), UserId::as_str);
        let from = event.ip.map_or("here".to_owned(), |ip| ip.to_string());
        println!("{} {:?}, by {by} from {from}", event.act, event.detail.as_deref());
    }
    assert_eq!(events[0].act, Act::ROLE_CHANGED);
    assert_eq!(events[0].actor.user().map(UserId::as_str), Some("root"));
    assert_eq!(events[1].act, Act::REGISTERED);
    Ok(())
}

async fn add(accounts: &MemoryStore, address: &str) -> Result<UserId, Box<dyn Error>> {
    let hash = PasswordHash::from("of nothing".to_owned()); // a UserService makes real ones
    let new = NewUser::new(Email::parse(address)?, hash, accounts.clock().now());
    Ok(accounts.create(new).await.map_err(StoreError::internal)?.id)
}
