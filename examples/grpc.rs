//! gRPC beside HTTP: one stack in front of tonic's services and axum's routes. Each client is refused
//! in its own form: a status with metadata, or a problem document.
//!
//! Run it: `cargo run --example grpc --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{error::Error, net::SocketAddr};

use axum::routing::get;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tonic::{Code, Status, metadata::MetadataValue, service::Routes, transport::Channel};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};
use tower::ServiceBuilder;
use tower_warden::{
    Identity, Quota, RateLimitLayer, RequireAuth, Role, Rule, TokenService, UserId,
    store::memory::{MemoryRateLimitStore, MemoryStore},
    token::{KeySet, SigningKey},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = KeySet::new(SigningKey::generate_ed25519()?);
    let tokens = TokenService::new(keys, "https://id.example", "api", MemoryStore::new());
    let limit = RateLimitLayer::new(
        MemoryRateLimitStore::new(),
        [Rule::per_user("user", Quota::per_minute(2))],
    );
    let (_, health) = health_reporter();
    let app = Routes::new(health)
        .into_axum_router()
        .route("/me", get(async |caller: Identity| caller.user_id().to_string()))
        .layer(ServiceBuilder::new().layer(RequireAuth::new(tokens.clone())).layer(limit));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut grpc = HealthClient::new(Channel::from_shared(url.clone())?.connect().await?);
    let stranger = grpc.check(HealthCheckRequest::default()).await;
    let refused = stranger.expect_err("who is it?");
    println!("gRPC, a stranger: {:?}: {}", refused.code(), refused.message());
    assert_eq!(refused.code(), Code::Unauthenticated);

    let ada = Identity::new(UserId::from("ada"), Role::VIEWER);
    let bearer = format!("Bearer {}", tokens.issue(&ada).await?.access_token());
    for expected in [Code::Ok, Code::Ok, Code::ResourceExhausted] {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("authorization", MetadataValue::try_from(&bearer)?);
        let status = grpc.check(request).await.err().unwrap_or_else(|| Status::ok(""));
        let again = status.metadata().get("grpc-retry-pushback-ms");
        println!("gRPC, ada: {:?}, again after {again:?} ms", status.code());
        assert_eq!(status.code(), expected);
    }

    // The limit is ada's, whichever way she comes.
    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let request = http::Request::get(format!("{url}/me")).header("authorization", bearer);
    let response = http.request(request.body(Empty::new())?).await?;
    println!("HTTP, ada: {}", response.status());
    assert_eq!(response.status(), 429);
    Ok(())
}
