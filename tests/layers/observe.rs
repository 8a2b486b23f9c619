//! What the layer that observes says of requests.

use std::borrow::Cow;

use http::{Request, Response};
use tower::{Layer, ServiceBuilder, service_fn};
use tower_warden::{
    ForwardedHeader, ManualClock, ObserveLayer, Origin, PeerAddr, Quota, RateLimitLayer,
    RequireAuth, Rule, TrustedProxies, observe::TraceContext,
};

use crate::{
    events::{events, spans},
    support::{Gateway, from, inner, memory, request, send},
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The one span since this was last asked, with all that it was told.
#[track_caller]
fn the_span() -> String {
    let mut spans = spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    spans.remove(0)
}

#[track_caller]
fn assert_says(span: &str, words: &[&str], not: &[&str]) {
    for word in words {
        assert!(span.contains(word), "{word} is not in {span}");
    }
    for word in not {
        assert!(!span.contains(word), "{word} is in {span}");
    }
}

#[tokio::test]
async fn a_request_id_that_a_gateway_set_may_be_taken_over_and_does_no_harm() {
    let handler = service_fn(async |_: Request<()>| {
        let told = Origin::current().unwrap().request_id().unwrap().to_owned();
        Ok::<_, std::convert::Infallible>(Response::new(
            http_body_util::Full::<bytes::Bytes>::from(told),
        ))
    });
    let observe = ObserveLayer::new().with_request_id(|request| {
        Some(String::from_utf8_lossy(request.headers.get("x-request-id")?.as_bytes()))
    });
    let long = "x".repeat(300);
    for (layer, sent, told) in [
        (observe.clone(), Some("gateway-7"), Some("gateway-7")),
        (observe.clone(), Some("a\tb"), Some(r"a\tb")),
        (observe.clone(), Some(&long), Some(&long[..256])),
        (observe.clone(), Some(""), None),
        (observe, None, None),
        (ObserveLayer::new(), Some("gateway-7"), None),
    ] {
        let request =
            sent.iter().fold(request(), |request, id| request.header("x-request-id", *id));
        spans();
        let response = send(&layer.layer(handler), request).await;
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        match told {
            Some(told) => assert_eq!(body, told),
            None => assert!(body.len() == 16 && Some(&*body) != sent, "{body}"),
        }
        assert_says(&the_span(), &[&format!("request_id={body:?}")], &[]);
    }
}

#[tokio::test]
async fn span_says_who_asked_what_and_what_came_of_it() {
    spans();
    let limit = RateLimitLayer::new(
        memory(&ManualClock::new()),
        [
            Rule::per_ip("ip", Quota::per_minute(9)),
            Rule::per_user("user", Quota::per_minute(1)),
            Rule::per_ip("all", Quota::per_minute(9)),
        ],
    );
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new().with_route(|_| Some(Cow::Borrowed("/things/{id}"))))
        .layer(RequireAuth::new(Gateway))
        .layer(limit)
        .service(inner());
    let ask = || request().header("x-user", "ada").header("traceparent", PARENT);
    send(&service, ask().header("x-answer", "404")).await;
    let span = the_span();
    let words = [
        r#"http.request.method="GET""#,
        r#"http.route="/things/{id}""#,
        "http.response.status_code=404",
        "client.address=203.0.113.9",
        r#"user.id="ada""#,
        r#"limit.outcome="allowed""#,
        r#"trace_id="0af7651916cd43dd8448eb211c80319c""#,
        r#"parent_id="b7ad6b7169203331""#,
        "request_id=",
    ];
    assert_says(&span, &words, &["otel."]);

    send(&service, ask()).await;
    let words = [r#"limiter="user""#, r#"limit.outcome="refused""#, "status_code=429"];
    assert_says(&the_span(), &words, &["allowed"]);

    send(&service, request()).await;
    assert_says(&the_span(), &["status_code=401"], &["user.id", "limiter", "trace_id"]);
}

#[tokio::test]
async fn forged_trace_is_none_or_only_its_owners() {
    spans();
    let service = ObserveLayer::new().layer(inner());
    let forged = [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\u{e4}",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "act=deleted user.id=root",
    ];
    for parent in forged {
        send(&service, request().header("traceparent", parent.as_bytes())).await;
        assert_says(&the_span(), &["request_id="], &["trace_id", "parent_id", "root"]);
    }
    let twice = request().header("traceparent", PARENT).header("traceparent", PARENT);
    send(&service, twice).await;
    assert_says(&the_span(), &[], &["trace_id"]);
    let own = ObserveLayer::new().with_own_traces().layer(inner());
    send(&own, request().header("traceparent", PARENT)).await;
    assert_says(&the_span(), &[], &["trace_id"]);
    // The same trace for all requests tells them apart all the same.
    send(&service, request().header("traceparent", PARENT)).await;
    send(&service, request().header("traceparent", PARENT)).await;
    let both = spans();
    let id = |span: &str| span.split("request_id=").nth(1).unwrap()[..18].to_owned();
    assert_ne!(id(&both[0]), id(&both[1]));
}

#[tokio::test]
async fn handlers_and_hooks_get_the_parent_and_the_origin() {
    spans();
    let (adopted, heard) = std::sync::mpsc::channel();
    let handler = service_fn(async |request: Request<()>| {
        let parent: &TraceContext = request.extensions().get().unwrap();
        assert_eq!(parent.to_string(), PARENT);
        let origin = Origin::current().unwrap();
        assert_eq!(origin.ip().unwrap().to_string(), "198.51.100.7");
        assert_eq!(origin.user_agent(), Some("curl/8 ä"));
        assert_eq!(origin.caller().unwrap().user_id().as_str(), "ada");
        assert_eq!(origin.request_id().unwrap().len(), 16);
        Ok::<_, std::convert::Infallible>(http::Response::new(
            http_body_util::Full::<bytes::Bytes>::default(),
        ))
    });
    let proxies = TrustedProxies::new(ForwardedHeader::XForwardedFor, ["10.0.0.0/8"]).unwrap();
    let observe = ObserveLayer::new().behind(proxies).with_parent(move |span, parent| {
        span.record("otel.status_code", "OK");
        adopted.send(*parent).unwrap();
    });
    let service =
        ServiceBuilder::new().layer(observe).layer(RequireAuth::new(Gateway)).service(handler);
    let request = from([10, 0, 0, 1])
        .header("x-forwarded-for", "198.51.100.7")
        .header("user-agent", "curl/8 \u{e4}")
        .header("x-user", "ada")
        .header("traceparent", PARENT);
    send(&service, request).await;
    assert_eq!(heard.recv().unwrap().to_string(), PARENT);
    let words = [r#"otel.name="GET""#, r#"otel.kind="server""#, "198.51.100.7"];
    assert_says(&the_span(), &words, &[]);
}

#[tokio::test]
async fn what_is_logged_within_is_within_the_span_and_nothing_outlives_it() {
    events();
    let handler = service_fn(async |_: Request<()>| {
        tokio::task::yield_now().await;
        assert!(Origin::current().is_some() && !tracing::Span::current().is_none());
        Ok::<_, std::convert::Infallible>(http::Response::new(
            http_body_util::Full::<bytes::Bytes>::default(),
        ))
    });
    let service = ObserveLayer::new().layer(handler);
    send(&service, Request::get("/").extension(PeerAddr::from(([192, 0, 2, 1], 1)))).await;
    assert!(Origin::current().is_none() && tracing::Span::current().is_none());
}
