//! The layers in front of a hyper server, without a framework.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_warden::{
    Identity, ManualClock, PeerAddr, Quota, RateLimitLayer, RequireAuth, RequireRole, Role,
    limit::Rule,
};

use crate::support::{Gateway, header, memory};

/// Sends back what it was sent, body and all.
async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, Infallible> {
    let (parts, body) = request.into_parts();
    let caller: &Identity = parts.extensions.get().unwrap();
    Ok(Response::builder().header("x-caller", caller.user_id().as_str()).body(body).unwrap())
}

async fn serve(listener: TcpListener) {
    let service = ServiceBuilder::new()
        .layer(RateLimitLayer::new(
            memory(&ManualClock::new()),
            [Rule::per_ip("ip", Quota::per_minute(3))],
        ))
        .layer(RequireAuth::new(Gateway))
        .layer(RequireRole::any_of([Role::EDITOR]))
        .service(service_fn(echo));
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(PeerAddr(peer));
            request
        });
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::spawn(connection);
    }
}

#[tokio::test]
async fn a_server_of_hyper_alone_is_guarded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(serve(listener));
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let post = |user: Option<&str>, role: &str| {
        let mut request = Request::post(&url).header("x-role", role);
        if let Some(user) = user {
            request = request.header("x-user", user);
        }
        client.request(request.body(Full::from("there and back")).unwrap())
    };

    let response = post(Some("ada"), "editor").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(response.headers(), "x-caller"), Some("ada"));
    assert_eq!(header(response.headers(), "ratelimit"), Some(r#""ip";r=2;t=60"#));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "there and back");

    for (user, role, status) in
        [(None, "editor", 401), (Some("ada"), "viewer", 403), (None, "", 429)]
    {
        let response = post(user, role).await.unwrap();
        assert_eq!(response.status(), status);
        let length: usize = header(response.headers(), "content-length").unwrap().parse().unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), length);
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["status"], status);
    }
    server.abort();
}
