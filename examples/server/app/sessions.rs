//! Sessions, as their users see and end them.

use axum::{
    Json as Answered, Router,
    extract::{FromRequestParts, State},
    routing::{delete, get},
};
use http::{StatusCode, header, request::Parts};
use serde::Serialize;
use tower_warden::{
    Identity, Problem, TokenService,
    token::{Session, SessionInfo},
};

use super::{
    App,
    error::{Answer, method_not_allowed},
    projects::{ThingId, no_method_of_a_thing},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/auth/sessions", get(list).fallback(method_not_allowed))
        .route("/auth/sessions/{id}", delete(end).fallback(no_method_of_a_thing))
}

async fn list(
    State(tokens): State<TokenService>,
    caller: Identity,
) -> Answer<Answered<SessionsView>> {
    let sessions = tokens.sessions(caller.user_id()).await?;
    let view = |session| SessionView::new(session, caller.session_id());
    Ok(Answered(SessionsView { sessions: sessions.into_iter().map(view).collect() }))
}

async fn end(
    State(tokens): State<TokenService>,
    caller: Identity,
    ThingId(id): ThingId,
) -> Answer<StatusCode> {
    match tokens.end_session(caller.user_id(), &id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}

/// From where and with what a request comes, for the session that it opens or uses.
pub struct Origin(pub SessionInfo);

impl FromRequestParts<App> for Origin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let mut info = SessionInfo::new();
        let proxies = &app.limits.quotas.proxies;
        if let Ok(client) = proxies.client_ip(&parts.headers, &parts.extensions) {
            info = info.with_ip(client.into());
        }
        if let Some(agent) = parts.headers.get(header::USER_AGENT) {
            info = info.with_user_agent(String::from_utf8_lossy(agent.as_bytes()));
        }
        Ok(Self(info))
    }
}

#[derive(Serialize)]
struct SessionsView {
    sessions: Vec<SessionView>,
}

/// A session as the API shows it.
#[derive(Serialize)]
struct SessionView {
    id: String,
    created_at: String,
    last_used_at: String,
    expires_at: String,
    ip: Option<String>,
    user_agent: Option<String>,
    current: bool,
}

impl SessionView {
    fn new(Session { family, expires_at, .. }: Session, current: Option<&str>) -> Self {
        let time = |time| humantime::format_rfc3339_micros(time).to_string();
        Self {
            current: current == Some(family.id.as_str()),
            id: family.id.as_str().to_owned(),
            created_at: time(family.created_at),
            last_used_at: time(family.last_used_at),
            expires_at: time(expires_at),
            ip: family.info.ip().map(|ip| ip.to_string()),
            user_agent: family.info.user_agent().map(str::to_owned),
        }
    }
}
