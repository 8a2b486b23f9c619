//! The dashboard and the alarms that come with the server name metrics that are there.

use std::collections::BTreeSet;

use crate::{
    metrics::{Metrics, metrics_address},
    scene::Scene,
};

const ALARMS: &str = include_str!("../../examples/server/monitoring/alerts.yml");
const DASHBOARD: &str = include_str!("../../examples/server/monitoring/dashboard.json");
const SIGNALS: &str = include_str!("../../src/signals.rs");

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Redis: run tests/run"]
async fn what_alarms_name_is_there_from_the_first_second() {
    let scene = Scene::new().await;
    let address = metrics_address();
    let _server = scene.settings().with("METRICS_ADDR", &address).start().await;
    let there = names(Metrics::at(&address).read().await.text());
    let missing: Vec<_> = names(ALARMS).difference(&there).cloned().collect();
    assert!(missing.is_empty(), "{missing:?} not in {there:?}");
}

#[test]
fn dashboard_shows_metrics_that_the_docs_list() {
    serde_json::from_str::<serde_json::Value>(DASHBOARD).unwrap();
    let shown =
        DASHBOARD.replace("_seconds_bucket", "_seconds").replace("_seconds_count", "_seconds");
    let shown = names(&shown);
    let told = names(SIGNALS);
    assert!(shown.len() >= 10 && shown.is_subset(&told), "{shown:?} {told:?}");
}

/// The metrics of ours that a text names.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
        .filter(|word| word.starts_with("tower_warden_"))
        .map(String::from)
        .collect()
}
