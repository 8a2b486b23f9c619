//! Limits alone: no accounts, no tokens. Two rules by client address, one a minute and one a
//! day, around an axum app.
//!
//! Run it: `cargo run --example rate_limit --features axum`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::net::SocketAddr;

use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tower_warden::{
    ForwardedHeader, Quota, RateLimitLayer, Rule, TrustedProxies,
    store::memory::MemoryRateLimitStore,
};

fn app() -> Result<Router, Box<dyn std::error::Error>> {
    // Behind nginx on this machine. Without a proxy leave `.behind(…)` out.
    let proxies = TrustedProxies::new(ForwardedHeader::XForwardedFor, ["127.0.0.1"])?;
    let limit = RateLimitLayer::new(
        MemoryRateLimitStore::new(),
        [
            Rule::per_ip("minute", Quota::per_minute(5)).behind(proxies.clone()),
            Rule::per_ip("day", Quota::per_day(10_000)).behind(proxies),
        ],
    );
    Ok(Router::new().route("/", get("hello")).layer(limit))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // `ConnectInfo` is how the layer learns who is at the other end.
    let service = app()?.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });

    for n in 1..=6 {
        let response = client::get(address, "/", "203.0.113.9").await?;
        println!("{n}: {} {}", response.status(), client::header(&response, "ratelimit"));
        assert_eq!(response.status(), if n <= 5 { 200 } else { 429 });
    }
    let refused = client::get(address, "/", "203.0.113.9").await?;
    println!("try again in {} s", client::header(&refused, "retry-after"));
    // Another client behind the same proxy has a limit of its own.
    assert_eq!(client::get(address, "/", "203.0.113.10").await?.status(), 200);
    Ok(())
}

/// What nginx would send.
mod client {
    use std::{error::Error, net::SocketAddr};

    use axum::body::Body;
    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};

    pub(crate) async fn get(
        to: SocketAddr,
        path: &str,
        client: &str,
    ) -> Result<Response<Incoming>, Box<dyn Error>> {
        let request = Request::get(format!("http://{to}{path}")).header("x-forwarded-for", client);
        let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
        Ok(http.request(request.body(Body::empty())?).await?)
    }

    pub(crate) fn header<'r>(response: &'r Response<Incoming>, name: &str) -> &'r str {
        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-")
    }
}
