//! The layers around a service of hyper's own, without a framework: HTTP/1 and HTTP/2, counted by the
//! address of the peer.
//!
//! Run it: `cargo run --example plain_hyper`

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{convert::Infallible, error::Error};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};
use tower_warden::{PeerAddr, Quota, RateLimitLayer, Rule, store::memory::MemoryRateLimitStore};

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello\n")))
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    // One layer for all connections: its clones count together.
    let limit = RateLimitLayer::new(
        MemoryRateLimitStore::new(),
        [Rule::per_ip("ip", Quota::per_minute(2))],
    );
    let service = ServiceBuilder::new().layer(limit).service_fn(hello);
    loop {
        let (stream, peer) = listener.accept().await?;
        // Whom requests of this connection are counted for.
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(PeerAddr(peer));
            request
        });
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(service);
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url: http::Uri = format!("http://{}/", listener.local_addr()?).parse()?;
    tokio::spawn(serve(listener));

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    for status in [200, 200, 429] {
        let response = client.get(url.clone()).await?;
        println!("{}: {:?}", response.status(), response.headers().get("ratelimit"));
        assert_eq!(response.status(), status);
    }
    Ok(())
}
