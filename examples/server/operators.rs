//! What operators ask, at an address of its own: metrics, and whether the server is well.

use std::time::Duration;

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{interval, timeout},
};
use tower::util::MapResponseLayer;
use tower_warden::Problem;

use crate::{
    app::{Hardening, ProjectStore},
    serve::{Bounds, serve},
};

/// Takes up what is measured from now on.
///
/// # Errors
/// Where something takes it up already.
pub fn measure() -> Result<PrometheusHandle, BuildError> {
    let mut recorder = PrometheusBuilder::new();
    for (name, bounds) in tower_warden::metric_buckets() {
        recorder = recorder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)?;
    }
    let handle = recorder.install_recorder()?;
    tower_warden::describe_metrics(&crate::app::LIMITERS);
    // What is measured is put into buckets at each reading; where nobody reads, here.
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut interval = interval(Duration::from_secs(5));
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Answers operators, as long as the program runs.
pub fn answer(
    listener: TcpListener,
    metrics: PrometheusHandle,
    database: ProjectStore,
    hardening: Hardening,
    bounds: &Bounds,
) {
    let app = Router::new()
        .route("/metrics", get(async move || metrics.render()))
        .route("/health/live", get(async || well()))
        .route("/health/ready", get(ready).with_state(database))
        .fallback(crate::app::not_found)
        .method_not_allowed_fallback(crate::app::method_not_allowed)
        .layer(MapResponseLayer::new(move |response| hardening.response(response)));
    let bounds = Bounds { connections: 64, per_ip: 0, ..bounds.clone() };
    tokio::spawn(serve(listener, app, hardening, bounds, std::future::pending::<()>()));
}

/// Whether the database answers; nothing else is needed for most of what is asked.
async fn ready(State(database): State<ProjectStore>) -> axum::response::Response {
    match timeout(Duration::from_secs(4), database.ping()).await {
        Ok(Ok(())) => well().into_response(),
        _ => Problem::unavailable(1).into_response().map(axum::body::Body::from),
    }
}

fn well() -> Json<Value> {
    Json(json!({"status": "ok"}))
}
