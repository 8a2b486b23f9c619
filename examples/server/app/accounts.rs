//! Accounts for life: forgotten and changed passwords, changed addresses, deletion.

use axum::{
    Json as Answered, Router,
    extract::{FromRequestParts, State},
    routing::post,
};
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};
use tower_warden::{
    ApiKeyService, Identity, Problem, TokenService, UserService,
    second_factor::{SecondFactor, SecondFactorError, TotpService},
    token::TokenPair,
    user::{
        CheckPasswordError, CheckedPassword, Password, PasswordPolicy, StandardPolicy,
        UpdateUserError,
    },
};

use super::{
    App,
    auth::identity_like,
    body::{Draft, FieldErrors, FromMembers, Json, Members},
    error::{Answer, method_not_allowed},
    guesses::{self, Guesses},
};

/// What needs no token, but that of a link.
pub fn open_router() -> Router<App> {
    Router::new()
        .route("/auth/password/reset", post(reset).fallback(method_not_allowed))
        .route("/auth/email/confirm", post(confirm_email).fallback(method_not_allowed))
}

/// What sends a mail to who asks.
pub fn mailing_router() -> Router<App> {
    Router::new().route("/auth/password/forgot", post(forgot).fallback(method_not_allowed))
}

/// What asks for the password of someone who is signed in.
pub fn guarded_router() -> Router<App> {
    Router::new()
        .route("/auth/password/change", post(change_password).fallback(method_not_allowed))
        .route("/auth/me/delete", post(delete).fallback(method_not_allowed))
}

/// The same, where it sends a mail as well.
pub fn guarded_mailing_router() -> Router<App> {
    Router::new().route("/auth/email/change", post(change_email).fallback(method_not_allowed))
}

/// The register on behalf of the client that asks, so that none can fill the queue for hashing.
pub struct Users(pub UserService);

impl FromRequestParts<App> for Users {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let client = app.limits.quotas.proxies.client_ip(&parts.headers, &parts.extensions)?;
        Ok(Self(app.users.for_client(&client.to_string())))
    }
}

async fn forgot(
    State(users): State<UserService>,
    Json(Forgotten { email }): Json<Forgotten>,
) -> Answer<StatusCode> {
    users.forgot_password(&email).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn reset(
    Users(users): Users,
    State(app): State<App>,
    Json(new): Json<Reset>,
) -> Answer<StatusCode> {
    set_password(&app, &users, &new.token, new.password).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// By the link of a forgotten password; failed logins at the account are forgotten.
pub async fn set_password(
    app: &App,
    users: &UserService,
    token: &str,
    password: Password,
) -> Answer<()> {
    let user = users.reset_password(token, password).await?;
    if let Err(error) = guesses::forgive(&app.limits, &user.email).await {
        tracing::warn!(%error, user = %user.id, "failed logins are not forgotten");
    }
    Ok(())
}

async fn change_password(
    guesses: Guesses,
    Users(users): Users,
    State(tokens): State<TokenService>,
    caller: Identity,
    Json(change): Json<PasswordChange>,
) -> Answer<Answered<TokenPair>> {
    let checked = current(&guesses, &users, &caller, change.current).await?;
    let session = caller.session_id().unwrap_or_default();
    let user = users.change_password(checked, change.new, Some(session)).await?;
    let pair = tokens.renew(session, &identity_like(&caller, &user)).await?;
    Ok(Answered(pair))
}

async fn change_email(
    guesses: Guesses,
    Users(users): Users,
    caller: Identity,
    Json(change): Json<EmailChange>,
) -> Answer<StatusCode> {
    let checked = current(&guesses, &users, &caller, change.current).await?;
    users.change_email_checked(checked, &change.email).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn confirm_email(
    State(users): State<UserService>,
    Json(Link { token }): Json<Link>,
) -> Answer<Answered<Value>> {
    let user = users.confirm_email(&token).await?;
    Ok(Answered(json!({"email": user.email})))
}

async fn delete(
    guesses: Guesses,
    Users(users): Users,
    State(keys): State<ApiKeyService>,
    State(totp): State<TotpService>,
    caller: Identity,
    mut draft: Draft<Deletion>,
) -> Answer<StatusCode> {
    let user = users.find(caller.user_id()).await?.ok_or(CheckPasswordError::Gone)?;
    let lacks_code = draft.0.as_ref().is_some_and(|deletion| deletion.code == Some(None));
    // A password comes before the code; where there is none, all is said at once.
    if draft.is_refused() && lacks_code && user.second_factor {
        draft.1.required("code");
    }
    let Deletion { current, code } = draft.done()?;
    let look = async {
        let checked = users.check_password(&user.id, current).await?;
        match code {
            _ if !user.second_factor => Ok(checked),
            Some(Some(code)) if totp.check(&user.id, &code).await? => Ok(checked),
            Some(Some(_)) => Err(SecondFactorError::WrongCode.into()),
            _ => {
                let mut errors = FieldErrors::default();
                errors.required("code");
                Err(errors.into())
            }
        }
    };
    let checked = guesses.check(Some(user.email.as_str()), look).await?;
    match users.delete_checked(checked).await {
        // Another request was quicker.
        Err(UpdateUserError::NotFound) => return Err(CheckPasswordError::Gone.into()),
        deleted => deleted?,
    };
    keys.forget(&user.id);
    Ok(StatusCode::NO_CONTENT)
}

/// Checks the password of who is signed in.
pub async fn current(
    guesses: &Guesses,
    users: &UserService,
    caller: &Identity,
    password: Password,
) -> Answer<CheckedPassword> {
    let user = users.find(caller.user_id()).await?.ok_or(CheckPasswordError::Gone)?;
    let look = async { Ok(users.check_password(&user.id, password).await?) };
    guesses.check(Some(user.email.as_str()), look).await
}

struct Forgotten {
    email: String,
}

impl FromMembers for Forgotten {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self { email: members.text("email")? })
    }
}

struct Reset {
    token: String,
    password: Password,
}

impl FromMembers for Reset {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (token, password) = (members.text("token"), members.text("password"));
        let password = Password::from(password?);
        members.errors().password(&StandardPolicy.violations(&password));
        Some(Self { token: token?, password })
    }
}

struct Link {
    token: String,
}

impl FromMembers for Link {
    fn from_members(members: &mut Members) -> Option<Self> {
        Some(Self { token: members.text("token")? })
    }
}

/// What is asked for is judged after the current password: here its type is all that counts.
struct PasswordChange {
    current: Password,
    new: Password,
}

impl FromMembers for PasswordChange {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (current, new) = (members.text("current_password"), members.text("password"));
        Some(Self { current: Password::from(current?), new: Password::from(new?) })
    }
}

struct EmailChange {
    current: Password,
    email: String,
}

impl FromMembers for EmailChange {
    fn from_members(members: &mut Members) -> Option<Self> {
        let (current, email) = (members.text("current_password"), members.text("email"));
        Some(Self { current: Password::from(current?), email: email? })
    }
}

struct Deletion {
    /// Empty where something was found wrong with it.
    current: Password,
    /// `None` where something was found wrong with it.
    code: Option<Option<String>>,
}

impl FromMembers for Deletion {
    fn from_members(members: &mut Members) -> Option<Self> {
        let current = members.text("current_password").unwrap_or_default();
        Some(Self { current: Password::from(current), code: members.optional_text("code") })
    }
}
