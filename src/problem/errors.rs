//! What a caller is told of each error of this crate. The one file here that knows the other rooms.

use std::error::Error;

use http::StatusCode;
use serde_json::{Value, json};

use super::Problem;
use crate::{
    NoPeerAddr, StoreError,
    api_key::{ApiKeyError, CreateKeyError, KeyObjection},
    auth::{AuthError, CookieTooLong, insufficient},
    second_factor::{SecondFactorError, SecondStepError},
    token::{RefreshError, TokenError},
    user::{
        ChangePasswordError, CheckPasswordError, EmailChangeError, InvalidEmail, LoginError,
        RegisterError, ResetError, UpdateUserError, VerifyError, Violation,
    },
};

/// Who was told that the server is busy comes back after so many seconds.
const BUSY: u64 = 5;

/// The realm of challenges that no layer with a realm of its own gives.
const REALM: &str = "api";

/// 503 where trying again may help, else 500.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            tracing::error!(error = &error as &dyn Error, "a store does not answer");
            Self::unavailable(1)
        } else {
            internal(&error)
        }
    }
}

/// As [`AuthError::to_problem`] has it, for the realm `api`.
impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unavailable(error) => error.into(),
            error => error.to_problem(REALM),
        }
    }
}

/// 401 for a token that isn't good, and for a login that was overtaken; 500 for one that could not be made.
impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::InvalidIdentity(_) | TokenError::Signing => internal(&error),
            TokenError::Overtaken => LoginError::InvalidCredentials.into(),
            error => AuthError::from(error).into(),
        }
    }
}

impl From<RefreshError> for Problem {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Invalid(reason) => {
                tracing::info!(%reason, "refresh refused");
                unauthorized("invalid_refresh_token", "Invalid refresh token")
            }
            RefreshError::Store(error) => error.into(),
            error => internal(&error),
        }
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::InvalidCredentials => {
                unauthorized("invalid_credentials", "Invalid email or password")
            }
            LoginError::EmailNotVerified => {
                Self::new(StatusCode::FORBIDDEN, "email_not_verified", "Email not verified")
            }
            LoginError::Suspended => {
                Self::new(StatusCode::FORBIDDEN, "account_suspended", "Account suspended")
            }
            LoginError::Busy => Self::unavailable(BUSY),
            LoginError::Store(error) => error.into(),
        }
    }
}

impl From<RegisterError> for Problem {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::EmailTaken => conflict("email_taken", "Email already registered"),
            RegisterError::WeakPassword(violations) => weak_password(&violations),
            RegisterError::InvalidEmail(error) => invalid_email(&error),
            RegisterError::Busy => Self::unavailable(BUSY),
            RegisterError::Store(error) => error.into(),
            RegisterError::Suspended => internal(&error),
        }
    }
}

impl From<ResetError> for Problem {
    fn from(error: ResetError) -> Self {
        match error {
            ResetError::InvalidToken => Self::new(
                StatusCode::BAD_REQUEST,
                "invalid_reset_token",
                "Invalid or expired reset token",
            ),
            ResetError::WeakPassword(violations) => weak_password(&violations),
            ResetError::Busy => Self::unavailable(BUSY),
            ResetError::Store(error) => error.into(),
        }
    }
}

impl From<CheckPasswordError> for Problem {
    fn from(error: CheckPasswordError) -> Self {
        match error {
            CheckPasswordError::WrongPassword => wrong_password(),
            CheckPasswordError::Gone => TokenError::Revoked.into(),
            CheckPasswordError::Busy => Self::unavailable(BUSY),
            CheckPasswordError::Store(error) => error.into(),
        }
    }
}

impl From<ChangePasswordError> for Problem {
    fn from(error: ChangePasswordError) -> Self {
        match error {
            ChangePasswordError::WrongPassword => wrong_password(),
            ChangePasswordError::Gone => TokenError::Revoked.into(),
            ChangePasswordError::WeakPassword(violations) => weak_password(&violations),
            ChangePasswordError::Busy => Self::unavailable(BUSY),
            ChangePasswordError::Store(error) => error.into(),
        }
    }
}

impl From<EmailChangeError> for Problem {
    fn from(error: EmailChangeError) -> Self {
        match error {
            EmailChangeError::InvalidToken => Self::new(
                StatusCode::BAD_REQUEST,
                "invalid_email_token",
                "Invalid or expired email token",
            ),
            EmailChangeError::EmailTaken => conflict("email_taken", "Email already registered"),
            EmailChangeError::OwnEmail => invalid("email", "unchanged", "is your address already"),
            EmailChangeError::InvalidEmail(error) => invalid_email(&error),
            // Who is gone, or suspended, has no token any more that is good.
            EmailChangeError::NotFound => AuthError::Revoked.into(),
            EmailChangeError::Outdated => wrong_password(),
            EmailChangeError::Store(error) => error.into(),
        }
    }
}

