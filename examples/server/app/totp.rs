//! The second factor: codes of an authenticator app, and the login in two steps.

use std::future::ready;

use axum::{Json as Answered, Router, extract::State, routing::post};
use http::StatusCode;
use serde::Serialize;
use tower_warden::{
    Identity, Problem, TokenService, UserService,
    second_factor::{LoginSteps, LoginToken, RecoveryCode, TotpService},
    token::{NewSession, TokenPair},
    user::{CheckPasswordError, Password},
};

use super::{
    App,
    accounts::{Users, current},
    auth::identity,
    body::{FromMembers, Json, Members},
    error::{Answer, method_not_allowed},
    guesses::Guesses,
    sessions::Origin,
};

/// What asks someone who is signed in for a password or a code.
pub fn guarded_router() -> Router<App> {
    Router::new()
        .route("/auth/totp", post(begin).fallback(method_not_allowed))
        .route("/auth/totp/confirm", post(confirm).fallback(method_not_allowed))
        .route("/auth/totp/disable", post(disable).fallback(method_not_allowed))
}

/// The second step of a login.
pub fn login_router() -> Router<App> {
    Router::new().route("/auth/login/totp", post(login).fallback(method_not_allowed))
}

/// 403: the password is right, and not enough.
pub fn second_factor_required(token: &LoginToken) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "second_factor_required", "Second factor required")
        .with_member("login_token", token.expose())
}

async fn begin(
    guesses: Guesses,
    Users(users): Users,
    State(totp): State<TotpService>,
    caller: Identity,
    Json(Confirmed { password }): Json<Confirmed>,
) -> Answer<Answered<SetupView>> {
    let checked = current(&guesses, &users, &caller, password).await?;
    let user = checked.user();
    let setup = totp.begin(&user.id, user.email.as_str()).await?;
    Ok(Answered(SetupView { secret: setup.secret().into(), uri: setup.uri().into() }))
}

async fn confirm(
    guesses: Guesses,
    State(users): State<UserService>,
    State(totp): State<TotpService>,
    caller: Identity,
    Json(Code { code }): Json<Code>,
) -> Answer<Answered<CodesView>> {
    let user = users.find(caller.user_id()).await?.ok_or(CheckPasswordError::Gone)?;
    let look = async { Ok(totp.confirm(&user.id, &code).await?) };
    let codes = guesses.check(Some(user.email.as_str()), look).await?;
    let recovery_codes = codes.iter().map(RecoveryCode::expose).map(str::to_owned).collect();
    Ok(Answered(CodesView { recovery_codes }))
}

async fn disable(
    guesses: Guesses,
    Users(users): Users,
    State(totp): State<TotpService>,
    caller: Identity,
    Json(Disabling { password, code }): Json<Disabling>,
) -> Answer<StatusCode> {
    let user = users.find(caller.user_id()).await?.ok_or(CheckPasswordError::Gone)?;
    let look = async {
        users.check_password(&user.id, password).await?;
        Ok(totp.disable(&user.id, &code).await?)
    };
    guesses.check(Some(user.email.as_str()), look).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The user is read before the code is looked at: a login that something overtakes opens no session.
async fn login(
    guesses: Guesses,
    Origin(info): Origin,
    State(users): State<UserService>,
    State(tokens): State<TokenService>,
    State(steps): State<LoginSteps>,
    Json(SecondStep { login_token, code }): Json<SecondStep>,
) -> Answer<Answered<TokenPair>> {
    let user = match steps.user_of(&login_token).await? {
        Some(id) => users.find(&id).await?,
        None => None,
    };
    let account = user.as_ref().map(|user| user.email.as_str());
    let found = user.as_ref().map(identity);
    let look = async { Ok(steps.finish(&login_token, &code, |_| ready(Ok(found))).await?) };
    let caller = guesses.check(account, look).await?.with_amr(["pwd", "otp"]);
    Ok(Answered(tokens.open_session(NewSession::new(caller).with_info(info)).await?))
}

#[derive(Serialize)]
struct SetupView {
    secret: String,
    uri: String,
}

#[derive(Serialize)]
struct CodesView {
    recovery_codes: Vec<String>,
}

struct Confirmed {
    password: Password,
}

impl FromMembers for Confirmed {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self { password: Password::from(members.text("current_password")?) })
    }
}

/// Any text is a code: one that can't be right is simply wrong.
struct Code {
    code: String,
}

impl FromMembers for Code {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self { code: members.text("code")? })
    }
}

struct Disabling {
    password: Password,
    code: String,
}

impl FromMembers for Disabling {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (password, code) = (members.text("current_password"), members.text("code"));
        Some(Self { password: Password::from(password?), code: code? })
    }
}

struct SecondStep {
    login_token: String,
    code: String,
}

impl FromMembers for SecondStep {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (login_token, code) = (members.text("login_token"), members.text("code"));
        Some(Self { login_token: login_token?, code: code? })
    }
}
