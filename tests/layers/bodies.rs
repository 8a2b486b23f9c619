//! Any response body of bytes passes through the layers as it is.

use std::{convert::Infallible, error::Error, fmt::Debug, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{
    BodyExt, Empty, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};
use hyper::body::Incoming;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::cors::CorsLayer;
use tower_warden::{
    ManualClock, Quota, RateLimitLayer, RequireAuth, RequireRole, ResponseBody, Role, limit::Rule,
};

use crate::support::{Gateway, header, memory, request, send};

type Stacked<B> = Response<ResponseBody<ResponseBody<ResponseBody<B>>>>;

fn stacked<S, B>(
    service: S,
) -> impl Service<Request<()>, Response = Stacked<B>, Error = Infallible> + Clone
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Data = Bytes>,
{
    ServiceBuilder::new()
        .layer(RequireAuth::new(Gateway))
        .layer(RateLimitLayer::new(
            memory(&ManualClock::new()),
            [Rule::per_ip("ip", Quota::per_minute(9))],
        ))
        .layer(RequireRole::any_of([Role::VIEWER]))
        .service(service)
}

/// What becomes of this body on its way through all layers.
async fn through<B>(body: impl Fn() -> B + Clone) -> ResponseBody<ResponseBody<ResponseBody<B>>>
where
    B: Body<Data = Bytes>,
{
    let service = stacked(tower::service_fn(move |_| {
        let response = Response::new(body());
        async { Ok(response) }
    }));
    let response = send(&service, request().header("x-user", "ada")).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body()
}

async fn bytes<B: Body<Error: Debug>>(body: B) -> Bytes {
    body.collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn bodies_of_all_frameworks_pass() {
    assert_eq!(bytes(through(|| Full::new(Bytes::from("full"))).await).await, "full");
    assert_eq!(bytes(through(|| axum::body::Body::from("axum")).await).await, "axum");
    let boxed = || BoxBody::new(Full::new(Bytes::from("boxed")).map_err(|error| match error {}));
    assert_eq!(bytes(through::<BoxBody<Bytes, Arc<dyn Error>>>(boxed).await).await, "boxed");
    let tonic =
        || UnsyncBoxBody::new(Full::new(Bytes::from("grpc")).map_err(|error| match error {}));
    assert_eq!(bytes(through::<UnsyncBoxBody<Bytes, Infallible>>(tonic).await).await, "grpc");
}

/// Compiles.
#[allow(dead_code, reason = "only hyper makes such bodies; one runs in `plain_tower`")]
fn hypers_bodies_pass<S>(
    service: S,
) -> impl Service<Request<()>, Response = Stacked<Incoming>, Error = Infallible>
where
    S: Service<Request<()>, Response = Response<Incoming>, Error = Infallible> + Clone,
{
    stacked(service)
}

#[tokio::test]
async fn the_size_of_a_body_is_passed_on() {
    let body = through(|| Full::new(Bytes::from("12345"))).await;
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
    let body = through(Empty::<Bytes>::new).await;
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
    let unknown = through(|| Full::new(Bytes::from("12345")).map_frame(|frame| frame)).await;
    assert_eq!((unknown.size_hint().exact(), unknown.is_end_stream()), (None, false));
}

#[tokio::test]
async fn trailers_are_passed_on() {
    let body = through(|| {
        let status =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        Full::new(Bytes::from("message")).with_trailers(async { Some(Ok(status)) })
    })
    .await;
    let collected = body.collect().await.unwrap();
    assert_eq!(header(collected.trailers().unwrap(), "grpc-status"), Some("0"));
    assert_eq!(collected.to_bytes(), "message");
}

#[tokio::test]
async fn a_refusal_knows_its_size_and_ends() {
    let service = stacked(tower::service_fn(async |_| Ok(Response::new(Full::<Bytes>::default()))));
    let mut body = send(&service, request()).await.into_body();
    let size = body.size_hint().exact().unwrap();
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data.len() as u64, size);
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.frame().await.is_none());
}

/// CORS makes responses of its own, so it asks for bodies that have a default.
#[tokio::test]
async fn cors_may_stand_around_the_layers() {
    let service = CorsLayer::permissive().layer(RequireAuth::new(Gateway).layer(
        tower::service_fn(async |_: Request<()>| Ok(Response::new(Full::<Bytes>::default()))),
    ));
    let preflight = Request::options("/")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "GET")
        .body(())
        .unwrap();
    let response: Result<_, Infallible> = service.oneshot(preflight).await;
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(bytes(response.into_body()).await.is_empty());
}