impl From<VerifyError> for Problem {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::InvalidToken => Self::new(
                StatusCode::BAD_REQUEST,
                "invalid_verification_token",
                "Invalid or expired verification token",
            ),
            VerifyError::Store(error) => error.into(),
        }
    }
}

impl From<UpdateUserError> for Problem {
    fn from(error: UpdateUserError) -> Self {
        match error {
            UpdateUserError::NotFound => Self::not_found(),
            UpdateUserError::LastAdmin => conflict("last_admin", "The last admin must stay"),
            UpdateUserError::NotAllowed => insufficient(REALM),
            UpdateUserError::Outdated => wrong_password(),
            UpdateUserError::Store(error) => error.into(),
        }
    }
}

impl From<ApiKeyError> for Problem {
    fn from(error: ApiKeyError) -> Self {
        AuthError::from(error).into()
    }
}

impl From<CreateKeyError> for Problem {
    fn from(error: CreateKeyError) -> Self {
        match error {
            CreateKeyError::Unfit(objections) => unfit_key(&objections),
            CreateKeyError::TooMany => conflict("too_many_keys", "Too many API keys"),
            // Who is gone has no token any more that is good.
            CreateKeyError::NoOwner => AuthError::Revoked.into(),
            CreateKeyError::Store(error) => error.into(),
        }
    }
}

impl From<SecondFactorError> for Problem {
    fn from(error: SecondFactorError) -> Self {
        match error {
            SecondFactorError::AlreadyOn => conflict("totp_enabled", "Second factor already on"),
            SecondFactorError::NotPending => {
                conflict("totp_not_pending", "No second factor pending")
            }
            SecondFactorError::NoUser => TokenError::Revoked.into(),
            SecondFactorError::WrongCode => {
                Self::new(StatusCode::FORBIDDEN, "wrong_code", "Wrong code")
            }
            SecondFactorError::Store(error) => error.into(),
        }
    }
}

impl From<SecondStepError> for Problem {
    fn from(error: SecondStepError) -> Self {
        match error {
            SecondStepError::InvalidCode => unauthorized("invalid_code", "Invalid code"),
            SecondStepError::Store(error) => error.into(),
        }
    }
}

/// 500: the service's own claims are too long.
impl From<CookieTooLong> for Problem {
    fn from(error: CookieTooLong) -> Self {
        internal(&error)
    }
}

/// 500: the stack is built wrong.
impl From<NoPeerAddr> for Problem {
    fn from(error: NoPeerAddr) -> Self {
        tracing::error!(%error, "can't tell clients apart: the stack is built wrong");
        Self::internal()
    }
}

fn unauthorized(code: &'static str, detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, detail).with_bearer_challenge(REALM, None, None)
}

fn conflict(code: &'static str, detail: &'static str) -> Problem {
    Problem::new(StatusCode::CONFLICT, code, detail)
}

fn unfit_key(objections: &[KeyObjection]) -> Problem {
    let field = |objection: &KeyObjection| {
        let (field, code) = objection.code();
        json!({"field": field, "code": code, "detail": objection.to_string()})
    };
    let errors: Vec<Value> = objections.iter().map(field).collect();
    let sentences: Vec<_> =
        objections.iter().map(|found| format!("{}: {found}", found.code().0)).collect();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", sentences.join("; "))
        .with_member("errors", errors)
}

fn wrong_password() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "wrong_password", "Wrong password")
}

fn invalid_email(error: &InvalidEmail) -> Problem {
    invalid("email", "invalid_email", &format!("is {error}"))
}

fn invalid(field: &str, code: &str, detail: &str) -> Problem {
    let errors = json!([{"field": field, "code": code, "detail": detail}]);
    let sentence = format!("{field}: {detail}");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", sentence)
        .with_member("errors", errors)
}

fn weak_password(violations: &[Violation]) -> Problem {
    let field = |violation: &Violation| json!({"field": "password", "code": violation.code(), "detail": violation.to_string()});
    let errors: Vec<Value> = violations.iter().map(field).collect();
    let sentences: Vec<_> = violations.iter().map(|found| format!("password: {found}")).collect();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", sentences.join("; "))
        .with_member("errors", errors)
}

