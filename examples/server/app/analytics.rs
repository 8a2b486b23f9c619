//! Figures for admins.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};
use tower_warden::{RequireRole, Role, UserService};

use super::{
    App, ProjectStore,
    error::{Answer, method_not_allowed},
};

pub fn router() -> Router<App> {
    let admins = RequireRole::any_of([Role::ADMIN]);
    Router::new().route("/analytics", get(figures).route_layer(admins).fallback(method_not_allowed))
}

async fn figures(
    State(users): State<UserService>,
    State(projects): State<ProjectStore>,
) -> Answer<Json<Value>> {
    Ok(Json(json!({"users": users.count().await?, "projects": projects.count().await?})))
}
