//! Accounts and sessions: register, verify, log in, refresh, log out.

use axum::{
    Json as Answered, Router,
    extract::{FromRequest, Query, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tower_warden::{
    Identity, StoreError, TokenService, UserId, UserService,
    second_factor::LoginSteps,
    token::{NewSession, TokenError, TokenPair},
    user::{Email, Password, PasswordPolicy, StandardPolicy, User},
};

use super::{
    App,
    accounts::Users,
    body::{Form, FromMembers, Json, Members},
    error::{Answer, invalid_request, method_not_allowed},
    guesses::Guesses,
    pages::{self, Link, only},
    sessions::Origin,
    totp::second_factor_required,
};

/// What needs no token.
pub fn open_router() -> Router<App> {
    Router::new()
        .route("/auth/verify", get(verify).post(verify_posted).fallback(method_not_allowed))
        .route("/auth/refresh", post(refresh).fallback(method_not_allowed))
        .route("/auth/logout", post(logout).fallback(method_not_allowed))
}

/// Where accounts are made.
pub fn register_router() -> Router<App> {
    Router::new().route("/auth/register", post(register).fallback(method_not_allowed))
}

/// What sends a mail to who asks.
pub fn mailing_router() -> Router<App> {
    Router::new().route("/auth/verify/resend", post(resend).fallback(method_not_allowed))
}

/// The one route that guesses are made at.
pub fn login_router() -> Router<App> {
    Router::new().route("/auth/login", post(login).fallback(method_not_allowed))
}

/// What needs a token of a session.
pub fn session_router() -> Router<App> {
    Router::new().route("/auth/logout-all", post(logout_all).fallback(method_not_allowed))
}

/// What needs a token or a key.
pub fn me_router() -> Router<App> {
    Router::new().route("/auth/me", get(me).fallback(method_not_allowed))
}

/// No answer under `/auth` is kept by any cache.
pub async fn never_cached(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let under_auth = path == "/auth" || path.starts_with("/auth/");
    let mut response = next.run(request).await;
    if under_auth {
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    }
    response
}

async fn register(Users(users): Users, Json(new): Json<Registration>) -> Answer<impl IntoResponse> {
    let user = users.register(&new.email, new.password).await?;
    Ok((StatusCode::CREATED, Answered(UserView::from(user))))
}

async fn verify(
    State(users): State<UserService>,
    method: Method,
    headers: HeaderMap,
    link: Link,
) -> Answer<Response> {
    // Mail scanners open links, too: what is opened asks before it uses them up.
    if pages::is_wanted(&headers) {
        return Ok(pages::VERIFY.asked(&link));
    }
    let link = link.map(|Query(query)| query).unwrap_or_default();
    let token = only(&link, "token").ok_or_else(|| invalid_request("The query needs one token"))?;
    // And they ask with HEAD what a link is.
    match method {
        Method::HEAD => users.check_verification(token).await?,
        _ => drop(users.verify_email(token).await?),
    }
    Ok(verified())
}

/// JSON, or the form of the page.
async fn verify_posted(State(users): State<UserService>, request: Request) -> Answer<Response> {
    if !Form::is_sent(request.headers()) {
        let Json(Verification { token }) = Json::from_request(request, &()).await?;
        users.verify_email(&token).await?;
        return Ok(verified());
    }
    let Form(form) = Form::from_request(request, &()).await?;
    let Some(token) = only(&form, "token") else { return Ok(pages::VERIFY.incomplete()) };
    let done = users.verify_email(token).await;
    Ok(pages::VERIFY.outcome(token, done.map(drop).map_err(Into::into)))
}

fn verified() -> Response {
    ([(header::VARY, "accept")], Answered(json!({"email_verified": true}))).into_response()
}

async fn resend(
    State(users): State<UserService>,
    Json(Resend { email }): Json<Resend>,
) -> Answer<StatusCode> {
    users.resend_verification(email.as_str()).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn login(
    guesses: Guesses,
    Origin(info): Origin,
    Users(users): Users,
    State(tokens): State<TokenService>,
    State(steps): State<LoginSteps>,
    Json(credentials): Json<Credentials>,
) -> Answer<Answered<TokenPair>> {
    let Credentials { email, password } = credentials;
    let look = async { Ok(users.authenticate(&email, password).await?) };
    let user = guesses.check(Some(&email), look).await?;
    let caller = identity(&user);
    if let Some(token) = steps.begin(&caller).await? {
        return Err(second_factor_required(&token));
    }
    let pair = tokens.open_session(NewSession::new(caller).with_info(info)).await?;
    Ok(Answered(pair))
}

async fn refresh(
    Origin(info): Origin,
    State(users): State<UserService>,
    State(tokens): State<TokenService>,
    Json(presented): Json<Presented>,
) -> Answer<Answered<TokenPair>> {
    let current = |id| async move { current_identity(&users, &id).await };
    let pair = tokens.refresh_from(&presented.refresh_token, info, current).await?;
    Ok(Answered(pair))
}

async fn logout(
    State(tokens): State<TokenService>,
    Json(presented): Json<Presented>,
) -> Answer<StatusCode> {
    tokens.logout(&presented.refresh_token).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout_all(State(tokens): State<TokenService>, caller: Identity) -> Answer<StatusCode> {
    tokens.logout_all(caller.user_id()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn me(State(users): State<UserService>, caller: Identity) -> Answer<Answered<UserView>> {
    // Deleted a moment ago, elsewhere.
    let user = users.find(caller.user_id()).await?.ok_or(TokenError::Revoked)?;
    Ok(Answered(user.into()))
}

/// Who this user is now, for a new token; `None` for one who may no longer come in.
async fn current_identity(
    users: &UserService,
    id: &UserId,
) -> Result<Option<Identity>, StoreError> {
    let user = users.find(id).await?;
    let may_enter = |user: &User| user.email_verified && !user.suspended;
    Ok(user.filter(may_enter).map(|user| identity(&user)))
}

pub fn identity(user: &User) -> Identity {
    Identity::from(user).with_amr(["pwd"])
}

/// Who this user is now, who proved it as this caller did.
pub fn identity_like(caller: &Identity, user: &User) -> Identity {
    let identity = Identity::from(user).with_amr(caller.amr());
    caller.auth_time().into_iter().fold(identity, Identity::with_auth_time)
}

/// A user as the API shows it.
#[derive(Serialize)]
pub struct UserView {
    id: String,
    email: String,
    role: String,
    plan: Option<String>,
    email_verified: bool,
    suspended: bool,
    totp: bool,
    created_at: String,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            email: user.email.to_string(),
            role: user.role.to_string(),
            plan: user.plan.as_ref().map(ToString::to_string),
            email_verified: user.email_verified,
            suspended: user.suspended,
            totp: user.second_factor,
            created_at: humantime::format_rfc3339_micros(user.created_at).to_string(),
        }
    }
}

struct Registration {
    email: Email,
    password: Password,
}

impl FromMembers for Registration {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (email, password) = (members.email("email"), members.text("password"));
        let password = Password::from(password?);
        members.errors().password(&StandardPolicy.violations(&password));
        Some(Self { email: email?, password })
    }
}

/// Not checked beyond their type: what can't be right is simply wrong.
struct Credentials {
    email: String,
    password: Password,
}

impl FromMembers for Credentials {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (email, password) = (members.text("email"), members.text("password"));
        Some(Self { email: email?, password: Password::from(password?) })
    }
}

struct Presented {
    refresh_token: String,
}

impl FromMembers for Presented {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self { refresh_token: members.text("refresh_token")? })
    }
}

struct Resend {
    email: Email,
}

impl FromMembers for Resend {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self { email: members.email("email")? })
    }
}

struct Verification {
    token: String,
}

impl FromMembers for Verification {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self { token: members.text("token")? })
    }
}