fn internal(error: &(dyn Error + 'static)) -> Problem {
    tracing::error!(error, "a request failed");
    Problem::internal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::InvalidRefresh;

    #[test]
    fn each_error_has_its_problem() {
        let gone = || StoreError::unavailable("10.0.0.7 refused");
        let broken = || StoreError::internal("syntax error at SELECT");
        let refresh = RefreshError::Invalid(InvalidRefresh::Reused);
        for (problem, status, code) in [
            (gone().into(), 503, "unavailable"),
            (broken().into(), 500, "internal"),
            (StoreError::not_offered("rename").into(), 500, "internal"),
            (TokenError::Expired.into(), 401, "token_expired"),
            (TokenError::Revoked.into(), 401, "token_revoked"),
            (TokenError::Invalid("kid").into(), 401, "invalid_token"),
            (TokenError::Store(gone()).into(), 503, "unavailable"),
            (TokenError::Signing.into(), 500, "internal"),
            (TokenError::InvalidIdentity("exp").into(), 500, "internal"),
            (refresh.into(), 401, "invalid_refresh_token"),
            (RefreshError::Store(gone()).into(), 503, "unavailable"),
            (RefreshError::Signing.into(), 500, "internal"),
            (AuthError::Missing.into(), 401, "authentication_required"),
            (AuthError::Ambiguous("cookie").into(), 400, "invalid_request"),
            (LoginError::InvalidCredentials.into(), 401, "invalid_credentials"),
            (LoginError::EmailNotVerified.into(), 403, "email_not_verified"),
            (LoginError::Suspended.into(), 403, "account_suspended"),
            (TokenError::Overtaken.into(), 401, "invalid_credentials"),
            (LoginError::Busy.into(), 503, "unavailable"),
            (ResetError::InvalidToken.into(), 400, "invalid_reset_token"),
            (CheckPasswordError::WrongPassword.into(), 403, "wrong_password"),
            (CheckPasswordError::Gone.into(), 401, "token_revoked"),
            (ChangePasswordError::WeakPassword(vec![]).into(), 422, "validation_failed"),
            (ChangePasswordError::Gone.into(), 401, "token_revoked"),
            (EmailChangeError::InvalidToken.into(), 400, "invalid_email_token"),
            (EmailChangeError::EmailTaken.into(), 409, "email_taken"),
            (EmailChangeError::OwnEmail.into(), 422, "validation_failed"),
            (RegisterError::EmailTaken.into(), 409, "email_taken"),
            (RegisterError::WeakPassword(vec![]).into(), 422, "validation_failed"),
            (VerifyError::InvalidToken.into(), 400, "invalid_verification_token"),
            (ApiKeyError::Revoked.into(), 401, "token_revoked"),
            (ApiKeyError::Store(gone()).into(), 503, "unavailable"),
            (CreateKeyError::Unfit(vec![]).into(), 422, "validation_failed"),
            (CreateKeyError::TooMany.into(), 409, "too_many_keys"),
            (SecondFactorError::WrongCode.into(), 403, "wrong_code"),
            (SecondFactorError::AlreadyOn.into(), 409, "totp_enabled"),
            (SecondFactorError::NotPending.into(), 409, "totp_not_pending"),
            (SecondFactorError::NoUser.into(), 401, "token_revoked"),
            (SecondStepError::InvalidCode.into(), 401, "invalid_code"),
            (EmailChangeError::Outdated.into(), 403, "wrong_password"),
            (UpdateUserError::Outdated.into(), 403, "wrong_password"),
            (UpdateUserError::NotFound.into(), 404, "not_found"),
            (UpdateUserError::LastAdmin.into(), 409, "last_admin"),
        ] {
            let problem: Problem = problem;
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code));
            let response = problem.into_http();
            let text = String::from_utf8_lossy(response.body());
            assert!(!["10.0", "SELECT", "kid", "rename"].iter().any(|told| text.contains(told)));
            assert_eq!(response.headers().contains_key("www-authenticate"), status == 401);
            assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        }
    }

    #[test]
    fn a_revoked_token_is_told_in_the_challenge() {
        let response = Problem::from(TokenError::Revoked).into_http();
        let challenge =
            r#"Bearer realm="api", error="invalid_token", error_description="Token revoked""#;
        assert_eq!(response.headers()["www-authenticate"], challenge);
    }

    #[test]
    fn all_that_is_wrong_with_a_password_is_said() {
        let problem = Problem::from(RegisterError::WeakPassword(vec![
            Violation::TooShort,
            Violation::NoDigit,
        ]));
        let document: Value = serde_json::from_slice(problem.into_http().body()).unwrap();
        assert_eq!(
            document["errors"][1],
            json!({
                "field": "password", "code": "no_digit", "detail": "must have a digit",
            })
        );
        assert_eq!(
            document["detail"],
            "password: must have at least 10 characters; password: must have a digit"
        );
    }
}
