//! Who passes `RequireRole`.

use bytes::Bytes;
use http::{Response, StatusCode};
use tower::{Layer, ServiceBuilder};
use tower_warden::{Identity, RequireAuth, RequireRole, Role};

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
    let layer = RequireRole::any_of([Role::ADMIN]).with_refusal(|caller, problem| {
        assert_eq!(problem.status(), StatusCode::FORBIDDEN);
        let name = caller.map_or("nobody", |caller: &Identity| caller.user_id().as_str());
        Response::builder().status(404).body(Bytes::copy_from_slice(name.as_bytes())).unwrap()
    });
    let service =
        ServiceBuilder::new().layer(RequireAuth::new(Gateway)).layer(layer).service(inner());
    let response = send(&service, request().header("x-user", "ada")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(body.to_bytes(), "ada");
}
