//! Who passes `RequireRole`.

use http::{Response, StatusCode};
use tower::{Layer, ServiceBuilder};
use tower_warden::{
    Identity, Problem, RefusalHook, RefusalReason, Require, RequireAuth, RequireRole, Role, UserId,
    auth::{Admin, Both, Editor, Either, Permitted, Requirement},
};

use crate::support::{Gateway, header, inner, problem, request, send};

#[tokio::test]
async fn only_the_roles_that_were_named_pass() {
    let service = ServiceBuilder::new()
        .layer(RequireAuth::new(Gateway))
        .layer(RequireRole::any_of([Role::EDITOR, Role::ADMIN]))
        .service(inner());
    for (role, status) in [
        ("editor", 200),
        ("admin", 200),
        ("viewer", 403),
        ("auditor", 403),
        ("EDITOR", 403),
        ("editor ", 403),
        ("", 403),
    ] {
        let caller = request().header("x-user", "ada").header("x-role", role);
        assert_eq!(send(&service, caller).await.status(), status, "{role:?}");
    }
}

#[tokio::test]
async fn a_role_of_ones_own_passes_where_it_is_named() {
    let service = ServiceBuilder::new()
        .layer(RequireAuth::new(Gateway))
        .layer(RequireRole::any_of([Role::from_static("auditor")]))
        .service(inner());
    for (role, status) in [("auditor", 200), ("admin", 403)] {
        let caller = request().header("x-user", "ada").header("x-role", role);
        assert_eq!(send(&service, caller).await.status(), status, "{role:?}");
    }
}

#[tokio::test]
async fn where_no_role_is_named_nobody_passes() {
    let service = ServiceBuilder::new()
        .layer(RequireAuth::new(Gateway))
        .layer(RequireRole::any_of([]))
        .service(inner());
    let admin = request().header("x-user", "ada").header("x-role", "admin");
    assert_eq!(send(&service, admin).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_refusal_says_that_the_scope_is_insufficient() {
    let layer = RequireRole::any_of([Role::ADMIN]).with_realm("the house");
    let response = send(&layer.layer(inner()), request()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        header(response.headers(), "www-authenticate"),
        Some(r#"Bearer realm="the house", error="insufficient_scope""#)
    );
    let problem = problem(response).await;
    assert_eq!(problem["code"], "insufficient_permissions");
    assert_eq!(problem["detail"], "Insufficient permissions");
}

#[tokio::test]
async fn a_hook_may_word_the_refusal_and_learns_who_is_refused() {
    let layer = RequireRole::any_of([Role::ADMIN]).with_refusal(RefusalHook::new(|refusal, _| {
        let RefusalReason::Forbidden(caller) = refusal.reason else { panic!("{refusal:?}") };
        let name = caller.map_or("nobody", |caller| caller.user_id().as_str());
        Response::builder().status(404).body(name.to_owned()).unwrap()
    }));
    let service =
        ServiceBuilder::new().layer(RequireAuth::new(Gateway)).layer(layer).service(inner());
    let response = send(&service, request().header("x-user", "ada")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(body.to_bytes(), "ada");
}

#[tokio::test]
async fn what_is_required_may_be_anything_that_is_true_of_a_caller() {
    let caller = |role: Role| Identity::new(UserId::from("ada"), role);
    let scoped = |scope: &str| caller(Role::VIEWER).with_claim("scope", scope);
    for (case, required, caller, status) in [
        ("a scope", Require::scope("write"), scoped("read write"), 200),
        ("another scope", Require::scope("write"), scoped("read writer"), 403),
        ("no scope", Require::scope("write"), caller(Role::ADMIN), 403),
        ("a method", Require::amr("otp"), caller(Role::VIEWER).with_amr(["pwd", "otp"]), 200),
        ("another method", Require::amr("otp"), caller(Role::VIEWER).with_amr(["pwd"]), 403),
        ("either", Require::of::<Either<Editor, Admin>>(), caller(Role::ADMIN), 200),
        ("neither", Require::of::<Either<Editor, Admin>>(), caller(Role::VIEWER), 403),
        ("one of both", Require::of::<Both<Editor, Admin>>(), caller(Role::ADMIN), 403),
        ("a claim", Require::that(|c| c.claims().contains_key("scope")), scoped(""), 200),
    ] {
        let request = request().extension(caller);
        assert_eq!(send(&required.layer(inner()), request).await.status(), status, "{case}");
    }
}

#[tokio::test]
async fn a_handler_may_require_by_its_signature() {
    assert!(Editor::is_met_by(&Identity::new(UserId::from("ada"), Role::EDITOR)));
    let handler = async |caller: Permitted<Editor>| caller.user_id().to_string();
    let service = axum::Router::new()
        .route("/", axum::routing::get(handler))
        .layer(RequireAuth::new(Gateway).identify_only());
    for (role, status) in [("editor", 200), ("admin", 403)] {
        let request = request().header("x-user", "ada").header("x-role", role);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(service.clone(), request).await.unwrap();
        assert_eq!(response.status(), status, "{role}");
    }
    let request = request().body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    assert_eq!(response.status(), 500, "no caller: the stack is built wrong");
}

/// One hook for all: whatever is refused, it is asked, sees the request, and may answer in its own
/// words, with a [`Problem`] or with what axum makes.
#[tokio::test]
async fn one_hook_serves_all_layers_and_is_asked_for_every_refusal() {
    use axum::response::IntoResponse;
    use tower_warden::{
        ManualClock, Quota, RateLimitLayer,
        limit::{OnFailure, Rule},
    };

    let hook = RefusalHook::new(|refusal, problem| {
        assert_eq!(refusal.request.uri, "/");
        let said = (problem.status(), format!("mine: {}", problem.code()));
        said.into_response()
    });
    let limit = |rules: Rule| {
        RateLimitLayer::new(crate::support::memory(&ManualClock::new()), [rules])
            .with_refusal(hook.clone())
    };
    let per_ip = Rule::per_ip("ip", Quota::per_minute(1));
    let heavy = per_ip.clone().with_cost(|_| 2);
    let gone = RateLimitLayer::new(crate::store_failure::Gone, [per_ip.clone()])
        .with_on_failure(OnFailure::Deny)
        .with_refusal(hook.clone());
    let nobody = http::Request::get("/");
    let (auth, role) = (RequireAuth::new(Gateway), RequireRole::any_of([Role::ADMIN]));
    let (auth, role) = (auth.with_refusal(hook.clone()), role.with_refusal(hook.clone()));
    for (answer, said) in [
        (send(&auth.layer(inner()), request()).await, "mine: authentication_required"),
        (send(&role.layer(inner()), request()).await, "mine: insufficient_permissions"),
        (send(&limit(heavy).layer(inner()), request()).await, "mine: rate_limited"),
        (send(&limit(per_ip).layer(inner()), nobody).await, "mine: internal"),
        (send(&gone.layer(inner()), request()).await, "mine: unavailable"),
    ] {
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        assert_eq!(body.to_bytes(), said);
    }
    let silent = RequireAuth::new(Gateway)
        .with_refusal(RefusalHook::new(|_, problem: Problem| problem.with_code("mine")));
    assert_eq!(problem(send(&silent.layer(inner()), request()).await).await["code"], "mine");
}
