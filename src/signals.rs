//! What operators see: counters, gauges and latencies through the `metrics` facade (feature
//! `metrics`; without it, nothing). A client's key, address or token is never a label.
//!
//! | name | kind | labels |
//! | --- | --- | --- |
//! | `tower_warden_limit_decisions_total` | counter | `limiter`, `outcome`: `allowed`, `refused`, `would_refuse` |
//! | `tower_warden_limit_undecided_total` | counter | `policy`: `allow`, `deny`, `local`; `late` |
//! | `tower_warden_limit_store_seconds` | histogram | |
//! | `tower_warden_limit_store_errors_total` | counter | `kind`: `refused`, `late` |
//! | `tower_warden_limit_breaker_open` | gauge | |
//! | `tower_warden_limit_values_replaced_total` | counter | |
//! | `tower_warden_token_verifications_total` | counter | `outcome`: `remembered`, `verified`, `expired`, `revoked`, `invalid` |
//! | `tower_warden_token_refreshes_total` | counter | `outcome`: `rotated`, `replayed`, `reused`, `expired`, `revoked`, `unknown`, `no_user`, `failed` |
//! | `tower_warden_revocations_stale_seconds`, `tower_warden_revocations` | gauge | |
//! | `tower_warden_logins_total` | counter | `outcome`: `ok`, `invalid_credentials`, `not_verified`, `suspended`, `busy`, `failed` |
//! | `tower_warden_api_keys_total` | counter | `outcome`: `ok`, `expired`, `revoked`, `invalid`, `failed` |
//! | `tower_warden_mail_total` | counter | `outcome`: `sent`, `given_up`, `dropped` |
//! | `tower_warden_second_steps_total` | counter | `outcome`: `ok`, `invalid_code`, `failed` |
//! | `tower_warden_audit_events_total` | counter | `outcome`: `noted`, `lost` |
//! | `tower_warden_request_seconds` | histogram | `route`: the template; `status`: `2xx` …, `error` |
//! | `tower_warden_hashing_seconds` | histogram | |
//! | `tower_warden_hashing_running`, `tower_warden_hashing_waiting` | gauge | |

#[cfg(feature = "metrics")]
mod enabled {
    use std::time::Duration;

    use metrics::{
        counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    };

    /// What is counted: name, meaning, label, and the values that it has.
    const COUNTERS: &[(&str, &str, &str, &[&str])] = &[
        (
            "tower_warden_limit_undecided_total",
            "Requests that the store of the limits decided nothing of, by what became of them.",
            "policy",
            &["allow", "deny", "local", "late"],
        ),
        (
            "tower_warden_limit_store_errors_total",
            "Calls to the store of the limits that failed.",
            "kind",
            &["refused", "late"],
        ),
        (
            "tower_warden_token_verifications_total",
            "Access tokens that were presented.",
            "outcome",
            &["remembered", "verified", "expired", "revoked", "invalid"],
        ),
        (
            "tower_warden_token_refreshes_total",
            "Refresh tokens that were presented.",
            "outcome",
            &[
                "rotated", "replayed", "reused", "expired", "revoked", "unknown", "no_user",
                "failed",
            ],
        ),
        (
            "tower_warden_logins_total",
            "Passwords that were presented.",
            "outcome",
            &["ok", "invalid_credentials", "not_verified", "suspended", "busy", "failed"],
        ),
        (
            "tower_warden_api_keys_total",
            "API keys that were presented.",
            "outcome",
            &["ok", "expired", "revoked", "invalid", "failed"],
        ),
        (
            "tower_warden_second_steps_total",
            "Codes that were presented at a login.",
            "outcome",
            &["ok", "invalid_code", "failed"],
        ),
        (
            "tower_warden_audit_events_total",
            "Audit events: what was noted, and what of it the table lost.",
            "outcome",
            &["noted", "lost"],
        ),
        (
            "tower_warden_mail_total",
            "Mail, by what became of it.",
            "outcome",
            &["sent", "given_up", "dropped"],
        ),
    ];

