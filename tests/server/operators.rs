//! What operators see, and that nobody needs to look.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{process::Command, time::timeout};

use crate::{
    program::{Program, binary, directory_with_keys, spawn_as},
    support::{Api, Remote},
};

/// Free, and not given to anybody else soon.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn metrics_and_health_have_an_address_of_their_own() {
    let directory = directory_with_keys();
    let address = free_address();
    let program = Program::start(directory.path(), &[("METRICS_ADDR", &address)]).await;
    let operator = Remote::new(format!("http://{address}"));
    let page = operator.get("/metrics").await.expect(200);
    assert!(page.header("content-type").unwrap().starts_with("text/plain"));
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(operator.get(path).await.expect(200).json(), json!({"status": "ok"}));
        operator.head(path).await.expect(200);
    }
    operator.get("/auth/me").await.refused(404, "not_found");
    operator.post("/metrics", json!({})).await.refused(405, "method_not_allowed");
    for path in ["/metrics", "/health/live", "/health/ready"] {
        program.get(path).await.refused(404, "not_found");
    }
    program.stop().await;
}

/// An alarm on a rate never sees the first event of a counter that it makes.
#[tokio::test]
async fn every_metric_is_there_from_the_first_second() {
    let directory = directory_with_keys();
    let address = free_address();
    let program = Program::start(directory.path(), &[("METRICS_ADDR", &address)]).await;
    let operator = Remote::new(format!("http://{address}"));
    let read = async || {
        let page = operator.get("/metrics").await.expect(200);
        String::from_utf8(page.body.to_vec()).unwrap()
    };
    let page = read().await;
    for series in [
        r#"tower_warden_limit_decisions_total{limiter="ip",outcome="refused"} 0"#,
        r#"tower_warden_limit_decisions_total{limiter="login",outcome="refused"} 0"#,
        r#"tower_warden_limit_undecided_total{policy="allow"} 0"#,
        r#"tower_warden_limit_store_errors_total{kind="late"} 0"#,
        r#"tower_warden_logins_total{outcome="invalid_credentials"} 0"#,
        r#"tower_warden_token_refreshes_total{outcome="reused"} 0"#,
        r#"tower_warden_mail_total{outcome="given_up"} 0"#,
        "tower_warden_limit_breaker_open 0",
        "tower_warden_hashing_waiting 0",
        "# HELP tower_warden_logins_total ",
        "# TYPE tower_warden_logins_total counter",
    ] {
        assert!(page.contains(series), "{series} in {page}");
    }
    program.get("/public/status").await.expect(200);
    let page = read().await;
    assert!(
        page.contains(r#"tower_warden_limit_decisions_total{limiter="ip",outcome="allowed"} 1"#)
    );
    program.stop().await;
}

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/server/monitoring");

/// The series that an expression selects: each a name, and pieces of labels of which one of each is in it.
fn selected(text: &str) -> Vec<(String, Vec<Vec<String>>)> {
    let name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut rest = text;
    let mut found = Vec::new();
    while let Some(at) = rest.find("tower_warden_") {
        rest = &rest[at..];
        let end = rest.find(|c| !name(c)).unwrap_or(rest.len());
        let (metric, behind) = rest.split_at(end);
        rest = behind;
        let selector = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = selector.map(|(labels, _)| labels.replace("\\\"", "\"")).unwrap_or_default();
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(|label| {
            let (label, value) = label.split_once('=').unwrap();
            let values = value.trim_start_matches('~').trim_matches('"').split('|');
            values.map(|value| format!("{label}=\"{value}\"")).collect()
        });
        found.push((metric.to_owned(), labels.collect()));
    }
    found
}

/// Whatever an alarm or the dashboard looks at is there before the first event.
#[tokio::test]
async fn what_alarms_and_the_dashboard_name_is_there_from_the_first_second() {
    let directory = directory_with_keys();
    let address = free_address();
    let program = Program::start(directory.path(), &[("METRICS_ADDR", &address)]).await;
    let operator = Remote::new(format!("http://{address}"));
    let page = operator.get("/metrics").await.expect(200);
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let mut looked_at = 0;
    for file in ["alerts.yml", "dashboard.json"] {
        let text = std::fs::read_to_string(format!("{MONITORING}/{file}")).unwrap();
        for (metric, labels) in selected(&text) {
            let series = |line: &&str| {
                let named =
                    line.strip_prefix(&*metric).is_some_and(|it| it.starts_with(['{', ' ']));
                named && labels.iter().all(|one| one.iter().any(|label| line.contains(label)))
            };
            assert!(
                page.lines().any(|line| series(&line)),
                "{file}: {metric} {labels:?} in {page}"
            );
            // Each value that an expression names by itself.
            for label in labels.concat() {
                let there =
                    page.lines().any(|line| line.starts_with(&metric) && line.contains(&label));
                assert!(there, "{file}: {metric} {label} in {page}");
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 25, "{looked_at}");
    program.stop().await;
}

/// That alarms can be read, and fire when they should, says Prometheus' own tool.
#[tokio::test]
#[ignore = "needs promtool: run tests/run"]
async fn alarms_pass_their_tests() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let mut promtool = Command::new("promtool");
        let ended = promtool.args(arguments).current_dir(MONITORING).output().await.unwrap();
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
    }
}

/// Full, gone, or read by nobody: nobody who asks the server notices.
#[tokio::test]
async fn standard_error_decides_nothing() {
    for (what, redirected) in
        [("full", "exec 2>/dev/full"), ("closed", "exec 2>&-"), ("gone", "exec 2> >(exit 0)")]
    {
        let directory = tempfile::tempdir().unwrap();
        let mut shell = Command::new("/bin/bash");
        shell.args(["-c", &format!("{redirected}; sleep 0.1; exec \"$0\"")]).arg(binary());
        let settings = [("RUST_LOG", "trace"), ("BIND_ADDR", "0.0.0.0:0")];
        let child = spawn_as(shell, directory.path(), &settings);
        // The first start has a pair of keys to report, and a warning to give.
        let mut program = Program::started(child).await;
        program.reached_at("127.0.0.1");
        for _ in 0..20 {
            let refresh = program.post("/auth/refresh", json!({"refresh_token": "x"})).await;
            refresh.refused(401, "invalid_refresh_token");
        }
        assert!(directory.path().join("config/jwt-private.pem").exists(), "{what}");
        program.stop().await;
    }
}

/// A pipe that is full after 64 KiB.
#[tokio::test]
async fn log_that_nobody_reads_holds_nobody_up() {
    let directory = directory_with_keys();
    let mut command = Command::new(binary());
    command.stderr(Stdio::piped());
    let child = spawn_as(command, directory.path(), &[("RUST_LOG", "trace")]);
    let program = Program::started(child).await;
    for _ in 0..90 {
        program.post("/auth/refresh", json!({"refresh_token": "x"})).await.expect(401);
    }
    let begin = Instant::now();
    program.signal("TERM").await;
    assert_eq!(timeout(Duration::from_secs(5), program.end()).await.unwrap().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(4));
}

/// Pages of 4 KiB that this process has in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Only what it measures is in this process: the test runs itself once more, alone.
#[tokio::test(start_paused = true)]
async fn metrics_that_nobody_reads_take_no_more_and_more_memory() {
    const ALONE: &str = "TOWER_WARDEN_TEST_ALONE";
    const ROUND: usize = 200_000;
    if std::env::var_os(ALONE).is_none() {
        let name = "operators::metrics_that_nobody_reads_take_no_more_and_more_memory";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let alone = alone.args([name, "--exact", "--nocapture"]).env(ALONE, "1");
        let output = alone.output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{told}");
        let tell: Vec<_> = told.lines().filter(|line| line.contains("decisions")).collect();
        assert_eq!(tell.len(), 2, "{told}");
        println!("{}", tell.join("\n"));
        return;
    }
    let _metrics = crate::operated::measure().unwrap();
    let decide = || {
        metrics::counter!("tower_warden_limit_decisions_total", "limiter" => "ip").increment(1);
        metrics::histogram!("tower_warden_limit_store_seconds").record(0.000_3);
    };
    let round = async |decisions: usize| {
        let before = resident();
        (0..decisions).for_each(|_| decide());
        let grown = resident().saturating_sub(before) * 4096;
        tokio::time::advance(Duration::from_secs(6)).await;
        tokio::task::yield_now().await;
        grown
    };
    round(ROUND).await;
    let at_first = resident();
    for _ in 0..20 {
        round(ROUND).await;
    }
    let grown = resident().saturating_sub(at_first) * 4096;
    println!("{} decisions, looked after: {grown} bytes", 20 * ROUND);
    let most = round(20 * ROUND).await;
    println!("{} decisions between two looks: {most} bytes", 20 * ROUND);
    assert!(most > 8 * 20 * ROUND, "it would show: {most}");
    assert!(grown < 8 * 1024 * 1024, "{grown}");
}
