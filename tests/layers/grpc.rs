//! What clients of gRPC are told: a real client and server of tonic's.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    metadata::MetadataValue,
    service::Routes,
    transport::{Channel, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_warden::{
    ManualClock, Quota, RateLimitLayer, RefusalHook, RequireAuth, RequireRole, Role, grpc,
    limit::{Charge, OnFailure, Rule},
};

use crate::{
    store_failure::Gone,
    support::{Gateway, header, limits, memory, request, send, statuses},
};

const TWO: Quota = Quota::per_minute(2);

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(address: SocketAddr) -> HealthClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    HealthClient::new(channel.connect().await.unwrap())
}

/// tonic's own server behind this layer: the macro saves a page of bounds.
macro_rules! served_by {
    ($layer:expr) => {{
        let (listener, address) = listen().await;
        let server =
            Server::builder().layer($layer).add_service(tonic_health::server::health_reporter().1);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        connect(address).await
    }};
}

fn limit(rules: impl IntoIterator<Item = Rule>) -> RateLimitLayer {
    RateLimitLayer::new(memory(&ManualClock::new()), rules)
}

/// A call of someone.
fn call(service: &str, role: Option<&'static str>) -> tonic::Request<HealthCheckRequest> {
    let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    if let Some(role) = role {
        let metadata = request.metadata_mut();
        metadata.insert("x-user", MetadataValue::from_static("ada"));
        metadata.insert("x-role", MetadataValue::from_static(role));
    }
    request
}

async fn check(client: &mut HealthClient<Channel>, service: &str) -> Result<(), Status> {
    client.check(call(service, None)).await.map(drop)
}

fn said<'a>(status: &'a Status, name: &str) -> Option<&'a str> {
    status.metadata().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn refusals_reach_unary_and_streaming_calls_as_statuses() {
    let stack = ServiceBuilder::new()
        .layer(RequireAuth::new(Gateway))
        .layer(RequireRole::any_of([Role::ADMIN]))
        .layer(limit([Rule::per_user("user", TWO)]));
    let mut client = served_by!(stack);
    for (role, code, message, challenge) in [
        (None, Code::Unauthenticated, "Authentication required", r#"Bearer realm="api""#),
        (
            Some("viewer"),
            Code::PermissionDenied,
            "Insufficient permissions",
            r#"Bearer realm="api", error="insufficient_scope""#,
        ),
    ] {
        let unary = client.check(call("", role)).await.unwrap_err();
        let streaming = client.watch(call("", role)).await.unwrap_err();
        for status in [unary, streaming] {
            assert_eq!((status.code(), status.message()), (code, message));
            assert_eq!(said(&status, "www-authenticate"), Some(challenge));
        }
    }

    client.check(call("", Some("admin"))).await.unwrap();
    let mut stream = client.watch(call("", Some("admin"))).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some(), "what passes is a stream as ever");
    let unary = client.check(call("", Some("admin"))).await.unwrap_err();
    let streaming = client.watch(call("", Some("admin"))).await.unwrap_err();
    for status in [unary, streaming] {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "Too many requests. Try again in 60 seconds.");
        for (name, value) in [
            ("retry-after", "60"),
            ("grpc-retry-pushback-ms", "60000"),
            ("ratelimit", r#""user";r=0;t=60"#),
            ("ratelimit-policy", r#""user";q=2;w=60"#),
            ("x-ratelimit-remaining", "0"),
            ("problem-code", "rate_limited"),
        ] {
            assert_eq!(said(&status, name), Some(value), "{name}");
        }
    }
}

#[tokio::test]
async fn a_failing_store_is_unavailable_and_a_stack_built_wrong_internal() {
    let ip = || [Rule::per_ip("ip", TWO)];
    let mut client = served_by!(RateLimitLayer::new(Gone, ip()).with_on_failure(OnFailure::Deny));
    let status = check(&mut client, "").await.unwrap_err();
    assert_eq!((status.code(), said(&status, "retry-after")), (Code::Unavailable, Some("1")));
    assert_eq!(said(&status, "grpc-retry-pushback-ms"), Some("1000"));

    // No peer: in process, as tonic's server always knows one.
    let service = limit(ip()).layer(tower::service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    }));
    let nobody = Request::post("/").header("content-type", "application/grpc");
    let response = send(&service, nobody).await;
    assert_eq!(header(response.headers(), "grpc-status"), Some("13"));
}

#[tokio::test]
async fn peers_are_known_from_tonics_own_server() {
    let mut client = served_by!(limit([Rule::per_ip("ip", TWO)]));
    for code in [Code::Ok, Code::Ok, Code::ResourceExhausted] {
        let answer = check(&mut client, "").await;
        assert_eq!(answer.err().map_or(Code::Ok, |status| status.code()), code);
    }
}

#[tokio::test]
async fn peers_are_known_from_its_tls_connections_too() {
    use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

    let certificate = include_str!("../support/keys/tls-certificate.pem");
    let key = include_str!("../support/keys/tls-private.pem");
    let (listener, address) = listen().await;
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(Identity::from_pem(certificate, key)))
        .unwrap()
        .layer(limit([Rule::per_ip("ip", TWO)]))
        .add_service(tonic_health::server::health_reporter().1);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let trusted = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate));
    let channel = Channel::from_shared(format!("https://localhost:{}", address.port())).unwrap();
    let channel = channel.tls_config(trusted).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    for code in [Code::Ok, Code::Ok, Code::ResourceExhausted] {
        let answer = check(&mut client, "").await;
        assert_eq!(answer.err().map_or(Code::Ok, |status| status.code()), code);
    }
}

