//! The API: every route, and the stack that stands in front of it, on one screen.

mod accounts;
mod admin;
mod analytics;
mod auth;
mod body;
mod cors;
mod error;
mod guesses;
mod keys;
mod limits;
mod pages;
mod projects;
mod projects_store;
mod security;
mod sessions;
mod state;
mod status;
mod strict_json;
mod totp;
mod try_it;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_warden::{DrainLayer, ObserveLayer, RequireAuth, auth::FirstOf};

pub use body::SlowBody;
pub use error::{invalid_request, method_not_allowed, not_found};
pub use limits::{LIMITERS, Limits, Quotas};
pub use projects_store::{Pool, ProjectStore};
pub use security::Hardening;
pub use state::App;

/// The whole API over this state.
pub fn app(app: App) -> Router {
    // Machines come with keys, people with access tokens.
    let auth = RequireAuth::new(FirstOf::new().or(app.keys.clone()).or(app.tokens.clone()));
    let limits = &app.limits;
    let hardening = Hardening::new(app.https);
    // Inside the limits: what a panic answers has their headers, and is settled as any other 500.
    let panics = CatchPanicLayer::custom(error::panicked);

    let anyone = Router::new()
        .merge(status::router())
        .merge(auth::open_router())
        .merge(accounts::open_router())
        .merge(pages::router())
        .merge(try_it::router())
        .fallback(error::not_found)
        .layer(panics)
        .layer(from_fn(error::one_authorization))
        .layer(limits.public());
    let mailing = auth::mailing_router()
        .merge(accounts::mailing_router())
        .layer(panics)
        .layer(from_fn(error::one_authorization))
        .layer(limits.mailing());
    let registering = auth::register_router()
        .layer(panics)
        .layer(from_fn(error::one_authorization))
        .layer(limits.registering());
    let login = auth::login_router()
        .merge(totp::login_router())
        .layer(panics)
        .layer(from_fn(guesses::tell))
        .layer(from_fn(error::one_authorization))
        .layer(limits.login());
    // What is to know who asks, and tries a password or a code.
    let guarded = |routes: Router<App>, limit| {
        routes.route_layer(keys::in_person()).layer(
            ServiceBuilder::new()
                .layer(auth.identify_only())
                .layer(limit)
                .layer(auth.clone())
                .layer(from_fn(guesses::tell))
                .layer(panics),
        )
    };
    let guarded_mailing = guarded(accounts::guarded_mailing_router(), limits.guarded_mailing());
    let guarded =
        guarded(accounts::guarded_router().merge(totp::guarded_router()), limits.guarded());
    let in_person = Router::new()
        .merge(auth::session_router())
        .merge(sessions::router())
        .merge(keys::router())
        .merge(admin::router())
        .route_layer(keys::in_person());
    let signed_in = Router::new()
        .merge(in_person)
        .merge(auth::me_router())
        .merge(projects::router())
        .merge(analytics::router())
        .layer(
            ServiceBuilder::new()
                .layer(auth.identify_only()) // tells the limiter who it is,
                .layer(limits.signed_in()) // which counts users by id and strangers by address,
                .layer(auth) // and only then are strangers refused
                .layer(panics),
        );

    let api = anyone
        .merge(mailing)
        .merge(registering)
        .merge(login)
        .merge(guarded)
        .merge(guarded_mailing)
        .merge(signed_in)
        .with_state(app.clone())
        .layer(
            ServiceBuilder::new()
                .map_response(move |response| hardening.response(response))
                .layer(from_fn(auth::never_cached))
                .layer(from_fn_with_state(cors::layer(&app.cors_allowed_origins), cors::around)),
        );
    // Outside of everything that refuses.
    let observe = ObserveLayer::new().behind(limits.quotas.proxies.clone());
    api.layer(ServiceBuilder::new().layer(observe).layer(DrainLayer::new()))
}
