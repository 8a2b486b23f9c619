//! The contract of the example server, by its chapters. All but `process` drive the app in this
//! process, on a clock that the tests move; `process` starts the program itself.

#![cfg(feature = "full")]
#![allow(clippy::unwrap_used, reason = "the lint knows only functions that are tests themselves")]
#![allow(clippy::print_stdout, reason = "what was measured is told with --nocapture")]

#[allow(dead_code, unreachable_pub, unused_imports, reason = "the app is made for its own program")]
#[path = "../../examples/server/app/mod.rs"]
mod app;

#[allow(dead_code, unreachable_pub, reason = "made for its own program")]
#[path = "../../examples/server/operators.rs"]
mod operated;
#[allow(dead_code, unreachable_pub, reason = "made for its own program")]
#[path = "../../examples/server/serve/mod.rs"]
mod serve;

mod access_tokens;
mod accounts;
mod admin;
mod audit;
mod bodies;
mod browser;
mod browser_cookies;
mod browsers;
mod client_ip;
mod connections;
mod description;
mod keys;
mod life;
mod limits;
mod login_limit;
mod operators;
mod outages;
mod pages;
mod process;
mod program;
mod projects;
mod refusals;
mod reply;
mod second_factor;
mod security;
mod sessions;
mod settings;
mod support;
mod try_it;