    /// What is timed, and the upper bounds, in seconds, under which it is worth counting.
    const HISTOGRAMS: &[(&str, &str, &[f64])] = &[
        (
            "tower_warden_limit_store_seconds",
            "How long the store of the limits takes.",
            &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.25, 1.0, 5.0],
        ),
        (
            "tower_warden_hashing_seconds",
            "How long a password takes to be hashed, waiting included.",
            &[0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 15.0],
        ),
        (
            "tower_warden_request_seconds",
            "How long a request takes, up to the head of its answer.",
            &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0],
        ),
    ];

    /// The histograms of this crate, and the buckets that fit them: the upper bounds, in seconds. A
    /// recorder is told of them before it is installed.
    ///
    /// ```
    /// use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
    /// let mut recorder = PrometheusBuilder::new();
    /// for (name, bounds) in tower_warden::metric_buckets() {
    ///     recorder = recorder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)?;
    /// }
    /// let handle = recorder.install_recorder()?;
    /// tower_warden::describe_metrics(&["ip", "login"]); // the limiters of your rules
    /// assert!(handle.render().contains("tower_warden_logins_total{outcome=\"ok\"} 0"));
    /// # Ok::<(), metrics_exporter_prometheus::BuildError>(())
    /// ```
    pub fn metric_buckets() -> impl Iterator<Item = (&'static str, &'static [f64])> {
        HISTOGRAMS.iter().map(|&(name, _, bounds)| (name, bounds))
    }

    const LIMIT_DECISIONS: &str = "tower_warden_limit_decisions_total";
    const VALUES_REPLACED: &str = "tower_warden_limit_values_replaced_total";

    const GAUGES: &[(&str, &str)] = &[
        ("tower_warden_limit_breaker_open", "1 while the store of the limits is not asked."),
        (
            "tower_warden_revocations_stale_seconds",
            "How long ago all that other servers revoked was known here.",
        ),
        (
            "tower_warden_revocations",
            "Sessions and users of whom something is known to be revoked.",
        ),
        ("tower_warden_hashing_running", "Passwords that are being hashed."),
        ("tower_warden_hashing_waiting", "Passwords that wait to be hashed."),
    ];

    /// Tells the recorder that is installed what the metrics of this crate mean, and counts from 0
    /// what was not counted yet: a rate, and so an alarm, sees the first event only of a counter that
    /// was there before. The limiters are those of the application's rules, by their names.
    ///
    /// ```
    /// tower_warden::describe_metrics(&["ip", "login"]);
    /// ```
    pub fn describe_metrics(limiters: &[&'static str]) {
        describe_counter!(LIMIT_DECISIONS, "What limiters decided.");
        for &limiter in limiters {
            for outcome in ["allowed", "refused", "would_refuse"] {
                counter!(LIMIT_DECISIONS, "limiter" => limiter, "outcome" => outcome).absolute(0);
            }
        }
        describe_counter!(VALUES_REPLACED, "Values at keys of limits that were not ours.");
        counter!(VALUES_REPLACED).absolute(0);
        for &(name, meaning, label, values) in COUNTERS {
            describe_counter!(name, meaning);
            for &value in values {
                counter!(name, label => value).absolute(0);
            }
        }
        for &(name, meaning) in GAUGES {
            describe_gauge!(name, meaning);
            gauge!(name).increment(0.0);
        }
        for &(name, meaning, _) in HISTOGRAMS {
            describe_histogram!(name, metrics::Unit::Seconds, meaning);
        }
        drop(histogram!("tower_warden_limit_store_seconds"));
        drop(histogram!("tower_warden_hashing_seconds"));
        for status in STATUSES {
            drop(request_seconds(String::new(), status));
        }
    }

    pub(crate) fn limit_decided(limiter: &'static str, allowed: bool) {
        let outcome = if allowed { "allowed" } else { "refused" };
        counter!("tower_warden_limit_decisions_total", "limiter" => limiter, "outcome" => outcome)
            .increment(1);
    }

    pub(crate) fn limit_would_refuse(limiter: &'static str) {
        let outcome = "would_refuse";
        counter!("tower_warden_limit_decisions_total", "limiter" => limiter, "outcome" => outcome)
            .increment(1);
    }

    pub(crate) fn limit_undecided(policy: &'static str) {
        counter!("tower_warden_limit_undecided_total", "policy" => policy).increment(1);
    }

    pub(crate) fn limit_store_answered(after: Duration) {
        histogram!("tower_warden_limit_store_seconds").record(after);
    }

    pub(crate) fn limit_store_failed(kind: &'static str) {
        counter!("tower_warden_limit_store_errors_total", "kind" => kind).increment(1);
    }

    pub(crate) fn limit_breaker(open: bool) {
        gauge!("tower_warden_limit_breaker_open").set(if open { 1.0 } else { 0.0 });
    }

    #[cfg(feature = "redis")]
    pub(crate) fn limit_values_replaced(values: u64) {
        counter!("tower_warden_limit_values_replaced_total").increment(values);
    }

    pub(crate) fn token_verified(outcome: &'static str) {
        counter!("tower_warden_token_verifications_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn token_refreshed(outcome: &'static str) {
        counter!("tower_warden_token_refreshes_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn revocations(stale: Duration, known: usize) {
        gauge!("tower_warden_revocations_stale_seconds").set(stale.as_secs_f64());
        gauge!("tower_warden_revocations").set(known as f64);
    }

    pub(crate) fn login(outcome: &'static str) {
        counter!("tower_warden_logins_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn api_key_verified(outcome: &'static str) {
        counter!("tower_warden_api_keys_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn mail(outcome: &'static str) {
        counter!("tower_warden_mail_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn audit(outcome: &'static str, events: u64) {
        counter!("tower_warden_audit_events_total", "outcome" => outcome).increment(events);
    }

    pub(crate) fn second_step(outcome: &'static str) {
        counter!("tower_warden_second_steps_total", "outcome" => outcome).increment(1);
    }

    /// How requests end. Of routes the application's are known only once they are asked for; an empty
    /// one stands for what no route answers.
    const STATUSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "error"];

    fn request_seconds(route: String, status: &'static str) -> metrics::Histogram {
        histogram!("tower_warden_request_seconds", "route" => route, "status" => status)
    }

    pub(crate) fn answered(route: &str, status: Option<u16>, took: Duration) {
        let class =
            status.and_then(|status| STATUSES.get(usize::from(status / 100).checked_sub(1)?));
        request_seconds(route.to_owned(), class.copied().unwrap_or("error")).record(took);
    }

    pub(crate) fn hashed(took: Duration) {
        histogram!("tower_warden_hashing_seconds").record(took);
    }

    pub(crate) fn hashing(running: usize, waiting: usize) {
        gauge!("tower_warden_hashing_running").set(running as f64);
        gauge!("tower_warden_hashing_waiting").set(waiting as f64);
    }
}

#[cfg(not(feature = "metrics"))]
mod disabled {
    #![allow(clippy::missing_const_for_fn, unused_variables, reason = "the same signatures")]

    use std::time::Duration;

    pub(crate) fn limit_decided(limiter: &'static str, allowed: bool) {}
    pub(crate) fn limit_would_refuse(limiter: &'static str) {}
    pub(crate) fn limit_undecided(policy: &'static str) {}
    pub(crate) fn limit_store_answered(after: Duration) {}
    pub(crate) fn limit_store_failed(kind: &'static str) {}
    pub(crate) fn limit_breaker(open: bool) {}
    #[cfg(feature = "redis")]
    pub(crate) fn limit_values_replaced(values: u64) {}
    pub(crate) fn token_verified(outcome: &'static str) {}
    pub(crate) fn token_refreshed(outcome: &'static str) {}
    pub(crate) fn revocations(stale: Duration, known: usize) {}
    pub(crate) fn login(outcome: &'static str) {}
    pub(crate) fn api_key_verified(outcome: &'static str) {}
    pub(crate) fn mail(outcome: &'static str) {}
    pub(crate) fn audit(outcome: &'static str, events: u64) {}
    pub(crate) fn second_step(outcome: &'static str) {}
    pub(crate) fn answered(route: &str, status: Option<u16>, took: Duration) {}
    pub(crate) fn hashed(took: Duration) {}
    pub(crate) fn hashing(running: usize, waiting: usize) {}
}

#[cfg(not(feature = "metrics"))]
pub(crate) use disabled::*;
#[cfg(feature = "metrics")]
pub(crate) use enabled::*;
#[cfg(feature = "metrics")]
pub use enabled::{describe_metrics, metric_buckets};

#[cfg(all(test, feature = "metrics"))]
mod tests {
    /// In the table of the module, and among what is described.
    #[test]
    fn every_metric_is_in_the_table_and_described() {
        let text = include_str!("signals.rs");
        let (table, code) = text.split_once("mod enabled").unwrap();
        let (code, _) = code.split_once("mod tests").unwrap();
        let (described, recorded) = code.split_once("pub(crate) fn").unwrap();
        let names = recorded.split('"').filter(|name| name.starts_with("tower_warden_"));
        for name in names {
            assert!(table.contains(&format!("`{name}`")), "{name}");
            assert!(described.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