#[tokio::test]
async fn one_stack_serves_http_and_grpc_at_once() {
    let (listener, address) = listen().await;
    let app = Routes::new(tonic_health::server::health_reporter().1)
        .into_axum_router()
        .route("/status", axum::routing::get(async || "fine"))
        .layer(limit([Rule::per_ip("ip", TWO)]));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut client = connect(address).await;
    check(&mut client, "").await.unwrap();
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<Full<Bytes>>();
    let uri: http::Uri = format!("http://{address}/status").parse().unwrap();
    assert_eq!(http.get(uri.clone()).await.unwrap().status(), 200);
    let refused = http.get(uri).await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(header(refused.headers(), "content-type"), Some("application/problem+json"));
    let status = check(&mut client, "").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn calls_may_be_charged_by_the_status_that_they_end_with() {
    let charging = |code| Rule::per_ip("failed", TWO).charging(Charge::grpc_status(code));
    let mut client = served_by!(limit([charging(grpc::Code::NOT_FOUND)]));
    for _ in 0..5 {
        check(&mut client, "").await.unwrap();
    }
    for code in [Code::NotFound, Code::NotFound, Code::ResourceExhausted] {
        assert_eq!(check(&mut client, "nobody").await.unwrap_err().code(), code);
    }
    let mut client = served_by!(limit([charging(grpc::Code::OK)]));
    check(&mut client, "").await.unwrap();
    check(&mut client, "").await.unwrap();
    assert_eq!(check(&mut client, "").await.unwrap_err().code(), Code::ResourceExhausted);
}

/// A call of gRPC that answers a message, and then these trailers.
async fn messages(
    request: Request<()>,
) -> Result<Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let mut trailers = HeaderMap::new();
    let status = request.headers().get("x-answer").cloned();
    trailers.insert("grpc-status", status.unwrap_or(HeaderValue::from_static("0")));
    let frames = [Frame::data(Bytes::from_static(b"message")), Frame::trailers(trailers)];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok))).boxed_unsync();
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body).unwrap())
}

#[tokio::test]
async fn a_status_in_trailers_counts_once_the_response_was_read() {
    let failed = Charge::status(http::StatusCode::UNAUTHORIZED)
        .or(Charge::grpc_status(grpc::Code::UNAUTHENTICATED));
    let rule = Rule::per_ip("login", TWO).charging(failed);
    let service = limit([rule]).layer(tower::service_fn(messages));
    let answering = |status: &'static str| request().header("x-answer", status);
    for status in ["0", "0", "5", "16", "0"] {
        let response = send(&service, answering(status)).await;
        let body = response.into_body().collect().await.unwrap();
        let trailers = body.trailers().unwrap();
        assert_eq!(header(trailers, "grpc-status"), Some(status));
        assert_eq!(body.to_bytes(), "message");
    }
    // One of the two is counted; a second is taken until its trailers came, and for good where
    // nobody waits for them.
    let open = send(&service, answering("0")).await;
    assert_eq!(statuses(&service, request).await, [429]);
    open.into_body().collect().await.unwrap();
    drop(send(&service, answering("0")).await);
    assert_eq!(statuses(&service, request).await, [429]);
}

#[tokio::test]
async fn layers_around_one_another_let_the_refusing_one_speak() {
    let inner = limit([Rule::per_ip("inner", Quota::per_minute(3)).with_cost(|_| 2)]);
    let service =
        limit([Rule::per_ip("outer", TWO)]).layer(inner.layer(tower::service_fn(messages)));
    let grpc = || request().header("content-type", "application/grpc");
    assert_eq!(limits(&send(&service, grpc()).await), r#""outer";r=1;t=60, "inner";r=1;t=60"#);
    let refused = send(&service, grpc()).await;
    let said = |name| header(refused.headers(), name);
    assert_eq!((said("grpc-status"), said("x-ratelimit-limit")), (Some("8"), Some("3")));
}

#[tokio::test]
async fn a_hooks_answer_becomes_a_status_unless_it_is_one() {
    for (hook, code, message) in [
        (RefusalHook::new(|_, problem| problem.with_detail("Who?")), "16", "Who?"),
        (
            RefusalHook::new(|_, _| Response::builder().status(403).body("<html>").unwrap()),
            "7",
            "Forbidden",
        ),
        (
            RefusalHook::new(|_, _| {
                let response = Response::builder().header("content-type", "application/grpc");
                response.header("grpc-status", "9").header("grpc-message", "x").body(()).unwrap()
            }),
            "9",
            "x",
        ),
    ] {
        let layer = RequireAuth::new(Gateway).with_refusal(hook);
        let service = layer.layer(tower::service_fn(messages));
        let request = request().header("content-type", "application/grpc").body(()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let said = |name| header(response.headers(), name);
        assert_eq!((said("grpc-status"), said("grpc-message")), (Some(code), Some(message)));
    }
}
