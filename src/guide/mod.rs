//! Guides: how to do what, step by step. Text only.
//!
//! To begin with:
//!
//! - [`step_by_step`]: from an open API to accounts, roles, plans and limits.
//! - [`order_of_layers`]: what stands around what, and why.
//! - [`client_addresses`]: behind nginx, HAProxy, Caddy, load balancers, and none.
//! - [`machines`]: API keys.
//! - [`second_factor`]: codes of an app, the login in two steps, a login of just now.
//! - [`other_issuers`]: tokens of Auth0, Keycloak, Cognito, Entra, Google, Okta, and of an old app.
//! - [`testing`]: without sockets and without sleeping.
//! - [`coming_from`]: tower_governor, axum-login, jsonwebtoken, jwt-authorizer, express-rate-limit, passport.
//!
//! Limits:
//!
//! - [`plans_and_quotas`]: by plan, by weight, of failures only; which quota is right.
//! - [`bursts`]: for those coming from token buckets.
//! - [`sharing_a_limit`]: over HTTP and gRPC, between routes and servers.
//!
//! Callers:
//!
//! - [`accounts_for_life`]: forgotten passwords, new addresses, suspension; e-mails and pages of your own.
//! - [`sessions_and_revocation`]: what ends a session, how soon, and what each store promises.
//! - [`browsers`]: tokens, CORS, WebSocket, EventSource.
//! - [`writing_a_store`]: limits, users or sessions in a database of your own.
//!
//! Operators:
//!
//! - [`signals`]: logs, metrics, traces, audit.
//! - [`opentelemetry`]: spans and their parents.

#[doc = include_str!("client_addresses.md")]
pub mod client_addresses {}

#[doc = include_str!("order_of_layers.md")]
pub mod order_of_layers {}

#[doc = include_str!("plans_and_quotas.md")]
pub mod plans_and_quotas {}

#[doc = include_str!("bursts.md")]
pub mod bursts {}

#[doc = include_str!("browsers.md")]
pub mod browsers {}

#[doc = include_str!("signals.md")]
#[cfg(feature = "metrics")]
pub mod signals {}

// Its program is run by `tests/opentelemetry`, which has what it needs.
#[cfg(not(doctest))]
#[doc = include_str!("opentelemetry.md")]
pub mod opentelemetry {}

#[doc = include_str!("machines.md")]
pub mod machines {}

#[doc = include_str!("second_factor.md")]
pub mod second_factor {}

#[doc = include_str!("other_issuers.md")]
pub mod other_issuers {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("step_by_step.md")]
pub mod step_by_step {}

#[doc = include_str!("sharing_a_limit.md")]
pub mod sharing_a_limit {}

#[doc = include_str!("accounts_for_life.md")]
pub mod accounts_for_life {}

#[doc = include_str!("sessions_and_revocation.md")]
pub mod sessions_and_revocation {}

#[doc = include_str!("writing_a_store.md")]
pub mod writing_a_store {}
