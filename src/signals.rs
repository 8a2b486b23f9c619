//! What operators see: counters, gauges and latencies through the `metrics` facade (feature
//! `metrics`; without it, nothing). A client's key, address or token is never a label.
//!
//! | name | kind | labels |
//! | --- | --- | --- |
//! | `tower_warden_limit_decisions_total` | counter | `limiter`, `outcome`: `allowed`, `refused` |
//! | `tower_warden_limit_undecided_total` | counter | `policy`: `allow`, `deny`, `local` |
//! | `tower_warden_limit_store_seconds` | histogram | |
//! | `tower_warden_limit_store_errors_total` | counter | `kind`: `refused`, `late` |
//! | `tower_warden_limit_breaker_open` | gauge | |
//! | `tower_warden_limit_values_replaced_total` | counter | |
//! | `tower_warden_token_verifications_total` | counter | `outcome`: `remembered`, `verified`, `expired`, `invalid` |
//! | `tower_warden_token_refreshes_total` | counter | `outcome`: `rotated`, `reused`, `expired`, `revoked`, `unknown`, `no_user`, `failed` |
//! | `tower_warden_logins_total` | counter | `outcome`: `ok`, `invalid_credentials`, `not_verified`, `busy`, `failed` |
//! | `tower_warden_api_keys_total` | counter | `outcome`: `ok`, `expired`, `revoked`, `invalid`, `failed` |
//! | `tower_warden_mail_total` | counter | `outcome`: `sent`, `given_up`, `dropped` |
//! | `tower_warden_second_steps_total` | counter | `outcome`: `ok`, `invalid_code`, `failed` |
//! | `tower_warden_hashing_running`, `tower_warden_hashing_waiting` | gauge | |

#[cfg(feature = "metrics")]
mod enabled {
    use std::time::Duration;

    use metrics::{counter, gauge, histogram};

    pub(crate) fn limit_decided(limiter: &'static str, allowed: bool) {
        let outcome = if allowed { "allowed" } else { "refused" };
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

    pub(crate) fn login(outcome: &'static str) {
        counter!("tower_warden_logins_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn api_key_verified(outcome: &'static str) {
        counter!("tower_warden_api_keys_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn mail(outcome: &'static str) {
        counter!("tower_warden_mail_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn second_step(outcome: &'static str) {
        counter!("tower_warden_second_steps_total", "outcome" => outcome).increment(1);
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
    pub(crate) fn limit_undecided(policy: &'static str) {}
    pub(crate) fn limit_store_answered(after: Duration) {}
    pub(crate) fn limit_store_failed(kind: &'static str) {}
    pub(crate) fn limit_breaker(open: bool) {}
    #[cfg(feature = "redis")]
    pub(crate) fn limit_values_replaced(values: u64) {}
    pub(crate) fn token_verified(outcome: &'static str) {}
    pub(crate) fn token_refreshed(outcome: &'static str) {}
    pub(crate) fn login(outcome: &'static str) {}
    pub(crate) fn api_key_verified(outcome: &'static str) {}
    pub(crate) fn mail(outcome: &'static str) {}
    pub(crate) fn second_step(outcome: &'static str) {}
    pub(crate) fn hashing(running: usize, waiting: usize) {}
}

#[cfg(not(feature = "metrics"))]
pub(crate) use disabled::*;
#[cfg(feature = "metrics")]
pub(crate) use enabled::*;
