//! WebSocket, server-sent events, compression and CORS with the layers of this crate in one stack, and
//! a limit on each message of a WebSocket.
//!
//! Run it: `cargo run --example around --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::{IntoResponse, Sse, sse::Event},
    routing::{any, get},
};
use futures_util::{SinkExt, StreamExt, stream};
use tokio::net::TcpListener;
use tokio_tungstenite::{connect_async, tungstenite};
use tower::ServiceBuilder;
use tower_http::{compression::CompressionLayer, cors::CorsLayer};
use tower_warden::{
    ClientIp, Quota, RateLimitLayer, RateLimiter, Rule, TrustedProxies,
    store::memory::MemoryRateLimitStore,
};

fn app() -> Router {
    let store = MemoryRateLimitStore::new();
    // Connections, by the layer; messages, by the handler.
    let requests = RateLimitLayer::new(store.clone(), Rule::per_ip("ip", Quota::per_minute(100)));
    let messages = RateLimiter::new(store, "messages", Quota::per_minute(3));
    let stack = ServiceBuilder::new()
        .layer(CorsLayer::permissive()) // answers preflights before anything is counted
        .layer(CompressionLayer::new())
        .layer(axum::Extension(TrustedProxies::none()))
        .layer(requests);
    Router::new()
        .route("/events", get(events))
        .route("/socket", any(socket))
        .layer(stack)
        .with_state(messages)
}

async fn events() -> impl IntoResponse {
    let events =
        stream::iter(1..=3).map(|n| Ok::<_, Infallible>(Event::default().data(n.to_string())));
    Sse::new(events)
}

async fn socket(
    upgrade: WebSocketUpgrade,
    client: ClientIp,
    State(messages): State<RateLimiter>,
) -> impl IntoResponse {
    upgrade.on_upgrade(move |socket| echo(socket, client, messages))
}

async fn echo(mut socket: WebSocket, client: ClientIp, messages: RateLimiter) {
    while let Some(Ok(Message::Text(text))) = socket.recv().await {
        let answer = match messages.take(client).await {
            Ok(_) => format!("you said {text}"),
            Err(refused) => format!("too fast; wait {} s", refused.retry_after().unwrap_or(60)),
        };
        if socket.send(answer.into()).await.is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = app().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });

    let (mut socket, upgraded) = connect_async(format!("ws://{address}/socket")).await?;
    assert!(upgraded.headers().contains_key("ratelimit"));
    for n in 1..=4 {
        socket.send(tungstenite::Message::text(n.to_string())).await?;
        let answer = socket.next().await.ok_or("closed")??.into_text()?;
        println!("{answer}");
        assert_eq!(answer.starts_with("you said"), n <= 3);
    }

    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let request = http::Request::get(format!("http://{address}/events"))
        .header("origin", "https://app.example")
        .header("accept-encoding", "gzip");
    let body = http_body_util::Empty::<axum::body::Bytes>::new();
    let response = http.build_http().request(request.body(body)?).await?;
    for name in ["ratelimit", "access-control-allow-origin", "content-type"] {
        println!("{name}: {}", response.headers()[name].to_str()?);
    }
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Ok(())
}
