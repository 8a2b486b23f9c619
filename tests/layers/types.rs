//! What the layers are made of can be named, sent and shared.

use std::fmt::Debug;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_warden::{
    Answer, AnswerFuture, ManualClock, Quota, RateLimitLayer, RequireAuth, RequireRole,
    ResponseBody, Role,
    auth::{require, require::RequireService, require_auth, require_auth::RequireAuthService},
    limit::{self, RateLimitService, Rule},
};

use crate::support::{Gateway, Inner, inner, memory};

const fn is_shared<T: Clone + Send + Sync + 'static>() {}
const fn is_sent<T: Send + 'static>() {}
const fn is_shown<T: Debug>() {}

const _: () = {
    is_shared::<RequireAuth>();
    is_shared::<RequireRole>();
    is_shared::<RateLimitLayer>();
    is_shared::<RequireAuthService<Inner>>();
    is_shared::<RequireService<Inner>>();
    is_shared::<RateLimitService<Inner>>();
    is_sent::<require_auth::ResponseFuture<Inner, ()>>();
    is_sent::<require::ResponseFuture<<Inner as Service<Request<()>>>::Future>>();
    is_sent::<limit::ResponseFuture<Inner, ()>>();
    is_sent::<Answer<String>>();
    is_sent::<AnswerFuture<String>>();
    is_sent::<ResponseBody<Full<Bytes>>>();
    is_shown::<RequireAuth>();
    is_shown::<RequireRole>();
    is_shown::<RateLimitLayer>();
    is_shown::<require_auth::ResponseFuture<Inner, ()>>();
    is_shown::<require::ResponseFuture<()>>();
    is_shown::<limit::ResponseFuture<Inner, ()>>();
    is_shown::<ResponseBody<Full<Bytes>>>();
};

/// A stack as a field of someone's struct.
struct Server {
    stack: RequireAuthService<RateLimitService<RequireService<Inner>>>,
}

#[tokio::test]
async fn a_stack_can_be_named() {
    let rule = Rule::per_user("user", Quota::per_minute(1));
    let limited = RateLimitLayer::new(memory(&ManualClock::new()), [rule])
        .layer(RequireRole::any_of([Role::ADMIN]).layer(inner()));
    let mut server = Server { stack: RequireAuth::new(Gateway).layer(limited) };
    let call: require_auth::ResponseFuture<RateLimitService<_>, ()> =
        server.stack.call(Request::default());
    let response: Response<ResponseBody<ResponseBody<ResponseBody<Full<Bytes>>>>> =
        call.await.unwrap();
    assert_eq!(response.status(), 401);
}
